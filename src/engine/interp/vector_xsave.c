/*
 * FXSAVE and the XSAVE family (SDM Vol. 1 10.5 and chapter 13), in C on the state: the components are x87, SSE and AVX.
 *
 * A component is in use (XINUSE) when it is not in its initial configuration. XSAVEOPT does not track modifications: it writes
 * all that is in use.
 */
#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"
#include "engine/interp/vector.h"

#define LEGACY_SIZE 512u
#define X87_SIZE    160u /* control words and ST registers */
#define XMM_OFFSET  160u
#define FXSAVE_SIZE 416u /* what FXSAVE writes: the rest is left to software */
#define HEADER      512u
#define AVX_OFFSET  576u /* also in the compacted form, being the first of the extended components */
#define AREA_SIZE   832u
#define XCOMP_BV    UINT64_C(0x8000000000000000)

/* Only 64-bit mode has registers 8 to 15, and touches their place in memory. */
static unsigned n_vectors(const struct interp *c)
{
    return c->code_size == 8 ? 16 : 8;
}

/* ---- the x87 part ---- */

/* MXCSR and its mask lie between the two parts of this: the caller writes them, if at all. */
static void put_x87(const struct interp *c, uint8_t *p, bool wide)
{
    const struct x86_fxsave *fx = &c->st.fx;

    store_le16(p, fx->fcw);
    store_le16(p + 2, fx->fsw);
    store_le16(p + 4, fx->ftw);
    store_le16(p + 6, fx->fop);
    store_le64(p + 8, wide ? fx->fip : (uint32_t)fx->fip);
    store_le64(p + 16, wide ? fx->fdp : (uint32_t)fx->fdp);
    memset(p + 32, 0, X87_SIZE - 32);
    for (unsigned i = 0; i < 8; i++)
        memcpy(p + 32 + 16 * i, fx->st[i], 10);
}

static void get_x87(struct interp *c, const uint8_t *p, bool wide)
{
    struct x86_fxsave *fx = &c->st.fx;

    fx->fcw = vector_x87_fcw(load_le16(p));
    fx->fsw = load_le16(p + 2);
    fx->ftw = p[4];
    fx->fop = load_le16(p + 6) & 0x7ff;
    fx->fip = wide ? load_le64(p + 8) : load_le32(p + 8);
    fx->fdp = wide ? load_le64(p + 16) : load_le32(p + 16);
    for (unsigned i = 0; i < 8; i++)
        memcpy(fx->st[i], p + 32 + 16 * i, 10);
    vector_x87_summary(fx);
}

static void init_x87(struct interp *c)
{
    vector_x87_init(&c->st.fx);
    memset(c->st.fx.st, 0, sizeof(c->st.fx.st));
}

/* ---- FXSAVE, FXRSTOR: in->imm says 64-bit pointers ---- */

static uint64_t aligned_lin(struct interp *c, const struct insn *in, unsigned size, unsigned align, bool write)
{
    uint64_t lin = insn_lin(c, in, size, write);
    if (lin & (align - 1))
        interp_raise_error(c, X86_GP, 0);
    return lin;
}

static void check_fxsave(struct interp *c)
{
    if (c->st.cr0 & (X86_CR0_EM | X86_CR0_TS))
        interp_raise(c, X86_NM);
}

static void check_mxcsr(struct interp *c, uint32_t mxcsr)
{
    if (mxcsr & ~VECTOR_MXCSR_VALID)
        interp_raise_error(c, X86_GP, 0);
}

static void op_fxsave(struct interp *c, const struct insn *in)
{
    uint8_t area[FXSAVE_SIZE];
    unsigned n = n_vectors(c);

    check_fxsave(c);
    vector_x87_fetch(c, false);
    uint64_t lin = aligned_lin(c, in, LEGACY_SIZE, 16, true);
    put_x87(c, area, in->imm);
    store_le32(area + 24, c->st.fx.mxcsr);
    store_le32(area + 28, VECTOR_MXCSR_VALID);
    for (unsigned i = 0; i < n; i++)
        memcpy(area + XMM_OFFSET + 16 * i, c->st.ymm[i], 16);
    mmu_store_bytes(c, lin, area, XMM_OFFSET + 16 * n);
}

