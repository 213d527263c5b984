/*
 * Clusters on their way back. They wait for the commit that takes their last reference out of the file, then for the requests that were under way by
 * then and may still use them; then the file's room is given back (a hole), and only then their refcount falls, so that nobody can get them
 * before. Where memory for the list is lacking, they leak, which a check of the image finds.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/qcow2_impl.h"

static void add(struct qcow2 *q, struct qcow2_extents *list, struct qcow2_extent e)
{
    struct qcow2_extent *last = list->n > list->head ? &list->items[list->n - 1] : NULL;

    if (last && last->first + last->n == e.first && last->seq == e.seq) {
        last->n += e.n;
        return;
    }
    if (list->n == list->capacity && list->head > list->capacity / 2) {
        memmove(list->items, list->items + list->head, (list->n - list->head) * sizeof(e));
        list->n -= list->head;
        list->head = 0;
    } else if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        struct qcow2_extent *items = realloc(list->items, capacity * sizeof(e));
        if (!items) {
            log_warn("disk '%.200s': out of memory: some clusters are lost to it until it is repaired", q->disk.path);
            return;
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = e;
}

void qcow2_free_fini(struct qcow2_extents *list)
{
    free(list->items);
    *list = (struct qcow2_extents){0};
}

void qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t n)
{
    add(q, &q->frees, (struct qcow2_extent){.first = first, .n = n});
}

void qcow2_free_unused(struct qcow2 *q, uint64_t first, uint64_t n)
{
    if (q->header_unsure)
        return; /* the other header may refer to them: they leak */
    add(q, &q->ripe, (struct qcow2_extent){.first = first, .n = n, .seq = q->seq});
    qcow2_free_reap(q);
}

void qcow2_free_committed(struct qcow2 *q, struct qcow2_extents *extents, int result)
{
    for (size_t i = extents->head; i < extents->n; i++) {
        struct qcow2_extent e = extents->items[i];
        e.seq = q->seq;
        add(q, result ? &q->frees : &q->ripe, e);
    }
    qcow2_free_fini(extents);
    qcow2_free_reap(q);
}

/* ---- giving back ---- */

/* No longer metadata, if it was. */
static void leave_meta(struct qcow2 *q, uint64_t cluster)
{
    if (!qcow2_set_has(&q->meta, cluster))
        return;
    qcow2_set_remove(&q->meta, cluster);
    qcow2_page_forget(q, cluster);
}

static void freed(struct qcow2 *q, uint64_t cluster)
{
    leave_meta(q, cluster);
    qcow2_pack_avoid(q, cluster, 1);
    q->unpacked_entry = 0;
    q->block_full[cluster >> q->block_bits] = 0;
    if (cluster < q->hint)
        q->hint = cluster;
}

static void drop_front(struct qcow2_extents *list, uint64_t n)
{
    struct qcow2_extent *e = &list->items[list->head];

    e->first += n;
    e->n -= n;
    if (!e->n)
        list->head++;
    if (list->head == list->n)
        list->head = list->n = 0;
}

static void punched(struct disk_request *io, int result)
{
    struct qcow2 *q = CONTAINER_OF(io, struct qcow2, reaper.io);

    (void)result; /* room that stays taken is no harm */
    q->reaper.busy = false;
    qcow2_free_reap(q);
    qcow2_run(q);
}

static void punch(struct qcow2 *q, uint64_t first, uint64_t n)
{
    struct qcow2_reaper *reaper = &q->reaper;

    qcow2_pack_avoid(q, first, n);
    reaper->punched = n;
    reaper->busy = true;
    reaper->io = (struct disk_request){
        .op = DISK_DISCARD, .offset = first << q->cluster_bits, .len = n << q->cluster_bits, .done = punched};
    file_submit(q->file, &reaper->io);
}

/* How many of the extent's first clusters, as far as `page` counts them, have their last reference with us. */
static uint64_t count_last(struct qcow2 *q, const struct qcow2_extent *e, const struct qcow2_page *page, unsigned index)
{
    uint64_t n = 0, per_page = q->page_size * 8 >> q->refcount_order;

    while (n < e->n && index + n < per_page && qcow2_refcount_read(q, page->data, index + (unsigned)n) == 1)
        n++;
    return n;
}

/* A part of the extent: 0, or -EAGAIN where it goes on later. */
static int reap_some(struct qcow2 *q, struct qcow2_extent *e)
{
    struct qcow2_reaper *reaper = &q->reaper;
    struct qcow2_page *page;
    unsigned index;
    int r = qcow2_refcount_get(q, e->first, &reaper->waiter, &page, &index);

    if (r)
        return r;
    uint64_t count = page ? qcow2_refcount_read(q, page->data, index) : 0;
    if (!count)
        return qcow2_broken(q, "the cluster at offset 0x%llx is in use and has a refcount of 0",
                            (unsigned long long)e->first << q->cluster_bits);
    if (count == 1 && q->disk.discard && !reaper->punched) {
        punch(q, e->first, count_last(q, e, page, index));
        return -EAGAIN;
    }
    r = qcow2_page_modify(page);
    if (r)
        return r;
    uint64_t n = count == 1 ? count_last(q, e, page, index) : 1;
    if (reaper->punched && n > reaper->punched)
        n = reaper->punched;
    for (uint64_t i = 0; i < n; i++) {
        qcow2_refcount_write(q, page->data, index + (unsigned)i, count - 1);
        if (count == 1)
            freed(q, e->first + i);
        else
            leave_meta(q, e->first + i);
    }
    reaper->punched -= reaper->punched ? n : 0;
    drop_front(&q->ripe, n);
    return 0;
}

static void page_there(struct qcow2_waiter *w, int result)
{
    struct qcow2 *q = CONTAINER_OF(w, struct qcow2, reaper.waiter);

    q->reaper.busy = false;
    if (result) { /* its refcount cannot be read: it leaks */
        q->reaper.punched = 0;
        drop_front(&q->ripe, 1);
    }
    qcow2_free_reap(q);
}

void qcow2_free_reap(struct qcow2 *q)
{
    struct qcow2_reaper *reaper = &q->reaper;

    while (!reaper->busy && q->ripe.n > q->ripe.head) {
        struct qcow2_extent *e = &q->ripe.items[q->ripe.head];
        if (q->oldest && q->oldest->seq <= e->seq && !reaper->punched)
            return;
        reaper->busy = true;
        reaper->waiter.wake = page_there;
        int r = reap_some(q, e);
        if (r == -EAGAIN)
            return;
        reaper->busy = false;
        if (r) {
            reaper->punched = 0;
            drop_front(&q->ripe, 1);
        }
    }
}
