/*
 * The translator's outside and its run loop: finds the block for RIP, runs generated code until it leaves, does what it left for.
 *
 * Threads: all for the vCPU's own thread, but bt_kick() and the hook on written pages (any).
 */
#include "engine/bt/bt_engine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/loop.h"
#include "engine/bt/cache.h"
#include "engine/bt/translate.h"
#include "engine/interp/code.h"
#include "engine/interp/debugger.h"
#include "engine/interp/fault.h"
#include "engine/interp/mmu.h"
#include "engine/interp/seg.h"
#include "engine/interp/vector.h"

/* Generated code of a vCPU by default. */
#define CACHE_RAM_SHARE 24
#define CACHE_SMALL     (16 * MIB)
#define CACHE_LARGE     (192 * MIB)
#define CACHE_SHARES    4
#define CACHE_LEAST     (8 * MIB)

#define STRADDLES_MAX 32
#define SLOW_SAMPLE   64
#define CACHE_MOST    (1 * GIB) /* of one vCPU: jumps have 32-bit displacements */

struct engine_vcpu {
    struct bt bt;
};

/* ---- being told ---- */

static void kick(struct bt *bt)
{
    atomic_store(&bt->poll, 1);
    signal_kick(bt);
}

static void bt_kick(struct engine_vcpu *vcpu)
{
    kick(&vcpu->bt);
}

static void on_request(struct interp *c)
{
    kick(bt_of(c));
}

/* Any thread: the page's code version has moved. */
static void on_code_written(void *opaque, uint64_t page, uint64_t granules)
{
    struct bt_engine *engine = opaque;
    uint16_t holders = atomic_load(&engine->holders[page]);

    while (holders) {
        unsigned i = (unsigned)__builtin_ctz(holders);
        struct bt *bt = engine->vcpus[i];
        holders &= (uint16_t)(holders - 1);
        if (!bt)
            continue;
        cache_page_written(bt, page, granules);
        if (!bt->thread_known || !pthread_equal(bt->thread, pthread_self()))
            kick(bt);
    }
}

/* The interpreter's part is opened first, and flushes its TLB then. */
static void on_tlb_flushed(struct interp *c)
{
    if (bt_of(c)->jump)
        jump_flush(bt_of(c));
}

static void on_tlb_space_flushed(struct interp *c, unsigned space)
{
    if (bt_of(c)->jump)
        jump_flush_space(bt_of(c), space);
}

static void on_tlb_space_switched(struct interp *c)
{
    if (bt_of(c)->jump)
        jump_switch_space(bt_of(c));
}

static void on_tlb_page_flushed(struct interp *c, uint64_t lin, bool maybe_large)
{
    jump_flush_page(bt_of(c), lin, maybe_large);
}

static const struct interp_hooks hooks = {
    .tlb_flushed = on_tlb_flushed,
    .tlb_space_flushed = on_tlb_space_flushed,
    .tlb_space_switched = on_tlb_space_switched,
    .tlb_page_flushed = on_tlb_page_flushed,
    .x87_wanted = x87_save,
    .requested = on_request,
    .breaks = true,
};

/* ---- running ---- */

static bool is_due(const struct bt *bt)
{
    const struct interp *c = &bt->c;
    uint32_t pending = atomic_load_explicit(&c->conf.port->pending, memory_order_relaxed) & c->pin_mask;

    return c->attention | pending | atomic_load_explicit(&c->code_request, memory_order_relaxed);
}

/* Runs generated code until it leaves. */
static void enter(struct bt *bt, const uint8_t *code)
{
    bt->target = code;
    atomic_store(&bt->in_guest, true);
    if (LIKELY(!atomic_load(&bt->poll)))
        thunk_run(bt);
    else
        bt->leave = BT_LEAVE_NONE;
    atomic_store_explicit(&bt->in_guest, false, memory_order_release);
}

/* The counted block has run up to the instruction at RIP, not included. */
static void count_to(struct bt *bt, uint64_t rip)
{
    const struct bt_block *block = bt->counted;
    uint64_t at = block->rip;
    uint16_t n = 0;

    for (; at < rip && n < block->n; n++)
        at += block->lengths[n];
    if (at != rip)
        bug_found(bt, block, "left at RIP %#" PRIx64 ", where no instruction of the block begins", rip);
    bt->c.n_insn += n;
}

