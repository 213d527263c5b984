/* See mmu.h. */
#include "engine/interp/mmu.h"

#include "base/loop.h"
#include "engine/interp/code.h"
#include "engine/interp/debugger.h"
#include "engine/interp/fault.h"
#include "engine/interp/mmu_fill.h"
#include "engine/interp/seg.h"
#include "x86/paging.h"

/* One device access in so many has its time taken, and stands for the others. */
#define BUS_SAMPLE 16

/* An access on its way through the slow path. */
struct access {
    enum mmu_index index;
    bool write;
};

/* A part of an access that lies within one page. */
struct part {
    uint8_t *host; /* NULL: a device, or nothing */
    uint64_t gpa;
    unsigned len;
};

void mmu_bus(struct interp *c, struct bus *bus, uint64_t addr, void *data, unsigned len, enum engine_exit_reason reason)
{
    bool write = reason == ENGINE_EXIT_PIO_OUT || reason == ENGINE_EXIT_MMIO_WRITE;

    interp_exit(c, reason, addr);
    if (c->bus_count++ % BUS_SAMPLE) {
        bus_access(bus, addr, data, len, write);
        return;
    }
    int64_t before = loop_now();
    bus_access(bus, addr, data, len, write);
    int64_t took = (loop_now() - before) * BUS_SAMPLE;
    c->conf.stats->device_ns += took;
    c->conf.stats->exit_ns[reason] += took;
}

/* ---- translation ---- */

/* Page walk for lin; raises #PF. Without paging, linear is physical. */
static void translate(struct interp *c, uint64_t lin, unsigned access, struct paging_result *result)
{
    struct paging p;

    if (!(c->st.cr0 & X86_CR0_PG)) {
        *result = (struct paging_result){.gpa = lin, .writable = true};
        return;
    }
    mmu_fill_paging(c, &p);
    if (paging_walk(&p, lin, access, result) < 0)
        interp_raise_page_fault(c, lin, result->error);
}

/* A page that holds a data breakpoint never enters the TLB, so that every access to it is seen. */
static bool has_breakpoint(const struct interp *c, uint64_t page)
{
    if (UNLIKELY(debugger_watches(c, page, 4096)))
        return true;
    if (LIKELY(!(c->st.dr7 & 0xff)))
        return false;
    return fault_breakpoints(c, page, 4096, DEBUG_WRITE);
}

static void enter(struct interp *c, enum mmu_index index, uint64_t lin, uint8_t *host, const struct paging_result *r)
{
    if (!has_breakpoint(c, lin & MMU_PAGE_MASK))
        mmu_fill_enter(c, index, lin, host, r);
}

/* Translates [lin, lin + len), which lies within a page, filling the TLB. */
static struct part resolve(struct interp *c, struct access a, uint64_t lin, unsigned len)
{
    struct tlb_entry *e = mmu_entry(c, a.index, lin);
    uint64_t page = lin & MMU_PAGE_MASK;
    struct paging_result r;
    struct part part = {.len = len};

    if (a.write ? tlb_writable(e, page) : e->read == page) {
        part.host = (uint8_t *)(uintptr_t)(lin + e->addend);
        if (a.write)
            mmu_fill_write(c, e, part.host);
        part.gpa = (e->gpa & MMU_PAGE_MASK) | (lin & 0xfff);
        return part;
    }
    translate(c, lin, mmu_fill_access(a.index, a.write), &r);
    part.gpa = r.gpa;
    part.host = ram_host(c->conf.ram, r.gpa, len);
    /* RAM comes in whole pages, so the part's page is all RAM or none. */
    if (part.host)
        enter(c, a.index, lin, part.host, &r);
    return part;
}

_Noreturn static void raise_noncanonical(struct interp *c)
{
    if (c->cur && c->cur->seg == X86_SS)
        interp_raise_error(c, X86_SSF, 0);
    interp_raise_error(c, X86_GP, 0);
}

