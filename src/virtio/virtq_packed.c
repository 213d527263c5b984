/*
 * The packed layout (virtio 1.2 section 2.8): one ring of descriptors, which the driver makes available and the device overwrites with used ones;
 * whose turn a slot is follows from two flags and a wrap counter of either side. Positions are slots.
 */
#include <errno.h>

#include "virtio/virtq_impl.h"

enum { DESC_ADDR = 0, DESC_LEN = 8, DESC_ID = 12, DESC_FLAGS = 14 };
/* Event suppression structures (2.8.14). */
enum { EVENT_DESC = 0, EVENT_FLAGS = 2 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_AT_DESC = 2 };
#define EVENT_WRAP 0x8000

static uint8_t *slot_at(struct virtq *q, unsigned slot)
{
    return q->desc + (size_t)VIRTQ_DESC_SIZE * slot;
}

static void fetch(struct virtq_desc *d, const uint8_t *at)
{
    virtq_fetch(d, at);
    uint16_t id = d->flags; /* the two fields lie the other way round here */
    d->flags = d->next;
    d->next = id;
}

static void advance(struct virtq *q, uint16_t *slot, bool *wrap, unsigned n)
{
    unsigned next = *slot + n;

    if (next >= q->size) {
        next -= q->size;
        *wrap = !*wrap;
    }
    *slot = (uint16_t)next;
}

static bool packed_ready(struct virtq *q)
{
    uint16_t flags = virtq_load16(slot_at(q, q->avail) + DESC_FLAGS);

    return !!(flags & VIRTQ_DESC_AVAIL) == q->avail_wrap && !!(flags & VIRTQ_DESC_USED) != q->avail_wrap;
}

/* The table's length says how many there are; NEXT is reserved in it (2.8.7). */
static int packed_walk_indirect(struct virtq *q, struct virtq_item *item, const uint8_t *table, unsigned n)
{
    if (n > VIRTQ_SIZE_MAX) {
        virtq_break(q, "an indirect table is too long");
        return -EINVAL;
    }
    for (unsigned i = 0; i < n; i++) {
        struct virtq_desc d;
        fetch(&d, table + (size_t)VIRTQ_DESC_SIZE * i);
        if (d.flags & VIRTQ_DESC_INDIRECT) {
            virtq_break(q, "an indirect descriptor in an indirect table");
            return -EINVAL;
        }
        int r = virtq_add(q, item, &d);
        if (r < 0)
            return r;
    }
    return 0;
}

/* From the slot on; the buffer's id is in the chain's last descriptor (2.8.6). Those behind the first are available with it. */
static int walk(struct virtq *q, struct virtq_item *item)
{
    unsigned at = q->avail, room = q->size - q->n_held - q->n_returned;

    for (item->slots = 1; item->slots <= room; item->slots++) {
        struct virtq_desc d;
        fetch(&d, slot_at(q, at));
        int r = d.flags & VIRTQ_DESC_INDIRECT ? virtq_add_indirect(q, item, &d) : virtq_add(q, item, &d);
        if (r < 0)
            return r;
        item->id = d.next;
        if (!(d.flags & VIRTQ_DESC_NEXT))
            return 0;
        at = at + 1 == q->size ? 0 : at + 1;
    }
    virtq_break(q, "a chain is longer than the queue");
    return -ELOOP;
}

static int packed_next(struct virtq *q, struct virtq_item *item)
{
    if (!packed_ready(q))
        return 0;
    int r = walk(q, item);
    if (r < 0)
        return r;
    advance(q, &q->avail, &q->avail_wrap, item->slots);
    return 1;
}

/*
 * A used descriptor is seen when its flags are written. The first one's of a batch are kept back until the flush: the guest looks at slots in their order, and
 * so sees none of the batch before.
 */
static void packed_push(struct virtq *q, const struct virtq_item *item, uint32_t written)
{
    uint8_t *slot = slot_at(q, q->used);
    uint16_t flags =
        (uint16_t)((q->used_wrap ? VIRTQ_DESC_AVAIL | VIRTQ_DESC_USED : 0) | (item->n_in ? VIRTQ_DESC_WRITE : 0));

    virtq_store32(slot + DESC_LEN, written);
    virtq_store16(slot + DESC_ID, item->id);
    if (q->unflushed) {
        virtq_store16(slot + DESC_FLAGS, flags);
        virtq_stored(q, slot, VIRTQ_DESC_SIZE);
    } else {
        q->held_slot = q->used;
        q->held_flags = flags;
    }
    q->unflushed = (uint16_t)(q->unflushed + item->slots);
    advance(q, &q->used, &q->used_wrap, item->slots);
}

/* A position on a circle of two laps, so that one slot in different laps differs. */
static unsigned lap_position(const struct virtq *q, unsigned slot, bool wrap)
{
    return slot + (wrap ? 0 : q->size);
}

/* Whether the slot that the guest asks to be told of is among the `n` before the used position (2.8.10). */
static bool passed_event(const struct virtq *q, uint16_t event, unsigned n)
{
    unsigned slot = event & ~EVENT_WRAP, laps = 2 * q->size;

    if (slot >= q->size)
        return true;
    unsigned now = lap_position(q, q->used, q->used_wrap), then = lap_position(q, slot, event & EVENT_WRAP);
    return (now + laps - then - 1) % laps < n;
}

static bool packed_flush(struct virtq *q)
{
    unsigned n = q->unflushed;
    uint8_t *slot = slot_at(q, q->held_slot);

    q->unflushed = 0;
    virtq_store16(slot + DESC_FLAGS, q->held_flags);
    virtq_stored(q, slot, VIRTQ_DESC_SIZE);
    atomic_thread_fence(memory_order_seq_cst);
    uint16_t flags = virtq_load16(q->driver + EVENT_FLAGS);
    if (flags == EVENT_DISABLE)
        return false;
    return flags != EVENT_AT_DESC || !q->event_idx || passed_event(q, virtq_load16(q->driver + EVENT_DESC), n);
}

static void set_event_flags(struct virtq *q, uint16_t flags)
{
    virtq_store16(q->device + EVENT_FLAGS, flags);
    virtq_stored(q, q->device, 4);
}

static void packed_disable_notify(struct virtq *q)
{
    set_event_flags(q, EVENT_DISABLE);
}

static void packed_enable_notify(struct virtq *q)
{
    if (q->event_idx)
        virtq_store16(q->device + EVENT_DESC, (uint16_t)(q->avail | (q->avail_wrap ? EVENT_WRAP : 0)));
    set_event_flags(q, q->event_idx ? EVENT_AT_DESC : EVENT_ENABLE);
}

const struct virtq_layout virtq_packed = {
    .desc_align = 16,
    .driver_align = 4,
    .device_align = 4,
    .next = packed_next,
    .walk_indirect = packed_walk_indirect,
    .ready = packed_ready,
    .push = packed_push,
    .flush = packed_flush,
    .disable_notify = packed_disable_notify,
    .enable_notify = packed_enable_notify,
};
