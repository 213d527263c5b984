/* See seg.h. */
#include "engine/interp/seg.h"

_Noreturn static void raise_segment(struct interp *c, unsigned seg)
{
    interp_raise_error(c, seg == X86_SS ? X86_SSF : X86_GP, 0);
}

/* SDM Vol. 3A 5.3: the last byte, and where the segment grows down its first too, lie within the limit. */
bool seg_within_limit(const struct x86_seg *s, uint64_t off, unsigned size)
{
    if ((s->attr & (X86_SEG_CODE | X86_SEG_DC)) == X86_SEG_DC)
        return off > s->limit && off + size - 1 <= (s->attr & X86_SEG_DB ? 0xffffffffu : 0xffffu);
    return off + size - 1 <= s->limit;
}

/* SDM Vol. 3A 5.5: types are not checked in real-address mode. */
static bool type_allows(const struct x86_seg *s, bool write)
{
    if (s->attr & X86_SEG_CODE)
        return !write && (s->attr & X86_SEG_WRITE);
    return !write || (s->attr & X86_SEG_WRITE);
}

uint64_t seg_lin(struct interp *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    const struct x86_seg *s = &c->st.seg[seg];

    if (c->code_size == 8) {
        uint64_t lin = off + (seg == X86_FS || seg == X86_GS ? s->base : 0);
        if (!seg_canonical(lin) || !seg_canonical(lin + size - 1))
            raise_segment(c, seg);
        return lin;
    }
    if (!seg_real_style(&c->st) && (!(s->attr & X86_SEG_P) || !type_allows(s, write)))
        raise_segment(c, seg);
    if (!seg_within_limit(s, off, size))
        raise_segment(c, seg);
    return (uint32_t)(s->base + off);
}

/* ---- stack ---- */

static uint64_t stack_lin(struct interp *c, int at, unsigned size, bool write)
{
    uint64_t off = (c->st.gpr[X86_RSP] + (uint64_t)(int64_t)at) & seg_stack_mask(c);
    return seg_lin(c, X86_SS, off, size, write);
}

static void store_sized(struct interp *c, uint64_t lin, unsigned size, uint64_t v)
{
    switch (size) {
    case 2:
        mmu_store16(c, lin, (uint16_t)v);
        break;
    case 4:
        mmu_store32(c, lin, (uint32_t)v);
        break;
    default:
        mmu_store64(c, lin, v);
    }
}

uint64_t stack_peek(struct interp *c, unsigned at, unsigned size)
{
    uint64_t lin = stack_lin(c, (int)at, size, false);

    switch (size) {
    case 2:
        return mmu_load16(c, lin);
    case 4:
        return mmu_load32(c, lin);
    default:
        return mmu_load64(c, lin);
    }
}

void stack_poke(struct interp *c, int at, unsigned size, uint64_t v)
{
    store_sized(c, stack_lin(c, at, size, true), size, v);
}

void stack_move(struct interp *c, int64_t bytes)
{
    uint64_t mask = seg_stack_mask(c), rsp = c->st.gpr[X86_RSP];
    c->st.gpr[X86_RSP] = (rsp & ~mask) | ((rsp + (uint64_t)bytes) & mask);
}

void stack_push_slow(struct interp *c, unsigned size, uint64_t v)
{
    stack_poke(c, -(int)size, size, v);
    stack_move(c, -(int64_t)size);
}

/* ---- descriptors ---- */

bool seg_desc_read(struct interp *c, uint16_t sel, struct seg_desc *d)
{
    uint64_t base = c->st.gdtr.base;
    uint32_t limit = c->st.gdtr.limit, hi;

    if (!(sel & ~3u))
        return false;
    if (sel & 4) {
        if (!(c->st.ldtr.attr & X86_SEG_P))
            return false;
        base = c->st.ldtr.base;
        limit = c->st.ldtr.limit;
    }
    if ((sel | 7u) > limit)
        return false;

    d->lin = base + (sel & ~7u);
    d->raw = mmu_sys_load(c, d->lin, 8);
    d->raw_high = 0;
    hi = (uint32_t)(d->raw >> 32);
    d->attr = (hi >> 8) & 0xf0ff;
    d->base = ((d->raw >> 16) & 0xffffff) | (hi & 0xff000000);
    d->limit = (uint32_t)(d->raw & 0xffff) | (hi & 0xf0000);
    if (d->attr & X86_SEG_G)
        d->limit = d->limit << 12 | 0xfff;
    /* System descriptors are 16 bytes long in IA-32e mode (SDM Vol. 3A 3.5). */
    if (!(d->attr & X86_SEG_S) && x86_long_mode(&c->st)) {
        if ((sel | 7u) + 8 > limit)
            return false;
        d->raw_high = mmu_sys_load(c, d->lin + 8, 8);
        d->base |= d->raw_high << 32;
    }
    return true;
}

