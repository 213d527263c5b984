#include "virtio/vhost_ring.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <stdlib.h>

#define NONE UINT16_MAX

/* By index of a descriptor: of a chain's first, what the chain is; of any, which comes next in its chain or among the free. */
struct vhost_ring_slot {
    void *opaque; /* NULL: no chain begins here */
    uint64_t in_len;
    uint16_t next;
    uint16_t n;
};

_Static_assert(sizeof(struct vring_desc) * VHOST_RING_SIZE == VHOST_RING_AVAIL, "2.7.5");
_Static_assert(sizeof(struct vring_avail) + 2 * VHOST_RING_SIZE + 2 <= VHOST_RING_USED - VHOST_RING_AVAIL, "2.7.6");
_Static_assert(sizeof(struct vring_used) + 8 * VHOST_RING_SIZE + 2 <= VHOST_RING_BYTES - VHOST_RING_USED, "2.7.8");

int vhost_ring_open(struct vhost_ring *ring, void *memory)
{
    uint8_t *base = memory;

    *ring = (struct vhost_ring){
        .desc = base, .avail = base + VHOST_RING_AVAIL, .used = base + VHOST_RING_USED, .n_free = VHOST_RING_SIZE};
    ring->slots = calloc(VHOST_RING_SIZE, sizeof(*ring->slots));
    if (!ring->slots)
        return -ENOMEM;
    for (unsigned i = 0; i < VHOST_RING_SIZE; i++)
        ring->slots[i].next = i + 1 < VHOST_RING_SIZE ? (uint16_t)(i + 1) : NONE;
    return 0;
}

void vhost_ring_close(struct vhost_ring *ring)
{
    free(ring->slots);
    ring->slots = NULL;
}

bool vhost_ring_add(struct vhost_ring *ring, const struct vhost_ring_seg *segs, unsigned n_out, unsigned n_in,
                    void *opaque)
{
    struct vring_desc *desc = ring->desc;
    struct vring_avail *avail = ring->avail;
    unsigned n = n_out + n_in;
    uint16_t head = ring->free, at = head, last = head;
    uint64_t in_len = 0;

    if (n == 0 || n > ring->n_free)
        return false;
    for (unsigned i = 0; i < n; i++) {
        bool more = i + 1 < n;
        last = at;
        at = ring->slots[at].next;
        desc[last] = (struct vring_desc){
            .addr = segs[i].addr,
            .len = segs[i].len,
            .flags = (uint16_t)((i >= n_out ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0)),
            .next = more ? at : 0,
        };
        in_len += i >= n_out ? segs[i].len : 0;
    }
    ring->free = at;
    ring->n_free = (uint16_t)(ring->n_free - n);
    ring->slots[last].next = NONE;
    ring->slots[head].opaque = opaque;
    ring->slots[head].in_len = in_len;
    ring->slots[head].n = (uint16_t)n;
    avail->ring[ring->added++ % VHOST_RING_SIZE] = head;
    __atomic_store_n(&avail->idx, ring->added, __ATOMIC_RELEASE);
    return true;
}

/* The back end asks for kicks and then looks for chains once more: so the chain is there before we look at what it asks. */
bool vhost_ring_kick(const struct vhost_ring *ring)
{
    struct vring_used *used = ring->used;

    atomic_thread_fence(memory_order_seq_cst);
    return !(__atomic_load_n(&used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
}

static void *free_chain(struct vhost_ring *ring, uint16_t head)
{
    struct vhost_ring_slot *slot = &ring->slots[head];
    void *opaque = slot->opaque;
    uint16_t last = head;

    while (ring->slots[last].next != NONE)
        last = ring->slots[last].next;
    ring->slots[last].next = ring->free;
    ring->free = head;
    ring->n_free = (uint16_t)(ring->n_free + slot->n);
    slot->opaque = NULL;
    return opaque;
}

int vhost_ring_take(struct vhost_ring *ring, void **opaque, uint32_t *written)
{
    struct vring_used *used = ring->used;
    uint16_t pending = (uint16_t)(__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) - ring->taken);

    if (pending == 0)
        return 0;
    struct vring_used_elem *elem = &used->ring[ring->taken % VHOST_RING_SIZE];
    uint32_t id = __atomic_load_n(&elem->id, __ATOMIC_RELAXED), len = __atomic_load_n(&elem->len, __ATOMIC_RELAXED);
    if (pending > VHOST_RING_SIZE || id >= VHOST_RING_SIZE || !ring->slots[id].opaque || len > ring->slots[id].in_len)
        return -EPROTO;
    ring->taken++;
    *opaque = free_chain(ring, (uint16_t)id);
    *written = len;
    return 1;
}

void *vhost_ring_drop(struct vhost_ring *ring)
{
    for (unsigned i = 0; i < VHOST_RING_SIZE; i++)
        if (ring->slots[i].opaque)
            return free_chain(ring, (uint16_t)i);
    return NULL;
}
