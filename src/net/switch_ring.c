#include "net/switch_ring.h"

#include <errno.h>

/* An empty ring starts again when it has come this far: what fits into a cache of the second level, and two frames of the largest. */
#define RESTART (192 * KIB)

_Static_assert(sizeof(struct switch_ring_record) == 24, "the frame begins behind it");
_Static_assert(sizeof(struct switch_ring_shared) <= SWITCH_RING_HEAD, "before the records");

static uint64_t record_bytes(uint32_t length)
{
    return align_up(sizeof(struct switch_ring_record) + length, SWITCH_RING_ALIGN);
}

static void *at(const struct switch_ring *r, uint64_t position)
{
    return r->records + ((position - r->start) & (r->size - 1));
}

static uint64_t left_to_end(const struct switch_ring *r, uint64_t position)
{
    return r->size - ((position - r->start) & (r->size - 1));
}

void switch_ring_init(struct switch_ring *r, void *memory, uint64_t size)
{
    *r = (struct switch_ring){.shared = memory, .records = (uint8_t *)memory + SWITCH_RING_HEAD, .size = size};
}

/* ---- putting ---- */

/* Goes on at the first byte. There is room for a record's length before the end always: it is on SWITCH_RING_ALIGN bytes. */
static void skip(struct switch_ring *r)
{
    struct switch_ring_record *record = at(r, r->mine);

    record->length = SWITCH_RING_SKIP;
    r->mine += left_to_end(r, r->mine);
}

static int look_at_taken(struct switch_ring *r)
{
    uint64_t taken = atomic_load_explicit(&r->shared->taken, memory_order_acquire);

    if (r->mine - taken > r->size)
        return -EPROTO;
    r->other = taken;
    return 0;
}

/* Makes `bytes` free in one piece at r->mine. */
static int make_room(struct switch_ring *r, uint64_t bytes)
{
    uint64_t end = left_to_end(r, r->mine);
    uint64_t needed = bytes <= end ? bytes : end + bytes;

    if (r->mine + needed - r->other > r->size && look_at_taken(r) < 0)
        return -EPROTO;
    if (r->mine + needed - r->other > r->size)
        return -ENOSPC;
    if (bytes > end)
        skip(r);
    return 0;
}

/* Where all was taken, the memory at the first byte is the one that is in the caches. */
static int restart(struct switch_ring *r)
{
    if (r->size - left_to_end(r, r->mine) < RESTART)
        return 0;
    int result = look_at_taken(r);
    if (result == 0 && r->other == r->mine) {
        r->start = r->mine;
        atomic_store_explicit(&r->shared->start, r->start, memory_order_relaxed);
    }
    return result;
}

int switch_ring_put(struct switch_ring *r, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    size_t length = 0;

    for (unsigned i = 0; i < n; i++)
        length += frame[i].iov_len;
    if (length > NET_FRAME_MAX)
        return -ENOSPC;
    uint64_t bytes = record_bytes((uint32_t)length);
    int result = restart(r);
    if (result == 0)
        result = make_room(r, bytes);
    if (result < 0)
        return result;
    struct switch_ring_record *record = at(r, r->mine);
    record->length = (uint32_t)length;
    record->header = *header;
    uint8_t *to = (uint8_t *)(record + 1);
    for (unsigned i = 0; i < n; i++) {
        memcpy(to, frame[i].iov_base, frame[i].iov_len);
        to += frame[i].iov_len;
    }
    r->mine += bytes;
    atomic_store_explicit(&r->shared->put, r->mine, memory_order_release);
    return 0;
}

/* The fence and the one in switch_ring_wait(): either the taker sees the record, or this end sees that it waits. */
bool switch_ring_wake(struct switch_ring *r)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&r->shared->waits, memory_order_relaxed) &&
           atomic_exchange_explicit(&r->shared->waits, 0, memory_order_relaxed);
}

/* ---- taking ---- */

/* Whether something lies at r->mine: 1, 0, -EPROTO. */
static int look_at_put(struct switch_ring *r)
{
    if (r->mine != r->other)
        return 1;
    uint64_t put = atomic_load_explicit(&r->shared->put, memory_order_acquire);
    if (put - r->mine > r->size || put % SWITCH_RING_ALIGN)
        return -EPROTO;
    uint64_t start = atomic_load_explicit(&r->shared->start, memory_order_relaxed);
    if (start % SWITCH_RING_ALIGN)
        return -EPROTO;
    r->start = start;
    r->other = put;
    return put != r->mine;
}

static void took(struct switch_ring *r, uint64_t position)
{
    r->mine = position;
    atomic_store_explicit(&r->shared->taken, position, memory_order_release);
}

int switch_ring_peek(struct switch_ring *r, struct net_header *header, struct iovec *frame)
{
    int result = look_at_put(r);

    if (result <= 0)
        return result;
    const struct switch_ring_record *record = at(r, r->mine);
    uint32_t length = *(const volatile uint32_t *)&record->length;
    if (length == SWITCH_RING_SKIP) {
        if (left_to_end(r, r->mine) > r->other - r->mine)
            return -EPROTO;
        took(r, r->mine + left_to_end(r, r->mine));
        result = look_at_put(r);
        if (result <= 0)
            return result;
        record = at(r, r->mine);
        length = *(const volatile uint32_t *)&record->length;
    }
    if (length > NET_FRAME_MAX) /* a second skip too */
        return -EPROTO;
    uint64_t bytes = record_bytes(length);
    if (bytes > r->other - r->mine || bytes > left_to_end(r, r->mine))
        return -EPROTO;
    memcpy(header, &record->header, sizeof(*header));
    *frame = (struct iovec){(uint8_t *)at(r, r->mine) + sizeof(*record), length};
    r->next = r->mine + bytes;
    return 1;
}

void switch_ring_take(struct switch_ring *r)
{
    took(r, r->next);
}

bool switch_ring_wait(struct switch_ring *r)
{
    atomic_store_explicit(&r->shared->waits, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&r->shared->put, memory_order_relaxed) == r->mine)
        return true;
    atomic_store_explicit(&r->shared->waits, 0, memory_order_relaxed);
    return false;
}
