/*
 * A walk through what a disk is made of (DISK_MAP), from the first byte to the last, a window ahead of whoever walks. A disk that cannot tell is all data.
 *
 * Threads: the loop's of the disk.
 */
#ifndef IMAGE_EXTENTS_H
#define IMAGE_EXTENTS_H

#include "disk/disk.h"

struct image_extents {
    struct disk *disk;
    unsigned layers; /* what lies deeper down the chain is a hole; 0: nothing does */
    void (*ready)(void *opaque);
    void *opaque;

    struct disk_request req;
    struct disk_extent *items;
    unsigned n, at;
    uint64_t start, end; /* what items tell of */
    uint64_t window;     /* bytes to ask for */
    bool busy, all_data;
    int result;
};

/* ready: what image_extents_at() could not tell, it can now. Never from within that. 0 or -ENOMEM. */
int image_extents_init(struct image_extents *e, struct disk *disk, unsigned layers, void (*ready)(void *opaque),
                       void *opaque) MUST_CHECK;
void image_extents_fini(struct image_extents *e); /* not while busy */

/*
 * What lies at `pos`, which is within the disk and never falls; the same until *end, at least. 0; -EAGAIN: later; or an error of the disk's.
 */
int image_extents_at(struct image_extents *e, uint64_t pos, enum disk_extent_kind *kind, uint64_t *end) MUST_CHECK;

#endif
