#include "base/util.h"
#include "gen_int.h"

/* A register operand's number, or -1. */
static int gpr_of(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return -1;
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);
    return ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(full) : -1;
}

/* RSI, RDI and RCX for string instructions, XLAT's RBX, MASKMOV's RDI. */
static bool before_string(struct gen *g, const ZydisDecodedInstruction *insn)
{
    unsigned width = insn->operand_width / 8, count = rng_below(&g->rng, rng_percent(&g->rng, 90) ? 40 : 500);
    bool narrow = insn->address_width == 32;
    uint64_t upper = narrow ? rng_next(&g->rng) << 32 : 0;
    uint32_t src = gen_target(g, width, false), dst = gen_target(g, width, false);

    if (rng_percent(&g->rng, 20)) /* near each other: overlapping copies */
        dst = src + (uint32_t)rng_range(&g->rng, -16, 16);
    if (rng_percent(&g->rng, 5)) /* runs into the page after, or before */
        dst = rng_percent(&g->rng, 50) ? SEQ_POOL - rng_below(&g->rng, 64) : SEQ_DATA + rng_below(&g->rng, 32);
    bool ok = gen_mov(g, X86_RSI, src | upper) && gen_mov(g, X86_RDI, dst | upper);
    if (ok && (insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)))
        ok = gen_mov(g, X86_RCX, count | upper);
    return ok;
}

/* Most random dividends overflow; make the high half small. */
static bool before_div(struct gen *g, const ZydisDecodedInstruction *insn)
{
    int64_t small = rng_range(&g->rng, -2, 2);

    if (rng_percent(&g->rng, 20))
        return true;
    if (insn->operand_width == 8)
        return gen_mov(g, X86_RAX, (uint64_t)rng_range(&g->rng, -300, 300));
    return gen_mov(g, X86_RDX, (uint64_t)small);
}

/* BSF and BSR leave the destination undefined for a source of 0: set bits in it. */
static bool before_bsf(struct gen *g, const ZydisDecodedOperand *ops, const struct gen_mem *mem)
{
    int reg = gpr_of(&ops[1]);

    if (reg == X86_RSP)
        return false;
    if (reg < 0)
        return gen_store32(g, mem->target, (uint32_t)rng_next(&g->rng) | 0x00100010) &&
               gen_store32(g, mem->target + 4, (uint32_t)rng_next(&g->rng));
    const uint8_t or_imm[] = {(uint8_t)(0x48 | reg >> 3),
                              0x81,
                              (uint8_t)(0xc8 | (reg & 7)),
                              0x00,
                              (uint8_t)(1 + rng_below(&g->rng, 255)),
                              0x10,
                              0x00};
    g->pointers &= (uint16_t) ~(1u << reg);
    return gen_bytes(g, or_imm + g->compat, sizeof(or_imm) - g->compat);
}

/* With a register as bit offset, memory far off is addressed: keep it near. */
static bool before_bt(struct gen *g, const ZydisDecodedOperand *ops, const struct gen_mem *mem)
{
    int reg = gpr_of(&ops[1]);

    if (ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY || reg < 0)
        return true;
    if (reg == X86_RSP ||
        reg == gpr_of(&(ZydisDecodedOperand){.type = ZYDIS_OPERAND_TYPE_REGISTER, .reg.value = ops[0].mem.base}) ||
        reg == gpr_of(&(ZydisDecodedOperand){.type = ZYDIS_OPERAND_TYPE_REGISTER, .reg.value = ops[0].mem.index}))
        return false;
    (void)mem;
    uint64_t offset = (uint64_t)(int64_t)rng_range(&g->rng, -1500, 1500);
    unsigned width = ops[1].size; /* bits above the operand's size do not count */
    if (width < 64)
        offset = (offset & ones_mask(width / 8)) | rng_next(&g->rng) << width;
    return gen_mov(g, (unsigned)reg, offset);
}

/* Half of the time the comparison succeeds. */
static bool before_cmpxchg(struct gen *g, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops,
                           const struct gen_mem *mem)
{
    unsigned half = insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? 8 : 4;

    if (rng_percent(&g->rng, 50) || mem->bad)
        return true;
    if (ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY) {
        int reg = gpr_of(&ops[0]);
        const uint8_t mov[] = {(uint8_t)(0x48 | reg >> 3), 0x8b, (uint8_t)(0xc0 | (reg & 7))};
        g->pointers &= (uint16_t)~1u;
        return gen_bytes(g, mov + g->compat, sizeof(mov) - g->compat);
    }
    if (!mem->target)
        return true;
    g->pointers &= (uint16_t) ~(1u << X86_RAX | 1u << X86_RDX);
    return gen_absolute(g, "\x48\x8b", 2, X86_RAX, mem->target, NULL, 0) &&
           (insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG ||
            gen_absolute(g, "\x48\x8b", 2, X86_RDX, mem->target + half, NULL, 0));
}

static uint32_t random_mxcsr(struct gen *g)
{
    uint32_t v = 0x1f80 | (uint32_t)(rng_next(&g->rng) & 0xe07f); /* rounding, FTZ, DAZ, sticky flags */

    if (rng_percent(&g->rng, 10)) /* unmask some, their flags clear */
        v &= ~(uint32_t)((rng_next(&g->rng) & 0x1f80) | 0x3f);
    return v;
}

