/* See task.h. */
#include "engine/interp/task.h"

#include "engine/interp/fault.h"
#include "x86/paging.h"

#define DR6_BT    (1u << 15)
#define TSS_32BIT 8u /* in the type */

/* A TSS's fields by byte offset (SDM Vol. 3A figures 7-2 and 7-10). */
struct layout {
    unsigned min_limit;
    unsigned width; /* of a register's field */
    unsigned cr3, eip, eflags, gpr, seg, n_seg, ldt, trap;
    uint32_t gpr_high; /* what the register gets beyond its field */
};

/* The upper words are "modified and not maintained" (SDM Vol. 3A 7.6): ones, which guests that look expect. */
static const struct layout layout16 = {.min_limit = 0x2b,
                                       .width = 2,
                                       .eip = 14,
                                       .eflags = 16,
                                       .gpr = 18,
                                       .seg = 34,
                                       .n_seg = 4,
                                       .ldt = 42,
                                       .gpr_high = 0xffff0000};
static const struct layout layout32 = {.min_limit = 0x67,
                                       .width = 4,
                                       .cr3 = 28,
                                       .eip = 32,
                                       .eflags = 36,
                                       .gpr = 40,
                                       .seg = 72,
                                       .n_seg = 6,
                                       .ldt = 96,
                                       .trap = 100};

static const struct layout *layout_of(uint16_t attr)
{
    return attr & TSS_32BIT ? &layout32 : &layout16;
}

void task_stack_inner(struct interp *c, unsigned cpl, struct task_stack *ns)
{
    const struct x86_seg *tr = &c->st.tr;
    unsigned width = tr->attr & TSS_32BIT ? 4 : 2, at = cpl * 2 * width + width;
    struct seg_desc d;
    uint16_t sel;

    if (at + width + 1 > tr->limit)
        interp_raise_error(c, X86_TS, tr->sel & ~3u);
    ns->cpl = cpl;
    ns->switched = true;
    ns->rsp = mmu_sys_load(c, tr->base + at, width);
    sel = (uint16_t)mmu_sys_load(c, tr->base + at + width, 2);
    seg_check_stack(c, sel, cpl, X86_TS, &d);
    seg_desc_accessed(c, &d);
    ns->ss = seg_from_desc(&d, sel);
    ns->mask = ns->ss.attr & X86_SEG_DB ? 0xffffffffu : 0xffffu;
}

uint64_t task_rsp(struct interp *c, unsigned n)
{
    const struct x86_seg *tr = &c->st.tr;
    unsigned at = 4 + 8 * n;
    uint64_t rsp;

    if (at + 7 > tr->limit)
        interp_raise_error(c, X86_TS, tr->sel & ~3u);
    rsp = mmu_sys_load(c, tr->base + at, 8);
    if (!seg_canonical(rsp))
        interp_raise_error(c, X86_SSF, 0);
    return rsp;
}

void task_stack_push(struct interp *c, struct task_stack *ns, unsigned size, const uint64_t *val, unsigned n)
{
    uint64_t lin[TASK_FRAME_MAX];
    uint32_t error = ns->switched ? ns->ss.sel & ~3u : 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t off = (ns->rsp - (uint64_t)(i + 1) * size) & ns->mask;
        if (ns->mask == UINT64_MAX) {
            if (!seg_canonical(off) || !seg_canonical(off + size - 1))
                interp_raise_error(c, X86_SSF, 0);
            lin[i] = off;
        } else {
            if (!seg_within_limit(&ns->ss, off, size))
                interp_raise_error(c, X86_SSF, error);
            lin[i] = (uint32_t)(ns->ss.base + off);
        }
        mmu_check_write_at(c, ns->cpl, lin[i], size);
    }
    for (unsigned i = 0; i < n; i++)
        mmu_store_at(c, ns->cpl, lin[i], val[i], size);
    ns->rsp = (ns->rsp & ~ns->mask) | ((ns->rsp - (uint64_t)n * size) & ns->mask);
}

static void set_busy(struct interp *c, uint64_t desc_lin, bool busy)
{
    uint8_t byte = (uint8_t)mmu_sys_load(c, desc_lin + 5, 1);
    mmu_sys_store(c, desc_lin + 5, busy ? byte | 2 : byte & ~2u, 1);
}

static void save_old(struct interp *c, uint64_t rip, uint64_t flags)
{
    const struct x86_state *st = &c->st;
    const struct layout *l = layout_of(st->tr.attr);
    uint64_t base = st->tr.base;

    mmu_sys_store(c, base + l->eip, rip, l->width);
    mmu_sys_store(c, base + l->eflags, flags, l->width);
    for (unsigned i = 0; i < 8; i++)
        mmu_sys_store(c, base + l->gpr + i * l->width, st->gpr[i], l->width);
    for (unsigned i = 0; i < l->n_seg; i++)
        mmu_sys_store(c, base + l->seg + i * l->width, st->seg[i].sel, 2);
}

