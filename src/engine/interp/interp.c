/*
 * The reference engine's outside and its run loop: blocks of decoded instructions one after another, and between them a look at
 * what the rest of the machine wants.
 *
 * Threads: all for the vCPU's own thread, but interp_kick() (any) and the bus lock (shared by the vCPUs of an engine).
 */
#include "engine/interp/interp_engine.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "engine/interp/code.h"
#include "engine/interp/debugger.h"
#include "engine/interp/fault.h"
#include "engine/interp/mmu.h"
#include "engine/interp/vector.h"
#include "x86/msr.h"

#define VCPU_ALIGN 64

struct engine_vcpu {
    struct interp interp;
    void *memory; /* that it lies in */
};

/* ---- the bus lock ---- */

void interp_bus_lock(struct interp *c)
{
    while (pthread_mutex_trylock(&c->engine->bus_lock) != 0) {
        code_answer(c);
        sched_yield();
    }
    c->bus_locked = true;
}

void interp_bus_unlock(struct interp *c)
{
    c->bus_locked = false;
    pthread_mutex_unlock(&c->engine->bus_lock);
}

/* ---- running ---- */

static bool leave(struct interp *c, enum engine_exit exit)
{
    c->exit = exit;
    return true;
}

/* A halt on its way out is in the state, and shows when the vCPU runs again. */
static bool leave_to_debugger(struct interp *c)
{
    c->attention &= ~(uint32_t)ATTN_EXIT;
    debugger_report(c);
    return leave(c, ENGINE_DEBUG);
}

void interp_exit(struct interp *c, enum engine_exit_reason reason, uint64_t detail)
{
    const struct engine_trace *trace = c->engine->trace;

    c->conf.stats->exits[reason]++;
    if (UNLIKELY(trace != NULL) && trace->exit)
        trace->exit(trace->opaque, c->conf.index, reason, c->cur ? interp_rip(c, c->cur) : c->st.rip, detail);
}

static bool shutdown(struct interp *c)
{
    interp_exit(c, ENGINE_EXIT_SHUTDOWN, 0);
    return leave(c, ENGINE_SHUTDOWN);
}

static uint32_t wanted_pins(const struct x86_state *st)
{
    uint32_t pins = PIN_INIT | PIN_SIPI | PIN_KICK;

    if (!st->nmi_blocked)
        pins |= PIN_NMI;
    if (st->rflags & X86_FLAG_IF)
        pins |= PIN_INTR;
    return pins;
}

/* What was acknowledged goes to its handler. false: triple fault. */
static bool deliver(struct interp *c, uint8_t vector, bool nmi)
{
    const struct engine_trace *trace = c->engine->trace;
    uint64_t rip = c->st.rip;

    c->st.activity = X86_RUNNING;
    c->debugger.moved = true;
    bool ok = nmi ? fault_nmi(c) : fault_interrupt(c, vector);
    if (UNLIKELY(trace != NULL) && trace->interrupt)
        trace->interrupt(trace->opaque, c->conf.index, vector, rip, c->st.rip);
    return ok;
}

/* Delivers an NMI or an interrupt that is due (SDM Vol. 3A 6.7, 6.8). false: triple fault. */
static bool interrupt(struct interp *c, uint32_t pending)
{
    struct x86_state *st = &c->st;

    if (UNLIKELY(st->taken)) { /* by the engine that the state comes from, just before */
        uint8_t vector = (uint8_t)st->taken;
        st->taken = 0;
        return deliver(c, vector, false);
    }
    /* As on Intel's processors STI holds off an NMI as well: it must not come between STI and HLT (SDM Vol. 3C 25.3). */
    if (st->movss_shadow || st->sti_shadow || st->activity == X86_WAIT_SIPI)
        return true;
    if ((pending & PIN_NMI) && !st->nmi_blocked) {
        vcpu_port_take_nmi(c->conf.port);
        interp_exit(c, ENGINE_EXIT_NMI, X86_NMI);
        return deliver(c, X86_NMI, true);
    }
    if ((pending & PIN_INTR) && (st->rflags & X86_FLAG_IF)) {
        int vector = c->conf.port->apic_ops->ack(c->conf.port->apic);
        if (vector < 0)
            return true;
        interp_exit(c, ENGINE_EXIT_INTERRUPT, (uint64_t)vector);
        return deliver(c, (uint8_t)vector, false);
    }
    return true;
}

bool interp_attend(struct interp *c)
{
    uint32_t pending = atomic_load(&c->conf.port->pending);

    c->cur = NULL;
    code_written(c);
    if (atomic_load(&c->code_request))
        code_answer(c);
    c->attention &= ~(uint32_t)ATTN_RECHECK;
    if (UNLIKELY(debugger_done(c)) && !((c->attention & ATTN_EXIT) && c->exit != ENGINE_HALT))
        return leave_to_debugger(c);
    if (pending & (PIN_INIT | PIN_SIPI | PIN_KICK)) {
        interp_exit(c, ENGINE_EXIT_KICK, 0);
        return leave(c, ENGINE_KICKED);
    }
    if (!(debugger_steps(c) && c->st.activity == X86_RUNNING) && !interrupt(c, pending))
        return shutdown(c);
    if (c->st.activity != X86_RUNNING) {
        c->attention &= ~(uint32_t)ATTN_EXIT;
        return leave(c, ENGINE_HALT);
    }
    if (c->attention & ATTN_EXIT) {
        c->attention &= ~(uint32_t)ATTN_EXIT;
        if (c->exit != ENGINE_HALT) /* else an interrupt has just ended the halt */
            return true;
    }
    c->pin_mask = wanted_pins(&c->st);
    if (UNLIKELY(debugger_active(c)) && (debugger_done(c) || debugger_breaks(c)))
        return leave_to_debugger(c);
    return false;
}

