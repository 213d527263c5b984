/*
 * Far JMP, CALL and RET in every mode, through call gates, task gates and TSSs (SDM Vol. 2A CALL, JMP; Vol. 2B RET; Vol. 3A 5.8).
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"
#include "engine/interp/fault.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"
#include "engine/interp/task.h"

enum { TYPE_CALL16 = 4, TYPE_TASK_GATE = 5, TYPE_CALL32 = 12 };

/* A far pointer, as an instruction names it. */
struct far {
    uint16_t sel;
    uint64_t off;
    unsigned size; /* operand size: 2, 4 or 8 */
    bool call;
    uint64_t next; /* RIP after the instruction */
};

_Noreturn static void gp(struct interp *c, uint32_t sel)
{
    interp_raise_error(c, X86_GP, sel & ~3u);
}

static uint64_t truncate(uint64_t v, unsigned size)
{
    return size == 8 ? v : size == 4 ? (uint32_t)v : (uint16_t)v;
}

/* The new RIP within its code segment; #GP(0). */
static void check_rip(struct interp *c, const struct seg_desc *cs, uint64_t rip)
{
    bool long_code = x86_long_mode(&c->st) && (cs->attr & X86_SEG_L);

    if (long_code ? !seg_canonical(rip) : rip > cs->limit)
        interp_raise_error(c, X86_GP, 0);
}

static void load_cs(struct interp *c, const struct seg_desc *cs, uint16_t sel, unsigned cpl, uint64_t rip)
{
    c->st.seg[X86_CS] = seg_from_desc(cs, (uint16_t)((sel & ~3u) | cpl));
    c->st.rip = rip;
}

static void transferred(struct interp *c)
{
    c->attention |= ATTN_RECHECK;
    mmu_mode_changed(c);
}

/* ---- real-address and virtual-8086 mode ---- */

static void transfer_real(struct interp *c, const struct far *f)
{
    if (f->off > c->st.seg[X86_CS].limit)
        interp_raise_error(c, X86_GP, 0);
    if (f->call) {
        stack_poke(c, -(int)f->size, f->size, c->st.seg[X86_CS].sel);
        stack_poke(c, -2 * (int)f->size, f->size, f->next);
        stack_move(c, -2 * (int64_t)f->size);
    }
    seg_load_real(c, X86_CS, f->sel);
    c->st.rip = f->off;
}

/* ---- to code ---- */

