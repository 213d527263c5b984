/*
 * What the files of internal snapshots share.
 *
 *   qcow2_snapshot.c        create, revert, remove, list
 *   qcow2_snapshot_table.c  the table of snapshots: entries, names, the tree
 *   qcow2_snapshot_count.c  the references of whole L1 tables
 *   qcow2_swap.c            from the old metadata to the new, all at once; qcow2_swap_count.c: what it counts and takes
 *   qcow2_snapshot_view.c   a snapshot as a disk of its own
 *
 * A snapshot is a copy of the L1 table, and one more reference to all that it leads to. Which clusters are the disk's alone then changes in all L2
 * tables, and the flags that say so must agree with the refcounts at any moment. So nothing is changed in its place: with no request under way and all
 * metadata in the file, the L2 tables that change, the L1 tables, the refcount blocks that change, the refcount table and the table of snapshots
 * are written where nothing lies yet, and synced; then the header's first sector, which is written whole or not at all, is what decides, and is synced.
 * What the new state has no more is free with that same sector. A power cut leaves the old state or the new one, not even a leak.
 *
 * Memory: the refcount blocks that count what a snapshot refers to, for the time of the call. Plain calls.
 */
#ifndef DISK_QCOW2_SNAPSHOT_H
#define DISK_QCOW2_SNAPSHOT_H

#include "disk/disk_snapshot.h"
#include "disk/qcow2_impl.h"

/* ---- qcow2_snapshot_table.c ---- */

struct qcow2_snapshot_entry {
    uint8_t fixed[40]; /* as the spec's "Snapshots" has them */
    uint8_t *extra;
    uint32_t n_extra;
    char *id, *name; /* with a 0 behind */
    uint16_t n_id, n_name;
};

struct qcow2_snapshot_table {
    struct qcow2_snapshot_entry *items;
    size_t n;
};

/* The table that the file has. The caller's to be freed, also after an error. */
int qcow2_snapshot_table_read(struct qcow2 *q, struct qcow2_snapshot_table *t, struct err *err) MUST_CHECK;
void qcow2_snapshot_table_fini(struct qcow2_snapshot_table *t);
/* As the file has it; *len bytes, the caller's to free; NULL: out of memory. */
uint8_t *qcow2_snapshot_table_pack(const struct qcow2_snapshot_table *t, size_t *len);
/* By name, or else by id; -ENOENT and a line with those that there are. */
int qcow2_snapshot_table_find(const struct qcow2 *q, const struct qcow2_snapshot_table *t, const char *name, size_t *i,
                              struct err *err) MUST_CHECK;
bool qcow2_snapshot_table_has_name(const struct qcow2_snapshot_table *t, const char *name);
/* One more, which becomes the disk's parent; its L1 table is to be filled in. -ENOMEM. */
int qcow2_snapshot_table_add(struct qcow2_snapshot_table *t, const char *name, int64_t time_ns, uint64_t size,
                             struct qcow2_snapshot_entry **entry) MUST_CHECK;
/* The disk's content is that of the i-th now. -ENOMEM. */
int qcow2_snapshot_table_reverted(struct qcow2_snapshot_table *t, size_t i, uint64_t size) MUST_CHECK;
/* The i-th is gone, and its children are its parent's. -ENOMEM. */
int qcow2_snapshot_table_remove(struct qcow2_snapshot_table *t, size_t i, uint64_t size) MUST_CHECK;
/* Bytes of the disk then; `size` where the entry does not say. */
uint64_t qcow2_snapshot_table_size(const struct qcow2_snapshot_entry *entry, uint64_t size);
int qcow2_snapshot_table_list(const struct qcow2_snapshot_table *t, uint64_t size,
                              struct disk_snapshots *list) MUST_CHECK;

/* ---- qcow2_swap.c ---- */

struct qcow2_swap_run {
    uint64_t first, n; /* clusters */
};

struct qcow2_swap_runs {
    struct qcow2_swap_run *items;
    size_t n, capacity;
};

struct qcow2_swap {
    struct qcow2 *q;
    struct err *err;

    uint8_t **blocks; /* refcount blocks in memory, by their index */
    bool *changed;    /* they differ from the file's */
    uint64_t *places; /* clusters that they go to; 0: none yet */
    size_t n_blocks;  /* room in these arrays */
    uint64_t n_loaded;
    uint64_t last;                           /* the block looked at last */
    uint64_t max;                            /* the most that a refcount can tell */
    bool lone;                               /* a count fell to one: flags may change */
    uint64_t table, table_clusters, n_table; /* the new refcount table: its first cluster, its size, entries */