/* A shared check has failed since its range lies across two pages. Where that happens often, checks are no longer shared. */
static void note_straddle(struct bt *bt, uint64_t rip, uintptr_t pc)
{
    struct bt_block *block = bt->group_straddles ? cache_at(bt, pc) : NULL;

    if (!block)
        return;
    unsigned slot = group_solo_slot(block, rip);
    if (++bt->straddles[slot] < STRADDLES_MAX)
        return;
    bt->straddles[slot] = 0;
    bt->solo[slot] = true;
    cache_drop(bt, block);
}

/* One instruction by the interpreter; one in SLOW_SAMPLE has its time taken, and stands for the others. */
static uint64_t interpret_one(struct bt *bt, enum engine_interpreted why)
{
    struct interp *c = &bt->c;
    uint64_t *ns = &bt->stats.count[ENGINE_TRANSLATOR_INTERPRETER_NS], next;

    if (bt->stats.count[ENGINE_TRANSLATOR_SLOW_PATHS] % SLOW_SAMPLE)
        return interp_one(c, bt->stats.mnemonics[why]);
    int64_t before = loop_now(), device = c->conf.stats->device_ns;
    next = interp_one(c, bt->stats.mnemonics[why]);
    int64_t took = loop_now() - before;
    if (device == c->conf.stats->device_ns)
        *ns += (uint64_t)took * SLOW_SAMPLE;
    return next;
}

/*
 * The slow path: interprets the instruction at RIP, or the group that begins with it. Returns the host address to go on at, or NULL: find the
 * block for the new RIP. With x87, leaves those registers in the host's.
 */
static const uint8_t *slow(struct bt *bt, enum engine_interpreted why, bool x87)
{
    struct interp *c = &bt->c;
    const uint8_t *resume = (const uint8_t *)(uintptr_t)bt->arg0;
    uint64_t next, end = bt->arg1 + (bt->group & ~BT_GROUP_ENDS);
    bool group = bt->group, ends = bt->group & BT_GROUP_ENDS;

    bt->stats.count[ENGINE_TRANSLATOR_SLOW_PATHS]++;
    bt->group = 0;
    bt->dropped = false;
    if (group)
        note_straddle(bt, bt->arg1, (uintptr_t)resume);
    bt->group_straddles = false;
    if (bt->counted)
        count_to(bt, bt->arg1);
    c->st.rip = bt->arg1;
    if (resume && !jit_arena_holds(&bt->arena, bt->arg0))
        bug_found(bt, NULL, "to go on at host address %#" PRIx64 ", outside translated code", bt->arg0);
    do {
        next = interpret_one(bt, why);
        if (x87 && !c->x87_away)
            x87_load(bt);
        cache_check_pages(bt);
        if (c->st.rip != next || is_due(bt) || bt->dropped || bt->counted)
            return NULL;
    } while (group && next != end);
    return ends ? NULL : resume;
}

/* Where an indirect jump went, if that is an address; else RIP and RSP are those before it, and the interpreter shall fault. */
static bool arrive(struct bt *bt)
{
    struct interp *c = &bt->c;

    bt->stats.count[ENGINE_TRANSLATOR_JUMP_MISSES]++;
    if (bt->counted)
        c->n_insn += bt->counted->n;
    c->st.rip = bt->arg0;
    if (seg_canonical(c->st.rip))
        return true;
    c->st.rip = bt->indirect_rip;
    c->st.gpr[X86_RSP] = bt->indirect_rsp;
    interp_one(c, bt->stats.mnemonics[ENGINE_SLOW]);
    return false;
}

/* What the jump led to is known by now: joins them, unless they are gone. */
static void join(struct bt *bt, uint32_t number, struct bt_block *to, uint64_t evictions)
{
    if (evictions != bt->stats.count[ENGINE_TRANSLATOR_EVICTED] || bt->counted)
        return;
    struct bt_link *link = cache_link(bt, number);
    if (link->from->dead || link->rip != to->rip) /* or it was moved by now */
        return;
    cache_join(bt, link, to);
    if (link->from->unhooked)
        cache_rehook(bt, link->from);
}

