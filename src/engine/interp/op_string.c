/*
 * MOVS, STOS, LODS, CMPS, SCAS and their repetition (SDM Vol. 2B, REP). A repeated instruction ends its block, and runs in bounded
 * chunks: after each, RCX, RSI and RDI are those of the next iteration, so a fault or an interrupt finds it restartable. Where both
 * sides are RAM, the host's own string instruction does a page at a time, with x86's own semantics for overlaps.
 */
#include "engine/interp/alu.h"
#include "engine/interp/fault.h"

#define STRING_CHUNK 4096 /* iterations between looks at the pins */

static uint64_t index_get(const struct interp *c, const struct insn *in, enum x86_gpr reg)
{
    return c->st.gpr[reg] & ones_mask(in->addr);
}

static void index_set(struct interp *c, const struct insn *in, enum x86_gpr reg, uint64_t v)
{
    if (in->addr == 8)
        c->st.gpr[reg] = v;
    else if (in->addr == 4)
        c->st.gpr[reg] = (uint32_t)v;
    else
        reg_set16(c, INTERP_GPR(reg), (uint16_t)v);
}

static void advance(struct interp *c, const struct insn *in, enum x86_gpr reg, uint64_t n)
{
    uint64_t bytes = n * in->size;
    index_set(c, in, reg, c->st.gpr[reg] + (flag(c, X86_FLAG_DF) ? -bytes : bytes));
}

OP_INLINE uint64_t source_lin(struct interp *c, const struct insn *in, unsigned len)
{
    uint64_t off = index_get(c, in, X86_RSI);
    if (UNLIKELY(in->prefix & INSN_SLOW_ADDR))
        return seg_lin(c, in->seg, off, len, false);
    return reg_get64(c, in->seg_base) + off;
}

/* Always in ES, which has no base in 64-bit mode. */
OP_INLINE uint64_t dest_lin(struct interp *c, const struct insn *in, unsigned len, bool write)
{
    uint64_t off = index_get(c, in, X86_RDI);
    return UNLIKELY(in->prefix & INSN_SLOW_ADDR) ? seg_lin(c, X86_ES, off, len, write) : off;
}

/* ---- one iteration ---- */

#define STRING_ONE(bits, type, ...)                                                      \
    static void movs##bits(struct interp *c, const struct insn *in)                      \
    {                                                                                    \
        type v = mmu_load##bits(c, source_lin(c, in, (bits) / 8));                       \
        mmu_store##bits(c, dest_lin(c, in, (bits) / 8, true), v);                        \
        advance(c, in, X86_RSI, 1);                                                      \
        advance(c, in, X86_RDI, 1);                                                      \
    }                                                                                    \
    static void stos##bits(struct interp *c, const struct insn *in)                      \
    {                                                                                    \
        mmu_store##bits(c, dest_lin(c, in, (bits) / 8, true), (type)c->st.gpr[X86_RAX]); \
        advance(c, in, X86_RDI, 1);                                                      \
    }                                                                                    \
    static void lods##bits(struct interp *c, const struct insn *in)                      \
    {                                                                                    \
        type v = mmu_load##bits(c, source_lin(c, in, (bits) / 8));                       \
        reg_set##bits(c, INTERP_GPR(X86_RAX), v);                                        \
        advance(c, in, X86_RSI, 1);                                                      \
    }                                                                                    \
    static void cmps##bits(struct interp *c, const struct insn *in)                      \
    {                                                                                    \
        type a = mmu_load##bits(c, source_lin(c, in, (bits) / 8));                       \
        type b = mmu_load##bits(c, dest_lin(c, in, (bits) / 8, false));                  \
        cmp##bits(c, a, b);                                                              \
        advance(c, in, X86_RSI, 1);                                                      \
        advance(c, in, X86_RDI, 1);                                                      \
    }                                                                                    \
    static void scas##bits(struct interp *c, const struct insn *in)                      \
    {                                                                                    \
        type b = mmu_load##bits(c, dest_lin(c, in, (bits) / 8, false));                  \
        cmp##bits(c, (type)c->st.gpr[X86_RAX], b);                                       \
        advance(c, in, X86_RDI, 1);                                                      \
    }
OP_SIZES(STRING_ONE)

/* ---- many iterations at once, upward, within a page ---- */

/* How many elements from `reg` on lie within its page, its address size and its segment's limit; 0: take the slow way. */
static uint64_t run_length(struct interp *c, const struct insn *in, enum x86_gpr reg, unsigned seg)
{
    uint64_t off = index_get(c, in, reg), base = reg == X86_RSI ? reg_get64(c, in->seg_base) : 0, left;

    if (in->prefix & INSN_SLOW_ADDR) {
        const struct x86_seg *s = &c->st.seg[seg];
        bool expand_down = !(s->attr & X86_SEG_CODE) && (s->attr & X86_SEG_DC);
        if (expand_down || off > s->limit)
            return 0;
        base = s->base;
        left = s->limit - off + 1;
    } else {
        left = UINT64_MAX;
    }
    uint64_t in_page = RAM_PAGE_SIZE - ((base + off) & (RAM_PAGE_SIZE - 1));
    uint64_t wraps = ones_mask(in->addr) - off; /* one less than what is left */
    if (left > in_page)
        left = in_page;
    if (left > wraps)
        left = wraps;
    return left / in->size;
}

#define STRING_HOST(sfx, insn) \
    __asm__ volatile("rep " insn sfx : "+D"(to), "+S"(from), "+c"(count) : "a"(value) : "memory")