static void transfer_code(struct interp *c, const struct far *f, struct seg_desc *cs)
{
    unsigned cpl = x86_cpl(&c->st), dpl = seg_dpl(cs);

    if (cs->attr & X86_SEG_DC ? dpl > cpl : (f->sel & 3u) > cpl || dpl != cpl)
        gp(c, f->sel);
    if (!(cs->attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, f->sel & ~3u);
    if (x86_long_mode(&c->st) && (cs->attr & X86_SEG_L) && (cs->attr & X86_SEG_DB))
        gp(c, f->sel);
    check_rip(c, cs, f->off);
    if (f->call) {
        /* The room for both is there before either is written. */
        stack_poke(c, -2 * (int)f->size, f->size, f->next);
        stack_poke(c, -(int)f->size, f->size, c->st.seg[X86_CS].sel);
    }
    seg_desc_accessed(c, cs);
    if (f->call)
        stack_move(c, -2 * (int64_t)f->size);
    load_cs(c, cs, f->sel, cpl, f->off);
}

/* ---- through a call gate ---- */

struct call_gate {
    uint16_t sel;
    uint64_t off;
    unsigned size;
    unsigned params;
};

/* A CALL to a more privileged level: stack from the TSS, parameters copied (SDM Vol. 3A 5.8.5). */
static void call_inner(struct interp *c, const struct far *f, const struct call_gate *g, struct seg_desc *cs)
{
    struct x86_state *st = &c->st;
    unsigned n = 0, cpl = seg_dpl(cs);
    uint64_t val[TASK_FRAME_MAX];
    struct task_stack ns = {0};

    if (x86_long_mode(st)) {
        ns = (struct task_stack){.switched = true, .cpl = cpl, .rsp = task_rsp(c, cpl), .mask = UINT64_MAX};
        ns.ss.sel = (uint16_t)cpl;
        ns.ss.attr = (uint16_t)(cpl << X86_SEG_DPL_SHIFT);
    } else {
        task_stack_inner(c, cpl, &ns);
    }
    check_rip(c, cs, g->off);
    val[n++] = st->seg[X86_SS].sel;
    val[n++] = st->gpr[X86_RSP];
    for (unsigned i = g->params; i-- > 0;)
        val[n++] = stack_peek(c, i * g->size, g->size);
    val[n++] = st->seg[X86_CS].sel;
    val[n++] = f->next;
    task_stack_push(c, &ns, g->size, val, n);
    seg_desc_accessed(c, cs);

    st->seg[X86_SS] = ns.ss;
    st->gpr[X86_RSP] = ns.rsp;
    load_cs(c, cs, g->sel, cpl, g->off);
}

static void read_call_gate(struct interp *c, const struct far *f, const struct seg_desc *d, struct call_gate *g)
{
    bool long_mode = x86_long_mode(&c->st);

    g->sel = (uint16_t)(d->raw >> 16);
    g->off = d->raw & 0xffff;
    g->size = 2;
    g->params = long_mode ? 0 : (d->raw >> 32) & 31;
    if ((d->attr & X86_SEG_TYPE) == TYPE_CALL32) {
        g->off |= (d->raw >> 32) & 0xffff0000;
        g->size = 4;
    }
    if (long_mode) {
        if (d->raw_high >> 40 & 0x1f)
            gp(c, f->sel);
        g->off |= d->raw_high << 32;
        g->size = 8;
    }
}

static void transfer_gate(struct interp *c, const struct far *f, const struct seg_desc *d)
{
    unsigned cpl = x86_cpl(&c->st), want = X86_SEG_S | X86_SEG_CODE;
    struct call_gate g;
    struct seg_desc cs;
    bool conforming;

    if (seg_dpl(d) < cpl || (f->sel & 3u) > seg_dpl(d))
        gp(c, f->sel);
    if (!(d->attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, f->sel & ~3u);
    read_call_gate(c, f, d, &g);

    if (!seg_desc_read(c, g.sel, &cs))
        gp(c, g.sel);
    conforming = cs.attr & X86_SEG_DC;
    if ((cs.attr & want) != want || seg_dpl(&cs) > cpl || (!f->call && !conforming && seg_dpl(&cs) != cpl))
        gp(c, g.sel);
    if (x86_long_mode(&c->st) && (cs.attr & (X86_SEG_L | X86_SEG_DB)) != X86_SEG_L)
        gp(c, g.sel);
    if (!(cs.attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, g.sel & ~3u);
    if (f->call && !conforming && seg_dpl(&cs) < cpl) {
        call_inner(c, f, &g, &cs);
        return;
    }
    check_rip(c, &cs, g.off);
    if (f->call) {
        stack_poke(c, -2 * (int)g.size, g.size, f->next);
        stack_poke(c, -(int)g.size, g.size, c->st.seg[X86_CS].sel);
    }
    seg_desc_accessed(c, &cs);
    if (f->call)
        stack_move(c, -2 * (int64_t)g.size);
    load_cs(c, &cs, g.sel, cpl, g.off);
}

/* ---- to a task ---- */

static void transfer_task(struct interp *c, const struct far *f, uint16_t sel, struct seg_desc *d)
{
    task_switch(c, sel, d, f->call ? TASK_CALL : TASK_JMP, f->next, c->st.rflags);
}

static void transfer_task_gate(struct interp *c, const struct far *f, const struct seg_desc *gate)
{
    uint16_t sel = (uint16_t)(gate->raw >> 16);
    struct seg_desc d;
    unsigned type;

    if (!(gate->attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, f->sel & ~3u);
    if ((sel & 4) || !seg_desc_read(c, sel, &d))
        gp(c, sel);
    type = d.attr & (X86_SEG_S | X86_SEG_TYPE);
    if (type != TASK_TSS16 && type != TASK_TSS32)
        gp(c, sel);
    transfer_task(c, f, sel, &d);
}

static void transfer_system(struct interp *c, const struct far *f, struct seg_desc *d)
{
    unsigned type = d->attr & X86_SEG_TYPE;

    if (x86_long_mode(&c->st) && type != TYPE_CALL32)
        gp(c, f->sel);
    switch (type) {
    case TYPE_CALL16:
    case TYPE_CALL32:
        transfer_gate(c, f, d);
        return;
    case TYPE_TASK_GATE:
    case TASK_TSS16:
    case TASK_TSS32:
        if (seg_dpl(d) < x86_cpl(&c->st) || seg_dpl(d) < (f->sel & 3u))
            gp(c, f->sel);
        if (type == TYPE_TASK_GATE) {
            transfer_task_gate(c, f, d);
            return;
        }
        if (f->sel & 4)
            gp(c, f->sel);
        transfer_task(c, f, f->sel, d);
        return;
    default:
        gp(c, f->sel);
    }
}

static void transfer(struct interp *c, const struct far *f)
{
    struct seg_desc d;

    if (seg_real_style(&c->st)) {
        transfer_real(c, f);
    } else {
        if (!seg_desc_read(c, f->sel, &d))
            gp(c, f->sel);
        if (!(d.attr & X86_SEG_S))
            transfer_system(c, f, &d);
        else if (d.attr & X86_SEG_CODE)
            transfer_code(c, f, &d);
        else
            gp(c, f->sel);
    }
    transferred(c);
}

/* in->vvvv: a CALL; in->scale and the like belong to the memory operand of the indirect forms. */
static void op_far_direct(struct interp *c, const struct insn *in)
{
    struct far f = {.sel = (uint16_t)in->disp,
                    .off = truncate(in->imm, in->size),
                    .size = in->size,
                    .call = in->vvvv,
                    .next = interp_next_rip(c, in)};
    transfer(c, &f);
}

static void op_far_indirect(struct interp *c, const struct insn *in)
{
    struct far f = {.size = in->size, .call = in->vvvv, .next = interp_next_rip(c, in)};
    uint64_t lin = insn_lin(c, in, in->size + 2u, false);

    f.off = in->size == 2 ? mmu_load16(c, lin) : in->size == 4 ? mmu_load32(c, lin) : mmu_load64(c, lin);
    f.sel = mmu_load16(c, lin + in->size);
    transfer(c, &f);
}

/* ---- RET ---- */

static void return_real(struct interp *c, const struct insn *in)
{
    uint64_t rip = stack_peek(c, 0, in->size);
    uint16_t sel = (uint16_t)stack_peek(c, in->size, in->size);

    if (rip > c->st.seg[X86_CS].limit)
        interp_raise_error(c, X86_GP, 0);
    stack_move(c, 2 * (int64_t)in->size + (int64_t)in->imm);
    seg_load_real(c, X86_CS, sel);
    c->st.rip = rip;
}

void system_return_check_cs(struct interp *c, uint16_t sel, struct seg_desc *cs)
{
    unsigned rpl = sel & 3u, want = X86_SEG_S | X86_SEG_CODE;

    if (!seg_desc_read(c, sel, cs))
        gp(c, sel);
    if ((cs->attr & want) != want || rpl < x86_cpl(&c->st))
        gp(c, sel);
    if (cs->attr & X86_SEG_DC ? seg_dpl(cs) > rpl : seg_dpl(cs) != rpl)
        gp(c, sel);
    if (x86_long_mode(&c->st) && (cs->attr & X86_SEG_L) && (cs->attr & X86_SEG_DB))
        gp(c, sel);
    if (!(cs->attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, sel & ~3u);
}

struct x86_seg system_return_check_ss(struct interp *c, uint16_t sel, unsigned cpl, const struct seg_desc *cs)
{
    struct seg_desc ss;

    if (!(sel & ~3u)) {
        if (!x86_long_mode(&c->st) || !(cs->attr & X86_SEG_L) || cpl == 3 || (sel & 3u) != cpl)
            interp_raise_error(c, X86_GP, 0);
        return (struct x86_seg){.sel = sel, .attr = (uint16_t)(cpl << X86_SEG_DPL_SHIFT)};
    }
    seg_check_stack(c, sel, cpl, X86_GP, &ss);
    seg_desc_accessed(c, &ss);
    return seg_from_desc(&ss, sel);
}

void system_return_commit(struct interp *c, const struct seg_desc *cs, uint16_t sel, uint64_t rip,
                          const struct x86_seg *ss, uint64_t rsp)
{
    struct x86_state *st = &c->st;
    bool outer = (sel & 3u) > x86_cpl(st), long_code = x86_long_mode(st) && (cs->attr & X86_SEG_L);
    uint64_t mask = long_code ? UINT64_MAX : ss->attr & X86_SEG_DB ? 0xffffffffu : 0xffffu;

    load_cs(c, cs, sel, sel & 3u, rip);
    st->seg[X86_SS] = *ss;
    st->gpr[X86_RSP] = mask == 0xffff ? (st->gpr[X86_RSP] & ~mask) | (rsp & mask) : rsp & mask;
    if (outer)
        seg_null_inner(c, sel & 3u);
}

static void return_protected(struct interp *c, const struct insn *in)
{
    uint64_t rip = stack_peek(c, 0, in->size), rsp;
    uint16_t sel = (uint16_t)stack_peek(c, in->size, in->size), ss_sel;
    unsigned rpl = sel & 3u, at = 2u * in->size + (unsigned)in->imm;
    struct seg_desc cs;
    struct x86_seg ss;

    system_return_check_cs(c, sel, &cs);
    if (rpl == x86_cpl(&c->st)) {
        check_rip(c, &cs, rip);
        seg_desc_accessed(c, &cs);
        stack_move(c, at);
        load_cs(c, &cs, sel, rpl, rip);
        return;
    }
    rsp = stack_peek(c, at, in->size);
    ss_sel = (uint16_t)stack_peek(c, at + in->size, in->size);
    ss = system_return_check_ss(c, ss_sel, rpl, &cs);
    check_rip(c, &cs, rip);
    seg_desc_accessed(c, &cs);
    system_return_commit(c, &cs, sel, rip, &ss, rsp + in->imm);
}

static void op_ret_far(struct interp *c, const struct insn *in)
{
    if (seg_real_style(&c->st))
        return_real(c, in);
    else
        return_protected(c, in);
    transferred(c);
}

/* ---- binding ---- */

static interp_fn bind_far(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    const ZydisDecodedOperand *op = &xi->op[0];

    if (xi->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
        return NULL;
    in->size = (uint8_t)(xi->insn.operand_width / 8);
    if (xi->insn.mnemonic == ZYDIS_MNEMONIC_RET) {
        in->imm = xi->insn.operand_count_visible && bind_is_imm(op) ? (uint16_t)op->imm.value.u : 0;
        return op_ret_far;
    }
    in->vvvv = xi->insn.mnemonic == ZYDIS_MNEMONIC_CALL;
    if (op->type == ZYDIS_OPERAND_TYPE_POINTER) {
        in->imm = op->ptr.offset;
        in->disp = op->ptr.segment;
        return op_far_direct;
    }
    return bind_is_mem(op) ? op_far_indirect : op_ud;
}

const struct bind_entry op_far_binds[] = {
    {ZYDIS_MNEMONIC_JMP, bind_far},
    {ZYDIS_MNEMONIC_CALL, bind_far},
    {ZYDIS_MNEMONIC_RET, bind_far},
    {0, NULL},
};
