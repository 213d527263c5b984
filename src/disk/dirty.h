/*
 * A set of bits that takes little room where it is all of one kind: in chunks, of which those with no bit or with all bits set have no memory of their own. Where
 * the memory that it may have is spent, a chunk has all its bits set: too many are set then, never too few.
 */
#ifndef DISK_DIRTY_H
#define DISK_DIRTY_H

#include <stdbool.h>

#include "base/util.h"

#define DIRTY_CHUNK 4096 /* bytes */
#define DIRTY_BITS  (DIRTY_CHUNK * 8)

struct dirty {
    uint64_t bits;
    size_t n; /* chunks */
    uint8_t **chunks;
    size_t *room; /* chunks that may yet be had; the owner's, for several sets */
};

int dirty_init(struct dirty *d, uint64_t bits, size_t *room) MUST_CHECK; /* none is set; -ENOMEM */
void dirty_fini(struct dirty *d);
void dirty_set(struct dirty *d, uint64_t first, uint64_t n); /* within the set */
void dirty_clear(struct dirty *d);                           /* all of it */
/* More bits, which are set, or fewer. */
int dirty_resize(struct dirty *d, uint64_t bits) MUST_CHECK; /* -ENOMEM */
/* The first run at or behind `from`; *n is 0 where there is none. */
void dirty_next(const struct dirty *d, uint64_t from, uint64_t *first, uint64_t *n);
uint64_t dirty_count(const struct dirty *d);
/* Bits from `first`, a multiple of 8, on: the first in the lowest bit of a byte. Those that are set in `from` are set. */
void dirty_load(struct dirty *d, uint64_t first, const uint8_t *from, size_t bytes);
/* Fills len bytes; what is beyond the set is 0. 0: no bit, 1: all bits that there are, -1: some. */
int dirty_save(const struct dirty *d, uint64_t first, uint8_t *to, size_t bytes);

#endif
