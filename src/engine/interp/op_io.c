/*
 * IN, OUT, INS and OUTS (SDM Vol. 1 chapter 18, Vol. 2): I/O privilege, the TSS's permission bitmap, and repetition.
 *
 * A repeated INS or OUTS works until something wants attention, then leaves RIP at itself with the registers brought up to date.
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"
#include "engine/interp/fault.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"

#define TSS_IOMAP 102 /* offset of the bitmap's offset */

/* SDM Vol. 1 18.5.2: every bit of the ports touched must be clear, and the byte after theirs lie within the limit. */
static bool bitmap_allows(struct interp *c, uint16_t port, unsigned size)
{
    const struct x86_seg *tr = &c->st.tr;
    uint32_t at, bits;

    if (!(tr->attr & X86_SEG_P) || (tr->attr & 0xd) != 9 || tr->limit < TSS_IOMAP + 1)
        return false;
    at = (uint32_t)mmu_sys_load(c, tr->base + TSS_IOMAP, 2) + port / 8;
    if (at + 1 > tr->limit)
        return false;
    bits = (uint32_t)mmu_sys_load(c, tr->base + at, 2) >> (port % 8);
    return !(bits & ((1u << size) - 1));
}

static void check_io(struct interp *c, uint16_t port, unsigned size)
{
    const struct x86_state *st = &c->st;

    if ((st->cr0 & X86_CR0_PE) && ((st->rflags & X86_FLAG_VM) || x86_cpl(st) > system_iopl(st)) &&
        !bitmap_allows(c, port, size))
        interp_raise_error(c, X86_GP, 0);
}

static void access_io(struct interp *c, uint16_t port, void *data, unsigned size, enum engine_exit_reason reason)
{
    mmu_bus(c, c->conf.pio, port, data, size, reason);
    if (c->st.dr7 & 0xff)
        c->debug_hit |= fault_breakpoints(c, port, size, DEBUG_IO);
}

/* in->imm is the port where in->vvvv is 1, else DX holds it. */
static uint16_t port_of(const struct interp *c, const struct insn *in)
{
    return in->vvvv ? (uint8_t)in->imm : (uint16_t)c->st.gpr[X86_RDX];
}

static void op_in(struct interp *c, const struct insn *in)
{
    uint16_t port = port_of(c, in);
    uint8_t data[8] = {0};

    check_io(c, port, in->size);
    access_io(c, port, data, in->size, ENGINE_EXIT_PIO_IN);
    if (in->size == 4)
        c->st.gpr[X86_RAX] = load_le32(data);
    else
        memcpy(&c->st.gpr[X86_RAX], data, in->size);
    c->attention |= ATTN_RECHECK;
}

static void op_out(struct interp *c, const struct insn *in)
{
    uint16_t port = port_of(c, in);
    uint8_t data[8];

    check_io(c, port, in->size);
    store_le64(data, c->st.gpr[X86_RAX]);
    access_io(c, port, data, in->size, ENGINE_EXIT_PIO_OUT);
    c->attention |= ATTN_RECHECK;
}

/* ---- strings ---- */

static uint64_t addr_reg(const struct interp *c, const struct insn *in, unsigned reg)
{
    uint64_t v = c->st.gpr[reg];
    return in->addr == 8 ? v : in->addr == 4 ? (uint32_t)v : (uint16_t)v;
}

static void addr_reg_add(struct interp *c, const struct insn *in, unsigned reg, int by)
{
    uint64_t v = c->st.gpr[reg] + (uint64_t)(int64_t)by;

    if (in->addr == 2)
        v = (c->st.gpr[reg] & ~UINT64_C(0xffff)) | (uint16_t)v;
    else if (in->addr == 4)
        v = (uint32_t)v;
    c->st.gpr[reg] = v;
}

static void ins_once(struct interp *c, const struct insn *in)
{
    uint16_t port = (uint16_t)c->st.gpr[X86_RDX];
    uint8_t data[8] = {0};
    uint64_t lin;

    check_io(c, port, in->size);
    lin = seg_lin(c, X86_ES, addr_reg(c, in, X86_RDI), in->size, true);
    mmu_check_write(c, lin, in->size); /* the device must not see a read whose result is lost */
    access_io(c, port, data, in->size, ENGINE_EXIT_PIO_IN);
    mmu_store_bytes(c, lin, data, in->size);
    addr_reg_add(c, in, X86_RDI, c->st.rflags & X86_FLAG_DF ? -(int)in->size : in->size);
}

static void outs_once(struct interp *c, const struct insn *in)
{
    uint16_t port = (uint16_t)c->st.gpr[X86_RDX];
    uint8_t data[8] = {0};

    check_io(c, port, in->size);
    mmu_load_bytes(c, seg_lin(c, in->seg, addr_reg(c, in, X86_RSI), in->size, false), data, in->size);
    access_io(c, port, data, in->size, ENGINE_EXIT_PIO_OUT);
    addr_reg_add(c, in, X86_RSI, c->st.rflags & X86_FLAG_DF ? -(int)in->size : in->size);
}

static void string_io(struct interp *c, const struct insn *in, void (*once)(struct interp *, const struct insn *))
{
    if (!(in->prefix & (INSN_REP | INSN_REPNE))) {
        once(c, in);
        c->attention |= ATTN_RECHECK;
        return;
    }
    while (addr_reg(c, in, X86_RCX)) {
        once(c, in);
        addr_reg_add(c, in, X86_RCX, -1);
        if (c->attention || c->debug_hit || atomic_load_explicit(&c->conf.port->pending, memory_order_relaxed)) {
            if (addr_reg(c, in, X86_RCX)) {
                c->st.rip = interp_rip(c, in);
                fault_step_repeats(c);
            }
            break;
        }
    }
    c->attention |= ATTN_RECHECK;
}

static void op_ins(struct interp *c, const struct insn *in)
{
    string_io(c, in, ins_once);
}

static void op_outs(struct interp *c, const struct insn *in)
{
    string_io(c, in, outs_once);
}

/* ---- binding ---- */

static interp_fn bind_io(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool input = xi->insn.mnemonic == ZYDIS_MNEMONIC_IN;
    const ZydisDecodedOperand *data = &xi->op[input ? 0 : 1], *port = &xi->op[input ? 1 : 0];

    in->size = (uint8_t)(data->size / 8);
    in->vvvv = bind_is_imm(port);
    if (in->vvvv)
        in->imm = port->imm.value.u;
    return input ? op_in : op_out;
}

static interp_fn bind_string_io(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_OUTSB:
        in->size = 1;
        break;
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_OUTSW:
        in->size = 2;
        break;
    default:
        in->size = 4;
    }
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
        return op_ins;
    default:
        return op_outs;
    }
}

const struct bind_entry op_io_binds[] = {
    {ZYDIS_MNEMONIC_IN, bind_io},
    {ZYDIS_MNEMONIC_OUT, bind_io},
    {ZYDIS_MNEMONIC_INSB, bind_string_io},
    {ZYDIS_MNEMONIC_INSW, bind_string_io},
    {ZYDIS_MNEMONIC_INSD, bind_string_io},
    {ZYDIS_MNEMONIC_OUTSB, bind_string_io},
    {ZYDIS_MNEMONIC_OUTSW, bind_string_io},
    {ZYDIS_MNEMONIC_OUTSD, bind_string_io},
    {0, NULL},
};
