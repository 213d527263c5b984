/*
 * Jumps, calls and returns. A direct jump is a link, which the cache joins to its target; an indirect one looks its target up in the jump cache:
 *
 *     mov  t0, target
 *     mov  t1, [jump_base8] ; mov t1w, t0w ; jmp [t1 * 8]
 *
 * What it meets there checks that RIP (T0) is its own.
 */
#include "engine/bt/translate.h"
#include "engine/interp/seg.h"

static uint64_t next_rip(const struct trans *t, const struct trans_insn *in)
{
    uint64_t next = in->rip + in->xi.insn.length;
    return t->code64 ? next : (uint32_t)next;
}

static uint64_t direct_target(const struct trans *t, const struct trans_insn *in)
{
    uint64_t target = next_rip(t, in) + in->xi.op[0].imm.value.u;
    return t->code64 ? target : (uint32_t)target;
}

void flow_jump_through(struct emit *e, const struct bt *bt)
{
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_ABS(bt, jump_base8));
    emit8(e, 0x66);
    emit_rr(e, EMIT_32, EMIT_MOV_STORE, BT_T0, BT_T1);
    emit_mem(e, EMIT_32, 0xff, 4, EMIT_NONE, BT_T1, 3, 0);
}

void flow_exit(struct trans *t, uint64_t rip)
{
    translate_exit(t, emit_jmp_later(&t->e), rip);
}

/* ---- direct ---- */

static bool put_jmp(struct trans *t, const struct trans_insn *in)
{
    flow_exit(t, direct_target(t, in));
    return true;
}

static bool put_jcc(struct trans *t, const struct trans_insn *in)
{
    /* Opcodes 70 to 7F and 0F 80 to 8F have the condition in their low digit. */
    unsigned cc = in->xi.insn.opcode & 15;

    flags_need(t, in);
    translate_exit(t, emit_jcc_later(&t->e, cc), direct_target(t, in));
    return true;
}

static bool put_call(struct trans *t, const struct trans_insn *in)
{
    pushpop_constant(t, in, next_rip(t, in));
    flow_exit(t, direct_target(t, in));
    return true;
}

/* ---- indirect ---- */

/* What the interpreter needs to do it again, should the target be no address at all. */
static void put_note(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;

    if (in->rip == (uint64_t)(int32_t)in->rip) {
        emit_abs(e, EMIT_64, 0xc7, 0, BT_ABS(t->bt, indirect_rip));
        emit32(e, (uint32_t)in->rip);
    } else {
        trans_linear(t, BT_T1, in->rip);
        emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T1, BT_ABS(t->bt, indirect_rip));
    }
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, EMIT_RSP, BT_ABS(t->bt, indirect_rsp));
}

static bool put_ret(struct trans *t, const struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    int32_t word = t->code64 ? 8 : 4;
    int32_t more = xi->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (int32_t)xi->op[0].imm.value.u : 0;
    struct mem_operand mem = pushpop_slot(t, EMIT_RSP, 0, false);
    struct mem_host host;

    mem_check(t, in, &mem, false, &host);
    flags_keep(t);
    emit_mem(&t->e, t->code64 ? EMIT_64 : EMIT_32, EMIT_MOV_LOAD, BT_T0, host.base, host.index, 0, host.disp);
    put_note(t, in);
    pushpop_move(t, word + more);
    flow_jump_through(&t->e, t->bt);
    return true;
}

/* The target of an indirect jump or call into T0. */
static bool put_target(struct trans *t, const struct trans_insn *in)
{
    const ZydisDecodedOperand *op = &in->xi.op[0];
    enum emit_width w = t->code64 ? EMIT_64 : EMIT_32;
    struct mem_operand mem;
    struct mem_host host;

    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned reg = (unsigned)ZydisRegisterGetId(op->reg.value);
        flags_keep(t);
        if (trans_in_memory(reg))
            trans_load(t, BT_T0, reg);
        else
            emit_rr(&t->e, w, EMIT_MOV_STORE, reg, BT_T0);
        return true;
    }
    if (!mem_operand(in, op, t->code64, &mem))
        return false;
    mem_check(t, in, &mem, false, &host);
    emit_mem(&t->e, w, EMIT_MOV_LOAD, BT_T0, host.base, host.index, 0, host.disp);
    return true;
}

static bool put_jmp_indirect(struct trans *t, const struct trans_insn *in)
{
    if (!put_target(t, in))
        return false;
    put_note(t, in);
    flow_jump_through(&t->e, t->bt);
    return true;
}

#define SHL 4
#define SAR 7

/* The target waits in memory while the return address is pushed; one that is no address must be seen before that (SDM Vol. 2A CALL). */
static bool put_call_indirect(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;

    if (!put_target(t, in))
        return false;
    emit_abs(e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_ABS(t->bt, call_target));
    if (t->code64) {
        EMIT(e, 0x49, 0xc1, (uint8_t)(0xc0 | SHL << 3 | (BT_T0 & 7)), 16);
        EMIT(e, 0x49, 0xc1, (uint8_t)(0xc0 | SAR << 3 | (BT_T0 & 7)), 16);
        emit_abs(e, EMIT_64, EMIT_CMP_LOAD, BT_T0, BT_ABS(t->bt, call_target));
        translate_slow(t, in, emit_jcc_later(e, EMIT_NE));
    }
    pushpop_constant(t, in, next_rip(t, in));
    emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T0, BT_ABS(t->bt, call_target));
    flow_jump_through(e, t->bt);
    return true;
}

/* ---- which ---- */

static bool is_near(const struct x86_insn *xi)
{
    return xi->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
}

static bool is_full_width(const struct trans *t, const struct x86_insn *xi)
{
    return xi->insn.operand_width == (t->code64 ? 64 : 32);
}

void flow_classify(const struct trans *t, struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    bool direct = xi->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && xi->op[0].imm.is_relative;
    bool conditional = xi->insn.meta.category == ZYDIS_CATEGORY_COND_BR;

    if (!is_near(xi) || !is_full_width(t, xi) || (direct && !seg_canonical(direct_target(t, in))))
        return;
    if (conditional) {
        bool by_flags = xi->insn.cpu_flags && xi->insn.cpu_flags->tested;
        if (by_flags && direct && xi->insn.mnemonic != ZYDIS_MNEMONIC_LOOPE &&
            xi->insn.mnemonic != ZYDIS_MNEMONIC_LOOPNE) {
            in->emit = put_jcc;
            in->flags_read = X86_FLAGS_STATUS; /* where it leads to any of them may be read */
        }
        return;
    }
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        in->emit = direct ? put_jmp : put_jmp_indirect;
        break;
    case ZYDIS_MNEMONIC_CALL:
        in->emit = direct ? put_call : put_call_indirect;
        in->mem = pushpop_slot(t, EMIT_RSP, t->code64 ? -8 : -4, true);
        in->has_mem = in->keeps_t1 = direct;
        in->faults = true;
        break;
    case ZYDIS_MNEMONIC_RET:
        in->emit = put_ret;
        in->mem = pushpop_slot(t, EMIT_RSP, 0, false);
        in->has_mem = in->keeps_t1 = in->faults = true;
        break;
    default:
        return;
    }
    in->ends = true;
}
