#include "vm/vcpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/cpuid_table.h"
#include "vm/vm.h"

/* Pins that the thread itself answers, not the engine. */
#define THREAD_PINS (PIN_INIT | PIN_SIPI | PIN_KICK)

/*
 * Sleep and wake-up by a futex, since every interrupt of an idle guest goes this way: a condition variable would have the one that wakes contend
 * for its lock with the one that has woken it.
 */
static void futex(_Atomic uint32_t *word, int op, uint32_t val)
{
    syscall(SYS_futex, word, op, val, NULL, NULL, 0); /* a wait that ends early looks at the pins and comes again */
}

/* Any thread; the pin is up already. Pairs with vcpu_sleep(): it says `sleeping` before it looks at the pins. */
static void kick(void *opaque)
{
    struct vcpu *vcpu = opaque;

    vcpu->vm->conf.engine->kick(vcpu->engine_vcpu);
    if (atomic_load(&vcpu->sleeping)) {
        atomic_fetch_add(&vcpu->kicks, 1);
        futex(&vcpu->kicks, FUTEX_WAKE_PRIVATE, 1);
    }
}

int vcpu_open(struct vcpu **out, struct vm *vm, unsigned index, struct err *err)
{
    struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return err_set(err, -ENOMEM, "vCPU %u: out of memory", index);
    vcpu->vm = vm;
    vcpu->whole = vm->env.irqchip != NULL;
    vcpu->index = index;
    bus_init(&vcpu->mmio, &vm->mmio);
    pvclock_join(&vm->pvclock, &vcpu->pvclock, &vcpu->port);
    pthread_mutex_init(&vcpu->lock, NULL);
    pthread_cond_init(&vcpu->changed, NULL);
    atomic_init(&vcpu->hold, true);

    const struct x86_cpuid_conf cpuid = {
        .model = vm->conf.cpu,
        .n_cpus = vm->conf.n_vcpus,
        .apic_id = index,
        .tsc_hz = vm->clock.tsc_hz,
        .crystal_hz = vm->conf.crystal_hz,
        .phys_bits = VM_PHYS_BITS,
    };
    x86_cpuid_init(&vcpu->cpuid, &cpuid);
    if (vm->conf.found)
        cpuid_table_limit(vm->conf.found, &vcpu->cpuid);
    int r = x86_cpuid_check(&vcpu->cpuid, err);
    if (r < 0)
        goto free_vcpu;

    const struct engine_vcpu_conf conf = {
        .index = index,
        .ram = &vm->ram,
        .pio = &vm->pio,
        .mmio = &vcpu->mmio,
        .port = &vcpu->port,
        .clock = &vm->clock,
        .cpuid = &vcpu->cpuid,
        .stats = &vcpu->stats,
    };
    r = vm->conf.engine->vcpu_open(vm->engine, &conf, &vcpu->engine_vcpu, err);
    if (r < 0)
        goto free_vcpu;
    vcpu->port.vcpu = vcpu;
    vcpu->port.kick = kick;
    *out = vcpu;
    return 0;

free_vcpu:
    pvclock_leave(&vcpu->pvclock);
    pthread_cond_destroy(&vcpu->changed);
    pthread_mutex_destroy(&vcpu->lock);
    bus_fini(&vcpu->mmio);
    free(vcpu);
    return r;
}

void vcpu_close(struct vcpu *vcpu)
{
    if (!vcpu)
        return;
    vcpu_quit(vcpu);
    vcpu->vm->conf.engine->vcpu_close(vcpu->engine_vcpu);
    pvclock_leave(&vcpu->pvclock);
    pthread_cond_destroy(&vcpu->changed);
    pthread_mutex_destroy(&vcpu->lock);
    bus_fini(&vcpu->mmio);
    free(vcpu);
}

void vcpu_get_state(struct vcpu *vcpu, struct x86_state *st)
{
    vcpu->vm->conf.engine->get(vcpu->engine_vcpu, st);
    if (!vcpu->whole)
        st->activity = vcpu->activity;
}

/* What a halted vCPU wakes for: an interrupt only where it may be taken. */
static void take_activity(struct vcpu *vcpu, const struct x86_state *st, enum x86_activity activity)
{
    vcpu->activity = activity;
    vcpu->wake_pins = (st->rflags & X86_FLAG_IF ? PIN_INTR : 0) | (st->nmi_blocked ? 0 : PIN_NMI);
}

void vcpu_set_state(struct vcpu *vcpu, const struct x86_state *st)
{
    vcpu->vm->conf.engine->set(vcpu->engine_vcpu, st);
    vcpu->shut_down = false;
    take_activity(vcpu, st, st->activity);
}

void vcpu_debug(struct vcpu *vcpu, bool on)
{
    vcpu->debug_stopped = false;
    vcpu->vm->conf.engine->debug(vcpu->engine_vcpu, on ? &vcpu->debug : NULL);
}

/* Stands still while held. False when the thread shall end. */
static bool stand_while_held(struct vcpu *vcpu)
{
    if (!atomic_load(&vcpu->hold) && !atomic_load(&vcpu->quit))
        return true;
    pthread_mutex_lock(&vcpu->lock);
    vcpu->paused = true;
    pthread_cond_broadcast(&vcpu->changed);
    while (atomic_load(&vcpu->hold) && !atomic_load(&vcpu->quit))
        pthread_cond_wait(&vcpu->changed, &vcpu->lock);
    vcpu->paused = false;
    bool go_on = !atomic_load(&vcpu->quit);
    pthread_mutex_unlock(&vcpu->lock);
    return go_on;
}

