/* See gdb_regs.h. */
#include "gdb/gdb_regs.h"

#include <errno.h>

/* What a debugger may change of RFLAGS: all but VM, VIF, VIP and what is reserved. */
#define FLAGS_WRITABLE                                                                                        \
    (X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_IOPL | X86_FLAG_NT | X86_FLAG_RF | \
     X86_FLAG_AC | X86_FLAG_ID)

enum kind {
    GPR,
    RIP,
    EFLAGS,
    SEG,
    ST,
    FCTRL,
    FSTAT,
    FTAG,
    FISEG,
    FIOFF,
    FOSEG,
    FOOFF,
    FOP,
    XMM,
    MXCSR,
    YMMH,
    BASE,
    KERNEL_GS_BASE,
    CR0,
    CR2,
    CR3,
    CR4,
    CR8,
    EFER,
};

static const struct reg {
    uint8_t kind, index, bytes;
} table[] = {
#define FEATURE(name)
#define REG(name, bits, type, kind, index) {kind, index, (bits) / 8},
#include "gdb/gdb_regs.def"
#undef REG
#undef FEATURE
};

unsigned gdb_regs_size(uint64_t n)
{
    return n < GDB_REGS_N ? table[n].bytes : 0;
}

/* ---- the x87 tag word: two bits for each physical register, of which FXSAVE keeps whether it is in use (SDM Vol. 1 8.1.7) ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t value[10])
{
    unsigned exponent = load_le16(value + 8) & 0x7fff;
    uint64_t significand = load_le64(value);

    if (exponent == 0)
        return significand ? TAG_SPECIAL : TAG_ZERO;
    return exponent == 0x7fff || !(significand >> 63) ? TAG_SPECIAL : TAG_VALID;
}

static uint16_t full_tags(const struct x86_fxsave *fx)
{
    unsigned top = (fx->fsw >> 11) & 7, tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned tag = fx->ftw >> i & 1 ? tag_of(fx->st[(i - top) & 7]) : TAG_EMPTY;
        tags |= tag << (2 * i);
    }
    return (uint16_t)tags;
}

static uint8_t abridged_tags(uint64_t tags)
{
    unsigned used = 0;

    for (unsigned i = 0; i < 8; i++)
        used |= (unsigned)((tags >> (2 * i) & 3) != TAG_EMPTY) << i;
    return (uint8_t)used;
}

/* ---- reading ---- */

/* Registers of up to 64 bits. */
static uint64_t get_word(const struct gdb_regs *regs, const struct reg *reg)
{
    const struct x86_state *st = &regs->st;

    switch (reg->kind) {
    case GPR:
        return st->gpr[reg->index];
    case RIP:
        return st->rip;
    case EFLAGS:
        return st->rflags;
    case SEG:
        return st->seg[reg->index].sel;
    case FCTRL:
        return st->fx.fcw;
    case FSTAT:
        return st->fx.fsw;
    case FTAG:
        return full_tags(&st->fx);
    case FISEG:
        return st->fx.fip >> 32 & 0xffff;
    case FIOFF:
        return st->fx.fip;
    case FOSEG:
        return st->fx.fdp >> 32 & 0xffff;
    case FOOFF:
        return st->fx.fdp;
    case FOP:
        return st->fx.fop;
    case MXCSR:
        return st->fx.mxcsr;
    case BASE:
        return st->seg[reg->index].base;
    case KERNEL_GS_BASE:
        return st->kernel_gs_base;
    case CR0:
        return st->cr0;
    case CR2:
        return st->cr2;
    case CR3:
        return st->cr3;
    case CR4:
        return st->cr4;
    case CR8:
        return regs->cr8;
    default:
        return st->efer;
    }
}

void gdb_regs_get(const struct gdb_regs *regs, unsigned n, uint8_t value[GDB_REGS_BYTES_MAX])
{
    const struct reg *reg = &table[n];

    switch (reg->kind) {
    case ST:
        memcpy(value, regs->st.fx.st[reg->index], reg->bytes);
        break;
    case XMM:
        memcpy(value, regs->st.ymm[reg->index], reg->bytes);
        break;
    case YMMH:
        memcpy(value, regs->st.ymm[reg->index] + 16, reg->bytes);
        break;
    default:
        store_le64(value, get_word(regs, reg));
        break;
    }
}

