/*
 * Refcounts made anew, for an image whose dirty bit says that they may be wrong: all references of the L1 tables, the active one and the
 * snapshots', are counted; the active tables' "copied" flags are put right; then a new refcount table and its blocks are written behind everything else,
 * and last the header that points to them and has no dirty bit. Cut short anywhere, it starts again at the next open.
 *
 * Plain calls, before the first request.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/qcow2_bitmap.h"

#define MAX_COUNTED (24 * MIB) /* clusters */
#define MAX_TABLES  GIB        /* bytes of L2 tables read: what is beyond loops, or is not for the time of an open */

typedef unsigned long long ull;

struct repair {
    struct qcow2 *q;
    uint16_t *counts; /* for each cluster below n */
    uint64_t n, max, bytes;
    uint8_t *table; /* an L2 table */
    struct err *err;
};

static int count(struct repair *p, uint64_t first, uint64_t n)
{
    if (first >= p->n || n > p->n - first)
        return err_set(p->err, -EINVAL, "the cluster at 0x%llx is referred to, and beyond the file's end",
                       (ull)(first << p->q->cluster_bits));
    for (uint64_t c = first; c < first + n; c++) {
        if (p->counts[c] >= p->max)
            return err_set(p->err, -EINVAL, "the cluster at 0x%llx has more references than its refcount can tell",
                           (ull)(c << p->q->cluster_bits));
        p->counts[c]++;
    }
    return 0;
}

static int count_bytes(struct repair *p, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> p->q->cluster_bits;

    return len ? count(p, first, ((offset + len - 1) >> p->q->cluster_bits) - first + 1) : 0;
}

static int read_l2(struct repair *p, uint64_t offset)
{
    struct qcow2 *q = p->q;

    p->bytes += q->cluster_size;
    if (p->bytes > MAX_TABLES)
        return err_set(p->err, -EFBIG, "the dirty bit is set, and its tables are too many to be counted at open");
    int r = file_read(q->file, offset, p->table, q->cluster_size);
    return r ? err_set(p->err, r, "the L2 table at 0x%llx cannot be read: %s", (ull)offset, strerror(-r)) : 0;
}

static int count_l2(struct repair *p, uint64_t offset)
{
    struct qcow2 *q = p->q;
    struct qcow2_mapping m;
    int r = read_l2(p, offset);

    for (size_t i = 0; r == 0 && i < q->l2_entries; i++) {
        uint64_t entry, bitmap;
        qcow2_l2_read(q, p->table + i * q->entry_size, &entry, &bitmap);
        if (!entry)
            continue;
        if (qcow2_l2_decode(q, entry, bitmap, &m))
            return err_set(p->err, -EINVAL, "the L2 entry at offset 0x%llx is 0x%llx, in a file that ends at 0x%llx",
                           (ull)(offset + i * q->entry_size), (ull)entry, (ull)file_size(q->file));
        r = m.n_first ? count(p, m.first, m.n_first) : 0;
    }
    return r;
}

static int count_l1(struct repair *p, const uint64_t *entries, uint64_t offset, size_t n)
{
    const struct qcow2 *q = p->q;
    int r = count_bytes(p, offset, n * 8);

    for (size_t i = 0; r == 0 && i < n; i++) {
        uint64_t table = entries[i] & QCOW2_OFFSET_MASK;
        if (!table)
            continue;
        if (table & (q->cluster_size - 1))
            return err_set(p->err, -EINVAL, "the L1 entry at offset 0x%llx is 0x%llx, which is no cluster",
                           (ull)(offset + i * 8), (ull)entries[i]);
        r = count(p, table >> q->cluster_bits, 1);
        if (r == 0)
            r = count_l2(p, table);
    }
    return r;
}

static int count_snapshot(struct repair *p, const struct qcow2_snapshot *s)
{
    uint64_t *entries = malloc(s->l1_size * UINT64_C(8) + 1);

    if (!entries)
        return err_set(p->err, -ENOMEM, "out of memory");
    int r = file_read(p->q->file, s->l1_offset, entries, s->l1_size * UINT64_C(8));
    if (r)
        err_set(p->err, r, "a snapshot's L1 table at 0x%llx cannot be read: %s", (ull)s->l1_offset, strerror(-r));
    for (uint32_t i = 0; r == 0 && i < s->l1_size; i++)
        entries[i] = qcow2_be64(&entries[i]);
    if (r == 0)
        r = count_l1(p, entries, s->l1_offset, s->l1_size);
    free(entries);
    return r;
}

static int count_bitmap(void *opaque, const char *what, uint64_t offset, uint64_t bytes)
{
    (void)what;
    return count_bytes(opaque, offset, bytes);
}

static int count_all(struct repair *p)
{
    struct qcow2 *q = p->q;
    int r = count(p, 0, 1);

    if (r == 0)
        r = count_l1(p, q->l1.entries, q->l1.offset, q->l1.n);
    if (r == 0)
        r = count_bytes(p, q->snapshots_offset, q->snapshots_bytes);
    if (r == 0)
        r = qcow2_bitmap_each(q, count_bitmap, p, p->err);
    for (uint32_t i = 0; r == 0 && i < q->n_snapshots; i++)
        r = count_snapshot(p, &q->snapshots[i]);
    return r;
}

/* ---- the flag that says "nobody else's" ---- */

