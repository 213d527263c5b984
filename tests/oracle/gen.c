#include "gen.h"

#include "base/util.h"
#include "gen_int.h"

static const unsigned class_weight[FORM_N_CLASSES] = {
    [FORM_INTEGER] = 44, [FORM_X87] = 12, [FORM_MMX] = 7, [FORM_SSE] = 16, [FORM_AVX] = 20, [FORM_PRIVILEGED] = 1,
};

static const struct form *pick_form(struct gen *g)
{
    unsigned roll = rng_below(&g->rng, 100), class = 0;

    while (class + 1 < FORM_N_CLASSES && roll >= class_weight[class])
        roll -= class_weight[class ++];
    const struct form_class_index *index = &g->forms->class[class];
    if (!index->n)
        index = &g->forms->class[FORM_INTEGER];
    size_t m = rng_below(&g->rng, (unsigned)index->n);
    if (g->forms->form[index->first[m]].mnemonic >= ZYDIS_MNEMONIC_UD0 &&
        g->forms->form[index->first[m]].mnemonic <= ZYDIS_MNEMONIC_UD2)
        m = rng_below(&g->rng, (unsigned)index->n); /* they end the sequence: few are enough */
    return &g->forms->form[index->first[m] + rng_below(&g->rng, (unsigned)(index->first[m + 1] - index->first[m]))];
}

static ZydisRegister pick_register(struct gen *g, ZydisRegister like)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(like);

    switch (class) {
    case ZYDIS_REGCLASS_GPR8:
        return ZYDIS_REGISTER_AL +
               rng_below(&g->rng, (g->compat ? ZYDIS_REGISTER_BH : ZYDIS_REGISTER_R15B) - ZYDIS_REGISTER_AL + 1);
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        return ZydisRegisterEncode(class, (ZyanU8)rng_below(&g->rng, g->n_regs));
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_X87:
        return ZydisRegisterEncode(class, (ZyanU8)rng_below(&g->rng, 8));
    case ZYDIS_REGCLASS_SEGMENT:
        return ZYDIS_REGISTER_ES + rng_below(&g->rng, 6);
    default:
        return like;
    }
}

static uint64_t pick_immediate(struct gen *g, const struct form *form)
{
    uint64_t v = rng_percent(&g->rng, 40) ? rng_below(&g->rng, 70) : rng_edge(&g->rng);
    unsigned bits = form->imm_size;

    if (form->mnemonic == ZYDIS_MNEMONIC_ENTER) /* size, then nesting level */
        return v & 3;
    if (bits >= 64)
        return v;
    v &= (UINT64_C(1) << bits) - 1;
    if (form->imm_signed && (v >> (bits - 1) & 1))
        v |= ~((UINT64_C(1) << bits) - 1);
    return v;
}

static bool vary(struct gen *g, const struct form *form, ZydisEncoderRequest *req, struct gen_mem *mem)
{
    for (unsigned i = 0; i < req->operand_count; i++) {
        ZydisEncoderOperand *op = &req->operands[i];
        if (!form->vary[i])
            continue;
        switch (op->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            op->reg.value = pick_register(g, op->reg.value);
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (!gen_mem_pick(g, form, form->size[i] / 8 ? form->size[i] / 8 : 1, op, &req->prefixes, mem))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            op->imm.u = pick_immediate(g, form);
            break;
        default:
            break;
        }
    }
    if (form->mnemonic == ZYDIS_MNEMONIC_ENTER)
        req->operands[0].imm.u = 8 * rng_below(&g->rng, 8);
    return true;
}

static bool is_rsp(ZydisRegister reg)
{
    return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) == ZYDIS_REGISTER_RSP;
}

/*
 * 16-bit addresses and CS as a store's segment always fault here. Whether alignment or the missing page is told first, and whether a
 * mask of zeroes faults at all, is each maker's own.
 */
static bool faults_alike(const ZydisDecodedInstruction *insn)
{
    bool masked = insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
                  insn->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
    bool checked = insn->meta.isa_set == ZYDIS_ISA_SET_XSAVE || insn->meta.isa_set == ZYDIS_ISA_SET_FXSAVE ||
                   insn->meta.isa_set == ZYDIS_ISA_SET_SHA;

    if (masked && (insn->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS))
        return false;
    return !(masked || checked) || insn->address_width != 16;
}

