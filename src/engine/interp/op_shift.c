/*
 * Shifts and rotates (SDM Vol. 2: SAL, SAR, SHL, SHR, RCL, RCR, ROL, ROR, SHLD, SHRD). The host's instruction starts from the guest's
 * flags, so a count of zero keeps them, and a rotate those it does not define.
 */
#include "engine/interp/op.h"

/* `b` is the count; the host masks it. */
#define SHIFT(bits, type, sfx, r, name)                                                                         \
    OP_INLINE type name##bits(struct interp *c, type a, type b)                                                 \
    {                                                                                                           \
        uint16_t ax = flags_pack(c);                                                                            \
        __asm__(OP_FLAGS_IN #name sfx " %%cl, %0" OP_FLAGS_OUT : "+" r(a), "+&a"(ax) : "c"((uint8_t)b) : "cc"); \
        flags_set(c, ax);                                                                                       \
        return a;                                                                                               \
    }                                                                                                           \
    static void name##bits##_ri(struct interp *c, const struct insn *in)                                        \
    {                                                                                                           \
        type v = name##bits(c, reg_get##bits(c, in->reg), (uint8_t)in->imm);                                    \
        reg_set##bits(c, in->reg, v);                                                                           \
    }                                                                                                           \
    static void name##bits##_rc(struct interp *c, const struct insn *in)                                        \
    {                                                                                                           \
        type v = name##bits(c, reg_get##bits(c, in->reg), (uint8_t)c->st.gpr[X86_RCX]);                         \
        reg_set##bits(c, in->reg, v);                                                                           \
    }                                                                                                           \
    static void name##bits##_mi(struct interp *c, const struct insn *in)                                        \
    {                                                                                                           \
        op_rmw##bits(c, in, name##bits, (uint8_t)in->imm);                                                      \
    }                                                                                                           \
    static void name##bits##_mc(struct interp *c, const struct insn *in)                                        \
    {                                                                                                           \
        op_rmw##bits(c, in, name##bits, (uint8_t)c->st.gpr[X86_RCX]);                                           \
    }

#define SHIFT_BIND(name)                                                                                    \
    OP_SIZES(SHIFT, name)                                                                                   \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[2][2][4] = {                                                             \
            {OP_ROW(name, _rc), OP_ROW(name, _ri)},                                                         \
            {OP_ROW(name, _mc), OP_ROW(name, _mi)},                                                         \
        };                                                                                                  \
        bool mem = bind_is_mem(&xi->op[0]);                                                                 \
        if (!mem)                                                                                           \
            in->reg = bind_reg(xi->op[0].reg.value);                                                        \
        return fns[mem][bind_is_imm(&xi->op[1])][bind_size_index(xi->op[0].size / 8)];                      \
    }
SHIFT_BIND(rol)
SHIFT_BIND(ror)
SHIFT_BIND(rcl)
SHIFT_BIND(rcr)
SHIFT_BIND(shl)
SHIFT_BIND(shr)
SHIFT_BIND(sar)

/* ---- SHLD and SHRD: the count is CL or an immediate ---- */

static uint8_t double_count(const struct interp *c, const struct insn *in)
{
    return in->prefix & INSN_REP ? (uint8_t)c->st.gpr[X86_RCX] : (uint8_t)in->imm;
}

#define DOUBLE(bits, type, sfx, r, name)                                                                               \
    static type name##bits(struct interp *c, type a, type src, uint8_t count)                                          \
    {                                                                                                                  \
        uint16_t ax = flags_pack(c);                                                                                   \
        __asm__(OP_FLAGS_IN #name sfx " %%cl, %2, %0" OP_FLAGS_OUT : "+" r(a), "+&a"(ax) : r(src), "c"(count) : "cc"); \
        flags_set(c, ax);                                                                                              \
        return a;                                                                                                      \
    }                                                                                                                  \
    static void name##bits##_r(struct interp *c, const struct insn *in)                                                \
    {                                                                                                                  \
        type a = reg_get##bits(c, in->rm), src = reg_get##bits(c, in->reg);                                            \
        reg_set##bits(c, in->rm, name##bits(c, a, src, double_count(c, in)));                                          \
    }                                                                                                                  \
    static void name##bits##_m(struct interp *c, const struct insn *in)                                                \
    {                                                                                                                  \
        type src = reg_get##bits(c, in->reg);                                                                          \
        uint64_t lin = insn_lin(c, in, (bits) / 8, true);                                                              \
        mmu_check_write(c, lin, (bits) / 8);                                                                           \
        type a = mmu_load##bits(c, lin);                                                                               \
        mmu_store##bits(c, lin, name##bits(c, a, src, double_count(c, in)));                                           \
    }

#define DOUBLE_BIND(name)                                                                                   \
    OP_SIZES_NOT_8(DOUBLE, name)                                                                            \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[2][4] = {OP_ROW_NOT_8(name, _r), OP_ROW_NOT_8(name, _m)};                \
        in->prefix &= (uint8_t)~INSN_REP;                                                                   \
        if (!bind_is_imm(&xi->op[2])) /* such a prefix means nothing here, so its bit says: by CL */        \
            in->prefix |= INSN_REP;                                                                         \
        return fns[bind_is_mem(&xi->op[0])][bind_size_index(xi->op[0].size / 8)];                           \
    }
DOUBLE_BIND(shld)
DOUBLE_BIND(shrd)

const struct bind_entry op_shift_binds[] = {
    {ZYDIS_MNEMONIC_ROL, bind_rol},   {ZYDIS_MNEMONIC_ROR, bind_ror},
    {ZYDIS_MNEMONIC_RCL, bind_rcl},   {ZYDIS_MNEMONIC_RCR, bind_rcr},
    {ZYDIS_MNEMONIC_SHL, bind_shl},   {ZYDIS_MNEMONIC_SHR, bind_shr},
    {ZYDIS_MNEMONIC_SAR, bind_sar},   {ZYDIS_MNEMONIC_SHLD, bind_shld},
    {ZYDIS_MNEMONIC_SHRD, bind_shrd}, {0},
};
