/* See paging.h. */
#include "x86/paging.h"

#include <errno.h>

#include "x86/state.h"

#define PTE_P  UINT64_C(0x001)
#define PTE_W  UINT64_C(0x002)
#define PTE_U  UINT64_C(0x004)
#define PTE_A  UINT64_C(0x020)
#define PTE_D  UINT64_C(0x040)
#define PTE_PS UINT64_C(0x080)
#define PTE_G  UINT64_C(0x100)
#define PTE_XD (UINT64_C(1) << 63)

#define ADDR_MASK UINT64_C(0x000ffffffffff000)

/* One of the three formats, as data for a common walk. */
struct format {
    unsigned levels;     /* tables to go through */
    unsigned entry_size; /* 4 or 8 */
    unsigned index_bits; /* of the linear address, for each level */
};

static const struct format format_32 = {2, 4, 10}, format_pae = {2, 8, 9}, format_4level = {4, 8, 9};

/* Where a walk stands. */
struct step {
    uint8_t *host; /* of the entry; NULL where no RAM is */
    uint64_t pte;
};

/* Reads entry `index` of the table at `table`. What is no RAM reads as ones, as everywhere. */
static void read_entry(const struct paging *p, const struct format *f, uint64_t table, uint64_t index, struct step *s)
{
    s->host = ram_host(p->ram, table + index * f->entry_size, f->entry_size);
    if (!s->host)
        s->pte = ones_mask(f->entry_size);
    else if (f->entry_size == 4)
        s->pte = __atomic_load_n((const uint32_t *)(const void *)s->host, __ATOMIC_ACQUIRE);
    else
        s->pte = __atomic_load_n((const uint64_t *)(const void *)s->host, __ATOMIC_ACQUIRE);
}