/* Who may move RSP: only what moves it by a little. No BSWAP of 16 bits, which is undefined. */
static bool acceptable(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    if (insn->mnemonic == ZYDIS_MNEMONIC_BSWAP && insn->operand_width == 16)
        return false;
    /* PREFETCHW's opcode with a register: Intel has a NOP there, AMD #UD. */
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F && insn->opcode == 0x0d && insn->raw.modrm.mod == 3)
        return false;
    /* A selector is pushed in 32-bit code with its upper half zero by AMD, and without an upper half by Intel (SDM Vol. 2B PUSH). */
    if (insn->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && insn->mnemonic == ZYDIS_MNEMONIC_PUSH &&
        ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(ops[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
        return false;
    /* F3 REX.B 90: the decoder's tables have PAUSE, CPUs exchange R8 with RAX. */
    if (insn->mnemonic == ZYDIS_MNEMONIC_PAUSE && insn->raw.rex.B)
        return false;
    if (!faults_alike(insn))
        return false;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        bool explicit = ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
        if (explicit && ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && is_rsp(ops[i].reg.value) &&
            (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return false;
    }
    return true;
}

static void forget_pointers(struct gen *g, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
            ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, ops[i].reg.value);
            if (ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64)
                g->pointers &= (uint16_t) ~(1u << ZydisRegisterGetId(full));
        }
}

/* A gather's destination, index and mask must differ, or it is #UD: let a few through. */
static bool fix_up_memory(struct gen *g, const ZydisDecodedInstruction *insn, const struct gen_mem *mem)
{
    struct seq_insn *si = &g->seq->insn[g->seq->n - 1];

    if (!mem->used || !mem->rip)
        return true;
    if (insn->raw.disp.size != 32)
        return false;
    si->fix = SEQ_FIX_DATA_REL;
    si->fix_off = insn->raw.disp.offset;
    si->fix_size = 4;
    si->target = mem->target;
    return true;
}

/*
 * What no assembler emits: prefixes that mean nothing here, that repeat, or that make another instruction of it. The result is
 * judged by the decoder afterwards.
 */
static ZyanUSize add_prefixes(struct gen *g, uint8_t *bytes, ZyanUSize len)
{
    static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x66, 0x67, 0xf2, 0xf3, 0x40};

    for (unsigned n = 1 + rng_below(&g->rng, 2); n && len < ZYDIS_MAX_INSTRUCTION_LENGTH; n--, len++) {
        memmove(bytes + 1, bytes, len);
        bytes[0] = prefixes[rng_below(&g->rng, ARRAY_SIZE(prefixes))];
    }
    return len;
}

/* One try at an instruction of the form, with what belongs around it; on failure the sequence is as before. */
static bool try_form(struct gen *g, const struct form *form)
{
    ZydisEncoderRequest req = form->req;
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    struct gen_mem mem = {.base = -1, .index = -1, .vector_index = -1};
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    ZyanUSize len = sizeof(bytes);
    uint32_t undef[SEQ_MAX_INSNS + 1];
    unsigned n = g->seq->n;

    seq_decoder(&decoder, g->compat);
    if (!vary(g, form, &req, &mem) || ZYAN_FAILED(ZydisEncoderEncodeInstruction(&req, bytes, &len)))
        return false;
    if (rng_percent(&g->rng, 4))
        len = add_prefixes(g, bytes, len);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, len, &insn, ops)) || insn.length != len ||
        !forms_allow(&insn, ops) || !acceptable(&insn, ops))
        return false;
    if (!gen_before(g, &insn, ops, &mem) || !gen_mem_setup(g, &mem))
        goto undo;
    if (!gen_bytes(g, bytes, (unsigned)len) || !fix_up_memory(g, &insn, &mem))
        goto undo;
    if (!seq_undefined(g->seq, undef)) { /* it reads flags that are undefined by now */
        g->seq->n--;
        if (!gen_define_flags(g) || !gen_mem_setup(g, &mem) || !gen_bytes(g, bytes, (unsigned)len) ||
            !fix_up_memory(g, &insn, &mem) || !seq_undefined(g->seq, undef))
            goto undo;
    }
    forget_pointers(g, &insn, ops);
    if (!gen_after(g, &insn, &mem))
        goto undo;
    return true;
undo:
    g->seq->n = n;
    return false;
}

/* GPRs: edge values; a few point into the data. The flags that a program may have. */
static void initial_state(struct gen *g, struct seq_state *st)
{
    struct rng *rng = &g->rng;

    memset(st, 0, sizeof(*st));
    for (unsigned i = 0; i < X86_N_GPR; i++) {
        st->gpr[i] = rng_edge(rng);
        if (i != X86_RSP && rng_percent(rng, 30)) {
            st->gpr[i] = SEQ_DATA + 512 + rng_below(rng, SEQ_DATA_SIZE - 1024);
            g->pointers |= (uint16_t)(1u << i);
        }
    }
    if (g->compat)
        for (unsigned i = 0; i < X86_N_GPR; i++)
            st->gpr[i] = (uint32_t)st->gpr[i];
    st->gpr[X86_RSP] =
        SEQ_STACK + SEQ_STACK_SIZE / 2 - (rng_percent(rng, 80) ? 8 * rng_below(rng, 8) : rng_below(rng, 64));
    memcpy(g->initial, st->gpr, sizeof(g->initial));
    if (rng_percent(rng, 3))
        st->rflags |= X86_FLAG_AC;
    st->rip = SEQ_CODE + g->seq->origin;
    st->rflags =
        (rng_next(rng) & X86_FLAGS_STATUS) | X86_FLAG_FIXED | X86_FLAG_IF | (rng_percent(rng, 10) ? X86_FLAG_DF : 0);

    rng_fill(rng, st->ymm, sizeof(st->ymm));
    st->mxcsr = 0x1f80 | (rng_percent(rng, 40) ? (uint32_t)rng_next(rng) & 0xe07f : 0);
    if (rng_percent(rng, 4))
        st->mxcsr &= ~(uint32_t)((rng_next(rng) & 0x1f80) | 0x3f);

    st->fcw = 0x37f;
    if (rng_percent(rng, 40))
        st->fcw = (uint16_t)(0x7f | (rng_next(rng) & 0xf00));
    st->fsw = (uint16_t)(rng_below(rng, 8) << 11 | (rng_next(rng) & 0x473f)); /* TOP, condition codes, sticky flags */
    if (rng_percent(rng, 4)) {
        st->fcw &= (uint16_t) ~(rng_next(rng) & 0x3f);
        st->fsw &= 0x7f00;
    }
    st->ftw = (uint8_t)(rng_percent(rng, 30) ? 0xff : rng_next(rng) & rng_next(rng));
}

