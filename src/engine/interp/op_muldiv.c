/*
 * MUL, IMUL, DIV and IDIV. Products and their flags are the host's own; a quotient that does not fit is found in C before the host
 * divides (SDM Vol. 2A, DIV: #DE). Division leaves the flags, which it does not define, alone.
 */
#include "engine/interp/op.h"

/* ---- RDX:RAX = RAX * b ---- */

#define MUL_WIDE(bits, type, sfx, r, name)                                                                            \
    OP_INLINE void name##bits(struct interp *c, type b)                                                               \
    {                                                                                                                 \
        type lo = reg_get##bits(c, INTERP_GPR(X86_RAX)), hi;                                                          \
        uint16_t ax = flags_pack(c);                                                                                  \
        __asm__(OP_FLAGS_IN "mov" sfx " %1, %%" MUL_ACC_##bits "\n\t" #name sfx " %3\n\tmov" sfx " %%" MUL_ACC_##bits \
                ", %1" OP_FLAGS_OUT                                                                                   \
                : "+&a"(ax), "+&r"(lo), "=&d"(hi)                                                                     \
                : "r"(b)                                                                                              \
                : "cc");                                                                                              \
        flags_set(c, ax);                                                                                             \
        reg_set##bits(c, INTERP_GPR(X86_RAX), lo);                                                                    \
        reg_set##bits(c, INTERP_GPR(X86_RDX), hi);                                                                    \
    }
#define MUL_ACC_16 "ax"
#define MUL_ACC_32 "eax"
#define MUL_ACC_64 "rax"

/* AX = AL * b */
#define MUL_BYTE(name)                                                                        \
    OP_INLINE void name##8(struct interp * c, uint8_t b)                                      \
    {                                                                                         \
        uint16_t v = reg_get8(c, INTERP_GPR(X86_RAX)), ax = flags_pack(c);                    \
        __asm__(OP_FLAGS_IN "movb %b1, %%al\n\t" #name "b %b2\n\tmovw %%ax, %w1" OP_FLAGS_OUT \
                : "+&a"(ax), "+&q"(v)                                                         \
                : "q"(b)                                                                      \
                : "cc");                                                                      \
        flags_set(c, ax);                                                                     \
        reg_set16(c, INTERP_GPR(X86_RAX), v);                                                 \
    }

/* ---- quotient and remainder of RDX:RAX; false: #DE ---- */

