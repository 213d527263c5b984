/*
 * qcow2, versions 2 and 3 (QEMU's docs/interop/qcow2.txt): a thin image that takes the room its guest wrote.
 *
 * Not known here, and refused by name: backing files, encryption, external data files, extended L2 entries, and incompatible features that
 * nobody has named yet. An image that is marked corrupt is only read. Internal snapshots are kept: what they share is copied before it is
 * written. Persistent bitmaps become inconsistent with the first writer, and are marked so.
 */
#ifndef DISK_QCOW2_H
#define DISK_QCOW2_H

#include "disk/disk.h"

struct qcow2_create_conf {
    uint64_t size;          /* bytes, whole blocks */
    unsigned version;       /* 2 or 3; 0: 3 */
    uint32_t cluster_size;  /* 512 to 2 MiB, a power of two; 0: 64 KiB */
    unsigned refcount_bits; /* 1 to 64, a power of two; 0: 16, the only one of version 2 */
};

/* Makes an empty image in a new file: -EEXIST where there is one. What was made of it is removed after an error. Blocks. */
int qcow2_create(const char *path, const struct qcow2_create_conf *conf, struct err *err) MUST_CHECK;

#endif
