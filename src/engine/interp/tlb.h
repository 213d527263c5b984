/*
 * One table of the software TLB: direct-mapped by linear page, for one kind of access (enum mmu_index) in one address space. mmu.c
 * decides which tables there are and which are in use; generated code reads the entries.
 *
 * A table notes the slots that it has filled, so that emptying it takes as long as it has entries. Zeroed memory is an
 * empty table after tlb_init().
 *
 * Threads: the vCPU's own.
 */
#ifndef ENGINE_INTERP_TLB_H
#define ENGINE_INTERP_TLB_H

#include <stdbool.h>

#include "base/util.h"

#define TLB_BITS  12
#define TLB_SIZE  (1u << TLB_BITS)
#define TLB_NOTES 1024u
#define TLB_LOCAL 64u

/*
 * An entry hits when (tag == page of the address). A page that belongs into another slot stands for "ask the slow path", so that no
 * address at all, canonical or not, matches: generated code compares by XOR alone.
 */
struct tlb_entry {
    uint64_t read, write; /* linear page address allowed, or tlb_no_tag() */
    uint64_t addend;      /* host address - linear address */
    uint64_t gpa;         /* physical page; TLB_GLOBAL, TLB_LARGE, TLB_NOTED and TLB_CODE in its low bits */
};

#define TLB_GLOBAL UINT64_C(1)
#define TLB_LARGE  UINT64_C(2) /* part of a large page: INVLPG anywhere in that page drops it */
#define TLB_NOTED  UINT64_C(4) /* among the notes */
#define TLB_CODE \
    UINT64_C(8) /* while `read` hits: may be written, but has no write tag for the code that it holds, or held */

struct tlb {
    struct tlb_entry entry[TLB_SIZE];
    unsigned n_notes; /* more than TLB_NOTES: not all slots in use are noted */
    unsigned n_local; /* entries made for pages that are not global; the first TLB_LOCAL are in `local` */
    uint64_t large;   /* a bit for each GiB modulo 64 that entries of large pages lie in */
    uint16_t local[TLB_LOCAL];
    uint16_t notes[TLB_NOTES];
};

static inline unsigned tlb_slot(uint64_t lin)
{
    return (unsigned)(lin >> 12) % TLB_SIZE;
}

/* The bit of the GiB around lin in `large`. */
static inline uint64_t tlb_gib_bit(uint64_t lin)
{
    return UINT64_C(1) << (lin >> 30) % 64;
}

/* A tag that no address which looks into the slot has, nor one that ends on the page behind it. */
static inline uint64_t tlb_no_tag(unsigned slot)
{
    return (uint64_t)(slot ^ (TLB_SIZE / 2)) << 12;
}

void tlb_init(struct tlb *tlb);

/* Fills the slot of the page `lin` for reading, and for writing where `write`; gpa as in struct tlb_entry, perhaps with TLB_CODE. */
void tlb_enter(struct tlb *tlb, uint64_t lin, const uint8_t *host, uint64_t gpa, bool write);

void tlb_clear(struct tlb *tlb);
void tlb_clear_local(struct tlb *tlb);

/* The page of lin, and all of the large page that it may be part of. */
void tlb_drop_page(struct tlb *tlb, uint64_t lin);

/* The right to write to a physical page: entries that have it get TLB_CODE instead. */
void tlb_drop_write(struct tlb *tlb, uint64_t gpa);

/* The entry hits for reading and may be written, be it by the slow path alone. */
static inline bool tlb_writable(const struct tlb_entry *e, uint64_t page)
{
    return e->write == page || (e->read == page && (e->gpa & TLB_CODE));
}

#endif
