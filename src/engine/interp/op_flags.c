/*
 * CLI, STI, PUSHF, POPF, CLAC and STAC (SDM Vol. 2). Virtual-8086 and protected-mode virtual interrupts are not offered.
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"
#include "engine/interp/fault.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"

#define POPF_ALWAYS (X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT)

/* IF is for CPL <= IOPL; in virtual-8086 mode CPL is 3. */
static void need_iopl(struct interp *c)
{
    if ((c->st.cr0 & X86_CR0_PE) && x86_cpl(&c->st) > system_iopl(&c->st))
        interp_raise_error(c, X86_GP, 0);
}

static void op_cli(struct interp *c, const struct insn *in)
{
    need_iopl(c);
    c->st.rflags &= ~(uint64_t)X86_FLAG_IF;
    c->attention |= ATTN_RECHECK;
}

static void op_sti(struct interp *c, const struct insn *in)
{
    need_iopl(c);
    if (!(c->st.rflags & X86_FLAG_IF)) {
        c->st.rflags |= X86_FLAG_IF;
        c->st.sti_shadow = true;
        fault_update_step(c);
    }
    c->attention |= ATTN_RECHECK;
}

static void op_pushf(struct interp *c, const struct insn *in)
{
    if ((c->st.rflags & X86_FLAG_VM) && system_iopl(&c->st) < 3)
        interp_raise_error(c, X86_GP, 0);
    stack_push(c, in->size, c->st.rflags & ~(uint64_t)(X86_FLAG_RF | X86_FLAG_VM));
}

static void op_popf(struct interp *c, const struct insn *in)
{
    struct x86_state *st = &c->st;
    uint64_t mask = POPF_ALWAYS, v;

    if ((st->rflags & X86_FLAG_VM) && system_iopl(st) < 3)
        interp_raise_error(c, X86_GP, 0);
    if (in->size > 2)
        mask |= X86_FLAG_AC | X86_FLAG_ID;
    if (!(st->cr0 & X86_CR0_PE) || x86_cpl(st) <= system_iopl(st))
        mask |= X86_FLAG_IF;
    if (x86_cpl(st) == 0)
        mask |= X86_FLAG_IOPL;
    v = stack_pop(c, in->size);
    st->rflags = (st->rflags & ~(mask | X86_FLAG_RF)) | (v & mask) | X86_FLAG_FIXED;
    c->attention |= ATTN_RECHECK;
    mmu_mode_changed(c);
}

static void set_ac(struct interp *c, uint64_t ac)
{
    if (x86_cpl(&c->st))
        interp_raise(c, X86_UD);
    c->st.rflags = (c->st.rflags & ~(uint64_t)X86_FLAG_AC) | ac;
    mmu_mode_changed(c);
}

static void op_clac(struct interp *c, const struct insn *in)
{
    set_ac(c, 0);
}

static void op_stac(struct interp *c, const struct insn *in)
{
    set_ac(c, X86_FLAG_AC);
}

#define BIND_PLAIN(name)                                                                                    \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return op_##name;                                                                                   \
    }
BIND_PLAIN(cli)
BIND_PLAIN(sti)
BIND_PLAIN(clac)
BIND_PLAIN(stac)
#undef BIND_PLAIN

static interp_fn bind_pushf(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->size = xi->insn.mnemonic == ZYDIS_MNEMONIC_PUSHF ? 2 : xi->insn.mnemonic == ZYDIS_MNEMONIC_PUSHFD ? 4 : 8;
    return op_pushf;
}

static interp_fn bind_popf(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->size = xi->insn.mnemonic == ZYDIS_MNEMONIC_POPF ? 2 : xi->insn.mnemonic == ZYDIS_MNEMONIC_POPFD ? 4 : 8;
    return op_popf;
}

const struct bind_entry op_flags_binds[] = {
    {ZYDIS_MNEMONIC_CLI, bind_cli},
    {ZYDIS_MNEMONIC_STI, bind_sti},
    {ZYDIS_MNEMONIC_CLAC, bind_clac},
    {ZYDIS_MNEMONIC_STAC, bind_stac},
    {ZYDIS_MNEMONIC_PUSHF, bind_pushf},
    {ZYDIS_MNEMONIC_PUSHFD, bind_pushf},
    {ZYDIS_MNEMONIC_PUSHFQ, bind_pushf},
    {ZYDIS_MNEMONIC_POPF, bind_popf},
    {ZYDIS_MNEMONIC_POPFD, bind_popf},
    {ZYDIS_MNEMONIC_POPFQ, bind_popf},
    {0, NULL},
};