/* EDX:EAX selects the components: the address must not come from them. */
static bool uses_rax_rdx(const struct gen_mem *mem)
{
    return mem->base == X86_RAX || mem->base == X86_RDX || mem->index == X86_RAX || mem->index == X86_RDX;
}

/* A header that XRSTOR accepts, an MXCSR without reserved bits. */
static bool before_xrstor(struct gen *g, uint32_t target)
{
    bool ok = gen_store32(g, target + 24, random_mxcsr(g));

    ok = ok && gen_store64(g, target + 512, (int32_t)rng_below(&g->rng, 8));
    for (unsigned i = 1; ok && i < 8; i++)
        ok = gen_store64(g, target + 512 + 8 * i, 0);
    return ok && gen_mov(g, X86_RAX, rng_below(&g->rng, 8)) && gen_mov(g, X86_RDX, 0);
}

static uint32_t random_stack(struct gen *g)
{
    return SEQ_STACK + SEQ_STACK_SIZE / 2 + (uint32_t)rng_range(&g->rng, -300, 300);
}

/* PUSH of flags for POPF. TF ends the sequence behind the next instruction. */
static bool before_popf(struct gen *g)
{
    uint32_t may = X86_FLAGS_STATUS | X86_FLAG_DF | X86_FLAG_ID | X86_FLAG_IF | X86_FLAG_IOPL | X86_FLAG_NT;
    uint8_t push[5] = {0x68};

    if (rng_percent(&g->rng, 10))
        may |= X86_FLAG_TF;
    if (rng_percent(&g->rng, 10))
        may |= X86_FLAG_AC;
    store_le32(push + 1, (uint32_t)rng_next(&g->rng) & may);
    return gen_bytes(g, push, sizeof(push));
}

bool gen_before(struct gen *g, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops, struct gen_mem *mem)
{
    uint32_t mask16 = insn->operand_width == 16 ? 15 : 255;

    if (insn->meta.category == ZYDIS_CATEGORY_STRINGOP)
        return before_string(g, insn);
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_XLAT:
        return gen_mov(g, X86_RBX, SEQ_DATA + rng_below(&g->rng, SEQ_DATA_SIZE - 256));
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return gen_mov(g, X86_RDI, gen_target(g, 16, false));
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        return before_div(g, insn);
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        return before_bsf(g, ops, mem);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return before_bt(g, ops, mem);
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: /* a count above the operand's size leaves it undefined */
        if (ops[2].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return (ops[2].imm.value.u & 31) <= mask16;
        return insn->operand_width != 16 || gen_mov(g, X86_RCX, rng_next(&g->rng) & ~UINT64_C(0xf0));
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return before_cmpxchg(g, insn, ops, mem);
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return gen_store32(g, mem->target, rng_percent(&g->rng, 95) ? random_mxcsr(g) : 0xfffc0000);
    case ZYDIS_MNEMONIC_FLDCW:
        return gen_store32(g, mem->target,
                           (rng_percent(&g->rng, 90) ? 0x7f : 0x40) | (uint32_t)(rng_next(&g->rng) & 0xffc0));
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return gen_store32(g, mem->target + 24, random_mxcsr(g));
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return !uses_rax_rdx(mem) && before_xrstor(g, mem->target);
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64: /* only what the guest has too */
        return !uses_rax_rdx(mem) && gen_mov(g, X86_RAX, rng_below(&g->rng, 8)) && gen_mov(g, X86_RDX, 0);
    case ZYDIS_MNEMONIC_ENTER:
        return gen_mov(g, X86_RBP, random_stack(g));
    case ZYDIS_MNEMONIC_LEAVE:
        return gen_mov(g, X86_RBP, random_stack(g));
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        return before_popf(g);
    default:
        return true;
    }
}

static bool clear(struct gen *g, uint32_t from, uint32_t to)
{
    for (uint32_t at = from; at < to; at += 4)
        if (!gen_store32(g, at, 0))
            return false;
    return true;
}

/*
 * What differs between makers is wiped from memory: FOP, FIP, FDP and their selectors (AMD saves them only while an exception is
 * pending, SDM Vol. 1 8.1.8 has them of the last instruction), MXCSR_MASK (bit 17 is AMD's), XINUSE (each CPU tracks it its own way).
 */
static bool wipe(struct gen *g, const ZydisDecodedInstruction *insn, const struct gen_mem *mem)
{
    uint32_t t = mem->target;

    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
        return insn->operand_width == 16 ? clear(g, t + 6, t + 14) : clear(g, t + 12, t + 28);
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        if (!gen_store64(g, t + 512, (int32_t)rng_below(&g->rng, 8)))
            return false;
        __attribute__((fallthrough));
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        return gen_absolute(g, "\x66\xc7", 2, 0, t + 6, "\0\0", 2) && clear(g, t + 8, t + 24) &&
               clear(g, t + 28, t + 32);
    default:
        return true;
    }
}

bool gen_after(struct gen *g, const ZydisDecodedInstruction *insn, const struct gen_mem *mem)
{
    unsigned n = g->seq->n;

    if (!wipe(g, insn, mem))
        return false;
    for (; n < g->seq->n; n++)
        g->seq->insn[n].wipe = true;
    return true;
}