/* Generated code has left: where it shall go on, or NULL when the run loop is to look. */
static const uint8_t *answer(struct bt *bt)
{
    struct interp *c = &bt->c;
    uint32_t number = (uint32_t)bt->arg0;
    uint64_t evictions = bt->stats.count[ENGINE_TRANSLATOR_EVICTED];
    struct bt_block *block;

    jump_select(bt); /* generated code may have entered a mode that has no table yet */
    switch ((enum bt_leave)bt->leave) {
    case BT_LEAVE_UNTRANSLATED:
        return slow(bt, ENGINE_UNTRANSLATED, false);
    case BT_LEAVE_SLOW:
        return slow(bt, ENGINE_SLOW, false);
    case BT_LEAVE_UNTRANSLATED_X87:
        return slow(bt, ENGINE_UNTRANSLATED, true);
    case BT_LEAVE_SLOW_X87:
        return slow(bt, ENGINE_SLOW, true);
    case BT_LEAVE_MISS:
        if (!arrive(bt) || is_due(bt) || bt->counted)
            return NULL;
        block = cache_find(bt, c->st.rip);
        if (block)
            jump_enter(bt, block);
        return block ? block->body_saved : NULL;
    case BT_LEAVE_LINK:
        bt->stats.count[ENGINE_TRANSLATOR_LINKS]++;
        c->st.rip = cache_link(bt, number)->rip;
        if (bt->counted)
            c->n_insn += cache_link(bt, number)->n;
        if (is_due(bt) || bt->counted)
            return NULL;
        block = cache_find(bt, c->st.rip);
        if (block)
            join(bt, number, block, evictions);
        return block ? block->body_saved : NULL;
    case BT_LEAVE_POLL:
        bt->stats.count[ENGINE_TRANSLATOR_POLLS]++;
        c->st.rip = bt->arg0;
        return NULL;
    case BT_LEAVE_TRAP:
        bug_trapped(bt);
    case BT_LEAVE_NONE:
        return NULL;
    }
    bug_found(bt, NULL, "generated code was left for reason %u, which there is none of", bt->leave);
}

/* Code that is not translated: 16-bit, outside RAM, up to a limit of instructions, or too rare for a small cache. */
static void interpret(struct bt *bt)
{
    struct interp *c = &bt->c;
    uint64_t before = c->n_insn;
    int64_t begin = loop_now(), device = c->conf.stats->device_ns;

    interp_block(c, interp_left(c));
    bt->stats.count[ENGINE_TRANSLATOR_INTERPRETED] += c->n_insn - before;
    if (device != c->conf.stats->device_ns)
        return;
    int64_t took = loop_now() - begin;
    heat_interpreted(bt, took);
    bt->stats.count[ENGINE_TRANSLATOR_INTERPRETER_NS] += (uint64_t)took;
}

/* No block begins at a debugger's breakpoint, and none goes on over it, so that RIP gets here. */
static bool is_at_breakpoint(const struct interp *c)
{
    return debugger_breaks_in(c, interp_linear_rip(c), 1);
}

/* From one look at what is due to the next. true: leave run(). */
static bool run_some(struct bt *bt)
{
    struct interp *c = &bt->c;
    struct bt_block *block = NULL;

    c->cur = NULL;
    if (c->n_insn >= c->stop_at) {
        c->exit = ENGINE_DEBUG;
        return true;
    }
    if (atomic_load(&bt->poll))
        atomic_store(&bt->poll, 0); /* before looking at what is due */
    if ((is_due(bt) || is_at_breakpoint(c)) && interp_attend(c))
        return true;
    if (c->attention & ATTN_STEP) {
        interp_step(c);
        return false;
    }
    cache_check_pages(bt);
    bt->mode = mode_now(bt);
    if (bt->mode != BT_MODE_NONE) {
        bt->mode |= c->stop_at == UINT64_MAX ? 0 : BT_MODE_COUNTED;
        jump_select(bt);
        block = cache_find(bt, c->st.rip);
    }
    if (!block || block->n > interp_left(c)) {
        interpret(bt);
        return false;
    }
    bt->counted = bt->mode & BT_MODE_COUNTED ? block : NULL;
    for (const uint8_t *code = block->body_saved; code; code = answer(bt))
        enter(bt, code);
    return false;
}

