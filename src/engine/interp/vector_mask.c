/*
 * What a stub cannot do on a host pointer, because memory is touched by element: masked moves and gathers, whose elements that are
 * masked off never fault. And the few that only change state: MXCSR, VZEROALL, VZEROUPPER.
 */
#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"
#include "engine/interp/vector.h"

#define MAX_ELEMENTS 32

/* Linear address of the element at [offset, offset + size). */
static uint64_t element_lin(struct interp *c, const struct insn *in, uint64_t offset, unsigned size, bool write)
{
    if (in->addr != 8)
        offset &= ones_mask(in->addr);
    if (in->prefix & INSN_SLOW_ADDR)
        return seg_lin(c, in->seg, offset, size, write);
    return *(const uint64_t *)interp_reg(c, in->seg_base) + offset;
}

static uint64_t load_element(struct interp *c, uint64_t lin, unsigned size)
{
    return size == 4 ? mmu_load32(c, lin) : mmu_load64(c, lin);
}

/* The sign bit of element i decides. */
static bool selected(const uint8_t *mask, unsigned i, unsigned size)
{
    return mask[(i + 1) * size - 1] >> 7;
}

/* Writes the selected elements, after all of them are known to be writable. */
static void store_selected(struct interp *c, const struct insn *in, const uint8_t *mask, const uint8_t *data,
                           unsigned count, unsigned size)
{
    uint64_t offset = insn_offset(c, in), lin[MAX_ELEMENTS];

    for (unsigned i = 0; i < count; i++) {
        if (!selected(mask, i, size))
            continue;
        lin[i] = element_lin(c, in, offset + i * size, size, true);
        mmu_check_write(c, lin[i], size);
    }
    for (unsigned i = 0; i < count; i++)
        if (selected(mask, i, size))
            mmu_store_bytes(c, lin[i], data + i * size, size);
}

/* ---- VMASKMOV, VPMASKMOV: in->imm is the element's size, in->size that of the vector ---- */

static void op_vmaskmov_load(struct interp *c, const struct insn *in)
{
    uint8_t result[32] = {0};
    const uint8_t *mask = interp_reg(c, in->vvvv);
    unsigned size = (unsigned)in->imm;

    vector_check_avx(c);
    uint64_t offset = insn_offset(c, in);
    for (unsigned i = 0; i < in->size / size; i++) {
        if (!selected(mask, i, size))
            continue;
        uint64_t v = load_element(c, element_lin(c, in, offset + i * size, size, false), size);
        memcpy(result + i * size, &v, size);
    }
    memcpy(interp_reg(c, in->reg), result, sizeof(result));
}

static void op_vmaskmov_store(struct interp *c, const struct insn *in)
{
    vector_check_avx(c);
    store_selected(c, in, interp_reg(c, in->vvvv), interp_reg(c, in->reg), in->size / (unsigned)in->imm,
                   (unsigned)in->imm);
}

static interp_fn bind_vmaskmov(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool wide = xi->insn.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || xi->insn.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;

    in->imm = wide ? 8 : 4;
    in->size = xi->insn.raw.vex.L ? 32 : 16;
    return bind_is_mem(&xi->op[0]) ? op_vmaskmov_store : op_vmaskmov_load;
}

/* ---- MASKMOVDQU, MASKMOVQ ---- */

static void op_maskmovdqu(struct interp *c, const struct insn *in)
{
    if (in->imm)
        vector_check_avx(c);
    else
        vector_check_sse(c);
    store_selected(c, in, interp_reg(c, in->rm), interp_reg(c, in->reg), 16, 1);
}

static void op_maskmovq(struct interp *c, const struct insn *in)
{
    struct x86_fxsave *fx = &c->st.fx;

    vector_check_mmx(c, 0);
    unsigned top = fx->fsw >> 11 & 7;
    store_selected(c, in, fx->st[(in->rm - top) & 7], fx->st[(in->reg - top) & 7], 8, 1);
    vector_x87_enter_mmx(fx);
}

static interp_fn bind_maskmov(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->imm = xi->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    return xi->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? op_maskmovq : op_maskmovdqu;
}

/* ---- gathers: an element is done when its mask is clear, so that a fault in between leaves what can go on ---- */

struct gather {
    uint8_t index_size, size, count;
};

