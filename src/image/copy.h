/*
 * Copies what one disk holds to another, with many requests under way: only what is data, as DISK_MAP tells, and what turns out to be all zeroes is not written
 * either.
 *
 * Threads: the loop's, which both disks share. The copy goes on while others use `from`; what they write meanwhile may be in it or not, so the
 * source is a snapshot's view, or nobody writes to it.
 */
#ifndef IMAGE_COPY_H
#define IMAGE_COPY_H

#include "disk/disk.h"
#include "image/job.h"

struct image_copy_conf {
    struct disk *from, *to; /* of one loop; where `to` is longer, the rest stays as it is */
    bool to_is_zero;        /* `to` reads as zeroes: zeroes need not be written */
    bool compress;          /* in compressed clusters, where the format has them; `to` is new */
    bool skip_holes;        /* holes stay what they are in `to`: they come from its backing file */
    unsigned depth;         /* requests under way at most: no more than help; 0: 16 */
    size_t chunk;           /* bytes a request; 0: 256 KiB. A multiple of the cluster, where compressed */
    unsigned layers; /* how many images of the source's chain count, from the first; deeper extents are holes; 0: all */
    const struct image_job *job;
};

struct image_copy;

/* done comes once, on the loop's thread, never from within the call; then the copy is gone. 0 or -ENOMEM. */
int image_copy_start(struct image_copy **copy, const struct image_copy_conf *conf,
                     void (*done)(void *opaque, int result, const struct err *err), void *opaque) MUST_CHECK;
/* done comes soon, with -EINTR. */
void image_copy_cancel(struct image_copy *copy);

/* The same for whoever has the loop to itself: returns when it is done, flushed. */
int image_copy(const struct image_copy_conf *conf, struct err *err) MUST_CHECK;

#endif
