/*
 * CMPXCHG, XADD, CMPXCHG8B and CMPXCHG16B. The memory forms are atomic with or without LOCK, and always write (SDM Vol. 2A, CMPXCHG), so
 * a page that may not be written faults even where the comparison fails.
 */
#include "engine/interp/alu.h"

/* Host memory for a read-modify-write after raising its faults, or NULL: then the caller takes the bus lock. */
static uint8_t *host_for(struct interp *c, uint64_t lin, unsigned len)
{
    uint8_t *host = mmu_hit_write(c, lin, len);
    if (!host)
        host = mmu_host_write(c, lin, len);
    if (!host)
        mmu_check_write(c, lin, len);
    return host;
}

#define CMPXCHG(bits, type, sfx, r, ...)                                                              \
    static void cmpxchg##bits##_m(struct interp *c, const struct insn *in)                            \
    {                                                                                                 \
        type acc = reg_get##bits(c, INTERP_GPR(X86_RAX)), new = reg_get##bits(c, in->reg), old = acc; \
        uint64_t lin = insn_lin(c, in, (bits) / 8, true);                                             \
        uint8_t *host = host_for(c, lin, (bits) / 8);                                                 \
        if (LIKELY(host != NULL)) {                                                                   \
            op_cas##bits(host, &old, new);                                                            \
        } else {                                                                                      \
            interp_bus_lock(c);                                                                       \
            old = mmu_load##bits(c, lin);                                                             \
            mmu_store##bits(c, lin, old == acc ? new : old);                                          \
            interp_bus_unlock(c);                                                                     \
        }                                                                                             \
        cmp##bits(c, acc, old);                                                                       \
        if (old != acc)                                                                               \
            reg_set##bits(c, INTERP_GPR(X86_RAX), old);                                               \
    }                                                                                                 \
    static void cmpxchg##bits##_r(struct interp *c, const struct insn *in)                            \
    {                                                                                                 \
        type acc = reg_get##bits(c, INTERP_GPR(X86_RAX)), old = reg_get##bits(c, in->rm);             \
        cmp##bits(c, acc, old);                                                                       \
        if (old == acc)                                                                               \
            reg_set##bits(c, in->rm, reg_get##bits(c, in->reg));                                      \
        else                                                                                          \
            reg_set##bits(c, INTERP_GPR(X86_RAX), old);                                               \
    }
OP_SIZES(CMPXCHG)

#define XADD(bits, type, sfx, r, ...)                                                                                \
    static void xadd##bits##_m(struct interp *c, const struct insn *in)                                              \
    {                                                                                                                \
        type b = reg_get##bits(c, in->reg), old = b;                                                                 \
        uint64_t lin = insn_lin(c, in, (bits) / 8, true);                                                            \
        uint8_t *host = host_for(c, lin, (bits) / 8);                                                                \
        if (LIKELY(host != NULL)) {                                                                                  \
            __asm__ volatile("lock xadd" sfx " %0, %1" : "+" r(old), "+m"(*(mmu_u##bits *)host) : : "memory", "cc"); \
        } else {                                                                                                     \
            interp_bus_lock(c);                                                                                      \
            old = mmu_load##bits(c, lin);                                                                            \
            mmu_store##bits(c, lin, (type)(old + b));                                                                \
            interp_bus_unlock(c);                                                                                    \
        }                                                                                                            \
        add##bits(c, old, b);                                                                                        \
        reg_set##bits(c, in->reg, old);                                                                              \
    }                                                                                                                \
    static void xadd##bits##_r(struct interp *c, const struct insn *in)                                              \
    {                                                                                                                \
        type a = reg_get##bits(c, in->rm), b = reg_get##bits(c, in->reg);                                            \
        type sum = add##bits(c, a, b);                                                                               \
        reg_set##bits(c, in->reg, a);                                                                                \
        reg_set##bits(c, in->rm, sum); /* last: it wins when both are one register */                                \
    }
OP_SIZES(XADD)

static interp_fn bind_cmpxchg(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][4] = {OP_ROW(cmpxchg, _r), OP_ROW(cmpxchg, _m)};
    return fns[bind_is_mem(&xi->op[0])][bind_size_index(xi->op[0].size / 8)];
}

static interp_fn bind_xadd(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    static const interp_fn fns[2][4] = {OP_ROW(xadd, _r), OP_ROW(xadd, _m)};
    return fns[bind_is_mem(&xi->op[0])][bind_size_index(xi->op[0].size / 8)];
}

/* ---- EDX:EAX or RDX:RAX against memory; only ZF changes ---- */

static void cmpxchg8b(struct interp *c, const struct insn *in)
{
    uint64_t acc = c->st.gpr[X86_RDX] << 32 | (uint32_t)c->st.gpr[X86_RAX], old = acc;
    uint64_t new = c->st.gpr[X86_RCX] << 32 | (uint32_t)c->st.gpr[X86_RBX];
    uint64_t lin = insn_lin(c, in, 8, true);
    uint8_t *host = host_for(c, lin, 8);

    if (LIKELY(host != NULL)) {
        op_cas64(host, &old, new);
    } else {
        interp_bus_lock(c);
        old = mmu_load64(c, lin);
        mmu_store64(c, lin, old == acc ? new : old);
        interp_bus_unlock(c);
    }
    flag_put(c, X86_FLAG_ZF, old == acc);
    if (old != acc) {
        c->st.gpr[X86_RAX] = (uint32_t)old;
        c->st.gpr[X86_RDX] = old >> 32;
    }
}

static void cmpxchg16b(struct interp *c, const struct insn *in)
{
    uint64_t old[2] = {c->st.gpr[X86_RAX], c->st.gpr[X86_RDX]}, new[2] = {c->st.gpr[X86_RBX], c->st.gpr[X86_RCX]};
    uint64_t lin = insn_lin(c, in, 16, true);
    bool equal;

    if (lin & 15)
        interp_raise_error(c, X86_GP, 0);
    uint8_t *host = host_for(c, lin, 16);
    if (LIKELY(host != NULL)) {
        __asm__ volatile("lock cmpxchg16b %1"
                         : "=@ccz"(equal), "+m"(*(unsigned __int128 *)host), "+a"(old[0]), "+d"(old[1])
                         : "b"(new[0]), "c"(new[1])
                         : "memory");
    } else {
        uint64_t acc[2] = {old[0], old[1]};
        interp_bus_lock(c);
        mmu_load_bytes(c, lin, old, 16);
        equal = old[0] == acc[0] && old[1] == acc[1];
        mmu_store_bytes(c, lin, equal ? new : old, 16);
        interp_bus_unlock(c);
    }
    flag_put(c, X86_FLAG_ZF, equal);
    if (!equal) {
        c->st.gpr[X86_RAX] = old[0];
        c->st.gpr[X86_RDX] = old[1];
    }
}

static interp_fn bind_cmpxchg8b(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return cmpxchg8b;
}

static interp_fn bind_cmpxchg16b(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return cmpxchg16b;
}

const struct bind_entry op_atomic_binds[] = {
    {ZYDIS_MNEMONIC_CMPXCHG, bind_cmpxchg},
    {ZYDIS_MNEMONIC_XADD, bind_xadd},
    {ZYDIS_MNEMONIC_CMPXCHG8B, bind_cmpxchg8b},
    {ZYDIS_MNEMONIC_CMPXCHG16B, bind_cmpxchg16b},
    {0},
};