/* The most frequent of the instructions that were interpreted, for the statistics. */
static void rank(const uint64_t counts[], struct engine_count top[ENGINE_N_COUNTS])
{
    memset(top, 0, ENGINE_N_COUNTS * sizeof(*top));
    for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++) {
        unsigned at = ENGINE_N_COUNTS;
        while (at && counts[i] > top[at - 1].n)
            at--;
        if (at == ENGINE_N_COUNTS)
            continue;
        memmove(top + at + 1, top + at, (ENGINE_N_COUNTS - at - 1) * sizeof(*top));
        top[at] = (struct engine_count){ZydisMnemonicGetString((ZydisMnemonic)i), counts[i]};
    }
}

static enum engine_exit bt_run(struct engine_vcpu *vcpu, uint64_t limit)
{
    struct bt *bt = &vcpu->bt;
    struct interp *c = &bt->c;

    if (bt->failed)
        return ENGINE_FAIL;
    int ret = signal_thread(bt);
    if (ret < 0) {
        log_error("CPU %u: translator: no stack for signals: %s", c->conf.index, strerror(-ret));
        return ENGINE_FAIL;
    }
    bt->thread = pthread_self();
    bt->thread_known = true;
    code_enter(c);
    c->attention |= ATTN_RECHECK;
    interp_limit(c, limit);
    c->cur = NULL;
    while (setjmp(c->unwind) != 0) {
        if (bt->failed || !interp_unwound(c))
            goto out;
    }
    while (!run_some(bt))
        ;
out:
    signal_thread_done();
    vector_x87_fetch(c, true);
    c->cur = NULL;
    code_written(c);
    code_leave(c);
    c->conf.stats->instructions = c->n_insn;
    memcpy(c->conf.stats->translator, bt->stats.count, sizeof(bt->stats.count));
    if (c->exit != ENGINE_HALT && !limit) /* which come often, and are soon over */
        for (unsigned i = 0; i < ENGINE_N_INTERPRETED; i++)
            rank(bt->stats.mnemonics[i], c->conf.stats->interpreted[i]);
    return c->exit;
}

/* ---- life ---- */

static int bt_probe(uint64_t *rate, struct err *err)
{
    *rate = 0;
    return 0;
}

static void bt_close(struct engine *e)
{
    struct bt_engine *engine = (struct bt_engine *)e;

    engine->engine.ram->code_written = NULL;
    munmap((void *)engine->holders, engine->n_pages * sizeof(*engine->holders));
    interp_engine_fini(e);
    free(engine->vcpus);
    free(engine);
}

/*
 * Unless it was asked for: in proportion to what the guest may run. A cache that is too small costs more than one that is large, which is
 * backed as it fills; each vCPU has its own, so that many share what four would have.
 */
static uint64_t default_cache(const struct engine_conf *conf)
{
    uint64_t size = conf->ram->size / CACHE_RAM_SHARE;

    size = size < CACHE_SMALL ? CACHE_SMALL : size > CACHE_LARGE ? CACHE_LARGE : size;
    if (conf->n_vcpus > CACHE_SHARES)
        size = size * CACHE_SHARES / conf->n_vcpus;
    return size < CACHE_LEAST ? CACHE_LEAST : size;
}

static uint64_t vcpu_cache_size(const struct engine_conf *conf)
{
    uint64_t size = conf->code_cache ? conf->code_cache / conf->n_vcpus : default_cache(conf);

    return align_down(size < CACHE_MOST ? size : CACHE_MOST, RAM_PAGE_SIZE);
}

static int bt_open(struct engine **enginep, const struct engine_conf *conf, struct err *err)
{
    struct bt_engine *engine = calloc(1, sizeof(*engine));
    struct ram *ram = conf->ram;
    int ret = -ENOMEM;

    if (!engine)
        return err_set(err, -ENOMEM, "engine: out of memory");
    engine->vcpu_cache_size = vcpu_cache_size(conf);
    engine->profile = conf->profile;
    engine->n_pages = ram->size >> RAM_PAGE_SHIFT;
    engine->vcpus = calloc(conf->n_vcpus, sizeof(struct bt *));
    engine->holders = mmap(NULL, engine->n_pages * sizeof(*engine->holders), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!engine->vcpus || engine->holders == MAP_FAILED) {
        err_set(err, ret, "engine: out of memory");
        goto fail;
    }
    ret = signal_open(err);
    if (ret == 0)
        ret = trap_open(err);
    if (ret < 0)
        goto fail;
    ret = interp_engine_init(&engine->engine, conf, err);
    if (ret < 0)
        goto fail;
    ram->code_opaque = engine;
    ram->code_written = on_code_written;
    *enginep = &engine->engine;
    return 0;

fail:
    if (engine->holders != MAP_FAILED)
        munmap((void *)engine->holders, engine->n_pages * sizeof(*engine->holders));
    free(engine->vcpus);
    free(engine);
    return ret;
}

