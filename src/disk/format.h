/*
 * What the image formats are to disk.c: NAME_open() for each line of formats.def, as disk_open() says. It allocates the format's state, in which a
 * struct disk is embedded, and calls disk_init(). NAME_create() makes a new image, as disk_create() says.
 */
#ifndef DISK_FORMAT_H
#define DISK_FORMAT_H

#include "disk/disk.h"
#include "disk/disk_create.h"

/* A new file at `path`, or the empty one that is there: a descriptor, or -EEXIST and the like. */
int format_new_file(const char *path) MUST_CHECK;
/* The room of a new file of `size` bytes, as conf->preallocation says: promised by the file system, or written. Its zeroes stay zeroes. */
int format_preallocate(int fd, const struct disk_create_conf *conf, uint64_t size, struct err *err) MUST_CHECK;
/* Says that it failed with `code`, which it returns; what conf->report had to say stays. */
int format_cannot_make(const struct disk_create_conf *conf, int code, struct err *err);

#define FORMAT(name, endings, help)                                                                                   \
    int name##_open(struct disk **disk, const struct disk_conf *conf, struct loop *loop, struct err *err) MUST_CHECK; \
    int name##_create(const struct disk_create_conf *conf, struct err *err) MUST_CHECK;
#include "disk/formats.def"
#undef FORMAT

#endif
