/*
 * x87 (SDM Vol. 1 chapter 8): arithmetic runs in stubs under the guest's control word; an unmasked exception then is a flag in the
 * saved image, and becomes #MF here before the next waiting instruction. Control instructions work on the image in C.
 *
 * CR0.NE = 0 asks for FERR# and IRQ 13, which no machine of vireo wires up: #MF is raised as with NE = 1. The CPUID bit that
 * deprecates FPU CS and DS is set: both read as zero.
 */
#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"
#include "engine/interp/vector.h"

#define FSW_EXCEPTIONS 0x3fu
#define FSW_ES         0x80u
#define FSW_B          0x8000u

#define ENV_REGS_SIZE 80u

enum tag { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

void vector_x87_check_pending(struct interp *c)
{
    vector_x87_fetch(c, true);
    if (UNLIKELY(c->st.fx.fsw & FSW_ES))
        interp_raise(c, X86_MF);
}

void vector_x87_summary(struct x86_fxsave *fx)
{
    fx->fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    if (fx->fsw & ~fx->fcw & FSW_EXCEPTIONS)
        fx->fsw |= FSW_ES | FSW_B;
}

/* All but the precision exception come before the store. */
bool vector_x87_stored(const struct x86_fxsave *fx)
{
    return !(fx->fsw & ~fx->fcw & 0x1f);
}

/* A new status word; the image has the registers by stack position, so they move when TOP does. */
static void set_fsw(struct x86_fxsave *fx, uint16_t fsw)
{
    unsigned shift = ((fsw >> 11) - (fx->fsw >> 11)) & 7;
    uint8_t old[8][16];

    memcpy(old, fx->st, sizeof(old));
    for (unsigned i = 0; i < 8; i++)
        memcpy(fx->st[i], old[(i + shift) & 7], 16);
    fx->fsw = fsw;
}

void vector_x87_enter_mmx(struct x86_fxsave *fx)
{
    set_fsw(fx, fx->fsw & (uint16_t)~0x3800);
    fx->ftw = 0xff;
}

void vector_x87_init(struct x86_fxsave *fx)
{
    fx->fcw = 0x37f;
    set_fsw(fx, 0);
    fx->ftw = 0;
    fx->fop = 0;
    fx->fip = fx->fdp = 0;
}

static void check_available(struct interp *c)
{
    if (UNLIKELY(c->st.cr0 & (X86_CR0_EM | X86_CR0_TS)))
        interp_raise(c, X86_NM);
    vector_x87_fetch(c, true);
}

static void check_waiting(struct interp *c)
{
    check_available(c);
    vector_x87_check_pending(c);
}

/* ---- arithmetic, loads, stores ---- */

static void set_pointers(struct interp *c, const struct insn *in)
{
    c->st.fx.fop = (uint16_t)((in->imm & 7) << 8 | in->reg >> VECTOR_FOP_SHIFT);
    c->st.fx.fip = interp_rip(c, in);
}

static void op_x87_reg(struct interp *c, const struct insn *in)
{
    check_waiting(c);
    vector_exec(c, in, NULL);
    set_pointers(c, in);
}

static void op_x87_mem(struct interp *c, const struct insn *in)
{
    check_waiting(c);
    uint64_t offset = insn_offset(c, in);
    vector_exec_mem(c, in, insn_lin(c, in, in->size, in->reg & VECTOR_STORE));
    set_pointers(c, in);
    c->st.fx.fdp = offset;
}

static interp_fn bind_x87(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->reg = (uint16_t)(VECTOR_X87 | xi->insn.raw.modrm.mod << (VECTOR_FOP_SHIFT + 6) |
                         xi->insn.raw.modrm.reg << (VECTOR_FOP_SHIFT + 3) | xi->insn.raw.modrm.rm << VECTOR_FOP_SHIFT);
    in->imm = vector_stub_key(xi);
    if (!in->imm)
        return NULL;
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        in->size = (uint8_t)(op->size / 8);
        if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            in->reg |= VECTOR_STORE;
        return op_x87_mem;
    }
    return op_x87_reg;
}

/* ---- control ---- */

static void op_fwait(struct interp *c, const struct insn *in)
{
    const uint64_t both = X86_CR0_MP | X86_CR0_TS;

    if ((c->st.cr0 & both) == both)
        interp_raise(c, X86_NM);
    vector_x87_check_pending(c);
}

static void op_fninit(struct interp *c, const struct insn *in)
{
    check_available(c);
    vector_x87_init(&c->st.fx);
}

static void op_fnclex(struct interp *c, const struct insn *in)
{
    check_available(c);
    c->st.fx.fsw &= 0x7f00;
}

