/*
 * From guest bytes to a block: decodes straight-line code up to an unconditional jump, the page's end, a debugger's breakpoint or TRANSLATE_INSNS instructions; decides
 * for each how it is translated; finds out which flags are wanted where; then emits. Taken conditional jumps leave from the middle.
 *
 *     landing:    RIP is ours, else miss; is something due? -> poll
 *     body_live:  flags saved to memory, where the block wants them there
 *     body_saved: the instructions
 *     ...         stubs: slow paths, ways out that are not linked yet
 */
#include "engine/bt/translate.h"

#include <inttypes.h>

#include "engine/bt/cache.h"
#include "engine/bt/light.h"
#include "engine/interp/debugger.h"

#define ALU_CMP 7

/* ---- decoding ---- */

static uint32_t status_flags(uint32_t zydis)
{
    return zydis & X86_FLAGS_STATUS; /* Zydis numbers them as RFLAGS does */
}

/* AND, OR, XOR and TEST leave AF undefined in the manual; CPUs clear it. */
static bool is_logic(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_AND || mnemonic == ZYDIS_MNEMONIC_OR || mnemonic == ZYDIS_MNEMONIC_XOR ||
           mnemonic == ZYDIS_MNEMONIC_TEST;
}

/* By CL, zero leaves all flags alone. */
static bool shifts_by_register(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *op)
{
    if (insn->meta.category != ZYDIS_CATEGORY_SHIFT && insn->meta.category != ZYDIS_CATEGORY_ROTATE)
        return false;
    for (unsigned i = 1; i < insn->operand_count; i++)
        if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && op[i].reg.value == ZYDIS_REGISTER_CL)
            return true;
    return false;
}

static bool is_division(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_DIV || mnemonic == ZYDIS_MNEMONIC_IDIV;
}

static void find_flags(struct trans_insn *in)
{
    const ZydisDecodedInstruction *insn = &in->xi.insn;
    const ZydisAccessedFlags *f = insn->cpu_flags;

    if (!f || is_division(insn->mnemonic)) /* which leaves all undefined: they stay, as the interpreter has it */
        return;
    in->flags_read = status_flags(f->tested);
    in->flags_written = status_flags((f->modified | f->set_0 | f->set_1) & ~f->undefined);
    in->flags_changed = status_flags(f->modified | f->set_0 | f->set_1 | f->undefined);
    if (is_logic(insn->mnemonic))
        in->flags_written = X86_FLAGS_STATUS;
    else if (shifts_by_register(insn, in->xi.op) || insn->meta.category == ZYDIS_CATEGORY_SHIFT ||
             insn->meta.category == ZYDIS_CATEGORY_ROTATE)
        in->flags_written = 0; /* a count of zero, masked, changes nothing */
}

static bool has_memory(const struct x86_insn *xi)
{
    for (unsigned i = 0; i < xi->insn.operand_count; i++)
        if (xi->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && xi->op[i].mem.type == ZYDIS_MEMOP_TYPE_MEM)
            return true;
    return false;
}

/* What the interpreter makes of it. false: an opcode that does not exist on this guest's CPU, or is another one there than on the host's. */
static bool bind(const struct trans *t, const struct trans_insn *in, struct insn *bound)
{
    const struct interp *c = &t->bt->c;

    *bound = (struct insn){0};
    bind_insn(&c->engine->map, bound, &in->xi, c->conf.cpuid);
    return bound->fn != op_ud && !bind_is_scan(&in->xi, &c->conf.cpuid->feat);
}

/* DF is part of the mode, so what follows in the block would be of another one. */
static bool changes_df(const struct trans_insn *in)
{
    return in->xi.insn.mnemonic == ZYDIS_MNEMONIC_CLD || in->xi.insn.mnemonic == ZYDIS_MNEMONIC_STD;
}

