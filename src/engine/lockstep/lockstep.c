/* The lockstep engine's outside: opens the two sides, runs them a step at a time, and brings them together where they are apart. */
#include "engine/lockstep/lockstep_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Pins that the vCPU's thread answers, not an engine. */
#define THREAD_PINS (PIN_INIT | PIN_SIPI | PIN_KICK)

/* ---- pins ---- */

/* The machine's NMIs become the leader's. Any thread. */
static void take_nmis(struct engine_vcpu *vcpu)
{
    while (atomic_load(&vcpu->conf.port->pending) & PIN_NMI) {
        vcpu_port_take_nmi(vcpu->conf.port);
        vcpu_port_count_nmi(&vcpu->side[LEADER].port);
    }
}

/* An NMI or an interrupt that either side will take before its next instruction, and nothing else: no side sees a pin later. */
static void offer_pins(struct engine_vcpu *vcpu)
{
    struct vcpu_port *leader = &vcpu->side[LEADER].port, *follower = &vcpu->side[FOLLOWER].port;
    const struct x86_state *st = &vcpu->side[LEADER].st;
    uint32_t pins = 0;

    take_nmis(vcpu);
    if (!st->sti_shadow && !st->movss_shadow) {
        if (atomic_load(&leader->nmis) && !st->nmi_blocked)
            pins = PIN_NMI;
        else if (st->rflags & X86_FLAG_IF)
            pins = atomic_load(&vcpu->conf.port->pending) & PIN_INTR;
    }
    atomic_store(&leader->pending, pins);
    atomic_store(&follower->pending, pins);
    atomic_store(&follower->nmis, atomic_load(&leader->nmis));
}

static void lockstep_kick(struct engine_vcpu *vcpu)
{
    struct side *leader = &vcpu->side[LEADER];

    if (!atomic_load(&vcpu->alone))
        return; /* steps are short */
    take_nmis(vcpu);
    uint32_t pins = atomic_load(&vcpu->conf.port->pending) | (atomic_load(&leader->port.nmis) ? PIN_NMI : 0);
    atomic_fetch_or(&leader->port.pending, pins);
    leader->type->kick(leader->inner);
}

/* ---- the leader alone ---- */

/* The loop's thread: it is time to begin. */
static void on_from(void *opaque)
{
    struct engine_vcpu *vcpu = opaque;
    struct side *leader = &vcpu->side[LEADER];

    atomic_store(&vcpu->alone, false);
    atomic_fetch_or(&leader->port.pending, PIN_KICK);
    leader->type->kick(leader->inner);
}

static enum engine_exit run_alone(struct engine_vcpu *vcpu, uint64_t limit)
{
    struct side *leader = &vcpu->side[LEADER];

    atomic_store(&vcpu->clock.offset, atomic_load(&vcpu->conf.clock->offset));
    atomic_store(&vcpu->clock.stopped, atomic_load(&vcpu->conf.clock->stopped));
    lockstep_kick(vcpu);
    enum engine_exit exit = leader->type->run(leader->inner, limit);
    atomic_fetch_and(&leader->port.pending, ~(uint32_t)THREAD_PINS);
    return exit;
}

/* ---- steps ---- */

/* Gives the follower all that the leader has. Setting the leader's state too empties what it caches of the guest's page tables. */
static void bring_together(struct engine_vcpu *vcpu)
{
    struct side *leader = &vcpu->side[LEADER], *follower = &vcpu->side[FOLLOWER];

    leader->type->get(leader->inner, &leader->st);
    atomic_store(&follower->port.tsc_offset, atomic_load(&leader->port.tsc_offset));
    leader->type->set(leader->inner, &leader->st);
    follower->type->set(follower->inner, &leader->st);
    record_clear(&vcpu->record);
    record_switch(&vcpu->record, true);
    compare_copy_ram(&vcpu->engine->copy, vcpu->engine->ram);
    vcpu->apart = false;
}