static void op_nop8087(struct interp *c, const struct insn *in)
{
    check_available(c);
}

static void op_fnstsw_ax(struct interp *c, const struct insn *in)
{
    check_available(c);
    memcpy(&c->st.gpr[X86_RAX], &c->st.fx.fsw, 2);
}

static void op_fnstsw(struct interp *c, const struct insn *in)
{
    check_available(c);
    mmu_store16(c, insn_lin(c, in, 2, true), c->st.fx.fsw);
}

static void op_fnstcw(struct interp *c, const struct insn *in)
{
    check_available(c);
    mmu_store16(c, insn_lin(c, in, 2, true), c->st.fx.fcw);
}

static void op_fldcw(struct interp *c, const struct insn *in)
{
    check_waiting(c);
    c->st.fx.fcw = vector_x87_fcw(mmu_load16(c, insn_lin(c, in, 2, false)));
    vector_x87_summary(&c->st.fx);
}

/* ---- environment (SDM Vol. 1 8.1.10) ---- */

/* TAG of the register at stack position i, from its value. */
static enum tag tag_of(const uint8_t st[16])
{
    uint64_t mantissa = load_le64(st);
    uint16_t exponent = load_le16(st + 8) & 0x7fff;

    if (exponent == 0x7fff)
        return TAG_SPECIAL;
    if (exponent == 0)
        return mantissa ? TAG_SPECIAL : TAG_ZERO;
    return mantissa >> 63 ? TAG_VALID : TAG_SPECIAL;
}

/* The tag word's places are physical registers, the image's stack positions. */
static uint16_t full_tags(const struct x86_fxsave *fx)
{
    unsigned top = fx->fsw >> 11 & 7, tags = 0;

    for (unsigned i = 0; i < 8; i++)
        tags |= (unsigned)(fx->ftw >> i & 1 ? tag_of(fx->st[(i - top) & 7]) : TAG_EMPTY) << 2 * i;
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint16_t tags)
{
    uint8_t ftw = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((tags >> 2 * i & 3) != TAG_EMPTY)
            ftw |= (uint8_t)(1u << i);
    return ftw;
}

/* in->size is that of the environment alone or with the registers; 16-bit operands have the smaller layout. */
static unsigned env_size(const struct insn *in)
{
    return in->size == 14 || in->size == 14 + ENV_REGS_SIZE ? 14 : 28;
}

static void env_put(const struct interp *c, unsigned size, uint8_t *p)
{
    const struct x86_fxsave *fx = &c->st.fx;
    uint32_t fip = (uint32_t)fx->fip, fdp = (uint32_t)fx->fdp;
    bool real = seg_real_style(&c->st);
    uint16_t words[3] = {fx->fcw, fx->fsw, full_tags(fx)};
    uint16_t fop = fx->fop & 0x7ff;

    memset(p, 0, size);
    for (unsigned i = 0; i < 3; i++) {
        if (size == 14)
            store_le16(p + 2 * i, words[i]);
        else
            store_le32(p + 4 * i, 0xffff0000u | words[i]);
    }
    if (size == 14) {
        store_le16(p + 6, (uint16_t)fip);
        store_le16(p + 8, real ? (uint16_t)((fip >> 16 & 0xf) << 12 | fop) : 0);
        store_le16(p + 10, (uint16_t)fdp);
        store_le16(p + 12, real ? (uint16_t)((fdp >> 16 & 0xf) << 12) : 0);
    } else if (real) {
        store_le32(p + 12, 0xffff0000u | (fip & 0xffff));
        store_le32(p + 16, (fip >> 16) << 12 | fop);
        store_le32(p + 20, 0xffff0000u | (fdp & 0xffff));
        store_le32(p + 24, (fdp >> 16) << 12);
    } else {
        store_le32(p + 12, fip);
        store_le32(p + 16, (uint32_t)fop << 16);
        store_le32(p + 20, fdp);
        store_le32(p + 24, 0xffff0000u);
    }
}

static void env_get(struct interp *c, unsigned size, const uint8_t *p)
{
    struct x86_fxsave *fx = &c->st.fx;
    bool real = seg_real_style(&c->st);
    unsigned step = size == 14 ? 2 : 4;

    fx->fcw = vector_x87_fcw(load_le16(p));
    set_fsw(fx, load_le16(p + step));
    fx->ftw = abridged_tags(load_le16(p + 2 * step));
    if (size == 14) {
        fx->fip = load_le16(p + 6) | (real ? (uint32_t)(load_le16(p + 8) >> 12) << 16 : 0);
        fx->fop = real ? load_le16(p + 8) & 0x7ff : 0;
        fx->fdp = load_le16(p + 10) | (real ? (uint32_t)(load_le16(p + 12) >> 12) << 16 : 0);
    } else if (real) {
        fx->fip = load_le16(p + 12) | (load_le32(p + 16) >> 12 & 0xffff) << 16;
        fx->fop = load_le16(p + 16) & 0x7ff;
        fx->fdp = load_le16(p + 20) | (load_le32(p + 24) >> 12 & 0xffff) << 16;
    } else {
        fx->fip = load_le32(p + 12);
        fx->fop = load_le16(p + 18) & 0x7ff;
        fx->fdp = load_le32(p + 20);
    }
    vector_x87_summary(fx);
}

