#include "compare.h"

#include <inttypes.h>

#include "base/util.h"

#define OTHERS UINT64_C(0x40000000) /* behind all of seq_layout.h */

struct report {
    FILE *out;
    unsigned n;
};

static void differ(struct report *report, const char *what, uint64_t native, uint64_t engine)
{
    report->n++;
    if (report->out && report->n <= 40)
        fprintf(report->out, "  %-10s native %016" PRIx64 "  engine %016" PRIx64 "\n", what, native, engine);
}

static void check(struct report *report, const char *what, uint64_t native, uint64_t engine)
{
    if (native != engine)
        differ(report, what, native, engine);
}

/* What the place where a sequence ended says about it. */
struct end {
    uint32_t undefined; /* flags */
    bool untidy;        /* memory holds what a wipe would have removed */
};

static struct end end_of(const struct seq *seq, uint64_t rip)
{
    static uint8_t code[SEQ_CODE_SIZE];
    uint32_t undef[SEQ_MAX_INSNS + 1], offsets[SEQ_MAX_INSNS + 1];
    struct end all = {0};

    (void)seq_undefined(seq, undef);
    if (!seq_assemble(seq, code, offsets))
        return all;
    for (unsigned i = 0; i <= seq->n; i++) {
        if (SEQ_CODE + offsets[i] == rip)
            return (struct end){.undefined = undef[i], .untidy = i < seq->n && seq->insn[i].wipe};
        all.undefined |= undef[i];
    }
    return all;
}

/* How makers differ in instructions that fault. */
struct quirks {
    /* AMD goes to MMX state before #XM of a conversion into an MMX register, and before #PF of MASKMOVQ. */
    bool x87_any;
    /*
     * In which order the parts of large operands and stack frames are touched is not documented, so only the page counts, and where two
     * pages may be bad, not even that; and a masked store may report a byte that it leaves out.
     */
    uint64_t cr2_mask;
    uint32_t error_mask;
    /*
     * Whether the unused end of an FXSAVE area and what a mask leaves out are touched at all: where one side faults the other may go on, and
     * come back in a later turn of a loop.
     */
    bool may_pass;
    /* A gather that faults: of the mask's elements only the signs count (SDM Vol. 2C VGATHERDPS: whether others are tidied is open). */
    int mask_reg;
    unsigned mask_element; /* bytes */
};

static bool is_frame(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_ENTER || mnemonic == ZYDIS_MNEMONIC_POPA || mnemonic == ZYDIS_MNEMONIC_POPAD ||
           mnemonic == ZYDIS_MNEMONIC_PUSHA || mnemonic == ZYDIS_MNEMONIC_PUSHAD;
}

static void quirks_of_operands(struct quirks *q, const struct seq_run *run, const ZydisDecodedInstruction *insn,
                               const ZydisDecodedOperand *ops)
{
    bool bad = run->pages[SEQ_PAGE_DATA0] || run->pages[SEQ_PAGE_DATA1]; /* and the page beside it may be too */
    unsigned n_read = 0;

    for (unsigned i = 0; i < insn->operand_count; i++) {
        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        n_read += (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
        if (ops[i].size > 256) {
            q->may_pass = true;
            q->cr2_mask = bad ? 0 : ~UINT64_C(0xfff);
            q->error_mask = bad ? ~X86_PF_P : UINT32_MAX;
        }
        if (ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
            q->mask_reg = ZydisRegisterGetId(ops[2].reg.value);
            q->mask_element = ops[0].element_size / 8;
        }
    }
    /* Which of its operands CMPS reads first is open (SDM Vol. 2A CMPS), and one maker's processors do either. */
    if (n_read > 1) {
        q->cr2_mask = 0;
        q->error_mask = ~X86_PF_P;
    }
}

static bool is_maskmov(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool decode_at(const struct seq_run *run, uint64_t rip, ZydisDecodedInstruction *insn, ZydisDecodedOperand *ops)
{
    ZydisDecoder decoder;
    uint64_t off = rip - SEQ_CODE;

    seq_decoder(&decoder, run->compat);
    return off < SEQ_CODE_SIZE &&
           ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, run->code + off, SEQ_CODE_SIZE - off, insn, ops));
}

/*
 * Whether that is #AC for an operand of more than eight bytes, or a masked one. Intel checks none of those that may be unaligned (SDM
 * Vol. 2A 2.4.4), AMD all but gathers; and which comes first, #AC or #PF, is open.
 */
static bool is_wide_ac(const struct seq_run *run, const struct seq_state *st)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    if (st->vector != X86_AC || !decode_at(run, st->rip, &insn, ops))
        return false;
    bool wide = is_maskmov(insn.mnemonic);
    for (unsigned i = 0; i < insn.operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            wide = wide || ops[i].size > 64 || ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    return wide;
}