static void host_string(uint8_t *to, const uint8_t *from, uint64_t count, unsigned size, uint64_t value)
{
    if (from && size == 1)
        STRING_HOST("b", "movs");
    else if (from && size == 2)
        STRING_HOST("w", "movs");
    else if (from && size == 4)
        STRING_HOST("l", "movs");
    else if (from)
        STRING_HOST("q", "movs");
    else if (size == 1)
        STRING_HOST("b", "stos");
    else if (size == 2)
        STRING_HOST("w", "stos");
    else if (size == 4)
        STRING_HOST("l", "stos");
    else
        STRING_HOST("q", "stos");
}

static uint64_t minimum(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Up to n iterations of STOS or MOVS; returns how many it did, 0 when the slow way must be taken. */
static uint64_t bulk(struct interp *c, const struct insn *in, uint64_t n, bool move)
{
    const uint8_t *from = NULL;
    uint8_t *to;

    /* Alignment is each element's, not that of the whole. */
    if (flag(c, X86_FLAG_DF) || (c->attention & ATTN_STEP) || c->mmu == MMU_USER_ALIGN)
        return 0;
    n = minimum(n, run_length(c, in, X86_RDI, X86_ES));
    if (move)
        n = minimum(n, run_length(c, in, X86_RSI, in->seg));
    if (n < 2)
        return 0;
    unsigned len = (unsigned)n * in->size;
    if (move && !(from = mmu_host_read(c, source_lin(c, in, len), len)))
        return 0;
    to = mmu_host_write(c, dest_lin(c, in, len, true), len);
    if (!to)
        return 0;
    host_string(to, from, n, in->size, c->st.gpr[X86_RAX]);
    if (move)
        advance(c, in, X86_RSI, n);
    advance(c, in, X86_RDI, n);
    return n;
}

/* ---- repetition ---- */

enum string_kind { STRING_MOVS, STRING_STOS, STRING_LODS, STRING_CMPS, STRING_SCAS, STRING_N };

/* REPE and REPNE end CMPS and SCAS by ZF. */
OP_INLINE bool ended(const struct interp *c, const struct insn *in, enum string_kind kind)
{
    if (kind != STRING_CMPS && kind != STRING_SCAS)
        return false;
    return flag(c, X86_FLAG_ZF) == !!(in->prefix & INSN_REPNE);
}

OP_INLINE void repeat(struct interp *c, const struct insn *in, enum string_kind kind, interp_fn one)
{
    uint64_t count = index_get(c, in, X86_RCX);
    uint64_t budget = c->attention & ATTN_STEP ? 1 : STRING_CHUNK;

    while (count && budget) {
        uint64_t n = 0;
        if (kind == STRING_MOVS || kind == STRING_STOS)
            n = bulk(c, in, minimum(count, budget), kind == STRING_MOVS);
        if (!n) {
            one(c, in);
            n = 1;
        }
        count -= n;
        budget -= n;
        index_set(c, in, X86_RCX, count);
        if (ended(c, in, kind))
            return;
    }
    if (count) { /* not complete: once more, after a look at the pins */
        c->st.rip = interp_rip(c, in);
        c->n_insn--;
        interp_not_here(c);
        fault_step_repeats(c);
    }
}

#define STRING_REP(bits, type, sfx, r, name, kind)                        \
    static void name##bits##_rep(struct interp *c, const struct insn *in) \
    {                                                                     \
        repeat(c, in, kind, name##bits);                                  \
    }
OP_SIZES(STRING_REP, movs, STRING_MOVS)
OP_SIZES(STRING_REP, stos, STRING_STOS)
OP_SIZES(STRING_REP, lods, STRING_LODS)
OP_SIZES(STRING_REP, cmps, STRING_CMPS)
OP_SIZES(STRING_REP, scas, STRING_SCAS)

/* The operand that RSI addresses is the one whose segment may be overridden. */
static void resolve_source(struct insn *in, const struct x86_insn *xi)
{
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        if (!bind_is_mem(op) || ZydisRegisterGetId(op->mem.base) != X86_RSI)
            continue;
        in->seg = (uint8_t)(op->mem.segment - ZYDIS_REGISTER_ES);
        bool flat = xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
        in->seg_base = flat && in->seg < X86_FS
                           ? INTERP_ZERO
                           : (uint16_t)(offsetof(struct interp, st.seg) + in->seg * sizeof(struct x86_seg) +
                                        offsetof(struct x86_seg, base));
    }
}

#define STRING_BIND(name)                                                                                   \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        static const interp_fn fns[2][4] = {OP_ROW(name, ), OP_ROW(name, _rep)};                            \
        if (xi->insn.meta.category != ZYDIS_CATEGORY_STRINGOP)                                              \
            return NULL; /* MOVSD and CMPSD of SSE2 */                                                      \
        in->size = (uint8_t)(xi->op[0].size / 8);                                                           \
        resolve_source(in, xi);                                                                             \
        return fns[(in->prefix & (INSN_REP | INSN_REPNE)) != 0][bind_size_index(in->size)];                 \
    }
STRING_BIND(movs)
STRING_BIND(stos)
STRING_BIND(lods)
STRING_BIND(cmps)
STRING_BIND(scas)

#define STRING_ENTRIES(NAME, name)                                                    \
    {ZYDIS_MNEMONIC_##NAME##B, bind_##name}, {ZYDIS_MNEMONIC_##NAME##W, bind_##name}, \
        {ZYDIS_MNEMONIC_##NAME##D, bind_##name},                                      \
    {                                                                                 \
        ZYDIS_MNEMONIC_##NAME##Q, bind_##name                                         \
    }

const struct bind_entry op_string_binds[] = {
    STRING_ENTRIES(MOVS, movs), STRING_ENTRIES(STOS, stos), STRING_ENTRIES(LODS, lods),
    STRING_ENTRIES(CMPS, cmps), STRING_ENTRIES(SCAS, scas), {0},
};
