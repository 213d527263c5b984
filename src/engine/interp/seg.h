/*
 * Segmentation (SDM Vol. 3A chapters 3 and 5): effective addresses, limit and type checks, segment loads, the stack.
 *
 * Threads: the vCPU's own. What raises does not return; nothing is changed before it.
 */
#ifndef ENGINE_INTERP_SEG_H
#define ENGINE_INTERP_SEG_H

#include "engine/interp/mmu.h"

/* The offset part of the memory operand, wrapped to the address size. */
static inline uint64_t insn_offset(struct interp *c, const struct insn *in)
{
    uint64_t off = *(const uint64_t *)interp_reg(c, in->base) +
                   (*(const uint64_t *)interp_reg(c, in->index) << in->scale) + (uint64_t)in->disp;
    if (LIKELY(in->addr == 8))
        return off;
    return in->addr == 4 ? (uint32_t)off : (uint16_t)off;
}

/*
 * Linear address of [off, off + size) in `seg` (enum x86_segreg): checks presence, type, limit and, in 64-bit mode, canonical form;
 * #SS(0) for SS, #GP(0) for the others.
 */
uint64_t seg_lin(struct interp *c, unsigned seg, uint64_t off, unsigned size, bool write);

/* Linear address of the memory operand. In flat 64-bit mode the TLB's slow path finds non-canonical ones. */
static inline uint64_t insn_lin(struct interp *c, const struct insn *in, unsigned size, bool write)
{
    uint64_t off = insn_offset(c, in);
    if (UNLIKELY(in->prefix & INSN_SLOW_ADDR))
        return seg_lin(c, in->seg, off, size, write);
    return *(const uint64_t *)interp_reg(c, in->seg_base) + off;
}

/* Whether the segment's limit allows [off, off + size), outside 64-bit mode. */
bool seg_within_limit(const struct x86_seg *s, uint64_t off, unsigned size);

static inline bool seg_canonical(uint64_t lin)
{
    return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

/* Real-address or virtual-8086 mode: selectors are paragraph numbers. */
static inline bool seg_real_style(const struct x86_state *st)
{
    return !(st->cr0 & X86_CR0_PE) || (st->rflags & X86_FLAG_VM);
}

/* Which bits of RSP the stack uses: SS.B, or all in 64-bit mode. */
static inline uint64_t seg_stack_mask(const struct interp *c)
{
    if (LIKELY(c->code_size == 8))
        return UINT64_MAX;
    return c->st.seg[X86_SS].attr & X86_SEG_DB ? 0xffffffffu : 0xffffu;
}

/*
 * The stack; size is 2, 4 or 8. They change RSP after the access, and only its bits in use. `at` and `peek` count bytes from the top of the stack, and change nothing.
 */
void stack_push_slow(struct interp *c, unsigned size, uint64_t v);
uint64_t stack_peek(struct interp *c, unsigned at, unsigned size);
void stack_poke(struct interp *c, int at, unsigned size, uint64_t v); /* at < 0: below the top */
void stack_move(struct interp *c, int64_t bytes);                     /* adds to RSP */

static inline void stack_push(struct interp *c, unsigned size, uint64_t v)
{
    uint64_t lin = c->st.gpr[X86_RSP] - 8;
    uint8_t *host;
    if (LIKELY(size == 8 && c->code_size == 8) && (host = mmu_hit_write(c, lin, 8))) {
        *(volatile mmu_u64 *)host = v;
        c->st.gpr[X86_RSP] = lin;
    } else {
        stack_push_slow(c, size, v);
    }
}

static inline uint64_t stack_pop(struct interp *c, unsigned size)
{
    const uint8_t *host;
    uint64_t v;
    if (LIKELY(size == 8 && c->code_size == 8) && (host = mmu_hit_read(c, c->st.gpr[X86_RSP], 8))) {
        v = *(const volatile mmu_u64 *)host;
        c->st.gpr[X86_RSP] += 8;
    } else {
        v = stack_peek(c, 0, size);
        stack_move(c, size);
    }
    return v;
}

/* A descriptor as read from the GDT or LDT. */
struct seg_desc {
    uint64_t raw;
    uint64_t raw_high; /* second half of a 16-byte system descriptor in IA-32e mode, else 0 */
    uint64_t lin;      /* where it is */
    uint64_t base;
    uint32_t limit;
    uint16_t attr; /* X86_SEG_ bits */
};

/* Reads the descriptor `sel` names. false when it is null or beyond its table's limit; memory faults are raised. */
bool seg_desc_read(struct interp *c, uint16_t sel, struct seg_desc *d) MUST_CHECK;

/* Sets the accessed flag of a code or data descriptor in its table, and in d, unless set. */
void seg_desc_accessed(struct interp *c, struct seg_desc *d);

static inline unsigned seg_dpl(const struct seg_desc *d)
{
    return (d->attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
}

/* The cached part of a segment register from a descriptor. */
struct x86_seg seg_from_desc(const struct seg_desc *d, uint16_t sel);

/* In real and virtual-8086 mode. */
void seg_load_real(struct interp *c, unsigned seg, uint16_t sel);
void seg_load_null(struct interp *c, unsigned seg, uint16_t sel);

/* Loads ES, SS, DS, FS or GS as MOV, POP and LDS do (SDM Vol. 2B, MOV), in every mode. */
void seg_load(struct interp *c, unsigned seg, uint16_t sel);

/* SS for a level being entered: null, limit, RPL, type and DPL against `cpl`; faults as `vector` (#TS, #GP), absence as #SS. */
void seg_check_stack(struct interp *c, uint16_t sel, unsigned cpl, enum x86_vector vector, struct seg_desc *d);

/* On return to an outer level: data segments it may not hold become null (SDM Vol. 2B, RET). */
static inline void seg_null_inner(struct interp *c, unsigned cpl)
{
    static const uint8_t data_segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < ARRAY_SIZE(data_segs); i++) {
        struct x86_seg *s = &c->st.seg[data_segs[i]];
        bool conforming = (s->attr & (X86_SEG_CODE | X86_SEG_DC)) == (X86_SEG_CODE | X86_SEG_DC);
        unsigned dpl = (s->attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
        /* A null selector with a base from WRFSBASE or an MSR keeps the base (SDM Vol. 2B, IRET: only the selector goes). */
        if (!(s->attr & X86_SEG_P))
            s->sel = 0;
        else if (dpl < cpl && !conforming)
            *s = (struct x86_seg){.base = s->base};
    }
}

#endif
