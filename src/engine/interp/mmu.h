/*
 * Linear memory as the guest's instructions see it: the software TLB's fast path, and the ways into the slow one. Everything
 * here raises its own #PF, #GP, #SS and #AC, and then does not return.
 *
 * A TLB entry exists only for plain RAM. The write tag is missing where a store needs more than a store: clean pages (the dirty
 * flag), pages with decoded code (TLB_CODE), pages with a data breakpoint. An access that leaves its page never hits.
 *
 * Threads: the vCPU's own. Loads and stores are single moves of the host, so the guest keeps x86's memory order and atomicity.
 */
#ifndef ENGINE_INTERP_MMU_H
#define ENGINE_INTERP_MMU_H

#include "engine/interp/interp.h"

#define MMU_PAGE_MASK (~UINT64_C(0xfff))

/* Guest memory under other CPUs' hands, at any alignment. */
typedef uint16_t mmu_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t mmu_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t mmu_u64 __attribute__((aligned(1), may_alias));

/* Slow paths; size is 1, 2, 4 or 8. */
uint64_t mmu_load_slow(struct interp *c, uint64_t lin, unsigned size);
void mmu_store_slow(struct interp *c, uint64_t lin, uint64_t v, unsigned size);

/* The entry an access with `index` at lin would use. */
static inline struct tlb_entry *mmu_entry(struct interp *c, enum mmu_index index, uint64_t lin)
{
    return &c->tlb[index]->entry[tlb_slot(lin)];
}

/* The host's address of [lin, lin + size) when the TLB allows the access outright, or NULL. Raises nothing. */
static inline uint8_t *mmu_hit_read(struct interp *c, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = mmu_entry(c, c->mmu, lin);
    return LIKELY(((lin + size - 1) & MMU_PAGE_MASK) == e->read) ? (uint8_t *)(uintptr_t)(lin + e->addend) : NULL;
}

static inline uint8_t *mmu_hit_write(struct interp *c, uint64_t lin, unsigned size)
{
    const struct tlb_entry *e = mmu_entry(c, c->mmu, lin);
    return LIKELY(((lin + size - 1) & MMU_PAGE_MASK) == e->write) ? (uint8_t *)(uintptr_t)(lin + e->addend) : NULL;
}

