/*
 * What the handlers of integer instructions share: registers and memory by size, the host's flags, and generators for the usual
 * shapes. A family of functions is named by its operation and the width in bits: add8, add16, add32, add64.
 */
#ifndef ENGINE_INTERP_OP_H
#define ENGINE_INTERP_OP_H

#include "engine/interp/bind.h"
#include "engine/interp/interp_engine.h"
#include "engine/interp/seg.h"

/* X(bits, type, assembler suffix, constraint of a register this wide), ... : once for every size. */
#define OP_SIZES(X, ...)                   \
    X(8, uint8_t, "b", "q", __VA_ARGS__)   \
    X(16, uint16_t, "w", "r", __VA_ARGS__) \
    X(32, uint32_t, "l", "r", __VA_ARGS__) \
    X(64, uint64_t, "q", "r", __VA_ARGS__)
#define OP_SIZES_NOT_8(X, ...)             \
    X(16, uint16_t, "w", "r", __VA_ARGS__) \
    X(32, uint32_t, "l", "r", __VA_ARGS__) \
    X(64, uint64_t, "q", "r", __VA_ARGS__)

#define OP_INLINE static inline __attribute__((always_inline))

/* ---- registers: writing 32 bits clears the upper half, writing 8 or 16 leaves the rest ---- */

#define OP_REG_GET(bits, type, sfx, r, ...)                            \
    OP_INLINE type reg_get##bits(const struct interp *c, unsigned off) \
    {                                                                  \
        type v;                                                        \
        memcpy(&v, (const char *)c + off, sizeof(v));                  \
        return v;                                                      \
    }
OP_SIZES(OP_REG_GET)
#undef OP_REG_GET

OP_INLINE void reg_set8(struct interp *c, unsigned off, uint8_t v)
{
    *((uint8_t *)c + off) = v;
}

OP_INLINE void reg_set16(struct interp *c, unsigned off, uint16_t v)
{
    memcpy((char *)c + off, &v, sizeof(v));
}

OP_INLINE void reg_set64(struct interp *c, unsigned off, uint64_t v)
{
    memcpy((char *)c + off, &v, sizeof(v));
}

OP_INLINE void reg_set32(struct interp *c, unsigned off, uint32_t v)
{
    reg_set64(c, off, v);
}

/* ---- flags, as LAHF and SETO give them: AH the low byte, AL overflow ---- */

#define OP_FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t" /* for instructions that read flags or leave some alone */
#define OP_FLAGS_OUT "\n\tlahf\n\tseto %%al"

OP_INLINE uint16_t flags_pack(const struct interp *c)
{
    uint32_t f = (uint32_t)c->st.rflags;
    return (uint16_t)(f << 8 | (f >> 11 & 1));
}

OP_INLINE void flags_set(struct interp *c, uint16_t ax)
{
    c->st.rflags = (c->st.rflags & ~(uint64_t)X86_FLAGS_STATUS) | ax >> 8 | (uint32_t)(ax & 1) << 11;
}

OP_INLINE bool flag(const struct interp *c, uint32_t f)
{
    return c->st.rflags & f;
}

OP_INLINE void flag_put(struct interp *c, uint32_t f, bool on)
{
    c->st.rflags = on ? c->st.rflags | f : c->st.rflags & ~(uint64_t)f;
}

/* ---- memory operands ---- */

#define OP_MEM(bits, type, sfx, r, ...)                                             \
    OP_INLINE type mem_load##bits(struct interp *c, const struct insn *in)          \
    {                                                                               \
        return mmu_load##bits(c, insn_lin(c, in, (bits) / 8, false));               \
    }                                                                               \
    OP_INLINE void mem_store##bits(struct interp *c, const struct insn *in, type v) \
    {                                                                               \
        mmu_store##bits(c, insn_lin(c, in, (bits) / 8, true), v);                   \
    }
OP_SIZES(OP_MEM)
#undef OP_MEM

typedef uint8_t mmu_u8;

/*
 * mem = fn(mem, b): the store is checked before fn() runs, since that sets flags. The same under LOCK: fn() may run several times, each
 * time on the flags it began with. Accesses across pages and to devices hold the bus lock instead.
 */
