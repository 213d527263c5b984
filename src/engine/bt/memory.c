/*
 * Memory operands, soft: an inline lookup in the interpreter's software TLB (interp/mmu.h). Every access of generated code to guest memory is
 * emitted here, and each is checked: a page that the TLB does not allow, an access that leaves its page, or one that must be
 * aligned and is not, is interpreted.
 *
 *     lea   t0, [operand]
 *     mov   t1, t0 ; shr t1, 7 ; and t1, mask     the entry's offset
 *     add   t1, [table]                           unless the table is always the same
 *     xor   t0, [tlb + t1].tag                    the offset in the page, if it is this page's entry
 *     cmp   t0, 4096 - size ; ja slow
 *     mov   t1, [tlb + t1].addend
 *     op    [operand + t1]
 *
 * Where the entry is another page's, light_access() looks up the guest's page tables first, and the check is made again.
 */
#include "engine/bt/light.h"
#include "engine/bt/translate.h"

#define ENTRY_SHIFT 5 /* log2 of sizeof(struct tlb_entry) */
#define INDEX_MASK  ((TLB_SIZE - 1) << ENTRY_SHIFT)
#define ALU_AND     4
#define ALU_CMP     7

_Static_assert(sizeof(struct tlb_entry) == 1 << ENTRY_SHIFT, "the lookup scales by shifts");

/* ---- from Zydis ---- */

static uint8_t gpr_of(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_NONE ? EMIT_NONE : (uint8_t)ZydisRegisterGetId(reg);
}

bool mem_operand(const struct trans_insn *in, const ZydisDecodedOperand *op, bool code64, struct mem_operand *mem)
{
    const ZydisDecodedOperandMem *m = &op->mem;
    bool rip = m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP;

    if ((m->type != ZYDIS_MEMOP_TYPE_MEM && m->type != ZYDIS_MEMOP_TYPE_AGEN) || in->xi.insn.address_width < 32)
        return false;
    *mem = (struct mem_operand){
        .base = rip ? EMIT_NONE : gpr_of(m->base),
        .index = gpr_of(m->index),
        .scale = m->scale ? (uint8_t)__builtin_ctz(m->scale) : 0,
        .disp = m->disp.has_displacement ? m->disp.value : 0,
        .addr32 = in->xi.insn.address_width == 32,
        .fs = m->segment == ZYDIS_REGISTER_FS,
        .gs = m->segment == ZYDIS_REGISTER_GS,
        .size = (uint8_t)(op->size / 8),
        .write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
    };
    mem->rip = rip;
    if (rip)
        mem->disp += (int64_t)(in->rip + in->xi.insn.length);
    /* Outside 64-bit mode only the flat segments need no limit check, and CS is never written through. */
    if (!code64 && (mem->fs || mem->gs || m->segment == ZYDIS_REGISTER_CS))
        return false;
    return m->type == ZYDIS_MEMOP_TYPE_AGEN || (op->size >= 8 && op->size <= 256);
}

/* ---- addresses ---- */

static bool is_constant(const struct mem_operand *mem)
{
    return mem->base == EMIT_NONE && mem->index == EMIT_NONE && !mem->fs && !mem->gs && !mem->bit_string;
}

bool mem_is_plain(const struct mem_operand *mem)
{
    return !mem->addr32 && !mem->fs && !mem->gs && mem->index == EMIT_NONE && mem->base != EMIT_NONE &&
           !trans_in_memory(mem->base);
}

static uint64_t constant_address(const struct mem_operand *mem)
{
    return mem->addr32 ? (uint32_t)mem->disp : (uint64_t)mem->disp;
}

void mem_constant(struct trans *t, unsigned reg, const struct mem_operand *mem, uint64_t addr)
{
    if (mem->rip)
        trans_linear(t, reg, addr);
    else
        emit_mov_imm(&t->e, reg, addr);
}

void mem_address(struct trans *t, const struct mem_operand *mem)
{
    struct emit *e = &t->e;
    unsigned base = mem->base, index = mem->index;

    if (base == EMIT_NONE && index == EMIT_NONE) {
        mem_constant(t, BT_T0, mem, constant_address(mem));
    } else {
        if (index != EMIT_NONE && trans_in_memory(index)) {
            trans_load(t, BT_T1, index);
            index = BT_T1;
        }
        if (base != EMIT_NONE && trans_in_memory(base)) {
            trans_load(t, BT_T0, base);
            base = BT_T0;
        }
        emit_mem(e, mem->addr32 ? EMIT_32 : EMIT_64, EMIT_LEA, BT_T0, base, index, mem->scale, (int32_t)mem->disp);
    }
    if (mem->fs || mem->gs) {
        emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_ABS(t->bt, c.st.seg[mem->fs ? X86_FS : X86_GS].base));
        emit_mem(e, EMIT_64, EMIT_LEA, BT_T0, BT_T0, BT_T1, 0, 0);
    }
}