/* Returns the instructions it took. */
static uint64_t run_side(struct side *side, struct engine_stats *stats, uint64_t limit)
{
    uint64_t before = stats->instructions;

    side->exit = side->type->run(side->inner, limit);
    return stats->instructions - before;
}

static void differ(struct engine_vcpu *vcpu, const char *what)
{
    vcpu->differed = true;
    report_difference(vcpu, what);
}

static void compare_memory(struct engine_vcpu *vcpu)
{
    const struct ram *ram = vcpu->engine->ram, *copy = &vcpu->engine->copy;
    uint64_t at = compare_ram(ram, copy);
    char what[160];

    vcpu->lockstep->memory_compares++;
    if (at == UINT64_MAX)
        return;
    snprintf(what, sizeof(what),
             "RAM at physical address %#" PRIx64 ": the leader's %016" PRIx64 ", the follower's %016" PRIx64,
             at < ram->low ? at : at - ram->low + RAM_HIGH_BASE, load_le64(ram->base + at), load_le64(copy->base + at));
    differ(vcpu, what);
}

static void compare_sides(struct engine_vcpu *vcpu, uint64_t follower_n)
{
    const struct side *leader = &vcpu->side[LEADER], *follower = &vcpu->side[FOLLOWER];
    char what[160];

    if (*vcpu->record.difference) {
        differ(vcpu, vcpu->record.difference);
    } else if (leader->exit != follower->exit || vcpu->n != follower_n) {
        snprintf(what, sizeof(what),
                 "the leader stopped with %d after %" PRIu64 " instructions, the follower with %d after %" PRIu64,
                 leader->exit, vcpu->n, follower->exit, follower_n);
        differ(vcpu, what);
    } else if (!compare_same(&leader->st, &follower->st)) {
        differ(vcpu, "registers");
    } else if (vcpu->lockstep->memory_every && vcpu->lockstep->instructions >= vcpu->memory_due) {
        vcpu->memory_due = vcpu->lockstep->instructions + vcpu->lockstep->memory_every;
        compare_memory(vcpu);
    }
}

/* A few blocks of the leader's, and as many instructions of the follower's. `limit`: instructions at most, or 0. */
static void step(struct engine_vcpu *vcpu, uint64_t limit)
{
    struct lockstep *lockstep = vcpu->lockstep;
    struct side *leader = &vcpu->side[LEADER], *follower = &vcpu->side[FOLLOWER];
    unsigned blocks = 0;

    vcpu->before = leader->st;
    vcpu->history[vcpu->n_history++ % HISTORY] = leader->st.rip;
    vcpu->n = 0;
    atomic_store(&vcpu->clock.stopped, clock_now(vcpu->conf.clock));
    offer_pins(vcpu);
    /* Not beyond a write to RAM that no event of the follower's stands before, such as the guest's clock: it comes at the step's end. */
    do {
        vcpu->n += run_side(leader, vcpu->conf.stats, limit ? 1 : ENGINE_ONE_BLOCK);
    } while (leader->exit == ENGINE_DEBUG && ++blocks < lockstep->every && !limit && !vcpu->record.n_bytes);
    leader->type->get(leader->inner, &leader->st);
    uint64_t n = run_side(follower, &follower->stats, leader->exit == ENGINE_DEBUG ? vcpu->n : vcpu->n + 1);
    follower->type->get(follower->inner, &follower->st);
    record_finish(vcpu);
    lockstep->blocks += blocks;
    lockstep->instructions += vcpu->n;
    lockstep->events += vcpu->record.n;
    compare_sides(vcpu, n);
    record_clear(&vcpu->record);
}

/* Halted for good, as far as the leader knows: an NMI that it could not take before may still wait. */
static bool nmi_waits(const struct engine_vcpu *vcpu)
{
    const struct side *leader = &vcpu->side[LEADER];
    return leader->exit == ENGINE_HALT && atomic_load(&leader->port.nmis) && !leader->st.nmi_blocked;
}

