/* See mmu_fill.h. */
#include "engine/interp/mmu_fill.h"

#include "engine/interp/seg.h"

void mmu_fill_paging(const struct interp *c, struct paging *p)
{
    const struct x86_state *st = &c->st;

    p->ram = c->conf.ram;
    p->cr0 = st->cr0;
    p->cr3 = st->cr3;
    p->cr4 = st->cr4;
    p->efer = st->efer;
    p->phys_bits = c->conf.cpuid->conf.phys_bits;
    for (unsigned i = 0; i < ARRAY_SIZE(p->pdpte); i++)
        p->pdpte[i] = st->pdpte[i];
}

unsigned mmu_fill_access(enum mmu_index index, bool write)
{
    unsigned access = write ? PAGING_WRITE : 0;

    if (index == MMU_USER || index == MMU_USER_ALIGN)
        access |= PAGING_USER;
    else if (index == MMU_KERNEL_SMAP)
        access |= PAGING_SMAP;
    return access;
}

static bool holds_code(const struct interp *c, const uint8_t *host)
{
    const struct ram *ram = c->conf.ram;
    return atomic_load_explicit(&ram->page_flags[ram_page(ram, host)], memory_order_acquire) & RAM_PAGE_CODE;
}

void mmu_fill_enter(struct interp *c, enum mmu_index index, uint64_t lin, const uint8_t *host,
                    const struct paging_result *r)
{
    uint64_t gpa = (r->gpa & MMU_PAGE_MASK) | (r->global ? TLB_GLOBAL : 0) | (r->large ? TLB_LARGE : 0);
    bool code = holds_code(c, host);

    if (index != MMU_USER_ALIGN)
        tlb_enter(c->tlb[index], lin, host, r->writable && code ? gpa | TLB_CODE : gpa, r->writable && !code);
}

/* What TLB_CODE says of an entry holds until the page is unmarked, and that shows at the next store. */
void mmu_fill_write(const struct interp *c, struct tlb_entry *e, const uint8_t *host)
{
    if (e->write == e->read || holds_code(c, host))
        return;
    e->write = e->read;
    e->gpa &= ~TLB_CODE;
}

static bool walk(const struct interp *c, uint64_t lin, unsigned access, struct paging_result *r)
{
    struct paging p;

    if (!(c->st.cr0 & X86_CR0_PG)) {
        *r = (struct paging_result){.gpa = lin, .writable = true};
        return true;
    }
    mmu_fill_paging(c, &p);
    return paging_walk(&p, lin, access | PAGING_AGAIN, r) == 0;
}

struct tlb_entry *mmu_fill_again(struct interp *c, uint64_t lin, bool write)
{
    struct tlb_entry *e = mmu_entry(c, c->mmu, lin);
    uint64_t page = lin & MMU_PAGE_MASK;
    struct paging_result r;

    if (write ? !tlb_writable(e, page) : e->read != page) {
        /* Where there are breakpoints, somebody must look whether one is on the page. */
        if (!seg_canonical(lin) || c->mmu == MMU_USER_ALIGN || (c->st.dr7 & 0xff) || c->debugger.want ||
            !walk(c, lin, mmu_fill_access(c->mmu, write), &r))
            return NULL;
        const uint8_t *host = ram_host(c->conf.ram, r.gpa, 1);
        if (!host)
            return NULL;
        mmu_fill_enter(c, c->mmu, lin, host, &r);
    }
    if (write)
        mmu_fill_write(c, e, (const uint8_t *)(uintptr_t)(lin + e->addend));
    return e;
}