static void classify(const struct trans *t, struct trans_insn *in)
{
    struct insn bound;

    in->faults = has_memory(&in->xi) && !recode_is_hint(in);
    in->ends = false;
    in->traps = is_division(in->xi.insn.mnemonic);
    in->x87 = false;
    in->aligned = in->xi.insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
    if (bind(t, in, &bound)) {
        find_flags(in);
        flow_classify(t, in);
        if (!in->emit)
            pushpop_classify(t, in);
        if (!in->emit)
            system_classify(t, in);
        if (!in->emit)
            entry_classify(t, in);
        if (!in->emit)
            recode_classify(t, in);
        if (!in->emit)
            simd_classify(t, in, &bound);
        if (!in->emit)
            x87_classify(t, in, &bound);
        if (in->emit == recode)
            recode_note(t, in);
    }
    if (!in->emit) {
        in->faults = true;
        in->ends = changes_df(in) ||
                   (bind_end(&in->xi) != BIND_CONTINUES && in->xi.insn.meta.category != ZYDIS_CATEGORY_STRINGOP);
    }
}

/* Returns false when the block's first instruction does not end within `left`. */
static bool decode(struct trans *t, const uint8_t *bytes, size_t left, unsigned max)
{
    const struct bt_block *block = t->block;
    size_t at = 0;
    bool ends = false;

    while (!ends && at < left && t->n < max) {
        struct trans_insn *in = &t->insn[t->n];
        size_t avail = left - at < X86_INSN_MAX ? left - at : X86_INSN_MAX;
        enum x86_decode result = x86_decode(&in->xi, t->code64 ? 8 : 4, false, bytes + at, avail);

        if (result == X86_DECODE_MORE || (t->n && debugger_breaks_in(&t->bt->c, block->rip + at, 1)))
            break;
        in->bytes = bytes + at;
        in->rip = block->rip + at;
        in->flags_read = in->flags_written = 0;
        in->flags_changed = false;
        in->emit = NULL;
        in->has_mem = in->keeps_t1 = false;
        in->group = (struct trans_group){0};
        in->ends = in->faults = true;
        in->traps = in->x87 = in->aligned = false;
        if (result == X86_DECODE_OK) {
            classify(t, in);
            at += in->xi.insn.length;
        } else {
            at += avail;
        }
        ends = in->ends;
        t->n++;
    }
    t->block->source_len = (uint16_t)at;
    return t->n > 0;
}

/* ---- registers that live in memory ---- */

void trans_load(struct trans *t, unsigned host, unsigned gpr)
{
    emit_abs(&t->e, EMIT_64, EMIT_MOV_LOAD, host, BT_ABS(t->bt, c.st.gpr[gpr]));
}

void trans_store(struct trans *t, unsigned host, unsigned gpr)
{
    emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, host, BT_ABS(t->bt, c.st.gpr[gpr]));
}

/* ---- what depends on the linear address ---- */

static void note(struct trans *t, unsigned kind, const uint8_t *at)
{
    if (t->n_relocs < RELOCS_MAX)
        t->reloc[t->n_relocs] = (uint16_t)(kind | (uint16_t)(at - t->e.start));
    t->n_relocs++;
}

void trans_linear(struct trans *t, unsigned reg, uint64_t lin)
{
    unsigned wide = t->e.n_wide;

    emit_mov_imm(&t->e, reg, lin);
    if (t->e.n_wide == wide)
        return;
    note(t, RELOC_LINEAR, t->e.p - 8);
    t->n_linear++;
}

void trans_slot(struct trans *t)
{
    note(t, RELOC_SLOT, t->e.p - 4);
}

/* ---- stubs ---- */

struct trans_stub *translate_slow(struct trans *t, const struct trans_insn *in, uint8_t *from)
{
    struct trans_stub *stub = &t->stub[t->n_stubs++];

    *stub = (struct trans_stub){.kind = STUB_SLOW, .from = {from}, .rip = in->rip, .x87 = t->x87};
    if (in->group.role == GROUP_LEADS) {
        const struct trans_insn *last = &t->insn[in->group.last];
        stub->group = (uint32_t)(last->rip + last->xi.insn.length - in->rip);
        t->group = stub;
    }
    return stub;
}

/* A group's slow path comes back behind its last member: put_body() sees to it. */
void translate_resume(struct trans *t, struct trans_stub *stub)
{
    if (stub && !stub->group)
        stub->resume = emit_here(&t->e);
}

void translate_trap(struct trans *t, struct trans_stub *stub)
{
    t->trap[t->n_traps++] = (struct trans_trap){emit_here(&t->e), stub};
    stub->trapped = true;
}