/*
 * Whether one side has #AC where the other has #PF of the same store. SDM Vol. 3A 6.9 has #PF first; AMD's processors have either, by the
 * instruction.
 */
static bool is_ac_or_pf(const struct seq_state *a, const struct seq_state *b)
{
    const struct seq_state *pf = a->vector == X86_PF ? a : b;

    return a->rip == b->rip && a->vector + b->vector == X86_AC + X86_PF && pf->vector == X86_PF &&
           (pf->error & X86_PF_W);
}

/*
 * Whether one side has #UD where the other has #PF of the fetch, at a UD0 or UD1: processors differ in how much of those they fetch (SDM Vol. 2B UD),
 * and AMD's leave a ModRM byte's operand on the next page alone.
 */
static bool is_short_ud(const struct seq_run *run, const struct seq_state *a, const struct seq_state *b)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    return a->rip == b->rip && a->vector + b->vector == X86_UD + X86_PF && decode_at(run, a->rip, &insn, ops) &&
           (insn.mnemonic == ZYDIS_MNEMONIC_UD0 || insn.mnemonic == ZYDIS_MNEMONIC_UD1);
}

/* Whether the two went round the sequence's loops equally often: its counters (gen_flow.c) are equal. */
static bool same_turns(const struct seq_result *a, const struct seq_result *b)
{
    const size_t vars = SEQ_DATA_SIZE + SEQ_STACK_SIZE;

    return !memcmp(a->mem + vars, b->mem + vars, SEQ_MEM_SIZE - vars);
}

static struct quirks quirks_at(const struct seq_run *run)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    const struct seq_state *out = &run->out.state;
    struct quirks q = {.cr2_mask = UINT64_MAX, .error_mask = UINT32_MAX, .mask_reg = -1};

    /*
     * Linux shows programs P set for all of its own half, so as not to tell what it has mapped there. And above what sequences use lies what
     * the native program uses: its libraries, a sanitizer's shadow.
     */
    if (out->vector == X86_PF && out->cr2 >= OTHERS)
        q.error_mask = ~X86_PF_P;
    if (!decode_at(run, out->rip, &insn, ops))
        return q;
    bool to_mmx = insn.operand_count_visible && ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                  ZydisRegisterGetClass(ops[0].reg.value) == ZYDIS_REGCLASS_MMX;
    q.x87_any = out->vector == X86_XM && to_mmx;
    if (out->vector != X86_PF || (out->error & X86_PF_I))
        return q;
    quirks_of_operands(&q, run, &insn, ops);
    if (is_maskmov(insn.mnemonic)) {
        q.cr2_mask = 0;
        q.error_mask = ~X86_PF_P;
        q.may_pass = true;
        q.x87_any = insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
    }
    if (is_frame(insn.mnemonic) || insn.mnemonic == ZYDIS_MNEMONIC_FLDENV || insn.mnemonic == ZYDIS_MNEMONIC_FNSTENV)
        q.cr2_mask = ~UINT64_C(0xfff);
    return q;
}

/* The sign of each element all over it. */
static void spread_signs(uint8_t *ymm, unsigned element)
{
    for (unsigned i = 0; i < 32; i += element)
        memset(ymm + i, ymm[i + element - 1] & 0x80 ? 0xff : 0, element);
}

static void compare_vectors(struct report *report, const struct seq_state *a, const struct seq_state *b)
{
    char name[16];

    for (unsigned i = 0; i < 16; i++)
        for (unsigned q = 0; q < 4; q++) {
            snprintf(name, sizeof(name), "ymm%u[%u]", i, q);
            check(report, name, load_le64(a->ymm[i] + 8 * q), load_le64(b->ymm[i] + 8 * q));
        }
}

static void compare_x87(struct report *report, const struct seq_state *a, const struct seq_state *b)
{
    char name[16];

    check(report, "fcw", a->fcw, b->fcw);
    check(report, "fsw", a->fsw, b->fsw);
    check(report, "ftw", a->ftw, b->ftw);
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "st%u", i);
        check(report, name, load_le64(a->st[i]), load_le64(b->st[i]));
        snprintf(name, sizeof(name), "st%u.exp", i);
        check(report, name, load_le16(a->st[i] + 8), load_le16(b->st[i] + 8));
    }
}

/* Between two iterations of a string instruction a trap has RF set for Intel (SDM Vol. 3B 18.3.1.1), not for AMD. */
static uint64_t step_flags(const struct seq *seq, uint64_t rip)
{
    return ~(uint64_t)(end_of(seq, rip).undefined | X86_FLAG_RF);
}