#define SHL 4
#define SAR 7

static void put_shift_t1(struct trans *t, unsigned op, uint8_t n)
{
    EMIT(&t->e, 0x49, 0xc1, (uint8_t)(0xc0 | op << 3 | (BT_T1 & 7)), n);
}

/* How many words the bit string's word is from the operand, into T1. */
static void put_bit_word(struct trans *t, const struct mem_operand *mem)
{
    unsigned load = mem->size == 4 ? EMIT_MOVSXD : EMIT_MOV_LOAD;

    if (trans_in_memory(mem->bits))
        emit_abs(&t->e, EMIT_64, load, BT_T1, BT_ABS(t->bt, c.st.gpr[mem->bits]));
    else
        emit_rr(&t->e, EMIT_64, load, BT_T1, mem->bits);
    put_shift_t1(t, SAR, mem->size == 4 ? 5 : 6);
}

/* The word that is accessed: added to the operand's address in T0. */
static void put_bit_address(struct trans *t, const struct mem_operand *mem)
{
    put_bit_word(t, mem);
    emit_mem(&t->e, EMIT_64, EMIT_LEA, BT_T0, BT_T0, BT_T1, mem->size == 4 ? 2 : 3, 0);
}

/* T0 + T1 is that word in the host's memory: the operand that the instruction counts from, into T1. */
static void put_bit_operand(struct trans *t, const struct mem_operand *mem)
{
    emit_mem(&t->e, EMIT_64, EMIT_LEA, BT_T0, BT_T0, BT_T1, 0, 0);
    put_bit_word(t, mem);
    put_shift_t1(t, SHL, mem->size == 4 ? 2 : 3);
    emit_rr(&t->e, EMIT_64, EMIT_SUB_STORE, BT_T1, BT_T0);
    emit_rr(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, BT_T1);
}

/* ---- the check ---- */

/*
 * Where the field of an entry is: from T1, after put_table() has added the table's address there; the table of supervisor accesses under
 * SMAP never changes, so that it needs no adding.
 */
static int32_t tlb_field(const struct trans *t, size_t field)
{
    uint32_t table = trans_mmu(t) == MMU_KERNEL_SMAP ? BT_ABS(t->bt, c.tlb_smap.entry[0]) : 0;
    return (int32_t)(table + field);
}

static void put_table(struct trans *t)
{
    if (trans_mmu(t) != MMU_KERNEL_SMAP)
        emit_abs(&t->e, EMIT_64, EMIT_ADD_LOAD, BT_T1, BT_ABS(t->bt, c.tlb[trans_mmu(t)]));
}

static size_t tag_field(const struct mem_operand *mem)
{
    return mem->write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read);
}

/* An operation with a field of an entry that is known; `moves`: with the address of the block. */
static void put_entry_field(struct trans *t, unsigned op, unsigned reg, unsigned table, int32_t at, bool moves)
{
    if (table == EMIT_NONE || !moves) {
        emit_mem(&t->e, EMIT_64, op, reg, table, EMIT_NONE, 0, at);
        return;
    }
    emit_mem_disp32(&t->e, EMIT_64, op, reg, table, at);
    trans_slot(t);
}

/* The slot is known, and whether the access leaves the page. */
static struct trans_stub *check_constant(struct trans *t, const struct trans_insn *in, const struct mem_operand *mem,
                                         struct mem_host *host)
{
    struct emit *e = &t->e;
    uint64_t addr = constant_address(mem), offset = addr & 0xfff;
    int32_t slot = (int32_t)(tlb_slot(addr) << ENTRY_SHIFT);
    const uint8_t *start = NULL;
    unsigned table = trans_mmu(t) == MMU_KERNEL_SMAP ? EMIT_NONE : BT_T1;
    uint8_t *jump;

    if (offset + mem->size > RAM_PAGE_SIZE || (mem->align && offset % mem->align)) {
        jump = emit_jmp_later(e);
    } else {
        start = emit_here(e);
        if (table != EMIT_NONE)
            emit_abs(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_ABS(t->bt, c.tlb[trans_mmu(t)]));
        mem_constant(t, BT_T0, mem, addr - offset);
        put_entry_field(t, EMIT_CMP_LOAD, BT_T0, table, slot + tlb_field(t, tag_field(mem)), mem->rip);
        jump = emit_jcc_later(e, EMIT_NE);
        put_entry_field(t, EMIT_MOV_LOAD, BT_T1, table, slot + tlb_field(t, offsetof(struct tlb_entry, addend)),
                        mem->rip);
    }
    *host = (struct mem_host){.base = BT_T0, .index = BT_T1, .disp = (int32_t)offset};
    struct trans_stub *stub = translate_slow(t, in, jump);
    stub->retry = start;
    stub->lin = true; /* of the page: enough to look it up */
    stub->light = mem->write ? LIGHT_WRITE : 0;
    return stub;
}