static void op_fxrstor(struct interp *c, const struct insn *in)
{
    uint8_t area[FXSAVE_SIZE];
    unsigned n = n_vectors(c);

    check_fxsave(c);
    vector_x87_fetch(c, true);
    uint64_t lin = aligned_lin(c, in, LEGACY_SIZE, 16, false);
    mmu_load_bytes(c, lin, area, XMM_OFFSET + 16 * n);
    uint32_t mxcsr = load_le32(area + 24);
    check_mxcsr(c, mxcsr);
    get_x87(c, area, in->imm);
    c->st.fx.mxcsr = mxcsr;
    for (unsigned i = 0; i < n; i++)
        memcpy(c->st.ymm[i], area + XMM_OFFSET + 16 * i, 16);
}

/* ---- XSAVE, XSAVEOPT, XSAVEC ---- */

static bool all_zero(const void *p, size_t len)
{
    uint64_t any = 0, word;

    for (size_t i = 0; i < len; i += sizeof(word)) {
        memcpy(&word, (const uint8_t *)p + i, sizeof(word));
        any |= word;
    }
    return !any;
}

static uint64_t in_use(struct interp *c)
{
    const struct x86_fxsave *fx = &c->st.fx;
    uint64_t used = 0;

    vector_x87_fetch(c, false);
    if (fx->fcw != 0x37f || fx->fsw || fx->ftw || fx->fop || fx->fip || fx->fdp || !all_zero(fx->st, sizeof(fx->st)))
        used |= X86_XCR0_X87;
    for (unsigned i = 0; i < 16; i++) {
        if (!all_zero(c->st.ymm[i], 16))
            used |= X86_XCR0_SSE;
        if (!all_zero(c->st.ymm[i] + 16, 16))
            used |= X86_XCR0_AVX;
    }
    return used;
}

static void check_xsave(struct interp *c)
{
    if (!(c->st.cr4 & X86_CR4_OSXSAVE))
        interp_raise(c, X86_UD);
    if (c->st.cr0 & X86_CR0_TS)
        interp_raise(c, X86_NM);
}

/* The components asked for: RFBM. */
static uint64_t requested(const struct interp *c)
{
    uint64_t mask = (c->st.gpr[X86_RAX] & 0xffffffff) | c->st.gpr[X86_RDX] << 32;
    return mask & c->st.xcr0;
}

/* Writes the components of `write`, MXCSR apart. */
static void save_components(struct interp *c, uint64_t lin, uint64_t write, bool wide)
{
    uint8_t buf[256];
    unsigned n = n_vectors(c);

    if (write & X86_XCR0_X87) {
        put_x87(c, buf, wide);
        mmu_store_bytes(c, lin, buf, 24);
        mmu_store_bytes(c, lin + 32, buf + 32, X87_SIZE - 32);
    }
    if (write & X86_XCR0_SSE) {
        for (unsigned i = 0; i < n; i++)
            memcpy(buf + 16 * i, c->st.ymm[i], 16);
        mmu_store_bytes(c, lin + XMM_OFFSET, buf, 16 * n);
    }
    if (write & X86_XCR0_AVX) {
        for (unsigned i = 0; i < n; i++)
            memcpy(buf + 16 * i, c->st.ymm[i] + 16, 16);
        mmu_store_bytes(c, lin + AVX_OFFSET, buf, 16 * n);
    }
}

static unsigned area_size(uint64_t rfbm)
{
    return rfbm & X86_XCR0_AVX ? AREA_SIZE : AVX_OFFSET;
}

static void save_mxcsr(struct interp *c, uint64_t lin)
{
    uint8_t buf[8];

    store_le32(buf, c->st.fx.mxcsr);
    store_le32(buf + 4, VECTOR_MXCSR_VALID);
    mmu_store_bytes(c, lin + 24, buf, 8);
}

