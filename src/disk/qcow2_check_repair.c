/*
 * What a check found, put right, in this order:
 *   1. refcounts: in place where their blocks are sound; otherwise a new table and its blocks behind everything else, and then the header that
 *      points to them;  sync
 *   2. "copied" flags, which say what refcounts say, and entries that can be without losing data;  sync
 *   3. with nothing wrong any more, the header's bits that say that something may be;  sync
 * A refcount is set to the references that were counted, never below. So, cut short anywhere, no step leaves more wrong than there was: a flag that was
 * wrong is wrong as before, or says less than it may.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_check.h"

typedef unsigned long long ull;

static int write_at(struct qcow2_check *c, uint64_t offset, const void *buf, size_t len, const char *what)
{
    int r = file_write(c->q->file, offset, buf, len);
    return r ? err_set(c->err, r, "%s at 0x%llx cannot be written: %s", what, (ull)offset, strerror(-r)) : 0;
}

static int sync_file(struct qcow2_check *c)
{
    int r = file_sync(c->q->file);
    return r ? err_set(c->err, r, "what was repaired cannot be flushed: %s", strerror(-r)) : 0;
}

static int write_header(struct qcow2_check *c)
{
    int r = write_at(c, 0, c->q->header, sizeof(c->q->header), "the header");
    return r ? r : sync_file(c);
}

/* ---- in place ---- */

static int set_block(struct qcow2_check *c, uint64_t first, uint64_t end)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    unsigned flags;

    for (uint64_t i = 0; first + i < end; i++) {
        uint64_t counted = qcow2_counts_get(&c->counts, first + i, &flags);
        if (!counted && (first + i) << q->cluster_bits >= c->bytes)
            continue; /* not there */
        if (qcow2_refcount_read(q, c->block, (unsigned)i) == counted)
            continue;
        qcow2_refcount_write(q, c->block, (unsigned)i, counted);
        changed = true;
    }
    return changed ? write_at(c, q->refcounts.entries[first >> q->block_bits], c->block, q->cluster_size,
                              "the refcount block")
                   : 0;
}

static int set_counts(struct qcow2_check *c, void *opaque)
{
    uint64_t per_block = UINT64_C(1) << c->q->block_bits, first = c->counts.first;
    uint64_t end = c->n - first < QCOW2_CHECK_WINDOW ? c->n : first + QCOW2_CHECK_WINDOW;
    int r = 0;

    for (; r >= 0 && first < end; first += per_block) {
        r = qcow2_check_block(c, first >> c->q->block_bits);
        if (r == 0)
            r = set_block(c, first, end - first < per_block ? end : first + per_block);
    }
    return r < 0 ? r : 0;
}

/* ---- anew ---- */

struct layout {
    uint64_t first, table_clusters, n_blocks; /* clusters: the table from `first` on, then the blocks */
    uint8_t *table;
};

static uint64_t lay_out(const struct qcow2_check *c, struct layout *l)
{
    const struct qcow2 *q = c->q;

    *l = (struct layout){.first = c->n, .table_clusters = 1, .n_blocks = 1};
    for (;;) {
        uint64_t end = l->first + l->table_clusters + l->n_blocks, blocks = ((end - 1) >> q->block_bits) + 1;
        uint64_t clusters = (blocks * 8 + q->cluster_size - 1) >> q->cluster_bits;
        if (blocks <= l->n_blocks && clusters <= l->table_clusters)
            return end;
        l->n_blocks = blocks;
        l->table_clusters = clusters;
    }
}

