#include "seq.h"

#include <inttypes.h>

#include "base/util.h"

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
    si->calls = insn.meta.category == ZYDIS_CATEGORY_CALL;
    si->returns = insn.meta.category == ZYDIS_CATEGORY_RET;
    note_flags(si, &insn, ops);
    return true;
}

static bool goes_to_label(const struct seq_insn *si)
{
    return si->fix == SEQ_FIX_LABEL_REL || si->fix == SEQ_FIX_LABEL_ABS || si->fix == SEQ_FIX_FLOW;
}

#define N_LABELS    (SEQ_MAX_GROUPS + 8)
#define AFTER_CALLS N_LABELS /* a join of its own: what returns bring behind any call */

static bool bring(uint32_t *join, uint32_t undef)
{
    bool grown = undef & ~*join;

    *join |= undef;
    return grown;
}

/* One walk; true when what jumps bring to a group has grown. */
static bool flow_flags(const struct seq *seq, uint32_t *join, uint32_t *undef)
{
    uint32_t now = 0;
    unsigned next = 0; /* group whose label comes next */
    bool grown = false;

    for (unsigned i = 0; i < seq->n; i++) {
        const struct seq_insn *si = &seq->insn[i];
        for (; next <= si->group; next++)
            now |= join[next];
        undef[i] = now;
        now = (now & ~si->flags_def) | si->flags_undef;
        if (goes_to_label(si))
            grown |= bring(&join[si->target], now);
        if (si->returns)
            grown |= bring(&join[AFTER_CALLS], now);
        if (si->calls)
            now |= join[AFTER_CALLS];
    }
    for (; next < N_LABELS; next++)
        now |= join[next];
    undef[seq->n] = now;
    return grown;
}

bool seq_undefined(const struct seq *seq, uint32_t *undef)
{
    uint32_t join[N_LABELS + 1] = {0};

    while (flow_flags(seq, join, undef))
        ;
    for (unsigned i = 0; i < seq->n; i++)
        if (seq->insn[i].flags_read & undef[i])
            return false;
    return true;
}

static unsigned first_of(const struct seq *seq, uint32_t group)
{
    unsigned i = 0;
    while (i < seq->n && seq->insn[i].group < group)
        i++;
    return i;
}

static int64_t fixed_value(const struct seq *seq, const uint32_t *offsets, unsigned i)
{
    const struct seq_insn *si = &seq->insn[i];
    unsigned to = si->fix == SEQ_FIX_DATA_REL ? 0 : first_of(seq, si->target);
    int64_t next = SEQ_CODE + offsets[i] + si->len;

    switch ((enum seq_fix)si->fix) {
    case SEQ_FIX_LABEL_REL:
        return SEQ_CODE + offsets[to] - next;
    case SEQ_FIX_LABEL_ABS:
        return SEQ_CODE + offsets[to];
    case SEQ_FIX_DATA_REL:
        return si->target - next;
    case SEQ_FIX_PATCH:
        if (to == seq->n || seq->insn[to].group != si->target || !seq->insn[to].patchable)
            return SEQ_VAR(SEQ_VAR_DUMP);
        return SEQ_CODE + offsets[to] + 1;
    case SEQ_FIX_NONE:
    case SEQ_FIX_FLOW:
        break;
    }
    return 0;
}

bool seq_assemble(const struct seq *seq, uint8_t code[SEQ_CODE_SIZE], uint32_t *offsets)
{
    uint32_t own[SEQ_MAX_INSNS + 1], at = seq->origin;

    if (!offsets)
        offsets = own;
    for (unsigned i = 0; i < seq->n; i++) {
        offsets[i] = at;
        at += seq->insn[i].len;
    }
    offsets[seq->n] = at;
    if (at + 2 > SEQ_CODE_SIZE)
        return false;

    memset(code, 0xcc, SEQ_CODE_SIZE);
    for (unsigned i = 0; i < seq->n; i++) {
        const struct seq_insn *si = &seq->insn[i];
        uint8_t *p = code + offsets[i];
        memcpy(p, si->bytes, si->len);
        if (si->fix == SEQ_FIX_NONE || si->fix == SEQ_FIX_FLOW)
            continue;
        int64_t val = fixed_value(seq, offsets, i);
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
    uint32_t offsets[SEQ_MAX_INSNS + 1], undef[SEQ_MAX_INSNS + 1];
    ZydisDecoder decoder;
    ZydisFormatter formatter;

    if (!seq_assemble(seq, code, offsets))
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
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code + offsets[i], SEQ_CODE_SIZE - offsets[i], &insn, ops)))
            ZydisFormatterFormatInstruction(&formatter, &insn, ops, insn.operand_count_visible, text, sizeof(text),
                                            addr, NULL);
        fprintf(out, "  %3u %08" PRIx64 "  %-30s %s\n", seq->insn[i].group, addr, hex, text);
    }
}

#define XSAVE_YMM 576

void seq_from_xsave(struct seq_state *st, const uint8_t *area)
{
    uint64_t in_use = load_le64(area + SEQ_XSAVE_HEADER);

    st->fcw = load_le16(area);
    st->fsw = load_le16(area + 2);
    st->ftw = area[4];
    st->mxcsr = load_le32(area + 24);
    for (unsigned i = 0; i < 8; i++)
        memcpy(st->st[i], area + 32 + 16 * i, 10);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(st->ymm[i], area + 160 + 16 * i, 16);
        memset(st->ymm[i] + 16, 0, 16);
        if (in_use & 4)
            memcpy(st->ymm[i] + 16, area + XSAVE_YMM + 16 * i, 16);
    }
}

void seq_to_xsave(const struct seq_state *st, uint8_t *area)
{
    memset(area, 0, XSAVE_YMM);
    store_le16(area, st->fcw);
    store_le16(area + 2, st->fsw);
    area[4] = st->ftw;
    store_le32(area + 24, st->mxcsr);
    store_le64(area + SEQ_XSAVE_HEADER, 7);
    for (unsigned i = 0; i < 8; i++)
        memcpy(area + 32 + 16 * i, st->st[i], 10);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(area + 160 + 16 * i, st->ymm[i], 16);
        memcpy(area + XSAVE_YMM + 16 * i, st->ymm[i] + 16, 16);
    }
}

uint32_t seq_page_address(enum seq_page page)
{
    static const uint32_t address[SEQ_N_PAGES] = {SEQ_DATA, SEQ_DATA + 4096, SEQ_STACK, SEQ_CODE + 4096};
    return address[page];
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
