/*
 * The driver's end of a split virtqueue (virtio 1.2 section 2.7) in memory of ours that a back end in another process shares. It is how a device
 * hands on what it has popped from a guest's queue: the guest's ring stays virtq's alone, and the back end sees checked chains.
 *
 * The back end is another process, so what it writes is checked too: which chains are under way, and where, is kept in memory that it does
 * not see.
 *
 * Threads: the holder's.
 */
#ifndef VIRTIO_VHOST_RING_H
#define VIRTIO_VHOST_RING_H

#include <stdbool.h>

#include "base/util.h"

#define VHOST_RING_SIZE 1024 /* descriptors; as many as any back end takes */

/* A piece of a chain, as the back end's memory table addresses it. */
struct vhost_ring_seg {
    uint64_t addr;
    uint32_t len;
};

struct vhost_ring_slot;

struct vhost_ring {
    void *desc, *avail, *used; /* shared */
    struct vhost_ring_slot *slots;
    uint16_t free, n_free; /* the first free descriptor; how many */
    uint16_t added, taken; /* chains, counted modulo 2^16 as the rings do */
};

/* Bytes of a ring; and where its parts begin. */
#define VHOST_RING_AVAIL (VHOST_RING_SIZE * 16)
#define VHOST_RING_USED  (VHOST_RING_AVAIL + 4096)
#define VHOST_RING_BYTES (VHOST_RING_USED + 4096 * 3)

/* memory: VHOST_RING_BYTES of zeroes, on a page. 0 or -ENOMEM. */
int vhost_ring_open(struct vhost_ring *ring, void *memory) MUST_CHECK;
void vhost_ring_close(struct vhost_ring *ring);

/* Adds a chain: n_out segments for the back end to read, then n_in to write. False where there is no room for so many. opaque: not NULL. */
bool vhost_ring_add(struct vhost_ring *ring, const struct vhost_ring_seg *segs, unsigned n_out, unsigned n_in,
                    void *opaque) MUST_CHECK;

/* Whether the back end wants to be told of what has been added. */
bool vhost_ring_kick(const struct vhost_ring *ring);

/* The next chain that the back end is done with: 1, its opaque and the bytes written; 0: none; -EPROTO: it says what cannot be. */
int vhost_ring_take(struct vhost_ring *ring, void **opaque, uint32_t *written) MUST_CHECK;

/* When the back end is gone: one of the chains it had, or NULL. */
void *vhost_ring_drop(struct vhost_ring *ring) MUST_CHECK;

#endif
