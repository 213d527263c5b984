/* See fault.h. */
#include "engine/interp/fault.h"

#include "engine/interp/debugger.h"
#include "engine/interp/seg.h"
#include "engine/interp/task.h"

/* Error code bits for selectors (SDM Vol. 3A 6.13) */
#define ERROR_EXT 1u
#define ERROR_IDT 2u

#define DR6_BD     (1u << 13)
#define DR7_ENABLE 0xffu

/* An event to deliver through the IDT. */
struct event {
    uint8_t vector;
    enum fault_source source;
    bool has_error;
    uint32_t error;
    uint64_t rip; /* to return to */
    bool set_rf;  /* in the pushed flags */
};

/* ---- raising ---- */

_Noreturn static void unwind(struct interp *c)
{
    if (c->cur)
        c->st.rip = c->block_rip + c->cur->off;
    if (c->code_size != 8)
        c->st.rip = (uint32_t)c->st.rip;
    longjmp(c->unwind, 1);
}

static bool pushes_error(unsigned vector)
{
    return vector == X86_DF || (vector >= X86_TS && vector <= X86_PF) || vector == X86_AC;
}

void interp_raise(struct interp *c, enum x86_vector vector)
{
    interp_raise_error(c, vector, 0);
}

void interp_raise_error(struct interp *c, enum x86_vector vector, uint32_t error)
{
    if (vector >= X86_TS && vector <= X86_GP)
        error |= c->fault_ext;
    c->fault.vector = (uint8_t)vector;
    c->fault.has_error = pushes_error(vector);
    c->fault.error = error;
    c->fault.dr6 = 0;
    unwind(c);
}

void interp_raise_page_fault(struct interp *c, uint64_t lin, uint32_t error)
{
    c->fault.cr2 = lin;
    interp_raise_error(c, X86_PF, error);
}

void interp_raise_debug(struct interp *c, uint64_t dr6)
{
    c->fault.vector = X86_DB;
    c->fault.has_error = false;
    c->fault.error = 0;
    c->fault.dr6 = dr6;
    unwind(c);
}

/* ---- delivery in real-address mode (SDM Vol. 3B 20.1.4) ---- */

static void deliver_real(struct interp *c, const struct event *ev)
{
    struct x86_state *st = &c->st;
    uint32_t vector;

    if (ev->vector * 4u + 3 > st->idtr.limit)
        interp_raise_error(c, X86_GP, 0);
    vector = (uint32_t)mmu_sys_load(c, st->idtr.base + ev->vector * 4u, 4);
    stack_poke(c, -2, 2, st->rflags);
    stack_poke(c, -4, 2, st->seg[X86_CS].sel);
    stack_poke(c, -6, 2, ev->rip);
    stack_move(c, -6);
    st->rflags &= ~(uint64_t)(X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_AC | X86_FLAG_RF);
    seg_load_real(c, X86_CS, (uint16_t)(vector >> 16));
    st->rip = vector & 0xffff;
}

/* ---- delivery through a gate (SDM Vol. 2A, INT n; Vol. 3A 6.12, 6.14) ---- */

struct gate {
    unsigned type;
    unsigned dpl;
    uint16_t sel;
    uint64_t offset;
    unsigned ist;
    unsigned size;  /* of what is pushed: 2, 4 or 8 */
    bool interrupt; /* clears IF */
};

enum { GATE_TASK = 5, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT32 = 14, GATE_TRAP32 = 15 };

static bool gate_type_valid(unsigned type, bool long_mode)
{
    if (type == GATE_INT32 || type == GATE_TRAP32)
        return true;
    return !long_mode && (type == GATE_TASK || type == GATE_INT16 || type == GATE_TRAP16);
}

