/* From the old metadata to the new, all at once: qcow2_snapshot.h tells how. */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_snapshot.h"

#define STAGE (2 * MIB) /* a cluster at least */

/* ---- writing ---- */

static int flush_stage(struct qcow2_swap *s)
{
    int r = s->out_len ? file_write(s->q->file, s->out_at, s->out, s->out_len) : 0;

    s->out_len = 0;
    return r ? qcow2_swap_fail(s, r, "its metadata cannot be written: %s", strerror(-r)) : 0;
}

int qcow2_swap_stage(struct qcow2_swap *s, uint64_t offset, size_t len, uint8_t **buf)
{
    if (s->out_at + s->out_len != offset || s->out_len + len > s->out_size) {
        int r = flush_stage(s);
        if (r)
            return r;
        s->out_at = offset;
    }
    *buf = s->out + s->out_len;
    s->out_len += len;
    return 0;
}

int qcow2_swap_write(struct qcow2_swap *s, uint64_t offset, const void *data, size_t len)
{
    const uint8_t *from = data;
    uint8_t *to;

    while (len) {
        size_t here = len < s->out_size ? len : s->out_size;
        int r = qcow2_swap_stage(s, offset, here, &to);
        if (r)
            return r;
        memcpy(to, from, here);
        offset += here;
        from += here;
        len -= here;
    }
    return 0;
}

/* ---- the new refcounts ---- */

/* A place for each block that changes, which may change others; true in *more when it did. */
static int place_blocks(struct qcow2_swap *s, bool *more)
{
    uint64_t first;

    *more = false;
    for (uint64_t b = 0; b < s->n_blocks; b++) {
        if (!s->changed[b] || s->places[b])
            continue;
        int r = qcow2_swap_take(s, 1, &first);
        if (r == 0 && qcow2_swap_entry(s, b))
            r = qcow2_swap_drop(s, qcow2_swap_entry(s, b), s->q->cluster_size);
        if (r)
            return r;
        s->places[b] = first;
        *more = true;
    }
    return 0;
}

/* The entries that the table must have. */
static uint64_t entries_needed(const struct qcow2_swap *s)
{
    uint64_t n = s->q->refcounts.n;

    for (uint64_t b = n; b < s->n_blocks; b++)
        n = s->changed[b] ? b + 1 : n;
    return n;
}

static int place_all(struct qcow2_swap *s)
{
    struct qcow2 *q = s->q;
    uint64_t per_cluster = q->cluster_size / 8;
    bool more = true;
    int r = qcow2_swap_drop(s, q->refcounts.offset, q->refcount_clusters << q->cluster_bits);

    while (r == 0 && (more || entries_needed(s) > s->n_table)) {
        if (entries_needed(s) > s->n_table || !s->table) {
            uint64_t n = entries_needed(s), clusters = (n + per_cluster - 1) / per_cluster;
            if (clusters << q->cluster_bits > QCOW2_MAX_TABLE)
                return qcow2_swap_fail(s, -EFBIG, "its refcount table can get no bigger");
            if (s->table)
                r = qcow2_swap_drop(s, s->table << q->cluster_bits, s->table_clusters << q->cluster_bits);
            if (r == 0)
                r = qcow2_swap_take(s, clusters, &s->table);
            s->table_clusters = clusters;
            s->n_table = clusters * per_cluster;
        }
        if (r == 0)
            r = place_blocks(s, &more);
    }
    return r;
}

/* What is gone stays counted, until it is punched. */
static void keep_gone(struct qcow2_swap *s)
{
    for (size_t i = 0; i < s->gone.n; i++) {
        const struct qcow2_swap_run *run = &s->gone.items[i];
        for (uint64_t c = run->first; c < run->first + run->n; c++)
            qcow2_refcount_write(s->q, s->blocks[c >> s->q->block_bits], qcow2_swap_index(s->q, c), 1);
    }
}

static int write_all(struct qcow2_swap *s, struct qcow2_table *table)
{
    struct qcow2 *q = s->q;
    int r = 0;

    memcpy(table->entries, q->refcounts.entries, q->refcounts.n * 8);
    for (uint64_t b = 0; r == 0 && b < s->n_blocks; b++) {
        if (!s->changed[b])
            continue;
        table->entries[b] = s->places[b] << q->cluster_bits;
        r = qcow2_swap_write(s, table->entries[b], s->blocks[b], q->cluster_size);
    }
    for (size_t i = 0; r == 0 && i < table->n;) {
        size_t n = table->n - i < s->out_size / 8 ? table->n - i : s->out_size / 8;
        uint8_t *buf;
        r = qcow2_swap_stage(s, table->offset + i * 8, n * 8, &buf);
        for (size_t last = i + n; r == 0 && i < last; i++, buf += 8)
            qcow2_put_be64(buf, table->entries[i]);
    }
    if (r == 0)
        r = flush_stage(s);
    if (r)
        return r;
    r = file_sync(q->file);
    return r ? qcow2_swap_fail(s, r, "its metadata cannot be written: %s", strerror(-r)) : 0;
}

/* ---- from the old to the new ---- */

static int write_header(struct qcow2 *q, const uint8_t *header)
{
    int r = file_write(q->file, 0, header, QCOW2_HEADER_SECTOR);

    return r ? r : file_sync(q->file);
}

