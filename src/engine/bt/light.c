/*
 * Light calls: C for the usual case of instructions that are too much for generated code and too frequent for the interpreter. Generated code
 * calls through a thunk that saves the registers a C function may change, and no vectors: this file is compiled to use none, and calls
 * nothing that was not. What it may need of the guest's registers is in c.st.gpr (RAX, RCX, RDX, RSP, RSI, RDI, R8 to R11), the
 * status flags are in bt->flags.
 *
 * A function either does the whole instruction, as the interpreter would, or changes nothing that shows and returns bt->arg1, the
 * slow path, so that the interpreter does it. It does not raise. It returns where generated code goes on: behind the instruction
 * (bt->arg0), or through the jump cache of the mode it has entered. light_access() has rules of its own.
 */
#include "engine/bt/light.h"

#include "engine/interp/code.h"
#include "engine/interp/mmu_fill.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"

static const uint8_t *resume(const struct bt *bt)
{
    return (const uint8_t *)(uintptr_t)bt->arg0;
}

static const uint8_t *leave_it(const struct bt *bt)
{
    return (const uint8_t *)(uintptr_t)bt->arg1;
}

static void flags_set(struct bt *bt, uint64_t rflags)
{
    bt->c.st.rflags = rflags | X86_FLAG_FIXED;
    bt->flags = bt_pack_flags(rflags);
}

/* On at RIP after a change of mode, which is one that is translated. Where something is due, C looks. */
static const uint8_t *go(struct bt *bt, uint64_t rip)
{
    struct interp *c = &bt->c;
    const uint8_t **slots;

    bt->mode = mode_now(bt) | (bt->mode & BT_MODE_COUNTED);
    bt->arg0 = rip;
    if (c->st.rflags & X86_FLAG_IF)
        c->pin_mask |= PIN_INTR;
    uint32_t pending = atomic_load_explicit(&c->conf.port->pending, memory_order_relaxed) & c->pin_mask;
    if (pending || !bt->jump_bases[bt->mode])
        return bt->thunks.miss;
    bt->jump_base8 = bt->jump_bases[bt->mode];
    slots = (const uint8_t **)(uintptr_t)(bt->jump_base8 * 8);
    return slots[(uint16_t)rip];
}

/* ---- SYSCALL and SYSRET (interp/op_interrupt.c) ---- */

/* light_arg: the RIP behind the instruction. */
const uint8_t *light_syscall(struct bt *bt)
{
    struct x86_state *st = &bt->c.st;
    uint16_t sel = (uint16_t)(st->star >> 32) & 0xfffc;

    if (!(st->efer & X86_EFER_SCE))
        return leave_it(bt);
    st->gpr[X86_RCX] = bt->light_arg;
    st->gpr[X86_R11] = bt_rflags(bt);
    flags_set(bt, st->gpr[X86_R11] & ~st->sfmask);
    system_flat_segments(st, sel, (uint16_t)(sel + 8), 0, true);
    bt->c.mmu = mmu_index_of(st, 0);
    return go(bt, st->lstar);
}

/* With an operand of 64 bits, at CPL 0. */
const uint8_t *light_sysret(struct bt *bt)
{
    struct x86_state *st = &bt->c.st;
    uint16_t sel = (uint16_t)(st->star >> 48);
    uint64_t flags = st->gpr[X86_R11] & SYSTEM_SYSRET_FLAGS;

    if (!(st->efer & X86_EFER_SCE) || !seg_canonical(st->gpr[X86_RCX]) || (flags & (X86_FLAG_TF | X86_FLAG_AC)))
        return leave_it(bt);
    flags_set(bt, flags);
    system_flat_segments(st, (uint16_t)(sel + 16) | 3, (uint16_t)(sel + 8) | 3, 3, true);
    bt->c.mmu = MMU_USER;
    return go(bt, st->gpr[X86_RCX]);
}

/* ---- IRET from 64-bit code at CPL 0 to 64-bit code ---- */

/* A descriptor of the GDT that the TLB knows. */
static bool read_descriptor(struct interp *c, uint16_t sel, struct seg_desc *d)
{
    uint64_t lin = c->st.gdtr.base + (sel & ~7u);
    const struct tlb_entry *e = mmu_entry(c, mmu_sys_index(c), lin);

    if ((sel & 4) || (sel | 7u) > c->st.gdtr.limit || ((lin + 7) & MMU_PAGE_MASK) != e->read)
        return false;
    uint64_t raw = *(const volatile mmu_u64 *)(uintptr_t)(lin + e->addend);
    uint32_t high = (uint32_t)(raw >> 32);
    d->attr = (high >> 8) & 0xf0ff;
    d->base = ((raw >> 16) & 0xffffff) | (high & 0xff000000);
    d->limit = (uint32_t)(raw & 0xffff) | (high & 0xf0000);
    if (d->attr & X86_SEG_G)
        d->limit = d->limit << 12 | 0xfff;
    return true;
}

static struct x86_seg segment(const struct seg_desc *d, uint16_t sel)
{
    return (struct x86_seg){.base = d->base, .limit = d->limit, .sel = sel, .attr = d->attr};
}

