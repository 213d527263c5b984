#include "base/util.h"
#include "gen_int.h"

bool gen_bytes(struct gen *g, const void *bytes, unsigned len)
{
    return seq_add(g->seq, g->group, bytes, len);
}

/* mov reg, val: all of it, or what a 32-bit register takes */
bool gen_mov(struct gen *g, unsigned reg, uint64_t val)
{
    uint8_t b[10] = {(uint8_t)(0x48 | reg >> 3), (uint8_t)(0xb8 | (reg & 7))};

    g->pointers &= (uint16_t) ~(1u << reg);
    store_le64(b + 2, val);
    return g->compat ? gen_bytes(g, b + 1, 5) : gen_bytes(g, b, 10);
}

/*
 * An instruction with an absolute operand: prefixes and opcode, the reg field of its ModRM, and what follows the address. 64-bit code
 * needs a SIB byte for it. 32-bit code has no REX, so a REX.W at the start is dropped there.
 */
bool gen_absolute(struct gen *g, const char *opcode, unsigned n, unsigned reg, uint32_t addr, const void *imm,
                  unsigned imm_len)
{
    uint8_t b[15];
    unsigned len = 0;

    if (g->compat && (uint8_t)opcode[0] == 0x48) {
        opcode++;
        n--;
    }
    memcpy(b, opcode, n);
    len = n;
    b[len++] = (uint8_t)((g->compat ? 5 : 4) | reg << 3);
    if (!g->compat)
        b[len++] = 0x25;
    store_le32(b + len, addr);
    len += 4;
    if (imm_len)
        memcpy(b + len, imm, imm_len);
    return gen_bytes(g, b, len + imm_len);
}

/* mov dword [addr], val */
bool gen_store32(struct gen *g, uint32_t addr, uint32_t val)
{
    return gen_absolute(g, "\xc7", 1, 0, addr, &val, 4);
}

/* mov qword [addr], val */
bool gen_store64(struct gen *g, uint32_t addr, int32_t val)
{
    if (g->compat)
        return gen_store32(g, addr, (uint32_t)val) && gen_store32(g, addr + 4, val < 0 ? UINT32_MAX : 0);
    return gen_absolute(g, "\x48\xc7", 2, 0, addr, &val, 4);
}

/* Makes the last instruction's field at `off` (from its end when negative) refer to a group. */
static bool fix_last(struct gen *g, enum seq_fix fix, int off, unsigned size, unsigned target)
{
    struct seq_insn *si = &g->seq->insn[g->seq->n - 1];

    si->fix = (uint8_t)fix;
    si->fix_off = (uint8_t)(off < 0 ? si->len + off : off);
    si->fix_size = (uint8_t)size;
    si->target = target;
    return true;
}

static bool emit_fixed(struct gen *g, const uint8_t *b, unsigned len, enum seq_fix fix, unsigned off, unsigned size,
                       unsigned target)
{
    return gen_bytes(g, b, len) && fix_last(g, fix, (int)off, size, target);
}

/* push label; ret - also with an immediate */
static bool jump_by_ret(struct gen *g, unsigned to)
{
    const uint8_t push[] = {0x68, 0, 0, 0, 0}, ret[] = {0xc3},
                  ret_imm[] = {0xc2, (uint8_t)(8 * rng_below(&g->rng, 3)), 0};

    if (!emit_fixed(g, push, sizeof(push), SEQ_FIX_LABEL_ABS, 1, 4, to))
        return false;
    return rng_percent(&g->rng, 50) ? gen_bytes(g, ret, sizeof(ret)) : gen_bytes(g, ret_imm, sizeof(ret_imm));
}

/* jmp or call through a register or memory */
static bool jump_indirect(struct gen *g, unsigned to)
{
    unsigned kind = rng_percent(&g->rng, 50) ? 4 : 2; /* ModRM.reg */

    if (rng_percent(&g->rng, 50)) {
        unsigned reg = rng_below(&g->rng, g->n_regs);
        if (reg == X86_RSP)
            reg = X86_RAX;
        const uint8_t jump[] = {(uint8_t)(0x40 | reg >> 3), 0xff, (uint8_t)(0xc0 | kind << 3 | (reg & 7))};
        unsigned width = g->compat ? 4 : 8;
        return gen_mov(g, reg, 0) && fix_last(g, SEQ_FIX_LABEL_ABS, -(int)width, width, to) &&
               gen_bytes(g, jump + g->compat, 3 - g->compat);
    }
    uint32_t slot = SEQ_DATA + rng_below(&g->rng, SEQ_DATA_SIZE - 8);
    if (g->compat ? !gen_store32(g, slot, 0) : !gen_store64(g, slot, 0))
        return false;
    return fix_last(g, SEQ_FIX_LABEL_ABS, -4, 4, to) && gen_absolute(g, "\xff", 1, kind, slot, NULL, 0);
}

bool gen_define_flags(struct gen *g)
{
    const uint8_t add[] = {0x48, 0x83, 0xc0, (uint8_t)rng_next(&g->rng)}; /* add rax, imm8 */

    g->pointers &= (uint16_t)~1u;
    return gen_bytes(g, add + g->compat, sizeof(add) - g->compat);
}

/* jcc, jrcxz and loops read flags that may be undefined here */
static bool jump_conditional(struct gen *g, unsigned to)
{
    uint8_t cc = (uint8_t)rng_below(&g->rng, 16);
    uint8_t b[6] = {0x0f, (uint8_t)(0x80 | cc)};

    if (!gen_define_flags(g))
        return false;
    switch (rng_below(&g->rng, 4)) {
    case 0: {
        uint8_t loop[3] = {0x67, (uint8_t)(0xe0 + rng_below(&g->rng, 4))};
        unsigned skip = rng_below(&g->rng, 2); /* with the 67 prefix: ECX */
        g->pointers &= (uint16_t) ~(1u << X86_RCX);
        if (rng_percent(&g->rng, 50) && !gen_mov(g, X86_RCX, rng_below(&g->rng, 3) | rng_next(&g->rng) << 32))
            return false;
        return emit_fixed(g, loop + skip, 3 - skip, SEQ_FIX_LABEL_REL, 2 - skip, 1, to);
    }
    case 1:
        b[0] = (uint8_t)(0x70 | cc);
        return emit_fixed(g, b, 2, SEQ_FIX_LABEL_REL, 1, 1, to);
    default:
        return emit_fixed(g, b, 6, SEQ_FIX_LABEL_REL, 2, 4, to);
    }
}

/* A transfer of control to one of the next groups. */
bool gen_jump(struct gen *g)
{
    unsigned to = g->group + 1 + rng_below(&g->rng, 3);
    const uint8_t jmp8[] = {0xeb, 0}, jmp32[] = {0xe9, 0, 0, 0, 0}, call[] = {0xe8, 0, 0, 0, 0};

    switch (rng_below(&g->rng, 10)) {
    case 0:
        return emit_fixed(g, jmp8, sizeof(jmp8), SEQ_FIX_LABEL_REL, 1, 1, to);
    case 1:
        return emit_fixed(g, jmp32, sizeof(jmp32), SEQ_FIX_LABEL_REL, 1, 4, to);
    case 2:
        return emit_fixed(g, call, sizeof(call), SEQ_FIX_LABEL_REL, 1, 4, to);
    case 3:
        return jump_by_ret(g, to);
    case 4:
        return jump_indirect(g, to);
    default:
        return jump_conditional(g, to);
    }
}