static uint64_t flagged(const struct repair *p, uint64_t entry)
{
    uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> p->q->cluster_bits;

    if (entry & QCOW2_COMPRESSED || !cluster)
        return entry & ~QCOW2_COPIED;
    return p->counts[cluster] == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
}

static int flag_l2(struct repair *p, uint64_t offset)
{
    struct qcow2 *q = p->q;
    bool changed = false;
    int r = read_l2(p, offset);

    for (size_t i = 0; r == 0 && i < q->l2_entries; i++) {
        uint8_t *at = p->table + i * q->entry_size;
        uint64_t entry = qcow2_be64(at), right = flagged(p, entry);
        changed |= right != entry;
        qcow2_put_be64(at, right);
    }
    if (r == 0 && changed)
        r = file_write(q->file, offset, p->table, q->cluster_size);
    return r;
}

static int flag_all(struct repair *p)
{
    struct qcow2 *q = p->q;
    bool changed = false;
    int r = 0;

    p->bytes = 0;
    for (size_t i = 0; r == 0 && i < q->l1.n; i++) {
        uint64_t entry = q->l1.entries[i], right = flagged(p, entry);
        changed |= right != entry;
        q->l1.entries[i] = right;
        if (right & QCOW2_COPIED) /* a shared table is changed in a copy only */
            r = flag_l2(p, right & QCOW2_OFFSET_MASK);
    }
    if (r || !changed)
        return r;
    uint8_t *l1 = malloc(q->l1.n * 8);
    if (!l1)
        return -ENOMEM;
    for (size_t i = 0; i < q->l1.n; i++)
        qcow2_put_be64(l1 + i * 8, q->l1.entries[i]);
    r = file_write(q->file, q->l1.offset, l1, q->l1.n * 8);
    free(l1);
    return r;
}

/* ---- the new table ---- */

struct layout {
    uint64_t first, table_clusters, n_blocks;
};

static uint64_t lay_out(const struct repair *p, struct layout *l)
{
    const struct qcow2 *q = p->q;
    uint64_t end;

    *l = (struct layout){.first = p->n, .table_clusters = 1, .n_blocks = 1};
    for (;;) {
        end = l->first + l->table_clusters + l->n_blocks;
        uint64_t blocks = ((end - 1) >> q->block_bits) + 1;
        uint64_t clusters = (blocks * 8 + q->cluster_size - 1) >> q->cluster_bits;
        if (blocks <= l->n_blocks && clusters <= l->table_clusters)
            return end;
        l->n_blocks = blocks;
        l->table_clusters = clusters;
    }
}

static int write_counts(struct repair *p, const struct layout *l, uint64_t end)
{
    struct qcow2 *q = p->q;
    uint64_t blocks = l->first + l->table_clusters, per_page = q->cluster_size * 8 >> q->refcount_order;
    uint8_t *table = calloc(l->table_clusters, q->cluster_size);
    int r = table ? 0 : -ENOMEM;

    for (uint64_t b = 0; r == 0 && b < l->n_blocks; b++) {
        memset(p->table, 0, q->cluster_size);
        for (uint64_t i = 0; i < per_page; i++) {
            uint64_t c = b * per_page + i;
            if (c < end)
                qcow2_refcount_write(q, p->table, (unsigned)i, c < p->n ? p->counts[c] : 1);
        }
        qcow2_put_be64(table + b * 8, (blocks + b) << q->cluster_bits);
        r = file_write(q->file, (blocks + b) << q->cluster_bits, p->table, q->cluster_size);
    }
    if (r == 0)
        r = file_write(q->file, l->first << q->cluster_bits, table, l->table_clusters << q->cluster_bits);
    free(table);
    return r;
}

static int rewrite(struct repair *p)
{
    struct qcow2 *q = p->q;
    struct layout l;
    uint64_t end = lay_out(p, &l);

    if (l.table_clusters << q->cluster_bits > QCOW2_MAX_TABLE)
        return -EFBIG;
    int r = flag_all(p);
    if (r == 0)
        r = write_counts(p, &l, end);
    if (r == 0)
        r = file_sync(q->file);
    if (r)
        return r;
    q->incompatible &= ~(uint64_t)QCOW2_DIRTY;
    qcow2_put_be64(q->header + 48, l.first << q->cluster_bits);
    qcow2_put_be32(q->header + 56, (uint32_t)l.table_clusters);
    r = qcow2_header_write(q);
    q->end = end;
    return r ? r : file_sync(q->file);
}

int qcow2_repair_refcounts(struct qcow2 *q, struct err *err)
{
    unsigned bits = 1u << q->refcount_order;
    struct repair p = {.q = q, .n = q->end, .max = bits < 16 ? (UINT64_C(1) << bits) - 1 : UINT16_MAX, .err = err};

    if (p.n > MAX_COUNTED)
        return err_set(err, -EFBIG, "the dirty bit is set, and its %llu clusters are too many to be counted at open",
                       (ull)p.n);
    p.counts = calloc(p.n, sizeof(*p.counts));
    p.table = malloc(q->cluster_size);
    int r = p.counts && p.table ? count_all(&p) : err_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        r = rewrite(&p);
        if (r)
            err_set(err, r, "the dirty bit is set, and new refcounts cannot be written: %s", strerror(-r));
        else
            log_notice("disk '%.200s': it was not closed, and its refcounts have been counted anew", q->disk.path);
    }
    free(p.counts);
    free(p.table);
    return r;
}