#define DIV_WIDE(bits, type, wide, swide)                                                                       \
    OP_INLINE bool divide_unsigned##bits(wide n, type d, type *q, type *rem)                                    \
    {                                                                                                           \
        if (d == 0 || (type)(n >> (bits)) >= d)                                                                 \
            return false;                                                                                       \
        *q = (type)(n / d);                                                                                     \
        *rem = (type)(n % d);                                                                                   \
        return true;                                                                                            \
    }                                                                                                           \
    OP_INLINE bool divide_signed##bits(wide n, type d, type *q, type *rem)                                      \
    {                                                                                                           \
        bool negative_n = (swide)n < 0, negative_d = d >> ((bits)-1);                                           \
        bool negative = negative_n != negative_d;                                                               \
        type limit = (type)(((type)1 << ((bits)-1)) - !negative);                                               \
        if (!divide_unsigned##bits(negative_n ? (wide)-n : n, negative_d ? (type)-d : d, q, rem) || *q > limit) \
            return false;                                                                                       \
        if (negative)                                                                                           \
            *q = (type) - *q;                                                                                   \
        if (negative_n)                                                                                         \
            *rem = (type) - *rem;                                                                               \
        return true;                                                                                            \
    }
DIV_WIDE(8, uint8_t, uint16_t, int16_t)
DIV_WIDE(16, uint16_t, uint32_t, int32_t)
DIV_WIDE(32, uint32_t, uint64_t, int64_t)

/* The host's instruction: the compiler would call a library function. */
OP_INLINE bool divide_unsigned64(unsigned __int128 n, uint64_t d, uint64_t *q, uint64_t *rem)
{
    uint64_t hi = (uint64_t)(n >> 64);
    if (hi >= d) /* or d == 0 */
        return false;
    __asm__("divq %4" : "=a"(*q), "=d"(*rem) : "a"((uint64_t)n), "d"(hi), "r"(d) : "cc");
    return true;
}

OP_INLINE bool divide_signed64(unsigned __int128 n, uint64_t d, uint64_t *q, uint64_t *rem)
{
    bool negative_n = (__int128)n < 0, negative_d = d >> 63, negative = negative_n != negative_d;
    uint64_t limit = (UINT64_C(1) << 63) - !negative;

    if (!divide_unsigned64(negative_n ? -n : n, negative_d ? -d : d, q, rem) || *q > limit)
        return false;
    if (negative)
        *q = -*q;
    if (negative_n)
        *rem = -*rem;
    return true;
}

#define DIV(bits, type, wide, name, divide)                                                                        \
    OP_INLINE void name##bits(struct interp *c, type d)                                                            \
    {                                                                                                              \
        wide n =                                                                                                   \
            (wide)((wide)reg_get##bits(c, INTERP_GPR(X86_RDX)) << (bits)) | reg_get##bits(c, INTERP_GPR(X86_RAX)); \
        type q, rem;                                                                                               \
        if (!divide##bits(n, d, &q, &rem))                                                                         \
            interp_raise(c, X86_DE);                                                                               \
        reg_set##bits(c, INTERP_GPR(X86_RAX), q);                                                                  \
        reg_set##bits(c, INTERP_GPR(X86_RDX), rem);                                                                \
    }
#define DIV_BYTE(name, divide)                                          \
    OP_INLINE void name##8(struct interp * c, uint8_t d)                \
    {                                                                   \
        uint8_t q, rem;                                                 \
        if (!divide##8(reg_get16(c, INTERP_GPR(X86_RAX)), d, &q, &rem)) \
            interp_raise(c, X86_DE);                                    \
        reg_set16(c, INTERP_GPR(X86_RAX), (uint16_t)(rem << 8 | q));    \
    }

MUL_BYTE(mul)
MUL_BYTE(imul)
OP_SIZES_NOT_8(MUL_WIDE, mul)
OP_SIZES_NOT_8(MUL_WIDE, imul)
DIV_BYTE(div, divide_unsigned)
DIV(16, uint16_t, uint32_t, div, divide_unsigned)
DIV(32, uint32_t, uint64_t, div, divide_unsigned)
DIV(64, uint64_t, unsigned __int128, div, divide_unsigned)
DIV_BYTE(idiv, divide_signed)
DIV(16, uint16_t, uint32_t, idiv, divide_signed)
DIV(32, uint32_t, uint64_t, idiv, divide_signed)
DIV(64, uint64_t, unsigned __int128, idiv, divide_signed)

#define MULDIV_HANDLERS(bits, type, sfx, r, name)                       \
    static void name##bits##_r(struct interp *c, const struct insn *in) \
    {                                                                   \
        name##bits(c, reg_get##bits(c, in->rm));                        \
    }                                                                   \
    static void name##bits##_m(struct interp *c, const struct insn *in) \
    {                                                                   \
        name##bits(c, mem_load##bits(c, in));                           \
    }
OP_SIZES(MULDIV_HANDLERS, mul)
OP_SIZES(MULDIV_HANDLERS, imul)
OP_SIZES(MULDIV_HANDLERS, div)
OP_SIZES(MULDIV_HANDLERS, idiv)

#define MULDIV_BIND(name)                                                                                   \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[2][4] = {OP_ROW(name, _r), OP_ROW(name, _m)};                            \
        return fns[bind_is_mem(&xi->op[0])][bind_size_index(xi->op[0].size / 8)];                           \
    }
MULDIV_BIND(mul)
MULDIV_BIND(imul)
MULDIV_BIND(div)
MULDIV_BIND(idiv)

/* ---- IMUL with a destination ---- */

#define IMUL2(bits, type, sfx, r, ...)                                                                    \
    OP_INLINE type product##bits(struct interp *c, type a, type b)                                        \
    {                                                                                                     \
        uint16_t ax = flags_pack(c);                                                                      \
        __asm__(OP_FLAGS_IN "imul" sfx " %2, %0" OP_FLAGS_OUT : "+" r(a), "+&a"(ax) : r(b) : "cc");       \
        flags_set(c, ax);                                                                                 \
        return a;                                                                                         \
    }                                                                                                     \
    static void imul##bits##_rr(struct interp *c, const struct insn *in)                                  \
    {                                                                                                     \
        reg_set##bits(c, in->reg, product##bits(c, reg_get##bits(c, in->reg), reg_get##bits(c, in->rm))); \
    }                                                                                                     \
    static void imul##bits##_rm(struct interp *c, const struct insn *in)                                  \
    {                                                                                                     \
        type b = mem_load##bits(c, in);                                                                   \
        reg_set##bits(c, in->reg, product##bits(c, reg_get##bits(c, in->reg), b));                        \
    }                                                                                                     \
    static void imul##bits##_rri(struct interp *c, const struct insn *in)                                 \
    {                                                                                                     \
        reg_set##bits(c, in->reg, product##bits(c, reg_get##bits(c, in->rm), (type)in->imm));             \
    }                                                                                                     \
    static void imul##bits##_rmi(struct interp *c, const struct insn *in)                                 \
    {                                                                                                     \
        type a = mem_load##bits(c, in);                                                                   \
        reg_set##bits(c, in->reg, product##bits(c, a, (type)in->imm));                                    \
    }
OP_SIZES_NOT_8(IMUL2)

static interp_fn bind_imul_any(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][2][4] = {
        {OP_ROW_NOT_8(imul, _rr), OP_ROW_NOT_8(imul, _rri)},
        {OP_ROW_NOT_8(imul, _rm), OP_ROW_NOT_8(imul, _rmi)},
    };

    if (xi->insn.operand_count_visible == 1)
        return bind_imul(xi, in, cpuid);
    bool imm = xi->insn.operand_count_visible == 3;
    return fns[bind_is_mem(&xi->op[1])][imm][bind_size_index(xi->op[0].size / 8)];
}

const struct bind_entry op_muldiv_binds[] = {
    {ZYDIS_MNEMONIC_MUL, bind_mul},
    {ZYDIS_MNEMONIC_IMUL, bind_imul_any},
    {ZYDIS_MNEMONIC_DIV, bind_div},
    {ZYDIS_MNEMONIC_IDIV, bind_idiv},
    {0},
};