/* INIT, then a start-up IPI: the order in which they are ever useful together. Others are ignored (SDM Vol. 3A 8.4.3). */
static void answer_pins(struct vcpu *vcpu)
{
    uint32_t pins = atomic_load(&vcpu->port.pending);
    struct x86_state st;

    if (!(pins & THREAD_PINS))
        return;
    vcpu_port_lower(&vcpu->port, pins & THREAD_PINS);
    if (pins & PIN_INIT) {
        vcpu_get_state(vcpu, &st);
        x86_state_init(&st, vcpu->index == 0);
        if (vcpu->lapic_init)
            vcpu->lapic_init(vcpu->lapic);
        vcpu_set_state(vcpu, &st);
    }
    if (pins & PIN_SIPI) {
        vcpu_get_state(vcpu, &st);
        if (st.activity != X86_WAIT_SIPI)
            return;
        x86_state_sipi(&st, atomic_load(&vcpu->port.sipi_vector));
        vcpu_set_state(vcpu, &st);
    }
}

/* Waits until a pin in `wake` is up or the VM wants something. */
static void vcpu_sleep(struct vcpu *vcpu, uint32_t wake)
{
    int64_t start = loop_now();

    wake |= THREAD_PINS;
    atomic_store(&vcpu->sleeping, true);
    for (;;) {
        uint32_t kicks = atomic_load(&vcpu->kicks);
        if ((atomic_load(&vcpu->port.pending) & wake) || atomic_load(&vcpu->hold) || atomic_load(&vcpu->quit))
            break;
        futex(&vcpu->kicks, FUTEX_WAIT_PRIVATE, kicks);
    }
    atomic_store(&vcpu->sleeping, false);
    vcpu->halted_ns += loop_now() - start;
}

static void enter_halt(struct vcpu *vcpu)
{
    struct x86_state st;

    vcpu->vm->conf.engine->get(vcpu->engine_vcpu, &st);
    take_activity(vcpu, &st, X86_HALTED);
}

/* The engine has stopped for the debugger, perhaps behind a HLT. */
static void stop_for_debugger(struct vcpu *vcpu)
{
    struct x86_state st;

    vcpu->vm->conf.engine->get(vcpu->engine_vcpu, &st);
    take_activity(vcpu, &st, st.activity);
    vcpu->debug_stopped = true;
    vm_debug_stop(vcpu->vm);
}

static void run(struct vcpu *vcpu)
{
    const struct engine_type *engine = vcpu->vm->conf.engine;
    int64_t start = loop_now();
    enum engine_exit exit = engine->run(vcpu->engine_vcpu, 0);
    vcpu->run_ns += loop_now() - start;

    bool again = vcpu->shut_down;
    vcpu->shut_down = false;
    switch (exit) {
    case ENGINE_HALT:
        enter_halt(vcpu);
        break;
    case ENGINE_KICKED:
        break;
    case ENGINE_DEBUG:
        stop_for_debugger(vcpu);
        break;
    case ENGINE_RESET:
        vm_reset(vcpu->vm);
        break;
    case ENGINE_SHUTDOWN:
        if (!vcpu->vm->debugger.attached || again) {
            vm_crash(vcpu->vm, vcpu);
            break;
        }
        vcpu->shut_down = true;
        vcpu->debug.hit = NULL;
        stop_for_debugger(vcpu);
        break;
    case ENGINE_FAIL:
        vm_end(vcpu->vm, VM_END_FAIL, 0);
        break;
    }
}

static void *vcpu_thread(void *opaque)
{
    struct vcpu *vcpu = opaque;

    while (stand_while_held(vcpu)) {
        answer_pins(vcpu);
        if (vcpu->whole) {
            run(vcpu);
        } else if (vcpu->activity == X86_WAIT_SIPI) {
            vcpu_sleep(vcpu, 0);
        } else if (vcpu->activity == X86_HALTED && !(atomic_load(&vcpu->port.pending) & vcpu->wake_pins)) {
            vcpu_sleep(vcpu, vcpu->wake_pins);
        } else {
            vcpu->activity = X86_RUNNING;
            run(vcpu);
        }
    }
    return NULL;
}

int vcpu_start(struct vcpu *vcpu, struct err *err)
{
    sigset_t all, old;
    char name[16];

    /* Signals are for the loop's thread; those that an instruction raises are never blocked by the kernel. */
    sigfillset(&all);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGTRAP);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r)
        return err_set(err, -r, "vCPU %u: cannot start a thread: %s", vcpu->index, strerror(r));
    snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
    pthread_setname_np(vcpu->thread, name);
    vcpu->started = true;
    return 0;
}

void vcpu_hold(struct vcpu *vcpu)
{
    atomic_store(&vcpu->hold, true);
    vcpu_port_raise(&vcpu->port, PIN_KICK);
}

void vcpu_pause(struct vcpu *vcpu)
{
    vcpu_hold(vcpu);
    if (!vcpu->started)
        return;
    pthread_mutex_lock(&vcpu->lock);
    while (!vcpu->paused)
        pthread_cond_wait(&vcpu->changed, &vcpu->lock);
    pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_resume(struct vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    atomic_store(&vcpu->hold, false);
    pthread_cond_broadcast(&vcpu->changed);
    pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_quit(struct vcpu *vcpu)
{
    if (!vcpu->started)
        return;
    pthread_mutex_lock(&vcpu->lock);
    atomic_store(&vcpu->quit, true);
    pthread_cond_broadcast(&vcpu->changed);
    pthread_mutex_unlock(&vcpu->lock);
    vcpu_port_raise(&vcpu->port, PIN_KICK);
    pthread_join(vcpu->thread, NULL);
    vcpu->started = false;
}
