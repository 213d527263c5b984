/*
 * Internal snapshots: create, revert, remove, list. What changes something holds back the requests that come meanwhile, and begins when those under
 * way are done and all metadata is in the file; qcow2_snapshot.h tells the rest.
 */
#include "disk/qcow2_snapshot.h"

#include <errno.h>
#include <stdlib.h>

/* ---- parts of a change ---- */

static void end(struct qcow2 *q, struct qcow2_snapshot_table *t)
{
    qcow2_snapshot_table_fini(t);
    qcow2_unhold(q);
}

/* What all of them begin with: the disk at rest, and the table. */
static int begin(struct qcow2 *q, struct qcow2_snapshot_table *t, struct err *err)
{
    *t = (struct qcow2_snapshot_table){0};
    if (q->broken)
        return err_set(err, -EIO, "disk '%.200s': the image is corrupt", q->disk.path);
    int r = qcow2_hold(q);
    if (r)
        return err_set(err, r, "disk '%.200s': %s", q->disk.path,
                       r == -EBUSY ? "another change of its snapshots is under way" : strerror(-r));
    r = qcow2_snapshot_table_read(q, t, err);
    if (r)
        end(q, t);
    return r;
}

static uint64_t tables_in(const uint64_t *l1, size_t n)
{
    uint64_t used = 0;

    for (size_t i = 0; i < n; i++)
        used += (l1[i] & QCOW2_OFFSET_MASK) != 0;
    return used;
}

/* About so many clusters are needed: more than that are looked for when they are. */
static uint64_t estimate(const struct qcow2 *q, uint64_t n_tables)
{
    return n_tables + 2 * q->l1_clusters + q->refcount_clusters + tables_in(q->refcounts.entries, q->refcounts.n) +
           (q->snapshots_bytes >> q->cluster_bits) + 8;
}

static int write_entries(struct qcow2_swap *s, const struct qcow2_table *l1)
{
    uint8_t *buf;
    int r = 0;

    for (size_t i = 0; r == 0 && i < l1->n;) {
        size_t n = l1->n - i < s->out_size / 8 ? l1->n - i : s->out_size / 8;
        r = qcow2_swap_stage(s, l1->offset + i * 8, n * 8, &buf);
        for (size_t last = i + n; r == 0 && i < last; i++, buf += 8)
            qcow2_put_be64(buf, l1->entries[i]);
    }
    return r;
}

/* The table of snapshots goes to a new place, and the old one goes. */
static int write_table(struct qcow2_swap *s, const struct qcow2_snapshot_table *t)
{
    struct qcow2 *q = s->q;
    uint64_t first;
    size_t len;
    int r = q->n_snapshots ? qcow2_swap_drop(s, q->snapshots_offset, q->snapshots_bytes) : 0;

    s->n_snapshots = (uint32_t)t->n;
    s->snapshots = calloc(t->n + 1, sizeof(*s->snapshots));
    if (r == 0 && !s->snapshots)
        r = qcow2_swap_fail(s, -ENOMEM, "out of memory");
    if (r || !t->n)
        return r;
    for (size_t i = 0; i < t->n; i++)
        s->snapshots[i] = (struct qcow2_snapshot){.l1_offset = qcow2_be64(t->items[i].fixed),
                                                  .l1_size = qcow2_be32(t->items[i].fixed + 8)};
    uint8_t *packed = qcow2_snapshot_table_pack(t, &len);
    if (!packed)
        return qcow2_swap_fail(s, -ENOMEM, "out of memory");
    r = qcow2_swap_take(s, (len + q->cluster_size - 1) >> q->cluster_bits, &first);
    if (r == 0)
        r = qcow2_swap_write(s, first << q->cluster_bits, packed, len);
    free(packed);
    s->snapshots_offset = first << q->cluster_bits;
    s->snapshots_bytes = len;
    return r;
}

int qcow2_snapshot_read_l1(struct qcow2 *q, const struct qcow2_snapshot *snapshot, uint64_t **entries, struct err *err)
{
    size_t n = snapshot->l1_size;

    *entries = malloc(n * 8 + 1);
    if (!*entries)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", q->disk.path);
    int r = n ? file_read(q->file, snapshot->l1_offset, *entries, n * 8) : 0;
    if (r)
        return err_set(err, r, "disk '%.200s': the snapshot's L1 table at 0x%llx cannot be read: %s", q->disk.path,
                       (unsigned long long)snapshot->l1_offset, strerror(-r));
    for (size_t i = 0; i < n; i++)
        (*entries)[i] = qcow2_be64(&(*entries)[i]);
    return 0;
}

/* ---- create ---- */

static int build_create(struct qcow2_swap *s, struct qcow2_snapshot_table *t, struct qcow2_snapshot_entry *entry)
{
    struct qcow2 *q = s->q;
    struct qcow2_table copy = {.entries = q->l1.entries, .n = q->l1.n};
    uint64_t first = 0;
    int r = qcow2_snapshot_count_create(s);

    if (r == 0)
        r = qcow2_swap_take(s, q->l1_clusters, &first);
    copy.offset = first << q->cluster_bits;
    if (r == 0)
        r = write_entries(s, &copy);
    if (r == 0)
        r = write_entries(s, &s->l1);
    qcow2_put_be64(entry->fixed, copy.offset);
    qcow2_put_be32(entry->fixed + 8, (uint32_t)copy.n);
    return r ? r : write_table(s, t);
}

