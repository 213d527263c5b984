/* See bt.h. */
#include "engine/bt/bt.h"

#include "engine/interp/mmu.h"

#define FLAT_LIMIT 0xffffffffu

static bool is_flat(const struct x86_seg *seg)
{
    return seg->base == 0 && seg->limit == FLAT_LIMIT && (seg->attr & X86_SEG_P);
}

static bool is_flat_data(const struct x86_seg *seg)
{
    unsigned kind = seg->attr & (X86_SEG_CODE | X86_SEG_DC | X86_SEG_WRITE);
    return is_flat(seg) && kind == X86_SEG_WRITE;
}

/* 32-bit code with anything but the flat segments that systems use is rare, and its limits would have to be checked. */
static bool is_flat32(const struct x86_state *st)
{
    return is_flat(&st->seg[X86_CS]) && is_flat_data(&st->seg[X86_SS]) && (st->seg[X86_SS].attr & X86_SEG_DB) &&
           is_flat_data(&st->seg[X86_DS]) && is_flat_data(&st->seg[X86_ES]);
}

/* Which register files an instruction may use without #UD or #NM (SDM Vol. 3A 13.1, Vol. 1 13.5). */
static uint32_t units(const struct x86_state *st)
{
    uint32_t mode = 0;

    if (st->cr0 & (X86_CR0_EM | X86_CR0_TS))
        return 0;
    mode |= BT_MODE_X87;
    if (st->cr4 & X86_CR4_OSFXSR)
        mode |= BT_MODE_SSE;
    if ((st->cr4 & X86_CR4_OSXSAVE) && (st->xcr0 & X86_XCR0_AVX))
        mode |= BT_MODE_AVX;
    return mode;
}

uint32_t mode_now(const struct bt *bt)
{
    const struct interp *c = &bt->c;
    const struct x86_state *st = &c->st;
    uint32_t mode;

    if (c->code_size == 2 || c->mmu == MMU_USER_ALIGN || !(st->cr0 & X86_CR0_PE) || (st->rflags & X86_FLAG_VM))
        return BT_MODE_NONE;
    if (c->code_size == 4 && !is_flat32(st))
        return BT_MODE_NONE;
    mode = c->code_size == 8 ? BT_MODE_64 : 0;
    mode |= (uint32_t)c->mmu << BT_MODE_MMU_SHIFT;
    mode |= x86_cpl(st) << BT_MODE_CPL_SHIFT;
    if (st->rflags & X86_FLAG_DF)
        mode |= BT_MODE_DF;
    return mode | units(st);
}
