/*
 * System instructions in generated code: flags and their images on the stack, segment bases, control registers. What they mean is what
 * interp/op_flags.c and op_system.c say; whatever is not the usual case of it (a fault, a change of mode, an interrupt that is due) is left
 * to them.
 *
 * IF lives in c.st.rflags. Setting it may make an interrupt due; then the interpreter runs the instruction, which knows of STI's shadow. That
 * is decided before IF is set: what is raised later kicks, and a kick is seen at the block's end. So no interrupt comes between STI and
 * the instruction behind it, if that is in the same block. Clearing IF needs nothing: c->pin_mask may hold too much.
 */
#include "engine/bt/translate.h"

#define ALU_OR   1
#define ALU_AND  4
#define ALU_XOR  6
#define SHL      4
#define TEST_IMM 0xf7

/* ---- pieces ---- */

/* op dword [abs], imm; op is an ALU operation's number. Changes EFLAGS. */
static void put_alu_abs(struct emit *e, unsigned op, uint32_t addr, uint32_t imm)
{
    emit_abs(e, EMIT_32, 0x81, op, addr);
    emit32(e, imm);
}

static void put_test_abs(struct emit *e, uint32_t addr, uint32_t imm)
{
    emit_abs(e, EMIT_32, TEST_IMM, 0, addr);
    emit32(e, imm);
}

/* test reg, imm of T0 or T1 */
static void put_test(struct emit *e, unsigned reg, uint32_t imm)
{
    EMIT(e, 0x41, TEST_IMM, (uint8_t)(0xc0 | (reg & 7)));
    emit32(e, imm);
}

static void put_shift(struct emit *e, enum emit_width w, unsigned op, unsigned reg, uint8_t n)
{
    EMIT(e, (uint8_t)(0x41 | w << 3), 0xc1, (uint8_t)(0xc0 | op << 3 | (reg & 7)), n);
}

/* Leaves for the slow path when an external interrupt waits for IF. Uses T1. */
static uint8_t *put_jump_if_interrupt(struct trans *t)
{
    struct emit *e = &t->e;

    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_ABS(t->bt, c.conf.port));
    emit_mem(e, EMIT_32, TEST_IMM, 0, BT_T1, EMIT_NONE, 0, (int32_t)offsetof(struct vcpu_port, pending));
    emit32(e, PIN_INTR);
    return emit_jcc_later(e, EMIT_NE);
}

static void put_want_interrupts(struct trans *t)
{
    put_alu_abs(&t->e, ALU_OR, BT_ABS(t->bt, c.pin_mask), PIN_INTR);
}

/* ---- IF ---- */

static bool put_cli(struct trans *t, const struct trans_insn *in)
{
    flags_keep(t);
    put_alu_abs(&t->e, ALU_AND, BT_ABS(t->bt, c.st.rflags), ~X86_FLAG_IF);
    return true;
}

static bool put_sti(struct trans *t, const struct trans_insn *in)
{
    if (t->at + 1 >= t->n)
        return false;
    flags_keep(t);
    struct trans_stub *stub = translate_slow(t, in, put_jump_if_interrupt(t));
    put_alu_abs(&t->e, ALU_OR, BT_ABS(t->bt, c.st.rflags), X86_FLAG_IF);
    put_want_interrupts(t);
    translate_resume(t, stub);
    return true;
}

/* ---- PUSHF and POPF ---- */

static bool put_pushf(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;
    struct mem_operand mem = pushpop_slot(t, EMIT_RSP, t->code64 ? -8 : -4, true);
    struct mem_host host;

    flags_keep(t);
    emit_abs(e, EMIT_32, EMIT_MOVZX8, BT_T1, BT_ABS(t->bt, flags));
    put_shift(e, EMIT_32, SHL, BT_T1, 11);
    emit_abs(e, EMIT_32, EMIT_MOVZX8, BT_T0, BT_ABS(t->bt, flags) + 1);
    emit_mem(e, EMIT_64, EMIT_LEA, BT_T0, BT_T0, BT_T1, 0, 0);
    emit_abs(e, EMIT_32, EMIT_MOV_LOAD, BT_T1, BT_ABS(t->bt, c.st.rflags));
    emit_alu_imm(e, EMIT_32, ALU_AND, BT_T1, ~(X86_FLAGS_STATUS | X86_FLAG_FIXED | X86_FLAG_RF | X86_FLAG_VM));
    emit_mem(e, EMIT_64, EMIT_LEA, BT_T0, BT_T0, BT_T1, 0, 0);
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, scratch));
    struct trans_stub *stub = mem_check(t, in, &mem, true, &host);
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, scratch));
    emit_mem(e, t->code64 ? EMIT_64 : EMIT_32, EMIT_MOV_STORE, BT_T0, host.base, host.index, 0, host.disp);
    pushpop_move(t, t->code64 ? -8 : -4);
    translate_resume(t, stub);
    return true;
}

