/*
 * New refcount blocks, and a bigger refcount table when there is no place for them.
 *
 * A block lies among the clusters that it counts, where by the lack of a block everything is free: so it counts itself, and nothing else
 * changes. A new table and the blocks for where it lies are laid behind everything that the old one can count. Whatever is not known to read as
 * zeroes is zeroed first; then all changes in memory at once.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

/* The counts of what is new: pages of zeroes, with ones. All are made before anything refers to them. */
static int count(struct qcow2 *q, const struct qcow2_grow *g)
{
    uint64_t per_page = q->page_size * 8 >> q->refcount_order;
    uint64_t blocks = g->first + g->table_clusters;
    struct qcow2_page *page = NULL;

    for (uint64_t c = g->first; c < blocks + g->n_blocks; c++) {
        uint64_t block = c >> q->block_bits, at = c & ((UINT64_C(1) << q->block_bits) - 1);
        if (!page || at % per_page == 0) {
            uint64_t offset = (blocks + block - g->block) << q->cluster_bits;
            int r = qcow2_page_new(q, offset + at / per_page * q->page_size, QCOW2_PAGE_REFCOUNT, &page);
            if (r == 0)
                r = qcow2_page_modify(page);
            if (r)
                return r;
        }
        qcow2_refcount_write(q, page->data, (unsigned)(at % per_page), 1);
    }
    return 0;
}

static int install(struct qcow2 *q, struct qcow2_grow *g)
{
    uint64_t all = g->table_clusters + g->n_blocks, blocks = g->first + g->table_clusters;
    uint8_t *full = g->table_clusters ? calloc(g->table.n, 1) : NULL;
    int r = g->table_clusters && !full ? -ENOMEM : qcow2_set_reserve(&q->meta, all);

    if (r == 0)
        r = count(q, g);
    if (r) {
        for (uint64_t c = blocks; c < blocks + g->n_blocks; c++)
            qcow2_page_forget(q, c);
        free(full);
        return r;
    }
    for (uint64_t c = g->first; c < g->first + all; c++)
        (void)!qcow2_set_add(&q->meta, c); /* there is room, and they were free */
    if (g->table_clusters) {
        qcow2_free_later(q, q->refcounts.offset >> q->cluster_bits, q->refcount_clusters);
        memcpy(g->table.entries, q->refcounts.entries, q->refcounts.n * sizeof(uint64_t));
        memcpy(full, q->block_full, q->refcounts.n);
        qcow2_table_fini(&q->refcounts);
        free(q->block_full);
        q->refcounts = g->table;
        q->block_full = full;
        q->refcount_clusters = g->table_clusters;
        q->refcounts_moved = true;
        g->table = (struct qcow2_table){0};
    }
    for (uint64_t i = 0; i < g->n_blocks; i++)
        qcow2_table_set(&q->refcounts, g->block + i, (blocks + i) << q->cluster_bits);
    q->new_blocks = true;
    return 0;
}

static int end(struct qcow2 *q, int result)
{
    struct qcow2_grow *g = &q->grow;

    if (result == 0)
        result = install(q, g);
    qcow2_table_fini(&g->table);
    g->busy = false;
    qcow2_wake(q, &g->waiters, result);
    qcow2_commit_kick(q);
    return result;
}

static void zeroed(struct disk_request *io, int result)
{
    struct qcow2 *q = CONTAINER_OF(io, struct qcow2, grow.io);

    end(q, result);
    qcow2_run(q);
}

/* Room for a block in the clusters of the table's entry. */
static int place_block(struct qcow2 *q, struct qcow2_grow *g, uint64_t block)
{
    uint64_t c = block << q->block_bits, last = (block + 1) << q->block_bits;

    while (c < last && qcow2_set_has(&q->meta, c))
        c++;
    if (c == last)
        return qcow2_broken(q, "refcount table entry %llu at offset 0x%llx: 0 for clusters full of metadata",
                            (unsigned long long)block, (unsigned long long)(q->refcounts.offset + block * 8));
    g->block = block;
    g->n_blocks = 1;
    g->first = c;
    g->table_clusters = 0;
    return 0;
}

/* Room for a table half as big again, and its blocks. */
static int place_table(struct qcow2 *q, struct qcow2_grow *g, uint64_t block)
{
    uint64_t per_cluster = q->cluster_size / 8, n = q->refcounts.n + q->refcounts.n / 2, all;

    g->block = q->refcounts.n;
    g->first = g->block << q->block_bits;
    g->n_blocks = 1;
    if (n <= block)
        n = block + 1;
    for (;;) { /* the blocks must count the table and themselves, and the table must have entries for them */
        n = align_up(n, per_cluster);
        g->table_clusters = n / per_cluster;
        all = g->table_clusters + g->n_blocks;
        uint64_t blocks = ((g->first + all - 1) >> q->block_bits) - g->block + 1;
        if (blocks <= g->n_blocks && g->block + g->n_blocks <= n)
            break;
        g->n_blocks = blocks > g->n_blocks ? blocks : g->n_blocks;
        if (n < g->block + g->n_blocks)
            n = g->block + g->n_blocks;
    }
    if (n * 8 > QCOW2_MAX_TABLE || (g->first + all) << q->cluster_bits >= QCOW2_MAX_OFFSET)
        return -EFBIG;
    g->table = (struct qcow2_table){.entries = calloc(n, sizeof(uint64_t)),
                                    .offset = g->first << q->cluster_bits,
                                    .n = n,
                                    .dirty = calloc(n / QCOW2_SECTOR_ENTRIES + 1, 1)};
    return g->table.entries && g->table.dirty ? 0 : -ENOMEM;
}

int qcow2_grow_refcounts(struct qcow2 *q, uint64_t block, struct qcow2_waiter *w)
{
    struct qcow2_grow *g = &q->grow;

    if (g->busy) {
        qcow2_park(&g->waiters, w);
        return -EAGAIN;
    }
    int r = block < q->refcounts.n ? place_block(q, g, block) : place_table(q, g, block);
    uint64_t old_end = q->end, all = g->table_clusters + g->n_blocks;
    if (r == 0)
        r = qcow2_grow_file(q, g->first + all);
    if (r) {
        qcow2_table_fini(&g->table);
        return r;
    }
    g->busy = true;
    if (g->first >= old_end)
        return end(q, 0);
    qcow2_park(&g->waiters, w);
    g->io = (struct disk_request){
        .op = DISK_ZERO, .offset = g->first << q->cluster_bits, .len = all << q->cluster_bits, .done = zeroed};
    file_submit(q->file, &g->io);
    return -EAGAIN;
}