/* Sets flags in the entry unless they are. 0; -EAGAIN if it changed meanwhile, and the walk must start again; -EFAULT if it shall not. */
static int set_flags(const struct paging *p, const struct format *f, unsigned access, struct step *s, uint64_t flags)
{
    bool done;

    if ((s->pte & flags) == flags || !s->host)
        return 0;
    if (access & PAGING_AGAIN)
        return -EFAULT;
    if (f->entry_size == 4) {
        uint32_t old = (uint32_t)s->pte;
        done = __atomic_compare_exchange_n((uint32_t *)(void *)s->host, &old, old | (uint32_t)flags, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    } else {
        uint64_t old = s->pte;
        done = __atomic_compare_exchange_n((uint64_t *)(void *)s->host, &old, old | flags, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED);
    }
    if (!done)
        return -EAGAIN;
    s->pte |= flags;
    ram_wrote(p->ram, s->host, f->entry_size);
    return 0;
}

/* Reserved bits of a present entry at `level` (1 = page table); a large page if `large` (SDM Vol. 3A tables 4-4 to 4-19). */
static uint64_t reserved_bits(const struct paging *p, const struct format *f, unsigned level, bool large)
{
    uint64_t reserved;

    if (f->entry_size == 4)
        return large ? UINT64_C(0x3fe000) : 0; /* without PSE-36 bits 21:13 are reserved */
    reserved = ADDR_MASK & ~((UINT64_C(1) << p->phys_bits) - 1);
    if (f == &format_pae)
        reserved |= UINT64_C(0x7ff0000000000000);
    if (!(p->efer & X86_EFER_NX))
        reserved |= PTE_XD;
    if (large)
        reserved |= ((UINT64_C(1) << (12 + 9 * (level - 1))) - 1) & ~UINT64_C(0x1fff);
    else if (level == 4)
        reserved |= PTE_PS;
    return reserved;
}

/* SDM Vol. 3A 4.6.1; `rights` holds W and U as every level grants them, and XD as any level denies. */
static bool permitted(const struct paging *p, uint64_t rights, unsigned access)
{
    if (access & PAGING_USER) {
        if (!(rights & PTE_U) || ((access & PAGING_WRITE) && !(rights & PTE_W)))
            return false;
    } else {
        if ((rights & PTE_U) && ((access & PAGING_FETCH) ? p->cr4 & X86_CR4_SMEP : access & PAGING_SMAP))
            return false;
        if ((access & PAGING_WRITE) && !(rights & PTE_W) && (p->cr0 & X86_CR0_WP))
            return false;
    }
    return !((access & PAGING_FETCH) && (rights & PTE_XD));
}

static uint32_t error_code(const struct paging *p, unsigned access, uint32_t cause)
{
    uint32_t error = cause;

    if (access & PAGING_WRITE)
        error |= X86_PF_W;
    if (access & PAGING_USER)
        error |= X86_PF_U;
    /* The I bit exists only where something can forbid fetches (SDM Vol. 3A 4.7). */
    if ((access & PAGING_FETCH) && ((p->cr4 & X86_CR4_SMEP) || ((p->cr4 & X86_CR4_PAE) && (p->efer & X86_EFER_NX))))
        error |= X86_PF_I;
    return error;
}

/* Where the walk begins: the format and its first table; false if PAE's PDPTE is not present. */
static bool walk_root(const struct paging *p, uint64_t lin, const struct format **f, uint64_t *table)
{
    if (p->efer & X86_EFER_LMA) {
        *f = &format_4level;
        *table = p->cr3 & ADDR_MASK & ((UINT64_C(1) << p->phys_bits) - 1);
    } else if (p->cr4 & X86_CR4_PAE) {
        uint64_t pdpte = p->pdpte[(lin >> 30) & 3];
        *f = &format_pae;
        *table = pdpte & ADDR_MASK;
        return pdpte & PTE_P;
    } else {
        *f = &format_32;
        *table = p->cr3 & 0xfffff000;
    }
    return true;
}

/* One attempt. 0, -EFAULT, or -EAGAIN when another CPU changed an entry under it. */
static int walk_once(const struct paging *p, uint64_t lin, unsigned access, struct paging_result *result)
{
    const struct format *f;
    uint64_t table, rights = PTE_W | PTE_U, offset_mask;
    struct step s;
    unsigned level;
    int ret;

    result->error = error_code(p, access, 0);
    if (!walk_root(p, lin, &f, &table))
        return -EFAULT;

    for (level = f->levels;; level--) {
        unsigned shift = 12 + f->index_bits * (level - 1);
        bool large;

        read_entry(p, f, table, (lin >> shift) & ((1u << f->index_bits) - 1), &s);
        if (!(s.pte & PTE_P))
            return -EFAULT;
        large = level > 1 && level < 4 && (s.pte & PTE_PS) && (f->entry_size == 8 || (p->cr4 & X86_CR4_PSE));
        if (s.pte & reserved_bits(p, f, level, large)) {
            result->error = error_code(p, access, X86_PF_P | X86_PF_RSVD);
            return -EFAULT;
        }
        rights = (rights & s.pte & (PTE_W | PTE_U)) | ((rights | s.pte) & PTE_XD);
        offset_mask = (UINT64_C(1) << shift) - 1;
        if (level == 1 || large)
            break;
        ret = access & PAGING_PEEK ? 0 : set_flags(p, f, access, &s, PTE_A);
        if (ret < 0)
            return ret;
        table = s.pte & (f->entry_size == 4 ? 0xfffff000 : ADDR_MASK);
    }

    if (!(access & PAGING_PEEK)) {
        if (!permitted(p, rights, access)) {
            result->error = error_code(p, access, X86_PF_P);
            return -EFAULT;
        }
        ret = set_flags(p, f, access, &s, access & PAGING_WRITE ? PTE_A | PTE_D : PTE_A);
        if (ret < 0)
            return ret;
    }

    result->gpa = (s.pte & ADDR_MASK & ~offset_mask) | (lin & offset_mask);
    result->global = (s.pte & PTE_G) && (p->cr4 & X86_CR4_PGE);
    result->large = level > 1;
    result->writable = (s.pte & PTE_D) && permitted(p, rights, (access & ~(unsigned)PAGING_FETCH) | PAGING_WRITE);
    return 0;
}

int paging_walk(const struct paging *p, uint64_t lin, unsigned access, struct paging_result *result)
{
    int r;

    do
        r = walk_once(p, lin, access, result);
    while (r == -EAGAIN);
    return r;
}

int paging_load_pdpte(const struct ram *ram, uint64_t cr3, unsigned phys_bits, uint64_t pdpte[4])
{
    uint64_t reserved = (~((UINT64_C(1) << phys_bits) - 1)) | UINT64_C(0x1e6), loaded[4];
    const uint8_t *host = ram_host(ram, cr3 & 0xffffffe0, sizeof(loaded));

    memset(loaded, 0xff, sizeof(loaded));
    if (host)
        memcpy(loaded, host, sizeof(loaded));
    for (unsigned i = 0; i < 4; i++)
        if ((loaded[i] & PTE_P) && (loaded[i] & reserved))
            return -EINVAL;
    memcpy(pdpte, loaded, sizeof(loaded));
    return 0;
}
