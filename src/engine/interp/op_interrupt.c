/*
 * INT n, INT3, INTO, INT1 and IRET in every mode (SDM Vol. 2A), and the fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT
 * (Vol. 2B; Vol. 3A 5.8.7, 5.8.8).
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"
#include "engine/interp/fault.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"
#include "engine/interp/task.h"

static void entered(struct interp *c)
{
    c->attention |= ATTN_RECHECK;
    mmu_mode_changed(c);
}

static void op_int(struct interp *c, const struct insn *in)
{
    if ((c->st.rflags & X86_FLAG_VM) && system_iopl(&c->st) < 3)
        interp_raise_error(c, X86_GP, 0);
    fault_soft(c, (uint8_t)in->imm, FAULT_SOFT, interp_next_rip(c, in));
}

static void op_int3(struct interp *c, const struct insn *in)
{
    fault_soft(c, X86_BP, FAULT_SOFT, interp_next_rip(c, in));
}

static void op_into(struct interp *c, const struct insn *in)
{
    if (c->st.rflags & X86_FLAG_OF)
        fault_soft(c, X86_OF, FAULT_SOFT, interp_next_rip(c, in));
}

static void op_int1(struct interp *c, const struct insn *in)
{
    fault_soft(c, X86_DB, FAULT_INT1, interp_next_rip(c, in));
}

/* ---- IRET ---- */

static void set_flags(struct interp *c, uint64_t flags, uint64_t mask)
{
    c->st.rflags = (c->st.rflags & ~mask) | (flags & mask) | X86_FLAG_FIXED;
}

static uint64_t flags_mask(const struct interp *c, unsigned size)
{
    const struct x86_state *st = &c->st;
    uint64_t mask = SYSTEM_IRET_ALWAYS;

    if (size > 2)
        mask |= SYSTEM_IRET_WIDE;
    if (x86_cpl(st) <= system_iopl(st))
        mask |= X86_FLAG_IF;
    if (x86_cpl(st) == 0)
        mask |= X86_FLAG_IOPL | (size > 2 ? X86_FLAG_VIF | X86_FLAG_VIP : 0);
    return mask;
}

/* Real-address mode, and virtual-8086 mode with IOPL 3. */
static void iret_real(struct interp *c, unsigned size)
{
    struct x86_state *st = &c->st;
    uint64_t rip, flags, mask = SYSTEM_IRET_ALWAYS | X86_FLAG_IF | (size > 2 ? SYSTEM_IRET_WIDE : 0);
    uint16_t sel;

    if (st->rflags & X86_FLAG_VM) {
        if (system_iopl(st) < 3)
            interp_raise_error(c, X86_GP, 0);
    } else {
        mask |= X86_FLAG_IOPL;
    }
    rip = stack_peek(c, 0, size);
    sel = (uint16_t)stack_peek(c, size, size);
    flags = stack_peek(c, 2 * size, size);
    if (rip > st->seg[X86_CS].limit)
        interp_raise_error(c, X86_GP, 0);
    stack_move(c, 3 * (int64_t)size);
    seg_load_real(c, X86_CS, sel);
    st->rip = rip;
    set_flags(c, flags, mask);
}

static void iret_to_v86(struct interp *c, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const uint8_t order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    struct x86_state *st = &c->st;
    uint16_t sel[ARRAY_SIZE(order)], ss;
    uint64_t esp;

    esp = stack_peek(c, 12, 4);
    ss = (uint16_t)stack_peek(c, 16, 4);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        sel[i] = (uint16_t)stack_peek(c, 20 + 4 * i, 4);
    if (rip > 0xffff)
        interp_raise_error(c, X86_GP, 0);

    set_flags(c, flags,
              SYSTEM_IRET_ALWAYS | SYSTEM_IRET_WIDE | X86_FLAG_IF | X86_FLAG_IOPL | X86_FLAG_VM | X86_FLAG_VIF |
                  X86_FLAG_VIP);
    seg_load_real(c, X86_CS, cs);
    seg_load_real(c, X86_SS, ss);
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        seg_load_real(c, order[i], sel[i]);
    st->rip = rip;
    st->gpr[X86_RSP] = esp;
}

