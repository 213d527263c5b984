/*
 * What an image says of itself: `vireo disk info`.
 */
#ifndef DISK_DISK_INFO_H
#define DISK_DISK_INFO_H

#include "disk/disk.h"

struct disk_info {
    uint64_t size;         /* bytes the guest sees */
    uint64_t allocated;    /* bytes it occupies on the host, as the file system counts */
    uint64_t file_size;    /* bytes, with holes */
    uint32_t cluster_size; /* 0: the format has none */
    unsigned version;      /* 0: the same */
    unsigned refcount_bits;
    char compression[8]; /* "zlib", "zstd", "" */
    bool extended_l2, lazy_refcounts, dirty, corrupt, encrypted;
    char backing[4096];      /* as the image has it; "" */
    char backing_format[16]; /* "" */
    unsigned n_snapshots, n_bitmaps;
};

void disk_info_get(const struct disk *disk, struct disk_info *info);

#endif
