/* Single bits and bit counts: BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT, CRC32; RDRAND and RDSEED. */
#include <sys/random.h>

#include "engine/interp/op.h"

/* ---- BT and its like: only CF changes ---- */

#define BIT_OP(bits, type, sfx, r, name, expr)                  \
    OP_INLINE type name##bits(struct interp *c, type a, type b) \
    {                                                           \
        type bit = (type)((type)1 << (b % (bits)));             \
        flag_put(c, X86_FLAG_CF, a &bit);                       \
        return (type)(expr);                                    \
    }
OP_SIZES_NOT_8(BIT_OP, bts, a | bit)
OP_SIZES_NOT_8(BIT_OP, btr, a & ~bit)
OP_SIZES_NOT_8(BIT_OP, btc, a ^ bit)

/* A bit offset in a register reaches beyond the operand, in both directions (SDM Vol. 2A 3.1.1.9). */
#define BIT_LIN(bits, type, stype)                                                                   \
    OP_INLINE uint64_t bit_lin##bits(struct interp *c, const struct insn *in, bool write)            \
    {                                                                                                \
        int64_t bit = (stype)reg_get##bits(c, in->reg);                                              \
        uint64_t off = insn_offset(c, in) + (uint64_t)((bit >> __builtin_ctz(bits)) * ((bits) / 8)); \
        off &= ones_mask(in->addr);                                                                  \
        if (UNLIKELY(in->prefix & INSN_SLOW_ADDR))                                                   \
            return seg_lin(c, in->seg, off, (bits) / 8, write);                                      \
        return reg_get64(c, in->seg_base) + off;                                                     \
    }
BIT_LIN(16, uint16_t, int16_t)
BIT_LIN(32, uint32_t, int32_t)
BIT_LIN(64, uint64_t, int64_t)