/* Below 2 GiB, for the absolute addresses of generated code. */
static struct engine_vcpu *allocate(void)
{
    void *p =
        mmap(NULL, sizeof(struct engine_vcpu), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int open_translator(struct bt *bt, struct err *err)
{
    uint64_t size = bt->engine->vcpu_cache_size;
    int ret;

    bt->has_avx = bt->c.conf.cpuid->feat.avx;
    bt->host_mxcsr = VECTOR_MXCSR_DEFAULT;
    bt->trans = calloc(1, sizeof(*bt->trans));
    if (!bt->trans)
        return err_set(err, -ENOMEM, "translator: out of memory");
    ret = jit_arena_open(&bt->arena, size, err);
    if (ret < 0)
        goto free_trans;
    ret = thunk_open(bt);
    if (ret < 0) {
        err_set(err, ret, "code cache of %zu bytes: too small", (size_t)size);
        goto close_arena;
    }
    thunk_trace(bt);
    ret = cache_open(bt, err);
    if (ret < 0)
        goto close_arena;
    ret = jump_open(bt, err);
    if (ret < 0)
        goto close_cache;
    return 0;

close_cache:
    cache_close(bt);
close_arena:
    jit_arena_close(&bt->arena);
free_trans:
    free(bt->trans);
    return ret;
}

static int bt_vcpu_open(struct engine *engine, const struct engine_vcpu_conf *conf, struct engine_vcpu **vcpup,
                        struct err *err)
{
    struct engine_vcpu *vcpu = allocate();
    int ret;

    if (!vcpu)
        return err_set(err, -ENOMEM, "vCPU %u: no memory below 2 GiB for the translator", conf->index);
    struct bt *bt = &vcpu->bt;
    bt->engine = (struct bt_engine *)engine;
    bt->c.hooks = &hooks;
    ret = interp_vcpu_init(&bt->c, engine, conf, err);
    if (ret < 0)
        goto unmap;
    ret = open_translator(bt, err);
    if (ret < 0)
        goto fini_interp;
    bt->engine->vcpus[conf->index] = bt;
    *vcpup = vcpu;
    return 0;

fini_interp:
    interp_vcpu_fini(&bt->c);
unmap:
    munmap(vcpu, sizeof(*vcpu));
    return ret;
}

static void bt_vcpu_close(struct engine_vcpu *vcpu)
{
    struct bt *bt = &vcpu->bt;

    bt->engine->vcpus[bt->c.conf.index] = NULL;
    jump_close(bt);
    cache_close(bt);
    jit_arena_close(&bt->arena);
    free(bt->trans);
    interp_vcpu_fini(&bt->c);
    munmap(vcpu, sizeof(*vcpu));
}

static void bt_get(struct engine_vcpu *vcpu, struct x86_state *st)
{
    interp_get_state(&vcpu->bt.c, st);
}

static void bt_set(struct engine_vcpu *vcpu, const struct x86_state *st)
{
    interp_set_state(&vcpu->bt.c, st);
}

static size_t bt_host_code(struct engine_vcpu *vcpu, uint64_t lin, const uint8_t **code)
{
    const struct bt_block *block = cache_newest(&vcpu->bt, lin);

    *code = block ? block->code : NULL;
    return block ? (size_t)(block->code_end - block->code) : 0;
}

static void bt_debug(struct engine_vcpu *vcpu, struct engine_debug *debug)
{
    interp_debug(&vcpu->bt.c, debug);
    cache_break(&vcpu->bt);
}

const struct engine_type bt_engine = {
    .name = "bt",
    .probe = bt_probe,
    .open = bt_open,
    .close = bt_close,
    .vcpu_open = bt_vcpu_open,
    .vcpu_close = bt_vcpu_close,
    .run = bt_run,
    .kick = bt_kick,
    .get = bt_get,
    .set = bt_set,
    .debug = bt_debug,
    .host_code = bt_host_code,
};