static bool read_code(struct interp *c, uint16_t sel, struct x86_seg *seg)
{
    const unsigned want = X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_ACCESSED | X86_SEG_L;
    struct seg_desc d;

    if (!(sel & ~3u) || !read_descriptor(c, sel, &d) || (d.attr & (want | X86_SEG_DC | X86_SEG_DB)) != want ||
        seg_dpl(&d) != (sel & 3u))
        return false;
    *seg = segment(&d, sel);
    return true;
}

static bool read_stack(struct interp *c, uint16_t sel, unsigned cpl, struct x86_seg *seg)
{
    const unsigned want = X86_SEG_P | X86_SEG_S | X86_SEG_WRITE | X86_SEG_ACCESSED;
    struct seg_desc d;

    if ((sel & 3u) != cpl)
        return false;
    if (!(sel & ~3u)) {
        *seg = (struct x86_seg){.sel = sel, .attr = (uint16_t)(cpl << X86_SEG_DPL_SHIFT)};
        return cpl != 3;
    }
    if (!read_descriptor(c, sel, &d) || (d.attr & (want | X86_SEG_CODE)) != want || seg_dpl(&d) != cpl)
        return false;
    *seg = segment(&d, sel);
    return true;
}

/*
 * RF holds for one instruction, and then only counts where a breakpoint is enabled, which generated code does not run under but for a
 * debugger's. So it is dropped here, unless somebody is about to look: that one, an interrupt, or a caller who counts instructions.
 */
static bool may_drop_rf(const struct bt *bt)
{
    return !(bt->mode & BT_MODE_COUNTED) && !bt->c.debugger.want &&
           !atomic_load_explicit(&bt->c.conf.port->pending, memory_order_relaxed);
}

const uint8_t *light_iret(struct bt *bt)
{
    const uint64_t mask = SYSTEM_IRET_ALWAYS | (SYSTEM_IRET_WIDE & ~X86_FLAG_RF) | X86_FLAG_IF | X86_FLAG_IOPL |
                          X86_FLAG_VIF | X86_FLAG_VIP;
    struct interp *c = &bt->c;
    struct x86_state *st = &c->st;
    const uint8_t *host = mmu_hit_read(c, st->gpr[X86_RSP], 40);
    struct x86_seg cs, ss;

    if ((st->rflags & X86_FLAG_NT) || st->nmi_blocked || !host)
        return leave_it(bt);
    const volatile mmu_u64 *frame = (const volatile mmu_u64 *)host;
    uint64_t rip = frame[0], flags = frame[2], rsp = frame[3];
    uint16_t cs_sel = (uint16_t)frame[1], ss_sel = (uint16_t)frame[4];
    unsigned cpl = cs_sel & 3u;
    if ((flags & X86_FLAG_TF) || ((flags & X86_FLAG_RF) && !may_drop_rf(bt)) || (cpl == 3 && (flags & X86_FLAG_AC)) ||
        !seg_canonical(rip) || !read_code(c, cs_sel, &cs) || !read_stack(c, ss_sel, cpl, &ss))
        return leave_it(bt);
    flags_set(bt, (st->rflags & ~mask) | (flags & mask));
    st->seg[X86_CS] = cs;
    st->seg[X86_SS] = ss;
    st->gpr[X86_RSP] = rsp;
    if (cpl)
        seg_null_inner(c, cpl);
    c->mmu = mmu_index_of(st, cpl);
    return go(bt, rip);
}

/* ---- MOVS and STOS in 64-bit code, upward (interp/op_string.c) ---- */

