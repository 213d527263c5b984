/*
 * A disk of which only some parts count: the others are holes in what DISK_MAP tells. What an incremental backup copies from. Only read.
 */
#ifndef IMAGE_DELTA_H
#define IMAGE_DELTA_H

#include "disk/dirty.h"
#include "disk/disk.h"

/* bits: each of 2^granularity_bits bytes of `below`; both must outlive the disk. -ENOMEM. */
int delta_open(struct disk **disk, struct disk *below, const struct dirty *bits, unsigned granularity_bits) MUST_CHECK;

#endif
