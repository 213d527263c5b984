/* Decimal adjustment: AAA, AAS, AAM, AAD, DAA, DAS (SDM Vol. 2A), which 64-bit mode does not have. */
#include "engine/interp/op.h"

static uint8_t al(const struct interp *c)
{
    return reg_get8(c, INTERP_GPR(X86_RAX));
}

static void result_flags(struct interp *c, uint8_t v)
{
    flag_put(c, X86_FLAG_SF, v & 0x80);
    flag_put(c, X86_FLAG_ZF, v == 0);
    flag_put(c, X86_FLAG_PF, !__builtin_parity(v));
}

static bool low_digit_high(const struct interp *c)
{
    return (al(c) & 15) > 9 || flag(c, X86_FLAG_AF);
}

static void adjust_ascii(struct interp *c, uint16_t by)
{
    bool adjust = low_digit_high(c);

    if (adjust)
        reg_set16(c, INTERP_GPR(X86_RAX), (uint16_t)(c->st.gpr[X86_RAX] + by));
    reg_set8(c, INTERP_GPR(X86_RAX), al(c) & 15);
    flag_put(c, X86_FLAG_AF, adjust);
    flag_put(c, X86_FLAG_CF, adjust);
}

static void aaa(struct interp *c, const struct insn *in)
{
    adjust_ascii(c, 0x106);
}

static void aas(struct interp *c, const struct insn *in)
{
    adjust_ascii(c, (uint16_t)-0x106);
}

static void aam(struct interp *c, const struct insn *in)
{
    uint8_t base = (uint8_t)in->imm, v = al(c);

    if (base == 0)
        interp_raise(c, X86_DE);
    reg_set16(c, INTERP_GPR(X86_RAX), (uint16_t)(v / base << 8 | v % base));
    result_flags(c, v % base);
}

static void aad(struct interp *c, const struct insn *in)
{
    uint8_t v = (uint8_t)(al(c) + reg_get8(c, INTERP_GPR(X86_RAX) + 1) * (uint8_t)in->imm);

    reg_set16(c, INTERP_GPR(X86_RAX), v);
    result_flags(c, v);
}

static void daa(struct interp *c, const struct insn *in)
{
    uint8_t old = al(c), v = old;
    bool low = low_digit_high(c), high = old > 0x99 || flag(c, X86_FLAG_CF);

    v = (uint8_t)(v + (low ? 6 : 0) + (high ? 0x60 : 0));
    reg_set8(c, INTERP_GPR(X86_RAX), v);
    flag_put(c, X86_FLAG_AF, low);
    flag_put(c, X86_FLAG_CF, high);
    result_flags(c, v);
}

/* Unlike DAA, a borrow of the low digit's adjustment alone sets CF. */
static void das(struct interp *c, const struct insn *in)
{
    uint8_t old = al(c), v = old;
    bool low = low_digit_high(c), high = old > 0x99 || flag(c, X86_FLAG_CF);

    v = (uint8_t)(v - (low ? 6 : 0) - (high ? 0x60 : 0));
    reg_set8(c, INTERP_GPR(X86_RAX), v);
    flag_put(c, X86_FLAG_AF, low);
    flag_put(c, X86_FLAG_CF, high || (low && old < 6));
    result_flags(c, v);
}

#define BCD_BIND(name)                                                                                      \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return name;                                                                                        \
    }
BCD_BIND(aaa)
BCD_BIND(aas)
BCD_BIND(aam)
BCD_BIND(aad)
BCD_BIND(daa)
BCD_BIND(das)

const struct bind_entry op_bcd_binds[] = {
    {ZYDIS_MNEMONIC_AAA, bind_aaa},
    {ZYDIS_MNEMONIC_AAS, bind_aas},
    {ZYDIS_MNEMONIC_AAM, bind_aam},
    {ZYDIS_MNEMONIC_AAD, bind_aad},
    {ZYDIS_MNEMONIC_DAA, bind_daa},
    {ZYDIS_MNEMONIC_DAS, bind_das},
    {0},
};