/* Linear addresses are 32 bits wide outside IA-32e mode. */
static uint64_t wrap(const struct interp *c, uint64_t lin)
{
    return x86_long_mode(&c->st) ? lin : (uint32_t)lin;
}

/* Splits by page and translates every part before anything is accessed; returns how many parts. */
static unsigned split(struct interp *c, struct access a, uint64_t lin, unsigned len, struct part part[2])
{
    unsigned first = 4096 - (lin & 0xfff);

    if (!seg_canonical(lin) || !seg_canonical(lin + len - 1))
        raise_noncanonical(c);
    if (first >= len) {
        part[0] = resolve(c, a, lin, len);
        return 1;
    }
    part[0] = resolve(c, a, lin, first);
    part[1] = resolve(c, a, wrap(c, lin + first), len - first);
    return 2;
}

/* ---- access to a part ---- */

static void load_part(struct interp *c, const struct part *p, uint8_t *buf)
{
    if (p->host) {
        switch (p->len) { /* the usual sizes in one move, as other CPUs must see it */
        case 2:
            store_le16(buf, *(const volatile mmu_u16 *)p->host);
            return;
        case 4:
            store_le32(buf, *(const volatile mmu_u32 *)p->host);
            return;
        case 8:
            store_le64(buf, *(const volatile mmu_u64 *)p->host);
            return;
        default:
            memcpy(buf, p->host, p->len);
            return;
        }
    }
    for (unsigned at = 0; at < p->len; at += 8)
        mmu_bus(c, c->conf.mmio, p->gpa + at, buf + at, p->len - at < 8 ? p->len - at : 8, ENGINE_EXIT_MMIO_READ);
}

static void store_part(struct interp *c, const struct part *p, const uint8_t *buf)
{
    if (p->host) {
        switch (p->len) {
        case 2:
            *(volatile mmu_u16 *)p->host = load_le16(buf);
            break;
        case 4:
            *(volatile mmu_u32 *)p->host = load_le32(buf);
            break;
        case 8:
            *(volatile mmu_u64 *)p->host = load_le64(buf);
            break;
        default:
            memcpy(p->host, buf, p->len);
        }
        code_wrote(c, p->host, p->len);
        return;
    }
    for (unsigned at = 0; at < p->len; at += 8) {
        uint8_t data[8] = {0};
        unsigned len = p->len - at < 8 ? p->len - at : 8;
        memcpy(data, buf + at, len);
        mmu_bus(c, c->conf.mmio, p->gpa + at, data, len, ENGINE_EXIT_MMIO_WRITE);
    }
}

static void access_load(struct interp *c, struct access a, uint64_t lin, void *buf, unsigned len)
{
    struct part part[2];
    unsigned n = split(c, a, lin, len, part);

    load_part(c, &part[0], buf);
    if (n == 2)
        load_part(c, &part[1], (uint8_t *)buf + part[0].len);
}

static void access_store(struct interp *c, struct access a, uint64_t lin, const void *buf, unsigned len)
{
    struct part part[2];
    unsigned n = split(c, a, lin, len, part);

    store_part(c, &part[0], buf);
    if (n == 2)
        store_part(c, &part[1], (const uint8_t *)buf + part[0].len);
}

/* ---- explicit accesses ---- */

/* SDM Vol. 3A 6.15, interrupt 17: natural alignment of the datum; 16 bytes and more have rules of their own. #GP and #SS come first. */
static void check_aligned(struct interp *c, uint64_t lin, unsigned size)
{
    if (c->mmu == MMU_USER_ALIGN && (size == 2 || size == 4 || size == 8) && (lin & (size - 1)) && seg_canonical(lin))
        interp_raise_error(c, X86_AC, 0);
}

static void check_breakpoints(struct interp *c, uint64_t lin, unsigned len, bool write)
{
    if (UNLIKELY(c->st.dr7 & 0xff))
        c->debug_hit |= fault_breakpoints(c, lin, len, write ? DEBUG_WRITE : DEBUG_READ);
    if (UNLIKELY(c->debugger.want != NULL))
        debugger_access(c, lin, len, write);
}

