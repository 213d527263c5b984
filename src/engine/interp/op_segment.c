/*
 * Segment registers, descriptor tables and the instructions that look at descriptors (SDM Vol. 2).
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"
#include "engine/interp/fault.h"
#include "engine/interp/seg.h"
#include "engine/interp/system.h"
#include "engine/interp/task.h"

#define TYPE_LDT         2
#define TYPE_CALL_GATE16 4
#define TYPE_TASK_GATE   5
#define TYPE_CALL_GATE32 12

void system_check_umip(struct interp *c)
{
    if ((c->st.cr4 & X86_CR4_UMIP) && x86_cpl(&c->st))
        interp_raise_error(c, X86_GP, 0);
}

/* ---- r/m operands: in->vvvv is 1 for memory ---- */

void system_bind_rm(const struct x86_insn *xi, struct insn *in)
{
    for (unsigned i = 0; i < xi->insn.operand_count_visible; i++) {
        if (xi->op[i].encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue;
        in->vvvv = bind_is_mem(&xi->op[i]);
        if (!in->vvvv)
            in->rm = bind_reg(xi->op[i].reg.value);
        in->size = (uint8_t)(xi->op[i].size / 8);
    }
}

uint16_t system_read_rm16(struct interp *c, const struct insn *in)
{
    return in->vvvv ? mmu_load16(c, insn_lin(c, in, 2, false)) : *(const uint16_t *)interp_reg(c, in->rm);
}

void system_write_rm(struct interp *c, const struct insn *in, uint64_t v)
{
    if (in->vvvv)
        mmu_store16(c, insn_lin(c, in, 2, true), (uint16_t)v);
    else if (in->size == 2)
        *(uint16_t *)interp_reg(c, in->rm) = (uint16_t)v;
    else
        *(uint64_t *)interp_reg(c, in->rm) = in->size == 4 ? (uint32_t)v : v;
}

static void need_cpl0(struct interp *c)
{
    if (x86_cpl(&c->st))
        interp_raise_error(c, X86_GP, 0);
}

/* ---- loads and stores of segment registers: in->imm is the register ---- */

/* After a load: CPL can not change, but 32-bit stacks and shadows can. */
static void loaded(struct interp *c, unsigned seg)
{
    if (seg == X86_SS) {
        c->st.movss_shadow = true;
        c->attention |= ATTN_RECHECK;
    }
    mmu_mode_changed(c);
}

static void op_mov_to_seg(struct interp *c, const struct insn *in)
{
    seg_load(c, (unsigned)in->imm, system_read_rm16(c, in));
    loaded(c, (unsigned)in->imm);
}

static void op_mov_from_seg(struct interp *c, const struct insn *in)
{
    system_write_rm(c, in, c->st.seg[in->imm].sel);
}

/* With 32 bits today's processors write the selector alone, and leave what lies above it (SDM Vol. 2B, PUSH). */
static void op_push_seg(struct interp *c, const struct insn *in)
{
    stack_poke(c, -(int)in->size, in->size == 4 ? 2 : in->size, c->st.seg[in->imm].sel);
    stack_move(c, -(int64_t)in->size);
}

static void op_pop_seg(struct interp *c, const struct insn *in)
{
    uint64_t mask = seg_stack_mask(c), rsp = c->st.gpr[X86_RSP];

    seg_load(c, (unsigned)in->imm, (uint16_t)stack_peek(c, 0, 2));
    c->st.gpr[X86_RSP] = (rsp & ~mask) | ((rsp + in->size) & mask);
    loaded(c, (unsigned)in->imm);
}

static uint64_t load_sized(struct interp *c, uint64_t lin, unsigned size)
{
    return size == 2 ? mmu_load16(c, lin) : size == 4 ? mmu_load32(c, lin) : mmu_load64(c, lin);
}

/* LDS and the like. */
static void op_load_far(struct interp *c, const struct insn *in)
{
    uint64_t lin = insn_lin(c, in, in->size + 2u, false), v = load_sized(c, lin, in->size);
    uint16_t sel = mmu_load16(c, lin + in->size);

    seg_load(c, (unsigned)in->imm, sel);
    if (in->size == 2)
        *(uint16_t *)interp_reg(c, in->reg) = (uint16_t)v;
    else
        *(uint64_t *)interp_reg(c, in->reg) = v;
    mmu_mode_changed(c);
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

static void set_zf(struct interp *c, bool zf)
{
    c->st.rflags = (c->st.rflags & ~(uint64_t)X86_FLAG_ZF) | (zf ? X86_FLAG_ZF : 0);
}

/* Whether CPL and RPL may see the segment; conforming code is for all. */
static bool visible(const struct interp *c, uint16_t sel, const struct seg_desc *d)
{
    unsigned code = X86_SEG_S | X86_SEG_CODE | X86_SEG_DC;

    return (d->attr & code) == code || (x86_cpl(&c->st) <= seg_dpl(d) && (sel & 3u) <= seg_dpl(d));
}

/* System types that LAR and LSL answer for, as bits (SDM Vol. 2A tables 3-53 and 3-61). */
static bool system_type_known(const struct interp *c, const struct seg_desc *d, bool gates)
{
    unsigned types = 1u << TYPE_LDT | 1u << TASK_TSS32 | 1u << TASK_TSS32_BUSY;

    if (!x86_long_mode(&c->st))
        types |= 1u << TASK_TSS16 | 1u << TASK_TSS16_BUSY;
    if (gates) {
        types |= 1u << TYPE_CALL_GATE32;
        if (!x86_long_mode(&c->st))
            types |= 1u << TYPE_CALL_GATE16 | 1u << TYPE_TASK_GATE;
    }
    return (d->attr & X86_SEG_S) || (types >> (d->attr & X86_SEG_TYPE) & 1);
}

static void set_reg(struct interp *c, const struct insn *in, uint32_t v)
{
    if (in->size == 2)
        *(uint16_t *)interp_reg(c, in->reg) = (uint16_t)v;
    else
        *(uint64_t *)interp_reg(c, in->reg) = v;
}

static void op_lar(struct interp *c, const struct insn *in)
{
    uint16_t sel = system_read_rm16(c, in);
    struct seg_desc d;
    bool ok = seg_desc_read(c, sel, &d) && system_type_known(c, &d, true) && visible(c, sel, &d);

    if (ok)
        set_reg(c, in, (uint32_t)(d.raw >> 32) & 0x00f0ff00);
    set_zf(c, ok);
}

static void op_lsl(struct interp *c, const struct insn *in)
{
    uint16_t sel = system_read_rm16(c, in);
    struct seg_desc d;
    bool ok = seg_desc_read(c, sel, &d) && system_type_known(c, &d, false) && visible(c, sel, &d);

    if (ok)
        set_reg(c, in, d.limit);
    set_zf(c, ok);
}

static void op_verr(struct interp *c, const struct insn *in)
{
    uint16_t sel = system_read_rm16(c, in);
    struct seg_desc d;

    set_zf(c, seg_desc_read(c, sel, &d) && (d.attr & X86_SEG_S) && visible(c, sel, &d) &&
                  (!(d.attr & X86_SEG_CODE) || (d.attr & X86_SEG_WRITE)));
}

static void op_verw(struct interp *c, const struct insn *in)
{
    uint16_t sel = system_read_rm16(c, in);
    struct seg_desc d;

    set_zf(c, seg_desc_read(c, sel, &d) && visible(c, sel, &d) &&
                  (d.attr & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITE)) == (X86_SEG_S | X86_SEG_WRITE));
}

/* An operand that stays as it is may be in a segment or a page that cannot be written, as on processors. */
static void op_arpl(struct interp *c, const struct insn *in)
{
    uint16_t dst = in->vvvv ? mmu_load16(c, insn_lin(c, in, 2, false)) : *(const uint16_t *)interp_reg(c, in->rm);
    uint16_t src = *(const uint16_t *)interp_reg(c, in->reg);
    bool adjust = (dst & 3) < (src & 3);

    if (adjust) {
        dst = (uint16_t)((dst & ~3u) | (src & 3u));
        if (in->vvvv)
            mmu_store16(c, insn_lin(c, in, 2, true), dst);
        else
            *(uint16_t *)interp_reg(c, in->rm) = dst;
    }
    set_zf(c, adjust);
}

/* ---- descriptor table registers ---- */

/* The second half of a 16-byte descriptor must say so: type 0 (SDM Vol. 3A 3.5.2). */
static bool upper_valid(const struct seg_desc *d)
{
    return !(d->raw_high >> 40 & 0x1f) && seg_canonical(d->base);
}

static void op_lldt(struct interp *c, const struct insn *in)
{
    struct seg_desc d;
    uint16_t sel;
    uint32_t error;

    need_cpl0(c);
    sel = system_read_rm16(c, in);
    error = sel & ~3u;
    if (!error) {
        c->st.ldtr = (struct x86_seg){.sel = sel};
        return;
    }
    if ((sel & 4) || !seg_desc_read(c, sel, &d) || (d.attr & (X86_SEG_S | X86_SEG_TYPE)) != TYPE_LDT ||
        !upper_valid(&d))
        interp_raise_error(c, X86_GP, error);
    if (!(d.attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, error);
    c->st.ldtr = seg_from_desc(&d, sel);
}

static void op_ltr(struct interp *c, const struct insn *in)
{
    struct seg_desc d;
    uint16_t sel;
    uint32_t error;
    unsigned type;

    need_cpl0(c);
    sel = system_read_rm16(c, in);
    error = sel & ~3u;
    if (!error || (sel & 4) || !seg_desc_read(c, sel, &d))
        interp_raise_error(c, X86_GP, error);
    type = d.attr & (X86_SEG_S | X86_SEG_TYPE);
    if ((type != TASK_TSS32 && (type != TASK_TSS16 || x86_long_mode(&c->st))) || !upper_valid(&d))
        interp_raise_error(c, X86_GP, error);
    if (!(d.attr & X86_SEG_P))
        interp_raise_error(c, X86_NP, error);
    mmu_sys_store(c, d.lin + 5, (d.raw >> 40 & 0xff) | 2, 1);
    c->st.tr = seg_from_desc(&d, sel);
    c->st.tr.attr |= 2;
}

static void op_sldt(struct interp *c, const struct insn *in)
{
    system_check_umip(c);
    system_write_rm(c, in, c->st.ldtr.sel);
}

static void op_str(struct interp *c, const struct insn *in)
{
    system_check_umip(c);
    system_write_rm(c, in, c->st.tr.sel);
}

static void store_table(struct interp *c, const struct insn *in, const struct x86_table *t)
{
    unsigned len = c->code_size == 8 ? 10 : 6;
    uint8_t buf[10];

    system_check_umip(c);
    store_le16(buf, t->limit);
    store_le64(buf + 2, t->base);
    mmu_store_bytes(c, insn_lin(c, in, len, true), buf, len);
}

static void load_table(struct interp *c, const struct insn *in, struct x86_table *t)
{
    unsigned len = c->code_size == 8 ? 10 : 6;
    uint8_t buf[10] = {0};
    uint64_t base;

    need_cpl0(c);
    mmu_load_bytes(c, insn_lin(c, in, len, false), buf, len);
    base = load_le64(buf + 2);
    if (c->code_size == 8) {
        if (!seg_canonical(base))
            interp_raise_error(c, X86_GP, 0);
    } else {
        base &= in->size == 2 ? 0xffffff : 0xffffffff;
    }
    t->limit = load_le16(buf);
    t->base = base;
}

static void op_sgdt(struct interp *c, const struct insn *in)
{
    store_table(c, in, &c->st.gdtr);
}

static void op_sidt(struct interp *c, const struct insn *in)
{
    store_table(c, in, &c->st.idtr);
}

static void op_lgdt(struct interp *c, const struct insn *in)
{
    load_table(c, in, &c->st.gdtr);
}

static void op_lidt(struct interp *c, const struct insn *in)
{
    load_table(c, in, &c->st.idtr);
}

/* ---- binding ---- */

static bool is_segment(const ZydisDecodedOperand *op)
{
    return bind_is_reg(op) && ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static uint64_t segment_number(const ZydisDecodedOperand *op)
{
    return (uint64_t)(op->reg.value - ZYDIS_REGISTER_ES);
}

static interp_fn bind_mov(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    bool to = is_segment(&xi->op[0]);

    if (!to && !is_segment(&xi->op[1]))
        return NULL;
    system_bind_rm(xi, in);
    in->imm = segment_number(&xi->op[to ? 0 : 1]);
    if (to)
        return in->imm == X86_CS ? op_ud : op_mov_to_seg;
    return op_mov_from_seg;
}

static interp_fn bind_push_pop(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    if (!is_segment(&xi->op[0]))
        return NULL;
    in->imm = segment_number(&xi->op[0]);
    in->size = (uint8_t)(xi->insn.operand_width / 8);
    if (xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && in->size == 4)
        in->size = 8;
    return xi->insn.mnemonic == ZYDIS_MNEMONIC_PUSH ? op_push_seg : op_pop_seg;
}

static interp_fn bind_load_far(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    in->reg = bind_reg(xi->op[0].reg.value);
    in->size = (uint8_t)(xi->op[0].size / 8);
    switch (xi->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
        in->imm = X86_DS;
        break;
    case ZYDIS_MNEMONIC_LES:
        in->imm = X86_ES;
        break;
    case ZYDIS_MNEMONIC_LFS:
        in->imm = X86_FS;
        break;
    case ZYDIS_MNEMONIC_LGS:
        in->imm = X86_GS;
        break;
    default:
        in->imm = X86_SS;
    }
    return op_load_far;
}

#define BIND_RM(name)                                                                                       \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        system_bind_rm(xi, in);                                                                             \
        return op_##name;                                                                                   \
    }
BIND_RM(verr)
BIND_RM(verw)
BIND_RM(lldt)
BIND_RM(ltr)
BIND_RM(sldt)
BIND_RM(str)
#undef BIND_RM

#define BIND_REG_RM(name)                                                                                   \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        system_bind_rm(xi, in);                                                                             \
        in->size = (uint8_t)(xi->insn.operand_width / 8);                                                   \
        return op_##name;                                                                                   \
    }
BIND_REG_RM(lar)
BIND_REG_RM(lsl)
BIND_REG_RM(arpl)
#undef BIND_REG_RM

#define BIND_PLAIN(name)                                                                                    \
    static interp_fn bind_##name(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid) \
    {                                                                                                       \
        return op_##name;                                                                                   \
    }
BIND_PLAIN(sgdt)
BIND_PLAIN(sidt)
BIND_PLAIN(lgdt)
BIND_PLAIN(lidt)
#undef BIND_PLAIN

const struct bind_entry op_segment_binds[] = {
    {ZYDIS_MNEMONIC_MOV, bind_mov},      {ZYDIS_MNEMONIC_PUSH, bind_push_pop},
    {ZYDIS_MNEMONIC_POP, bind_push_pop}, {ZYDIS_MNEMONIC_LDS, bind_load_far},
    {ZYDIS_MNEMONIC_LES, bind_load_far}, {ZYDIS_MNEMONIC_LFS, bind_load_far},
    {ZYDIS_MNEMONIC_LGS, bind_load_far}, {ZYDIS_MNEMONIC_LSS, bind_load_far},
    {ZYDIS_MNEMONIC_LAR, bind_lar},      {ZYDIS_MNEMONIC_LSL, bind_lsl},
    {ZYDIS_MNEMONIC_VERR, bind_verr},    {ZYDIS_MNEMONIC_VERW, bind_verw},
    {ZYDIS_MNEMONIC_ARPL, bind_arpl},    {ZYDIS_MNEMONIC_LLDT, bind_lldt},
    {ZYDIS_MNEMONIC_LTR, bind_ltr},      {ZYDIS_MNEMONIC_SLDT, bind_sldt},
    {ZYDIS_MNEMONIC_STR, bind_str},      {ZYDIS_MNEMONIC_SGDT, bind_sgdt},
    {ZYDIS_MNEMONIC_SIDT, bind_sidt},    {ZYDIS_MNEMONIC_LGDT, bind_lgdt},
    {ZYDIS_MNEMONIC_LIDT, bind_lidt},    {0, NULL},
};
