/*
 * All that refers to a cluster, counted for the window at hand: header, L1 tables of the disk and of its snapshots, L2 tables, data, compressed data, the
 * snapshots' table, bitmaps, the refcounts themselves (docs/interop/qcow2.txt of the format's authors). Entries that cannot be are errors; in the mode
 * ENTRIES, those that can be put right are.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_check.h"

#define L1_RESERVED     UINT64_C(0x7f000000000001ff)
#define L2_RESERVED     UINT64_C(0x3f000000000001fe)
#define EXT_BITMAPS     0x23852875u
#define BITMAPS_FLAG    1 /* of autoclear_features */
#define MAX_DIRECTORY   (4 * MIB)
#define MAX_BITMAPS     65535
#define BITMAP_RESERVED UINT64_C(0xff000000000001fe)
#define CHUNK           8192 /* entries of a table that are read at once */

typedef unsigned long long ull;

/* A reference to bytes of the file: counts the clusters they touch. at: offset of the entry that has it, or of the field in the header. */
static int refer(struct qcow2_check *c, uint64_t offset, uint64_t len, unsigned flags, const char *what, uint64_t at)
{
    const struct qcow2 *q = c->q;

    if (!len)
        return 0;
    if (offset >= c->bytes + q->cluster_size || len > c->bytes + q->cluster_size - offset ||
        offset + len - c->bytes == q->cluster_size) {
        c->dangling = true;
        if (qcow2_check_once(c))
            qcow2_check_error(c,
                              "%s at offset 0x%llx refers to 0x%llx and %llu bytes from there; the file ends at 0x%llx",
                              what, (ull)at, (ull)offset, (ull)len, (ull)c->bytes);
        return 0;
    }
    uint64_t first = offset >> q->cluster_bits, last = (offset + len - 1) >> q->cluster_bits;
    uint64_t from = c->counts.first, to = from + QCOW2_CHECK_WINDOW;
    for (uint64_t i = first < from ? from : first; i <= last && i < to; i++) {
        unsigned was;
        if (qcow2_counts_get(&c->counts, i, &was) >= c->max) {
            if (c->mode == QCOW2_CHECK_LOOK)
                qcow2_check_error(c, "offset 0x%llx: more references than a refcount can tell",
                                  (ull)i << q->cluster_bits);
            continue;
        }
        if (qcow2_counts_add(&c->counts, i, 1, flags))
            return err_set(c->err, -ENOMEM, "out of memory");
    }
    return 0;
}

/* The refcount of a cluster beyond the file's end. */
static uint64_t stored_beyond(struct qcow2_check *c, uint64_t cluster)
{
    const struct qcow2 *q = c->q;
    uint64_t block = qcow2_check_block_at(c, cluster >> q->block_bits);
    uint64_t bits = (cluster & ((UINT64_C(1) << q->block_bits) - 1)) << q->refcount_order;
    uint8_t here[8];

    if (block < 2 || file_read(q->file, block + bits / 64 * 8, here, sizeof(here)))
        return 0;
    return qcow2_refcount_read(q, here, (unsigned)(bits % 64 >> q->refcount_order));
}

/* Whether an entry's "nobody else's" flag says what the refcount says. Where it does not: an error, or *entry is put right. True: it was changed. */
static bool check_copied(struct qcow2_check *c, const char *what, uint64_t at, uint64_t *entry)
{
    uint64_t cluster = (*entry & QCOW2_OFFSET_MASK) >> c->q->cluster_bits;
    unsigned flags = 0;

    if (cluster >= c->n ? c->counts.first != 0
                        : cluster < c->counts.first || cluster - c->counts.first >= QCOW2_CHECK_WINDOW)
        return false;
    if (qcow2_check_block_at(c, cluster >> c->q->block_bits) == 1)
        return false; /* nobody knows */
    if (cluster < c->n)
        (void)qcow2_counts_get(&c->counts, cluster, &flags);
    else if (stored_beyond(c, cluster) == 1)
        flags = QCOW2_CHECK_ONE;
    if (!!(flags & QCOW2_CHECK_ONE) == !!(*entry & QCOW2_COPIED))
        return false;
    if (c->mode == QCOW2_CHECK_LOOK)
        qcow2_check_error(c, "%s at offset 0x%llx: 0x%llx, and the refcount is %s1", what, (ull)at, (ull)*entry,
                          flags & QCOW2_CHECK_ONE ? "" : "not ");
    if (c->mode != QCOW2_CHECK_ENTRIES)
        return false;
    *entry ^= QCOW2_COPIED;
    return true;
}

/* ---- L2 ---- */

struct l2_entry {
    uint64_t at, entry, bitmap;
    bool active;
};

