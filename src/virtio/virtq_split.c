/*
 * The split layout (virtio 1.2 section 2.7): a table of descriptors, a ring of chains available, a ring of chains used. Positions in the rings are
 * free-running 16-bit counters.
 */
#include <errno.h>

#include "virtio/virtq_impl.h"

/* Available ring (2.7.6): flags, idx, ring[size], used_event. Used ring (2.7.8): flags, idx, {id, len}[size], avail_event. */
enum { RING_FLAGS = 0, RING_IDX = 2, RING_ENTRIES = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

static uint8_t *avail_entry(struct virtq *q, uint16_t i)
{
    return q->driver + RING_ENTRIES + 2 * (i & (q->size - 1));
}

static uint8_t *used_entry(struct virtq *q, uint16_t i)
{
    return q->device + RING_ENTRIES + 8 * (i & (q->size - 1));
}

static uint8_t *used_event(struct virtq *q)
{
    return q->driver + RING_ENTRIES + 2 * q->size;
}

static uint8_t *avail_event(struct virtq *q)
{
    return q->device + RING_ENTRIES + 8 * q->size;
}

static bool split_ready(struct virtq *q)
{
    if (q->seen != q->avail)
        return true;
    uint16_t idx = virtq_load16(q->driver + RING_IDX);
    if ((uint16_t)(idx - q->avail) > q->size) {
        virtq_break(q, "the available index has moved on by more than the queue's size");
        return false;
    }
    q->seen = idx;
    return idx != q->avail;
}

/* A table outside the ring, of which `n` descriptors are there. Linked as the ring itself, from its first. */
static int split_walk_indirect(struct virtq *q, struct virtq_item *item, const uint8_t *table, unsigned n)
{
    unsigned at = 0, most = n < VIRTQ_SIZE_MAX ? n : VIRTQ_SIZE_MAX;

    for (unsigned seen = 0; seen < most; seen++) {
        struct virtq_desc d;
        virtq_fetch(&d, table + (size_t)VIRTQ_DESC_SIZE * at);
        if (d.flags & VIRTQ_DESC_INDIRECT) {
            virtq_break(q, "an indirect descriptor in an indirect table");
            return -EINVAL;
        }
        int r = virtq_add(q, item, &d);
        if (r < 0)
            return r;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return 0;
        if (d.next >= n) {
            virtq_break(q, "a descriptor's next lies beyond its indirect table");
            return -EINVAL;
        }
        at = d.next;
    }
    virtq_break(q, "a chain in an indirect table has a loop, or is too long");
    return -ELOOP;
}

static int walk(struct virtq *q, struct virtq_item *item)
{
    unsigned at = item->id;

    for (unsigned seen = 0; seen < q->size; seen++) {
        struct virtq_desc d;
        virtq_fetch(&d, q->desc + (size_t)VIRTQ_DESC_SIZE * at);
        int r = d.flags & VIRTQ_DESC_INDIRECT ? virtq_add_indirect(q, item, &d) : virtq_add(q, item, &d);
        if (r < 0)
            return r;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return 0;
        if (d.next >= q->size) {
            virtq_break(q, "a descriptor's next lies beyond the table");
            return -EINVAL;
        }
        at = d.next;
    }
    virtq_break(q, "a chain has a loop, or is longer than the queue");
    return -ELOOP;
}

static int split_next(struct virtq *q, struct virtq_item *item)
{
    if (!split_ready(q))
        return 0;
    item->id = virtq_load16(avail_entry(q, q->avail));
    if (item->id >= q->size) {
        virtq_break(q, "an available chain's head lies beyond the table");
        return -EINVAL;
    }
    int r = walk(q, item);
    if (r < 0)
        return r;
    q->avail++;
    return 1;
}

static void split_push(struct virtq *q, const struct virtq_item *item, uint32_t written)
{
    uint8_t *entry = used_entry(q, q->used);

    virtq_store32(entry, item->id);
    virtq_store32(entry + 4, written);
    q->used++;
    q->unflushed++;
}

/* What lies in the ring from `first` on, without the index. */
static void tell_stores(struct virtq *q, uint16_t first, unsigned n)
{
    unsigned at = first & (q->size - 1), until_end = q->size - at;

    if (n > until_end) {
        virtq_stored(q, used_entry(q, 0), 8 * (uint64_t)(n - until_end < q->size ? n - until_end : q->size));
        n = until_end;
    }
    virtq_stored(q, used_entry(q, first), 8 * (uint64_t)n);
}

/* 2.7.7.2 and 2.7.10: the index before the guest's wishes, with a full barrier between. */
static bool split_flush(struct virtq *q)
{
    uint16_t n = q->unflushed, first = (uint16_t)(q->used - n);

    q->unflushed = 0;
    tell_stores(q, first, n);
    virtq_store16(q->device + RING_IDX, q->used);
    virtq_stored(q, q->device + RING_IDX, 2);
    atomic_thread_fence(memory_order_seq_cst);
    if (!q->event_idx)
        return !(virtq_load16(q->driver + RING_FLAGS) & AVAIL_NO_INTERRUPT);
    return (uint16_t)(q->used - virtq_load16(used_event(q)) - 1) < n;
}

static void split_disable_notify(struct virtq *q)
{
    if (q->event_idx) /* the event index stays behind, which is as good as none */
        return;
    virtq_store16(q->device + RING_FLAGS, USED_NO_NOTIFY);
    virtq_stored(q, q->device + RING_FLAGS, 2);
}

static void split_enable_notify(struct virtq *q)
{
    uint8_t *at = q->event_idx ? avail_event(q) : q->device + RING_FLAGS;

    virtq_store16(at, q->event_idx ? q->avail : 0);
    virtq_stored(q, at, 2);
}

const struct virtq_layout virtq_split = {
    .desc_align = 16,
    .driver_align = 2,
    .device_align = 4,
    .next = split_next,
    .walk_indirect = split_walk_indirect,
    .ready = split_ready,
    .push = split_push,
    .flush = split_flush,
    .disable_notify = split_disable_notify,
    .enable_notify = split_enable_notify,
};