static void iret_protected(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    unsigned size = in->size;
    uint64_t rip, flags, rsp, mask;
    uint16_t sel;
    bool with_stack, long_code;
    struct seg_desc cs;
    struct x86_seg ss;

    if (st->rflags & X86_FLAG_NT) {
        if (x86_long_mode(st))
            interp_raise_error(c, X86_GP, 0);
        task_return(c, interp_next_rip(c, in));
        return;
    }
    rip = stack_peek(c, 0, size);
    sel = (uint16_t)stack_peek(c, size, size);
    flags = stack_peek(c, 2 * size, size);
    if (size == 4 && (flags & X86_FLAG_VM) && x86_cpl(st) == 0 && !x86_long_mode(st)) {
        iret_to_v86(c, rip, sel, flags);
        return;
    }

    system_return_check_cs(c, sel, &cs);
    long_code = x86_long_mode(st) && (cs.attr & X86_SEG_L);
    /* 64-bit code always gets its stack back, others when the level changes. */
    with_stack = c->code_size == 8 || (sel & 3u) != x86_cpl(st);
    if (with_stack) {
        rsp = stack_peek(c, 3 * size, size);
        ss = system_return_check_ss(c, (uint16_t)stack_peek(c, 4 * size, size), sel & 3u, &cs);
    } else {
        rsp = st->gpr[X86_RSP] + 3 * size;
        ss = st->seg[X86_SS];
    }
    if (long_code ? !seg_canonical(rip) : rip > cs.limit)
        interp_raise_error(c, X86_GP, 0);
    seg_desc_accessed(c, &cs);

    mask = flags_mask(c, size); /* by the level being left */
    if (with_stack) {
        system_return_commit(c, &cs, sel, rip, &ss, rsp);
    } else {
        stack_move(c, 3 * (int64_t)size);
        st->seg[X86_CS] = seg_from_desc(&cs, sel);
        st->rip = rip;
    }
    set_flags(c, flags, mask);
}

static void op_iret(struct interp *c, const struct insn *in)
{
    /* NMIs come again even if IRET faults (SDM Vol. 3A 6.7.1). */
    if (c->st.nmi_blocked)
        vcpu_port_unblock_nmi(c->conf.port);
    c->st.nmi_blocked = false;
    if (seg_real_style(&c->st))
        iret_real(c, in->size);
    else
        iret_protected(c, in);
    entered(c);
}

/* ---- fast system calls ---- */

static void op_syscall(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    uint16_t sel = (uint16_t)(st->star >> 32) & 0xfffc;

    if (c->code_size != 8 || !(st->efer & X86_EFER_SCE))
        interp_raise(c, X86_UD);
    st->gpr[X86_RCX] = interp_next_rip(c, in);
    st->gpr[X86_R11] = st->rflags & ~(uint64_t)X86_FLAG_RF;
    st->rflags = (st->rflags & ~(st->sfmask | X86_FLAG_RF)) | X86_FLAG_FIXED;
    st->rip = st->lstar;
    c->step_tf = st->rflags & X86_FLAG_TF; /* IA32_FMASK may have masked the trap of SYSCALL itself */
    system_flat_segments(&c->st, sel, (uint16_t)(sel + 8), 0, true);
    entered(c);
}

static void op_sysret(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    uint16_t sel = (uint16_t)(st->star >> 48);
    bool wide = in->size == 8;

    if (c->code_size != 8 || !(st->efer & X86_EFER_SCE))
        interp_raise(c, X86_UD);
    if (x86_cpl(st) || (wide && !seg_canonical(st->gpr[X86_RCX])))
        interp_raise_error(c, X86_GP, 0);
    st->rip = wide ? st->gpr[X86_RCX] : (uint32_t)st->gpr[X86_RCX];
    st->rflags = (st->gpr[X86_R11] & SYSTEM_SYSRET_FLAGS) | X86_FLAG_FIXED;
    /* Unlike IRET's and POPF's, its trap is that of the TF which it loads: it comes in front of the first instruction there. */
    c->step_tf = false;
    if (st->rflags & X86_FLAG_TF)
        c->debug_hit |= DR6_BS;
    system_flat_segments(&c->st, (uint16_t)(sel + (wide ? 16 : 0)) | 3, (uint16_t)(sel + 8) | 3, 3, wide);
    entered(c);
}

