/*
 * What thin images promise: each tells its guest of room that it does not take yet. When the images of a file system promise more than it has free, one of them
 * will meet the end of it.
 */
#ifndef DISK_DISK_THIN_H
#define DISK_DISK_THIN_H

#include "base/err.h"

struct disk_promises {
    uint64_t promised;  /* bytes that guests may still write, and that are not taken yet */
    uint64_t available; /* bytes, on the file system, for whoever asks */
    unsigned images;
};

/*
 * Adds up the images in the directory of the one at `path`, as far as their names end as images do (disk/formats.def): up to 10,000 files, of which only
 * size, room and header are looked at. -errno where the directory cannot be read; -ENOENT for a disk that is no file.
 */
int disk_thin_promises(const char *path, struct disk_promises *sum) MUST_CHECK;

/* What the image at `path` promises by itself. */
int disk_thin_promise(const char *path, uint64_t *bytes) MUST_CHECK;

/* Warns in the log where they promise more than there is, and says by how much. */
void disk_thin_warn(const char *path);

#endif