#define MMU_LOAD_STORE(bits, type)                                                       \
    static inline uint##bits##_t mmu_load##bits(struct interp *c, uint64_t lin)          \
    {                                                                                    \
        const uint8_t *host = mmu_hit_read(c, lin, (bits) / 8);                          \
        return LIKELY(host != NULL) ? *(const volatile type *)host                       \
                                    : (uint##bits##_t)mmu_load_slow(c, lin, (bits) / 8); \
    }                                                                                    \
    static inline void mmu_store##bits(struct interp *c, uint64_t lin, uint##bits##_t v) \
    {                                                                                    \
        uint8_t *host = mmu_hit_write(c, lin, (bits) / 8);                               \
        if (LIKELY(host != NULL))                                                        \
            *(volatile type *)host = v;                                                  \
        else                                                                             \
            mmu_store_slow(c, lin, v, (bits) / 8);                                       \
    }
MMU_LOAD_STORE(8, uint8_t)
MMU_LOAD_STORE(16, mmu_u16)
MMU_LOAD_STORE(32, mmu_u32)
MMU_LOAD_STORE(64, mmu_u64)
#undef MMU_LOAD_STORE

/* A run of up to 4096 bytes, wherever pages end. A store happens whole or not at all. */
void mmu_load_bytes(struct interp *c, uint64_t lin, void *buf, unsigned len);
void mmu_store_bytes(struct interp *c, uint64_t lin, const void *buf, unsigned len);

/*
 * The host's address of [lin, lin + len) after raising whatever the access raises; NULL where it is not plain RAM within one page.
 * The pointer holds until the next call here. After mmu_host_write() the caller stores at once: code on the page counts as
 * overwritten when the instruction is done.
 */
uint8_t *mmu_host_read(struct interp *c, uint64_t lin, unsigned len);
uint8_t *mmu_host_write(struct interp *c, uint64_t lin, unsigned len);

/* Raise what a load or a store of `len` bytes (up to 4096) would. */
void mmu_check_read(struct interp *c, uint64_t lin, unsigned len);
void mmu_check_write(struct interp *c, uint64_t lin, unsigned len);

/*
 * Implicit supervisor accesses, whatever the CPL: descriptor tables, TSS, the stack of an inner level (SDM Vol. 3A 4.6.1).
 * size: 1, 2, 4 or 8.
 */
uint64_t mmu_sys_load(struct interp *c, uint64_t lin, unsigned size);
void mmu_sys_store(struct interp *c, uint64_t lin, uint64_t v, unsigned size);
void mmu_sys_check(struct interp *c, uint64_t lin, unsigned len, bool write);

/* As mmu_sys_store(), with the rights of code at `cpl`: the stack of a level not yet entered. */
void mmu_store_at(struct interp *c, unsigned cpl, uint64_t lin, uint64_t v, unsigned size);
void mmu_check_write_at(struct interp *c, unsigned cpl, uint64_t lin, unsigned len);

/*
 * For instruction fetch: the host's address of the byte at lin, and its physical address; raises #PF with the I bit, or #GP(0) for a
 * non-canonical address, with RIP as it stands in c->st (c->cur becomes NULL). NULL when the page is not RAM: then
 * mmu_fetch_byte(c, gpa) reads it over the bus.
 */
const uint8_t *mmu_fetch(struct interp *c, uint64_t lin, uint64_t *gpa);
uint8_t mmu_fetch_byte(struct interp *c, uint64_t gpa);

/* Whether the translation that mmu_fetch(c, lin) has just used is a global one. */
bool mmu_fetch_global(const struct interp *c, uint64_t lin);

/* All translations; those of an address space but for global pages (all spaces' with MMU_ALL_SPACES); those of lin's page. */
#define MMU_ALL_SPACES (-1)
void mmu_flush_all(struct interp *c);
void mmu_flush_nonglobal(struct interp *c, int pcid);
void mmu_flush_page(struct interp *c, uint64_t lin);

/* CR3 names another address space: without `keep` what is known of it is flushed. */
void mmu_switch(struct interp *c, unsigned pcid, bool keep);

/* Empty tables; once, before anything else. */
void mmu_init(struct interp *c);

/* Drops every write tag for the physical page of `gpa`: it is about to hold decoded code. */
void mmu_drop_write(struct interp *c, uint64_t gpa);

/* Whose rights the code has whose state this is, at this CPL. */
static inline enum mmu_index mmu_index_of(const struct x86_state *st, unsigned cpl)
{
    bool ac = st->rflags & X86_FLAG_AC;

    if (cpl == 3)
        return ac && (st->cr0 & X86_CR0_AM) ? MMU_USER_ALIGN : MMU_USER;
    return (st->cr4 & X86_CR4_SMAP) && !ac ? MMU_KERNEL_SMAP : MMU_KERNEL;
}

/* The rights of implicit supervisor accesses: CR4.SMAP holds for them whatever EFLAGS.AC says (SDM Vol. 3A 4.6.1). */
static inline enum mmu_index mmu_sys_index(const struct interp *c)
{
    return c->st.cr4 & X86_CR4_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL;
}

/* Recomputes what is derived from CPL, CR0, CR4, EFER, RFLAGS.AC/TF/RF, CS and DR7: c->mmu, c->code_size, ATTN_STEP. */
void mmu_mode_changed(struct interp *c);

/* After the state was set from outside (reset, snapshot): derives everything from it anew, with an empty TLB. */
void mmu_reset(struct interp *c);

/* bus_access() with its exit counted and its time sampled; reason is one of ENGINE_EXIT_PIO_* or _MMIO_*. */
void mmu_bus(struct interp *c, struct bus *bus, uint64_t addr, void *data, unsigned len,
             enum engine_exit_reason reason);

#endif