/* SDM Vol. 1 13.7 and 13.9: what is not asked for keeps its place in XSTATE_BV. */
static void save_standard(struct interp *c, const struct insn *in, bool optimise)
{
    check_xsave(c);
    uint64_t rfbm = requested(c), used = in_use(c);
    unsigned size = area_size(rfbm);
    uint64_t lin = aligned_lin(c, in, size, 64, true);

    mmu_check_write(c, lin, size);
    uint64_t bv = mmu_load64(c, lin + HEADER);
    save_components(c, lin, optimise ? rfbm & used : rfbm, in->imm);
    if (rfbm & (X86_XCR0_SSE | X86_XCR0_AVX))
        save_mxcsr(c, lin);
    mmu_store64(c, lin + HEADER, (bv & ~rfbm) | (used & rfbm));
}

static void op_xsave(struct interp *c, const struct insn *in)
{
    save_standard(c, in, false);
}

static void op_xsaveopt(struct interp *c, const struct insn *in)
{
    save_standard(c, in, true);
}

/* SDM Vol. 1 13.10. */
static void op_xsavec(struct interp *c, const struct insn *in)
{
    check_xsave(c);
    uint64_t rfbm = requested(c), bv = in_use(c) & rfbm;
    unsigned size = area_size(rfbm);
    uint64_t lin = aligned_lin(c, in, size, 64, true);

    if ((rfbm & X86_XCR0_SSE) && c->st.fx.mxcsr != VECTOR_MXCSR_DEFAULT)
        bv |= X86_XCR0_SSE;
    mmu_check_write(c, lin, size);
    save_components(c, lin, bv, in->imm);
    if (bv & X86_XCR0_SSE)
        save_mxcsr(c, lin);
    mmu_store64(c, lin + HEADER, bv);
    mmu_store64(c, lin + HEADER + 8, rfbm | XCOMP_BV);
}

/* ---- XRSTOR ---- */

/* The header's rules (SDM Vol. 1 13.8): #GP(0) on what a later processor might mean something by. */
static void check_header(struct interp *c, const uint8_t *header)
{
    uint64_t bv = load_le64(header), comp = load_le64(header + 8);
    bool compact = comp & XCOMP_BV, bad;

    if (compact)
        bad = (comp & ~XCOMP_BV & ~c->st.xcr0) || (bv & ~comp) || (bv & XCOMP_BV) || !all_zero(header + 16, 48);
    else
        bad = (bv & ~c->st.xcr0) || !all_zero(header + 8, 16);
    if (bad)
        interp_raise_error(c, X86_GP, 0);
}

static void restore_vectors(struct interp *c, const uint8_t *from, unsigned half)
{
    for (unsigned i = 0; i < n_vectors(c); i++) {
        if (from)
            memcpy(c->st.ymm[i] + half, from + 16 * i, 16);
        else
            memset(c->st.ymm[i] + half, 0, 16);
    }
}

/* The standard form loads MXCSR whatever XSTATE_BV says; the compacted one treats it as SSE's. */
static bool new_mxcsr(struct interp *c, const uint8_t *area, uint64_t rfbm, bool compact, uint32_t *mxcsr)
{
    if (!(rfbm & (compact ? X86_XCR0_SSE : X86_XCR0_SSE | X86_XCR0_AVX)))
        return false;
    if (compact && !(load_le64(area + HEADER) & X86_XCR0_SSE)) {
        *mxcsr = VECTOR_MXCSR_DEFAULT;
        return true;
    }
    *mxcsr = load_le32(area + 24);
    check_mxcsr(c, *mxcsr);
    return true;
}

