/*
 * Which memory operands share one check. Code accesses [rsp + 8], [rsp + 16], or pushes four registers: the first access then checks the range
 * of all of them, and those behind it, as long as the base register moves by known amounts only and T1 keeps the page's addend, need no check,
 * cannot fault, and leave EFLAGS alone.
 *
 * When the check fails the interpreter runs the group to its end, instruction by instruction. A range that lies across two pages fails each
 * time; where that happens often, the block is translated again without sharing (bt->solo).
 */
#include "engine/bt/translate.h"

#define SPAN_MAX 256 /* bytes: longer ranges cross pages too often */

static uint16_t written_registers(const struct x86_insn *xi)
{
    uint16_t written = 0;

    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);
        if (ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64)
            written |= (uint16_t)(1u << ZydisRegisterGetId(full));
    }
    return written;
}

/* By how much the instruction moves `base`; false: nobody knows. */
static bool moves_by(const struct trans_insn *in, unsigned base, int64_t *by)
{
    const struct x86_insn *xi = &in->xi;
    const ZydisDecodedOperand *op = xi->op;

    *by = 0;
    if (!(written_registers(xi) >> base & 1))
        return true;
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        *by = -8;
        return base == EMIT_RSP;
    case ZYDIS_MNEMONIC_POP:
        *by = 8;
        return base == EMIT_RSP && (op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || op[0].reg.value != ZYDIS_REGISTER_RSP);
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (xi->insn.operand_width != 64 || op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
            op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return false;
        *by = xi->insn.mnemonic == ZYDIS_MNEMONIC_ADD ? op[1].imm.value.s : -op[1].imm.value.s;
        return true;
    case ZYDIS_MNEMONIC_LEA:
        if (xi->insn.operand_width != 64 || ZydisRegisterGetId(op[1].mem.base) != (ZyanI8)base ||
            op[1].mem.index != ZYDIS_REGISTER_NONE || xi->insn.address_width != 64)
            return false;
        *by = op[1].mem.disp.has_displacement ? op[1].mem.disp.value : 0;
        return true;
    default:
        return false;
    }
}

static bool may_share(const struct trans_insn *in)
{
    return in->has_mem && in->keeps_t1 && !in->mem.align && !in->mem.bit_string && mem_is_plain(&in->mem);
}

/* Extends the leader's group as far as it goes; returns the index of its last member. */
static unsigned extend(struct trans *t, unsigned first)
{
    struct trans_insn *lead = &t->insn[first];
    unsigned base = lead->mem.base, last = first;
    int64_t moved = 0, by, low = lead->mem.disp, high = low + lead->mem.size;

    for (unsigned i = first; i < t->n; i++) {
        struct trans_insn *in = &t->insn[i];
        if (i > first) {
            if (!in->keeps_t1)
                break;
            if (in->has_mem) {
                int64_t at = in->mem.disp + moved, end = at + in->mem.size;
                int64_t new_low = at < low ? at : low, new_high = end > high ? end : high;
                if (!may_share(in) || in->mem.base != base || new_high - new_low > SPAN_MAX)
                    break;
                low = new_low;
                high = new_high;
                lead->group.write |= in->mem.write;
                last = i;
            }
        }
        if (!moves_by(in, base, &by) || moved + by != (int32_t)(moved + by))
            break;
        moved += by;
    }
    lead->group.low = (int32_t)low;
    lead->group.high = (int32_t)high;
    return last;
}

static bool is_solo(const struct trans *t, const struct trans_insn *in)
{
    return t->bt->solo[group_solo_slot(t->block, in->rip)];
}

void group_find(struct trans *t)
{
    t->block->n_solo = 0;
    for (unsigned i = 0; i < t->n; i++)
        t->block->n_solo += is_solo(t, &t->insn[i]);
    for (unsigned i = 0; i < t->n; i++) {
        struct trans_insn *in = &t->insn[i];
        if (!may_share(in) || is_solo(t, in))
            continue;
        in->group.write = in->mem.write;
        unsigned last = extend(t, i);
        if (last == i)
            continue;
        in->group.role = GROUP_LEADS;
        in->group.last = (uint8_t)last;
        for (unsigned j = i + 1; j <= last; j++) {
            if (!t->insn[j].has_mem)
                continue;
            t->insn[j].group.role = GROUP_FOLLOWS;
            t->insn[j].faults = false;
        }
        i = last;
    }
}