/*
 * The first step that differs, if any. may_split: the instruction that faults is a gather, which may trap first, behind the elements that it has
 * (SDM Vol. 2C VGATHERDPS).
 */
static void compare_steps(struct report *report, const struct seq *seq, const struct seq_result *native,
                          const struct seq_result *engine, uint64_t gpr_mask, bool may_split)
{
    char name[32];

    for (unsigned i = 0; i < native->n_steps && i < engine->n_steps && !report->n; i++) {
        const struct seq_step *a = &native->step[i], *b = &engine->step[i];
        if (!memcmp(a, b, sizeof(*a)))
            continue;
        uint64_t mask = step_flags(seq, a->rip);
        snprintf(name, sizeof(name), "step %u: rip", i);
        check(report, name, a->rip, b->rip);
        check(report, "  rflags", a->rflags & mask, b->rflags & mask);
        for (unsigned r = 0; r < X86_N_GPR; r++) {
            snprintf(name, sizeof(name), "  gpr %u", r);
            check(report, name, a->gpr[r] & gpr_mask, b->gpr[r] & gpr_mask);
        }
        if (report->n && report->out)
            fprintf(report->out, "  behind step %u, at %" PRIx64 "\n", i, native->step[i ? i - 1 : 0].rip);
    }
    if (!may_split || native->n_steps != engine->n_steps + 1)
        check(report, "steps", native->n_steps, engine->n_steps);
}

/* Of a byte of the sandbox's memory. */
static uint32_t address_of(uint32_t i)
{
    if (i < SEQ_DATA_SIZE)
        return SEQ_DATA + i;
    i -= SEQ_DATA_SIZE;
    return i < SEQ_STACK_SIZE ? SEQ_STACK + i : SEQ_VARS + i - SEQ_STACK_SIZE;
}

static void compare_memory(struct report *report, const uint8_t *a, const uint8_t *b)
{
    char name[16];

    if (!memcmp(a, b, SEQ_MEM_SIZE))
        return;
    for (unsigned i = 0; i < SEQ_MEM_SIZE; i += 8)
        if (memcmp(a + i, b + i, 8)) {
            snprintf(name, sizeof(name), "%08x", address_of(i));
            differ(report, name, load_le64(a + i), load_le64(b + i));
        }
}

unsigned compare_results(const struct seq *seq, const struct seq_run *native, const struct seq_result *engine,
                         FILE *out)
{
    static const char *const gpr[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    struct report report = {.out = out};
    struct seq_state own[2] = {native->out.state, engine->state}, *a = &own[0], *b = &own[1];

    if (native->out.lost || engine->lost) {
        differ(&report, "lost", native->out.lost, engine->lost);
        return report.n;
    }
    struct quirks quirks = quirks_at(native);
    if (quirks.may_pass && (b->rip != a->rip || !same_turns(&native->out, engine)))
        return 0;
    if ((a->vector != b->vector || a->rip != b->rip) && (is_wide_ac(native, a) || is_wide_ac(native, b)))
        return 0;
    if (quirks.mask_reg >= 0) {
        spread_signs(a->ymm[quirks.mask_reg], quirks.mask_element);
        spread_signs(b->ymm[quirks.mask_reg], quirks.mask_element);
    }
    /* Upper halves after 32-bit code are undefined (SDM Vol. 1 3.4.1.1). */
    uint64_t gpr_mask = seq->compat ? UINT32_MAX : UINT64_MAX;
    if (native->single_step)
        compare_steps(&report, seq, &native->out, engine, gpr_mask, quirks.mask_reg >= 0);
    check(&report, "rip", a->rip, b->rip);
    if (!is_ac_or_pf(a, b) && !is_short_ud(native, a, b)) {
        check(&report, "vector", a->vector, b->vector);
        check(&report, "error", a->error & quirks.error_mask, b->error & quirks.error_mask);
        check(&report, "cr2", a->cr2 & quirks.cr2_mask, b->cr2 & quirks.cr2_mask);
    }
    struct end end = end_of(seq, a->rip);
    uint64_t mask = native->single_step && a->vector == X86_DB ? step_flags(seq, a->rip) : ~(uint64_t)end.undefined;
    check(&report, "rflags", a->rflags & mask, b->rflags & mask);
    for (unsigned i = 0; i < X86_N_GPR; i++)
        check(&report, gpr[i], a->gpr[i] & gpr_mask, b->gpr[i] & gpr_mask);
    check(&report, "mxcsr", a->mxcsr, b->mxcsr);
    if (!quirks.x87_any)
        compare_x87(&report, a, b);
    compare_vectors(&report, a, b);
    if (!end.untidy)
        compare_memory(&report, native->out.mem, engine->mem);
    return report.n;
}
