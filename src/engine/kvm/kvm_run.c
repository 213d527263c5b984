/*
 * Into the guest and back. Before each entry: pins of the port become events of KVM's; after each: the handler of its exit.
 *
 * Kicks. The kicker has changed the port, sets immediate_exit, and then, where the vCPU is inside, sends its thread a signal. The vCPU clears
 * immediate_exit, then looks at the port, then says that it is inside, then enters. So one of them sees the other: a kick before the look is seen
 * by it; one after it finds KVM_RUN about to begin, which returns at once for immediate_exit, or the vCPU inside, which the signal ends.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#define KICK_SIGNAL (SIGRTMIN + 1)
#define THREAD_PINS (PIN_INIT | PIN_SIPI | PIN_KICK)

static void on_kick(int sig)
{
}

int kvm_run_open_signal(struct err *err)
{
    const struct sigaction action = {.sa_handler = on_kick};

    if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
        return err_set(err, -errno, "KVM: no handler for the signal of kicks: %s", strerror(errno));
    return 0;
}

/* That the kicker's signal finds the thread that calls run(), and ends what it is in. */
static void join_thread(struct engine_vcpu *v)
{
    static _Thread_local pid_t tid;
    sigset_t kick;

    if (!tid) {
        tid = (pid_t)syscall(SYS_gettid);
        sigemptyset(&kick);
        sigaddset(&kick, KICK_SIGNAL);
        pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    }
    atomic_store(&v->tid, tid);
}

static void set_immediate_exit(struct engine_vcpu *v, bool on)
{
    __atomic_store_n(&v->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

void kvm_run_kick(struct engine_vcpu *v)
{
    set_immediate_exit(v, true);
    if (atomic_load(&v->inside))
        syscall(SYS_tgkill, getpid(), atomic_load(&v->tid), KICK_SIGNAL);
}

/* ---- interrupts ---- */

static bool nmi_blocked(const struct engine_vcpu *v)
{
    struct kvm_vcpu_events events = {0};
    return ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events) == 0 && events.nmi.masked;
}

/* The kernel keeps as many NMIs as a CPU would, until the guest takes them. */
static void pass_nmi(struct engine_vcpu *v)
{
    if (v->halted && nmi_blocked(v))
        return;
    vcpu_port_take_nmi(v->conf.port);
    kvm_exit_count(v, ENGINE_EXIT_NMI, X86_NMI);
    v->halted = false;
    ioctl(v->fd, KVM_NMI);
}

/* A vector goes in where the guest takes it at its next instruction; else it is to exit when it would. */
static void pass_interrupt(struct engine_vcpu *v)
{
    if (!v->ready || v->unfinished) { /* unfinished: it has come since make_ready() */
        v->run->request_interrupt_window = 1;
        return;
    }
    int vector = v->conf.port->apic_ops ? v->conf.port->apic_ops->ack(v->conf.port->apic) : -1;
    if (vector < 0)
        return;
    const struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
    kvm_exit_count(v, ENGINE_EXIT_INTERRUPT, (uint64_t)vector);
    v->halted = false;
    v->ready = false;
    if (ioctl(v->fd, KVM_INTERRUPT, &interrupt) < 0)
        log_error("CPU %u: KVM_INTERRUPT: %s", v->conf.index, strerror(errno));
    if (atomic_load(&v->conf.port->pending) & PIN_INTR)
        v->run->request_interrupt_window = 1;
}

static void pass_pins(struct engine_vcpu *v, uint32_t pins)
{
    v->run->request_interrupt_window = 0;
    if (pins & PIN_NMI)
        pass_nmi(v);
    if (pins & PIN_INTR)
        pass_interrupt(v);
}

/* ---- one entry ---- */

/* CR8 is the local APIC's, and the kernel's while the guest runs. */
static void put_cr8(struct engine_vcpu *v)
{
    const struct vcpu_port *port = v->conf.port;
    v->run->cr8 = port->apic_ops ? port->apic_ops->cr8_get(port->apic) : 0;
}

static void take_cr8(struct engine_vcpu *v, uint64_t before)
{
    const struct vcpu_port *port = v->conf.port;

    if (v->run->cr8 != before && port->apic_ops)
        port->apic_ops->cr8_set(port->apic, (uint8_t)v->run->cr8);
}

/* KVM_RUN once: 0, or errno. */
static int enter(struct engine_vcpu *v)
{
    if (!v->engine->has_lapics)
        put_cr8(v);
    uint64_t cr8 = v->run->cr8;
    atomic_store(&v->inside, true);
    int error = ioctl(v->fd, KVM_RUN, 0UL) < 0 ? errno : 0;
    atomic_store(&v->inside, false);
    if (!v->engine->has_lapics)
        take_cr8(v, cr8);
    v->unfinished = false;
    v->ready = v->run->ready_for_interrupt_injection;
    return error;
}

/* true where the run is to end. */
static bool step(struct engine_vcpu *v)
{
    int error = enter(v);

    if (error == EINTR) {
        kvm_exit_count(v, ENGINE_EXIT_KICK, 0);
        return false;
    }
    if (error == EAGAIN)
        return false;
    if (error) {
        kvm_report(v, "KVM_RUN: %s", strerror(error));
        return true;
    }
    return kvm_exit(v);
}

/* true where the run is to end: an instruction may leave more than once. */
static bool finish(struct engine_vcpu *v)
{
    while (v->unfinished) {
        set_immediate_exit(v, true);
        int error = enter(v);
        if (!error && kvm_exit(v))
            return true;
    }
    return false;
}

/*
 * An interrupt goes in between two instructions. Where one is unfinished it may yet raise an exception - an MSR that nobody has - and KVM
 * would deliver that and forget the interrupt.
 */
static bool make_ready(struct engine_vcpu *v)
{
    if (LIKELY(!v->unfinished) || !(atomic_load(&v->conf.port->pending) & PIN_INTR))
        return true;
    return !finish(v);
}

enum engine_exit kvm_run(struct engine_vcpu *v, uint64_t limit)
{
    if (v->refused) {
        kvm_report(v, "its registers cannot be set");
        return v->exit;
    }
    v->limited = limit != 0;
    v->left = limit == ENGINE_ONE_BLOCK ? 1 : limit;
    join_thread(v);
    kvm_time_enter(v);
    kvm_debug_apply(v);
    while (make_ready(v)) {
        set_immediate_exit(v, false);
        uint32_t pins = atomic_load(&v->conf.port->pending);
        if (pins & THREAD_PINS) {
            v->exit = ENGINE_KICKED;
            break;
        }
        pass_pins(v, pins);
        if (v->halted) {
            v->exit = ENGINE_HALT;
            break;
        }
        if (step(v))
            break;
    }
    finish(v);
    if (v->exit == ENGINE_KICKED)
        kvm_state_settle(v);
    return v->exit;
}