/* Runs the first n instructions of the block at c->st.rip. */
static inline void run_block(struct interp *c, const struct code_block *block, uint64_t n)
{
    const struct insn *in = block->insn;

    c->block = block;
    c->block_rip = c->st.rip;
    c->end = in + n;
    c->n_insn += n;
    /* Instructions that branch write RIP; for the others it is set in advance. */
    c->st.rip += LIKELY(n == block->n) ? block->len : block->insn[n].off;
    do {
        c->cur = in;
        in->fn(c, in);
    } while (++in != c->end);
}

/* Where nothing but breakpoints and watched pages asks for single instructions, all before the next breakpoint run at once. */
static void run_to_breakpoint(struct interp *c)
{
    struct code_block *block = code_find(c);
    uint64_t n = debugger_room(c, block), left = c->stop_at - c->n_insn;

    c->attention &= ~(uint32_t)ATTN_STEP; /* a fault on the way derives it anew, as it ends */
    run_block(c, block, n < left ? n : left);
    c->cur = NULL;
    fault_update_step(c);
}

void interp_step(struct interp *c)
{
    struct code_block *block;

    c->cur = NULL;
    if (debugger_active(c) && !debugger_steps(c) && !fault_steps(c)) {
        run_to_breakpoint(c);
        return;
    }
    fault_step_begin(c);
    block = code_find(c);
    run_block(c, block, 1);
    c->cur = NULL;
    c->debugger.moved = true;
    fault_step(c);
}

void interp_block(struct interp *c, uint64_t limit)
{
    struct code_block *block = code_find(c);
    uint64_t n = UNLIKELY(debugger_active(c)) ? debugger_room(c, block) : block->n;

    run_block(c, block, n <= limit ? n : limit);
}

uint64_t interp_one(struct interp *c, uint64_t *counts)
{
    unsigned decode_max = c->decode_max;
    uint64_t rip = c->st.rip;

    c->decode_max = 1; /* what follows is no business of ours */
    struct code_block *block = code_find(c);
    c->decode_max = decode_max;
    counts[block->insn[0].mnemonic]++;
    uint64_t next = rip + block->insn[0].len;
    run_block(c, block, 1);
    c->cur = NULL;
    return next;
}

static void run_blocks(struct interp *c)
{
    struct code_block *block = NULL;

    for (;;) {
        if (UNLIKELY(c->n_insn >= c->stop_at)) {
            c->cur = NULL;
            c->exit = ENGINE_DEBUG;
            return;
        }
        uint32_t pending = atomic_load_explicit(&c->conf.port->pending, memory_order_relaxed) & c->pin_mask;
        if (UNLIKELY(c->attention | pending | atomic_load_explicit(&c->code_request, memory_order_relaxed))) {
            if (interp_attend(c))
                return;
            if (c->attention & ATTN_STEP) {
                interp_step(c);
                continue;
            }
            block = NULL;
        }
        block = block ? code_follow(c, block) : code_find(c);
        uint64_t left = interp_left(c);
        run_block(c, block, LIKELY(block->n <= left) ? block->n : left);
        if (!block->chains)
            block = NULL;
    }
}

void interp_limit(struct interp *c, uint64_t limit)
{
    c->one_block = limit == ENGINE_ONE_BLOCK;
    if (c->one_block)
        limit = 1;
    c->stop_at = limit ? c->n_insn + limit : UINT64_MAX;
}

bool interp_unwound(struct interp *c)
{
    if (c->bus_locked)
        interp_bus_unlock(c);
    if (c->cur) {
        c->n_insn -= (uint64_t)(c->end - c->cur);
        c->cur = NULL;
        c->debugger.met = NULL; /* what the instruction had read it will read again */
    }
    interp_not_here(c);
    c->debugger.moved = true;
    c->attention |= ATTN_RECHECK;
    if (fault_deliver(c))
        return true;
    shutdown(c);
    return false;
}

static enum engine_exit interp_run(struct engine_vcpu *vcpu, uint64_t limit)
{
    struct interp *c = &vcpu->interp;

    code_enter(c);
    c->attention |= ATTN_RECHECK;
    interp_limit(c, limit);
    c->cur = NULL;
    while (setjmp(c->unwind) != 0) {
        if (!interp_unwound(c))
            goto out;
    }
    run_blocks(c);
out:
    c->cur = NULL;
    code_written(c);
    code_leave(c);
    c->conf.stats->instructions = c->n_insn;
    return c->exit;
}