uint64_t mmu_load_slow(struct interp *c, uint64_t lin, unsigned size)
{
    uint8_t buf[8] = {0};

    check_aligned(c, lin, size);
    access_load(c, (struct access){c->mmu, false}, lin, buf, size);
    check_breakpoints(c, lin, size, false);
    return load_le64(buf);
}

void mmu_store_slow(struct interp *c, uint64_t lin, uint64_t v, unsigned size)
{
    uint8_t buf[8];

    check_aligned(c, lin, size);
    store_le64(buf, v);
    access_store(c, (struct access){c->mmu, true}, lin, buf, size);
    check_breakpoints(c, lin, size, true);
}

void mmu_load_bytes(struct interp *c, uint64_t lin, void *buf, unsigned len)
{
    access_load(c, (struct access){c->mmu, false}, lin, buf, len);
    check_breakpoints(c, lin, len, false);
}

void mmu_store_bytes(struct interp *c, uint64_t lin, const void *buf, unsigned len)
{
    access_store(c, (struct access){c->mmu, true}, lin, buf, len);
    check_breakpoints(c, lin, len, true);
}

uint8_t *mmu_host_read(struct interp *c, uint64_t lin, unsigned len)
{
    uint8_t *host = mmu_hit_read(c, lin, len);
    struct part part[2];

    if (LIKELY(host != NULL))
        return host;
    check_aligned(c, lin, len);
    host = split(c, (struct access){c->mmu, false}, lin, len, part) == 1 ? part[0].host : NULL;
    if (host)
        check_breakpoints(c, lin, len, false);
    return host;
}

uint8_t *mmu_host_write(struct interp *c, uint64_t lin, unsigned len)
{
    uint8_t *host = mmu_hit_write(c, lin, len);
    struct part part[2];

    if (LIKELY(host != NULL))
        return host;
    check_aligned(c, lin, len);
    host = split(c, (struct access){c->mmu, true}, lin, len, part) == 1 ? part[0].host : NULL;
    if (host) {
        check_breakpoints(c, lin, len, true);
        code_writing(c, host, len);
    }
    return host;
}

void mmu_check_read(struct interp *c, uint64_t lin, unsigned len)
{
    struct part part[2];
    split(c, (struct access){c->mmu, false}, lin, len, part);
}

void mmu_check_write(struct interp *c, uint64_t lin, unsigned len)
{
    struct part part[2];
    split(c, (struct access){c->mmu, true}, lin, len, part);
}

/* ---- implicit accesses ---- */

uint64_t mmu_sys_load(struct interp *c, uint64_t lin, unsigned size)
{
    uint8_t buf[8] = {0};

    access_load(c, (struct access){mmu_sys_index(c), false}, wrap(c, lin), buf, size);
    return load_le64(buf);
}

void mmu_sys_store(struct interp *c, uint64_t lin, uint64_t v, unsigned size)
{
    uint8_t buf[8];

    store_le64(buf, v);
    access_store(c, (struct access){mmu_sys_index(c), true}, wrap(c, lin), buf, size);
}

void mmu_sys_check(struct interp *c, uint64_t lin, unsigned len, bool write)
{
    struct part part[2];
    split(c, (struct access){mmu_sys_index(c), write}, wrap(c, lin), len, part);
}

/* The stack of a handler: at the current level it is an explicit access, for which EFLAGS.AC lifts SMAP. */
static enum mmu_index stack_index(const struct interp *c, unsigned cpl)
{
    if (cpl == 3)
        return MMU_USER;
    return cpl == x86_cpl(&c->st) ? c->mmu : mmu_sys_index(c);
}

