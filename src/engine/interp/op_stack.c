/* The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM Vol. 1 chapter 6). PUSHF and POPF are op_system.c's. */
#include "engine/interp/op.h"

static bool is_sreg(const ZydisDecodedOperand *op)
{
    return bind_is_reg(op) && ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static uint64_t load(struct interp *c, uint64_t lin, unsigned size)
{
    if (size == 8)
        return mmu_load64(c, lin);
    return size == 4 ? mmu_load32(c, lin) : mmu_load16(c, lin);
}

/* ---- PUSH ---- */

static void push64_r(struct interp *c, const struct insn *in)
{
    stack_push(c, 8, reg_get64(c, in->reg));
}

static void push_r(struct interp *c, const struct insn *in)
{
    stack_push(c, in->size, reg_get64(c, in->reg) & ones_mask(in->size));
}

static void push_i(struct interp *c, const struct insn *in)
{
    stack_push(c, in->size, in->imm & ones_mask(in->size));
}

static void push_m(struct interp *c, const struct insn *in)
{
    stack_push(c, in->size, load(c, insn_lin(c, in, in->size, false), in->size));
}

static interp_fn bind_push(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    const ZydisDecodedOperand *op = &xi->op[0];

    if (is_sreg(op))
        return NULL; /* op_segment.c's */
    if (bind_is_imm(op))
        return push_i;
    if (bind_is_mem(op))
        return push_m;
    in->reg = bind_reg(op->reg.value);
    return in->size == 8 ? push64_r : push_r;
}

/* ---- POP ---- */

static void pop64_r(struct interp *c, const struct insn *in)
{
    reg_set64(c, in->reg, stack_pop(c, 8));
}

static void pop_r(struct interp *c, const struct insn *in)
{
    uint64_t v = stack_pop(c, in->size);

    if (in->size == 2)
        reg_set16(c, in->reg, (uint16_t)v);
    else
        reg_set32(c, in->reg, (uint32_t)v);
}

/* An address based on RSP takes it as it is after the pop (SDM Vol. 2B, POP); a fault leaves it as it was. */
static void pop_m(struct interp *c, const struct insn *in)
{
    uint64_t before = c->st.gpr[X86_RSP], v = stack_peek(c, 0, in->size);

    stack_move(c, in->size);
    uint64_t after = c->st.gpr[X86_RSP], off = insn_offset(c, in);
    c->st.gpr[X86_RSP] = before;
    uint64_t lin =
        in->prefix & INSN_SLOW_ADDR ? seg_lin(c, in->seg, off, in->size, true) : reg_get64(c, in->seg_base) + off;
    if (in->size == 8)
        mmu_store64(c, lin, v);
    else if (in->size == 4)
        mmu_store32(c, lin, (uint32_t)v);
    else
        mmu_store16(c, lin, (uint16_t)v);
    c->st.gpr[X86_RSP] = after;
}

static interp_fn bind_pop(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    const ZydisDecodedOperand *op = &xi->op[0];

    if (is_sreg(op))
        return NULL; /* op_segment.c's */
    if (bind_is_mem(op))
        return pop_m;
    in->reg = bind_reg(op->reg.value);
    return in->size == 8 ? pop64_r : pop_r;
}

/* ---- PUSHA and POPA: all eight or none ---- */

/* Raises what a write of `size` bytes at RSP + at would. */
static void check_slot(struct interp *c, int at, unsigned size)
{
    uint64_t off = (c->st.gpr[X86_RSP] + (uint64_t)(int64_t)at) & seg_stack_mask(c);

    mmu_check_write(c, seg_lin(c, X86_SS, off, size, true), size);
}

static void pusha(struct interp *c, const struct insn *in)
{
    uint64_t top = c->st.gpr[X86_RSP] & seg_stack_mask(c);
    int size = in->size;

    if (seg_real_style(&c->st) && top >= 7 && top <= 15 && (top & 1)) /* SDM Vol. 2B, PUSHA */
        interp_raise_error(c, X86_GP, 0);
    for (int i = 0; i < 8; i++)
        check_slot(c, -size * (i + 1), in->size);
    for (int i = 0; i < 8; i++)
        stack_poke(c, -size * (i + 1), in->size, c->st.gpr[i] & ones_mask(in->size));
    stack_move(c, -8 * size);
}

static void popa(struct interp *c, const struct insn *in)
{
    uint64_t v[8];

    for (unsigned i = 0; i < 8; i++)
        v[i] = stack_peek(c, (7 - i) * in->size, in->size);
    for (unsigned i = 0; i < 8; i++) {
        if (i == X86_RSP)
            continue;
        if (in->size == 2)
            reg_set16(c, INTERP_GPR(i), (uint16_t)v[i]);
        else
            reg_set32(c, INTERP_GPR(i), (uint32_t)v[i]);
    }
    stack_move(c, 8 * in->size);
}

static interp_fn bind_pusha(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->size = xi->insn.mnemonic == ZYDIS_MNEMONIC_PUSHAD ? 4 : 2;
    return pusha;
}

static interp_fn bind_popa(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->size = xi->insn.mnemonic == ZYDIS_MNEMONIC_POPAD ? 4 : 2;
    return popa;
}

/* ---- ENTER and LEAVE ---- */

/* Writes the low bits of RSP or RBP that the stack's width covers. */
static uint64_t merge(uint64_t old, uint64_t new, uint64_t mask)
{
    return mask == 0xffffffff ? (uint32_t) new : (old & ~mask) | (new &mask);
}

static void reg_set_sized(struct interp *c, unsigned off, unsigned size, uint64_t v)
{
    if (size == 2)
        reg_set16(c, off, (uint16_t)v);
    else if (size == 4)
        reg_set32(c, off, (uint32_t)v);
    else
        reg_set64(c, off, v);
}

/* imm: bytes of locals; disp: nesting level (SDM Vol. 2A, ENTER). */
static void enter(struct interp *c, const struct insn *in)
{
    uint64_t mask = seg_stack_mask(c), rbp = c->st.gpr[X86_RBP], rsp = c->st.gpr[X86_RSP];
    unsigned level = (unsigned)in->disp % 32, size = in->size;
    int at = -(int)size;

    /* Every access first, so that a fault leaves nothing behind; among the writes the one that the final RSP would make. */
    uint64_t writes = level ? level + 1 : 1, top = (rsp - writes * size - in->imm) & mask;
    mmu_check_write(c, seg_lin(c, X86_SS, top, size, true), size);
    for (unsigned i = 1; i <= writes; i++)
        check_slot(c, -(int)(i * size), size);
    for (unsigned i = 1; i < level; i++)
        mmu_check_read(c, seg_lin(c, X86_SS, (rbp - i * size) & mask, size, false), size);

    stack_poke(c, at, size, rbp & ones_mask(size));
    uint64_t frame = merge(rsp, rsp - size, mask);
    if (level > 0) {
        for (unsigned i = 1; i < level; i++) {
            uint64_t from = (rbp - i * size) & mask;
            uint64_t lin = seg_lin(c, X86_SS, from, size, false);
            at -= (int)size;
            stack_poke(c, at, size, load(c, lin, size));
        }
        at -= (int)size;
        stack_poke(c, at, size, frame & ones_mask(size));
    }
    c->st.gpr[X86_RSP] = merge(rsp, top, mask);
    reg_set_sized(c, INTERP_GPR(X86_RBP), size, frame);
}

static interp_fn bind_enter(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->imm = xi->op[0].imm.value.u & 0xffff;
    in->disp = (int64_t)(xi->op[1].imm.value.u & 0xff);
    return enter;
}

static void leave(struct interp *c, const struct insn *in)
{
    uint64_t mask = seg_stack_mask(c), rsp = c->st.gpr[X86_RSP], rbp = c->st.gpr[X86_RBP];
    uint64_t lin = seg_lin(c, X86_SS, rbp & mask, in->size, false);
    uint64_t v = load(c, lin, in->size);

    c->st.gpr[X86_RSP] = merge(rsp, rbp + in->size, mask);
    reg_set_sized(c, INTERP_GPR(X86_RBP), in->size, v);
}

static void leave64(struct interp *c, const struct insn *in)
{
    uint64_t rbp = c->st.gpr[X86_RBP];
    const uint8_t *host = mmu_hit_read(c, rbp, 8);

    if (UNLIKELY(!host)) {
        leave(c, in);
        return;
    }
    c->st.gpr[X86_RBP] = *(const volatile mmu_u64 *)host;
    c->st.gpr[X86_RSP] = rbp + 8;
}

static interp_fn bind_leave(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return in->size == 8 ? leave64 : leave;
}

const struct bind_entry op_stack_binds[] = {
    {ZYDIS_MNEMONIC_PUSH, bind_push},    {ZYDIS_MNEMONIC_POP, bind_pop},     {ZYDIS_MNEMONIC_PUSHA, bind_pusha},
    {ZYDIS_MNEMONIC_PUSHAD, bind_pusha}, {ZYDIS_MNEMONIC_POPA, bind_popa},   {ZYDIS_MNEMONIC_POPAD, bind_popa},
    {ZYDIS_MNEMONIC_ENTER, bind_enter},  {ZYDIS_MNEMONIC_LEAVE, bind_leave}, {0},
};