    struct qcow2_swap_runs room;         /* free in the file and in memory */
    uint64_t beyond;                     /* free from here on, as far as nobody says otherwise */
    struct qcow2_swap_runs gone;         /* no longer referred to */
    struct qcow2_swap_runs enter, leave; /* the set of clusters that hold metadata */

    uint8_t *out; /* what is to be written at out_at */
    size_t out_len, out_size;
    uint64_t out_at;
    uint8_t *in; /* L2 tables that were read, from in_at on */
    size_t in_len, in_size;
    uint64_t in_at;

    /* The new state; as it was where nobody changes it. */
    struct qcow2_table l1;
    size_t l1_clusters;
    uint64_t size; /* the header's field */
    struct qcow2_snapshot *snapshots;
    uint32_t n_snapshots;
    uint64_t snapshots_offset, snapshots_bytes;
};

/* Finds room for `want` clusters, which more can be had of. Until qcow2_swap_fini(). */
int qcow2_swap_init(struct qcow2_swap *s, struct qcow2 *q, uint64_t want, struct err *err) MUST_CHECK;
void qcow2_swap_fini(struct qcow2_swap *s);
/* len bytes to be filled in before the next call, and written; at most 2 MiB. */
int qcow2_swap_stage(struct qcow2_swap *s, uint64_t offset, size_t len, uint8_t **buf) MUST_CHECK;
int qcow2_swap_write(struct qcow2_swap *s, uint64_t offset, const void *data, size_t len) MUST_CHECK;
/*
 * The new state, in the file and in memory. After an error, the old one is. punch: what is gone is given back to the host where the disk does that, after
 * the call.
 */
int qcow2_swap_commit(struct qcow2_swap *s, bool punch) MUST_CHECK;

/* ---- qcow2_swap_count.c ---- */

/* What the file's refcount table has for a block; 0: it has none. */
static inline uint64_t qcow2_swap_entry(const struct qcow2_swap *s, uint64_t block)
{
    return block < s->q->refcounts.n ? s->q->refcounts.entries[block] : 0;
}

/* Where a block has the cluster's count. */
static inline unsigned qcow2_swap_index(const struct qcow2 *q, uint64_t cluster)
{
    return (unsigned)(cluster & ((UINT64_C(1) << q->block_bits) - 1));
}

int qcow2_swap_find_room(struct qcow2_swap *s, uint64_t want) MUST_CHECK;
/* One line about the image, for the err. Returns r. */
int qcow2_swap_fail(struct qcow2_swap *s, int r, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* One reference more (+1) or less (-1) to a cluster; `data`: which must not be metadata. */
int qcow2_swap_count(struct qcow2_swap *s, uint64_t cluster, int delta, bool data) MUST_CHECK;
/* The new count. */
int qcow2_swap_counted(struct qcow2_swap *s, uint64_t cluster, uint64_t *count) MUST_CHECK;
/* n adjacent clusters for metadata. */
int qcow2_swap_take(struct qcow2_swap *s, uint64_t n, uint64_t *first) MUST_CHECK;
/* References to n clusters of metadata are gone. */
int qcow2_swap_drop(struct qcow2_swap *s, uint64_t offset, uint64_t bytes) MUST_CHECK;
int qcow2_swap_note(struct qcow2_swap *s, struct qcow2_swap_runs *runs, uint64_t first, uint64_t n) MUST_CHECK;

/* ---- qcow2_snapshot_count.c ---- */

/* The active L1 table's references are the new snapshot's too; the disk gets tables of its own where flags change. Fills in s->l1. */
int qcow2_snapshot_count_create(struct qcow2_swap *s) MUST_CHECK;
/* What the n entries of a snapshot refer to has one reference less. */
int qcow2_snapshot_count_drop(struct qcow2_swap *s, const uint64_t *l1, size_t n) MUST_CHECK;
/* The disk refers to what the n entries of a snapshot do, and no longer to what it did. Fills in s->l1. */
int qcow2_snapshot_count_revert(struct qcow2_swap *s, const uint64_t *l1, size_t n) MUST_CHECK;
/* What has become the disk's alone is flagged so. Fills in s->l1 where that changes. */
int qcow2_snapshot_count_flag(struct qcow2_swap *s) MUST_CHECK;

/* ---- qcow2_snapshot_view.c ---- */

int qcow2_snapshot_view(struct disk **view, struct disk *disk, const char *name, struct err *err) MUST_CHECK;
/* The snapshot with its L1 table there is open as a disk. */
bool qcow2_snapshot_viewed(const struct qcow2 *q, uint64_t l1_offset);
/* The entries of a snapshot's L1 table, which are the caller's to free, also after an error. */
int qcow2_snapshot_read_l1(struct qcow2 *q, const struct qcow2_snapshot *snapshot, uint64_t **entries,
                           struct err *err) MUST_CHECK;

#endif