static void op_fnstenv(struct interp *c, const struct insn *in)
{
    uint8_t buf[28];
    unsigned size = env_size(in);

    check_available(c);
    env_put(c, size, buf);
    mmu_store_bytes(c, insn_lin(c, in, size, true), buf, size);
    c->st.fx.fcw |= FSW_EXCEPTIONS;
    vector_x87_summary(&c->st.fx);
}

static void op_fldenv(struct interp *c, const struct insn *in)
{
    uint8_t buf[28];
    unsigned size = env_size(in);

    check_waiting(c);
    mmu_load_bytes(c, insn_lin(c, in, size, false), buf, size);
    env_get(c, size, buf);
}

static void op_fnsave(struct interp *c, const struct insn *in)
{
    uint8_t buf[28 + ENV_REGS_SIZE];
    unsigned size = env_size(in);

    check_available(c);
    env_put(c, size, buf);
    for (unsigned i = 0; i < 8; i++)
        memcpy(buf + size + 10 * i, c->st.fx.st[i], 10);
    mmu_store_bytes(c, insn_lin(c, in, size + ENV_REGS_SIZE, true), buf, size + ENV_REGS_SIZE);
    vector_x87_init(&c->st.fx);
}

static void op_frstor(struct interp *c, const struct insn *in)
{
    uint8_t buf[28 + ENV_REGS_SIZE];
    unsigned size = env_size(in);

    check_waiting(c);
    mmu_load_bytes(c, insn_lin(c, in, size + ENV_REGS_SIZE, false), buf, size + ENV_REGS_SIZE);
    env_get(c, size, buf);
    for (unsigned i = 0; i < 8; i++)
        memcpy(c->st.fx.st[i], buf + size + 10 * i, 10);
}

static interp_fn bind_control(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    if (xi->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        in->size = (uint8_t)(xi->op[0].size / 8);
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
        return op_fwait;
    case ZYDIS_MNEMONIC_FNINIT:
        return op_fninit;
    case ZYDIS_MNEMONIC_FNCLEX:
        return op_fnclex;
    case ZYDIS_MNEMONIC_FNSTSW:
        return xi->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? op_fnstsw : op_fnstsw_ax;
    case ZYDIS_MNEMONIC_FNSTCW:
        return op_fnstcw;
    case ZYDIS_MNEMONIC_FLDCW:
        return op_fldcw;
    case ZYDIS_MNEMONIC_FNSTENV:
        return op_fnstenv;
    case ZYDIS_MNEMONIC_FLDENV:
        return op_fldenv;
    case ZYDIS_MNEMONIC_FNSAVE:
        return op_fnsave;
    case ZYDIS_MNEMONIC_FRSTOR:
        return op_frstor;
    default: /* FENI, FDISI, FSETPM of the 8087 and 287 */
        return op_nop8087;
    }
}

#define VECTOR_DEF_X87(name) {ZYDIS_MNEMONIC_##name, bind_x87},
const struct bind_entry vector_x87_binds[] = {
#include "engine/interp/vector.def"
    {ZYDIS_MNEMONIC_FWAIT, bind_control},         {ZYDIS_MNEMONIC_FNINIT, bind_control},
    {ZYDIS_MNEMONIC_FNCLEX, bind_control},        {ZYDIS_MNEMONIC_FNSTSW, bind_control},
    {ZYDIS_MNEMONIC_FNSTCW, bind_control},        {ZYDIS_MNEMONIC_FLDCW, bind_control},
    {ZYDIS_MNEMONIC_FNSTENV, bind_control},       {ZYDIS_MNEMONIC_FLDENV, bind_control},
    {ZYDIS_MNEMONIC_FNSAVE, bind_control},        {ZYDIS_MNEMONIC_FRSTOR, bind_control},
    {ZYDIS_MNEMONIC_FDISI8087_NOP, bind_control}, {ZYDIS_MNEMONIC_FENI8087_NOP, bind_control},
    {ZYDIS_MNEMONIC_FSETPM287_NOP, bind_control}, {0},
};
