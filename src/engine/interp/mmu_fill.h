/*
 * How the software TLB (mmu.h) is filled: the part of it that the translator needs while the host's vector registers are the guest's. Compiled
 * to use none, and calls nothing that might but where it says so.
 *
 * Threads: the vCPU's own.
 */
#ifndef ENGINE_INTERP_MMU_FILL_H
#define ENGINE_INTERP_MMU_FILL_H

#include "engine/interp/mmu.h"
#include "x86/paging.h"

/* The registers that shape a walk. */
void mmu_fill_paging(const struct interp *c, struct paging *p);

/* PAGING_ bits of an access. */
unsigned mmu_fill_access(enum mmu_index index, bool write);

/* An entry for the page of lin, by the walk's result. The caller has seen to it that no breakpoint is on the page. */
void mmu_fill_enter(struct interp *c, enum mmu_index index, uint64_t lin, const uint8_t *host,
                    const struct paging_result *r);

/* An entry that tlb_writable() may be written to: with a write tag, unless its page holds code. */
void mmu_fill_write(const struct interp *c, struct tlb_entry *e, const uint8_t *host);

/*
 * Fills the TLB for an access to lin with the current rights (c->mmu), where that leaves no other trace: the page tables allow it, and their
 * accessed and dirty flags are set already. Returns the entry if it may be used, be it by the slow path alone (tlb_writable()); NULL
 * where the slow path must decide. Raises nothing.
 */
struct tlb_entry *mmu_fill_again(struct interp *c, uint64_t lin, bool write);

#endif
