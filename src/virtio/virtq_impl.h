/*
 * Inside a virtqueue: what virtq.c (chains as the device holds them) and the layouts (virtq_split.c, virtq_packed.c) share.
 *
 * A chain is an item: the element that the device sees, and the segments it was made from, by which it is unpinned, and made anew when the
 * device gave it up at a stop that was no reset. Items are kept and used again, so that popping allocates nothing in the long run.
 */
#ifndef VIRTIO_VIRTQ_IMPL_H
#define VIRTIO_VIRTQ_IMPL_H

#include "virtio/virtio_impl.h"

#define VIRTQ_NO_VECTOR 0xffff

/* Descriptor flags (2.7.5, 2.8.10). */
enum {
    VIRTQ_DESC_NEXT = 1 << 0,
    VIRTQ_DESC_WRITE = 1 << 1,
    VIRTQ_DESC_INDIRECT = 1 << 2,
    VIRTQ_DESC_AVAIL = 1 << 7, /* packed */
    VIRTQ_DESC_USED = 1 << 15,
};
#define VIRTQ_DESC_SIZE 16

/* A descriptor of either layout: `next` and `flags` change places in the packed one, where next is the buffer's id. */
struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct virtq_segment {
    uint8_t *host; /* NULL while not pinned */
    uint64_t gpa;
    uint32_t len;
};

struct virtq_item {
    struct virtq_elem elem;
    struct virtq_item *next, *prev; /* in one of the queue's lists; free ones use `next` alone */
    struct virtq_segment *segments;
    struct iovec *iov;    /* what the element shows */
    unsigned capacity;    /* of both */
    unsigned n_out, n_in; /* segments, the readable ones first */
    uint16_t id;          /* split: index of the head; packed: the buffer's id */
    uint16_t slots;       /* packed: descriptors in the ring */
};

/* Doubly linked, through the head. */
struct virtq_list {
    struct virtq_item *first, *last;
};

/* What the guest sets up; under the core's lock. */
struct virtq_regs {
    uint16_t size;
    bool enabled;
    uint64_t desc, driver, device; /* 2.6: descriptor area, driver area (available ring), device area (used ring) */
};

/* A layout. All on the device's thread, with the rings pinned. */
struct virtq_layout {
    uint64_t desc_align, driver_align, device_align;
    /* Fills in the next chain: 1; 0 where there is none; -errno where the queue is broken, and virtq_break() has been called. */
    int (*next)(struct virtq *q, struct virtq_item *item);
    /* Adds the chain in an indirect table of n descriptors, which is pinned. -errno, in the same way. */
    int (*walk_indirect)(struct virtq *q, struct virtq_item *item, const uint8_t *table, unsigned n);
    bool (*ready)(struct virtq *q); /* breaks the queue too */
    void (*push)(struct virtq *q, const struct virtq_item *item, uint32_t written);
    /* Shows the guest what has been pushed, and says whether it wants to be interrupted for it. */
    bool (*flush)(struct virtq *q);
    void (*disable_notify)(struct virtq *q);
    void (*enable_notify)(struct virtq *q); /* asks; a full barrier follows */
};

extern const struct virtq_layout virtq_split, virtq_packed;

struct virtq {
    struct virtio *v;
    unsigned n;
    struct virtq_regs regs;
    _Atomic uint16_t vector; /* the transport's */

    /* From here on the device's thread's. */
    bool started;
    const struct virtq_layout *layout;
    unsigned size;
    uint8_t *desc, *driver, *device;
    uint64_t desc_len, driver_len, device_len;
    bool indirect, event_idx;

    /* Where both ends are. Split: free-running counters. Packed: slots, with their wrap counters. */
    uint16_t avail, used;
    bool avail_wrap, used_wrap;
    uint16_t seen;                  /* split: the guest's available index as read last */
    uint16_t unflushed;             /* split: elements, packed: slots pushed since the last flush */
    uint16_t held_flags, held_slot; /* packed: the first of those, which makes them visible */

    unsigned budget; /* chains to pop until the device's other work has its turn */
    struct virtq_item *free;
    struct virtq_list held;     /* by the device, in the order of popping */
    struct virtq_list returned; /* to be popped again, before what is in the ring */
    unsigned n_held, n_returned;
    unsigned n_items; /* that exist, those above and the free ones */
};

/* Pins the rings; -EINVAL, with a reason, where they are not as the specification wants them. */
int virtq_start(struct virtq *q, const char **reason) MUST_CHECK;

/* The device has stopped: held chains wait for the next start. */
void virtq_stop(struct virtq *q);

/* As at power-on, registers too (which the caller has locked). Stopped. */
void virtq_reset(struct virtq *q, uint16_t size);

void virtq_fini(struct virtq *q);

/* Registers, positions, and chains given up. Stopped. */
void virtq_state(struct virtq *q, struct stream *s, unsigned size_max);

/* ---- for the layouts ---- */

/* Adds a segment; -errno when it has broken the queue. */
int virtq_add(struct virtq *q, struct virtq_item *item, const struct virtq_desc *desc) MUST_CHECK;

/* The same of all that an indirect descriptor's table holds (2.7.5.3, 2.8.7). */
int virtq_add_indirect(struct virtq *q, struct virtq_item *item, const struct virtq_desc *desc) MUST_CHECK;

/* Our own copy of what the guest may change any time. */
void virtq_fetch(struct virtq_desc *desc, const uint8_t *at);

/* Tells who follows stores to RAM. */
void virtq_stored(struct virtq *q, uint8_t *host, uint64_t len);

static inline uint16_t virtq_load16(const uint8_t *at)
{
    return __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE);
}

static inline void virtq_store16(uint8_t *at, uint16_t val)
{
    __atomic_store_n((uint16_t *)(void *)at, val, __ATOMIC_RELEASE);
}

static inline void virtq_store32(uint8_t *at, uint32_t val)
{
    __atomic_store_n((uint32_t *)(void *)at, val, __ATOMIC_RELEASE);
}

#endif
