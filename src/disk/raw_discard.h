/*
 * A raw image's discards, behind the guest's back: a file system may take a second to free a GiB, and lets nobody write meanwhile. So a discard is done when
 * it is noted; what was noted is punched piece by piece, and what is written before its turn comes is left out. Whoever reads it waits for it, and so
 * sees zeroes where the file can have holes.
 *
 * Threads: the loop's. One piece at a time is with the file.
 */
#ifndef DISK_RAW_DISCARD_H
#define DISK_RAW_DISCARD_H

#include "disk/file.h"

#define RAW_DISCARD_RANGES 256 /* noted; further ones go to the file at once */
#define RAW_DISCARD_PIECE  (32 * MIB)

struct raw_range {
    uint64_t offset, end;
};

struct raw_discard {
    struct disk *disk;
    struct file *file;
    struct raw_range ranges[RAW_DISCARD_RANGES];
    unsigned n;
    uint64_t piece_most; /* bytes: RAW_DISCARD_PIECE */
    bool busy;           /* `piece` is with the file */
    bool failed;         /* it has, once: the guest hears of it from now on */
    struct disk_request piece;
    struct disk_request *waiting, **waiting_tail; /* for what lies in their way */
};

void raw_discard_init(struct raw_discard *d, struct disk *disk, struct file *file);

/* A checked request, of any kind. */
void raw_discard_submit(struct raw_discard *d, struct disk_request *req);

/* Waits until all of it is done. */
void raw_discard_drain(struct raw_discard *d);

#endif
