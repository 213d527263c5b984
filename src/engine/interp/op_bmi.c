/* BMI1 and BMI2 on general registers; the host's own instructions, which CPUID offers only where the host has them. */
#include "engine/interp/op.h"

#define BMI_SIZES(X, ...)                  \
    X(32, uint32_t, "l", "k", __VA_ARGS__) \
    X(64, uint64_t, "q", "q", __VA_ARGS__)

#define BMI_HANDLERS(bits, type, sfx, mod, name, ...)                                                   \
    static void name##bits##_r(struct interp *c, const struct insn *in)                                 \
    {                                                                                                   \
        reg_set##bits(c, in->reg, name##bits(c, reg_get##bits(c, in->rm), reg_get##bits(c, in->vvvv))); \
    }                                                                                                   \
    static void name##bits##_m(struct interp *c, const struct insn *in)                                 \
    {                                                                                                   \
        type rm = mem_load##bits(c, in);                                                                \
        reg_set##bits(c, in->reg, name##bits(c, rm, reg_get##bits(c, in->vvvv)));                       \
    }

/* rm: the ModRM operand, v: the one in VEX.vvvv. With flags: */
#define BMI_FLAGS(bits, type, sfx, mod, name, operands)          \
    OP_INLINE type name##bits(struct interp *c, type rm, type v) \
    {                                                            \
        uint16_t ax = flags_pack(c);                             \
        type dst;                                                \
        __asm__(OP_FLAGS_IN #name sfx " " operands OP_FLAGS_OUT  \
                : [dst] "=&r"(dst), "+&a"(ax)                    \
                : [rm] "r"(rm), [v] "r"(v)                       \
                : "cc");                                         \
        flags_set(c, ax);                                        \
        return dst;                                              \
    }                                                            \
    BMI_HANDLERS(bits, type, sfx, mod, name)

/* Without: */
#define BMI_PLAIN(bits, type, sfx, mod, name, operands)                               \
    OP_INLINE type name##bits(struct interp *c, type rm, type v)                      \
    {                                                                                 \
        type dst;                                                                     \
        __asm__(#name sfx " " operands : [dst] "=r"(dst) : [rm] "r"(rm), [v] "r"(v)); \
        return dst;                                                                   \
    }                                                                                 \
    BMI_HANDLERS(bits, type, sfx, mod, name)

BMI_SIZES(BMI_FLAGS, andn, "%[rm], %[v], %[dst]")
BMI_SIZES(BMI_FLAGS, bextr, "%[v], %[rm], %[dst]")
BMI_SIZES(BMI_FLAGS, bzhi, "%[v], %[rm], %[dst]")
BMI_SIZES(BMI_FLAGS, blsi, "%[rm], %[dst]")
BMI_SIZES(BMI_FLAGS, blsr, "%[rm], %[dst]")
BMI_SIZES(BMI_FLAGS, blsmsk, "%[rm], %[dst]")
BMI_SIZES(BMI_PLAIN, pdep, "%[rm], %[v], %[dst]")
BMI_SIZES(BMI_PLAIN, pext, "%[rm], %[v], %[dst]")
BMI_SIZES(BMI_PLAIN, sarx, "%[v], %[rm], %[dst]")
BMI_SIZES(BMI_PLAIN, shlx, "%[v], %[rm], %[dst]")
BMI_SIZES(BMI_PLAIN, shrx, "%[v], %[rm], %[dst]")

#define BMI_CHOOSE(name) (bind_is_mem(mem) ? (wide ? name##64_m : name##32_m) : (wide ? name##64_r : name##32_r))

/* The ModRM operand is the second or the third. */
#define BMI_BIND(name, rm_at)                                                                               \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        const ZydisDecodedOperand *mem = &xi->op[rm_at];                                                    \
        bool wide = xi->op[0].size == 64;                                                                   \
        in->reg = bind_reg(xi->op[0].reg.value);                                                            \
        return BMI_CHOOSE(name);                                                                            \
    }
BMI_BIND(andn, 2)
BMI_BIND(bextr, 1)
BMI_BIND(bzhi, 1)
BMI_BIND(blsi, 1)
BMI_BIND(blsr, 1)
BMI_BIND(blsmsk, 1)
BMI_BIND(pdep, 2)
BMI_BIND(pext, 2)
BMI_BIND(sarx, 1)
BMI_BIND(shlx, 1)
BMI_BIND(shrx, 1)

/* ---- RORX: rotates by an immediate ---- */

#define RORX(bits, type, ...)                                                                \
    OP_INLINE type rotate##bits(type v, unsigned n)                                          \
    {                                                                                        \
        n %= (bits);                                                                         \
        return n ? (type)(v >> n | v << ((bits)-n)) : v;                                     \
    }                                                                                        \
    static void rorx##bits##_r(struct interp *c, const struct insn *in)                      \
    {                                                                                        \
        reg_set##bits(c, in->reg, rotate##bits(reg_get##bits(c, in->rm), (uint8_t)in->imm)); \
    }                                                                                        \
    static void rorx##bits##_m(struct interp *c, const struct insn *in)                      \
    {                                                                                        \
        reg_set##bits(c, in->reg, rotate##bits(mem_load##bits(c, in), (uint8_t)in->imm));    \
    }
BMI_SIZES(RORX)
BMI_BIND(rorx, 1)

/* ---- MULX: RDX * rm, low half to vvvv, then high half to reg (which wins when they are one) ---- */

#define MULX(bits, type, wide)                                                     \
    OP_INLINE void product##bits(struct interp *c, const struct insn *in, type rm) \
    {                                                                              \
        wide v = (wide)reg_get##bits(c, INTERP_GPR(X86_RDX)) * rm;                 \
        reg_set##bits(c, in->vvvv, (type)v);                                       \
        reg_set##bits(c, in->reg, (type)(v >> (bits)));                            \
    }                                                                              \
    static void mulx##bits##_r(struct interp *c, const struct insn *in)            \
    {                                                                              \
        product##bits(c, in, reg_get##bits(c, in->rm));                            \
    }                                                                              \
    static void mulx##bits##_m(struct interp *c, const struct insn *in)            \
    {                                                                              \
        product##bits(c, in, mem_load##bits(c, in));                               \
    }
MULX(32, uint32_t, uint64_t)
MULX(64, uint64_t, unsigned __int128)
BMI_BIND(mulx, 2)

const struct bind_entry op_bmi_binds[] = {
    {ZYDIS_MNEMONIC_ANDN, bind_andn}, {ZYDIS_MNEMONIC_BEXTR, bind_bextr},
    {ZYDIS_MNEMONIC_BZHI, bind_bzhi}, {ZYDIS_MNEMONIC_BLSI, bind_blsi},
    {ZYDIS_MNEMONIC_BLSR, bind_blsr}, {ZYDIS_MNEMONIC_BLSMSK, bind_blsmsk},
    {ZYDIS_MNEMONIC_PDEP, bind_pdep}, {ZYDIS_MNEMONIC_PEXT, bind_pext},
    {ZYDIS_MNEMONIC_SARX, bind_sarx}, {ZYDIS_MNEMONIC_SHLX, bind_shlx},
    {ZYDIS_MNEMONIC_SHRX, bind_shrx}, {ZYDIS_MNEMONIC_RORX, bind_rorx},
    {ZYDIS_MNEMONIC_MULX, bind_mulx}, {0},
};