void mmu_store_at(struct interp *c, unsigned cpl, uint64_t lin, uint64_t v, unsigned size)
{
    uint8_t buf[8];

    store_le64(buf, v);
    access_store(c, (struct access){stack_index(c, cpl), true}, lin, buf, size);
}

void mmu_check_write_at(struct interp *c, unsigned cpl, uint64_t lin, unsigned len)
{
    struct part part[2];
    split(c, (struct access){stack_index(c, cpl), true}, lin, len, part);
}

/* ---- fetch ---- */

const uint8_t *mmu_fetch(struct interp *c, uint64_t lin, uint64_t *gpa)
{
    bool user = x86_cpl(&c->st) == 3;
    struct tlb_entry *e = &c->tlb_code[user][(lin >> 12) % ARRAY_SIZE(c->tlb_code[0])];
    struct paging_result r;
    uint8_t *host;

    if (LIKELY(e->read == (lin & MMU_PAGE_MASK))) {
        *gpa = (e->gpa & MMU_PAGE_MASK) | (lin & 0xfff);
        return (const uint8_t *)(uintptr_t)(lin + e->addend);
    }
    c->cur = NULL;
    if (!seg_canonical(lin))
        interp_raise_error(c, X86_GP, 0);
    translate(c, lin, PAGING_FETCH | (user ? PAGING_USER : 0), &r);
    *gpa = r.gpa;
    host = ram_host(c->conf.ram, r.gpa, 1);
    if (host) {
        e->read = lin & MMU_PAGE_MASK;
        e->addend = (uint64_t)(uintptr_t)host - lin;
        e->gpa = (r.gpa & MMU_PAGE_MASK) | (r.global ? TLB_GLOBAL : 0) | (r.large ? TLB_LARGE : 0);
        if (r.large)
            c->tlb_code_large |= tlb_gib_bit(lin);
    }
    return host;
}

uint8_t mmu_fetch_byte(struct interp *c, uint64_t gpa)
{
    uint8_t byte;
    mmu_bus(c, c->conf.mmio, gpa, &byte, 1, ENGINE_EXIT_MMIO_READ);
    return byte;
}

bool mmu_fetch_global(const struct interp *c, uint64_t lin)
{
    return c->tlb_code[x86_cpl(&c->st) == 3][(lin >> 12) % ARRAY_SIZE(c->tlb_code[0])].gpa & TLB_GLOBAL;
}

/* ---- invalidation ---- */

#define CODE_NO_TAG UINT64_C(1) /* never equals a page address */

static void code_clear(struct interp *c, bool global)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->tlb_code); i++)
        for (unsigned j = 0; j < ARRAY_SIZE(c->tlb_code[0]); j++)
            if (global || !(c->tlb_code[i][j].gpa & TLB_GLOBAL))
                c->tlb_code[i][j].read = CODE_NO_TAG;
    if (global)
        c->tlb_code_large = 0;
}

static void code_drop_page(struct interp *c, uint64_t lin, bool large)
{
    for (unsigned i = 0; i < ARRAY_SIZE(c->tlb_code); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(c->tlb_code[0]); j++) {
            struct tlb_entry *e = &c->tlb_code[i][j];
            bool same = e->read == (lin & MMU_PAGE_MASK);
            if (same || (large && (e->gpa & TLB_LARGE) && align_down(e->read, GIB) == align_down(lin, GIB)))
                e->read = CODE_NO_TAG;
        }
    }
}

static void use_space(struct interp *c, unsigned space)
{
    c->space = space;
    c->tlb[MMU_KERNEL] = &c->tlb_kernel[space];
    c->tlb[MMU_USER] = &c->tlb_user[space];
}

void mmu_init(struct interp *c)
{
    c->tlb[MMU_KERNEL_SMAP] = &c->tlb_smap;
    c->tlb[MMU_USER_ALIGN] = &c->tlb_none;
    tlb_init(&c->tlb_smap);
    tlb_init(&c->tlb_none);
    for (unsigned i = 0; i < MMU_SPACES; i++) {
        tlb_init(&c->tlb_kernel[i]);
        tlb_init(&c->tlb_user[i]);
        c->space_pcid[i] = -1;
    }
    c->space_pcid[0] = 0;
    use_space(c, 0);
}

