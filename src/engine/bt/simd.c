/*
 * SIMD instructions: those of SSE to SSE4.2, AES, PCLMULQDQ and SHA, of AVX, AVX2, FMA and F16C that the interpreter runs in stubs
 * (interp/vector.def) run as they are where the block's mode allows their registers; elsewhere they are interpreted, and fault there. So are
 * those that touch memory by element.
 *
 * The guest's MXCSR is in the host's, so SIMD exceptions that the guest has unmasked arise in generated code (trap.c).
 */
#include "engine/bt/translate.h"
#include "engine/interp/vector.h"

static bool runs_in_stub(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
#define VECTOR_DEF_SIMD(name) case ZYDIS_MNEMONIC_##name:
#include "engine/interp/vector.def"
#undef VECTOR_DEF_SIMD
        return true;
    default:
        return false;
    }
}

/* Turn the x87 unit to MMX even where their operand is in memory (SDM Vol. 2A CVTPI2PS). */
static bool turns_to_mmx(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_CVTPI2PS || mnemonic == ZYDIS_MNEMONIC_CVTPI2PD;
}

/* ---- MXCSR and upper halves ---- */

enum { LDMXCSR = 2, STMXCSR = 3 };

static void put_0fae(struct emit *e, unsigned n, uint32_t addr)
{
    emit_abs(e, EMIT_32, 0x1ae, n, addr);
}

/* A value with reserved bits must not reach the host's register. */
static bool put_ldmxcsr(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;
    struct mem_operand mem;
    struct mem_host host;

    if (!mem_operand(in, &in->xi.op[0], t->code64, &mem))
        return false;
    struct trans_stub *stub = mem_check(t, in, &mem, false, &host);
    emit_mem(e, EMIT_32, EMIT_MOV_LOAD, BT_T1, host.base, host.index, 0, host.disp);
    emit_abs(e, EMIT_32, EMIT_MOV_STORE, BT_T1, BT_ABS(t->bt, new_mxcsr));
    emit_shr(e, EMIT_32, BT_T1, 16); /* what is not in VECTOR_MXCSR_VALID */
    stub->from[1] = emit_jcc_later(e, EMIT_NE);
    put_0fae(e, LDMXCSR, BT_ABS(t->bt, new_mxcsr));
    translate_resume(t, stub);
    return true;
}

static bool put_stmxcsr(struct trans *t, const struct trans_insn *in)
{
    struct mem_operand mem;
    struct mem_host host;

    if (!mem_operand(in, &in->xi.op[0], t->code64, &mem))
        return false;
    struct trans_stub *stub = mem_check(t, in, &mem, false, &host);
    emit_mem(&t->e, EMIT_32, 0x1ae, STMXCSR, host.base, host.index, 0, host.disp);
    translate_resume(t, stub);
    return true;
}

_Static_assert(VECTOR_MXCSR_VALID == 0xffff, "put_ldmxcsr() looks at the upper half");

static void classify_state(const struct trans *t, struct trans_insn *in)
{
    uint32_t mode = t->bt->mode;

    switch (in->xi.insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
        in->emit = mode & BT_MODE_SSE ? put_ldmxcsr : NULL;
        break;
    case ZYDIS_MNEMONIC_VLDMXCSR:
        in->emit = mode & BT_MODE_AVX ? put_ldmxcsr : NULL;
        break;
    case ZYDIS_MNEMONIC_STMXCSR:
        in->emit = mode & BT_MODE_SSE ? put_stmxcsr : NULL;
        break;
    case ZYDIS_MNEMONIC_VSTMXCSR:
        in->emit = mode & BT_MODE_AVX ? put_stmxcsr : NULL;
        break;
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_VZEROUPPER:
        if ((mode & BT_MODE_AVX) && t->code64) /* other code has but eight registers */
            in->emit = recode;
        break;
    default:
        break;
    }
}

/* ---- the others ---- */

void simd_classify(const struct trans *t, struct trans_insn *in, const struct insn *bound)
{
    const ZydisDecodedInstruction *insn = &in->xi.insn;
    unsigned unit = bound->reg;
    bool usable = t->bt->mode & (unit & VECTOR_AVX ? BT_MODE_AVX : BT_MODE_SSE);

    if (!runs_in_stub(insn->mnemonic)) {
        classify_state(t, in);
        return;
    }
    if (insn->meta.category == ZYDIS_CATEGORY_STRINGOP || (unit & VECTOR_MMX) || turns_to_mmx(insn->mnemonic) ||
        !usable)
        return; /* x87.c has those of MMX */
    in->emit = recode;
    in->traps = unit & VECTOR_MXCSR;
    in->aligned = unit & VECTOR_ALIGNED;
}
