/*
 * The kernel's doors, and what else changes the mode or is a light call: SYSCALL, SYSRET, IRET, STAC, CLAC, string moves, RDTSC. A mode's
 * code finds that of another through the other's jump cache, or as STAC and CLAC do by a link: for them the mode to come is
 * known when the block is made.
 */
#include "engine/bt/light.h"
#include "engine/bt/translate.h"

#define ALU_OR  1
#define ALU_AND 4

/* ---- light calls ---- */

/* lea t0, [rip + ...], stored to `field`; returns the place of the displacement. */
static uint8_t *put_address(struct trans *t, uint32_t field)
{
    EMIT(&t->e, 0x4c, 0x8d, 0x15);
    emit32(&t->e, 0);
    uint8_t *at = t->e.p - 4;
    emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, field);
    return at;
}

static void put_call(struct trans *t, const struct trans_insn *in, const uint8_t *thunk, uint64_t arg)
{
    struct emit *e = &t->e;

    flags_keep(t);
    uint8_t *behind = put_address(t, BT_ABS(t->bt, arg0));
    struct trans_stub *stub = translate_slow(t, in, put_address(t, BT_ABS(t->bt, arg1)));
    trans_linear(t, BT_T0, arg);
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, light_arg));
    emit_jmp(e, thunk);
    emit_patch(e, behind, emit_here(e));
    if (!in->ends)
        translate_resume(t, stub);
}

static bool put_syscall(struct trans *t, const struct trans_insn *in)
{
    put_call(t, in, t->bt->thunks.light_syscall, in->rip + in->xi.insn.length);
    return true;
}

static bool put_sysret(struct trans *t, const struct trans_insn *in)
{
    put_call(t, in, t->bt->thunks.light_sysret, 0);
    return true;
}

static bool put_iret(struct trans *t, const struct trans_insn *in)
{
    put_call(t, in, t->bt->thunks.light_iret, 0);
    return true;
}

static bool put_rdtsc(struct trans *t, const struct trans_insn *in)
{
    put_call(t, in, t->bt->thunks.light_tsc, in->xi.insn.mnemonic == ZYDIS_MNEMONIC_RDTSCP);
    return true;
}

static bool put_string(struct trans *t, const struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    unsigned kind = (unsigned)__builtin_ctz(xi->op[0].size / 8);

    if (xi->insn.mnemonic <= ZYDIS_MNEMONIC_MOVSW && xi->insn.mnemonic >= ZYDIS_MNEMONIC_MOVSB)
        kind |= LIGHT_MOVS;
    if (xi->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        kind |= LIGHT_REP;
    put_call(t, in, t->bt->thunks.light_string, kind);
    return true;
}

/* ---- STAC, CLAC, STD and CLD ---- */

/* RFLAGS have this flag set or clear from here on, and the code behind is in another mode. */
static bool put_flag(struct trans *t, const struct trans_insn *in, uint32_t flag, bool on, uint32_t mode)
{
    struct emit *e = &t->e;

    emit_abs(e, EMIT_32, 0x81, on ? ALU_OR : ALU_AND, BT_ABS(t->bt, c.st.rflags));
    emit32(e, on ? flag : ~flag);
    emit_abs(e, EMIT_32, 0xc7, 0, BT_ABS(t->bt, mode));
    emit32(e, mode);
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, jump_bases[mode]));
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, jump_base8));
    flow_exit(t, in->rip + in->xi.insn.length);
    return true;
}

static bool put_ac(struct trans *t, const struct trans_insn *in, bool ac, enum mmu_index index)
{
    struct emit *e = &t->e;

    emit_abs(e, EMIT_32, 0xc7, 0, BT_ABS(t->bt, c.mmu));
    emit32(e, index);
    return put_flag(t, in, X86_FLAG_AC, ac, (t->bt->mode & ~BT_MODE_MMU) | (uint32_t)index << BT_MODE_MMU_SHIFT);
}