static int create(struct disk *disk, const char *name, int64_t time_ns, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_snapshot_table t;
    struct qcow2_snapshot_entry *entry;
    struct qcow2_swap s;
    int r = begin(q, &t, err);

    if (r)
        return r;
    if (qcow2_snapshot_table_has_name(&t, name))
        r = err_set(err, -EEXIST, "disk '%.200s': it has a snapshot called '%.60s'", disk->path, name);
    else if (t.n >= QCOW2_MAX_SNAPSHOTS)
        r = err_set(err, -EFBIG, "disk '%.200s': it has %zu snapshots, the most that there can be", disk->path, t.n);
    else if (qcow2_snapshot_table_add(&t, name, time_ns, qcow2_be64(q->header + 24), &entry))
        r = err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    if (r == 0) {
        r = qcow2_swap_init(&s, q, estimate(q, tables_in(q->l1.entries, q->l1.n)), err);
        if (r == 0)
            r = build_create(&s, &t, entry);
        if (r == 0)
            r = qcow2_swap_commit(&s, false);
        qcow2_swap_fini(&s);
    }
    end(q, &t);
    return r;
}

/* ---- revert ---- */

static int build_revert(struct qcow2_swap *s, const struct qcow2_snapshot_table *t, const uint64_t *l1, size_t n)
{
    struct qcow2 *q = s->q;
    uint64_t size = align_up(s->size, DISK_BLOCK_SIZE);
    size_t needed = (size_t)((size + (UINT64_C(1) << q->l2_bits) - 1) >> q->l2_bits);

    if (n < needed)
        return qcow2_swap_fail(s, -EINVAL, "the snapshot's L1 table has %zu entries; its size asks for %zu", n, needed);
    /* Beyond are only the states of machines, which no disk reads. */
    int r = qcow2_snapshot_count_revert(s, l1, needed);
    if (r == 0)
        r = write_entries(s, &s->l1);
    return r ? r : write_table(s, t);
}

static int revert(struct disk *disk, const char *name, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_snapshot_table t;
    struct qcow2_swap s;
    uint64_t *l1 = NULL;
    size_t i;
    int r = begin(q, &t, err);

    if (r)
        return r;
    r = qcow2_snapshot_table_find(q, &t, name, &i, err);
    if (r == 0)
        r = qcow2_snapshot_read_l1(q, &q->snapshots[i], &l1, err);
    if (r == 0) {
        r = qcow2_bitmap_will_change(q);
        if (r)
            err_set(err, r, "disk '%.200s': its bitmaps cannot be marked: %s", disk->path, strerror(-r));
    }
    if (r == 0 && qcow2_snapshot_table_reverted(&t, i, qcow2_be64(q->header + 24)))
        r = err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    if (r == 0) {
        r = qcow2_swap_init(&s, q, estimate(q, tables_in(l1, q->snapshots[i].l1_size)), err);
        s.size = qcow2_snapshot_table_size(&t.items[i], s.size);
        if (r == 0 && (!s.size || s.size >= QCOW2_MAX_OFFSET))
            r = qcow2_swap_fail(&s, -EINVAL, "the snapshot's size is %llu", (unsigned long long)s.size);
        if (r == 0)
            r = build_revert(&s, &t, l1, q->snapshots[i].l1_size);
        if (r == 0)
            r = qcow2_swap_commit(&s, true);
        if (r == 0)
            qcow2_bitmap_changed(q);
        qcow2_swap_fini(&s);
    }
    free(l1);
    end(q, &t);
    return r;
}

/* ---- remove ---- */

static int build_remove(struct qcow2_swap *s, const struct qcow2_snapshot_table *t,
                        const struct qcow2_snapshot *snapshot, const uint64_t *l1)
{
    int r = qcow2_snapshot_count_drop(s, l1, snapshot->l1_size);

    if (r == 0)
        r = qcow2_snapshot_count_flag(s);
    if (r == 0 && s->l1.entries)
        r = write_entries(s, &s->l1);
    if (r == 0)
        r = qcow2_swap_drop(s, snapshot->l1_offset, snapshot->l1_size * UINT64_C(8));
    return r ? r : write_table(s, t);
}

static int remove_snapshot(struct disk *disk, const char *name, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_snapshot_table t;
    struct qcow2_swap s;
    uint64_t *l1 = NULL;
    size_t i;
    int r = begin(q, &t, err);

    if (r)
        return r;
    r = qcow2_snapshot_table_find(q, &t, name, &i, err);
    if (r == 0 && qcow2_snapshot_viewed(q, q->snapshots[i].l1_offset))
        r = err_set(err, -EBUSY, "disk '%.200s': the snapshot '%.60s' is being read", disk->path, name);
    if (r == 0)
        r = qcow2_snapshot_read_l1(q, &q->snapshots[i], &l1, err);
    if (r == 0 && qcow2_snapshot_table_remove(&t, i, qcow2_be64(q->header + 24)))
        r = err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    if (r == 0) {
        const struct qcow2_snapshot snapshot = q->snapshots[i];
        r = qcow2_swap_init(&s, q, estimate(q, tables_in(q->l1.entries, q->l1.n)), err);
        if (r == 0)
            r = build_remove(&s, &t, &snapshot, l1);
        if (r == 0)
            r = qcow2_swap_commit(&s, true);
        qcow2_swap_fini(&s);
    }
    free(l1);
    end(q, &t);
    return r;
}

/* ---- list ---- */

static int list_snapshots(struct disk *disk, struct disk_snapshots *list, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_snapshot_table t;
    int r = qcow2_snapshot_table_read(q, &t, err);

    if (r == 0 && qcow2_snapshot_table_list(&t, qcow2_be64(q->header + 24), list))
        r = err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    qcow2_snapshot_table_fini(&t);
    return r;
}

const struct disk_snapshot_ops qcow2_snapshot_ops = {
    .create = create,
    .revert = revert,
    .remove = remove_snapshot,
    .list = list_snapshots,
    .view = qcow2_snapshot_view,
};