static void op_xrstor(struct interp *c, const struct insn *in)
{
    uint8_t area[AREA_SIZE];
    uint32_t mxcsr;

    check_xsave(c);
    vector_x87_fetch(c, true);
    uint64_t rfbm = requested(c);
    uint64_t lin = aligned_lin(c, in, AVX_OFFSET, 64, false);
    mmu_load_bytes(c, lin, area, AVX_OFFSET);
    check_header(c, area + HEADER);
    uint64_t load = rfbm & load_le64(area + HEADER);
    bool compact = load_le64(area + HEADER + 8) & XCOMP_BV;
    if (load & X86_XCR0_AVX)
        mmu_load_bytes(c, insn_lin(c, in, AREA_SIZE, false) + AVX_OFFSET, area + AVX_OFFSET, 16 * n_vectors(c));

    if (new_mxcsr(c, area, rfbm, compact, &mxcsr))
        c->st.fx.mxcsr = mxcsr;
    if (load & X86_XCR0_X87)
        get_x87(c, area, in->imm);
    else if (rfbm & X86_XCR0_X87)
        init_x87(c);
    if (rfbm & X86_XCR0_SSE)
        restore_vectors(c, load & X86_XCR0_SSE ? area + XMM_OFFSET : NULL, 0);
    if (rfbm & X86_XCR0_AVX)
        restore_vectors(c, load & X86_XCR0_AVX ? area + AVX_OFFSET : NULL, 16);
}

/* ---- XGETBV, XSETBV ---- */

static void op_xgetbv(struct interp *c, const struct insn *in)
{
    uint32_t which = (uint32_t)c->st.gpr[X86_RCX];

    if (!(c->st.cr4 & X86_CR4_OSXSAVE))
        interp_raise(c, X86_UD);
    if (which > (c->conf.cpuid->feat.xgetbv1 ? 1 : 0))
        interp_raise_error(c, X86_GP, 0);
    uint64_t v = which ? c->st.xcr0 & in_use(c) : c->st.xcr0;
    c->st.gpr[X86_RAX] = (uint32_t)v;
    c->st.gpr[X86_RDX] = v >> 32;
}

/* SDM Vol. 2D XSETBV: x87 always on, AVX not without SSE, nothing that CPUID does not list. */
static void op_xsetbv(struct interp *c, const struct insn *in)
{
    uint64_t v = (c->st.gpr[X86_RAX] & 0xffffffff) | c->st.gpr[X86_RDX] << 32;

    if (!(c->st.cr4 & X86_CR4_OSXSAVE))
        interp_raise(c, X86_UD);
    if (x86_cpl(&c->st) || (uint32_t)c->st.gpr[X86_RCX] || (v & ~x86_cpuid_xcr0(c->conf.cpuid)) ||
        !(v & X86_XCR0_X87) || ((v & X86_XCR0_AVX) && !(v & X86_XCR0_SSE)))
        interp_raise_error(c, X86_GP, 0);
    c->st.xcr0 = v;
}

static interp_fn bind_xsave(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->imm = xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && xi->insn.raw.rex.W;
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        return op_fxsave;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return op_fxrstor;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        return op_xsave;
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        return op_xsaveopt;
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        return op_xsavec;
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return op_xrstor;
    case ZYDIS_MNEMONIC_XSETBV:
        return op_xsetbv;
    default:
        return op_xgetbv;
    }
}

const struct bind_entry vector_xsave_binds[] = {
    {ZYDIS_MNEMONIC_FXSAVE, bind_xsave},
    {ZYDIS_MNEMONIC_FXSAVE64, bind_xsave},
    {ZYDIS_MNEMONIC_FXRSTOR, bind_xsave},
    {ZYDIS_MNEMONIC_FXRSTOR64, bind_xsave},
    {ZYDIS_MNEMONIC_XSAVE, bind_xsave},
    {ZYDIS_MNEMONIC_XSAVE64, bind_xsave},
    {ZYDIS_MNEMONIC_XSAVEOPT, bind_xsave},
    {ZYDIS_MNEMONIC_XSAVEOPT64, bind_xsave},
    {ZYDIS_MNEMONIC_XSAVEC, bind_xsave},
    {ZYDIS_MNEMONIC_XSAVEC64, bind_xsave},
    {ZYDIS_MNEMONIC_XRSTOR, bind_xsave},
    {ZYDIS_MNEMONIC_XRSTOR64, bind_xsave},
    {ZYDIS_MNEMONIC_XGETBV, bind_xsave},
    {ZYDIS_MNEMONIC_XSETBV, bind_xsave},
    {0},
};