void seg_desc_accessed(struct interp *c, struct seg_desc *d)
{
    if (d->attr & X86_SEG_ACCESSED)
        return;
    mmu_sys_store(c, d->lin + 5, (d->raw >> 40 & 0xff) | X86_SEG_ACCESSED, 1);
    d->attr |= X86_SEG_ACCESSED;
    d->raw |= UINT64_C(1) << 40;
}

struct x86_seg seg_from_desc(const struct seg_desc *d, uint16_t sel)
{
    return (struct x86_seg){.base = d->base, .limit = d->limit, .sel = sel, .attr = d->attr};
}

/* ---- loads ---- */

void seg_load_real(struct interp *c, unsigned seg, uint16_t sel)
{
    struct x86_seg *s = &c->st.seg[seg];

    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    /* Real-address mode keeps the limit and rights as they are; virtual-8086 mode has fixed ones (SDM Vol. 3B 20.2). */
    if (c->st.rflags & X86_FLAG_VM) {
        s->limit = 0xffff;
        s->attr = X86_SEG_P | X86_SEG_DPL | X86_SEG_S | X86_SEG_WRITE | X86_SEG_ACCESSED;
    } else if (!(s->attr & X86_SEG_P)) { /* was null in protected mode: there are no rights to keep */
        s->limit = 0xffff;
        s->attr = X86_SEG_P | X86_SEG_S | X86_SEG_WRITE | X86_SEG_ACCESSED;
    }
}

void seg_load_null(struct interp *c, unsigned seg, uint16_t sel)
{
    /* SS's DPL is the CPL, and stays. */
    uint16_t attr = seg == X86_SS ? (uint16_t)(x86_cpl(&c->st) << X86_SEG_DPL_SHIFT) : 0;
    c->st.seg[seg] = (struct x86_seg){.sel = sel, .attr = attr};
}

static void load_stack_segment(struct interp *c, uint16_t sel)
{
    unsigned cpl = x86_cpl(&c->st);
    struct seg_desc d;

    if (!(sel & ~3u)) {
        if (c->code_size != 8 || cpl == 3 || (sel & 3u) != cpl)
            interp_raise_error(c, X86_GP, 0);
        seg_load_null(c, X86_SS, sel);
        return;
    }
    seg_check_stack(c, sel, cpl, X86_GP, &d);
    seg_desc_accessed(c, &d);
    c->st.seg[X86_SS] = seg_from_desc(&d, sel);
}

static void load_data_segment(struct interp *c, unsigned seg, uint16_t sel)
{
    unsigned cpl = x86_cpl(&c->st), rpl = sel & 3u;
    uint32_t error = sel & ~3u;
    struct seg_desc d;
    bool code, conforming;

    if (!error) {
        seg_load_null(c, seg, sel);
        return;
    }
    if (!seg_desc_read(c, sel, &d) || !(d.attr & X86_SEG_S))
        interp_raise_error(c, X86_GP, error);
    code = d.attr & X86_SEG_CODE;
    conforming = code && (d.attr & X86_SEG_DC);
    if (code && !(d.attr & X86_SEG_WRITE))
        interp_raise_error(c, X86_GP, error);
    if (!conforming && (rpl > seg_dpl(&d) || cpl > seg_dpl(&d)))
        interp_raise_error(c, X86_GP, error);
    if (!(d.attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, error);
    seg_desc_accessed(c, &d);
    c->st.seg[seg] = seg_from_desc(&d, sel);
}

void seg_load(struct interp *c, unsigned seg, uint16_t sel)
{
    if (seg_real_style(&c->st))
        seg_load_real(c, seg, sel);
    else if (seg == X86_SS)
        load_stack_segment(c, sel);
    else
        load_data_segment(c, seg, sel);
}

void seg_check_stack(struct interp *c, uint16_t sel, unsigned cpl, enum x86_vector vector, struct seg_desc *d)
{
    uint32_t error = sel & ~3u;

    if (!seg_desc_read(c, sel, d))
        interp_raise_error(c, vector, error);
    if ((sel & 3u) != cpl || seg_dpl(d) != cpl ||
        (d->attr & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITE)) != (X86_SEG_S | X86_SEG_WRITE))
        interp_raise_error(c, vector, error);
    if (!(d->attr & X86_SEG_P))
        interp_raise_error(c, X86_SSF, error);
}