static enum engine_exit lockstep_run(struct engine_vcpu *vcpu, uint64_t limit)
{
    struct side *leader = &vcpu->side[LEADER];
    uint64_t end = limit ? vcpu->lockstep->instructions + limit : UINT64_MAX;

    if (atomic_load(&vcpu->alone)) {
        enum engine_exit exit = run_alone(vcpu, limit);
        if (atomic_load(&vcpu->alone) || exit != ENGINE_KICKED)
            return exit;
    }
    while (!vcpu->differed) {
        if (atomic_load(&vcpu->conf.port->pending) & THREAD_PINS) {
            vcpu->conf.stats->exits[ENGINE_EXIT_KICK]++;
            return ENGINE_KICKED;
        }
        if (vcpu->lockstep->instructions >= end)
            return ENGINE_DEBUG;
        if (vcpu->apart)
            bring_together(vcpu);
        step(vcpu, limit);
        if (leader->exit != ENGINE_DEBUG && !nmi_waits(vcpu) && !vcpu->differed)
            return leader->exit;
    }
    return ENGINE_FAIL;
}

/* ---- state ---- */

static void lockstep_get(struct engine_vcpu *vcpu, struct x86_state *st)
{
    struct side *leader = &vcpu->side[LEADER];
    leader->type->get(leader->inner, st);
}

/* With it may have come other contents of RAM: a reset. */
static void lockstep_set(struct engine_vcpu *vcpu, const struct x86_state *st)
{
    struct side *leader = &vcpu->side[LEADER];

    leader->type->set(leader->inner, st);
    vcpu->apart = true;
    record_switch(&vcpu->record, false);
}

static void lockstep_debug(struct engine_vcpu *vcpu, struct engine_debug *debug)
{
    for (unsigned i = 0; i < 2; i++)
        vcpu->side[i].type->debug(vcpu->side[i].inner, debug);
}

/* ---- life ---- */

static int lockstep_probe(uint64_t *rate, struct err *err)
{
    *rate = 0;
    return 0;
}

static int lockstep_open(struct engine **enginep, const struct engine_conf *conf, struct err *err)
{
    struct engine_conf own = *conf;
    int r;

    if (!conf->lockstep)
        return err_set(err, -EINVAL, "lockstep: needs to be told which engines");
    if (conf->n_vcpus != 1)
        return err_set(err, -EINVAL, "lockstep: %u CPUs: must be 1", conf->n_vcpus);
    if (conf->lockstep->leader->tsc_hz || conf->lockstep->follower->tsc_hz)
        return err_set(err, -EINVAL,
                       "lockstep of %s and %s: one has the host's CPU run the guest, which counts no instructions",
                       conf->lockstep->leader->name, conf->lockstep->follower->name);
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return err_set(err, -ENOMEM, "lockstep: out of memory");
    engine->conf = conf->lockstep;
    engine->ram = conf->ram;
    r = ram_open(&engine->copy, conf->ram->size, conf->ram->low, err);
    if (r < 0)
        goto free_engine;
    r = engine->conf->leader->open(&engine->side[LEADER], &own, err);
    if (r < 0)
        goto close_ram;
    own.ram = &engine->copy;
    own.trace = NULL; /* one of the two is enough */
    r = engine->conf->follower->open(&engine->side[FOLLOWER], &own, err);
    if (r < 0)
        goto close_leader;
    *enginep = engine;
    return 0;

close_leader:
    engine->conf->leader->close(engine->side[LEADER]);
close_ram:
    ram_close(&engine->copy);
free_engine:
    free(engine);
    return r;
}

static void lockstep_close(struct engine *engine)
{
    engine->conf->follower->close(engine->side[FOLLOWER]);
    engine->conf->leader->close(engine->side[LEADER]);
    ram_close(&engine->copy);
    free(engine);
}

static void close_side(struct side *side)
{
    side->type->vcpu_close(side->inner);
    pvclock_leave(&side->pvclock_vcpu);
    pvclock_fini(&side->pvclock);
    record_leave(side);
}

