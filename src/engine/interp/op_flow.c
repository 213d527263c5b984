/*
 * Near control flow: JMP, Jcc, CALL, RET, LOOPcc, JCXZ; and what does nothing or only raises: NOP, PAUSE, prefetches, fences, cache
 * line flushes, UD, BOUND. Far transfers are op_far.c's.
 *
 * In 64-bit mode the operand size of near branches is 64 bits whatever the prefix says (SDM Vol. 2A 2.2.1.7). Elsewhere the
 * target is cut to the operand size and checked against the code segment's limit. Either check comes before anything changes.
 */
#include <sched.h>

#include "engine/interp/cond.h"

/*
 * PAUSEs no further apart than PAUSE_GAP instructions are a loop that waits for another vCPU. After PAUSE_SPINS of them (some 10 us) the
 * host's CPU is offered to others: with more vCPUs than host CPUs, what is waited for may not be running at all.
 */
#define PAUSE_GAP   64
#define PAUSE_SPINS 512

OP_INLINE uint64_t check64(struct interp *c, uint64_t target)
{
    if (UNLIKELY(!seg_canonical(target)))
        interp_raise_error(c, X86_GP, 0);
    return target;
}

static uint64_t check_legacy(struct interp *c, const struct insn *in, uint64_t target)
{
    target = in->size == 2 ? (uint16_t)target : (uint32_t)target;
    if (target > c->st.seg[X86_CS].limit)
        interp_raise_error(c, X86_GP, 0);
    return target;
}

OP_INLINE uint64_t relative64(struct interp *c, const struct insn *in)
{
    return check64(c, interp_next_rip(c, in) + in->imm);
}

static uint64_t relative_legacy(struct interp *c, const struct insn *in)
{
    return check_legacy(c, in, interp_next_rip(c, in) + in->imm);
}

static bool is64(const struct x86_insn *xi)
{
    return xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
}