static void initial_x87(struct gen *g, struct seq_state *st)
{
    static const uint16_t exponents[] = {0, 1, 0x3ffe, 0x3fff, 0x4000, 0x401e, 0x403e, 0x7ffe, 0x7fff};

    for (unsigned i = 0; i < 8; i++) {
        uint64_t mantissa = rng_edge(&g->rng);
        uint16_t exponent = exponents[rng_below(&g->rng, ARRAY_SIZE(exponents))];
        if (rng_percent(&g->rng, 90)) /* else an unnormal or pseudo-denormal */
            mantissa = exponent ? mantissa | UINT64_C(1) << 63 : mantissa & ~(UINT64_C(1) << 63);
        exponent |= (uint16_t)((rng_next(&g->rng) & 1) << 15);
        memcpy(st->st[i], &mantissa, 8);
        memcpy(st->st[i] + 8, &exponent, 2);
    }
}

static void fill_sequence(struct gen *g)
{
    unsigned groups = 1 + rng_below(&g->rng, 24);

    for (g->group = 0; g->group < groups && g->seq->n < SEQ_MAX_INSNS - 32; g->group++) {
        if (gen_span_close(g))
            continue;
        if (rng_percent(&g->rng, 6))
            gen_span_open(g);
        if (!gen_group_begin(g) || (rng_percent(&g->rng, 6) && gen_jump(g)) ||
            (rng_percent(&g->rng, 3) && gen_patch(g)))
            continue;
        const struct form *form = pick_form(g);
        for (unsigned tries = 0; tries < 12 && !try_form(g, form); tries++)
            ;
    }
    g->seq->n_groups = g->group;
}

/* Half of the time in one page's beginning, else near its end, so that instructions and blocks lie across it. */
static uint32_t pick_origin(struct gen *g)
{
    if (rng_percent(&g->rng, 50))
        return rng_below(&g->rng, 64);
    return 4096 - rng_below(&g->rng, rng_percent(&g->rng, 50) ? 400 : 60);
}

static void pick_pages(struct gen *g, uint8_t pages[SEQ_N_PAGES])
{
    static const unsigned percent[SEQ_N_PAGES] = {[SEQ_PAGE_DATA0] = 40, [SEQ_PAGE_DATA1] = 40, [SEQ_PAGE_STACK] = 10};

    memset(pages, 0, SEQ_N_PAGES);
    if (rng_percent(&g->rng, 60))
        return;
    if (rng_percent(&g->rng, 15))
        pages[SEQ_PAGE_CODE1] = (uint8_t)(1 + rng_below(&g->rng, 2));
    for (unsigned i = 0; i < SEQ_N_PAGES; i++)
        if (rng_percent(&g->rng, percent[i]))
            pages[i] = (uint8_t)(1 + rng_below(&g->rng, 2));
}

void gen_sequence(const struct forms forms[2], uint64_t seed, struct seq *seq, struct seq_run *run)
{
    struct gen g = {.rng = {seed}, .seq = seq};

    g.compat = rng_percent(&g.rng, 25);
    g.forms = &forms[g.compat];
    g.n_regs = g.compat ? 8 : 16;
    seq->compat = run->compat = g.compat;

    pick_pages(&g, run->pages);
    seq->origin = pick_origin(&g);
    do { /* again when a short jump does not reach */
        seq->seed = seed;
        seq->n = 0;
        g.pointers = 0;
        g.n_spans = g.n_vars = 0;
        g.patched = -1;
        initial_state(&g, &run->in);
        initial_x87(&g, &run->in);
        fill_sequence(&g);
    } while (!seq_assemble(seq, run->code, NULL));
    rng_fill(&g.rng, run->mem_in, SEQ_MEM_SIZE - SEQ_VARS_SIZE);
    for (unsigned i = 0; i < SEQ_VARS_SIZE; i += 8)
        store_le64(run->mem_in + SEQ_MEM_SIZE - SEQ_VARS_SIZE + i, 1 + rng_below(&g.rng, 5));
}
