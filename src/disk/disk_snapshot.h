/*
 * Internal snapshots: what a disk held at some time, kept in its image. They form a tree: a snapshot's parent is the one that the disk was made
 * from, or reverted to, or that was taken last before it.
 *
 * All of this runs on the disk's loop's thread. What changes something may be called with requests under way, also for a running VM: the disk holds back
 * what is submitted meanwhile, lets finish what is under way, and returns when the change is durable.
 */
#ifndef DISK_DISK_SNAPSHOT_H
#define DISK_DISK_SNAPSHOT_H

#include "disk/disk.h"

#define DISK_SNAPSHOT_NAME_MAX 256 /* with its end */
#define DISK_SNAPSHOT_ID_MAX   32

struct disk_snapshot {
    char id[DISK_SNAPSHOT_ID_MAX]; /* the format's; not given again while the image has a snapshot */
    char name[DISK_SNAPSHOT_NAME_MAX];
    char parent[DISK_SNAPSHOT_ID_MAX]; /* "": none, or nobody knows */
    int64_t time_ns;                   /* since the epoch */
    uint64_t disk_size;                /* bytes, then */
    uint64_t state_size;               /* bytes of a saved machine that another program put there */
};

struct disk_snapshots {
    size_t n;
    struct disk_snapshot *items;        /* oldest first */
    char current[DISK_SNAPSHOT_ID_MAX]; /* the disk's own parent; "" */
};

struct disk_snapshot_ops {
    int (*create)(struct disk *disk, const char *name, int64_t time_ns, struct err *err);
    int (*revert)(struct disk *disk, const char *name, struct err *err);
    int (*remove)(struct disk *disk, const char *name, struct err *err);
    int (*list)(struct disk *disk, struct disk_snapshots *list, struct err *err);
    int (*view)(struct disk **view, struct disk *disk, const char *name, struct err *err);
};

/* Names are unique in an image: -EEXIST. A name or an id names a snapshot elsewhere: -ENOENT, and a line that lists those that there are. */
int disk_snapshot_create(struct disk *disk, const char *name, int64_t time_ns, struct err *err) MUST_CHECK;
/* The disk's content, and its size, are the snapshot's again; what it held until now is lost, unless it is in a snapshot of its own. */
int disk_snapshot_revert(struct disk *disk, const char *name, struct err *err) MUST_CHECK;
int disk_snapshot_remove(struct disk *disk, const char *name, struct err *err) MUST_CHECK;
/* The caller frees list->items, also an empty list's. */
int disk_snapshot_list(struct disk *disk, struct disk_snapshots *list, struct err *err) MUST_CHECK;

/*
 * The snapshot as a disk of its own, which is only read, while `disk` goes on; on the same loop. Until it is closed the snapshot cannot be removed
 * (-EBUSY), and `disk` is not closed before it is.
 */
int disk_snapshot_view(struct disk **view, struct disk *disk, const char *name, struct err *err) MUST_CHECK;

#endif