static int packed(struct qcow2_check *c, struct l2_entry *e, bool *changed)
{
    const struct qcow2 *q = c->q;
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t offset = e->entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((e->entry & ~QCOW2_COPIED & ~QCOW2_COMPRESSED) >> shift) + 1;

    if (e->entry & QCOW2_COPIED) {
        if (qcow2_check_once(c))
            qcow2_check_error(c, "L2 entry at offset 0x%llx: 0x%llx: a compressed cluster has no copied flag",
                              (ull)e->at, (ull)e->entry);
        if (c->mode == QCOW2_CHECK_ENTRIES && e->active) {
            e->entry &= ~QCOW2_COPIED;
            *changed = true;
        }
    }
    if (e->bitmap && qcow2_check_once(c))
        qcow2_check_error(c, "L2 entry at offset 0x%llx: a compressed cluster with a bitmap of subclusters, 0x%llx",
                          (ull)e->at, (ull)e->bitmap);
    if (qcow2_check_once(c) && e->active) {
        c->told->allocated++;
        c->told->compressed++;
    }
    return refer(c, offset, sectors * 512 - (offset & 511), QCOW2_CHECK_DATA, "L2 entry", e->at);
}

/* A cluster that is not compressed, whose offset lies between clusters. True: there is nothing to count. */
static bool unaligned(struct qcow2_check *c, struct l2_entry *e, bool *changed)
{
    const struct qcow2 *q = c->q;
    bool data = q->n_subs > 1 ? (uint32_t)e->bitmap != 0 : !(q->version >= 3 && (e->entry & QCOW2_READS_ZERO));

    if (qcow2_check_once(c))
        qcow2_check_error(c, "L2 entry at offset 0x%llx: 0x%llx; accepted are multiples of the cluster size",
                          (ull)e->at, (ull)e->entry);
    if (c->mode != QCOW2_CHECK_ENTRIES || data || !e->active)
        return false;
    e->entry = q->n_subs > 1 ? 0 : QCOW2_READS_ZERO; /* it reads as zeroes all the same */
    *changed = true;
    return true;
}

static int plain(struct qcow2_check *c, struct l2_entry *e, bool *changed)
{
    const struct qcow2 *q = c->q;
    uint64_t offset = e->entry & QCOW2_OFFSET_MASK;

    if (e->entry & L2_RESERVED && qcow2_check_once(c))
        qcow2_check_error(c, "L2 entry at offset 0x%llx: 0x%llx has reserved bits", (ull)e->at, (ull)e->entry);
    if (((uint32_t)e->bitmap & e->bitmap >> 32) && qcow2_check_once(c))
        qcow2_check_error(c, "L2 entry at offset 0x%llx: its bitmap 0x%llx says data and zeroes of one subcluster",
                          (ull)e->at, (ull)e->bitmap);
    if (!offset) {
        if ((uint32_t)e->bitmap && qcow2_check_once(c))
            qcow2_check_error(c, "L2 entry at offset 0x%llx: its bitmap 0x%llx says data, and it has no cluster",
                              (ull)e->at, (ull)e->bitmap);
        return 0;
    }
    if (offset & (q->cluster_size - 1) && unaligned(c, e, changed))
        return 0;
    if (qcow2_check_once(c) && e->active)
        c->told->allocated++;
    return refer(c, offset, q->cluster_size, QCOW2_CHECK_DATA, "L2 entry", e->at);
}

/* Whether the table may be written: its cluster is none of other metadata. */
static bool writable(const struct qcow2_check *c, uint64_t offset)
{
    uint64_t cluster = offset >> c->q->cluster_bits;
    unsigned flags = 0;

    if (offset & (c->q->cluster_size - 1) || cluster < c->counts.first ||
        cluster - c->counts.first >= QCOW2_CHECK_WINDOW)
        return !(offset & (c->q->cluster_size - 1)); /* of another window */
    (void)qcow2_counts_get(&c->counts, cluster, &flags);
    return !(flags & QCOW2_CHECK_META);
}

static int walk_l2(struct qcow2_check *c, uint64_t offset, bool active)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    int r = qcow2_check_read(c, offset, c->l2, q->cluster_size, "the L2 table");

    for (size_t i = 0; r == 0 && i < q->l2_entries; i++) {
        uint8_t *at = c->l2 + i * q->entry_size;
        struct l2_entry e = {.at = offset + i * q->entry_size, .active = active};
        bool fixed = false;
        qcow2_l2_read(q, at, &e.entry, &e.bitmap);
        if (!e.entry && !e.bitmap)
            continue;
        if (e.entry & QCOW2_COMPRESSED) {
            r = packed(c, &e, &fixed);
        } else {
            r = plain(c, &e, &fixed);
            if (active && e.entry & QCOW2_OFFSET_MASK)
                fixed |= check_copied(c, "L2 entry", e.at, &e.entry);
        }
        if (fixed)
            qcow2_put_be64(at, e.entry);
        changed |= fixed;
    }
    if (r == 0 && changed && writable(c, offset)) {
        r = file_write(q->file, offset, c->l2, q->cluster_size);
        if (r)
            err_set(c->err, r, "the L2 table at 0x%llx cannot be written: %s", (ull)offset, strerror(-r));
    }
    return r;
}

