/*
 * Moves: MOV, MOVZX, MOVSX, MOVSXD, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, MOVNTI, XLAT, the sign extensions of the
 * accumulator, and moves between AH and flags.
 */
#include "engine/interp/cond.h"

static bool is_gpr(const ZydisDecodedOperand *op)
{
    ZydisRegisterClass class = bind_is_reg(op) ? ZydisRegisterGetClass(op->reg.value) : ZYDIS_REGCLASS_INVALID;
    return class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
           class == ZYDIS_REGCLASS_GPR64;
}

/* ---- MOV, MOVNTI ---- */

#define MOV(bits, type, ...)                                            \
    static void mov##bits##_rr(struct interp *c, const struct insn *in) \
    {                                                                   \
        reg_set##bits(c, in->reg, reg_get##bits(c, in->rm));            \
    }                                                                   \
    static void mov##bits##_ri(struct interp *c, const struct insn *in) \
    {                                                                   \
        reg_set##bits(c, in->reg, (type)in->imm);                       \
    }                                                                   \
    static void mov##bits##_rm(struct interp *c, const struct insn *in) \
    {                                                                   \
        reg_set##bits(c, in->reg, mem_load##bits(c, in));               \
    }                                                                   \
    static void mov##bits##_mr(struct interp *c, const struct insn *in) \
    {                                                                   \
        mem_store##bits(c, in, reg_get##bits(c, in->reg));              \
    }                                                                   \
    static void mov##bits##_mi(struct interp *c, const struct insn *in) \
    {                                                                   \
        mem_store##bits(c, in, (type)in->imm);                          \
    }
OP_SIZES(MOV)

static interp_fn bind_mov(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[BIND_N_FORMS][4] = {
        [BIND_RR] = OP_ROW(mov, _rr), [BIND_RI] = OP_ROW(mov, _ri), [BIND_RM] = OP_ROW(mov, _rm),
        [BIND_MR] = OP_ROW(mov, _mr), [BIND_MI] = OP_ROW(mov, _mi),
    };

    for (unsigned i = 0; i < 2; i++) {
        if (bind_is_reg(&xi->op[i]) && !is_gpr(&xi->op[i]))
            return NULL; /* segment, control and debug registers */
    }
    enum bind_form form = bind_form2(xi, in);
    return fns[form][bind_size_index(in->size)];
}

/* ---- MOVZX, MOVSX, MOVSXD: from a narrower source ---- */

#define EXTEND(name, to, type, from, src)                                           \
    static void name##from##to##_rr(struct interp *c, const struct insn *in)        \
    {                                                                               \
        reg_set##to(c, in->reg, (uint##to##_t)(type)(src)reg_get##from(c, in->rm)); \
    }                                                                               \
    static void name##from##to##_rm(struct interp *c, const struct insn *in)        \
    {                                                                               \
        reg_set##to(c, in->reg, (uint##to##_t)(type)(src)mem_load##from(c, in));    \
    }
EXTEND(movzx, 16, uint16_t, 8, uint8_t)
EXTEND(movzx, 32, uint32_t, 8, uint8_t)
EXTEND(movzx, 64, uint64_t, 8, uint8_t)
EXTEND(movzx, 16, uint16_t, 16, uint16_t)
EXTEND(movzx, 32, uint32_t, 16, uint16_t)
EXTEND(movzx, 64, uint64_t, 16, uint16_t)
EXTEND(movsx, 16, int16_t, 8, int8_t)
EXTEND(movsx, 32, int32_t, 8, int8_t)
EXTEND(movsx, 64, int64_t, 8, int8_t)
EXTEND(movsx, 16, int16_t, 16, int16_t)
EXTEND(movsx, 32, int32_t, 16, int16_t)
EXTEND(movsx, 64, int64_t, 16, int16_t)
EXTEND(movsx, 16, int16_t, 32, int32_t)
EXTEND(movsx, 32, int32_t, 32, int32_t)
EXTEND(movsx, 64, int64_t, 32, int32_t)

#define EXTEND_ROW(name, from, form)                                           \
    {                                                                          \
        NULL, name##from##16##form, name##from##32##form, name##from##64##form \
    }