/* The blocks of a window; those behind c->n are of the new structure itself. */
static int write_blocks(struct qcow2_check *c, const struct layout *l, uint64_t first, uint64_t last)
{
    struct qcow2 *q = c->q;
    uint64_t per_block = UINT64_C(1) << q->block_bits, end = l->first + l->table_clusters + l->n_blocks;
    int r = 0;

    for (uint64_t b = first >> q->block_bits; r == 0 && b <= (last - 1) >> q->block_bits; b++) {
        memset(c->block, 0, q->cluster_size);
        for (uint64_t i = 0; i < per_block; i++) {
            uint64_t cluster = b * per_block + i;
            unsigned flags;
            if (cluster < c->n && cluster - c->counts.first < QCOW2_CHECK_WINDOW)
                qcow2_refcount_write(q, c->block, (unsigned)i, qcow2_counts_get(&c->counts, cluster, &flags));
            else if (cluster >= l->first && cluster < end)
                qcow2_refcount_write(q, c->block, (unsigned)i, 1);
        }
        uint64_t at = (l->first + l->table_clusters + b) << q->cluster_bits;
        qcow2_put_be64(l->table + b * 8, at);
        r = write_at(c, at, c->block, q->cluster_size, "a new refcount block");
    }
    return r;
}

static int write_window(struct qcow2_check *c, void *opaque)
{
    struct layout *l = opaque;
    uint64_t first = c->counts.first, end = l->first + l->table_clusters + l->n_blocks;
    bool is_last = c->n - first <= QCOW2_CHECK_WINDOW;

    return write_blocks(c, l, first, is_last ? end : first + QCOW2_CHECK_WINDOW);
}

/* The new table takes the place of the one in memory too. */
static int take_table(struct qcow2_check *c, const struct layout *l)
{
    struct qcow2 *q = c->q;
    size_t n = (l->table_clusters << q->cluster_bits) / 8;
    uint64_t *entries = realloc(q->refcounts.entries, n * 8);

    if (!entries)
        return err_set(c->err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        entries[i] = qcow2_be64(l->table + i * 8);
    q->refcounts.entries = entries;
    q->refcounts.n = n;
    q->refcounts.offset = l->first << q->cluster_bits;
    qcow2_put_be64(q->header + 48, q->refcounts.offset);
    qcow2_put_be32(q->header + 56, (uint32_t)l->table_clusters);
    c->bytes = file_size(q->file);
    c->n = ((c->bytes + q->cluster_size - 1) >> q->cluster_bits) + 1;
    return 0;
}

static int rebuild(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    struct layout l;
    uint64_t end = lay_out(c, &l);

    if (l.table_clusters << q->cluster_bits > QCOW2_MAX_TABLE || end << q->cluster_bits >= QCOW2_MAX_OFFSET)
        return err_set(c->err, -EFBIG, "a new refcount table of %llu clusters is too big", (ull)l.table_clusters);
    l.table = calloc(l.table_clusters, q->cluster_size);
    if (!l.table)
        return err_set(c->err, -ENOMEM, "out of memory");
    int r = qcow2_check_windows(c, QCOW2_CHECK_REBUILD, write_window, &l);
    if (r == 0)
        r = write_at(c, l.first << q->cluster_bits, l.table, l.table_clusters << q->cluster_bits,
                     "the new refcount table");
    if (r == 0)
        r = sync_file(c);
    if (r == 0)
        r = take_table(c, &l);
    if (r == 0)
        r = write_header(c);
    free(l.table);
    return r;
}

/* ---- all of it ---- */

int qcow2_check_repair(struct qcow2_check *c)
{
    if (c->rebuild && c->dangling) /* what is new would lie where some entries say that theirs is */
        return 0;
    int r = c->rebuild ? rebuild(c) : qcow2_check_windows(c, QCOW2_CHECK_COUNTS, set_counts, NULL);

    if (r == 0)
        r = sync_file(c);
    if (r == 0) /* for leaks too: of a cluster with a refcount of 1 again, the flag says so */
        r = qcow2_check_windows(c, QCOW2_CHECK_ENTRIES, NULL, NULL);
    return r ? r : sync_file(c);
}

int qcow2_check_mark_sound(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;

    if (!(q->incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT)))
        return 0;
    q->incompatible &= ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);
    qcow2_put_be64(q->header + 72, q->incompatible);
    return write_header(c);
}
