/*
 * A ring of frames in memory that two processes share: one puts, the other takes. A port of a switch has two of them, one each way.
 *
 * Each process takes the other for hostile. What lies in the memory may change at any time, so positions are kept in this process and those of
 * the other are checked when read; a record's length and header are read once. The frame itself stays in the shared memory: whoever takes it
 * reads each byte once, or copies first. The memory is a memfd that is sealed against shrinking, so that no access faults.
 *
 * The memory: a page with the positions, and then size bytes of records, each a header and a frame in one piece, on 16 bytes. Positions count bytes
 * and never wrap; `start` is one that lies at the first byte. Where a record does not fit before the end, one that says "go on at the first byte"
 * stands there. When all is taken the putter may move `start`: so a ring that is not in need of long queues stays in the caches.
 *
 * Waking: the taker says that it waits (switch_ring_wait()) before it sleeps, and the putter asks (switch_ring_wake()) behind each batch whether to
 * wake it, by whatever means they have.
 *
 * Threads: one for each end.
 */
#ifndef NET_SWITCH_RING_H
#define NET_SWITCH_RING_H

#include <stdatomic.h>

#include "net/net.h"

#define SWITCH_RING_HEAD  4096 /* bytes before the records */
#define SWITCH_RING_ALIGN 16
#define SWITCH_RING_LEAST (256 * KIB)
#define SWITCH_RING_MOST  (64 * MIB)

/* What one end sees of a ring. */
struct switch_ring {
    struct switch_ring_shared *shared;
    uint8_t *records;
    uint64_t size;  /* a power of two */
    uint64_t start; /* the position that lies at the first byte, or a multiple of size behind it */
    uint64_t mine;  /* the position of this end */
    uint64_t other; /* that of the other end, when last looked at */
    uint64_t next;  /* behind the record that peek showed */
};

struct switch_ring_shared {
    _Alignas(64) _Atomic uint64_t put;   /* behind the last record */
    _Atomic uint64_t start;              /* changes before put does, and only while all is taken */
    _Alignas(64) _Atomic uint64_t taken; /* behind the last one taken */
    _Alignas(64) _Atomic uint32_t waits; /* the taker sleeps, or is about to */
};

struct switch_ring_record {
    uint32_t length; /* of the frame, or SWITCH_RING_SKIP */
    struct net_header header;
    uint16_t reserved[5];
    /* the frame */
};

#define SWITCH_RING_SKIP UINT32_MAX /* no record: go on at the first byte */

/* What a ring of `size` takes of the shared memory, with its head. */
static inline size_t switch_ring_bytes(uint64_t size)
{
    return SWITCH_RING_HEAD + size;
}

static inline bool switch_ring_size_ok(uint64_t size)
{
    return size >= SWITCH_RING_LEAST && size <= SWITCH_RING_MOST && (size & (size - 1)) == 0;
}

/* `memory`: switch_ring_bytes(size), on a page, zeroed when the ring is new; size a power of two from SWITCH_RING_LEAST to _MOST. Both ends. */
void switch_ring_init(struct switch_ring *r, void *memory, uint64_t size);

/* Puts a frame of up to NET_FRAME_MAX bytes; 0, -ENOSPC, or -EPROTO: the other end has written nonsense. */
int switch_ring_put(struct switch_ring *r, const struct net_header *header, const struct iovec *frame, unsigned n);

/* Behind a batch: whether the taker must be woken. */
bool switch_ring_wake(struct switch_ring *r);

/* Shows the next frame: 1, 0 where there is none, -EPROTO. Shown again until taken. */
int switch_ring_peek(struct switch_ring *r, struct net_header *header, struct iovec *frame);
void switch_ring_take(struct switch_ring *r);

/* Before sleeping: true where the ring is empty, and the putter will wake this end; else go on taking. */
bool switch_ring_wait(struct switch_ring *r);

#endif
