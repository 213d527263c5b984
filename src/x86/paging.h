/*
 * Page-table walks (SDM Vol. 3A chapter 4): 32-bit with 4 MiB pages, PAE, and 4-level. Pure: they know guest RAM and the
 * registers they are given, and keep nothing.
 *
 * Threads: any. Accessed and dirty flags are set by compare-exchange, so walks of several CPUs agree.
 *
 * Compiled to use no vector registers: where PAGING_AGAIN is given, nothing that might is called.
 */
#ifndef X86_PAGING_H
#define X86_PAGING_H

#include <stdbool.h>

#include "core/ram.h"

/* What is attempted. Without PAGING_USER it is a supervisor-mode access. */
enum {
    PAGING_WRITE = 1 << 0,
    PAGING_USER = 1 << 1,
    PAGING_FETCH = 1 << 2,
    PAGING_SMAP = 1 << 3, /* supervisor data access that CR4.SMAP keeps from user pages: implicit, or EFLAGS.AC clear */
    PAGING_PEEK =
        1 << 4, /* no access of the guest's: every present page will do, and no accessed or dirty flag is set */
    PAGING_AGAIN = 1 << 5, /* fails where such a flag is not set yet; then result->error means nothing */
};

/* The registers that shape a walk; paging must be on. */
struct paging {
    struct ram *ram;
    uint64_t cr0, cr3, cr4, efer;
    uint64_t pdpte[4]; /* PAE: loaded by paging_load_pdpte() */
    unsigned phys_bits;
};

struct paging_result {
    uint64_t gpa;  /* of the byte asked for */
    bool writable; /* a write by the same accessor is allowed, and the dirty flag already set */
    bool global;
    bool large;     /* mapped by a 2 MiB, 4 MiB or 1 GiB page */
    uint32_t error; /* page-fault error code, when the walk failed */
};

/* Translates `lin` (canonical). 0, or -EFAULT with result->error for #PF. */
int paging_walk(const struct paging *p, uint64_t lin, unsigned access, struct paging_result *result) MUST_CHECK;

/* Reads the four PDPTEs at `cr3` (SDM Vol. 3A 4.4.1). -EINVAL, pdpte untouched, when a present one has reserved bits: #GP(0). */
int paging_load_pdpte(const struct ram *ram, uint64_t cr3, unsigned phys_bits, uint64_t pdpte[4]) MUST_CHECK;

#endif
