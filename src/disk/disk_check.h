/*
 * Whether an image is sound: everything that refers to a place in it counted anew, and held against what it says of itself.
 */
#ifndef DISK_DISK_CHECK_H
#define DISK_DISK_CHECK_H

#include "disk/disk.h"

struct disk_check {
    bool repair; /* the caller's: mends what can be without losing data */
    /* The caller's, may be NULL: a line for each finding ("offset 0x50000: refcount 0, references 1"), at most a hundred; and how far it is, in bytes
     * of the guest's, where -EINTR ends it before anything is repaired. */
    void (*finding)(void *opaque, const char *line);
    int (*progress)(void *opaque, uint64_t done, uint64_t of);
    void *opaque;

    uint64_t errors, leaks; /* found; of leaks clusters */
    uint64_t errors_repaired, leaks_repaired;
    uint64_t allocated, compressed, total; /* clusters of the guest's */
    uint64_t end;                          /* of what is used in the file, bytes */
};

/*
 * With no request under way. -EIO and the like only where the image cannot be read; what is wrong with it is counted. An image that is in use is checked;
 * one that is repaired was opened with disk_conf.check, and serves for nothing else. Cut short anywhere, a repair leaves the image no worse than it was.
 */
int disk_check_image(struct disk *disk, struct disk_check *check, struct err *err) MUST_CHECK;

#endif
