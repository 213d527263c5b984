#include "seq.h"

#include <inttypes.h>

void seq_decoder(ZydisDecoder *decoder, bool compat)
{
    if (compat)
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

/* The count of a shift or rotate, masked as the CPU does, or -1 when it is in CL. */
static int shift_count(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    const ZydisDecodedOperand *count = &ops[insn->operand_count_visible - 1];

    if (insn->operand_count_visible < 2 || count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return insn->operand_count_visible < 2 ? 1 : -1;
    return (int)(count->imm.value.u & (insn->operand_width == 64 ? 63 : 31));
}

/*
 * Zydis knows what the opcode does; what the SDM says about counts is added here (SDM Vol. 2B SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR,
 * SHLD): no flag changes for a count of 0, OF is defined for 1 only, CF of SHL and SHR not once the count reaches the operand's size.
 */
static void shift_flags(struct seq_insn *si, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    int count = shift_count(insn, ops);
    bool plain = insn->meta.category == ZYDIS_CATEGORY_SHIFT;

    if (count == 0) {
        si->flags_def = si->flags_undef = 0;
        return;
    }
    if (count != 1)
        si->flags_undef |= X86_FLAG_OF;
    if (plain)
        si->flags_undef |= X86_FLAG_AF;
    if (plain && insn->operand_width < 32 && (count < 0 || count >= insn->operand_width) &&
        insn->mnemonic != ZYDIS_MNEMONIC_SAR)
        si->flags_undef |= X86_FLAG_CF;
    if (count < 0)
        si->flags_def = 0;
}

static bool flags_may_stay(const ZydisDecodedInstruction *insn)
{
    return insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

static void note_flags(struct seq_insn *si, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    const ZydisAccessedFlags *f = insn->cpu_flags;

    if (!f)
        return;
    si->flags_read = f->tested & X86_FLAGS_STATUS;
    si->flags_undef = f->undefined & X86_FLAGS_STATUS;
    si->flags_def = (f->modified | f->set_0 | f->set_1) & X86_FLAGS_STATUS;
    bool bmi = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX; /* SHLX and its like touch no flags */
    if (!bmi && (insn->meta.category == ZYDIS_CATEGORY_SHIFT || insn->meta.category == ZYDIS_CATEGORY_ROTATE))
        shift_flags(si, insn, ops);
    if (flags_may_stay(insn))
        si->flags_def = 0;
    si->flags_def &= ~si->flags_undef;
}

bool seq_add(struct seq *seq, unsigned group, const uint8_t *bytes, unsigned len)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    if (seq->n >= SEQ_MAX_INSNS)
        return false;
    seq_decoder(&decoder, seq->compat);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, len, &insn, ops)) || insn.length != len)
        return false;
    struct seq_insn *si = &seq->insn[seq->n++];
    *si = (struct seq_insn){.len = (uint8_t)len, .group = (uint8_t)group};
    memcpy(si->bytes, bytes, len);
    note_flags(si, &insn, ops);
    return true;
}

bool seq_undefined(const struct seq *seq, uint32_t *undef)
{
    uint32_t join[SEQ_MAX_GROUPS + 8] = {0};
    uint32_t now = 0;
    bool ok = true;

    for (unsigned i = 0; i < seq->n; i++) {
        const struct seq_insn *si = &seq->insn[i];
        for (unsigned g = 0; g <= si->group; g++) {
            now |= join[g];
            join[g] = 0;
        }
        undef[i] = now;
        ok = ok && !(si->flags_read & now);
        now = (now & ~si->flags_def) | si->flags_undef;
        if (si->fix == SEQ_FIX_LABEL_REL || si->fix == SEQ_FIX_LABEL_ABS)
            join[si->target] |= now;
    }
    for (unsigned g = 0; g < SEQ_MAX_GROUPS + 8; g++)
        now |= join[g];
    undef[seq->n] = now;
    return ok;
}

static uint32_t label(const struct seq *seq, const uint32_t *offsets, uint32_t group)
{
    unsigned i = 0;
    while (i < seq->n && seq->insn[i].group < group)
        i++;
    return offsets[i];
}

bool seq_assemble(const struct seq *seq, uint8_t *code, uint32_t *len, uint32_t *offsets)
{
    uint32_t own[SEQ_MAX_INSNS + 1], at = 0;

    if (!offsets)
        offsets = own;
    for (unsigned i = 0; i < seq->n; i++) {
        offsets[i] = at;
        at += seq->insn[i].len;
    }
    offsets[seq->n] = at;
    *len = at + 2;
    if (*len > SEQ_CODE_SIZE)
        return false;

    for (unsigned i = 0; i < seq->n; i++) {
        const struct seq_insn *si = &seq->insn[i];
        uint8_t *p = code + offsets[i];
        memcpy(p, si->bytes, si->len);
        int64_t next = SEQ_CODE + offsets[i] + si->len, val = 0;
        switch ((enum seq_fix)si->fix) {
        case SEQ_FIX_NONE:
            continue;
        case SEQ_FIX_LABEL_REL:
            val = SEQ_CODE + label(seq, offsets, si->target) - next;
            break;
        case SEQ_FIX_LABEL_ABS:
            val = SEQ_CODE + label(seq, offsets, si->target);
            break;
        case SEQ_FIX_DATA_REL:
            val = si->target - next;
            break;
        }
        if (si->fix_size == 1 && val != (int8_t)val)
            return false;
        memcpy(p + si->fix_off, &val, si->fix_size);
    }
    memcpy(code + at, "\x0f\x0b", 2);
    return true;
}

void seq_drop(struct seq *seq, unsigned group)
{
    unsigned n = 0;
    for (unsigned i = 0; i < seq->n; i++)
        if (seq->insn[i].group != group)
            seq->insn[n++] = seq->insn[i];
    seq->n = n;
}

void seq_print(const struct seq *seq, FILE *out)
{
    static uint8_t code[SEQ_CODE_SIZE];
    uint32_t offsets[SEQ_MAX_INSNS + 1], undef[SEQ_MAX_INSNS + 1], len;
    ZydisDecoder decoder;
    ZydisFormatter formatter;

    if (!seq_assemble(seq, code, &len, offsets))
        return;
    (void)seq_undefined(seq, undef);
    seq_decoder(&decoder, seq->compat);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned i = 0; i < seq->n; i++) {
        ZydisDecodedInstruction insn;
        ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
        char text[128] = "?", hex[48] = "";
        uint64_t addr = SEQ_CODE + offsets[i];
        for (unsigned b = 0; b < seq->insn[i].len; b++)
            sprintf(hex + 2 * b, "%02x", code[offsets[i] + b]);
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code + offsets[i], len - offsets[i], &insn, ops)))
            ZydisFormatterFormatInstruction(&formatter, &insn, ops, insn.operand_count_visible, text, sizeof(text),
                                            addr, NULL);
        fprintf(out, "  %3u %08" PRIx64 "  %-30s %s\n", seq->insn[i].group, addr, hex, text);
    }
}

void seq_pool(uint8_t pool[SEQ_POOL_SIZE])
{
    for (unsigned i = 0; i < 512; i++) {
        int32_t v = (int32_t)(i * 37 % (2 * SEQ_POOL_INDEX_MAX + 1)) - SEQ_POOL_INDEX_MAX;
        int64_t w = v;
        memcpy(pool + 4 * i, &v, 4);
        if (i < 256)
            memcpy(pool + 2048 + 8 * i, &w, 8);
    }
}