#define OP_RMW(bits, type, sfx, r, ...)                                                           \
    typedef type (*op_fn##bits)(struct interp * c, type a, type b);                               \
    void op_rmw_slow##bits(struct interp *c, uint64_t lin, op_fn##bits fn, type b);               \
    void op_lock_slow##bits(struct interp *c, uint64_t lin, op_fn##bits fn, type b);              \
    OP_INLINE bool op_cas##bits(uint8_t *host, type *old, type new)                               \
    {                                                                                             \
        bool done;                                                                                \
        __asm__ volatile("lock cmpxchg" sfx " %3, %1"                                             \
                         : "=@ccz"(done), "+m"(*(mmu_u##bits *)host), "+a"(*old)                  \
                         : r(new)                                                                 \
                         : "memory");                                                             \
        return done;                                                                              \
    }                                                                                             \
    OP_INLINE void op_rmw_at##bits(struct interp *c, uint64_t lin, op_fn##bits fn, type b)        \
    {                                                                                             \
        uint8_t *host = mmu_hit_write(c, lin, (bits) / 8);                                        \
        if (LIKELY(host != NULL))                                                                 \
            *(volatile mmu_u##bits *)host = fn(c, *(volatile mmu_u##bits *)host, b);              \
        else                                                                                      \
            op_rmw_slow##bits(c, lin, fn, b);                                                     \
    }                                                                                             \
    OP_INLINE void op_rmw##bits(struct interp *c, const struct insn *in, op_fn##bits fn, type b)  \
    {                                                                                             \
        op_rmw_at##bits(c, insn_lin(c, in, (bits) / 8, true), fn, b);                             \
    }                                                                                             \
    OP_INLINE void op_lock_host##bits(struct interp *c, uint8_t *host, op_fn##bits fn, type b)    \
    {                                                                                             \
        uint64_t flags = c->st.rflags;                                                            \
        type old = *(volatile mmu_u##bits *)host;                                                 \
        while (!op_cas##bits(host, &old, fn(c, old, b)))                                          \
            c->st.rflags = flags;                                                                 \
    }                                                                                             \
    OP_INLINE void op_lock_at##bits(struct interp *c, uint64_t lin, op_fn##bits fn, type b)       \
    {                                                                                             \
        uint8_t *host = mmu_hit_write(c, lin, (bits) / 8);                                        \
        if (LIKELY(host != NULL))                                                                 \
            op_lock_host##bits(c, host, fn, b);                                                   \
        else                                                                                      \
            op_lock_slow##bits(c, lin, fn, b);                                                    \
    }                                                                                             \
    OP_INLINE void op_lock##bits(struct interp *c, const struct insn *in, op_fn##bits fn, type b) \
    {                                                                                             \
        op_lock_at##bits(c, insn_lin(c, in, (bits) / 8, true), fn, b);                            \
    }
OP_SIZES(OP_RMW)
#undef OP_RMW

/* ---- generators ---- */

/* Handlers for dst = name(dst, src), or name(dst, src) alone, in the five forms of bind_form2(). */
#define OP_BINARY_WRITES(bits, type, sfx, r, name, ...)                              \
    static void name##bits##_rr(struct interp *c, const struct insn *in)             \
    {                                                                                \
        type v = name##bits(c, reg_get##bits(c, in->reg), reg_get##bits(c, in->rm)); \
        reg_set##bits(c, in->reg, v);                                                \
    }                                                                                \
    static void name##bits##_ri(struct interp *c, const struct insn *in)             \
    {                                                                                \
        type v = name##bits(c, reg_get##bits(c, in->reg), (type)in->imm);            \
        reg_set##bits(c, in->reg, v);                                                \
    }                                                                                \
    static void name##bits##_rm(struct interp *c, const struct insn *in)             \
    {                                                                                \
        type b = mem_load##bits(c, in);                                              \
        type v = name##bits(c, reg_get##bits(c, in->reg), b);                        \
        reg_set##bits(c, in->reg, v);                                                \
    }                                                                                \
    static void name##bits##_mr(struct interp *c, const struct insn *in)             \
    {                                                                                \
        op_rmw##bits(c, in, name##bits, reg_get##bits(c, in->reg));                  \
    }                                                                                \
    static void name##bits##_mi(struct interp *c, const struct insn *in)             \
    {                                                                                \
        op_rmw##bits(c, in, name##bits, (type)in->imm);                              \
    }                                                                                \
    static void name##bits##_lock_mr(struct interp *c, const struct insn *in)        \
    {                                                                                \
        op_lock##bits(c, in, name##bits, reg_get##bits(c, in->reg));                 \
    }                                                                                \
    static void name##bits##_lock_mi(struct interp *c, const struct insn *in)        \
    {                                                                                \
        op_lock##bits(c, in, name##bits, (type)in->imm);                             \
    }

#define OP_BINARY_READS(bits, type, sfx, r, name, ...)                      \
    static void name##bits##_rr(struct interp *c, const struct insn *in)    \
    {                                                                       \
        name##bits(c, reg_get##bits(c, in->reg), reg_get##bits(c, in->rm)); \
    }                                                                       \
    static void name##bits##_ri(struct interp *c, const struct insn *in)    \
    {                                                                       \
        name##bits(c, reg_get##bits(c, in->reg), (type)in->imm);            \
    }                                                                       \
    static void name##bits##_rm(struct interp *c, const struct insn *in)    \
    {                                                                       \
        type b = mem_load##bits(c, in);                                     \
        name##bits(c, reg_get##bits(c, in->reg), b);                        \
    }                                                                       \
    static void name##bits##_mr(struct interp *c, const struct insn *in)    \
    {                                                                       \
        type a = mem_load##bits(c, in);                                     \
        name##bits(c, a, reg_get##bits(c, in->reg));                        \
    }                                                                       \
    static void name##bits##_mi(struct interp *c, const struct insn *in)    \
    {                                                                       \
        name##bits(c, mem_load##bits(c, in), (type)in->imm);                \
    }

/* A row of handlers by size, as bind_size_index() counts. */
#define OP_ROW(name, form)                                            \
    {                                                                 \
        name##8##form, name##16##form, name##32##form, name##64##form \
    }
#define OP_ROW_NOT_8(name, form)                             \
    {                                                        \
        NULL, name##16##form, name##32##form, name##64##form \
    }

#endif
