/*
 * The references of whole L1 tables, one pass over their L2 tables, which are read several at once where they lie together. A table in which a flag
 * changes is written anew somewhere else; the others are shared between the disk and its snapshots until one of them is written to.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_snapshot.h"

typedef unsigned long long ull;

/* ---- L2 tables ---- */

static int check_table(struct qcow2_swap *s, uint64_t entry)
{
    struct qcow2 *q = s->q;
    uint64_t table = entry & QCOW2_OFFSET_MASK;

    if (table & (q->cluster_size - 1) || !table || table >= q->end << q->cluster_bits)
        return qcow2_swap_fail(s, -EIO, "an L1 entry is 0x%llx, in a file that ends at 0x%llx", (ull)entry,
                               (ull)(q->end << q->cluster_bits));
    return 0;
}

/* The table of the i-th entry, until the next call; and those behind it, where they lie behind it. */
static int read_table(struct qcow2_swap *s, const uint64_t *l1, size_t n, size_t i, const uint8_t **table)
{
    struct qcow2 *q = s->q;
    uint64_t at = l1[i] & QCOW2_OFFSET_MASK;
    size_t len = q->cluster_size;

    if (at < s->in_at || at + len > s->in_at + s->in_len) {
        int r = check_table(s, l1[i]);
        if (r)
            return r;
        while (++i < n && len + q->cluster_size <= s->in_size && (l1[i] & QCOW2_OFFSET_MASK) == at + len)
            len += q->cluster_size;
        s->in_len = 0;
        r = file_read(q->file, at, s->in, len);
        if (r)
            return qcow2_swap_fail(s, r, "the L2 table at 0x%llx cannot be read: %s", (ull)at, strerror(-r));
        s->in_at = at;
        s->in_len = len;
    }
    *table = s->in + (at - s->in_at);
    return 0;
}

static int bad_entry(struct qcow2_swap *s, uint64_t entry)
{
    return qcow2_swap_fail(s, -EIO, "an L2 entry is 0x%llx, in a file that ends at 0x%llx", (ull)entry,
                           (ull)(s->q->end << s->q->cluster_bits));
}