/* The usual case: only status flags change, and at CPL 0 IF. So the new RFLAGS are what was popped. */
static bool put_popf(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;
    struct mem_operand mem = pushpop_slot(t, EMIT_RSP, 0, false);
    struct mem_host host;
    uint32_t may_change = X86_FLAGS_STATUS | (trans_cpl(t) == 0 ? X86_FLAG_IF : 0);
    struct trans_stub *stub = mem_check(t, in, &mem, false, &host);

    emit_mem(e, EMIT_32, EMIT_MOV_LOAD, BT_T0, host.base, host.index, 0, host.disp);
    emit_abs(e, EMIT_32, EMIT_MOV_LOAD, BT_T1, BT_ABS(t->bt, c.st.rflags));
    emit_rr(e, EMIT_32, EMIT_XOR_LOAD, BT_T1, BT_T0);
    put_test(e, BT_T1, ~may_change);
    stub->from[1] = emit_jcc_later(e, EMIT_NE);
    if (trans_cpl(t) == 0) {
        put_test(e, BT_T0, X86_FLAG_IF);
        uint8_t *off = emit_jcc_later(e, EMIT_E);
        stub->from[2] = put_jump_if_interrupt(t);
        put_want_interrupts(t);
        emit_patch(e, off, emit_here(e));
    }
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, c.st.rflags));
    emit_abs(e, EMIT_32, 0x88, BT_T0, BT_ABS(t->bt, flags) + 1); /* mov byte */
    emit_shr(e, EMIT_32, BT_T0, 11);
    emit_alu_imm(e, EMIT_32, ALU_AND, BT_T0, 1);
    emit_abs(e, EMIT_32, 0x88, BT_T0, BT_ABS(t->bt, flags));
    pushpop_move(t, t->code64 ? 8 : 4);
    t->flags = FLAGS_SAVED;
    translate_resume(t, stub);
    return true;
}

/* ---- segment bases ---- */

static bool put_swapgs(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;

    flags_keep(t);
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, c.st.seg[X86_GS].base));
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_ABS(t->bt, c.st.kernel_gs_base));
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, c.st.kernel_gs_base));
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T1, BT_ABS(t->bt, c.st.seg[X86_GS].base));
    return true;
}

static unsigned gpr_of(const ZydisDecodedOperand *op)
{
    return (unsigned)ZydisRegisterGetId(op->reg.value);
}

static enum emit_width width_of(const ZydisDecodedOperand *op)
{
    return op->size == 64 ? EMIT_64 : EMIT_32;
}

/* A guest register from T0. */
static void put_result(struct trans *t, enum emit_width w, unsigned gpr)
{
    if (w == EMIT_32)
        emit_rr(&t->e, EMIT_32, EMIT_MOV_STORE, BT_T0, BT_T0); /* clears the upper half */
    if (trans_in_memory(gpr))
        trans_store(t, BT_T0, gpr);
    else
        emit_rr(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, gpr);
}

static struct trans_stub *put_need_fsgsbase(struct trans *t, const struct trans_insn *in)
{
    flags_keep(t);
    put_test_abs(&t->e, BT_ABS(t->bt, c.st.cr4), X86_CR4_FSGSBASE);
    return translate_slow(t, in, emit_jcc_later(&t->e, EMIT_E));
}

static uint32_t base_of(const struct trans *t, ZydisMnemonic mnemonic)
{
    bool fs = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
    return BT_ABS(t->bt, c.st.seg[fs ? X86_FS : X86_GS].base);
}

static bool put_rd_base(struct trans *t, const struct trans_insn *in)
{
    const ZydisDecodedOperand *op = &in->xi.op[0];
    struct trans_stub *stub = put_need_fsgsbase(t, in);

    emit_abs(&t->e, EMIT_64, EMIT_MOV_LOAD, BT_T0, base_of(t, in->xi.insn.mnemonic));
    put_result(t, width_of(op), gpr_of(op));
    translate_resume(t, stub);
    return true;
}

