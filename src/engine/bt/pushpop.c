/* PUSH, POP, LEAVE: memory operands at the stack pointer. In 64-bit mode 8 bytes, else 4; other operand sizes are interpreted. */
#include "engine/bt/translate.h"

static unsigned word(const struct trans *t)
{
    return t->code64 ? 8 : 4;
}

static bool is_gpr_operand(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
    return class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64;
}

struct mem_operand pushpop_slot(const struct trans *t, unsigned base, int32_t disp, bool write)
{
    return (struct mem_operand){.base = (uint8_t)base,
                                .index = EMIT_NONE,
                                .disp = disp,
                                .addr32 = !t->code64,
                                .size = (uint8_t)word(t),
                                .write = write};
}

static enum emit_width width(const struct trans *t)
{
    return t->code64 ? EMIT_64 : EMIT_32;
}

void pushpop_move(struct trans *t, int32_t by)
{
    emit_mem(&t->e, width(t), EMIT_LEA, EMIT_RSP, EMIT_RSP, EMIT_NONE, 0, by);
}

/* MOV with the operand mem_check() has made ready. */
static void put_move(struct trans *t, enum emit_op op, unsigned reg, const struct mem_host *host)
{
    emit_mem(&t->e, width(t), op, reg, host->base, host->index, 0, host->disp);
}

struct trans_stub *pushpop_constant(struct trans *t, const struct trans_insn *in, uint64_t value)
{
    struct mem_operand mem = pushpop_slot(t, EMIT_RSP, -(int32_t)word(t), true);
    struct mem_host host;
    bool fits = !t->code64 || value == (uint64_t)(int32_t)value;
    struct trans_stub *stub = mem_check(t, in, &mem, !fits, &host);

    if (fits) {
        emit_mem(&t->e, width(t), 0xc7, 0, host.base, host.index, 0, host.disp);
        emit32(&t->e, (uint32_t)value);
    } else {
        trans_linear(t, BT_T0, value); /* a return address: other constants have 32 bits */
        put_move(t, EMIT_MOV_STORE, BT_T0, &host);
    }
    pushpop_move(t, -(int32_t)word(t));
    return stub;
}

static bool put_push_imm(struct trans *t, const struct trans_insn *in)
{
    translate_resume(t, pushpop_constant(t, in, (uint64_t)in->xi.op[0].imm.value.s));
    return true;
}

static bool put_push(struct trans *t, const struct trans_insn *in)
{
    unsigned reg = (unsigned)ZydisRegisterGetId(in->xi.op[0].reg.value);
    struct mem_operand mem = pushpop_slot(t, EMIT_RSP, -(int32_t)word(t), true);
    struct mem_host host;
    struct trans_stub *stub = mem_check(t, in, &mem, trans_in_memory(reg), &host);

    if (trans_in_memory(reg)) {
        trans_load(t, BT_T0, reg);
        reg = BT_T0;
    }
    put_move(t, EMIT_MOV_STORE, reg, &host);
    pushpop_move(t, -(int32_t)word(t));
    translate_resume(t, stub);
    return true;
}

/* A word in memory: read first, and kept while the stack's is checked. */
static bool put_push_mem(struct trans *t, const struct trans_insn *in)
{
    struct mem_operand from, slot = pushpop_slot(t, EMIT_RSP, -(int32_t)word(t), true);
    struct mem_host host;

    if (!mem_operand(in, &in->xi.op[0], t->code64, &from))
        return false;
    struct trans_stub *read = mem_check(t, in, &from, false, &host);
    put_move(t, EMIT_MOV_LOAD, BT_T0, &host);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, scratch));
    struct trans_stub *write = mem_check(t, in, &slot, true, &host);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, scratch));
    put_move(t, EMIT_MOV_STORE, BT_T0, &host);
    pushpop_move(t, -(int32_t)word(t));
    translate_resume(t, read);
    translate_resume(t, write);
    return true;
}

/* An address that RSP is part of takes it as it is after the pop (SDM Vol. 2B, POP): such are interpreted. */
static bool put_pop_mem(struct trans *t, const struct trans_insn *in)
{
    struct mem_operand to, slot = pushpop_slot(t, EMIT_RSP, 0, false);
    struct mem_host host;

    if (!mem_operand(in, &in->xi.op[0], t->code64, &to) || to.base == EMIT_RSP)
        return false;
    struct trans_stub *read = mem_check(t, in, &slot, false, &host);
    put_move(t, EMIT_MOV_LOAD, BT_T0, &host);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, scratch));
    struct trans_stub *write = mem_check(t, in, &to, true, &host);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, scratch));
    put_move(t, EMIT_MOV_STORE, BT_T0, &host);
    pushpop_move(t, (int32_t)word(t));
    translate_resume(t, read);
    translate_resume(t, write);
    return true;
}

static bool put_pop(struct trans *t, const struct trans_insn *in)
{
    unsigned reg = (unsigned)ZydisRegisterGetId(in->xi.op[0].reg.value);
    struct mem_operand mem = pushpop_slot(t, EMIT_RSP, 0, false);
    struct mem_host host;
    struct trans_stub *stub = mem_check(t, in, &mem, false, &host);

    put_move(t, EMIT_MOV_LOAD, trans_in_memory(reg) ? BT_T0 : reg, &host);
    if (trans_in_memory(reg))
        trans_store(t, BT_T0, reg);
    if (reg != EMIT_RSP)
        pushpop_move(t, (int32_t)word(t));
    translate_resume(t, stub);
    return true;
}

static bool put_leave(struct trans *t, const struct trans_insn *in)
{
    struct mem_operand mem = pushpop_slot(t, EMIT_RBP, 0, false);
    struct mem_host host;
    struct trans_stub *stub = mem_check(t, in, &mem, false, &host);

    put_move(t, EMIT_MOV_LOAD, BT_T0, &host);
    emit_mem(&t->e, width(t), EMIT_LEA, EMIT_RSP, EMIT_RBP, EMIT_NONE, 0, (int32_t)word(t));
    emit_rr(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, EMIT_RBP);
    translate_resume(t, stub);
    return true;
}

static void note_slot(const struct trans *t, struct trans_insn *in, unsigned base, int32_t disp, bool write)
{
    in->mem = pushpop_slot(t, base, disp, write);
    in->has_mem = in->keeps_t1 = in->faults = true;
}

void pushpop_classify(const struct trans *t, struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    bool is_word = xi->insn.operand_width == word(t) * 8;

    if (!is_word || xi->insn.address_width == 16)
        return;
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        if (xi->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            in->emit = put_push_imm;
        else if (is_gpr_operand(&xi->op[0]))
            in->emit = put_push;
        if (in->emit)
            note_slot(t, in, EMIT_RSP, -(int32_t)word(t), true);
        else if (xi->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
            in->emit = put_push_mem;
        break;
    case ZYDIS_MNEMONIC_POP:
        if (is_gpr_operand(&xi->op[0])) {
            in->emit = put_pop;
            note_slot(t, in, EMIT_RSP, 0, false);
        } else if (xi->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            in->emit = put_pop_mem;
        }
        break;
    case ZYDIS_MNEMONIC_LEAVE:
        in->emit = put_leave;
        note_slot(t, in, EMIT_RBP, 0, false);
        break;
    default:
        break;
    }
}
