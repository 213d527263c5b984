/*
 * What the files of the check (disk_check.h) share.
 *
 *   qcow2_check.c         the check as a whole, and its comparison of refcounts
 *   qcow2_check_walk.c    all references: tables, snapshots, bitmaps, the refcounts themselves
 *   qcow2_check_counts.c  counters for a window of clusters
 *   qcow2_check_repair.c  what is put right, and in which order
 *
 * Memory is bounded whatever the image: references are counted for a window of clusters at a time, and walked once for each window. Of an image of
 * 64 KiB clusters, a TiB is one window. All are plain calls to the file; the cache of an open image is not touched.
 */
#ifndef DISK_QCOW2_CHECK_H
#define DISK_QCOW2_CHECK_H

#include "disk/disk_check.h"
#include "disk/qcow2_impl.h"

#define QCOW2_CHECK_WINDOW (16 * MIB) /* clusters: whole refcount blocks, whatever their shape */

/* What is known of a cluster besides how often it is referred to. */
enum {
    QCOW2_CHECK_ONE = 1 << 0,  /* its refcount in the file is 1 */
    QCOW2_CHECK_META = 1 << 1, /* metadata that nothing else may refer to */
    QCOW2_CHECK_L2 = 1 << 2,   /* an L2 table, of which snapshots may share */
    QCOW2_CHECK_DATA = 1 << 3,
    QCOW2_CHECK_TOLD = 1 << 4, /* that it is two things at once */
};

/* Counters of clusters [first, first + QCOW2_CHECK_WINDOW), in chunks that are there from the first use on and get wider where that is needed. */
struct qcow2_counts {
    uint64_t first;
    struct qcow2_counts_chunk {
        uint16_t *narrow; /* 5 bits of what it is, 11 of a counter */
        uint32_t *wide;   /* the same, with 27 bits; in place of narrow */
    } * chunks;
};

int qcow2_counts_init(struct qcow2_counts *counts) MUST_CHECK;
void qcow2_counts_clear(struct qcow2_counts *counts, uint64_t first);
void qcow2_counts_fini(struct qcow2_counts *counts);
/* A cluster of the window: adds to its counter (up to 2^27 - 1) and to what is known of it. -ENOMEM. */
int qcow2_counts_add(struct qcow2_counts *counts, uint64_t cluster, unsigned n, unsigned flags) MUST_CHECK;
uint32_t qcow2_counts_get(const struct qcow2_counts *counts, uint64_t cluster, unsigned *flags);

/* What a walk is for, besides counting. */
enum qcow2_check_mode {
    QCOW2_CHECK_LOOK,    /* what is wrong is told and counted */
    QCOW2_CHECK_COUNTS,  /* refcounts are set to what was counted */
    QCOW2_CHECK_REBUILD, /* the refcounts there are do not count: they are about to be replaced */
    QCOW2_CHECK_ENTRIES, /* flags and entries are put right */
};

struct qcow2_check {
    struct qcow2 *q;
    struct disk_check *told;
    struct err *err;
    enum qcow2_check_mode mode;
    bool quiet; /* LOOK: findings are counted, and not told */

    uint64_t bytes, n; /* of the file; clusters, and one more that may begin in its last */
    uint64_t max;      /* what a refcount can be */
    struct qcow2_counts counts;
    uint64_t errors, leaks;
    unsigned n_told;
    bool rebuild;  /* the refcounts' own structure is wrong, or lacks a block */
    bool dangling; /* entries refer to places beyond the file's end */
    uint64_t done, total;

    uint8_t *l2, *block; /* a cluster each */
};

/* ---- qcow2_check.c ---- */

/* An error of the image's: counted in the first window (`once`) or wherever it is seen. */
void qcow2_check_error(struct qcow2_check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Whether what is wrong with an entry itself is to be told: in one window only. */
static inline bool qcow2_check_once(const struct qcow2_check *c)
{
    return c->mode == QCOW2_CHECK_LOOK && c->counts.first == 0;
}
/* Walks all windows in a mode. `each`: when a window is counted; may be NULL. */
int qcow2_check_windows(struct qcow2_check *c, enum qcow2_check_mode mode,
                        int (*each)(struct qcow2_check *c, void *opaque), void *opaque) MUST_CHECK;
/* LOOK at all: errors, leaks and `rebuild` are new. */
int qcow2_check_look(struct qcow2_check *c) MUST_CHECK;
/* Where the refcount block of the table's entry `i` is: 0: nowhere; 1: the entry is wrong, and nobody knows. */
uint64_t qcow2_check_block_at(const struct qcow2_check *c, uint64_t i);
/* Reads it into c->block: 0; 1: there is none; 2: the entry is wrong; or an error. */
int qcow2_check_block(struct qcow2_check *c, uint64_t i) MUST_CHECK;
int qcow2_check_read(struct qcow2_check *c, uint64_t offset, void *buf, size_t len, const char *what) MUST_CHECK;

/* ---- qcow2_check_walk.c ---- */

int qcow2_check_walk(struct qcow2_check *c) MUST_CHECK;

/* ---- qcow2_check_repair.c ---- */

int qcow2_check_repair(struct qcow2_check *c) MUST_CHECK;
/* With nothing wrong any more: the bits that say that something may be. */
int qcow2_check_mark_sound(struct qcow2_check *c) MUST_CHECK;

#endif