void mmu_flush_all(struct interp *c)
{
    tlb_clear(&c->tlb_smap);
    for (unsigned i = 0; i < MMU_SPACES; i++) {
        tlb_clear(&c->tlb_kernel[i]);
        tlb_clear(&c->tlb_user[i]);
    }
    code_clear(c, true);
    if (c->hooks)
        c->hooks->tlb_flushed(c);
}

static void flush_space(struct interp *c, unsigned space)
{
    tlb_clear(&c->tlb_kernel[space]);
    tlb_clear(&c->tlb_user[space]);
    if (c->hooks)
        c->hooks->tlb_space_flushed(c, space);
}

/* What spaces share holds entries of the current one alone, besides global ones. */
static void flush_shared(struct interp *c)
{
    tlb_clear_local(&c->tlb_smap);
    code_clear(c, false);
}

void mmu_flush_nonglobal(struct interp *c, int pcid)
{
    for (unsigned i = 0; i < MMU_SPACES; i++)
        if (pcid == MMU_ALL_SPACES || c->space_pcid[i] == pcid)
            flush_space(c, i);
    if (pcid == MMU_ALL_SPACES || c->space_pcid[c->space] == pcid)
        flush_shared(c);
}

static unsigned find_space(struct interp *c, int pcid)
{
    for (unsigned i = 0; i < MMU_SPACES; i++)
        if (c->space_pcid[i] == pcid)
            return i;
    unsigned space = c->next_space;
    c->next_space = (space + 1) % MMU_SPACES;
    flush_space(c, space);
    c->space_pcid[space] = pcid;
    return space;
}

void mmu_switch(struct interp *c, unsigned pcid, bool keep)
{
    unsigned space = find_space(c, (int)pcid);

    if (!keep)
        flush_space(c, space);
    flush_shared(c);
    if (space == c->space)
        return;
    use_space(c, space);
    if (c->hooks)
        c->hooks->tlb_space_switched(c);
}

/* A global page is the same in all spaces, and entries of its kind may be in each: so the page goes from all of them. */
void mmu_flush_page(struct interp *c, uint64_t lin)
{
    bool large = c->tlb_code_large & tlb_gib_bit(lin);

    tlb_drop_page(&c->tlb_smap, lin);
    for (unsigned i = 0; i < MMU_SPACES; i++) {
        tlb_drop_page(&c->tlb_kernel[i], lin);
        tlb_drop_page(&c->tlb_user[i], lin);
    }
    code_drop_page(c, lin, large);
    if (c->hooks)
        c->hooks->tlb_page_flushed(c, lin, large);
}

void mmu_drop_write(struct interp *c, uint64_t gpa)
{
    tlb_drop_write(&c->tlb_smap, gpa);
    for (unsigned i = 0; i < MMU_SPACES; i++) {
        tlb_drop_write(&c->tlb_kernel[i], gpa);
        tlb_drop_write(&c->tlb_user[i], gpa);
    }
}

/* ---- modes ---- */

void mmu_mode_changed(struct interp *c)
{
    const struct x86_state *st = &c->st;

    c->mmu = mmu_index_of(st, x86_cpl(st));
    if (x86_code64(st))
        c->code_size = 8;
    else
        c->code_size = st->seg[X86_CS].attr & X86_SEG_DB ? 4 : 2;
    fault_update_step(c);
}

void mmu_reset(struct interp *c)
{
    c->debug_hit = c->st.pending_debug;
    c->fault_ext = 0;
    mmu_flush_all(c);
    mmu_switch(c, c->st.cr4 & X86_CR4_PCIDE ? c->st.cr3 & 0xfff : 0, false);
    mmu_mode_changed(c);
}