static int open_side(struct engine_vcpu *vcpu, unsigned which, struct err *err)
{
    struct side *side = &vcpu->side[which];
    struct ram *ram = which == LEADER ? vcpu->engine->ram : &vcpu->engine->copy;
    struct engine_vcpu_conf conf = vcpu->conf;

    side->vcpu = vcpu;
    side->type = which == LEADER ? vcpu->lockstep->leader : vcpu->lockstep->follower;
    int r = record_join(side, err);
    if (r < 0)
        return r;
    /* Each writes the guest's clock to its own RAM; the wall clock comes to the follower's as a write by a device. */
    pvclock_init(&side->pvclock, ram, which == LEADER ? vcpu->conf.clock : &vcpu->clock);
    pvclock_join(&side->pvclock, &side->pvclock_vcpu, &side->port);
    conf.ram = ram;
    conf.pio = &side->pio;
    conf.mmio = &side->mmio;
    conf.port = &side->port;
    conf.clock = &vcpu->clock;
    conf.random = record_random;
    conf.random_opaque = side;
    conf.stats = which == LEADER ? vcpu->conf.stats : &side->stats;
    r = side->type->vcpu_open(vcpu->engine->side[which], &conf, &side->inner, err);
    if (r < 0) {
        pvclock_leave(&side->pvclock_vcpu);
        pvclock_fini(&side->pvclock);
        record_leave(side);
    }
    return r;
}

static void free_vcpu(struct engine_vcpu *vcpu)
{
    pthread_mutex_destroy(&vcpu->record.lock);
    clock_fini(&vcpu->clock);
    free(vcpu->record.events);
    free(vcpu->record.bytes);
    free(vcpu);
}

static int lockstep_vcpu_open(struct engine *engine, const struct engine_vcpu_conf *conf, struct engine_vcpu **vcpup,
                              struct err *err)
{
    struct engine_vcpu *vcpu = aligned_alloc(64, align_up(sizeof(*vcpu), 64));
    int r;

    if (!vcpu)
        return err_set(err, -ENOMEM, "lockstep: out of memory");
    memset(vcpu, 0, sizeof(*vcpu));
    vcpu->engine = engine;
    vcpu->lockstep = engine->conf;
    vcpu->conf = *conf;
    vcpu->apart = true;
    pthread_mutex_init(&vcpu->record.lock, NULL);
    clock_init(&vcpu->clock, NULL, conf->clock->tsc_hz); /* has no timers, so needs no loop */
    r = open_side(vcpu, LEADER, err);
    if (r < 0)
        goto free;
    r = open_side(vcpu, FOLLOWER, err);
    if (r < 0)
        goto close_leader;
    engine->ram->written = record_ram;
    engine->ram->written_opaque = vcpu;
    if (engine->conf->from_ns) {
        atomic_store(&vcpu->alone, true);
        vtimer_init(&vcpu->from, conf->clock, on_from, vcpu);
        vtimer_set(&vcpu->from, engine->conf->from_ns);
    }
    *vcpup = vcpu;
    return 0;

close_leader:
    close_side(&vcpu->side[LEADER]);
free:
    free_vcpu(vcpu);
    return r;
}

/* The last look at all of RAM, too. */
static void lockstep_vcpu_close(struct engine_vcpu *vcpu)
{
    if (!vcpu->apart && !vcpu->differed)
        compare_memory(vcpu);
    vtimer_fini(&vcpu->from);
    vcpu->engine->ram->written = NULL;
    close_side(&vcpu->side[FOLLOWER]);
    close_side(&vcpu->side[LEADER]);
    free_vcpu(vcpu);
}

const struct engine_type lockstep_engine = {
    .name = "lockstep",
    .probe = lockstep_probe,
    .open = lockstep_open,
    .close = lockstep_close,
    .vcpu_open = lockstep_vcpu_open,
    .vcpu_close = lockstep_vcpu_close,
    .run = lockstep_run,
    .kick = lockstep_kick,
    .get = lockstep_get,
    .set = lockstep_set,
    .debug = lockstep_debug,
};