static void read_gate(struct interp *c, const struct event *ev, struct gate *g)
{
    struct x86_state *st = &c->st;
    bool long_mode = x86_long_mode(st), soft = ev->source == FAULT_SOFT;
    unsigned size = long_mode ? 16 : 8;
    uint32_t error = ev->vector * 8u + ERROR_IDT;
    uint64_t raw, high = 0;
    bool s_bit;

    if (ev->vector * size + size - 1 > st->idtr.limit)
        interp_raise_error(c, X86_GP, error);
    raw = mmu_sys_load(c, st->idtr.base + ev->vector * size, 8);
    if (long_mode)
        high = mmu_sys_load(c, st->idtr.base + ev->vector * size + 8, 8);
    g->type = (raw >> 40) & 0xf;
    s_bit = raw >> 44 & 1;
    g->dpl = (raw >> 45) & 3;
    if (s_bit || !gate_type_valid(g->type, long_mode))
        interp_raise_error(c, X86_GP, error);
    if (soft && g->dpl < x86_cpl(st))
        interp_raise_error(c, X86_GP, error);
    if (!(raw >> 47 & 1))
        interp_raise_error(c, X86_NP, error);

    g->sel = (uint16_t)(raw >> 16);
    g->ist = long_mode ? (raw >> 32) & 7 : 0;
    g->size = long_mode ? 8 : g->type & 8 ? 4 : 2;
    g->offset = (raw & 0xffff) | (g->size >= 4 ? (raw >> 32) & 0xffff0000 : 0) | high << 32;
    g->interrupt = !(g->type & 1);
}

/* Which stack the handler gets (SDM Vol. 3A 6.12.1, 6.14.4). */
static void stack_from_gate(struct interp *c, const struct gate *g, unsigned cpl, bool inner, struct task_stack *ns)
{
    struct x86_state *st = &c->st;

    ns->cpl = cpl;
    ns->switched = inner || g->ist;
    ns->ss = st->seg[X86_SS];
    ns->rsp = st->gpr[X86_RSP];
    if (x86_long_mode(st)) {
        if (ns->switched)
            ns->rsp = task_rsp(c, g->ist ? 3 + g->ist : cpl);
        if (inner)
            ns->ss = (struct x86_seg){.sel = (uint16_t)cpl, .attr = (uint16_t)(cpl << X86_SEG_DPL_SHIFT)};
        ns->rsp &= ~UINT64_C(15);
        ns->mask = UINT64_MAX;
        return;
    }
    if (inner)
        task_stack_inner(c, cpl, ns);
    else
        ns->mask = ns->ss.attr & X86_SEG_DB ? 0xffffffffu : 0xffffu;
}