/* What light_access() needs to make the store itself. */
static uint16_t light_store(const struct trans_insn *in, const struct mem_operand *mem)
{
    const ZydisDecodedOperand *op = in->xi.op;

    if (in->xi.insn.mnemonic != ZYDIS_MNEMONIC_MOV || op[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        op[1].type != ZYDIS_OPERAND_TYPE_REGISTER || in->group.role != GROUP_NONE || mem->size > 8)
        return 0;
    ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op[1].reg.value);
    if (ZydisRegisterGetClass(full) != ZYDIS_REGCLASS_GPR64 ||
        (op[1].reg.value >= ZYDIS_REGISTER_AH && op[1].reg.value <= ZYDIS_REGISTER_BH))
        return 0;
    return (uint16_t)(LIGHT_STORE | __builtin_ctz(mem->size) << LIGHT_STORE_SIZE_SHIFT |
                      ZydisRegisterGetId(full) << LIGHT_STORE_REG_SHIFT | in->xi.insn.length << LIGHT_STORE_LEN_SHIFT);
}

struct trans_stub *mem_check(struct trans *t, const struct trans_insn *in, const struct mem_operand *mem, bool want_t0,
                             struct mem_host *host)
{
    struct emit *e = &t->e;
    const struct mem_operand *checked = mem;
    uint32_t range = mem->size;
    bool plain = mem_is_plain(mem);
    struct trans_stub *stub;
    struct mem_operand shared;

    if (in->group.role == GROUP_FOLLOWS) {
        *host = (struct mem_host){.base = mem->base, .index = BT_T1, .disp = (int32_t)mem->disp, .t0_free = true};
        return NULL;
    }
    if (in->group.role == GROUP_LEADS) {
        shared = *mem;
        shared.disp = in->group.low;
        shared.write = in->group.write;
        range = (uint32_t)(in->group.high - in->group.low);
        checked = &shared;
    }
    flags_keep(t);
    translate_count(t, ENGINE_TRANSLATOR_TLB_LOOKUPS);
    if (is_constant(mem)) {
        stub = check_constant(t, in, mem, host);
    } else {
        const uint8_t *start = emit_here(e);
        mem_address(t, checked);
        if (mem->bit_string)
            put_bit_address(t, mem);
        emit_rr(e, EMIT_32, EMIT_MOV_STORE, BT_T0, BT_T1);
        emit_shr(e, EMIT_32, BT_T1, RAM_PAGE_SHIFT - ENTRY_SHIFT);
        emit_alu_imm(e, EMIT_32, ALU_AND, BT_T1, INDEX_MASK);
        put_table(t);
        int32_t tag = tlb_field(t, tag_field(checked));
        emit_mem(e, EMIT_64, EMIT_XOR_LOAD, BT_T0, BT_T1, EMIT_NONE, 0, tag);
        emit_alu_imm(e, EMIT_64, ALU_CMP, BT_T0, (uint32_t)(RAM_PAGE_SIZE - range));
        stub = translate_slow(t, in, emit_jcc_later(e, EMIT_A));
        stub->retry = start;
        stub->tag = tag;
        stub->light = (uint16_t)(checked->write ? LIGHT_WRITE | light_store(in, mem) : 0);
        if (mem->align) {
            EMIT(e, 0x41, 0xf6, 0xc0 | (BT_T0 & 7), (uint8_t)(mem->align - 1)); /* test t0b, align - 1 */
            stub->from[1] = emit_jcc_later(e, EMIT_NE);
        }
        if (!plain)
            emit_mem(e, EMIT_64, EMIT_XOR_LOAD, BT_T0, BT_T1, EMIT_NONE, 0, tag);
        emit_mem(e, EMIT_64, EMIT_MOV_LOAD, BT_T1, BT_T1, EMIT_NONE, 0,
                 tlb_field(t, offsetof(struct tlb_entry, addend)));
        *host = plain
                    ? (struct mem_host){.base = mem->base, .index = BT_T1, .disp = (int32_t)mem->disp, .t0_free = true}
                    : (struct mem_host){.base = BT_T0, .index = BT_T1};
        if (mem->bit_string && !plain) {
            put_bit_operand(t, mem);
            *host = (struct mem_host){.base = BT_T1, .index = EMIT_NONE, .t0_free = true};
        }
    }
    if (want_t0 && !host->t0_free) {
        emit_mem(e, EMIT_64, EMIT_LEA, BT_T1, BT_T0, BT_T1, 0, host->disp);
        *host = (struct mem_host){.base = BT_T1, .index = EMIT_NONE, .t0_free = true};
    }
    return stub;
}
