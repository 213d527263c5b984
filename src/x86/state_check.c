#include "x86/state_check.h"

/* RFLAGS bits there are (SDM Vol. 1 3.4.3). */
#define FLAGS_BITS                                                                                               \
    (X86_FLAGS_STATUS | X86_FLAG_FIXED | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_IOPL | X86_FLAG_NT | \
     X86_FLAG_RF | X86_FLAG_VM | X86_FLAG_AC | X86_FLAG_VIF | X86_FLAG_VIP | X86_FLAG_ID)
#define CR0_BITS                                                                                             \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | \
     X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
#define CR4_BITS                                                                                                       \
    (X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | \
     X86_CR4_OSXMMEXCPT | X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP |           \
     X86_CR4_SMAP)
#define EFER_BITS  (X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NX)
#define MXCSR_BITS 0xffffu
#define DR6_TRAPS  0xe00fu /* B0 to B3, and what else a trap sets */

static bool is_canonical(uint64_t addr)
{
    return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

static bool real_mode(const struct x86_state *st)
{
    return !(st->cr0 & X86_CR0_PE);
}

/* SDM Vol. 3A 2.5 and 4.1. */
static const char *check_control(const struct x86_state *st, const struct x86_cpuid *cpuid)
{
    bool paging = st->cr0 & X86_CR0_PG, lma = st->efer & X86_EFER_LMA;

    if ((st->cr0 & ~(uint64_t)CR0_BITS) || (paging && real_mode(st)) ||
        ((st->cr0 & X86_CR0_NW) && !(st->cr0 & X86_CR0_CD)))
        return "CR0";
    if ((st->cr4 & ~(uint64_t)CR4_BITS) || ((st->cr4 & X86_CR4_PCIDE) && !lma))
        return "CR4";
    if ((st->efer & ~(uint64_t)EFER_BITS) || lma != (paging && (st->efer & X86_EFER_LME)) ||
        (lma && !(st->cr4 & X86_CR4_PAE)))
        return "EFER";
    if (st->cr3 >> cpuid->conf.phys_bits)
        return "CR3";
    if (!(st->xcr0 & X86_XCR0_X87) || (st->xcr0 & ~x86_cpuid_xcr0(cpuid)) ||
        ((st->xcr0 & X86_XCR0_AVX) && !(st->xcr0 & X86_XCR0_SSE)))
        return "XCR0";
    return NULL;
}

static const char *check_flags(const struct x86_state *st)
{
    if (!(st->rflags & X86_FLAG_FIXED) || (st->rflags & ~(uint64_t)FLAGS_BITS))
        return "RFLAGS";
    if ((st->rflags & X86_FLAG_VM) && (real_mode(st) || x86_long_mode(st)))
        return "RFLAGS.VM";
    if (st->taken && (st->taken & ~0xffu) != X86_TAKEN)
        return "the interrupt it has taken";
    if (!x86_code64(st) && st->rip >> 32)
        return "RIP";
    return NULL;
}

/* The bases of FS, GS, LDTR and TR have 64 bits, also after long mode was left, the others 32 (SDM Vol. 3A 3.4.4). */
static bool base_valid(uint64_t base, bool wide)
{
    return wide ? is_canonical(base) : !(base >> 32);
}

static const char *check_code_segment(const struct x86_state *st)
{
    const struct x86_seg *cs = &st->seg[X86_CS];
    unsigned dpl = (cs->attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT, cpl = x86_cpl(st);

    if (real_mode(st))
        return cpl ? "the privilege level" : NULL;
    if (st->rflags & X86_FLAG_VM)
        return cpl == 3 ? NULL : "the privilege level";
    if (!(cs->attr & X86_SEG_P) || !(cs->attr & X86_SEG_S) || !(cs->attr & X86_SEG_CODE) ||
        (x86_code64(st) && (cs->attr & X86_SEG_DB)))
        return "CS";
    if (cs->attr & X86_SEG_DC ? dpl > cpl : dpl != cpl)
        return "the privilege level";
    return NULL;
}

static const char *check_segments(const struct x86_state *st)
{
    static const char *const names[X86_N_SEG] = {"ES", "CS", "SS", "DS", "FS", "GS"};

    for (unsigned i = 0; i < X86_N_SEG; i++)
        if (!base_valid(st->seg[i].base, i == X86_FS || i == X86_GS))
            return names[i];
    if (!base_valid(st->ldtr.base, true))
        return "LDTR";
    if (!base_valid(st->tr.base, true))
        return "TR";
    if (!base_valid(st->gdtr.base, true))
        return "GDTR";
    if (!base_valid(st->idtr.base, true))
        return "IDTR";
    return check_code_segment(st);
}

static bool pat_valid(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = pat >> (8 * i) & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

/* What WRMSR and MOV to a debug register do not let a guest put there. */
static const char *check_msrs(const struct x86_state *st)
{
    const uint64_t addresses[] = {st->lstar, st->cstar, st->kernel_gs_base, st->sysenter_esp, st->sysenter_eip};

    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
        if (!is_canonical(addresses[i]))
            return "the address in an MSR";
    if ((st->sfmask >> 32) || (st->tsc_aux >> 32) || !pat_valid(st->pat))
        return "an MSR";
    if ((st->dr6 >> 32) || (st->dr7 >> 32) || (st->pending_debug & ~DR6_TRAPS))
        return "a debug register";
    if (st->fx.mxcsr & ~MXCSR_BITS)
        return "MXCSR";
    return NULL;
}

const char *state_check(const struct x86_state *st, const struct x86_cpuid *cpuid)
{
    const char *wrong = check_control(st, cpuid);

    if (!wrong)
        wrong = check_flags(st);
    if (!wrong)
        wrong = check_segments(st);
    return wrong ? wrong : check_msrs(st);
}