/* The run loop polls the port between blocks, so that a raised pin is seen without help. */
static void interp_kick(struct engine_vcpu *vcpu)
{
}

/* ---- life ---- */

static int interp_probe(uint64_t *rate, struct err *err)
{
    *rate = 0;
    return 0;
}

void interp_engine_fini(struct engine *engine)
{
    pthread_mutex_destroy(&engine->code_lock);
    pthread_mutex_destroy(&engine->bus_lock);
    free(engine->vcpus);
}

static void interp_close(struct engine *engine)
{
    interp_engine_fini(engine);
    free(engine);
}

int interp_engine_init(struct engine *engine, const struct engine_conf *conf, struct err *err)
{
    engine->vcpus = calloc(conf->n_vcpus, sizeof(*engine->vcpus));
    if (!engine->vcpus)
        return err_set(err, -ENOMEM, "engine: out of memory");
    engine->ram = conf->ram;
    engine->trace = conf->trace;
    engine->n_vcpus = conf->n_vcpus;
    bind_map_init(&engine->map);
    pthread_mutex_init(&engine->bus_lock, NULL);
    pthread_mutex_init(&engine->code_lock, NULL);
    return 0;
}

static int interp_open(struct engine **enginep, const struct engine_conf *conf, struct err *err)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    int ret;

    if (!engine)
        return err_set(err, -ENOMEM, "engine: out of memory");
    ret = interp_engine_init(engine, conf, err);
    if (ret < 0) {
        free(engine);
        return ret;
    }
    *enginep = engine;
    return 0;
}

static void enlist(struct engine *engine, unsigned index, struct interp *c)
{
    pthread_mutex_lock(&engine->code_lock);
    engine->vcpus[index] = c;
    pthread_mutex_unlock(&engine->code_lock);
}

int interp_vcpu_init(struct interp *c, struct engine *engine, const struct engine_vcpu_conf *conf, struct err *err)
{
    c->engine = engine;
    c->conf = *conf;
    c->decode_max = CODE_BLOCK_INSNS;
    mmu_init(c);
    if (code_open(c) < 0)
        return err_set(err, -ENOMEM, "vCPU %u: out of memory", conf->index);
    int ret = vector_open(&c->vector, err);
    if (ret < 0) {
        code_close(c);
        return ret;
    }
    x86_state_reset(&c->st, conf->index == 0);
    mmu_reset(c);
    enlist(engine, conf->index, c);
    return 0;
}

void interp_vcpu_fini(struct interp *c)
{
    enlist(c->engine, c->conf.index, NULL);
    vector_close(c->vector);
    code_close(c);
}

static int interp_vcpu_open(struct engine *engine, const struct engine_vcpu_conf *conf, struct engine_vcpu **vcpup,
                            struct err *err)
{
    /* Most of it is TLB: zeroed by the system, it takes memory as it fills. */
    uint8_t *memory = calloc(1, sizeof(struct engine_vcpu) + VCPU_ALIGN);
    struct engine_vcpu *vcpu;
    int ret;

    if (!memory)
        return err_set(err, -ENOMEM, "vCPU %u: out of memory", conf->index);
    vcpu = (struct engine_vcpu *)align_up((uintptr_t)memory, VCPU_ALIGN);
    vcpu->memory = memory;
    ret = interp_vcpu_init(&vcpu->interp, engine, conf, err);
    if (ret < 0) {
        free(vcpu->memory);
        return ret;
    }
    *vcpup = vcpu;
    return 0;
}

static void interp_vcpu_close(struct engine_vcpu *vcpu)
{
    interp_vcpu_fini(&vcpu->interp);
    free(vcpu->memory);
}

void interp_get_state(const struct interp *c, struct x86_state *st)
{
    *st = c->st;
    st->pending_debug = c->debug_hit;
}

void interp_set_state(struct interp *c, const struct x86_state *st)
{
    c->st = *st;
    c->st.fx.mxcsr &= VECTOR_MXCSR_VALID; /* the host loads it: a reserved bit would fault there */
    c->attention = 0;                     /* a halt on its way out is the old state's */
    mmu_reset(c);
    msr_state_set(&c->st, c->conf.port);
}

static void interp_get(struct engine_vcpu *vcpu, struct x86_state *st)
{
    interp_get_state(&vcpu->interp, st);
}

static void interp_set(struct engine_vcpu *vcpu, const struct x86_state *st)
{
    interp_set_state(&vcpu->interp, st);
}

void interp_debug(struct interp *c, struct engine_debug *debug)
{
    debugger_set(c, debug);
    mmu_flush_all(c); /* pages that are watched leave it */
    fault_update_step(c);
}

static void debug(struct engine_vcpu *vcpu, struct engine_debug *want)
{
    interp_debug(&vcpu->interp, want);
}

const struct engine_type interp_engine = {
    .name = "interp",
    .probe = interp_probe,
    .open = interp_open,
    .close = interp_close,
    .vcpu_open = interp_vcpu_open,
    .vcpu_close = interp_vcpu_close,
    .run = interp_run,
    .kick = interp_kick,
    .get = interp_get,
    .set = interp_set,
    .debug = debug,
};