static void op_sysenter(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    uint16_t sel = (uint16_t)st->sysenter_cs & 0xfffc;
    bool long_mode = x86_long_mode(st);

    if (!(st->cr0 & X86_CR0_PE) || !sel)
        interp_raise_error(c, X86_GP, 0);
    st->rflags &= ~(uint64_t)(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
    st->gpr[X86_RSP] = long_mode ? st->sysenter_esp : (uint32_t)st->sysenter_esp;
    st->rip = long_mode ? st->sysenter_eip : (uint32_t)st->sysenter_eip;
    system_flat_segments(&c->st, sel, (uint16_t)(sel + 8), 0, long_mode);
    entered(c);
}

static void op_sysexit(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    uint16_t sel = (uint16_t)st->sysenter_cs & 0xfffc;
    bool wide = in->size == 8;
    uint64_t rip = st->gpr[X86_RDX], rsp = st->gpr[X86_RCX];

    if (!(st->cr0 & X86_CR0_PE) || !sel || x86_cpl(st))
        interp_raise_error(c, X86_GP, 0);
    if (wide && (!seg_canonical(rip) || !seg_canonical(rsp)))
        interp_raise_error(c, X86_GP, 0);
    sel = (uint16_t)(sel + (wide ? 32 : 16));
    st->rip = wide ? rip : (uint32_t)rip;
    st->gpr[X86_RSP] = wide ? rsp : (uint32_t)rsp;
    system_flat_segments(&c->st, sel | 3, (uint16_t)(sel + 8) | 3, 3, wide);
    entered(c);
}

/* ---- binding ---- */

#define BIND_PLAIN(name)                                                                                    \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return op_##name;                                                                                   \
    }
BIND_PLAIN(int)
BIND_PLAIN(int3)
BIND_PLAIN(into)
BIND_PLAIN(int1)
BIND_PLAIN(syscall)
BIND_PLAIN(sysenter)
#undef BIND_PLAIN

/* REX.W chooses 64 bits; without it the width is 32, whatever the mode's default is. */
static interp_fn bind_sysret(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool wide = xi->insn.attributes & ZYDIS_ATTRIB_HAS_REX && xi->insn.raw.rex.W;

    in->size = wide ? 8 : 4;
    return xi->insn.mnemonic == ZYDIS_MNEMONIC_SYSRET ? op_sysret : op_sysexit;
}

static interp_fn bind_iret(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->size = xi->insn.mnemonic == ZYDIS_MNEMONIC_IRET ? 2 : xi->insn.mnemonic == ZYDIS_MNEMONIC_IRETD ? 4 : 8;
    return op_iret;
}

const struct bind_entry op_interrupt_binds[] = {
    {ZYDIS_MNEMONIC_INT, bind_int},        {ZYDIS_MNEMONIC_INT3, bind_int3},
    {ZYDIS_MNEMONIC_INTO, bind_into},      {ZYDIS_MNEMONIC_INT1, bind_int1},
    {ZYDIS_MNEMONIC_IRET, bind_iret},      {ZYDIS_MNEMONIC_IRETD, bind_iret},
    {ZYDIS_MNEMONIC_IRETQ, bind_iret},     {ZYDIS_MNEMONIC_SYSCALL, bind_syscall},
    {ZYDIS_MNEMONIC_SYSRET, bind_sysret},  {ZYDIS_MNEMONIC_SYSENTER, bind_sysenter},
    {ZYDIS_MNEMONIC_SYSEXIT, bind_sysret}, {0, NULL},
};
