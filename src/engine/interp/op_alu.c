/*
 * Arithmetic and logic on two operands or one (SDM Vol. 2: ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST; INC, DEC, NOT, NEG; ADCX, ADOX).
 * The host's own instruction computes the result and all its flags, the undefined ones too.
 */
#include "engine/interp/alu.h"

/* ---- two operands ---- */

#define ALU_CARRY_IN(bits, type, sfx, r, name, insn)             \
    OP_INLINE type name##bits(struct interp *c, type a, type b)  \
    {                                                            \
        uint16_t ax;                                             \
        __asm__("btl $0, %3\n\t" insn sfx " %2, %0" OP_FLAGS_OUT \
                : "+" r(a), "=&a"(ax)                            \
                : r(b), "r"((uint32_t)c->st.rflags)              \
                : "cc");                                         \
        flags_set(c, ax);                                        \
        return a;                                                \
    }

OP_SIZES(ALU_ALL_FLAGS, or, "or")
OP_SIZES(ALU_CARRY_IN, adc, "adc")
OP_SIZES(ALU_CARRY_IN, sbb, "sbb")
OP_SIZES(ALU_ALL_FLAGS, and, "and")
OP_SIZES(ALU_ALL_FLAGS, sub, "sub")
OP_SIZES(ALU_ALL_FLAGS, xor, "xor")
OP_SIZES(ALU_ALL_FLAGS, test, "test")

OP_SIZES(OP_BINARY_WRITES, add)
OP_SIZES(OP_BINARY_WRITES, or)
OP_SIZES(OP_BINARY_WRITES, adc)
OP_SIZES(OP_BINARY_WRITES, sbb)
OP_SIZES(OP_BINARY_WRITES, and)
OP_SIZES(OP_BINARY_WRITES, sub)
OP_SIZES(OP_BINARY_WRITES, xor)
OP_SIZES(OP_BINARY_READS, cmp)
OP_SIZES(OP_BINARY_READS, test)

#define ALU_BIND(name)                                                                                      \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn plain[BIND_N_FORMS][4] = {                                                   \
            [BIND_RR] = OP_ROW(name, _rr), [BIND_RI] = OP_ROW(name, _ri), [BIND_RM] = OP_ROW(name, _rm),    \
            [BIND_MR] = OP_ROW(name, _mr), [BIND_MI] = OP_ROW(name, _mi),                                   \
        };                                                                                                  \
        static const interp_fn locked[BIND_N_FORMS][4] = {                                                  \
            [BIND_MR] = OP_ROW(name, _lock_mr),                                                             \
            [BIND_MI] = OP_ROW(name, _lock_mi),                                                             \
        };                                                                                                  \
        enum bind_form form = bind_form2(xi, in);                                                           \
        return (in->prefix & INSN_LOCK ? locked : plain)[form][bind_size_index(in->size)];                  \
    }
ALU_BIND(add)
ALU_BIND(or)
ALU_BIND(adc)
ALU_BIND(sbb)
ALU_BIND(and)
ALU_BIND(sub)
ALU_BIND(xor)

#define ALU_BIND_READS(name)                                                                                \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[BIND_N_FORMS][4] = {                                                     \
            [BIND_RR] = OP_ROW(name, _rr), [BIND_RI] = OP_ROW(name, _ri), [BIND_RM] = OP_ROW(name, _rm),    \
            [BIND_MR] = OP_ROW(name, _mr), [BIND_MI] = OP_ROW(name, _mi),                                   \
        };                                                                                                  \
        enum bind_form form = bind_form2(xi, in);                                                           \
        return fns[form][bind_size_index(in->size)];                                                        \
    }
ALU_BIND_READS(cmp)
ALU_BIND_READS(test)

/* ---- one operand: `b` is unused ---- */

#define ALU_UNARY(bits, type, sfx, r, name, insn)                                        \
    OP_INLINE type name##bits(struct interp *c, type a, type b)                          \
    {                                                                                    \
        uint16_t ax = flags_pack(c);                                                     \
        __asm__(OP_FLAGS_IN insn sfx " %0" OP_FLAGS_OUT : "+" r(a), "+&a"(ax) : : "cc"); \
        flags_set(c, ax);                                                                \
        return a;                                                                        \
    }

#define ALU_NOT(bits, type, sfx, r, ...)                         \
    OP_INLINE type not ##bits(struct interp * c, type a, type b) \
    {                                                            \
        return (type)~a;                                         \
    }

OP_SIZES(ALU_UNARY, inc, "inc")
OP_SIZES(ALU_UNARY, dec, "dec")
OP_SIZES(ALU_UNARY, neg, "neg")
OP_SIZES(ALU_NOT)

