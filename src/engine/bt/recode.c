/*
 * Instructions that run on the host as they are: the same opcode and prefixes, with memory operands through the TLB's check and R10 and R11
 * replaced where the guest names them.
 */
#include "engine/bt/translate.h"
#include "engine/interp/vector.h"

/* ---- which ---- */

/* Integer instructions without effects beyond their operands and the status flags. */
static bool is_plain_integer(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
#define PLAIN(name) case ZYDIS_MNEMONIC_##name:
#include "engine/bt/plain.def"
#undef PLAIN
        return true;
    default:
        return false;
    }
}

static bool is_gpr(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
    return class >= ZYDIS_REGCLASS_GPR8 && class <= ZYDIS_REGCLASS_GPR64;
}

static bool is_vector(const ZydisDecodedOperand *op)
{
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
    return class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
}

static bool is_other_register(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER && !is_gpr(op) &&
           ZydisRegisterGetClass(op->reg.value) != ZYDIS_REGCLASS_FLAGS;
}

static bool is_mem(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

/* BT and its kin with a register for the bit reach beyond their operand. */
static bool is_bit_string(const struct x86_insn *xi)
{
    return xi->insn.meta.category == ZYDIS_CATEGORY_BITBYTE && is_mem(&xi->op[0]) &&
           xi->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

bool recode_is_hint(const struct trans_insn *in)
{
    return in->xi.insn.mnemonic == ZYDIS_MNEMONIC_NOP || in->xi.insn.meta.category == ZYDIS_CATEGORY_PREFETCH;
}

void recode_classify(const struct trans *t, struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;

    if (recode_is_hint(in)) {
        in->emit = recode;
        return;
    }
    if (!is_plain_integer(xi->insn.mnemonic))
        return;
    if (is_bit_string(xi) && (xi->insn.address_width != 64 || xi->op[0].size < 32))
        return;
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (is_other_register(&xi->op[i]))
            return; /* MOV with segment, control or debug registers */
    in->emit = recode;
}

/* ---- operands ---- */

/* The instruction's operands, sorted out. */
struct shape {
    const ZydisDecodedOperand *mem;  /* or NULL */
    const ZydisDecodedOperand *home; /* a register operand that lives in memory, or NULL */
    bool two_homes;                  /* different ones */
    bool home_written;
    unsigned n_registers; /* general ones */
};

static unsigned gpr_id(const ZydisDecodedOperand *op)
{
    return (unsigned)ZydisRegisterGetId(op->reg.value) & 15;
}

static bool is_high_byte(const ZydisDecodedOperand *op)
{
    return is_gpr(op) && op->reg.value >= ZYDIS_REGISTER_AH && op->reg.value <= ZYDIS_REGISTER_BH;
}

static unsigned register_number(const ZydisDecodedOperand *op)
{
    /* Zydis numbers AL to BL, AH to BH, SPL to DIL, R8B ... in one row. */
    if (ZydisRegisterGetClass(op->reg.value) != ZYDIS_REGCLASS_GPR8)
        return gpr_id(op);
    if (op->reg.value < ZYDIS_REGISTER_AH)
        return op->reg.value - ZYDIS_REGISTER_AL;
    if (op->reg.value <= ZYDIS_REGISTER_BH)
        return op->reg.value - ZYDIS_REGISTER_AH;
    return op->reg.value - ZYDIS_REGISTER_SPL + EMIT_RSP;
}

static void find_shape(const struct x86_insn *xi, struct shape *s)
{
    *s = (struct shape){0};
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        bool hidden = op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
        if (is_mem(op) && !hidden)
            s->mem = op;
        if (!is_gpr(op))
            continue;
        s->n_registers++;
        if (!trans_in_memory(register_number(op)))
            continue;
        s->two_homes |= s->home && register_number(s->home) != register_number(op);
        s->home = op;
        s->home_written |= !!(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    }
}

static unsigned high_byte(const struct x86_insn *xi)
{
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (is_high_byte(&xi->op[i]))
            return register_number(&xi->op[i]);
    return EMIT_NONE;
}

/* The memory operand, if the instruction can have it replaced. */
static bool replaceable(const struct trans *t, const struct trans_insn *in, const struct shape *s,
                        struct mem_operand *mem)
{
    unsigned high = high_byte(&in->xi);

    if (s->two_homes || !mem_operand(in, s->mem, t->code64, mem))
        return false;
    if (high != EMIT_NONE && (s->n_registers > 1 || mem->base == high))
        return false; /* its low byte is another operand */
    mem->align = in->aligned ? mem->size : 0;
    mem->bit_string = is_bit_string(&in->xi);
    if (mem->bit_string)
        mem->bits = (uint8_t)register_number(&in->xi.op[1]);
    return true;
}

static bool names(const struct x86_insn *xi, unsigned gpr)
{
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (is_gpr(&xi->op[i]) && register_number(&xi->op[i]) == gpr)
            return true;
    return false;
}

void recode_note(const struct trans *t, struct trans_insn *in)
{
    struct shape s;

    find_shape(&in->xi, &s);
    if (recode_is_hint(in)) {
        in->keeps_t1 = true;
    } else if (in->xi.insn.mnemonic == ZYDIS_MNEMONIC_LEA) {
        const ZydisDecodedOperandMem *m = &in->xi.op[1].mem;
        bool homes = s.home ||
                     (m->base != ZYDIS_REGISTER_NONE && trans_in_memory((unsigned)ZydisRegisterGetId(m->base))) ||
                     (m->index != ZYDIS_REGISTER_NONE && trans_in_memory((unsigned)ZydisRegisterGetId(m->index)));
        in->keeps_t1 = !homes && in->xi.insn.operand_width > 16 && in->xi.insn.address_width > 16;
    } else if (s.mem) {
        in->has_mem = in->keeps_t1 = replaceable(t, in, &s, &in->mem);
    } else {
        in->keeps_t1 = !names(&in->xi, BT_T1);
    }
}

/* ---- encoding ---- */

/* An instruction put together anew. */
struct code {
    unsigned reg; /* ModRM.reg, 0 to 15 */
    unsigned rm;  /* ModRM.rm where `host` is NULL */
    unsigned vvvv;
    const struct mem_host *host;
    bool byte_rex; /* a REX prefix even when it is empty: SPL to DIL */
};

static void put_kept_prefixes(struct emit *e, const ZydisDecodedInstruction *insn)
{
    for (unsigned i = 0; i < insn->raw.prefix_count; i++) {
        uint8_t value = insn->raw.prefixes[i].value;
        if (value == 0x66 || value == 0xf2 || value == 0xf3 || value == 0xf0)
            emit8(e, value);
    }
}

static bool index_bit(const struct code *c)
{
    return c->host && c->host->index != EMIT_NONE && (c->host->index & 8);
}

static bool base_bit(const struct code *c)
{
    return (c->host ? c->host->base : c->rm) & 8;
}

/* VEX.W means nothing outside 64-bit mode where it would choose the size of a general operand. */
static bool vex_w(const struct x86_insn *xi)
{
    bool general = vector_vex_w_is_gpr_size(&xi->insn);

    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        general |= is_gpr(&xi->op[i]);
    return xi->insn.raw.vex.W && (xi->insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 || !general);
}

static void put_vex(struct emit *e, const struct x86_insn *xi, const struct code *c)
{
    const ZydisDecodedInstruction *insn = &xi->insn;

    emit8(e, 0xc4);
    emit8(e, (uint8_t)(!(c->reg & 8) << 7 | !index_bit(c) << 6 | !base_bit(c) << 5 | (insn->opcode_map & 3)));
    emit8(e, (uint8_t)(vex_w(xi) << 7 | (~c->vvvv & 15) << 3 | insn->raw.vex.L << 2 | insn->raw.vex.pp));
    emit8(e, insn->opcode);
}

/* 82 is another name of 80 that 64-bit mode does not have. */
static uint8_t opcode(const ZydisDecodedInstruction *insn)
{
    bool alias = insn->opcode == 0x82 && insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
    return alias ? 0x80 : insn->opcode;
}

static void put_legacy(struct emit *e, const ZydisDecodedInstruction *insn, const struct code *c)
{
    put_kept_prefixes(e, insn);
    uint8_t rex = (uint8_t)(0x40 | insn->raw.rex.W << 3 | !!(c->reg & 8) << 2 | index_bit(c) << 1 | base_bit(c));
    if (rex != 0x40 || c->byte_rex)
        emit8(e, rex);
    if (insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        emit8(e, 0x0f);
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        emit8(e, 0x38);
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        emit8(e, 0x3a);
    emit8(e, opcode(insn));
}

static void put_modrm(struct emit *e, const struct code *c)
{
    const struct mem_host *h = c->host;

    if (!h) {
        emit8(e, (uint8_t)(0xc0 | (c->reg & 7) << 3 | (c->rm & 7)));
        return;
    }
    bool short_disp = h->disp == (int8_t)h->disp;
    bool no_disp = !h->disp && (h->base & 7) != EMIT_RBP;
    uint8_t mod = no_disp ? 0 : short_disp ? 0x40 : 0x80;
    if (h->index != EMIT_NONE || (h->base & 7) == EMIT_RSP) {
        emit8(e, (uint8_t)(mod | (c->reg & 7) << 3 | 4));
        emit8(e, (uint8_t)((h->index == EMIT_NONE ? 4 : h->index & 7) << 3 | (h->base & 7)));
    } else {
        emit8(e, (uint8_t)(mod | (c->reg & 7) << 3 | (h->base & 7)));
    }
    if (mod == 0x40)
        emit8(e, (uint8_t)h->disp);
    else if (mod == 0x80)
        emit32(e, (uint32_t)h->disp);
}

static bool is_is4(const struct x86_insn *xi)
{
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (is_vector(&xi->op[i]) && xi->op[i].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return true;
    return false;
}

static void put_immediates(struct emit *e, const struct trans_insn *in)
{
    const ZydisDecodedInstruction *insn = &in->xi.insn;
    unsigned first = insn->raw.imm[0].size ? insn->raw.imm[0].offset : 0;

    if (!first)
        return;
    emit_bytes(e, in->bytes + first, insn->length - first);
    /* A register in an immediate has three bits outside 64-bit mode, and the fourth is ignored. */
    if (is_is4(&in->xi) && insn->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && !e->full)
        e->p[-1] &= 0x7f;
}

static void put_code(struct emit *e, const struct trans_insn *in, const struct code *c)
{
    const ZydisDecodedInstruction *insn = &in->xi.insn;

    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        put_vex(e, &in->xi, c);
    else
        put_legacy(e, insn, c);
    put_modrm(e, c);
    put_immediates(e, in);
}

/* ---- without a memory operand ---- */

/* INC and DEC of 32-bit code whose opcode is a REX prefix in 64-bit mode. */
static bool is_short_incdec(const struct trans *t, const ZydisDecodedInstruction *insn)
{
    return !t->code64 && insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (insn->opcode & 0xf0) == 0x40;
}

static void put_registers_only(struct trans *t, const struct trans_insn *in)
{
    struct emit *e = &t->e;
    const ZydisDecodedInstruction *insn = &in->xi.insn;

    if (is_short_incdec(t, insn)) {
        put_kept_prefixes(e, insn);
        EMIT(e, 0xff, (uint8_t)(0xc0 | (insn->opcode & 15)));
        return;
    }
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !t->code64) {
        struct code c = {.reg = insn->raw.modrm.reg, .rm = insn->raw.modrm.rm, .vvvv = ~insn->raw.vex.vvvv & 7};
        put_code(e, in, &c);
        return;
    }
    uint8_t *at = e->p;
    emit_bytes(e, in->bytes, insn->length);
    if (insn->opcode != opcode(insn) && !e->full)
        at[insn->raw.prefix_count] = opcode(insn);
}

/* DIV: the host may change flags that stay as they are. */
static bool spoils_flags(const struct trans_insn *in)
{
    return !in->flags_changed && in->xi.insn.cpu_flags && in->xi.insn.cpu_flags->undefined;
}

/* A slow path for nothing but a trap. */
/* Does not come back here, where others may count on T1: what traps raises an exception, or nearly always. */
static struct trans_stub *trap_stub(struct trans *t, const struct trans_insn *in)
{
    struct trans_stub *stub = translate_slow(t, in, NULL);

    stub->live = t->flags == FLAGS_LIVE;
    return stub;
}

/* R10 and R11 are fetched into the host's of the same numbers. */
static bool recode_registers(struct trans *t, const struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    uint16_t used = 0, written = 0;

    if (spoils_flags(in))
        flags_keep(t);
    flags_need(t, in);
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        if (!is_gpr(op) || !trans_in_memory(register_number(op)))
            continue;
        used |= (uint16_t)(1u << register_number(op));
        if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            written |= (uint16_t)(1u << register_number(op));
    }
    for (unsigned r = BT_T0; r <= BT_T1; r++)
        if (used >> r & 1)
            trans_load(t, r, r);
    if (in->traps)
        translate_trap(t, trap_stub(t, in));
    put_registers_only(t, in);
    for (unsigned r = BT_T0; r <= BT_T1; r++)
        if (written >> r & 1)
            trans_store(t, r, r);
    if (in->flags_changed)
        flags_put(t);
    return true;
}

/* ---- LEA ---- */

static bool recode_lea(struct trans *t, const struct trans_insn *in)
{
    const struct x86_insn *xi = &in->xi;
    struct mem_operand mem;
    unsigned to = register_number(&xi->op[0]);

    if (!mem_operand(in, &xi->op[1], t->code64, &mem))
        return false;
    mem.fs = mem.gs = false;
    bool memory = trans_in_memory(to) || (mem.base != EMIT_NONE && trans_in_memory(mem.base)) ||
                  (mem.index != EMIT_NONE && trans_in_memory(mem.index));
    if (xi->insn.operand_width == 16)
        return false;
    if (mem.base == EMIT_NONE && mem.index == EMIT_NONE) {
        uint64_t addr = mem.addr32 ? (uint32_t)mem.disp : (uint64_t)mem.disp;
        addr = xi->insn.operand_width == 32 ? (uint32_t)addr : addr;
        mem_constant(t, trans_in_memory(to) ? BT_T0 : to, &mem, addr);
    } else if (memory) {
        mem.addr32 |= xi->insn.operand_width == 32;
        mem_address(t, &mem);
        if (!trans_in_memory(to))
            emit_rr(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, to);
    } else {
        bool narrow = mem.addr32 || xi->insn.operand_width == 32;
        emit_mem(&t->e, narrow ? EMIT_32 : EMIT_64, EMIT_LEA, to, mem.base, mem.index, mem.scale, (int32_t)mem.disp);
    }
    if (trans_in_memory(to))
        trans_store(t, BT_T0, to);
    return true;
}

/* ---- with one ---- */

/* ModRM.reg of the new encoding: a register operand, or the opcode's extension. */
static void find_fields(const struct trans_insn *in, struct code *c)
{
    const struct x86_insn *xi = &in->xi;

    c->reg = xi->insn.raw.modrm.reg;
    for (unsigned i = 0; i < xi->insn.operand_count; i++) {
        const ZydisDecodedOperand *op = &xi->op[i];
        if (!is_gpr(op) && !is_vector(op))
            continue;
        unsigned number = is_vector(op)                          ? (unsigned)ZydisRegisterGetId(op->reg.value)
                          : trans_in_memory(register_number(op)) ? BT_T0
                                                                 : register_number(op);
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            c->reg = number;
        else if (op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
            c->vvvv = number;
    }
}

/* XCHG rAL, rAH and so on: a byte register that no REX prefix can name changes places with one that it can. */
static void put_swap_bytes(struct trans *t, unsigned reg)
{
    EMIT(&t->e, 0x86, (uint8_t)(0xc0 | (reg + 4) << 3 | reg));
}

static void put_moffs(struct trans *t, const struct trans_insn *in, struct code *c)
{
    const ZydisDecodedInstruction *insn = &in->xi.insn;
    bool store = insn->opcode & 2, wide = insn->opcode & 1;

    put_kept_prefixes(&t->e, insn);
    emit8(&t->e, (uint8_t)(0x40 | insn->raw.rex.W << 3 | index_bit(c) << 1 | base_bit(c)));
    emit8(&t->e, (uint8_t)((store ? 0x88 : 0x8a) | wide));
    c->reg = EMIT_RAX;
    put_modrm(&t->e, c);
}

static bool is_moffs(const ZydisDecodedInstruction *insn)
{
    return insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           insn->opcode >= 0xa0 && insn->opcode <= 0xa3;
}

static bool recode_memory(struct trans *t, const struct trans_insn *in, const struct shape *s)
{
    const struct x86_insn *xi = &in->xi;
    struct mem_host host;
    struct code c = {0};
    unsigned high = high_byte(xi);

    if (!in->has_mem)
        return false;
    bool want_t0 = s->home || flags_needs(in);
    struct trans_stub *stub = mem_check(t, in, &in->mem, want_t0, &host);
    flags_need(t, in);
    if (s->home)
        trans_load(t, BT_T0, register_number(s->home));
    c.host = &host;
    find_fields(in, &c);
    if (high != EMIT_NONE) {
        put_swap_bytes(t, high);
        c.reg = high;
    }
    c.byte_rex = true;
    if (in->traps)
        translate_trap(t, stub ? stub : trap_stub(t, in));
    if (is_moffs(&xi->insn))
        put_moffs(t, in, &c);
    else
        put_code(&t->e, in, &c);
    if (high != EMIT_NONE)
        put_swap_bytes(t, high);
    if (s->home_written)
        trans_store(t, BT_T0, register_number(s->home));
    if (in->flags_changed)
        flags_put(t);
    translate_resume(t, stub);
    return true;
}

bool recode(struct trans *t, const struct trans_insn *in)
{
    struct shape s;

    if (recode_is_hint(in))
        return true;
    if (in->xi.insn.mnemonic == ZYDIS_MNEMONIC_LEA)
        return recode_lea(t, in);
    find_shape(&in->xi, &s);
    return s.mem ? recode_memory(t, in, &s) : recode_registers(t, in);
}
