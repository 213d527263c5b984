#include "disk/dirty.h"

#include <errno.h>
#include <stdlib.h>

static uint8_t full[1]; /* its address stands for a chunk with all bits set */

static void drop(struct dirty *d, size_t i)
{
    if (d->chunks[i] && d->chunks[i] != full) {
        free(d->chunks[i]);
        ++*d->room;
    }
    d->chunks[i] = NULL;
}

static void fill(struct dirty *d, size_t i)
{
    drop(d, i);
    d->chunks[i] = full;
}

/* A chunk with memory of its own, or NULL where it has all bits set, now at least. */
static uint8_t *writable(struct dirty *d, size_t i)
{
    if (d->chunks[i])
        return d->chunks[i] == full ? NULL : d->chunks[i];
    d->chunks[i] = *d->room ? calloc(1, DIRTY_CHUNK) : NULL;
    if (!d->chunks[i]) {
        d->chunks[i] = full;
        return NULL;
    }
    --*d->room;
    return d->chunks[i];
}

static size_t chunks_of(uint64_t bits)
{
    return (size_t)((bits + DIRTY_BITS - 1) / DIRTY_BITS);
}

int dirty_init(struct dirty *d, uint64_t bits, size_t *room)
{
    *d = (struct dirty){.bits = bits, .n = chunks_of(bits), .room = room};
    d->chunks = calloc(d->n + 1, sizeof(*d->chunks));
    return d->chunks ? 0 : -ENOMEM;
}

void dirty_clear(struct dirty *d)
{
    for (size_t i = 0; i < d->n; i++)
        drop(d, i);
}

void dirty_fini(struct dirty *d)
{
    dirty_clear(d);
    free(d->chunks);
    *d = (struct dirty){0};
}

static void set_in(uint8_t *chunk, unsigned at, unsigned n)
{
    for (; n && at % 8; at++, n--)
        chunk[at / 8] |= (uint8_t)(1u << at % 8);
    memset(chunk + at / 8, 0xff, n / 8);
    for (at += n / 8 * 8, n %= 8; n; at++, n--)
        chunk[at / 8] |= (uint8_t)(1u << at % 8);
}

void dirty_set(struct dirty *d, uint64_t first, uint64_t n)
{
    while (n) {
        size_t i = (size_t)(first / DIRTY_BITS);
        unsigned at = (unsigned)(first % DIRTY_BITS);
        unsigned here = DIRTY_BITS - at < n ? DIRTY_BITS - at : (unsigned)n;
        if (here == DIRTY_BITS) {
            fill(d, i);
        } else {
            uint8_t *chunk = writable(d, i);
            if (chunk)
                set_in(chunk, at, here);
        }
        first += here;
        n -= here;
    }
}

int dirty_resize(struct dirty *d, uint64_t bits)
{
    size_t n = chunks_of(bits), old_n = d->n;
    uint64_t old = d->bits;

    if (n > old_n) {
        uint8_t **chunks = realloc(d->chunks, (n + 1) * sizeof(*chunks));
        if (!chunks)
            return -ENOMEM;
        memset(chunks + old_n, 0, (n - old_n) * sizeof(*chunks));
        d->chunks = chunks;
    }
    for (size_t i = n; i < old_n; i++)
        drop(d, i);
    d->n = n;
    d->bits = bits;
    if (bits > old)
        dirty_set(d, old, bits - old);
    else if (bits % DIRTY_BITS && d->chunks[n - 1] && d->chunks[n - 1] != full)
        for (unsigned at = (unsigned)(bits % DIRTY_BITS); at < DIRTY_BITS; at++)
            d->chunks[n - 1][at / 8] &= (uint8_t) ~(1u << at % 8);
    return 0;
}

/* The first bit at or behind `from` that is `set`; d->bits where there is none. */
static uint64_t find(const struct dirty *d, uint64_t from, bool set)
{
    const uint8_t skip = set ? 0 : 0xff;

    while (from < d->bits) {
        const uint8_t *chunk = d->chunks[from / DIRTY_BITS];
        unsigned at = (unsigned)(from % DIRTY_BITS);
        if (!chunk || chunk == full) {
            if ((chunk == full) == set)
                return from;
            from += DIRTY_BITS - at;
            continue;
        }
        if (at % 8 == 0 && chunk[at / 8] == skip)
            from += 8;
        else if ((chunk[at / 8] >> at % 8 & 1) == set)
            return from;
        else
            from++;
    }
    return d->bits;
}

void dirty_next(const struct dirty *d, uint64_t from, uint64_t *first, uint64_t *n)
{
    *first = find(d, from, true);
    *n = *first < d->bits ? find(d, *first, false) - *first : 0;
}

uint64_t dirty_count(const struct dirty *d)
{
    uint64_t count = 0;

    for (size_t i = 0; i < d->n; i++) {
        uint64_t here = d->bits - i * DIRTY_BITS < DIRTY_BITS ? d->bits - i * DIRTY_BITS : DIRTY_BITS;
        if (d->chunks[i] == full)
            count += here;
        for (size_t k = 0; d->chunks[i] && d->chunks[i] != full && k < DIRTY_CHUNK; k += 8)
            count += (uint64_t)__builtin_popcountll(load_le64(d->chunks[i] + k));
    }
    return count;
}

void dirty_load(struct dirty *d, uint64_t first, const uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes && first + i * 8 < d->bits;) {
        uint64_t at = first + i * 8, left = d->bits - at;
        size_t n = 0;
        while (i + n < bytes && from[i + n] == 0xff)
            n++;
        if (n) {
            dirty_set(d, at, n * 8 < left ? n * 8 : left);
            i += n;
            continue;
        }
        for (unsigned k = 0; k < 8 && k < left; k++)
            if (from[i] >> k & 1)
                dirty_set(d, at + k, 1);
        i++;
    }
}

int dirty_save(const struct dirty *d, uint64_t first, uint8_t *to, size_t bytes)
{
    uint64_t end = first + bytes * 8 < d->bits ? first + bytes * 8 : d->bits, at = first, run, n, count = 0;

    memset(to, 0, bytes);
    for (dirty_next(d, at, &run, &n); n && run < end; dirty_next(d, at, &run, &n)) {
        n = run + n > end ? end - run : n;
        set_in(to, (unsigned)(run - first), (unsigned)n);
        count += n;
        at = run + n;
    }
    return count == 0 ? 0 : count == end - first ? 1 : -1;
}