/* The new task's registers, read before anything changes. */
struct new_task {
    uint64_t cr3, eip, eflags, gpr[8];
    uint16_t seg[X86_N_SEG], ldt;
    bool trap;
};

static void read_new(struct interp *c, const struct layout *l, uint64_t base, struct new_task *t)
{
    *t = (struct new_task){0};
    if (l->cr3)
        t->cr3 = mmu_sys_load(c, base + l->cr3, 4);
    t->eip = mmu_sys_load(c, base + l->eip, l->width);
    t->eflags = mmu_sys_load(c, base + l->eflags, l->width);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = mmu_sys_load(c, base + l->gpr + i * l->width, l->width) | l->gpr_high;
    for (unsigned i = 0; i < l->n_seg; i++)
        t->seg[i] = (uint16_t)mmu_sys_load(c, base + l->seg + i * l->width, 2);
    t->ldt = (uint16_t)mmu_sys_load(c, base + l->ldt, 2);
    if (l->trap)
        t->trap = mmu_sys_load(c, base + l->trap, 2) & 1;
}

/* ---- the new task's segments: checked in its own context (SDM Vol. 3A table 7-1) ---- */

static void load_ldt(struct interp *c, uint16_t sel)
{
    struct seg_desc d;

    c->st.ldtr = (struct x86_seg){.sel = sel};
    if (!(sel & ~3u))
        return;
    if ((sel & 4) || !seg_desc_read(c, sel, &d) || (d.attr & (X86_SEG_S | X86_SEG_TYPE)) != 2 || !(d.attr & X86_SEG_P))
        interp_raise_error(c, X86_TS, sel & ~3u);
    c->st.ldtr = seg_from_desc(&d, sel);
}