/* ---- L1 ---- */

static int progress(struct qcow2_check *c, size_t n)
{
    int r = 0;

    c->done += (uint64_t)n << c->q->l2_bits;
    if (c->mode == QCOW2_CHECK_LOOK && !c->quiet && c->told->progress)
        r = c->told->progress(c->told->opaque, c->done, c->total);
    return r ? err_set(c->err, r, "the check was ended") : 0;
}

static int walk_l1_entry(struct qcow2_check *c, uint64_t at, uint64_t *entry, bool active, bool *changed,
                         uint64_t *tables)
{
    struct qcow2 *q = c->q;
    uint64_t offset = *entry & QCOW2_OFFSET_MASK;
    bool beyond = offset >= c->bytes;

    if (*entry & L1_RESERVED && qcow2_check_once(c))
        qcow2_check_error(c, "L1 entry at offset 0x%llx: 0x%llx has reserved bits", (ull)at, (ull)*entry);
    if (offset & (q->cluster_size - 1) && qcow2_check_once(c))
        qcow2_check_error(c, "L1 entry at offset 0x%llx: 0x%llx; accepted are multiples of the cluster size", (ull)at,
                          (ull)*entry);
    int r = *entry ? refer(c, offset, q->cluster_size, QCOW2_CHECK_L2, "L1 entry", at) : 0;
    if (r || !offset)
        return r;
    if (active)
        *changed |= check_copied(c, "L1 entry", at, entry);
    /* More tables than clusters: those that are there were read, and refer to what they refer to. */
    return beyond || ++*tables > c->n ? 0 : walk_l2(c, offset, active);
}

static int walk_l1(struct qcow2_check *c, uint64_t offset, uint64_t n, bool active)
{
    uint64_t *entries = malloc(CHUNK * 8), tables = 0;
    int r = entries ? refer(c, offset, n * 8, QCOW2_CHECK_META, "the L1 table", offset)
                    : err_set(c->err, -ENOMEM, "out of memory");

    for (uint64_t first = 0; r == 0 && first < n; first += CHUNK) {
        size_t here = n - first < CHUNK ? n - first : CHUNK;
        bool changed = false;
        r = qcow2_check_read(c, offset + first * 8, entries, here * 8, "the L1 table");
        for (size_t i = 0; r == 0 && i < here; i++) {
            uint64_t entry = qcow2_be64(&entries[i]);
            if (entry)
                r = walk_l1_entry(c, offset + (first + i) * 8, &entry, active, &changed, &tables);
            if (r == 0 && (i % 64 == 63 || i + 1 == here))
                r = progress(c, i % 64 + 1);
            qcow2_put_be64(&entries[i], entry);
        }
        if (r == 0 && changed) {
            r = file_write(c->q->file, offset + first * 8, entries, here * 8);
            if (r)
                err_set(c->err, r, "the L1 table at 0x%llx cannot be written: %s", (ull)offset, strerror(-r));
        }
    }
    free(entries);
    return r;
}

/* ---- bitmaps (spec, "Bitmaps") ---- */

static int walk_bitmap(struct qcow2_check *c, uint64_t offset, uint64_t n, uint64_t at)
{
    struct qcow2 *q = c->q;
    uint64_t *entries = malloc(CHUNK * 8);
    int r =
        entries ? refer(c, offset, n * 8, QCOW2_CHECK_META, "bitmap", at) : err_set(c->err, -ENOMEM, "out of memory");

    if (offset >= c->bytes || n > c->bytes / 8)
        n = 0;
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        if (i % CHUNK == 0)
            r = qcow2_check_read(c, offset + i * 8, entries, (n - i < CHUNK ? n - i : CHUNK) * 8, "the bitmap's table");
        uint64_t entry = r ? 0 : qcow2_be64(&entries[i % CHUNK]), data = entry & QCOW2_OFFSET_MASK;
        if (entry & BITMAP_RESERVED || data & (q->cluster_size - 1) || (data && entry & 1)) {
            if (qcow2_check_once(c))
                qcow2_check_error(c, "bitmap table entry at offset 0x%llx: 0x%llx", (ull)(offset + i * 8), (ull)entry);
        } else if (data) {
            r = refer(c, data, q->cluster_size, QCOW2_CHECK_META, "bitmap table entry", offset + i * 8);
        }
    }
    free(entries);
    return r;
}