/* The handler's code segment; returns the CPL it runs at. */
static unsigned check_handler(struct interp *c, const struct gate *g, struct seg_desc *cs)
{
    struct x86_state *st = &c->st;
    uint32_t error = g->sel & ~3u;
    unsigned cpl = x86_cpl(st), new_cpl;

    if (!error)
        interp_raise_error(c, X86_GP, 0);
    if (!seg_desc_read(c, g->sel, cs))
        interp_raise_error(c, X86_GP, error);
    if ((cs->attr & (X86_SEG_S | X86_SEG_CODE)) != (X86_SEG_S | X86_SEG_CODE) || seg_dpl(cs) > cpl)
        interp_raise_error(c, X86_GP, error);
    if (x86_long_mode(st) && (cs->attr & (X86_SEG_L | X86_SEG_DB)) != X86_SEG_L)
        interp_raise_error(c, X86_GP, error);
    if (!(cs->attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, error);
    new_cpl = cs->attr & X86_SEG_DC ? cpl : seg_dpl(cs);
    if ((st->rflags & X86_FLAG_VM) && new_cpl != 0)
        interp_raise_error(c, X86_GP, error);
    return new_cpl;
}

static void deliver_gate(struct interp *c, const struct event *ev, const struct gate *g)
{
    struct x86_state *st = &c->st;
    bool v86 = st->rflags & X86_FLAG_VM;
    struct seg_desc cs;
    struct task_stack ns = {0};
    uint64_t val[10], flags = st->rflags | (ev->set_rf ? X86_FLAG_RF : 0);
    unsigned n = 0, cpl = check_handler(c, g, &cs);
    bool inner = cpl < x86_cpl(st);

    stack_from_gate(c, g, cpl, inner, &ns);
    if (v86) {
        static const uint8_t order[] = {X86_GS, X86_FS, X86_DS, X86_ES};
        for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
            val[n++] = st->seg[order[i]].sel;
    }
    if (inner || g->size == 8) {
        val[n++] = st->seg[X86_SS].sel;
        val[n++] = st->gpr[X86_RSP];
    }
    val[n++] = flags;
    val[n++] = st->seg[X86_CS].sel;
    val[n++] = c->code_size == 8 ? ev->rip : (uint32_t)ev->rip; /* behind 4 GiB comes 0 */
    if (ev->has_error)
        val[n++] = ev->error;
    if (g->size == 8 ? !seg_canonical(g->offset) : g->offset > cs.limit)
        interp_raise_error(c, X86_GP, 0);
    task_stack_push(c, &ns, g->size, val, n);
    seg_desc_accessed(c, &cs);

    /* From here nothing faults. */
    st->rflags &= ~(uint64_t)(X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM | (g->interrupt ? X86_FLAG_IF : 0));
    st->seg[X86_CS] = seg_from_desc(&cs, (uint16_t)((g->sel & ~3u) | cpl));
    st->seg[X86_SS] = ns.ss;
    st->gpr[X86_RSP] = ns.rsp;
    st->rip = g->offset;
    if (v86)
        for (unsigned seg = 0; seg < X86_N_SEG; seg++)
            if (seg != X86_CS && seg != X86_SS)
                seg_load_null(c, seg, 0);
}

/* One attempt at an event; what goes wrong is raised, with the state unchanged (but for task switches, which commit first). */
static void deliver(struct interp *c, const struct event *ev)
{
    struct gate g;

    c->fault_ext = ev->source == FAULT_SOFT ? 0 : ERROR_EXT;
    if (!(c->st.cr0 & X86_CR0_PE)) {
        deliver_real(c, ev);
    } else {
        read_gate(c, ev, &g);
        if (g.type == GATE_TASK)
            task_gate_event(c, g.sel, ev->rip, ev->set_rf, ev->has_error, ev->error);
        else
            deliver_gate(c, ev, &g);
    }
    c->fault_ext = 0;
    c->cur = NULL;
    c->step_tf = false; /* entering a handler clears TF: INT n does not trap (SDM Vol. 3B 17.3.1.4) */
    c->st.sti_shadow = c->st.movss_shadow = false;
    c->attention |= ATTN_RECHECK;
    mmu_mode_changed(c);
}

/* ---- nested faults (SDM Vol. 3A 6.15, interrupt 8) ---- */

static bool contributory(unsigned vector)
{
    return vector == X86_DE || (vector >= X86_TS && vector <= X86_GP);
}

/* What is due in c->fault, as an event at the current RIP; what the exception changes besides happens here. */
static struct event take_fault(struct interp *c)
{
    struct x86_state *st = &c->st;
    struct event ev = {.vector = c->fault.vector,
                       .source = FAULT_EXCEPTION,
                       .has_error = c->fault.has_error,
                       .error = c->fault.error,
                       .rip = st->rip};

    c->cur = NULL;
    interp_exit(c, ENGINE_EXIT_EXCEPTION, ev.vector);
    c->debug_hit = 0;
    if (ev.vector == X86_PF)
        st->cr2 = c->fault.cr2;
    if (ev.vector == X86_DB) {
        st->dr6 = (st->dr6 & ~UINT64_C(0xf)) | c->fault.dr6;
        ev.set_rf = c->fault.dr6 & DR6_BD; /* the others are traps, or code breakpoints, which push RF as it is */
        st->dr7 &= ~UINT64_C(0x2000);      /* GD: the handler may use the registers (SDM Vol. 3B 17.2.4) */
    } else {
        /* All other exceptions raised here are faults, but for #DF's abort and the traps of fault_soft(). */
        ev.set_rf = ev.vector != X86_DF;
    }
    if (!(st->cr0 & X86_CR0_PE))
        ev.has_error = false; /* real-address mode pushes none */
    return ev;
}

/* Delivers ev, then the faults of that, until one succeeds. */
static bool deliver_all(struct interp *c, struct event ev, bool benign)
{
    jmp_buf outer;
    volatile unsigned first = benign ? X86_NMI : ev.vector;
    struct event *volatile next = &ev;

    memcpy(outer, c->unwind, sizeof(outer));
    while (setjmp(c->unwind)) {
        unsigned second = c->fault.vector;
        bool is_double = (contributory(first) && contributory(second)) ||
                         (first == X86_PF && (contributory(second) || second == X86_PF));
        if (first == X86_DF && (contributory(second) || second == X86_PF)) {
            memcpy(c->unwind, outer, sizeof(outer));
            c->fault_ext = 0;
            return false;
        }
        if (is_double) {
            if (second == X86_PF)
                c->st.cr2 = c->fault.cr2;
            c->fault.vector = X86_DF;
            c->fault.has_error = true;
            c->fault.error = 0;
        }
        *next = take_fault(c);
        first = next->vector;
    }
    deliver(c, next);
    memcpy(c->unwind, outer, sizeof(outer));
    return true;
}

bool fault_deliver(struct interp *c)
{
    return deliver_all(c, take_fault(c), false);
}

bool fault_interrupt(struct interp *c, uint8_t vector)
{
    struct event ev = {.vector = vector, .source = FAULT_EXTERNAL, .rip = c->st.rip};

    c->cur = NULL;
    return deliver_all(c, ev, true);
}

bool fault_nmi(struct interp *c)
{
    struct event ev = {.vector = X86_NMI, .source = FAULT_EXTERNAL, .rip = c->st.rip};

    c->cur = NULL;
    c->st.nmi_blocked = true;
    return deliver_all(c, ev, true);
}

void fault_soft(struct interp *c, uint8_t vector, enum fault_source source, uint64_t next_rip)
{
    struct event ev = {.vector = vector, .source = source, .rip = next_rip};

    deliver(c, &ev);
    if (source == FAULT_INT1) { /* what was due already, held off by a MOV SS, is told by the same exception */
        c->st.dr6 |= c->debug_hit;
        c->debug_hit = 0;
    }
}

/* ---- debug registers (SDM Vol. 3B 17.2, 17.3) ---- */

uint32_t fault_breakpoints(const struct interp *c, uint64_t addr, unsigned len, unsigned types)
{
    static const uint8_t length[4] = {1, 2, 8, 4};
    uint32_t hit = 0;

    if (!(c->st.cr4 & X86_CR4_DE))
        types &= ~(unsigned)DEBUG_IO;
    for (unsigned i = 0; i < 4; i++) {
        unsigned control = (c->st.dr7 >> (16 + 4 * i)) & 15;
        uint64_t size = length[control >> 2], first = c->st.dr[i] & ~(size - 1);
        bool enabled = c->st.dr7 >> (2 * i) & 3;
        if (enabled && (types >> (control & 3) & 1) && (first - addr < len || addr - first < size))
            hit |= 1u << i;
    }
    return hit;
}

bool fault_steps(const struct interp *c)
{
    const struct x86_state *st = &c->st;

    return (st->rflags & (X86_FLAG_TF | X86_FLAG_RF)) || (st->dr7 & DR7_ENABLE) || st->sti_shadow || st->movss_shadow ||
           c->debug_hit;
}

void fault_update_step(struct interp *c)
{
    if (fault_steps(c) || debugger_slows(c))
        c->attention |= ATTN_STEP;
    else
        c->attention &= ~(uint32_t)ATTN_STEP;
}

void fault_step_begin(struct interp *c)
{
    struct x86_state *st = &c->st;
    uint32_t hit;

    c->cur = NULL;
    c->step_tf = st->rflags & X86_FLAG_TF;
    c->step_rf = st->rflags & X86_FLAG_RF;
    c->step_sti = st->sti_shadow;
    c->step_movss = st->movss_shadow;
    if (c->debug_hit && !st->movss_shadow) { /* a trap still due: a task switch with the T flag, SYSRET */
        uint64_t dr6 = c->debug_hit;
        c->debug_hit = 0;
        interp_raise_debug(c, dr6);
    }
    if ((st->dr7 & DR7_ENABLE) && !(st->rflags & X86_FLAG_RF) && !st->movss_shadow) {
        hit = fault_breakpoints(c, interp_linear_rip(c), 1, DEBUG_EXEC);
        if (hit)
            interp_raise_debug(c, hit);
    }
}

void fault_step_repeats(struct interp *c)
{
    if (!(c->attention & ATTN_STEP))
        return;
    c->st.rflags |= X86_FLAG_RF;
    c->step_rf = false;
}

void fault_step(struct interp *c)
{
    struct x86_state *st = &c->st;
    uint64_t dr6 = 0;

    c->cur = NULL;
    if (c->step_sti)
        st->sti_shadow = false;
    if (c->step_movss)
        st->movss_shadow = false;
    if (c->step_rf) /* set by this very instruction (IRET) it holds for the next */
        st->rflags &= ~(uint64_t)X86_FLAG_RF;
    if (!st->movss_shadow) {
        dr6 = c->debug_hit;
        c->debug_hit = 0;
        if (c->step_tf)
            dr6 |= DR6_BS;
    }
    c->step_tf = c->step_rf = c->step_sti = c->step_movss = false;
    fault_update_step(c);
    if (!dr6)
        return;
    st->activity = X86_RUNNING; /* a trap ends the halt of its HLT (SDM Vol. 2A, HLT) */
    interp_raise_debug(c, dr6);
}