static void op_gather(struct interp *c, const struct insn *in)
{
    const struct gather *g = in->extra;
    uint8_t *dst = interp_reg(c, in->reg), *mask = interp_reg(c, in->vvvv);
    const uint8_t *index = interp_reg(c, in->index);

    vector_check_avx(c);
    for (unsigned i = 0; i < g->count; i++) {
        if (!selected(mask, i, g->size))
            continue;
        int64_t x = g->index_size == 4 ? (int32_t)load_le32(index + 4 * i) : (int64_t)load_le64(index + 8 * i);
        uint64_t offset = *(const uint64_t *)interp_reg(c, in->base) + ((uint64_t)x << in->scale) + (uint64_t)in->disp;
        uint64_t v = load_element(c, element_lin(c, in, offset, g->size, false), g->size);
        memcpy(dst + i * g->size, &v, g->size);
        memset(mask + i * g->size, 0, g->size);
    }
    unsigned done = g->count * g->size;
    memset(dst + done, 0, 32 - done);
    memset(mask, 0, 32);
}

static interp_fn bind_gather(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    /* by index size, element size and vector length */
    static const struct gather gathers[2][2][2] = {
        {{{4, 4, 4}, {4, 4, 8}}, {{4, 8, 2}, {4, 8, 4}}},
        {{{8, 4, 2}, {8, 4, 4}}, {{8, 8, 2}, {8, 8, 4}}},
    };
    bool wide_index, wide;

    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
        wide_index = false, wide = false;
        break;
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
        wide_index = false, wide = true;
        break;
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
        wide_index = true, wide = false;
        break;
    default:
        wide_index = true, wide = true;
        break;
    }
    if (xi->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || in->reg == in->vvvv || in->reg == in->index ||
        in->vvvv == in->index)
        return NULL;
    in->extra = &gathers[wide_index][wide][xi->insn.raw.vex.L];
    return op_gather;
}

/* ---- state alone ---- */

static void op_ldmxcsr(struct interp *c, const struct insn *in)
{
    if (in->imm)
        vector_check_avx(c);
    else
        vector_check_sse(c);
    uint32_t v = mmu_load32(c, insn_lin(c, in, 4, false));
    if (v & ~VECTOR_MXCSR_VALID)
        interp_raise_error(c, X86_GP, 0);
    c->st.fx.mxcsr = v;
}

static void op_stmxcsr(struct interp *c, const struct insn *in)
{
    if (in->imm)
        vector_check_avx(c);
    else
        vector_check_sse(c);
    mmu_store32(c, insn_lin(c, in, 4, true), c->st.fx.mxcsr);
}

/* Outside 64-bit mode only eight registers are there. */
static inline void clear_from(struct interp *c, unsigned first)
{
    unsigned n = c->code_size == 8 ? 16 : 8;

    for (unsigned i = 0; i < n; i++)
        memset(c->st.ymm[i] + first, 0, 32 - first);
}

static void op_vzeroall(struct interp *c, const struct insn *in)
{
    vector_check_avx(c);
    clear_from(c, 0);
}

static void op_vzeroupper(struct interp *c, const struct insn *in)
{
    vector_check_avx(c);
    clear_from(c, 16);
}

static interp_fn bind_state(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->imm = xi->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return op_ldmxcsr;
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        return op_stmxcsr;
    default:
        return xi->insn.mnemonic == ZYDIS_MNEMONIC_VZEROALL ? op_vzeroall : op_vzeroupper;
    }
}

const struct bind_entry vector_mask_binds[] = {
    {ZYDIS_MNEMONIC_VMASKMOVPS, bind_vmaskmov}, {ZYDIS_MNEMONIC_VMASKMOVPD, bind_vmaskmov},
    {ZYDIS_MNEMONIC_VPMASKMOVD, bind_vmaskmov}, {ZYDIS_MNEMONIC_VPMASKMOVQ, bind_vmaskmov},
    {ZYDIS_MNEMONIC_MASKMOVDQU, bind_maskmov},  {ZYDIS_MNEMONIC_VMASKMOVDQU, bind_maskmov},
    {ZYDIS_MNEMONIC_MASKMOVQ, bind_maskmov},    {ZYDIS_MNEMONIC_VGATHERDPS, bind_gather},
    {ZYDIS_MNEMONIC_VGATHERDPD, bind_gather},   {ZYDIS_MNEMONIC_VGATHERQPS, bind_gather},
    {ZYDIS_MNEMONIC_VGATHERQPD, bind_gather},   {ZYDIS_MNEMONIC_VPGATHERDD, bind_gather},
    {ZYDIS_MNEMONIC_VPGATHERDQ, bind_gather},   {ZYDIS_MNEMONIC_VPGATHERQD, bind_gather},
    {ZYDIS_MNEMONIC_VPGATHERQQ, bind_gather},   {ZYDIS_MNEMONIC_LDMXCSR, bind_state},
    {ZYDIS_MNEMONIC_STMXCSR, bind_state},       {ZYDIS_MNEMONIC_VLDMXCSR, bind_state},
    {ZYDIS_MNEMONIC_VSTMXCSR, bind_state},      {ZYDIS_MNEMONIC_VZEROALL, bind_state},
    {ZYDIS_MNEMONIC_VZEROUPPER, bind_state},    {0},
};
