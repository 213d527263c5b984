#include "compare.h"

#include <inttypes.h>

#include "base/util.h"

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

/* Flags that are undefined where the sequence ended. */
static uint32_t undefined_at(const struct seq *seq, uint64_t rip)
{
    static uint8_t code[SEQ_CODE_SIZE];
    uint32_t undef[SEQ_MAX_INSNS + 1], offsets[SEQ_MAX_INSNS + 1], len, all = 0;

    (void)seq_undefined(seq, undef);
    if (!seq_assemble(seq, code, &len, offsets))
        return 0;
    for (unsigned i = 0; i <= seq->n; i++) {
        if (SEQ_CODE + offsets[i] == rip)
            return undef[i];
        all |= undef[i];
    }
    return all;
}

/* How makers differ in instructions that fault. */
struct quirks {
    /* AMD goes to MMX state before #XM of a conversion into an MMX register, and before #PF of MASKMOVQ. */
    bool x87_any;
    /*
     * In which order the parts of x87 and XSAVE areas are touched is not documented, so only the page counts; and a masked store may
     * report a byte that it leaves out.
     */
    uint64_t cr2_mask;
};

static struct quirks quirks_at(const struct seq_run *run)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t off = run->out.rip - SEQ_CODE;
    struct quirks q = {.cr2_mask = UINT64_MAX};

    seq_decoder(&decoder, run->compat);
    if (off >= run->code_len ||
        ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, run->code + off, run->code_len - off, &insn, ops)))
        return q;
    bool to_mmx = insn.operand_count_visible && ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                  ZydisRegisterGetClass(ops[0].reg.value) == ZYDIS_REGCLASS_MMX;
    q.x87_any = run->out.vector == X86_XM && to_mmx;
    for (unsigned i = 0; i < insn.operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[i].size > 256)
            q.cr2_mask = ~UINT64_C(0xfff);
    if (insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
        insn.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU) {
        q.cr2_mask = 0;
        q.x87_any = insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
    }
    if (insn.mnemonic == ZYDIS_MNEMONIC_FLDENV || insn.mnemonic == ZYDIS_MNEMONIC_FNSTENV)
        q.cr2_mask = ~UINT64_C(0xfff);
    return q;
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

static void compare_memory(struct report *report, const uint8_t *a, const uint8_t *b)
{
    char name[16];

    if (!memcmp(a, b, SEQ_MEM_SIZE))
        return;
    for (unsigned i = 0; i < SEQ_MEM_SIZE; i += 8)
        if (memcmp(a + i, b + i, 8)) {
            snprintf(name, sizeof(name), "%08x", i < SEQ_DATA_SIZE ? SEQ_DATA + i : SEQ_STACK + i - SEQ_DATA_SIZE);
            differ(report, name, load_le64(a + i), load_le64(b + i));
        }
}

unsigned compare_runs(const struct seq *seq, const struct seq_run *native, const struct seq_run *engine, FILE *out)
{
    static const char *const gpr[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    struct report report = {.out = out};
    const struct seq_state *a = &native->out, *b = &engine->out;

    if (native->lost || engine->lost) {
        differ(&report, "lost", native->lost, engine->lost);
        return report.n;
    }
    struct quirks quirks = quirks_at(native);
    check(&report, "vector", a->vector, b->vector);
    check(&report, "rip", a->rip, b->rip);
    /* Linux shows programs P set for all of its own half, so as not to tell what it has mapped there. */
    uint32_t error_mask = a->vector == X86_PF && a->cr2 >> 63 ? ~X86_PF_P : UINT32_MAX;
    if (a->vector == b->vector)
        check(&report, "error", a->error & error_mask, b->error & error_mask);
    check(&report, "cr2", a->cr2 & quirks.cr2_mask, b->cr2 & quirks.cr2_mask);
    uint32_t mask = ~undefined_at(seq, a->rip);
    check(&report, "rflags", a->rflags & mask, b->rflags & mask);
    /* Upper halves after 32-bit code are undefined (SDM Vol. 1 3.4.1.1). */
    uint64_t gpr_mask = seq->compat ? UINT32_MAX : UINT64_MAX;
    for (unsigned i = 0; i < X86_N_GPR; i++)
        check(&report, gpr[i], a->gpr[i] & gpr_mask, b->gpr[i] & gpr_mask);
    check(&report, "mxcsr", a->mxcsr, b->mxcsr);
    if (!quirks.x87_any)
        compare_x87(&report, a, b);
    compare_vectors(&report, a, b);
    compare_memory(&report, native->mem_out, engine->mem_out);
    return report.n;
}
