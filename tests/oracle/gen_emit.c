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

bool gen_define_flags(struct gen *g)
{
    const uint8_t add[] = {0x48, 0x83, 0xc0, (uint8_t)rng_next(&g->rng)}; /* add rax, imm8 */

    g->pointers &= (uint16_t)~1u;
    return gen_bytes(g, add + g->compat, sizeof(add) - g->compat);
}
