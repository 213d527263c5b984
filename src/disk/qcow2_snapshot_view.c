/*
 * A snapshot as a disk of its own, which is only read: another struct qcow2 over the same file, with the snapshot's L1 table and a cache of its own. What
 * a snapshot refers to is never written in its place while it is there, so neither disk needs to know what the other does.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_snapshot.h"

static void close_view(struct disk *disk)
{
    struct qcow2 *view = (struct qcow2 *)disk, **link = &view->viewed->views;

    while (*link != view)
        link = &(*link)->next_view;
    *link = view->next_view;
    qcow2_page_fini(view);
    qcow2_free_spare(view);
    qcow2_table_fini(&view->l1);
    free(view->zeroes);
    free(view->unpacked);
    free(view);
}

static const struct disk_type view_type = {
    .name = "qcow2",
    .submit = qcow2_submit,
    .wait = qcow2_serve,
    .close = close_view,
};

bool qcow2_snapshot_viewed(const struct qcow2 *q, uint64_t l1_offset)
{
    const struct qcow2 *view = q->views;

    while (view && view->l1.offset != l1_offset)
        view = view->next_view;
    return view;
}

/* What views have in common with their disk. */
static struct qcow2 *new_view(struct qcow2 *q)
{
    struct qcow2 *view = calloc(1, sizeof(*view));

    if (!view)
        return NULL;
    view->file = q->file;
    view->viewed = q;
    view->version = q->version;
    view->cluster_bits = q->cluster_bits;
    view->cluster_size = q->cluster_size;
    view->refcount_order = q->refcount_order;
    view->compression = q->compression;
    view->incompatible = q->incompatible;
    qcow2_l2_shape(view);
    view->backing = q->backing;
    view->backed_below = q->backed_below;
    view->block_bits = q->block_bits;
    view->end = q->end;
    return view;
}

int qcow2_snapshot_view(struct disk **out, struct disk *disk, const char *name, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk, *view = new_view(q);
    const struct disk_conf conf = {.path = disk->path, .read_only = true};
    struct qcow2_snapshot_table t = {0};
    uint64_t *l1 = NULL;
    size_t i;
    int r = view ? qcow2_snapshot_table_read(q, &t, err) : err_set(err, -ENOMEM, "out of memory");

    if (r == 0)
        r = qcow2_snapshot_table_find(q, &t, name, &i, err);
    if (r == 0)
        r = qcow2_snapshot_read_l1(q, &q->snapshots[i], &l1, err);
    if (r)
        goto free_view;
    view->l1 = (struct qcow2_table){.entries = l1, .n = q->snapshots[i].l1_size, .offset = q->snapshots[i].l1_offset};
    view->disk.size = align_up(qcow2_snapshot_table_size(&t.items[i], qcow2_be64(q->header + 24)), DISK_BLOCK_SIZE);
    r = -EINVAL;
    if (!view->disk.size || view->disk.size >= QCOW2_MAX_OFFSET || (view->disk.size - 1) >> q->l2_bits >= view->l1.n) {
        err_set(err, r, "disk '%.200s': the snapshot's L1 table of %zu entries is too small for its %llu bytes",
                disk->path, view->l1.n, (unsigned long long)view->disk.size);
        goto free_view;
    }
    for (size_t k = 0; k < view->l1.n; k++) {
        uint64_t table = l1[k] & QCOW2_OFFSET_MASK;
        if (table & (q->cluster_size - 1) || table >= q->end << q->cluster_bits) {
            err_set(err, r, "disk '%.200s': entry %zu of the snapshot's L1 table is 0x%llx", disk->path, k,
                    (unsigned long long)l1[k]);
            goto free_view;
        }
    }
    view->zeroes = aligned_alloc(4096, QCOW2_ZEROES);
    view->unpacked = malloc(q->cluster_size);
    r = view->zeroes && view->unpacked ? qcow2_page_init(view) : -ENOMEM;
    if (r) {
        err_set(err, r, "disk '%.200s': out of memory", disk->path);
        goto free_view;
    }
    memset(view->zeroes, 0, QCOW2_ZEROES);
    disk_init(&view->disk, &view_type, &conf, disk->loop);
    view->next_view = q->views;
    q->views = view;
    qcow2_snapshot_table_fini(&t);
    *out = &view->disk;
    return 0;

free_view:
    if (view) {
        free(view->zeroes);
        free(view->unpacked);
        free(view->page_hash);
    }
    free(l1);
    free(view);
    qcow2_snapshot_table_fini(&t);
    return r;
}