static interp_fn bind_movzx(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][2][4] = {
        {EXTEND_ROW(movzx, 8, _rr), EXTEND_ROW(movzx, 16, _rr)},
        {EXTEND_ROW(movzx, 8, _rm), EXTEND_ROW(movzx, 16, _rm)},
    };
    bool mem = bind_form2(xi, in) == BIND_RM;
    return fns[mem][xi->op[1].size == 16][bind_size_index(in->size)];
}

static interp_fn bind_movsx(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][3][4] = {
        {EXTEND_ROW(movsx, 8, _rr), EXTEND_ROW(movsx, 16, _rr), EXTEND_ROW(movsx, 32, _rr)},
        {EXTEND_ROW(movsx, 8, _rm), EXTEND_ROW(movsx, 16, _rm), EXTEND_ROW(movsx, 32, _rm)},
    };
    bool mem = bind_form2(xi, in) == BIND_RM;
    return fns[mem][bind_size_index(xi->op[1].size / 8)][bind_size_index(in->size)];
}

/* ---- LEA: the offset alone, cut to the operand size ---- */

#define LEA(bits, type, ...)                                       \
    static void lea##bits(struct interp *c, const struct insn *in) \
    {                                                              \
        reg_set##bits(c, in->reg, (type)insn_offset(c, in));       \
    }
OP_SIZES_NOT_8(LEA)

static interp_fn bind_lea(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[4] = OP_ROW_NOT_8(lea, );
    return fns[bind_size_index(xi->op[0].size / 8)];
}

/* ---- XCHG: with memory always locked (SDM Vol. 3A 8.1.2.1) ---- */

