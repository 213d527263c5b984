/*
 * Looks now and then whether the file system under a thin image has room for what its images promise, and warns before the last of it is gone: once, and
 * again when it had recovered.
 *
 * Threads: the disk's loop's; disk_space_read(): any.
 */
#ifndef DISK_DISK_SPACE_H
#define DISK_DISK_SPACE_H

#include <stdatomic.h>

#include "disk/disk.h"

/* How much is to be free: less, and it warns. */
struct disk_space_limit {
    uint64_t bytes;
    unsigned percent; /* of the file system; 0: bytes counts, where 0 is for no warning */
};

#define DISK_SPACE_DEFAULT "10%"

struct disk_space {
    const struct disk *disk;
    struct disk_space_limit limit;
    _Atomic uint64_t available; /* bytes, as of the last look */
    _Atomic bool scarce;
    int64_t counted; /* ns: when promises were added up */
    struct loop_timer timer;
};

/* "10%", "20G", "0"; false where it is neither. */
bool disk_space_parse(const char *text, struct disk_space_limit *limit);

/* Disks that are only read, and what is not a file here, are not watched. Until disk_space_fini(), before the disk is closed. */
void disk_space_init(struct disk_space *space, const struct disk *disk, const struct disk_space_limit *limit);
void disk_space_fini(struct disk_space *space);

/* False where nothing is watched. *scarce: it has warned, and has not recovered since. */
bool disk_space_read(const struct disk_space *space, uint64_t *available, bool *scarce);

#endif