static int walk_directory(struct qcow2_check *c, uint32_t n, uint64_t offset, uint64_t len)
{
    uint8_t *directory = malloc(len + 1);
    uint64_t at = 0;
    int r = directory ? qcow2_check_read(c, offset, directory, len, "the bitmaps' directory")
                      : err_set(c->err, -ENOMEM, "out of memory");

    for (uint32_t i = 0; r == 0 && i < n; i++) {
        const uint8_t *e = directory + at;
        if (len - at < 24) {
            if (qcow2_check_once(c))
                qcow2_check_error(c, "bitmap %u of %u: the directory ends before it", i, n);
            break;
        }
        uint64_t size = 24 + (uint64_t)__builtin_bswap16(load_le16(e + 18)) + qcow2_be32(e + 20);
        r = walk_bitmap(c, qcow2_be64(e), qcow2_be32(e + 8), offset + at);
        at = align_up(size, 8) < len - at ? at + align_up(size, 8) : len;
    }
    free(directory);
    return r;
}

static int walk_bitmaps(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    uint32_t len = 0;

    if (q->version < 3 || !(qcow2_be64(q->header + 88) & BITMAPS_FLAG))
        return 0;
    int r = qcow2_check_read(c, 0, c->l2, q->cluster_size, "the header");
    const uint8_t *ext =
        r ? NULL : qcow2_header_extension(c->l2, q->cluster_size, qcow2_be32(q->header + 100), EXT_BITMAPS, &len);
    if (!ext || len < 24)
        return r;
    uint32_t n = qcow2_be32(ext);
    uint64_t size = qcow2_be64(ext + 8), offset = qcow2_be64(ext + 16);
    if (size > MAX_DIRECTORY || n > MAX_BITMAPS || offset >= c->bytes || offset & (q->cluster_size - 1)) {
        if (qcow2_check_once(c))
            qcow2_check_error(c, "the bitmaps' directory: %u entries of %llu bytes at 0x%llx", n, (ull)size,
                              (ull)offset);
        return 0;
    }
    r = refer(c, offset, size, QCOW2_CHECK_META, "the bitmaps' extension", 0);
    return r ? r : walk_directory(c, n, offset, size);
}

/* ---- the refcounts themselves ---- */

static int walk_refcounts(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    int r = refer(c, q->refcounts.offset, q->refcounts.n * 8, QCOW2_CHECK_META, "refcount_table_offset", 48);

    for (size_t i = 0; r == 0 && i < q->refcounts.n; i++) {
        uint64_t entry = q->refcounts.entries[i], at = q->refcounts.offset + i * 8;
        if (!entry)
            continue;
        if (entry & ~QCOW2_OFFSET_MASK || qcow2_check_block_at(c, i) < 2) {
            c->rebuild = true;
            if (qcow2_check_once(c))
                qcow2_check_error(c, "refcount table entry at offset 0x%llx: 0x%llx; the file ends at 0x%llx", (ull)at,
                                  (ull)entry, (ull)c->bytes);
            continue;
        }
        r = refer(c, entry, q->cluster_size, QCOW2_CHECK_META, "refcount table entry", at);
        uint64_t cluster = entry >> q->cluster_bits;
        unsigned flags;
        if (r || cluster < c->counts.first || cluster - c->counts.first >= QCOW2_CHECK_WINDOW ||
            qcow2_counts_get(&c->counts, cluster, &flags) <= 1)
            continue;
        c->rebuild = true; /* what is something else too cannot be written */
        if (c->mode != QCOW2_CHECK_LOOK)
            continue;
        qcow2_check_error(c, "refcount table entry at offset 0x%llx: 0x%llx, and something else refers to it too",
                          (ull)at, (ull)entry);
        r = qcow2_counts_add(&c->counts, cluster, 0, QCOW2_CHECK_TOLD);
    }
    return r;
}

int qcow2_check_walk(struct qcow2_check *c)
{
    struct qcow2 *q = c->q;
    int r = refer(c, 0, q->cluster_size, QCOW2_CHECK_META, "the header", 0);

    if (r == 0)
        r = refer(c, q->snapshots_offset, q->snapshots_bytes, QCOW2_CHECK_META, "snapshots_offset", 64);
    if (r == 0)
        r = walk_bitmaps(c);
    for (uint32_t i = 0; r == 0 && i < q->n_snapshots; i++)
        r = walk_l1(c, q->snapshots[i].l1_offset, q->snapshots[i].l1_size, false);
    if (r == 0)
        r = walk_l1(c, q->l1.offset, q->l1.n, true);
    /* Last: they see what else refers to their blocks. */
    return r || c->mode == QCOW2_CHECK_REBUILD ? r : walk_refcounts(c);
}
