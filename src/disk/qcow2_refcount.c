/*
 * Refcounts, 1 to 64 bits each, and the allocator: the first free clusters from q->hint on, and blocks known to be full are skipped.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/qcow2_impl.h"

/* The file gets longer by an eighth of itself, within these bounds, so that not every write moves its end. */
#define GROW_LEAST (512 * KIB)
#define GROW_MOST  (64 * MIB)

void qcow2_table_set(struct qcow2_table *table, size_t i, uint64_t entry)
{
    table->entries[i] = entry;
    table->dirty[i / QCOW2_SECTOR_ENTRIES] = 1;
    table->any_dirty = true;
}

void qcow2_table_fini(struct qcow2_table *table)
{
    free(table->entries);
    free(table->dirty);
    *table = (struct qcow2_table){0};
}

uint64_t qcow2_refcount_read(const struct qcow2 *q, const uint8_t *page, unsigned index)
{
    unsigned order = q->refcount_order;

    switch (order) {
    case 3:
        return page[index];
    case 4:
        return __builtin_bswap16(load_le16(page + index * 2));
    case 5:
        return qcow2_be32(page + index * 4);
    case 6:
        return qcow2_be64(page + index * 8);
    default: /* the first is in the lowest bits */
        return page[index >> (3 - order)] >> ((index << order) & 7) & ((1u << (1u << order)) - 1);
    }
}

void qcow2_refcount_write(const struct qcow2 *q, uint8_t *page, unsigned index, uint64_t count)
{
    unsigned order = q->refcount_order, shift, mask;
    uint8_t *byte;

    switch (order) {
    case 3:
        page[index] = (uint8_t)count;
        break;
    case 4:
        store_le16(page + index * 2, __builtin_bswap16((uint16_t)count));
        break;
    case 5:
        qcow2_put_be32(page + index * 4, (uint32_t)count);
        break;
    case 6:
        qcow2_put_be64(page + index * 8, count);
        break;
    default:
        byte = &page[index >> (3 - order)];
        shift = (index << order) & 7;
        mask = (1u << (1u << order)) - 1;
        *byte = (uint8_t)((*byte & ~(mask << shift)) | (unsigned)count << shift);
    }
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, struct qcow2_waiter *w, struct qcow2_page **page,
                       unsigned *index)
{
    uint64_t block = cluster >> q->block_bits, at = cluster & ((UINT64_C(1) << q->block_bits) - 1);
    uint64_t per_page = q->page_size * 8 >> q->refcount_order;

    *index = (unsigned)(at % per_page);
    *page = NULL;
    if (block >= q->refcounts.n || !q->refcounts.entries[block])
        return 0;
    return qcow2_page_get(q, q->refcounts.entries[block] + at / per_page * q->page_size, QCOW2_PAGE_REFCOUNT, w, page);
}

int qcow2_grow_file(struct qcow2 *q, uint64_t end)
{
    uint64_t bytes = end << q->cluster_bits, size = file_size(q->file);

    if (end <= q->end)
        return 0;
    if (bytes >= QCOW2_MAX_OFFSET)
        return -EFBIG;
    if (bytes > size) {
        uint64_t step = size / 8 > GROW_MOST ? GROW_MOST : align_up(size / 8 + 1, GROW_LEAST);
        int r = file_truncate(q->file, bytes + step);
        if (r) /* a block device cannot, and a file system may have a limit */
            r = file_truncate(q->file, bytes);
        if (r)
            return r == -EINVAL ? -ENOSPC : r;
        q->grown = true;
    }
    q->end = end;
    return 0;
}

/* A search for adjacent free clusters. */
struct search {
    uint64_t min, want;
    uint64_t at;              /* the next to look at */
    uint64_t run;             /* free ones just before it */
    uint64_t first_free;      /* the first that was free, whether it was of use or not */
    bool any_free, free_here; /* here: in the block */
};

/* Looks through what a page holds from s->at on; true when the run is what was wanted. */
static bool search_page(struct qcow2 *q, struct search *s, const struct qcow2_page *page, unsigned index)
{
    unsigned per_page = (unsigned)(q->page_size * 8 >> q->refcount_order);

    for (; index < per_page; index++, s->at++) {
        if (qcow2_refcount_read(q, page->data, index) || qcow2_set_has(&q->meta, s->at)) {
            if (s->run >= s->min)
                return true;
            s->run = 0;
            continue;
        }
        if (!s->any_free)
            s->first_free = s->at;
        s->any_free = s->free_here = true;
        if (++s->run == s->want) {
            s->at++;
            return true;
        }
    }
    return false;
}

static int search(struct qcow2 *q, struct search *s, struct qcow2_waiter *w)
{
    uint64_t block_mask = (UINT64_C(1) << q->block_bits) - 1;
    struct qcow2_page *page;
    unsigned index;

    for (;;) {
        uint64_t block = s->at >> q->block_bits;
        if (s->at << q->cluster_bits >= QCOW2_MAX_OFFSET)
            return -EFBIG;
        if (block < q->refcounts.n && q->block_full[block]) {
            if (s->run >= s->min)
                return 0;
            s->run = 0;
            s->at = (block + 1) << q->block_bits;
            continue;
        }
        int r = qcow2_refcount_get(q, s->at, w, &page, &index);
        if (r)
            return r;
        if (!page) {
            if (s->run >= s->min)
                return 0;
            r = qcow2_grow_refcounts(q, block, w);
            if (r)
                return r;
            continue;
        }
        if (search_page(q, s, page, index))
            return 0;
        if (!(s->at & block_mask)) { /* below q->hint there is nothing free, so this was all of the block */
            q->block_full[block] = !s->free_here;
            s->free_here = false;
        }
    }
}

/* All pages are made dirty before the first count changes. */
static int take(struct qcow2 *q, uint64_t first, uint64_t n, struct qcow2_waiter *w)
{
    uint64_t per_page = q->page_size * 8 >> q->refcount_order;
    struct qcow2_page *page;
    unsigned index;

    for (uint64_t c = first; c < first + n; c = align_down(c, per_page) + per_page) {
        int r = qcow2_refcount_get(q, c, w, &page, &index);
        if (r == 0)
            r = qcow2_page_modify(page);
        if (r)
            return r;
    }
    int r = qcow2_grow_file(q, first + n);
    for (uint64_t c = first; r == 0 && c < first + n; c++) {
        r = qcow2_refcount_get(q, c, w, &page, &index);
        if (r == 0)
            qcow2_refcount_write(q, page->data, index, 1);
    }
    return r;
}

int qcow2_refcount_alloc(struct qcow2 *q, uint64_t min, uint64_t want, struct qcow2_waiter *w, uint64_t *first,
                         uint64_t *n, bool *fresh)
{
    struct search s = {.min = min, .want = want, .at = q->hint};
    int r = search(q, &s, w);

    if (r)
        return r;
    *n = s.run;
    *first = s.at - s.run;
    *fresh = *first >= q->end;
    r = take(q, *first, *n, w);
    if (r)
        return r;
    q->hint = s.any_free && s.first_free < *first ? s.first_free : s.at;
    return 0;
}