static bool is_far(const struct x86_insn *xi)
{
    return xi->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

/* A register or memory operand of in->size bytes, zero-extended. */
static uint64_t load_reg(struct interp *c, const struct insn *in)
{
    return reg_get64(c, in->rm) & ones_mask(in->size);
}

static uint64_t load_mem(struct interp *c, const struct insn *in)
{
    uint64_t lin = insn_lin(c, in, in->size, false);
    if (in->size == 8)
        return mmu_load64(c, lin);
    return in->size == 4 ? mmu_load32(c, lin) : mmu_load16(c, lin);
}

/* ---- JMP ---- */

static void jmp64(struct interp *c, const struct insn *in)
{
    c->st.rip = relative64(c, in);
}

static void jmp_legacy(struct interp *c, const struct insn *in)
{
    c->st.rip = relative_legacy(c, in);
}

static void jmp64_r(struct interp *c, const struct insn *in)
{
    c->st.rip = check64(c, reg_get64(c, in->rm));
}

static void jmp64_m(struct interp *c, const struct insn *in)
{
    c->st.rip = check64(c, mem_load64(c, in));
}

static void jmp_legacy_r(struct interp *c, const struct insn *in)
{
    c->st.rip = check_legacy(c, in, load_reg(c, in));
}

static void jmp_legacy_m(struct interp *c, const struct insn *in)
{
    c->st.rip = check_legacy(c, in, load_mem(c, in));
}

static interp_fn bind_jmp(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    if (is_far(xi))
        return NULL;
    if (bind_is_imm(&xi->op[0]))
        return is64(xi) ? jmp64 : jmp_legacy;
    if (bind_is_mem(&xi->op[0]))
        return is64(xi) ? jmp64_m : jmp_legacy_m;
    return is64(xi) ? jmp64_r : jmp_legacy_r;
}

/* ---- CALL ---- */

static void call64(struct interp *c, const struct insn *in)
{
    uint64_t target = relative64(c, in);
    stack_push(c, 8, interp_next_rip(c, in));
    c->st.rip = target;
}

static void call64_r(struct interp *c, const struct insn *in)
{
    uint64_t target = check64(c, reg_get64(c, in->rm));
    stack_push(c, 8, interp_next_rip(c, in));
    c->st.rip = target;
}

static void call64_m(struct interp *c, const struct insn *in)
{
    uint64_t target = check64(c, mem_load64(c, in));
    stack_push(c, 8, interp_next_rip(c, in));
    c->st.rip = target;
}

static void call_legacy_to(struct interp *c, const struct insn *in, uint64_t target)
{
    target = check_legacy(c, in, target);
    stack_push(c, in->size, interp_next_rip(c, in) & ones_mask(in->size));
    c->st.rip = target;
}

static void call_legacy(struct interp *c, const struct insn *in)
{
    call_legacy_to(c, in, interp_next_rip(c, in) + in->imm);
}

static void call_legacy_r(struct interp *c, const struct insn *in)
{
    call_legacy_to(c, in, load_reg(c, in));
}

static void call_legacy_m(struct interp *c, const struct insn *in)
{
    call_legacy_to(c, in, load_mem(c, in));
}

static interp_fn bind_call(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    if (is_far(xi))
        return NULL;
    if (bind_is_imm(&xi->op[0]))
        return is64(xi) ? call64 : call_legacy;
    if (bind_is_mem(&xi->op[0]))
        return is64(xi) ? call64_m : call_legacy_m;
    return is64(xi) ? call64_r : call_legacy_r;
}

/* ---- RET; imm: bytes of arguments to drop ---- */

static void ret64(struct interp *c, const struct insn *in)
{
    uint64_t rsp = c->st.gpr[X86_RSP], target = stack_pop(c, 8);

    if (UNLIKELY(!seg_canonical(target))) {
        c->st.gpr[X86_RSP] = rsp;
        interp_raise_error(c, X86_GP, 0);
    }
    c->st.gpr[X86_RSP] += in->imm;
    c->st.rip = target;
}

static void ret_legacy(struct interp *c, const struct insn *in)
{
    uint64_t target = check_legacy(c, in, stack_peek(c, 0, in->size));
    stack_move(c, in->size + (int64_t)in->imm);
    c->st.rip = target;
}

static interp_fn bind_ret(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    if (is_far(xi))
        return NULL;
    in->imm &= 0xffff;
    return is64(xi) ? ret64 : ret_legacy;
}

/* ---- Jcc ---- */

#define JCC(cc, test)                                                                                      \
    static void j##cc##_64(struct interp *c, const struct insn *in)                                        \
    {                                                                                                      \
        if (cond_##cc(c))                                                                                  \
            c->st.rip = relative64(c, in);                                                                 \
    }                                                                                                      \
    static void j##cc##_legacy(struct interp *c, const struct insn *in)                                    \
    {                                                                                                      \
        if (cond_##cc(c))                                                                                  \
            c->st.rip = relative_legacy(c, in);                                                            \
    }                                                                                                      \
    static interp_fn bind_j##cc(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                      \
        return is64(xi) ? j##cc##_64 : j##cc##_legacy;                                                     \
    }
COND_LIST(JCC)

/* ---- LOOPcc and JCXZ: the address size chooses CX, ECX or RCX ---- */

static void branch(struct interp *c, const struct insn *in, bool taken)
{
    if (taken)
        c->st.rip = c->code_size == 8 ? relative64(c, in) : relative_legacy(c, in);
}

static void count_set(struct interp *c, const struct insn *in, uint64_t v)
{
    if (in->addr == 2)
        reg_set16(c, INTERP_GPR(X86_RCX), (uint16_t)v);
    else
        c->st.gpr[X86_RCX] = v;
}

#define LOOP(name, condition)                                                                               \
    static void name(struct interp *c, const struct insn *in)                                               \
    {                                                                                                       \
        uint64_t count = (c->st.gpr[X86_RCX] - 1) & ones_mask(in->addr);                                    \
        branch(c, in, count != 0 && (condition));                                                           \
        count_set(c, in, count);                                                                            \
    }                                                                                                       \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return name;                                                                                        \
    }
LOOP(loop, true)
LOOP(loope, flag(c, X86_FLAG_ZF))
LOOP(loopne, !flag(c, X86_FLAG_ZF))

static void jcxz(struct interp *c, const struct insn *in)
{
    branch(c, in, (c->st.gpr[X86_RCX] & ones_mask(in->addr)) == 0);
}

static interp_fn bind_jcxz(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return jcxz;
}

/* ---- nothing at all, and hints ---- */

static void nop(struct interp *c, const struct insn *in)
{
}

static void fence(struct interp *c, const struct insn *in)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void pause_insn(struct interp *c, const struct insn *in)
{
    if (c->engine->n_vcpus == 1)
        return;
    if (c->n_insn - c->paused_at > PAUSE_GAP)
        c->n_pauses = 0;
    c->paused_at = c->n_insn;
    if (++c->n_pauses == PAUSE_SPINS) {
        c->n_pauses = 0;
        sched_yield();
    }
}

/* CLFLUSH, CLFLUSHOPT, CLWB: caches need no help here, but the address faults as a byte's load does. */
static void clflush(struct interp *c, const struct insn *in)
{
    mmu_check_read(c, insn_lin(c, in, 1, false), 1);
}

static interp_fn bind_nop(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return nop;
}

static interp_fn bind_pause(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return pause_insn;
}

static interp_fn bind_fence(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return fence;
}

static interp_fn bind_clflush(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return clflush;
}

/* ---- BOUND: signed index against a pair of bounds ---- */

static void bound(struct interp *c, const struct insn *in)
{
    uint64_t lin = insn_lin(c, in, 2u * in->size, false);
    int32_t index, lower, upper;

    if (in->size == 2) {
        index = (int16_t)reg_get16(c, in->reg);
        lower = (int16_t)mmu_load16(c, lin);
        upper = (int16_t)mmu_load16(c, (uint32_t)(lin + 2));
    } else {
        index = (int32_t)reg_get32(c, in->reg);
        lower = (int32_t)mmu_load32(c, lin);
        upper = (int32_t)mmu_load32(c, (uint32_t)(lin + 4));
    }
    if (index < lower || index > upper)
        interp_raise(c, X86_BR);
}

static interp_fn bind_bound(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return bound;
}

#define JCC_ENTRY(cc, test) {ZYDIS_MNEMONIC_J##cc, bind_j##cc},

/* UD0, UD1 and UD2 are in no table: #UD is what they are for. */
const struct bind_entry op_flow_binds[] = {
    {ZYDIS_MNEMONIC_JMP, bind_jmp},
    {ZYDIS_MNEMONIC_CALL, bind_call},
    {ZYDIS_MNEMONIC_RET, bind_ret},
    {ZYDIS_MNEMONIC_LOOP, bind_loop},
    {ZYDIS_MNEMONIC_LOOPE, bind_loope},
    {ZYDIS_MNEMONIC_LOOPNE, bind_loopne},
    {ZYDIS_MNEMONIC_JCXZ, bind_jcxz},
    {ZYDIS_MNEMONIC_JECXZ, bind_jcxz},
    {ZYDIS_MNEMONIC_JRCXZ, bind_jcxz},
    {ZYDIS_MNEMONIC_NOP, bind_nop},
    {ZYDIS_MNEMONIC_PAUSE, bind_pause},
    {ZYDIS_MNEMONIC_PREFETCHNTA, bind_nop},
    {ZYDIS_MNEMONIC_PREFETCHT0, bind_nop},
    {ZYDIS_MNEMONIC_PREFETCHT1, bind_nop},
    {ZYDIS_MNEMONIC_PREFETCHT2, bind_nop},
    {ZYDIS_MNEMONIC_PREFETCH, bind_nop},
    {ZYDIS_MNEMONIC_PREFETCHW, bind_nop},
    {ZYDIS_MNEMONIC_PREFETCHWT1, bind_nop},
    {ZYDIS_MNEMONIC_LFENCE, bind_fence},
    {ZYDIS_MNEMONIC_SFENCE, bind_fence},
    {ZYDIS_MNEMONIC_MFENCE, bind_fence},
    {ZYDIS_MNEMONIC_CLFLUSH, bind_clflush},
    {ZYDIS_MNEMONIC_CLFLUSHOPT, bind_clflush},
    {ZYDIS_MNEMONIC_CLWB, bind_clflush},
    {ZYDIS_MNEMONIC_BOUND, bind_bound},
    COND_LIST(JCC_ENTRY){0},
};