void translate_exit(struct trans *t, uint8_t *from, uint64_t target)
{
    struct trans_stub *stub = &t->stub[t->n_stubs++];
    const struct bt_block *block = t->block;
    uint32_t number;
    struct bt_link *link = cache_new_link(t->bt, t->block, &number);

    if (!link) {
        t->e.full = true;
        return;
    }
    link->at = (uint32_t)(from - t->e.start);
    link->n = (uint16_t)(t->at + 1);
    link->rip = target;
    link->live = t->flags == FLAGS_LIVE;
    link->same_page = (target ^ block->rip) < RAM_PAGE_SIZE || (block->crosses && (target ^ t->page2) < RAM_PAGE_SIZE);
    link->from_global = block->global;
    *stub = (struct trans_stub){.kind = STUB_EXIT, .from = {from}, .link = link, .link_number = number};
}

static bool fits16(ptrdiff_t v)
{
    return v == (int16_t)v;
}

/* The way of a check that has failed: light_access() decides. false: it cannot say in 16 bits where to go on. */
static bool put_access_stub(struct trans *t, struct trans_stub *stub)
{
    struct emit *e = &t->e;
    uint8_t *start = e->p, *data;

    if (!stub->lin)
        emit_mem(e, EMIT_64, EMIT_XOR_LOAD, BT_T0, BT_T1, EMIT_NONE, 0, stub->tag);
    EMIT(e, 0x4c, 0x8d, 0x1d, 5, 0, 0, 0); /* lea t1, [rip + 5]: behind the jump */
    data = e->p + 5;
    ptrdiff_t retry = stub->retry - (data + e->exec), resume = stub->resume ? stub->resume - (data + e->exec) : 0;
    if (!fits16(retry) || !fits16(resume)) {
        e->p = start;
        return false;
    }
    emit_jmp(e, t->bt->thunks.light_access);
    emit64(e, stub->rip);
    note(t, RELOC_LINEAR, e->p - 8);
    emit16(e, (uint16_t)retry);
    emit16(e, (uint16_t)resume);
    emit16(e, (uint16_t)stub->group);
    emit16(e, (uint16_t)(stub->light | (stub->x87 ? LIGHT_X87 : 0) | (stub->group && !stub->resume ? LIGHT_ENDS : 0)));
    return true;
}

static void put_slow_stub(struct trans *t, struct trans_stub *stub)
{
    struct emit *e = &t->e;
    const uint8_t *access = emit_here(e);

    if (stub->retry && put_access_stub(t, stub)) {
        emit_patch(e, stub->from[0], access);
        stub->from[0] = NULL;
        if (!stub->from[1] && !stub->from[2] && !stub->trapped)
            return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(stub->from); i++)
        if (stub->from[i])
            emit_patch(e, stub->from[i], emit_here(e));
    stub->at = emit_here(e);
    if (stub->live)
        flags_emit_save(e, t->bt);
    if (stub->group) {
        emit_abs(e, EMIT_32, 0xc7, 0, BT_ABS(t->bt, group));
        emit32(e, stub->group | (stub->resume ? 0 : BT_GROUP_ENDS));
    }
    if (stub->resume || stub->group) {
        const uint8_t *to = stub->resume ? stub->resume : emit_here(e);
        EMIT(e, 0x4c, 0x8d, 0x15); /* lea t0, [rip + to] */
        emit32(e, (uint32_t)(to - (emit_here(e) + 4)));
    } else {
        emit_rr(e, EMIT_32, 0x31, BT_T0, BT_T0);
    }
    trans_linear(t, BT_T1, stub->rip);
    emit_jmp(e, (stub->untranslated ? t->bt->thunks.untranslated : t->bt->thunks.slow)[stub->x87]);
}

static void put_exit_stub(struct trans *t, const struct trans_stub *stub)
{
    struct emit *e = &t->e;
    struct bt_link *link = stub->link;

    emit_patch(e, stub->from[0], emit_here(e));
    link->stub = (uint32_t)(e->p - e->start);
    if (link->live)
        flags_emit_save(e, t->bt);
    emit_mov_imm(e, BT_T0, stub->link_number);
    link->number = (uint32_t)(e->p - 4 - e->start);
    emit_jmp(e, t->bt->thunks.link);
    if (link->same_page && !cache_may_cross(link->rip))
        return;
    link->through = (uint32_t)(e->p - e->start);
    if (link->live)
        flags_emit_save(e, t->bt);
    trans_linear(t, BT_T0, link->rip);
    flow_jump_through(e, t->bt);
}