static void load_cs(struct interp *c, uint16_t sel)
{
    uint32_t error = sel & ~3u;
    unsigned rpl = sel & 3u;
    struct seg_desc d;
    bool conforming;

    if (!seg_desc_read(c, sel, &d) || (d.attr & (X86_SEG_S | X86_SEG_CODE)) != (X86_SEG_S | X86_SEG_CODE))
        interp_raise_error(c, X86_TS, error);
    conforming = d.attr & X86_SEG_DC;
    if (conforming ? seg_dpl(&d) > rpl : seg_dpl(&d) != rpl)
        interp_raise_error(c, X86_TS, error);
    if (!(d.attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, error);
    seg_desc_accessed(c, &d);
    c->st.seg[X86_CS] = seg_from_desc(&d, sel);
}

static void load_ss(struct interp *c, uint16_t sel)
{
    struct seg_desc d;

    seg_check_stack(c, sel, c->st.seg[X86_CS].sel & 3u, X86_TS, &d);
    seg_desc_accessed(c, &d);
    c->st.seg[X86_SS] = seg_from_desc(&d, sel);
}

static void load_data(struct interp *c, unsigned seg, uint16_t sel)
{
    uint32_t error = sel & ~3u;
    unsigned cpl = x86_cpl(&c->st), rpl = sel & 3u;
    struct seg_desc d;
    bool code;

    if (!error)
        return;
    if (!seg_desc_read(c, sel, &d) || !(d.attr & X86_SEG_S))
        interp_raise_error(c, X86_TS, error);
    code = d.attr & X86_SEG_CODE;
    if (code && !(d.attr & X86_SEG_WRITE))
        interp_raise_error(c, X86_TS, error);
    if (!(code && (d.attr & X86_SEG_DC)) && (seg_dpl(&d) < cpl || seg_dpl(&d) < rpl))
        interp_raise_error(c, X86_TS, error);
    if (!(d.attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, error);
    seg_desc_accessed(c, &d);
    c->st.seg[seg] = seg_from_desc(&d, sel);
}

static void load_segments(struct interp *c, const struct new_task *t)
{
    struct x86_state *st = &c->st;
    bool v86 = st->rflags & X86_FLAG_VM;

    /* Visible parts first; until its descriptor is loaded, a register can not be used. */
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){.sel = t->seg[i]};
    st->seg[X86_SS].attr = v86 ? X86_SEG_DPL : (uint16_t)((t->seg[X86_CS] & 3u) << X86_SEG_DPL_SHIFT);
    mmu_mode_changed(c);
    load_ldt(c, t->ldt);
    if (v86) {
        for (unsigned i = 0; i < X86_N_SEG; i++)
            seg_load_real(c, i, t->seg[i]);
    } else {
        load_cs(c, t->seg[X86_CS]);
        load_ss(c, t->seg[X86_SS]);
        mmu_mode_changed(c);
        load_data(c, X86_DS, t->seg[X86_DS]);
        load_data(c, X86_ES, t->seg[X86_ES]);
        load_data(c, X86_FS, t->seg[X86_FS]);
        load_data(c, X86_GS, t->seg[X86_GS]);
    }
    mmu_mode_changed(c);
}

static void load_cr3(struct interp *c, uint64_t cr3)
{
    struct x86_state *st = &c->st;

    if (!(st->cr0 & X86_CR0_PG))
        return;
    st->cr3 = cr3;
    mmu_flush_nonglobal(c, MMU_ALL_SPACES);
    if ((st->cr4 & X86_CR4_PAE) && paging_load_pdpte(c->conf.ram, cr3, c->conf.cpuid->conf.phys_bits, c->st.pdpte) < 0)
        interp_raise_error(c, X86_GP, 0);
}

void task_switch(struct interp *c, uint16_t sel, struct seg_desc *d, enum task_cause cause, uint64_t rip,
                 uint64_t flags)
{
    struct x86_state *st = &c->st;
    const struct layout *l = layout_of(d->attr);
    uint16_t old_sel = st->tr.sel;
    struct new_task t;
    bool nested = cause == TASK_CALL || cause == TASK_EVENT;

    if (!(d->attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, sel & ~3u);
    if (d->limit < l->min_limit)
        interp_raise_error(c, X86_TS, sel & ~3u);
    /* Page faults of both TSSs and both descriptors belong to the old task (SDM Vol. 3A 7.3, step 5). */
    mmu_sys_check(c, st->tr.base, layout_of(st->tr.attr)->min_limit + 1, true);
    mmu_sys_check(c, d->base, l->min_limit + 1, nested);
    mmu_sys_check(c, d->lin, 8, true);
    mmu_sys_check(c, st->gdtr.base + (old_sel & ~7u), 8, true);

    if (cause == TASK_IRET)
        flags &= ~(uint64_t)X86_FLAG_NT;
    if (!nested)
        set_busy(c, st->gdtr.base + (old_sel & ~7u), false);
    save_old(c, rip, flags);
    read_new(c, l, d->base, &t);
    if (nested) {
        mmu_sys_store(c, d->base, old_sel, 2);
        t.eflags |= X86_FLAG_NT;
    }
    if (cause != TASK_IRET)
        set_busy(c, d->lin, true);

    /* The new task is the current one from here: faults are its own. */
    c->cur = NULL;
    st->tr = seg_from_desc(d, sel);
    st->tr.attr |= 2;
    st->cr0 |= X86_CR0_TS;
    st->dr7 &= ~UINT64_C(0x155); /* L0-L3, LE */
    st->rflags = (t.eflags & 0x3f7fd5) | X86_FLAG_FIXED;
    st->rip = t.eip;
    for (unsigned i = 0; i < 8; i++)
        st->gpr[i] = t.gpr[i];
    if (l->cr3)
        load_cr3(c, t.cr3);
    load_segments(c, &t);
    c->attention |= ATTN_RECHECK;
    if (!(st->rflags & X86_FLAG_VM) && st->rip > st->seg[X86_CS].limit)
        interp_raise_error(c, X86_GP, 0);
    if (t.trap)
        c->debug_hit |= DR6_BT;
    fault_update_step(c);
}

void task_gate_event(struct interp *c, uint16_t sel, uint64_t rip, bool set_rf, bool has_error, uint32_t error)
{
    uint64_t flags = c->st.rflags | (set_rf ? X86_FLAG_RF : 0);
    struct seg_desc d;
    unsigned type;

    if ((sel & 4) || !seg_desc_read(c, sel, &d))
        interp_raise_error(c, X86_GP, sel & ~3u);
    type = d.attr & (X86_SEG_S | X86_SEG_TYPE);
    if (type != TASK_TSS16 && type != TASK_TSS32)
        interp_raise_error(c, X86_GP, sel & ~3u);
    task_switch(c, sel, &d, TASK_EVENT, rip, flags);
    if (has_error)
        stack_push(c, layout_of(c->st.tr.attr)->width, error);
}

void task_return(struct interp *c, uint64_t next_rip)
{
    struct seg_desc d;
    uint16_t sel = (uint16_t)mmu_sys_load(c, c->st.tr.base, 2);
    unsigned type;

    if ((sel & 4) || !seg_desc_read(c, sel, &d))
        interp_raise_error(c, X86_TS, sel & ~3u);
    type = d.attr & (X86_SEG_S | X86_SEG_TYPE);
    if (type != TASK_TSS16_BUSY && type != TASK_TSS32_BUSY)
        interp_raise_error(c, X86_TS, sel & ~3u);
    task_switch(c, sel, &d, TASK_IRET, next_rip, c->st.rflags);
}