static uint64_t minimum(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t in_page(uint64_t lin)
{
    return RAM_PAGE_SIZE - (lin & (RAM_PAGE_SIZE - 1));
}

#define HOST_STRING(op) __asm__ volatile("rep " op : "+D"(to), "+S"(from), "+c"(n) : "a"(value) : "memory")

static void host_string(uint8_t *to, const uint8_t *from, uint64_t n, unsigned kind, uint64_t value)
{
    switch (kind) {
    case LIGHT_MOVS | 0:
        HOST_STRING("movsb");
        break;
    case LIGHT_MOVS | 1:
        HOST_STRING("movsw");
        break;
    case LIGHT_MOVS | 2:
        HOST_STRING("movsl");
        break;
    case LIGHT_MOVS | 3:
        HOST_STRING("movsq");
        break;
    case 0:
        HOST_STRING("stosb");
        break;
    case 1:
        HOST_STRING("stosw");
        break;
    case 2:
        HOST_STRING("stosl");
        break;
    default:
        HOST_STRING("stosq");
    }
}

/* Page by page, as far as the TLB allows; then, and when somebody asks for a look, the interpreter goes on. */
const uint8_t *light_string(struct bt *bt)
{
    struct interp *c = &bt->c;
    uint64_t *gpr = c->st.gpr;
    unsigned kind = (unsigned)bt->light_arg, shift = kind & LIGHT_SIZE;
    uint64_t count = kind & LIGHT_REP ? gpr[X86_RCX] : 1;

    while (count) {
        const uint8_t *from = NULL;
        uint64_t n = minimum(count, in_page(gpr[X86_RDI]) >> shift);
        if (kind & LIGHT_MOVS)
            n = minimum(n, in_page(gpr[X86_RSI]) >> shift);
        unsigned len = (unsigned)(n << shift);
        if (!n || ((kind & LIGHT_MOVS) && !(from = mmu_hit_read(c, gpr[X86_RSI], len))))
            return leave_it(bt);
        uint8_t *to = mmu_hit_write(c, gpr[X86_RDI], len);
        if (!to)
            return leave_it(bt);
        host_string(to, from, n, kind & (LIGHT_MOVS | LIGHT_SIZE), gpr[X86_RAX]);
        count -= n;
        gpr[X86_RDI] += len;
        if (kind & LIGHT_MOVS)
            gpr[X86_RSI] += len;
        if (kind & LIGHT_REP)
            gpr[X86_RCX] = count;
        if (count && atomic_load_explicit(&bt->poll, memory_order_relaxed))
            return leave_it(bt);
    }
    return resume(bt);
}

/* ---- accesses that miss the TLB ---- */

static void store(uint8_t *host, unsigned shift, uint64_t value)
{
    switch (shift) {
    case 0:
        *(volatile uint8_t *)host = (uint8_t)value;
        break;
    case 1:
        *(volatile mmu_u16 *)host = (uint16_t)value;
        break;
    case 2:
        *(volatile mmu_u32 *)host = (uint32_t)value;
        break;
    default:
        *(volatile mmu_u64 *)host = value;
    }
}

/*
 * A store to a page with code, beside the code (page.c). NULL: the interpreter must make it. Where code turns out to have been claimed there
 * meanwhile, the store is made known as that of an instruction that wrote by itself, before the next one.
 */
static const uint8_t *store_beside_code(struct bt *bt, const struct light_access *a, uint8_t *host)
{
    struct interp *c = &bt->c;
    const struct ram *ram = c->conf.ram;
    uint64_t page = ram_page(ram, host), offset = (uint64_t)(host - ram->base) & (RAM_PAGE_SIZE - 1);
    unsigned shift = a->what >> LIGHT_STORE_SIZE_SHIFT & 3, reg = a->what >> LIGHT_STORE_REG_SHIFT & 15;
    struct ram_code *code = &ram->code[page];

    if (!(a->what & LIGHT_STORE) || (bt->mode & BT_MODE_COUNTED && c->engine->n_vcpus > 1) || c->writing ||
        offset + (1u << shift) > RAM_PAGE_SIZE)
        return NULL;
    uint64_t granules = ram_granules(offset, 1u << shift);
    uint8_t flags = atomic_load_explicit(&ram->page_flags[page], memory_order_acquire);
    uint32_t stores = atomic_load_explicit(&code->stores, memory_order_relaxed) + 1;
    if ((atomic_load_explicit(&code->granules, memory_order_relaxed) & granules) || code_is_data(flags, stores))
        return NULL;
    store(host, shift, c->st.gpr[reg]);
    atomic_thread_fence(memory_order_seq_cst); /* as in ram_wrote() */
    if (!(atomic_load_explicit(&code->granules, memory_order_relaxed) & granules)) {
        atomic_store_explicit(&code->stores, stores, memory_order_relaxed);
        return (const uint8_t *)(uintptr_t)bt->arg0 + a->resume;
    }
    c->writing = host;
    c->writing_len = 1u << shift;
    c->attention |= ATTN_RECHECK;
    uint64_t next = a->rip + (a->what >> LIGHT_STORE_LEN_SHIFT & 15);
    bt->arg0 = bt->mode & BT_MODE_64 ? next : (uint32_t)next;
    return bt->thunks.poll;
}

/*
 * Most misses are of pages that the TLB has no room for: then the entry is filled and the check made again, which is all this does. It fails once
 * more where the access leaves the page or is not aligned, and then with a tag that hits.
 */
const uint8_t *light_access(struct bt *bt)
{
    const uint8_t *at = (const uint8_t *)(uintptr_t)bt->arg0, *next;
    struct light_access a;
    struct interp *c = &bt->c;
    uint64_t lin = bt->light_arg, page = lin & MMU_PAGE_MASK;
    struct tlb_entry *e = mmu_entry(c, c->mmu, lin);
    bool hit;

    memcpy(&a, at, sizeof(a));
    bool write = a.what & LIGHT_WRITE;
    hit = (write ? e->write : e->read) == page;
    bt->stats.count[ENGINE_TRANSLATOR_TLB_MISSES] += !hit;
    if (!hit && mmu_fill_again(c, lin, write)) {
        if ((write ? e->write : e->read) == page)
            return at + a.retry;
        next = store_beside_code(bt, &a, (uint8_t *)(uintptr_t)(lin + e->addend));
        if (next)
            return next;
    }
    bt->group = a.group | (a.what & LIGHT_ENDS ? BT_GROUP_ENDS : 0);
    bt->group_straddles = hit;
    bt->arg0 = a.resume ? (uintptr_t)(at + a.resume) : a.group ? (uintptr_t)at : 0;
    bt->arg1 = a.rip;
    return bt->thunks.slow[(a.what & LIGHT_X87) != 0];
}
