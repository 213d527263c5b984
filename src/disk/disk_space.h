/*
 * Looks now and then whether the file system under a thin image has room for what its images promise, and warns before the last of it is gone: once, and
 * again when it had recovered.
 *
 * Threads: the disk's loop's.
 */
#ifndef DISK_DISK_SPACE_H
#define DISK_DISK_SPACE_H

#include "disk/disk.h"

#define DISK_SPACE_DEFAULT GIB /* bytes */

struct disk_space {
    const struct disk *disk;
    uint64_t least; /* bytes free under which it warns */
    bool warned;
    struct loop_timer timer;
};

/* least: 0 for no warning. Disks that are only read, and what is not a file here, are not watched. Until disk_space_fini(), before the disk is closed. */
void disk_space_init(struct disk_space *space, const struct disk *disk, uint64_t least);
void disk_space_fini(struct disk_space *space);

#endif
