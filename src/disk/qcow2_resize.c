/*
 * More and fewer guest bytes, with no request under way: plain calls. The header, one sector, says in the end how many there are, so that whatever ends the
 * process before leaves the old size.
 *
 * What comes new reads as zeroes: a backing file that goes on behind the old end is hidden by zero flags, and what an earlier owner left in the tables is dropped,
 * both before the size changes. What goes away is dropped first.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

static int write_l1(struct qcow2 *q, uint64_t offset, const uint64_t *entries, size_t n, size_t clusters)
{
    size_t len = clusters << q->cluster_bits;
    uint8_t *buf = calloc(1, len);

    if (!buf)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        qcow2_put_be64(buf + i * 8, entries[i]);
    int r = file_write(q->file, offset, buf, len);
    free(buf);
    return r;
}

/* A copy of L1 with room for n entries, in the file with its refcounts: all but the header is ready for it. */
static int copy_l1(struct qcow2 *q, size_t n, struct qcow2_table *table, size_t *n_clusters)
{
    size_t clusters = align_up(n * 8, q->cluster_size) >> q->cluster_bits;
    uint64_t first;
    int r = qcow2_alloc_wait(q, clusters, &first);

    if (r)
        return r;
    *table = (struct qcow2_table){.entries = calloc(n, sizeof(*table->entries)),
                                  .offset = first << q->cluster_bits,
                                  .n = n,
                                  .dirty = calloc(n / QCOW2_SECTOR_ENTRIES + 1, 1)};
    r = table->entries && table->dirty ? qcow2_set_reserve(&q->meta, clusters) : -ENOMEM;
    if (r == 0) {
        memcpy(table->entries, q->l1.entries, q->l1.n * sizeof(*table->entries));
        r = write_l1(q, table->offset, table->entries, n, clusters);
    }
    if (r == 0)
        r = qcow2_settle(q);
    if (r) {
        qcow2_table_fini(table);
        qcow2_free_unused(q, first, clusters);
        return r;
    }
    *n_clusters = clusters;
    return 0;
}

static int write_and_sync_header(struct qcow2 *q)
{
    int r = qcow2_header_write(q);

    return r ? r : file_sync(q->file);
}

/* One sector says both how big the disk is and where its L1 table lies. */
static int switch_header(struct qcow2 *q, uint64_t size, const struct qcow2_table *l1)
{
    struct qcow2_table old = q->l1;
    uint64_t old_size = q->disk.size;

    q->l1 = *l1;
    q->disk.size = size;
    int r = write_and_sync_header(q);
    if (r == 0)
        return 0;
    q->l1 = old;
    q->disk.size = old_size;
    (void)qcow2_header_restore(q);
    return r;
}

/* Puts a bigger L1 table in the place of the old one. */
static int grow_l1(struct qcow2 *q, size_t n)
{
    struct qcow2_table old = q->l1, l1;
    size_t clusters;
    int r = copy_l1(q, n, &l1, &clusters);

    if (r)
        return r;
    r = switch_header(q, q->disk.size, &l1);
    if (r) {
        qcow2_free_unused(q, l1.offset >> q->cluster_bits, clusters);
        qcow2_table_fini(&l1);
        return r;
    }
    for (uint64_t c = l1.offset >> q->cluster_bits, last = c + clusters; c < last; c++)
        (void)!qcow2_set_add(&q->meta, c); /* there is room, and it was free */
    qcow2_free_later(q, old.offset >> q->cluster_bits, q->l1_clusters);
    q->l1_clusters = clusters;
    qcow2_table_fini(&old);
    return 0;
}

/* Makes guest bytes from the disk's end to `size` read as zeroes, which nobody can see yet. */
static int clear_new(struct qcow2 *q, uint64_t size)
{
    uint64_t old = q->disk.size, start = align_up(old, q->cluster_size), end = align_up(size, q->cluster_size);
    uint64_t tables_end = (uint64_t)q->l1.n << q->l2_bits, backed_end = q->backed_below < end ? q->backed_below : end;
    int r = 0;

    backed_end = align_up(backed_end, q->cluster_size);
    if (tables_end > end)
        tables_end = end;
    if (start > old)
        r = qcow2_inner_wait(q, DISK_ZERO, old, start - old, false);
    if (r == 0 && tables_end > start)
        r = qcow2_inner_wait(q, DISK_DISCARD, start, tables_end - start, true);
    if (r == 0 && backed_end > start)
        r = qcow2_inner_wait(q, DISK_ZERO, start, backed_end - start, false);
    return r ? r : qcow2_settle(q);
}

static int grow(struct qcow2 *q, uint64_t size)
{
    size_t n = align_up(size, UINT64_C(1) << q->l2_bits) >> q->l2_bits;
    int r = qcow2_settle(q);

    if (r == 0 && n > q->l1.n)
        r = grow_l1(q, n);
    if (r == 0)
        r = clear_new(q, size);
    return r ? r : switch_header(q, size, &q->l1);
}

static int shrink(struct qcow2 *q, uint64_t size)
{
    uint64_t start = align_up(size, q->cluster_size), end = align_up(q->disk.size, q->cluster_size);
    size_t n = align_up(size, UINT64_C(1) << q->l2_bits) >> q->l2_bits;
    int r = qcow2_settle(q);

    if (r == 0 && end > start)
        r = qcow2_inner_wait(q, DISK_DISCARD, start, end - start, true);
    if (r == 0)
        r = qcow2_settle(q);
    if (r == 0)
        r = switch_header(q, size, &q->l1);
    if (r)
        return r;
    for (size_t i = n; i < q->l1.n; i++) {
        uint64_t table = q->l1.entries[i] & QCOW2_OFFSET_MASK;
        if (!table)
            continue;
        qcow2_free_later(q, table >> q->cluster_bits, 1);
        qcow2_table_set(&q->l1, i, 0);
    }
    (void)!qcow2_settle(q); /* only gives back room */
    return 0;
}

int qcow2_resize(struct disk *disk, uint64_t size, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;

    if (size == disk->size)
        return 0;
    if (q->broken)
        return err_set(err, -EIO, "disk '%.200s': the image is corrupt", disk->path);
    if (q->n_snapshots && q->version < 3)
        return err_set(err, -ENOTSUP, "disk '%.200s': an image of version 2 that has snapshots keeps its size",
                       disk->path);
    if (size >= QCOW2_MAX_OFFSET || size > (QCOW2_MAX_L1_BYTES / 8) << q->l2_bits)
        return err_set(err, -EFBIG, "disk '%.200s': with clusters of %llu bytes it can have %llu bytes at most",
                       disk->path, (unsigned long long)q->cluster_size,
                       (unsigned long long)((QCOW2_MAX_L1_BYTES / 8) << q->l2_bits));
    int r = qcow2_bitmap_will_change(q);
    uint64_t old = disk->size;
    if (r == 0)
        r = size < disk->size ? shrink(q, size) : grow(q, size);
    if (disk->size != old)
        qcow2_bitmap_resized(q);
    return r ? err_set(err, r, "disk '%.200s': cannot %s: %s", disk->path, size < disk->size ? "shrink" : "grow",
                       strerror(-r))
             : 0;
}