/* ---- writing ---- */

static bool canonical(uint64_t addr)
{
    return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

static int set_base(uint64_t *base, uint64_t v)
{
    if (!canonical(v))
        return -EINVAL;
    *base = v;
    return 0;
}

static int set_cr3(struct x86_state *st, uint64_t v, unsigned phys_bits)
{
    if (v >> phys_bits)
        return -EINVAL;
    /* There the processor goes by PDPTEs that it loads with CR3 (SDM Vol. 3A 4.4.1). */
    if ((st->cr4 & X86_CR4_PAE) && !x86_long_mode(st))
        return -EPERM;
    st->cr3 = v;
    return 0;
}

/* What is there may be written again: gdb may write all registers at once. */
static int set_same(const struct gdb_regs *regs, const struct reg *reg, uint64_t v)
{
    return get_word(regs, reg) == v ? 0 : -EPERM;
}

static void set_half(uint64_t *word, bool high, uint64_t v)
{
    *word = high ? (*word & 0xffffffff) | (v & 0xffff) << 32 : (*word & ~UINT64_C(0xffffffff)) | v;
}

static void set_x87(struct x86_fxsave *fx, enum kind kind, uint64_t v)
{
    switch (kind) {
    case FCTRL:
        fx->fcw = (uint16_t)v;
        break;
    case FSTAT:
        fx->fsw = (uint16_t)v;
        break;
    case FTAG:
        fx->ftw = abridged_tags(v);
        break;
    case FISEG:
    case FIOFF:
        set_half(&fx->fip, kind == FISEG, v);
        break;
    case FOSEG:
    case FOOFF:
        set_half(&fx->fdp, kind == FOSEG, v);
        break;
    default:
        fx->fop = (uint16_t)v & 0x7ff;
        break;
    }
}

static int set_word(struct gdb_regs *regs, const struct reg *reg, uint64_t v, unsigned phys_bits)
{
    struct x86_state *st = &regs->st;

    switch (reg->kind) {
    case GPR:
        st->gpr[reg->index] = v;
        return 0;
    case RIP:
        st->rip = v;
        return 0;
    case EFLAGS:
        st->rflags = (st->rflags & ~(uint64_t)FLAGS_WRITABLE) | (v & FLAGS_WRITABLE);
        return 0;
    case MXCSR:
        if (v >> 16) /* reserved bits: LDMXCSR raises #GP for them */
            return -EINVAL;
        st->fx.mxcsr = (uint32_t)v;
        return 0;
    case BASE:
        return set_base(&st->seg[reg->index].base, v);
    case KERNEL_GS_BASE:
        return set_base(&st->kernel_gs_base, v);
    case CR2:
        st->cr2 = v;
        return 0;
    case CR3:
        return set_cr3(st, v, phys_bits);
    case CR8:
        if (v > 15)
            return -EINVAL;
        regs->cr8 = (uint8_t)v;
        return 0;
    case SEG:
    case CR0:
    case CR4:
    case EFER:
        return set_same(regs, reg, v);
    default:
        set_x87(&st->fx, reg->kind, v);
        return 0;
    }
}

int gdb_regs_set(struct gdb_regs *regs, unsigned n, const uint8_t value[GDB_REGS_BYTES_MAX], unsigned phys_bits)
{
    const struct reg *reg = &table[n];
    uint64_t v = 0;

    switch (reg->kind) {
    case ST:
        memcpy(regs->st.fx.st[reg->index], value, reg->bytes);
        return 0;
    case XMM:
        memcpy(regs->st.ymm[reg->index], value, reg->bytes);
        return 0;
    case YMMH:
        memcpy(regs->st.ymm[reg->index] + 16, value, reg->bytes);
        return 0;
    default:
        memcpy(&v, value, reg->bytes);
        return set_word(regs, reg, v, phys_bits);
    }
}