/* ---- emitting ---- */

/* What the block's first instructions do to the flags they are given decides where it wants them. */
static enum flags_at flags_at_entry(const struct trans *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (!t->insn[i].flags_wanted)
            return FLAGS_BOTH; /* nobody does */
        if (t->insn[i].faults || t->insn[i].traps)
            return FLAGS_SAVED;
        if (t->insn[i].flags_changed || t->insn[i].flags_read)
            return FLAGS_LIVE;
    }
    return FLAGS_LIVE;
}

void translate_count(struct trans *t, enum engine_translator_count which)
{
    if (t->bt->engine->profile)
        emit_abs(&t->e, EMIT_64, 0xff, 0, BT_ABS(t->bt, stats.count[which])); /* inc */
}

/* The same without touching flags; T0 is free. */
static void count_entry(struct trans *t)
{
    uint32_t count = BT_ABS(t->bt, stats.count[ENGINE_TRANSLATOR_ENTRIES]);

    if (!t->bt->engine->profile)
        return;
    emit_abs(&t->e, EMIT_64, EMIT_MOV_LOAD, BT_T0, count);
    emit_mem(&t->e, EMIT_64, EMIT_LEA, BT_T0, BT_T0, EMIT_NONE, 0, 1);
    emit_abs(&t->e, EMIT_64, EMIT_MOV_STORE, BT_T0, count);
}

static void put_entry(struct trans *t)
{
    struct emit *e = &t->e;
    struct bt_block *block = t->block;
    uint64_t rip = block->rip;
    uint8_t *jump;

    t->flags = flags_at_entry(t);
    block->landing = emit_here(e);
    translate_count(t, ENGINE_TRANSLATOR_JUMPS);
    if (rip == (uint64_t)(int32_t)rip) {
        emit_alu_imm(e, EMIT_64, ALU_CMP, BT_T0, (uint32_t)rip);
    } else {
        trans_linear(t, BT_T1, rip);
        emit_rr(e, EMIT_64, 0x39, BT_T1, BT_T0);
    }
    emit_jcc(e, EMIT_NE, t->bt->thunks.miss);
    emit_abs(e, EMIT_32, 0x83, 7, BT_ABS(t->bt, poll)); /* cmp [poll], 0 */
    emit8(e, 0);
    emit_jcc(e, EMIT_NE, t->bt->thunks.poll);
    if (t->flags == FLAGS_LIVE) {
        block->body_saved = emit_here(e);
        flags_emit_restore(e, t->bt);
        emit_align(e, 16);
        block->body_live = emit_here(e);
        count_entry(t);
        return;
    }
    jump = NULL;
    if (t->flags == FLAGS_SAVED) {
        jump = emit_jmp_later(e);
        block->body_live = emit_here(e);
        flags_emit_save(e, t->bt);
    }
    emit_align(e, 16);
    block->body_saved = emit_here(e);
    if (jump)
        emit_patch(e, jump, block->body_saved);
    else
        block->body_live = block->body_saved;
    count_entry(t);
}

/* The interpreter runs it, and goes on behind it or wherever it leads. */
static void put_interpreted(struct trans *t, const struct trans_insn *in)
{
    flags_keep(t);
    struct trans_stub *stub = translate_slow(t, in, emit_jmp_later(&t->e));
    stub->untranslated = true;
    if (!in->ends)
        translate_resume(t, stub);
    t->flags = FLAGS_BOTH;
}

static bool put_insn(struct trans *t, const struct trans_insn *in)
{
    uint8_t *before = t->e.p;
    unsigned wide = t->e.n_wide, far = t->e.n_far, relocs = t->n_relocs, linear = t->n_linear;

    if (in->emit && in->emit(t, in))
        return true;
    if (t->e.full)
        return false;
    if (in->keeps_t1) /* others count on it */
        bug_found(t->bt, NULL, "no code for the instruction at RIP %#" PRIx64 ", which was to have some", in->rip);
    t->e.n_wide = wide;
    t->e.n_far = far;
    t->n_relocs = relocs;
    t->n_linear = linear;
    t->e.p = before; /* an instruction that turns out to be another's emits nothing */
    put_interpreted(t, in);
    return !t->e.full;
}

