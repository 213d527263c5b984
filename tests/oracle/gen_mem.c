#include "base/util.h"
#include "gen_int.h"

/* An address for `size` bytes in the writable data, often across a page's or a cache line's end. */
uint32_t gen_target(struct gen *g, unsigned size, bool aligned)
{
    uint32_t off = rng_below(&g->rng, SEQ_DATA_SIZE - 1024) + 256;

    switch (rng_below(&g->rng, 8)) {
    case 0:
    case 1:
        off = SEQ_DATA_SIZE / 2 - rng_below(&g->rng, size + 1); /* around the page boundary */
        break;
    case 2:
        off = (uint32_t)align_down(off, 64) - rng_below(&g->rng, size + 1);
        break;
    default:
        break;
    }
    return SEQ_DATA + (aligned ? (uint32_t)align_down(off, 64) : off);
}

/* An address at which the access faults, mostly. */
static uint64_t bad_target(struct gen *g, unsigned size)
{
    switch (rng_below(&g->rng, 5)) {
    case 0:
        return SEQ_DATA - 1 - rng_below(&g->rng, size);
    case 1:
        return SEQ_POOL + rng_below(&g->rng, SEQ_POOL_SIZE - 64); /* stores only */
    case 2:
        return SEQ_POOL + SEQ_POOL_SIZE - rng_below(&g->rng, size + 1);
    case 3:
        if (!g->compat)
            return (UINT64_C(1) << 63) + rng_next(&g->rng) / 16; /* not canonical */
        return 0xf0000000 + rng_below(&g->rng, 1 << 24);
    default:
        return rng_next(&g->rng) % (1 << 24) + 0x50000000;
    }
}

static ZydisRegister reg_of(unsigned id, bool narrow)
{
    return ZydisRegisterEncode(narrow ? ZYDIS_REGCLASS_GPR32 : ZYDIS_REGCLASS_GPR64, (ZyanU8)id);
}

static bool is_gather(const struct form *form)
{
    return form->req.operand_count >= 2 && form->req.operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY &&
           ZydisRegisterGetClass(form->req.operands[1].mem.index) != ZYDIS_REGCLASS_GPR64 &&
           form->req.operands[1].mem.index != ZYDIS_REGISTER_NONE;
}

/* Base plus a vector of small indices from the pool. */
static bool pick_gather(struct gen *g, const struct form *form, ZydisEncoderOperand *op, struct gen_mem *mem)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(form->req.operands[1].mem.index);
    unsigned base = rng_below(&g->rng, g->n_regs - 1);

    base += base >= X86_RSP; /* never RSP */
    mem->vector_index = (int)rng_below(&g->rng, g->n_regs);
    switch (form->mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
        mem->index64 = true;
        break;
    default:
        break;
    }
    op->mem.base = reg_of(base, g->compat);
    op->mem.index = ZydisRegisterEncode(class, (ZyanU8)mem->vector_index);
    op->mem.scale = (ZyanU8)(1u << rng_below(&g->rng, 4));
    op->mem.displacement = rng_range(&g->rng, -128, 127);
    mem->base = (int)base;
    mem->target = SEQ_DATA + 1024 + rng_below(&g->rng, SEQ_DATA_SIZE - 2048);
    mem->base_val = mem->target - (uint64_t)op->mem.displacement;
    return true;
}

/* On the stack, near its pointer: pushes move it by a few hundred bytes at most. */
static bool pick_stack(struct gen *g, ZydisEncoderOperand *op, struct gen_mem *mem)
{
    op->mem.base = reg_of(X86_RSP, g->compat);
    op->mem.index = ZYDIS_REGISTER_NONE;
    op->mem.scale = 0;
    op->mem.displacement = rng_range(&g->rng, -256, 192);
    mem->target = 0; /* not known */
    return true;
}

static bool pick_absolute(struct gen *g, ZydisEncoderOperand *op, struct gen_mem *mem, uint64_t target)
{
    op->mem.index = ZYDIS_REGISTER_NONE;
    op->mem.scale = 0;
    op->mem.base = ZYDIS_REGISTER_NONE;
    op->mem.displacement = (int64_t)target;
    if (target > INT32_MAX)
        return false;
    if (!g->compat && rng_percent(&g->rng, 60)) {
        op->mem.base = ZYDIS_REGISTER_RIP;
        op->mem.displacement = 0x1000; /* patched when the code is laid out */
        mem->rip = true;
    }
    return true;
}

