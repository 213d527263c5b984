/*
 * x87 and MMX. Most guests use neither, so their registers are brought to the host's only when an instruction wants them (struct interp's
 * x87_away): the first of a block looks, and is interpreted if they are not there; that brings them. From there to the
 * block's end they stay, for a slow path that took them away brings them back. The interpreter takes them when it wants them.
 *
 * The host's own instruction and operand pointers are addresses of the host. The guest's are kept in c.st.fx all the time, by stores
 * next to each instruction that sets them; instructions that show them are interpreted.
 *
 * An x87 exception that is pending and not masked comes up at the next instruction that waits, as SIGFPE (trap.c).
 */
#include "engine/bt/translate.h"
#include "engine/interp/vector.h"

#define ALU_CMP 7

/* ---- the registers ---- */

/* FXSAVE and FXRSTOR also touch MXCSR and, one of them, vector registers; the host's MXCSR must stay, and the guest's and the pointers in st.fx. */
void x87_save(struct interp *c, bool change)
{
    struct x86_fxsave *fx = &c->st.fx;
    struct x86_fxsave image;

    __asm__ volatile("fxsave64 %0" : "=m"(image));
    fx->fcw = image.fcw;
    fx->fsw = image.fsw;
    fx->ftw = image.ftw;
    memcpy(fx->st, image.st, sizeof(fx->st));
    if (!change)
        return;
    __asm__ volatile("fninit");
    c->x87_away = false;
}

void x87_load(struct bt *bt)
{
    struct x86_fxsave *fx = &bt->c.st.fx;
    uint32_t mxcsr = fx->mxcsr;

    fx->mxcsr = VECTOR_MXCSR_DEFAULT;
    __asm__ volatile("fxrstor64 %0"
                     :
                     : "m"(*fx)
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15");
    fx->mxcsr = mxcsr;
    bt->c.x87_away = true;
}

/* ---- instructions ---- */

/* The registers are the host's from here on; a way to the interpreter if they are not, or NULL where that is known. */
static struct trans_stub *put_look(struct trans *t, const struct trans_insn *in)
{
    if (t->x87)
        return NULL;
    flags_keep(t);
    emit_abs(&t->e, EMIT_32, 0x80, ALU_CMP, BT_ABS(t->bt, c.x87_away)); /* cmp byte [x87_away], 0 */
    emit8(&t->e, 0);
    t->x87 = true;
    return translate_slow(t, in, emit_jcc_later(&t->e, EMIT_E));
}

/* A constant into memory. */
static void put_store64(struct trans *t, uint32_t addr, uint64_t v)
{
    if (v == (uint64_t)(int32_t)v) {
        emit_abs(&t->e, EMIT_64, 0xc7, 0, addr);
        emit32(&t->e, (uint32_t)v);
    } else {
        trans_linear(t, BT_T0, v);
        emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, addr);
    }
}

/* FIP, FOP and, where there is an operand in memory, FDP: its offset (SDM Vol. 1 8.1.8, 8.1.9). No flags are changed. */
static void put_pointers(struct trans *t, const struct trans_insn *in, struct mem_operand *mem)
{
    const ZydisDecodedInstruction *insn = &in->xi.insn;
    unsigned modrm = (unsigned)insn->raw.modrm.mod << 6 | (unsigned)insn->raw.modrm.reg << 3 | insn->raw.modrm.rm;

    put_store64(t, BT_ABS(t->bt, c.st.fx.fip), in->rip);
    emit8(&t->e, 0x66);
    emit_abs(&t->e, EMIT_32, 0xc7, 0, BT_ABS(t->bt, c.st.fx.fop));
    emit16(&t->e, (uint16_t)((insn->opcode & 7u) << 8 | modrm));
    if (!mem)
        return;
    mem->fs = mem->gs = false;
    mem_address(t, mem);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, c.st.fx.fdp));
}

static const ZydisDecodedOperand *memory_of(const struct x86_insn *xi)
{
    for (unsigned i = 0; i < xi->insn.operand_count_visible; i++)
        if (xi->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &xi->op[i];
    return NULL;
}

static bool put_insn(struct trans *t, const struct trans_insn *in, bool pointers)
{
    const ZydisDecodedOperand *op = memory_of(&in->xi);
    struct mem_operand mem;

    if (op && !mem_operand(in, op, t->code64, &mem))
        return false;
    struct trans_stub *stub = put_look(t, in);
    if (!recode(t, in))
        return false;
    if (pointers)
        put_pointers(t, in, op ? &mem : NULL);
    if (stub)
        translate_resume(t, stub);
    return true;
}

static bool put_without_pointers(struct trans *t, const struct trans_insn *in)
{
    return put_insn(t, in, false);
}

static bool put_with_pointers(struct trans *t, const struct trans_insn *in)
{
    return put_insn(t, in, true);
}

/* ---- which ---- */

/* Control instructions that show no pointers. */
static bool is_plain_control(ZydisMnemonic mnemonic, bool *waits)
{
    *waits = mnemonic == ZYDIS_MNEMONIC_FWAIT || mnemonic == ZYDIS_MNEMONIC_FLDCW;
    return *waits || mnemonic == ZYDIS_MNEMONIC_FNSTCW || mnemonic == ZYDIS_MNEMONIC_FNSTSW ||
           mnemonic == ZYDIS_MNEMONIC_FNCLEX;
}

static bool runs_in_stub(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
#define VECTOR_DEF_X87(name) case ZYDIS_MNEMONIC_##name:
#include "engine/interp/vector.def"
#undef VECTOR_DEF_X87
        return true;
    default:
        return false;
    }
}

static bool is_mmx(const struct x86_insn *xi, const struct insn *bound)
{
    switch (xi->insn.mnemonic) {
#define VECTOR_DEF_SIMD(name) case ZYDIS_MNEMONIC_##name:
#include "engine/interp/vector.def"
#undef VECTOR_DEF_SIMD
        return xi->insn.meta.category != ZYDIS_CATEGORY_STRINGOP && (bound->reg & VECTOR_MMX);
    default:
        return false;
    }
}

void x87_classify(const struct trans *t, struct trans_insn *in, const struct insn *bound)
{
    uint32_t mode = t->bt->mode;
    ZydisMnemonic mnemonic = in->xi.insn.mnemonic;
    bool waits = true;

    if (!(mode & BT_MODE_X87))
        return;
    if (is_mmx(&in->xi, bound)) {
        if ((bound->reg & VECTOR_SSE) && !(mode & BT_MODE_SSE))
            return;
        in->emit = put_without_pointers;
        in->aligned = bound->reg & VECTOR_ALIGNED;
    } else if (runs_in_stub(mnemonic)) {
        in->emit = put_with_pointers;
        in->flags_written = 0; /* an unmasked exception keeps FCOMI from it */
    } else if (is_plain_control(mnemonic, &waits)) {
        in->emit = put_without_pointers;
    } else {
        return;
    }
    recode_note(t, in);
    in->keeps_t1 = false; /* FDP is computed there */
    in->traps = waits;
    in->faults = true; /* it may find its registers elsewhere */
}