/* The mode to come has a jump cache for good, which a user's has not: that is its address space's. */
static bool may_enter(const struct trans *t, enum mmu_index index, bool df)
{
    if (trans_cpl(t) == 3)
        return false;
    uint32_t mode = t->bt->mode & ~(BT_MODE_MMU | BT_MODE_DF);
    return jump_reserve(t->bt, mode | (uint32_t)index << BT_MODE_MMU_SHIFT | (df ? BT_MODE_DF : 0));
}

static bool put_stac(struct trans *t, const struct trans_insn *in)
{
    if (!may_enter(t, MMU_KERNEL, t->bt->mode & BT_MODE_DF))
        return false;
    flags_keep(t);
    return put_ac(t, in, true, MMU_KERNEL);
}

/* What CLAC leads to is CR4.SMAP's matter, and that may change without a change of this mode. */
static bool put_clac(struct trans *t, const struct trans_insn *in)
{
    bool smap = t->bt->c.st.cr4 & X86_CR4_SMAP;
    enum mmu_index index = smap ? MMU_KERNEL_SMAP : MMU_KERNEL;

    if (!may_enter(t, index, t->bt->mode & BT_MODE_DF))
        return false;
    flags_keep(t);
    emit_abs(&t->e, EMIT_32, 0xf7, 0, BT_ABS(t->bt, c.st.cr4));
    emit32(&t->e, X86_CR4_SMAP);
    translate_slow(t, in, emit_jcc_later(&t->e, smap ? EMIT_E : EMIT_NE));
    return put_ac(t, in, false, index);
}

static bool put_df(struct trans *t, const struct trans_insn *in)
{
    bool df = in->xi.insn.mnemonic == ZYDIS_MNEMONIC_STD;

    if (!may_enter(t, trans_mmu(t), df))
        return false;
    flags_keep(t);
    return put_flag(t, in, X86_FLAG_DF, df, (t->bt->mode & ~BT_MODE_DF) | (df ? BT_MODE_DF : 0));
}

static bool put_nothing(struct trans *t, const struct trans_insn *in)
{
    return true;
}

/* ---- which ---- */

/* RSI and RDI with all their bits, no segment base, upward. */
static bool is_plain_string(const struct trans *t, const struct x86_insn *xi)
{
    if (!t->code64 || (t->bt->mode & BT_MODE_DF) || xi->insn.address_width != 64 ||
        xi->insn.meta.category != ZYDIS_CATEGORY_STRINGOP)
        return false;
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (xi->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (xi->op[i].mem.segment == ZYDIS_REGISTER_FS || xi->op[i].mem.segment == ZYDIS_REGISTER_GS))
            return false;
    return true;
}

static void set(struct trans_insn *in, bool (*emit)(struct trans *, const struct trans_insn *), bool ends)
{
    in->emit = emit;
    in->ends = ends;
    in->faults = true;
}

void entry_classify(const struct trans *t, struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    bool kernel64 = t->code64 && trans_cpl(t) == 0, df = t->bt->mode & BT_MODE_DF;

    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
        if (t->code64)
            set(in, put_syscall, true);
        break;
    case ZYDIS_MNEMONIC_SYSRET:
        if (kernel64 && (xi->insn.attributes & ZYDIS_ATTRIB_HAS_REX) && xi->insn.raw.rex.W)
            set(in, put_sysret, true);
        break;
    case ZYDIS_MNEMONIC_IRETQ:
        if (kernel64)
            set(in, put_iret, true);
        break;
    case ZYDIS_MNEMONIC_STAC:
        if (trans_cpl(t) == 0)
            set(in, put_stac, true);
        break;
    case ZYDIS_MNEMONIC_CLAC:
        if (trans_cpl(t) == 0 && trans_mmu(t) == MMU_KERNEL)
            set(in, put_clac, true);
        else if (trans_cpl(t) == 0)
            set(in, put_nothing, false); /* AC is clear already */
        break;
    case ZYDIS_MNEMONIC_CLD:
        set(in, df ? put_df : put_nothing, df);
        break;
    case ZYDIS_MNEMONIC_STD:
        set(in, df ? put_nothing : put_df, !df);
        break;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        set(in, put_rdtsc, false);
        break;
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        if (is_plain_string(t, xi))
            set(in, put_string, false);
        break;
    default:
        break;
    }
}