#define BIT_TEST(bits, type, ...)                                                                       \
    static void bt##bits##_rr(struct interp *c, const struct insn *in)                                  \
    {                                                                                                   \
        flag_put(c, X86_FLAG_CF, reg_get##bits(c, in->rm) >> (reg_get##bits(c, in->reg) % (bits)) & 1); \
    }                                                                                                   \
    static void bt##bits##_ri(struct interp *c, const struct insn *in)                                  \
    {                                                                                                   \
        flag_put(c, X86_FLAG_CF, reg_get##bits(c, in->rm) >> (in->imm % (bits)) & 1);                   \
    }                                                                                                   \
    static void bt##bits##_mr(struct interp *c, const struct insn *in)                                  \
    {                                                                                                   \
        type a = mmu_load##bits(c, bit_lin##bits(c, in, false));                                        \
        flag_put(c, X86_FLAG_CF, a >> (reg_get##bits(c, in->reg) % (bits)) & 1);                        \
    }                                                                                                   \
    static void bt##bits##_mi(struct interp *c, const struct insn *in)                                  \
    {                                                                                                   \
        flag_put(c, X86_FLAG_CF, mem_load##bits(c, in) >> (in->imm % (bits)) & 1);                      \
    }
OP_SIZES_NOT_8(BIT_TEST)

#define BIT_CHANGE(bits, type, sfx, r, name)                                                          \
    static void name##bits##_rr(struct interp *c, const struct insn *in)                              \
    {                                                                                                 \
        reg_set##bits(c, in->rm, name##bits(c, reg_get##bits(c, in->rm), reg_get##bits(c, in->reg))); \
    }                                                                                                 \
    static void name##bits##_ri(struct interp *c, const struct insn *in)                              \
    {                                                                                                 \
        reg_set##bits(c, in->rm, name##bits(c, reg_get##bits(c, in->rm), (type)in->imm));             \
    }                                                                                                 \
    static void name##bits##_mr(struct interp *c, const struct insn *in)                              \
    {                                                                                                 \
        op_rmw_at##bits(c, bit_lin##bits(c, in, true), name##bits, reg_get##bits(c, in->reg));        \
    }                                                                                                 \
    static void name##bits##_mi(struct interp *c, const struct insn *in)                              \
    {                                                                                                 \
        op_rmw##bits(c, in, name##bits, (type)in->imm);                                               \
    }                                                                                                 \
    static void name##bits##_lock_mr(struct interp *c, const struct insn *in)                         \
    {                                                                                                 \
        op_lock_at##bits(c, bit_lin##bits(c, in, true), name##bits, reg_get##bits(c, in->reg));       \
    }                                                                                                 \
    static void name##bits##_lock_mi(struct interp *c, const struct insn *in)                         \
    {                                                                                                 \
        op_lock##bits(c, in, name##bits, (type)in->imm);                                              \
    }
OP_SIZES_NOT_8(BIT_CHANGE, bts)
OP_SIZES_NOT_8(BIT_CHANGE, btr)
OP_SIZES_NOT_8(BIT_CHANGE, btc)

/* First index: 0 register, 1 memory, 2 locked memory; second: immediate offset. */
static interp_fn bit_choose(const struct x86_insn *xi, const struct insn *in, const interp_fn fns[3][2][4])
{
    unsigned form = bind_is_mem(&xi->op[0]) ? (in->prefix & INSN_LOCK ? 2 : 1) : 0;
    return fns[form][bind_is_imm(&xi->op[1])][bind_size_index(xi->op[0].size / 8)];
}

static interp_fn bind_bt(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[3][2][4] = {
        {OP_ROW_NOT_8(bt, _rr), OP_ROW_NOT_8(bt, _ri)},
        {OP_ROW_NOT_8(bt, _mr), OP_ROW_NOT_8(bt, _mi)},
    };
    return bit_choose(xi, in, fns);
}

#define BIT_BIND(name)                                                                                      \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[3][2][4] = {                                                             \
            {OP_ROW_NOT_8(name, _rr), OP_ROW_NOT_8(name, _ri)},                                             \
            {OP_ROW_NOT_8(name, _mr), OP_ROW_NOT_8(name, _mi)},                                             \
            {OP_ROW_NOT_8(name, _lock_mr), OP_ROW_NOT_8(name, _lock_mi)},                                   \
        };                                                                                                  \
        return bit_choose(xi, in, fns);                                                                     \
    }
BIT_BIND(bts)
BIT_BIND(btr)
BIT_BIND(btc)

/* ---- counts: the host writes its part of the whole destination register, or leaves it (BSF and BSR of zero) ---- */

#define COUNT_SIZE(bits, type, sfx, r, name)                                                         \
    OP_INLINE void name##bits(struct interp *c, const struct insn *in, type src)                     \
    {                                                                                                \
        uint64_t dst = reg_get64(c, in->reg), wide = src;                                            \
        uint16_t ax = flags_pack(c);                                                                 \
        __asm__(OP_FLAGS_IN #name sfx " %" COUNT_MOD_##bits "2, %" COUNT_MOD_##bits "0" OP_FLAGS_OUT \
                : "+&r"(dst), "+&a"(ax)                                                              \
                : "r"(wide)                                                                          \
                : "cc");                                                                             \
        flags_set(c, ax);                                                                            \
        reg_set64(c, in->reg, dst);                                                                  \
    }                                                                                                \
    static void name##bits##_r(struct interp *c, const struct insn *in)                              \
    {                                                                                                \
        name##bits(c, in, reg_get##bits(c, in->rm));                                                 \
    }                                                                                                \
    static void name##bits##_m(struct interp *c, const struct insn *in)                              \
    {                                                                                                \
        name##bits(c, in, mem_load##bits(c, in));                                                    \
    }
#define COUNT_MOD_16 "w"
#define COUNT_MOD_32 "k"
#define COUNT_MOD_64 "q"

#define COUNT(name)                                                                                         \
    OP_SIZES_NOT_8(COUNT_SIZE, name)                                                                        \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[2][4] = {OP_ROW_NOT_8(name, _r), OP_ROW_NOT_8(name, _m)};                \
        return fns[bind_is_mem(&xi->op[1])][bind_size_index(xi->op[0].size / 8)];                           \
    }
COUNT(bsf)
COUNT(bsr)
COUNT(tzcnt)
COUNT(lzcnt)
COUNT(popcnt)

/* ---- CRC32: the destination is written as a whole ---- */

#define CRC32(bits, type, sfx, ...)                                                             \
    OP_INLINE void crc32_##bits(struct interp *c, const struct insn *in, type src)              \
    {                                                                                           \
        uint64_t dst = reg_get32(c, in->reg);                                                   \
        __asm__("crc32" sfx " %1, %" CRC32_MOD_##bits "0" : "+r"(dst) : CRC32_REG_##bits(src)); \
        reg_set64(c, in->reg, dst);                                                             \
    }                                                                                           \
    static void crc32_##bits##_r(struct interp *c, const struct insn *in)                       \
    {                                                                                           \
        crc32_##bits(c, in, reg_get##bits(c, in->rm));                                          \
    }                                                                                           \
    static void crc32_##bits##_m(struct interp *c, const struct insn *in)                       \
    {                                                                                           \
        crc32_##bits(c, in, mem_load##bits(c, in));                                             \
    }
#define CRC32_MOD_8  "k"
#define CRC32_MOD_16 "k"
#define CRC32_MOD_32 "k"
#define CRC32_MOD_64 "q"
#define CRC32_REG_8  "q"
#define CRC32_REG_16 "r"
#define CRC32_REG_32 "r"
#define CRC32_REG_64 "r"
OP_SIZES(CRC32)

static interp_fn bind_crc32(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][4] = {OP_ROW(crc32_, _r), OP_ROW(crc32_, _m)};
    return fns[bind_is_mem(&xi->op[1])][bind_size_index(xi->op[1].size / 8)];
}

/* ---- RDRAND and RDSEED: the host's entropy; CF says that there was some ---- */

static void random_number(struct interp *c, const struct insn *in)
{
    uint64_t v = 0;
    bool ok = c->conf.random ? c->conf.random(c->conf.random_opaque, &v, in->size)
                             : getrandom(&v, in->size, GRND_NONBLOCK) == in->size;

    if (!ok)
        v = 0;
    if (in->size == 2)
        reg_set16(c, in->rm, (uint16_t)v);
    else
        reg_set64(c, in->rm, v);
    c->st.rflags &= ~(uint64_t)X86_FLAGS_STATUS;
    flag_put(c, X86_FLAG_CF, ok);
}

static interp_fn bind_random(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->size = (uint8_t)(xi->op[0].size / 8);
    in->rm = bind_reg(xi->op[0].reg.value);
    return random_number;
}

const struct bind_entry op_bit_binds[] = {
    {ZYDIS_MNEMONIC_BT, bind_bt},
    {ZYDIS_MNEMONIC_BTS, bind_bts},
    {ZYDIS_MNEMONIC_BTR, bind_btr},
    {ZYDIS_MNEMONIC_BTC, bind_btc},
    {ZYDIS_MNEMONIC_BSF, bind_bsf},
    {ZYDIS_MNEMONIC_BSR, bind_bsr},
    {ZYDIS_MNEMONIC_TZCNT, bind_tzcnt},
    {ZYDIS_MNEMONIC_LZCNT, bind_lzcnt},
    {ZYDIS_MNEMONIC_POPCNT, bind_popcnt},
    {ZYDIS_MNEMONIC_CRC32, bind_crc32},
    {ZYDIS_MNEMONIC_RDRAND, bind_random},
    {ZYDIS_MNEMONIC_RDSEED, bind_random},
    {0},
};