static int switch_header(struct qcow2_swap *s)
{
    struct qcow2 *q = s->q;
    const struct qcow2_table *l1 = s->l1.entries ? &s->l1 : &q->l1;
    uint8_t header[QCOW2_HEADER_SECTOR];

    memcpy(header, q->header, sizeof(header));
    qcow2_put_be64(header + 24, s->size);
    qcow2_put_be32(header + 36, (uint32_t)l1->n);
    qcow2_put_be64(header + 40, l1->offset);
    qcow2_put_be64(header + 48, s->table << q->cluster_bits);
    qcow2_put_be32(header + 56, (uint32_t)s->table_clusters);
    qcow2_put_be32(header + 60, s->n_snapshots);
    qcow2_put_be64(header + 64, s->snapshots_offset);
    int r = write_header(q, header);
    if (r == 0) {
        memcpy(q->header, header, sizeof(header));
        return 0;
    }
    (void)qcow2_header_restore(q);
    return qcow2_swap_fail(s, r, "its header cannot be written: %s", strerror(-r));
}

static uint64_t total(const struct qcow2_swap_runs *runs)
{
    uint64_t n = 0;

    for (size_t i = 0; i < runs->n; i++)
        n += runs->items[i].n;
    return n;
}

static void install_meta(struct qcow2_swap *s)
{
    struct qcow2 *q = s->q;

    for (size_t i = 0; i < s->enter.n; i++)
        for (uint64_t c = 0; c < s->enter.items[i].n; c++)
            (void)!qcow2_set_add(&q->meta, s->enter.items[i].first + c); /* there is room */
    for (size_t i = 0; i < s->leave.n; i++)
        for (uint64_t c = 0; c < s->leave.items[i].n; c++)
            qcow2_set_remove(&q->meta, s->leave.items[i].first + c);
}

static void install_free(struct qcow2_swap *s, bool punch)
{
    struct qcow2 *q = s->q;

    for (size_t i = 0; i < s->gone.n; i++) {
        struct qcow2_swap_run *run = &s->gone.items[i];
        if (punch) {
            qcow2_free_unused(q, run->first, run->n);
            continue;
        }
        for (uint64_t b = run->first >> q->block_bits; b <= (run->first + run->n - 1) >> q->block_bits; b++)
            q->block_full[b] = 0;
        if (run->first < q->hint)
            q->hint = run->first;
    }
}

static void install(struct qcow2_swap *s, struct qcow2_table *table, uint8_t *full, bool punch)
{
    struct qcow2 *q = s->q;

    memcpy(full, q->block_full, q->refcounts.n);
    free(q->block_full);
    q->block_full = full;
    qcow2_table_fini(&q->refcounts);
    q->refcounts = *table;
    q->refcount_clusters = s->table_clusters;
    *table = (struct qcow2_table){0};
    if (s->l1.entries) {
        qcow2_table_fini(&q->l1);
        q->l1 = s->l1;
        q->l1_clusters = s->l1_clusters;
        s->l1 = (struct qcow2_table){0};
    }
    q->disk.size = align_up(s->size, DISK_BLOCK_SIZE);
    free(q->snapshots);
    q->snapshots = s->snapshots;
    s->snapshots = NULL;
    q->n_snapshots = s->n_snapshots;
    q->snapshots_offset = s->snapshots_offset;
    q->snapshots_bytes = s->snapshots_bytes;
    q->unpacked_entry = 0;
    qcow2_page_drop(q);
    install_meta(s);
    install_free(s, punch);
}

int qcow2_swap_commit(struct qcow2_swap *s, bool punch)
{
    struct qcow2 *q = s->q;
    int r = place_all(s);

    if (r)
        return r;
    struct qcow2_table table = {.entries = calloc(s->n_table, sizeof(*table.entries)),
                                .offset = s->table << q->cluster_bits,
                                .n = s->n_table,
                                .dirty = calloc(s->n_table / QCOW2_SECTOR_ENTRIES + 1, 1)};
    uint8_t *full = calloc(s->n_table, 1);
    punch = punch && q->disk.discard;
    if (!table.entries || !table.dirty || !full || qcow2_set_reserve(&q->meta, total(&s->enter)))
        r = qcow2_swap_fail(s, -ENOMEM, "out of memory");
    if (r == 0 && punch)
        keep_gone(s);
    if (r == 0)
        r = write_all(s, &table);
    if (r == 0)
        r = switch_header(s);
    if (r == 0) {
        install(s, &table, full, punch);
        return 0;
    }
    qcow2_table_fini(&table);
    free(full);
    return r;
}

/* ---- life ---- */

int qcow2_swap_init(struct qcow2_swap *s, struct qcow2 *q, uint64_t want, struct err *err)
{
    unsigned bits = 1u << q->refcount_order;

    *s = (struct qcow2_swap){.q = q,
                             .err = err,
                             .last = UINT64_MAX,
                             .max = bits < 64 ? (UINT64_C(1) << bits) - 1 : UINT64_MAX,
                             .beyond = q->end,
                             .out = aligned_alloc(4096, STAGE),
                             .out_size = STAGE,
                             .in = aligned_alloc(4096, STAGE),
                             .in_size = STAGE,
                             .size = qcow2_be64(q->header + 24)};
    if (!s->out || !s->in)
        return qcow2_swap_fail(s, -ENOMEM, "out of memory");
    return qcow2_swap_find_room(s, want);
}

void qcow2_swap_fini(struct qcow2_swap *s)
{
    for (size_t b = 0; b < s->n_blocks; b++)
        free(s->blocks[b]);
    free(s->blocks);
    free(s->changed);
    free(s->places);
    free(s->room.items);
    free(s->gone.items);
    free(s->enter.items);
    free(s->leave.items);
    free(s->out);
    free(s->in);
    free(s->snapshots);
    qcow2_table_fini(&s->l1);
}