static int count_packed(struct qcow2_swap *s, uint64_t entry, int delta)
{
    struct qcow2 *q = s->q;
    unsigned shift = 62 - (q->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t len = (((entry & ~QCOW2_COPIED & ~QCOW2_COMPRESSED) >> shift) + 1) * 512 - (offset & 511);
    uint64_t last = (offset + len - 1) >> q->cluster_bits;
    int r = last < q->end ? 0 : bad_entry(s, entry);

    for (uint64_t c = offset >> q->cluster_bits; r == 0 && c <= last; c++)
        r = qcow2_swap_count(s, c, delta, true);
    return r;
}

/* qcow2_swap_count() of a guest's cluster; what nearly all of them take is done here. */
static inline int count_data(struct qcow2_swap *s, uint64_t cluster, int delta)
{
    const struct qcow2 *q = s->q;

    if (LIKELY(q->refcount_order == 4 && cluster >> q->block_bits == s->last)) {
        uint8_t *at = s->blocks[s->last] + (size_t)qcow2_swap_index(q, cluster) * 2;
        unsigned count = __builtin_bswap16(load_le16(at));
        if (LIKELY(delta > 0 ? count > 0 && count < UINT16_MAX : count > 1)) {
            s->lone |= delta < 0 && count == 2;
            s->changed[s->last] = true;
            store_le16(at, __builtin_bswap16((uint16_t)(count + (unsigned)delta)));
            return 0;
        }
    }
    return qcow2_swap_count(s, cluster, delta, true);
}

/* The same for qcow2_swap_counted(): whether a cluster is the disk's alone. */
static inline int is_alone(struct qcow2_swap *s, uint64_t cluster, bool *alone)
{
    const struct qcow2 *q = s->q;
    uint64_t count;

    if (LIKELY(q->refcount_order == 4 && cluster >> q->block_bits == s->last)) {
        const uint8_t *at = s->blocks[s->last] + (size_t)qcow2_swap_index(q, cluster) * 2;
        *alone = load_le16(at) == __builtin_bswap16(1);
        return 0;
    }
    int r = qcow2_swap_counted(s, cluster, &count);
    *alone = count == 1;
    return r;
}

/* *flagged: an entry says that its cluster is the disk's alone. */
static int count_table(struct qcow2_swap *s, const uint8_t *table, int delta, bool *flagged)
{
    struct qcow2 *q = s->q;
    size_t step = q->entry_size;
    uint64_t all = 0;

    for (const uint8_t *at = table, *end = table + q->cluster_size; at < end; at += step) {
        uint64_t entry = qcow2_be64(at), host = entry & QCOW2_OFFSET_MASK;
        int r = 0;
        all |= entry;
        if (UNLIKELY(entry & QCOW2_COMPRESSED))
            r = count_packed(s, entry, delta);
        else if (!host)
            continue;
        else if (UNLIKELY(host & (q->cluster_size - 1) || host >> q->cluster_bits >= q->end))
            r = bad_entry(s, entry);
        else
            r = count_data(s, host >> q->cluster_bits, delta);
        if (r)
            return r;
    }
    *flagged = all & QCOW2_COPIED;
    return 0;
}

/* A copy of the table without flags: the disk's own. */
static int copy_unflagged(struct qcow2_swap *s, const uint8_t *table, uint64_t *l1_entry)
{
    struct qcow2 *q = s->q;
    size_t step = q->entry_size;
    uint64_t cluster;
    uint8_t *copy;
    int r = qcow2_swap_take(s, 1, &cluster);

    if (r == 0)
        r = qcow2_swap_stage(s, cluster << q->cluster_bits, q->cluster_size, &copy);
    if (r)
        return r;
    memcpy(copy, table, q->cluster_size);
    for (size_t at = 0; at < q->cluster_size; at += step)
        copy[at] &= 0x7f;
    *l1_entry = cluster << q->cluster_bits | QCOW2_COPIED;
    return 0;
}

/* ---- L1 tables ---- */

static int new_l1(struct qcow2_swap *s, size_t n)
{
    struct qcow2 *q = s->q;
    uint64_t first;

    s->l1_clusters = (n * 8 + q->cluster_size - 1) >> q->cluster_bits;
    s->l1 = (struct qcow2_table){
        .entries = calloc(n, sizeof(uint64_t)), .n = n, .dirty = calloc(n / QCOW2_SECTOR_ENTRIES + 1, 1)};
    if (!s->l1.entries || !s->l1.dirty)
        return qcow2_swap_fail(s, -ENOMEM, "out of memory");
    int r = qcow2_swap_take(s, s->l1_clusters, &first);
    s->l1.offset = first << q->cluster_bits;
    return r ? r : qcow2_swap_drop(s, q->l1.offset, q->l1.n * 8);
}

/* Another reference to all that is in the table of an L1 entry; *to: what the disk's own L1 table has for it. */
static int share(struct qcow2_swap *s, const uint64_t *l1, size_t n, size_t i, uint64_t *to)
{
    const uint8_t *table;
    bool flagged = false;
    int r = read_table(s, l1, n, i, &table);

    if (r == 0)
        r = count_table(s, table, +1, &flagged);
    if (r)
        return r;
    if (flagged)
        return copy_unflagged(s, table, to);
    *to = l1[i] & QCOW2_OFFSET_MASK;
    return qcow2_swap_count(s, *to >> s->q->cluster_bits, +1, false);
}

int qcow2_snapshot_count_create(struct qcow2_swap *s)
{
    struct qcow2 *q = s->q;
    int r = new_l1(s, q->l1.n);

    for (size_t i = 0; r == 0 && i < q->l1.n; i++) {
        uint64_t table = q->l1.entries[i] & QCOW2_OFFSET_MASK;
        if (!table)
            continue;
        r = share(s, q->l1.entries, q->l1.n, i, &s->l1.entries[i]);
        if (r == 0 && (s->l1.entries[i] & QCOW2_OFFSET_MASK) != table)
            r = qcow2_swap_note(s, &s->leave, table >> q->cluster_bits, 1);
    }
    return r;
}

/* Both tables have the same for their i-th entry. */
static bool same(const uint64_t *l1, size_t n, const uint64_t *other, size_t n_other, size_t i)
{
    return i < n && i < n_other && !((l1[i] ^ other[i]) & QCOW2_OFFSET_MASK);
}

/* One reference less to a table and to all that is in it. */
static int drop(struct qcow2_swap *s, const uint64_t *l1, size_t n, size_t i, bool data)
{
    uint64_t cluster = (l1[i] & QCOW2_OFFSET_MASK) >> s->q->cluster_bits;
    const uint8_t *table;
    bool flagged;
    int r = read_table(s, l1, n, i, &table);

    if (r == 0)
        r = count_table(s, table, -1, &flagged);
    return r ? r : qcow2_swap_count(s, cluster, -1, data);
}

int qcow2_snapshot_count_drop(struct qcow2_swap *s, const uint64_t *l1, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        if (l1[i] & QCOW2_OFFSET_MASK)
            r = drop(s, l1, n, i, true);
    return r;
}

int qcow2_snapshot_count_revert(struct qcow2_swap *s, const uint64_t *l1, size_t n)
{
    struct qcow2 *q = s->q;
    const uint64_t *old = q->l1.entries;
    int r = new_l1(s, n);

    for (size_t i = 0; r == 0 && i < q->l1.n; i++) {
        if (!(old[i] & QCOW2_OFFSET_MASK) || same(old, q->l1.n, l1, n, i))
            continue;
        r = drop(s, old, q->l1.n, i, false);
        if (r == 0)
            r = qcow2_swap_note(s, &s->leave, (old[i] & QCOW2_OFFSET_MASK) >> q->cluster_bits, 1);
    }
    for (size_t i = 0; r == 0 && i < n; i++) {
        s->l1.entries[i] = l1[i] & QCOW2_OFFSET_MASK;
        if (!s->l1.entries[i] || same(old, q->l1.n, l1, n, i))
            continue;
        r = share(s, l1, n, i, &s->l1.entries[i]);
        if (r == 0 && !(s->l1.entries[i] & QCOW2_COPIED))
            r = qcow2_swap_note(s, &s->enter, s->l1.entries[i] >> q->cluster_bits, 1);
    }
    return r;
}

/* ---- flags ---- */

/* Whether the flags in a table that is the disk's alone are as the counts ask for. */
static int right_table(struct qcow2_swap *s, const uint8_t *table, bool *right)
{
    struct qcow2 *q = s->q;
    size_t step = q->entry_size;

    *right = true;
    for (size_t at = 0; *right && at < q->cluster_size; at += step) {
        uint64_t entry = qcow2_be64(table + at), host = entry & QCOW2_OFFSET_MASK;
        bool alone;
        if (entry & QCOW2_COMPRESSED || !host)
            continue;
        int r = is_alone(s, host >> q->cluster_bits, &alone);
        if (r)
            return r;
        *right = alone == !!(entry & QCOW2_COPIED);
    }
    return 0;
}

static int copy_flagged(struct qcow2_swap *s, const uint8_t *table, uint64_t *l1_entry)
{
    struct qcow2 *q = s->q;
    uint64_t old = *l1_entry;
    bool alone;
    uint8_t *copy;
    int r = copy_unflagged(s, table, l1_entry);

    if (r)
        return r;
    copy = s->out + s->out_len - q->cluster_size;
    for (size_t at = 0, step = q->entry_size; at < q->cluster_size; at += step) {
        uint64_t entry = qcow2_be64(copy + at), host = entry & QCOW2_OFFSET_MASK;
        if (entry & QCOW2_COMPRESSED || !host)
            continue;
        r = is_alone(s, host >> q->cluster_bits, &alone);
        if (r)
            return r;
        copy[at] |= alone ? 0x80 : 0;
    }
    return qcow2_swap_drop(s, old & QCOW2_OFFSET_MASK, q->cluster_size);
}

static int flag_table(struct qcow2_swap *s, size_t i, uint64_t *entry)
{
    struct qcow2 *q = s->q;
    uint64_t count, table = *entry & QCOW2_OFFSET_MASK;
    const uint8_t *data;
    bool right;
    int r = qcow2_swap_counted(s, table >> q->cluster_bits, &count);

    if (r)
        return r;
    *entry = count == 1 ? table | QCOW2_COPIED : table;
    if (count != 1) /* all that is in it is shared as well */
        return 0;
    r = read_table(s, q->l1.entries, q->l1.n, i, &data);
    if (r == 0)
        r = right_table(s, data, &right);
    return r || right ? r : copy_flagged(s, data, entry);
}

int qcow2_snapshot_count_flag(struct qcow2_swap *s)
{
    struct qcow2 *q = s->q;
    int r = s->lone ? new_l1(s, q->l1.n) : 0;

    for (size_t i = 0; r == 0 && s->l1.entries && i < q->l1.n; i++) {
        s->l1.entries[i] = q->l1.entries[i];
        if (s->l1.entries[i] & QCOW2_OFFSET_MASK)
            r = flag_table(s, i, &s->l1.entries[i]);
    }
    return r;
}