#define XCHG(bits, type, sfx, r, ...)                                                                   \
    static void xchg##bits##_rr(struct interp *c, const struct insn *in)                                \
    {                                                                                                   \
        type a = reg_get##bits(c, in->reg), b = reg_get##bits(c, in->rm);                               \
        reg_set##bits(c, in->reg, b);                                                                   \
        reg_set##bits(c, in->rm, a);                                                                    \
    }                                                                                                   \
    static void xchg##bits##_m(struct interp *c, const struct insn *in)                                 \
    {                                                                                                   \
        type b = reg_get##bits(c, in->reg);                                                             \
        uint64_t lin = insn_lin(c, in, (bits) / 8, true);                                               \
        uint8_t *host = mmu_hit_write(c, lin, (bits) / 8);                                              \
        if (!host)                                                                                      \
            host = mmu_host_write(c, lin, (bits) / 8);                                                  \
        if (LIKELY(host != NULL)) {                                                                     \
            __asm__ volatile("xchg" sfx " %0, %1" : "+" r(b), "+m"(*(mmu_u##bits *)host) : : "memory"); \
        } else {                                                                                        \
            mmu_check_write(c, lin, (bits) / 8);                                                        \
            interp_bus_lock(c);                                                                         \
            type a = mmu_load##bits(c, lin);                                                            \
            mmu_store##bits(c, lin, b);                                                                 \
            interp_bus_unlock(c);                                                                       \
            b = a;                                                                                      \
        }                                                                                               \
        reg_set##bits(c, in->reg, b);                                                                   \
    }
OP_SIZES(XCHG)

static interp_fn bind_xchg(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn regs[4] = OP_ROW(xchg, _rr), mem[4] = OP_ROW(xchg, _m);
    const ZydisDecodedOperand *a = &xi->op[0], *b = &xi->op[1];
    unsigned size = bind_size_index(a->size / 8);

    if (bind_is_mem(a) || bind_is_mem(b)) {
        in->reg = bind_reg((bind_is_mem(a) ? b : a)->reg.value);
        return mem[size];
    }
    in->reg = bind_reg(a->reg.value);
    in->rm = bind_reg(b->reg.value);
    return regs[size];
}

/* ---- CMOVcc: the source is read in any case, and a 32-bit destination's upper half cleared ---- */

#define CMOV_SIZE(bits, type, sfx, r, cc)                                        \
    static void cmov##cc##bits##_rr(struct interp *c, const struct insn *in)     \
    {                                                                            \
        type v = reg_get##bits(c, in->rm);                                       \
        reg_set##bits(c, in->reg, cond_##cc(c) ? v : reg_get##bits(c, in->reg)); \
    }                                                                            \
    static void cmov##cc##bits##_rm(struct interp *c, const struct insn *in)     \
    {                                                                            \
        type v = mem_load##bits(c, in);                                          \
        reg_set##bits(c, in->reg, cond_##cc(c) ? v : reg_get##bits(c, in->reg)); \
    }

#define CMOV(cc, test)                                                                                        \
    OP_SIZES_NOT_8(CMOV_SIZE, cc)                                                                             \
    static interp_fn bind_cmov##cc(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                         \
        static const interp_fn fns[2][4] = {OP_ROW_NOT_8(cmov##cc, _rr), OP_ROW_NOT_8(cmov##cc, _rm)};        \
        bool mem = bind_form2(xi, in) == BIND_RM;                                                             \
        return fns[mem][bind_size_index(in->size)];                                                           \
    }
COND_LIST(CMOV)

/* ---- SETcc ---- */

#define SETCC(cc, test)                                                                                      \
    static void set##cc##_r(struct interp *c, const struct insn *in)                                         \
    {                                                                                                        \
        reg_set8(c, in->rm, cond_##cc(c));                                                                   \
    }                                                                                                        \
    static void set##cc##_m(struct interp *c, const struct insn *in)                                         \
    {                                                                                                        \
        mem_store8(c, in, cond_##cc(c));                                                                     \
    }                                                                                                        \
    static interp_fn bind_set##cc(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                        \
        return bind_is_mem(&xi->op[0]) ? set##cc##_m : set##cc##_r;                                          \
    }
COND_LIST(SETCC)

/* ---- byte order ---- */

static void bswap16(struct interp *c, const struct insn *in)
{
    reg_set16(c, in->reg, 0); /* undefined in the manual; what processors do */
}

static void bswap32(struct interp *c, const struct insn *in)
{
    reg_set32(c, in->reg, __builtin_bswap32(reg_get32(c, in->reg)));
}

static void bswap64(struct interp *c, const struct insn *in)
{
    reg_set64(c, in->reg, __builtin_bswap64(reg_get64(c, in->reg)));
}

static interp_fn bind_bswap(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[4] = OP_ROW_NOT_8(bswap, );
    return fns[bind_size_index(xi->op[0].size / 8)];
}

#define MOVBE(bits, type, ...)                                                    \
    static void movbe##bits##_rm(struct interp *c, const struct insn *in)         \
    {                                                                             \
        reg_set##bits(c, in->reg, __builtin_bswap##bits(mem_load##bits(c, in)));  \
    }                                                                             \
    static void movbe##bits##_mr(struct interp *c, const struct insn *in)         \
    {                                                                             \
        mem_store##bits(c, in, __builtin_bswap##bits(reg_get##bits(c, in->reg))); \
    }
OP_SIZES_NOT_8(MOVBE)

static interp_fn bind_movbe(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][4] = {OP_ROW_NOT_8(movbe, _rm), OP_ROW_NOT_8(movbe, _mr)};
    bool store = bind_form2(xi, in) == BIND_MR;
    return fns[store][bind_size_index(in->size)];
}

/* ---- the accumulator ---- */

/* AL = [RBX + AL] */
static void xlat(struct interp *c, const struct insn *in)
{
    uint64_t off = (c->st.gpr[X86_RBX] + reg_get8(c, INTERP_GPR(X86_RAX))) & ones_mask(in->addr);
    uint64_t lin = in->prefix & INSN_SLOW_ADDR ? seg_lin(c, in->seg, off, 1, false) : reg_get64(c, in->seg_base) + off;

    reg_set8(c, INTERP_GPR(X86_RAX), mmu_load8(c, lin));
}

static void cbw(struct interp *c, const struct insn *in)
{
    reg_set16(c, INTERP_GPR(X86_RAX), (uint16_t)(int8_t)c->st.gpr[X86_RAX]);
}

static void cwde(struct interp *c, const struct insn *in)
{
    c->st.gpr[X86_RAX] = (uint32_t)(int16_t)c->st.gpr[X86_RAX];
}

static void cdqe(struct interp *c, const struct insn *in)
{
    c->st.gpr[X86_RAX] = (uint64_t)(int32_t)c->st.gpr[X86_RAX];
}

static void cwd(struct interp *c, const struct insn *in)
{
    reg_set16(c, INTERP_GPR(X86_RDX), (int16_t)c->st.gpr[X86_RAX] < 0 ? 0xffff : 0);
}

static void cdq(struct interp *c, const struct insn *in)
{
    c->st.gpr[X86_RDX] = (int32_t)c->st.gpr[X86_RAX] < 0 ? 0xffffffff : 0;
}

static void cqo(struct interp *c, const struct insn *in)
{
    c->st.gpr[X86_RDX] = (int64_t)c->st.gpr[X86_RAX] < 0 ? UINT64_MAX : 0;
}

static void lahf(struct interp *c, const struct insn *in)
{
    reg_set8(c, INTERP_GPR(X86_RAX) + 1, (uint8_t)c->st.rflags);
}

static void sahf(struct interp *c, const struct insn *in)
{
    uint32_t mask = X86_FLAGS_STATUS & 0xff;
    c->st.rflags = (c->st.rflags & ~(uint64_t)mask) | (reg_get8(c, INTERP_GPR(X86_RAX) + 1) & mask);
}

/* SALC: AL = CF ? 0xff : 0. */
static void salc(struct interp *c, const struct insn *in)
{
    reg_set8(c, INTERP_GPR(X86_RAX), flag(c, X86_FLAG_CF) ? 0xff : 0);
}

/* ---- single flags ---- */

static void clc(struct interp *c, const struct insn *in)
{
    c->st.rflags &= ~(uint64_t)X86_FLAG_CF;
}

static void stc(struct interp *c, const struct insn *in)
{
    c->st.rflags |= X86_FLAG_CF;
}

static void cmc(struct interp *c, const struct insn *in)
{
    c->st.rflags ^= X86_FLAG_CF;
}

static void cld(struct interp *c, const struct insn *in)
{
    c->st.rflags &= ~(uint64_t)X86_FLAG_DF;
}

static void std(struct interp *c, const struct insn *in)
{
    c->st.rflags |= X86_FLAG_DF;
}

#define BIND_ONE(name)                                                                                      \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return name;                                                                                        \
    }
BIND_ONE(xlat)
BIND_ONE(cbw)
BIND_ONE(cwde)
BIND_ONE(cdqe)
BIND_ONE(cwd)
BIND_ONE(cdq)
BIND_ONE(cqo)
BIND_ONE(lahf)
BIND_ONE(sahf)
BIND_ONE(salc)
BIND_ONE(clc)
BIND_ONE(stc)
BIND_ONE(cmc)
BIND_ONE(cld)
BIND_ONE(std)

#define CMOV_ENTRY(cc, test) {ZYDIS_MNEMONIC_CMOV##cc, bind_cmov##cc},
#define SET_ENTRY(cc, test)  {ZYDIS_MNEMONIC_SET##cc, bind_set##cc},

const struct bind_entry op_mov_binds[] = {
    {ZYDIS_MNEMONIC_MOV, bind_mov},
    {ZYDIS_MNEMONIC_MOVNTI, bind_mov},
    {ZYDIS_MNEMONIC_MOVZX, bind_movzx},
    {ZYDIS_MNEMONIC_MOVSX, bind_movsx},
    {ZYDIS_MNEMONIC_MOVSXD, bind_movsx},
    {ZYDIS_MNEMONIC_LEA, bind_lea},
    {ZYDIS_MNEMONIC_XCHG, bind_xchg},
    {ZYDIS_MNEMONIC_BSWAP, bind_bswap},
    {ZYDIS_MNEMONIC_MOVBE, bind_movbe},
    {ZYDIS_MNEMONIC_XLAT, bind_xlat},
    {ZYDIS_MNEMONIC_CBW, bind_cbw},
    {ZYDIS_MNEMONIC_CWDE, bind_cwde},
    {ZYDIS_MNEMONIC_CDQE, bind_cdqe},
    {ZYDIS_MNEMONIC_CWD, bind_cwd},
    {ZYDIS_MNEMONIC_CDQ, bind_cdq},
    {ZYDIS_MNEMONIC_CQO, bind_cqo},
    {ZYDIS_MNEMONIC_LAHF, bind_lahf},
    {ZYDIS_MNEMONIC_SAHF, bind_sahf},
    {ZYDIS_MNEMONIC_SALC, bind_salc},
    {ZYDIS_MNEMONIC_CLC, bind_clc},
    {ZYDIS_MNEMONIC_STC, bind_stc},
    {ZYDIS_MNEMONIC_CMC, bind_cmc},
    {ZYDIS_MNEMONIC_CLD, bind_cld},
    {ZYDIS_MNEMONIC_STD, bind_std},
    COND_LIST(CMOV_ENTRY) COND_LIST(SET_ENTRY){0},
};