#define ALU_UNARY_HANDLERS(bits, type, sfx, r, name)                       \
    static void name##bits##_r(struct interp *c, const struct insn *in)    \
    {                                                                      \
        type v = name##bits(c, reg_get##bits(c, in->reg), 0);              \
        reg_set##bits(c, in->reg, v);                                      \
    }                                                                      \
    static void name##bits##_m(struct interp *c, const struct insn *in)    \
    {                                                                      \
        op_rmw##bits(c, in, name##bits, 0);                                \
    }                                                                      \
    static void name##bits##_lock(struct interp *c, const struct insn *in) \
    {                                                                      \
        op_lock##bits(c, in, name##bits, 0);                               \
    }

#define ALU_BIND_UNARY(name)                                                                                \
    OP_SIZES(ALU_UNARY_HANDLERS, name)                                                                      \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[3][4] = {OP_ROW(name, _r), OP_ROW(name, _m), OP_ROW(name, _lock)};       \
        unsigned size = bind_size_index(xi->op[0].size / 8);                                                \
        if (bind_is_mem(&xi->op[0]))                                                                        \
            return fns[in->prefix & INSN_LOCK ? 2 : 1][size];                                               \
        in->reg = bind_reg(xi->op[0].reg.value);                                                            \
        return fns[0][size];                                                                                \
    }
ALU_BIND_UNARY(inc)
ALU_BIND_UNARY(dec)
ALU_BIND_UNARY(neg)
ALU_BIND_UNARY(not )

/* ---- ADCX and ADOX: add with one flag as carry, the others stay ---- */

#define ALU_ADX(bits, type, carry)                                                                            \
    OP_INLINE type add_##carry##bits(struct interp *c, type a, type b)                                        \
    {                                                                                                         \
        type sum, v;                                                                                          \
        bool out = __builtin_add_overflow(a, b, &sum);                                                        \
        out |= __builtin_add_overflow(sum, (type)flag(c, X86_FLAG_##carry), &v);                              \
        flag_put(c, X86_FLAG_##carry, out);                                                                   \
        return v;                                                                                             \
    }                                                                                                         \
    static void add_##carry##bits##_rr(struct interp *c, const struct insn *in)                               \
    {                                                                                                         \
        reg_set##bits(c, in->reg, add_##carry##bits(c, reg_get##bits(c, in->reg), reg_get##bits(c, in->rm))); \
    }                                                                                                         \
    static void add_##carry##bits##_rm(struct interp *c, const struct insn *in)                               \
    {                                                                                                         \
        type b = mem_load##bits(c, in);                                                                       \
        reg_set##bits(c, in->reg, add_##carry##bits(c, reg_get##bits(c, in->reg), b));                        \
    }
ALU_ADX(32, uint32_t, CF)
ALU_ADX(64, uint64_t, CF)
ALU_ADX(32, uint32_t, OF)
ALU_ADX(64, uint64_t, OF)

static interp_fn bind_adcx(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool mem = bind_form2(xi, in) == BIND_RM;
    if (in->size == 8)
        return mem ? add_CF64_rm : add_CF64_rr;
    return mem ? add_CF32_rm : add_CF32_rr;
}

static interp_fn bind_adox(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool mem = bind_form2(xi, in) == BIND_RM;
    if (in->size == 8)
        return mem ? add_OF64_rm : add_OF64_rr;
    return mem ? add_OF32_rm : add_OF32_rr;
}

const struct bind_entry op_alu_binds[] = {
    {ZYDIS_MNEMONIC_ADD, bind_add},   {ZYDIS_MNEMONIC_OR, bind_or},
    {ZYDIS_MNEMONIC_ADC, bind_adc},   {ZYDIS_MNEMONIC_SBB, bind_sbb},
    {ZYDIS_MNEMONIC_AND, bind_and},   {ZYDIS_MNEMONIC_SUB, bind_sub},
    {ZYDIS_MNEMONIC_XOR, bind_xor},   {ZYDIS_MNEMONIC_CMP, bind_cmp},
    {ZYDIS_MNEMONIC_TEST, bind_test}, {ZYDIS_MNEMONIC_INC, bind_inc},
    {ZYDIS_MNEMONIC_DEC, bind_dec},   {ZYDIS_MNEMONIC_NEG, bind_neg},
    {ZYDIS_MNEMONIC_NOT, bind_not},   {ZYDIS_MNEMONIC_ADCX, bind_adcx},
    {ZYDIS_MNEMONIC_ADOX, bind_adox}, {0},
};
