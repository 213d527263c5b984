/*
 * New images. A format makes them as NAME_create() beside its NAME_open(); both are found by formats.def.
 */
#ifndef DISK_DISK_CREATE_H
#define DISK_DISK_CREATE_H

#include "disk/disk.h"

enum disk_preallocation {
    DISK_PREALLOCATE_OFF,      /* thin: takes the room its guest writes */
    DISK_PREALLOCATE_METADATA, /* thin, but all tables are there */
    DISK_PREALLOCATE_FALLOC,   /* thick: the file system promises the room */
    DISK_PREALLOCATE_FULL,     /* thick: written */
};

/* What 0 and NULL stand for is the format's default. -EINVAL and a line where a format has no such thing. */
struct disk_create_conf {
    const char *path;   /* of a new file, or of an empty one: -EEXIST otherwise */
    const char *name;   /* what messages call it; NULL: path */
    const char *format; /* as in disk_conf */
    uint64_t size;      /* bytes, whole blocks */
    int preallocation;  /* enum disk_preallocation */
    unsigned version;
    uint32_t cluster_size;
    unsigned refcount_bits;
    const char *compression; /* "zlib", "zstd" */
    bool extended_l2, lazy_refcounts;
    const char *backing, *backing_format; /* written as they are; both or none */
    /* While much is written (DISK_PREALLOCATE_FULL): bytes. An error ends it, with the message it has. NULL: nobody wants to know. */
    int (*report)(const void *opaque, uint64_t done, uint64_t total, struct err *err);
    const void *opaque;
};

/* Blocks. What was made of it is removed after an error. */
int disk_create(const struct disk_create_conf *conf, struct err *err) MUST_CHECK;

#endif