/* base, base + disp, base + index * scale + disp, index * scale + disp; 64- and 32-bit */
static bool pick_registers(struct gen *g, ZydisEncoderOperand *op, struct gen_mem *mem, uint64_t target)
{
    struct rng *rng = &g->rng;
    bool narrow = g->compat || (target <= INT32_MAX && rng_percent(rng, 15));
    bool with_index = rng_percent(rng, 50), with_base = !with_index || rng_percent(rng, 80);
    unsigned base = rng_below(rng, g->n_regs), index = rng_below(rng, g->n_regs), scale = 1u << rng_below(rng, 4);
    int64_t disp = rng_percent(rng, 50) ? rng_range(rng, -128, 127) : rng_range(rng, -100000, 100000);

    if (base == X86_RSP || index == X86_RSP || base == index)
        return false;
    uint64_t index_val = (uint64_t)(int64_t)rng_range(rng, -4096, 4096);
    op->mem.base = op->mem.index = ZYDIS_REGISTER_NONE;
    op->mem.scale = 0;
    if (with_index) {
        op->mem.index = reg_of(index, narrow);
        op->mem.scale = (ZyanU8)scale;
        mem->index = (int)index;
    } else {
        index_val = 0;
    }
    if (with_base) {
        op->mem.base = reg_of(base, narrow);
        mem->base = (int)base;
        if (!with_index && (!narrow || g->compat) && base != X86_RAX && base != X86_RDX && (g->pointers >> base & 1) &&
            !mem->bad) {
            /* A register that points to the data already. */
            disp = rng_range(rng, -200, 200);
            target = g->initial[base] + (uint64_t)disp;
            mem->target = (uint32_t)target;
            mem->base = -1;
        }
        mem->base_val = target - (uint64_t)disp - index_val * scale;
    } else {
        if (target > INT32_MAX)
            return false;
        disp = (int64_t)(target - index_val * scale);
        if (disp != (int32_t)disp)
            return false;
    }
    op->mem.displacement = disp;
    if (narrow) { /* what lies above 32 bits must not matter */
        mem->base_val = (uint32_t)mem->base_val | rng_next(rng) << 32;
        index_val = (uint32_t)index_val | rng_next(rng) << 32;
    }
    mem->index_val = index_val;
    return true;
}

/* Forms whose alignment is checked, so that random addresses would end most sequences. */
static bool wants_alignment(const struct form *form)
{
    switch (form->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return true;
    default:
        return form->class == FORM_SSE || form->class == FORM_AVX;
    }
}

/* The SDM (exceptions of type 4) has #GP where these are not aligned; AMD's CPUs do not check. */
static bool is_sha(const struct form *form)
{
    switch (form->mnemonic) {
    case ZYDIS_MNEMONIC_SHA1MSG1:
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2:
        return true;
    default:
        return false;
    }
}

/* These get stores into their operand before or after, so that it must be known and good. */
static bool wants_known(const struct form *form)
{
    switch (form->mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        return true;
    default:
        return false;
    }
}

bool gen_mem_pick(struct gen *g, const struct form *form, unsigned size, ZydisEncoderOperand *op,
                  ZydisInstructionAttributes *prefixes, struct gen_mem *mem)
{
    bool known = wants_known(form);
    bool aligned = wants_alignment(form) && (known || is_sha(form) || rng_percent(&g->rng, 80));

    *mem = (struct gen_mem){.used = true, .base = -1, .index = -1, .vector_index = -1};
    if (is_gather(form))
        return pick_gather(g, form, op, mem);
    bool moffs = op->mem.base == ZYDIS_REGISTER_NONE;
    mem->bad = !known && !is_sha(form) && rng_percent(&g->rng, 2);
    uint64_t target = mem->bad ? bad_target(g, size) : gen_target(g, size, aligned);
    mem->target = (uint32_t)target;
    if (moffs) {
        op->mem.displacement = (int64_t)target;
        return true;
    }
    if (!mem->bad && !aligned && !known && rng_percent(&g->rng, 8))
        return pick_stack(g, op, mem);
    if (rng_percent(&g->rng, 15))
        return pick_absolute(g, op, mem, target);
    if (!pick_registers(g, op, mem, target))
        return false;
    if (is_sha(form) && ((mem->target & 15) || mem->bad))
        return false;
    /* Whether the unused end of an FXSAVE area is touched is not documented: it must lie in the data. */
    if (known && mem->target + 1024 > SEQ_DATA + SEQ_DATA_SIZE)
        return false;
    if (!g->compat && mem->base >= 0 && rng_percent(&g->rng, 8)) {
        bool fs = rng_percent(&g->rng, 50);
        *prefixes |= fs ? ZYDIS_ATTRIB_HAS_SEGMENT_FS : ZYDIS_ATTRIB_HAS_SEGMENT_GS;
        mem->base_val -= fs ? SEQ_FS_BASE : SEQ_GS_BASE;
    } else if (rng_percent(&g->rng, 4)) {
        *prefixes |= ZYDIS_ATTRIB_HAS_SEGMENT_ES; /* no effect */
    }
    return true;
}

bool gen_mem_setup(struct gen *g, const struct gen_mem *mem)
{
    if (!mem->used)
        return true;
    if (mem->vector_index >= 0) { /* vmovdqu ymm, [pool] */
        unsigned v = (unsigned)mem->vector_index;
        const char opcode[] = {(char)0xc5, (char)((v & 8 ? 0x00 : 0x80) | 0x7e), 0x6f};
        uint32_t slot = rng_below(&g->rng, 200);
        uint32_t addr = mem->index64 ? SEQ_POOL_INDEX64 + 8 * slot : SEQ_POOL_INDEX32 + 4 * slot;
        if (!gen_absolute(g, opcode, 3, v & 7, addr, NULL, 0))
            return false;
    }
    if (mem->base >= 0 && !gen_mov(g, (unsigned)mem->base, mem->base_val))
        return false;
    return mem->index < 0 || gen_mov(g, (unsigned)mem->index, mem->index_val);
}