#define SAR 7

static bool put_wr_base(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;
    const ZydisDecodedOperand *op = &in->xi.op[0];
    unsigned gpr = gpr_of(op);
    struct trans_stub *stub = put_need_fsgsbase(t, in);

    if (trans_in_memory(gpr))
        trans_load(t, BT_T0, gpr);
    else
        emit_rr(e, EMIT_64, EMIT_MOV_STORE, gpr, BT_T0);
    if (width_of(op) == EMIT_32) {
        emit_rr(e, EMIT_32, EMIT_MOV_STORE, BT_T0, BT_T0);
    } else {
        emit_rr(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_T1);
        put_shift(e, EMIT_64, SHL, BT_T1, 16);
        put_shift(e, EMIT_64, SAR, BT_T1, 16);
        emit_rr(e, EMIT_64, EMIT_CMP_LOAD, BT_T1, BT_T0);
        stub->from[1] = emit_jcc_later(e, EMIT_NE);
    }
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, base_of(t, in->xi.insn.mnemonic));
    translate_resume(t, stub);
    return true;
}

/* ---- MOV from control and segment registers ---- */

static bool put_from_cr(struct trans *t, const struct trans_insn *in)
{
    static const uint16_t field[] = {offsetof(struct x86_state, cr0), 0, offsetof(struct x86_state, cr2),
                                     offsetof(struct x86_state, cr3), offsetof(struct x86_state, cr4)};
    unsigned n = gpr_of(&in->xi.op[1]);

    flags_keep(t);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, c.st) + field[n]);
    put_result(t, t->code64 ? EMIT_64 : EMIT_32, gpr_of(&in->xi.op[0]));
    return true;
}

static bool put_from_seg(struct trans *t, const struct trans_insn *in)
{
    unsigned seg = (unsigned)(in->xi.op[1].reg.value - ZYDIS_REGISTER_ES), gpr = gpr_of(&in->xi.op[0]);

    flags_keep(t);
    emit_abs(&t->e, EMIT_32, EMIT_MOVZX16, BT_T0, BT_ABS(t->bt, c.st.seg[seg].sel));
    if (in->xi.op[0].size != 16) {
        put_result(t, EMIT_64, gpr);
        return true;
    }
    emit8(&t->e, 0x66);
    if (trans_in_memory(gpr))
        emit_abs(&t->e, EMIT_32, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, c.st.gpr[gpr]));
    else
        emit_rr(&t->e, EMIT_32, EMIT_MOV_STORE, BT_T0, gpr);
    return true;
}

static void classify_mov(const struct trans *t, struct trans_insn *in)
{
    const ZydisDecodedOperand *to = &in->xi.op[0], *from = &in->xi.op[1];

    if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || from->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return;
    ZydisRegisterClass class = ZydisRegisterGetClass(from->reg.value);
    if (class == ZYDIS_REGCLASS_CONTROL && trans_cpl(t) == 0 && gpr_of(from) <= 4 && gpr_of(from) != 1)
        in->emit = put_from_cr;
    else if (class == ZYDIS_REGCLASS_SEGMENT)
        in->emit = put_from_seg;
}

/* ---- which ---- */

static void classify_pop(const struct trans *t, struct trans_insn *in,
                         bool (*emit)(struct trans *, const struct trans_insn *))
{
    if (in->xi.insn.operand_width == (t->code64 ? 64 : 32))
        in->emit = emit;
}

void system_classify(const struct trans *t, struct trans_insn *in)
{
    bool kernel = trans_cpl(t) == 0;

    switch (in->xi.insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        in->emit = kernel ? put_cli : NULL;
        break;
    case ZYDIS_MNEMONIC_STI:
        in->emit = kernel ? put_sti : NULL;
        break;
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
        classify_pop(t, in, put_pushf);
        break;
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        classify_pop(t, in, put_popf);
        break;
    case ZYDIS_MNEMONIC_SWAPGS:
        in->emit = kernel ? put_swapgs : NULL;
        break;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
        in->emit = put_rd_base;
        break;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        in->emit = put_wr_base;
        break;
    case ZYDIS_MNEMONIC_MOV:
        classify_mov(t, in);
        break;
    default:
        break;
    }
    in->faults |= in->emit != NULL;
}