/* Behind a group's last member that goes on, its slow path comes back. */
static void end_group(struct trans *t, const struct trans_insn *in)
{
    struct trans_stub *stub = t->group;

    if (!stub || stub->rip + stub->group != in->rip + in->xi.insn.length)
        return;
    if (!in->ends)
        stub->resume = emit_here(&t->e);
    t->group = NULL;
}

static bool put_body(struct trans *t)
{
    for (t->at = 0; t->at < t->n; t->at++) {
        const struct trans_insn *in = &t->insn[t->at];

        if (!put_insn(t, in))
            return false;
        end_group(t, in);
    }
    const struct trans_insn *last = &t->insn[--t->at];
    uint64_t next = last->rip + last->xi.insn.length;
    if (!last->ends)
        flow_exit(t, t->code64 ? next : (uint32_t)next);
    t->at++;
    return true;
}

/* Whether all is known that must change to have it at another linear address. */
static bool is_movable(const struct trans *t)
{
    return move_is_place(t->block->mode, t->block->rip) && t->e.n_wide == t->n_linear && t->e.n_far <= EMIT_FARS &&
           t->n_relocs + t->e.n_far <= RELOCS_MAX && (size_t)(t->e.p - t->e.start) < RELOC_SLOT;
}

/* What the block has to remember. false: no room. */
static bool keep(struct trans *t, const uint8_t *source)
{
    struct bt_block *block = t->block;
    uint8_t lengths[TRANSLATE_INSNS];
    struct bt_trap traps[TRANSLATE_INSNS];
    const uint8_t *start = t->e.start + t->e.exec;

    for (unsigned i = 0; i < t->n; i++)
        lengths[i] = t->insn[i].xi.insn.length;
    for (unsigned i = 0; i < t->n_traps; i++)
        traps[i] = (struct bt_trap){(uint32_t)(t->trap[i].at - start), (uint32_t)(t->trap[i].stub->at - start)};
    block->n = (uint16_t)t->n;
    block->n_traps = (uint16_t)t->n_traps;
    block->source = cache_keep(t->bt, source, block->source_len);
    block->lengths = cache_keep(t->bt, lengths, t->n);
    block->traps = (const void *)cache_keep(t->bt, (const uint8_t *)traps, t->n_traps * sizeof(*traps));
    if (is_movable(t)) {
        for (unsigned i = 0; i < t->e.n_far; i++)
            note(t, RELOC_FAR, t->e.start + t->e.far[i]);
        block->n_relocs = (uint16_t)t->n_relocs;
        block->relocs = (const void *)cache_keep(t->bt, (const uint8_t *)t->reloc, t->n_relocs * sizeof(*t->reloc));
        if (!block->relocs)
            return false;
    }
    return block->source && block->lengths && block->traps;
}

size_t translate(struct bt *bt, struct bt_block *block, const uint8_t *bytes, size_t avail, unsigned max, uint8_t *room,
                 size_t len)
{
    struct trans *t = bt->trans;

    t->bt = bt;
    t->block = block;
    t->code64 = bt->mode & BT_MODE_64;
    t->n = t->n_stubs = t->n_traps = t->n_relocs = t->n_linear = 0;
    t->x87 = false;
    t->page2 = align_down(block->rip, RAM_PAGE_SIZE) + RAM_PAGE_SIZE;
    if (!t->code64)
        t->page2 = (uint32_t)t->page2;
    emit_init(&t->e, room, len, jit_arena_exec(&bt->arena, room));
    if (!decode(t, bytes, avail, max))
        return 0;
    group_find(t);
    flags_analyse(t);
    put_entry(t);
    if (!put_body(t))
        return 0;
    for (unsigned i = 0; i < t->n_stubs; i++) {
        if (t->stub[i].kind == STUB_SLOW)
            put_slow_stub(t, &t->stub[i]);
        else
            put_exit_stub(t, &t->stub[i]);
    }
    if (!keep(t, bytes) || t->e.full)
        return 0;
    block->code = jit_arena_exec(&bt->arena, room);
    block->code_end = emit_here(&t->e);
    bt->stats.count[ENGINE_TRANSLATOR_GUEST_INSTRUCTIONS] += t->n;
    return (size_t)(t->e.p - t->e.start);
}
