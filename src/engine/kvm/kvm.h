/*
 * The KVM engine's inside: a VM of the host's KVM, its vCPUs, and what the engine's parts offer one another.
 *
 *   kvm.c        engine_type: life, kicks
 *   kvm_vm.c     the VM: what is asked of the host's KVM, which MSRs the kernel keeps
 *   kvm_memory.c memory slots, and which pages the guest has written
 *   kvm_cpuid.c  the guest's CPUID: the machine's, less what this host cannot do
 *   kvm_irq.c    the kernel's interrupt controllers, eventfds for interrupts and doorbells
 *   kvm_run.c    into the guest and back: interrupts on the way in, kicks, the end of a run
 *   kvm_exit.c   the table of exits, a small handler each
 *   kvm_stats.c  what the kernel counts
 *   kvm_state.c  struct x86_state from and to the kernel's structures
 *   kvm_time.c   the guest's TSC and its paravirtual clock, which the kernel keeps, in line with the VM's clock
 *   kvm_debug.c  what a debugger outside the guest asks for
 *   kvm_report.c what is said when KVM cannot go on
 *
 * Interrupt controllers are in the kernel: the local APICs ("split", the default where it is offered) or all of them. Then HLT, IPIs, INIT and EOI
 * are no exits but for the EOI of a level-triggered interrupt, and of the pins PIN_INTR is the PICs' alone, where they are not in the kernel.
 * Or they are the machine's own devices, as for every engine: HLT, MSRs of the local APIC and its page are exits, vectors go in by
 * KVM_INTERRUPT, and what INIT and SIPI do is in vm/vcpu.c. Pausing and resetting are there in both cases.
 *
 * Threads: as engine.h says; kvm_kick() from any. What the vCPUs share is in struct engine: constant after open(), or under its lock.
 */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>

#include "engine/engine.h"
#include "engine/kvm_probe.h"

struct engine {
    struct ram *ram;
    const struct engine_trace *trace; /* or NULL */
    unsigned n_vcpus;
    int kvm, vm;
    int *vcpus;                 /* descriptors, -1 where one is not there */
    size_t run_size;            /* of a vCPU's struct kvm_run and what is mapped with it */
    struct kvm_cpuid2 *cpuid;   /* what this host's KVM can do */
    uint64_t arch_capabilities; /* flaws that this host's CPUs do not have, as IA32_ARCH_CAPABILITIES names them */
    uint64_t tsc_hz;            /* the guest's TSC */
    bool has_tsc_offset;        /* a TSC can be set exactly */
    bool has_lapics;            /* in the kernel; then irqchip is set */
    bool any_length;            /* doorbells take writes of any */
    struct irqchip irqchip;
    struct doorbells doorbells; /* .set NULL: none */

    pthread_mutex_t lock; /* of what follows */
    bool timed;           /* base and clock_offset are set */
    uint64_t tsc_base;    /* KVM's TSC offset of a vCPU whose TSC is clock_tsc() */
    int64_t clock_offset; /* clock->offset that tsc_base is right for */

    pthread_mutex_t irq_lock; /* of what follows: see kvm_irq.c */
    unsigned n_inputs;        /* as many as there can be */
    struct kvm_irq_routing_entry *inputs;
    bool *wired;

    unsigned n_roms;
    unsigned ring_entries;      /* of each vCPU's ring of dirty pages; 0: there are none */
    bool manual_clear;          /* of the kernel's bitmaps */
    pthread_mutex_t dirty_lock; /* of what follows: see kvm_memory.c */
    uint64_t *dirty;            /* from rings, not yet read; NULL: nobody wants to know */
    struct engine_vcpu *ringed; /* those that have one */
};

struct engine_vcpu {
    struct engine *engine;
    struct engine_vcpu_conf conf;
    int fd;
    int stats_fd; /* kvm_stats.c; or -1 */
    struct kvm_run *run;
    struct x86_state st; /* registers that the kernel does not keep: MTRRs and the like; the rest is stale */
    enum engine_exit exit;
    enum engine_exit_reason reason; /* of the exit that is being handled, as it was counted last */

    struct kvm_dirty_gfn *ring; /* or MAP_FAILED */
    uint32_t ring_at;
    struct engine_vcpu *next_ringed;

    /* Kicks: see kvm_run.c. */
    _Atomic bool inside; /* about to be in KVM_RUN, or in it */
    _Atomic int tid;     /* of the thread that is */
    bool ready;          /* the guest takes an interrupt at its next entry, as it was left */
    bool unfinished;     /* the kernel wants KVM_RUN once more before its registers are complete */
    bool refused;        /* a register that set() was given, and the kernel has not taken */
    bool halted;         /* behind a HLT, which only an interrupt ends */

    /* Time: see kvm_time.c. */
    bool timed;           /* what follows is set */
    uint64_t tsc_base;    /* the engine's, as this vCPU has last taken it */
    int64_t clock_offset; /* the same */

    /* Debugging: see kvm_debug.c. */
    struct engine_debug *debug;               /* or NULL */
    bool debugging;                           /* KVM_SET_GUEST_DEBUG has asked for something */
    bool steps;                               /* an instruction at a time */
    bool looks;                               /* at each, for a breakpoint that has no debug register */
    const struct engine_breakpoint *slots[4]; /* what each debug register stands for */
    unsigned n_slots;
    bool limited; /* run() stops behind `left` more instructions */
    uint64_t left;
};

/* ---- kvm_vm.c ---- */

/* ioctl() on the device's, VM's or a vCPU's descriptor that must not fail; -errno, and a message that names `call` and what it is for. */
int kvm_vm_ioctl(int fd, unsigned long request, const char *call, const void *arg, struct err *err) MUST_CHECK;

int kvm_vm_open(struct engine *e, const struct engine_conf *conf, struct err *err) MUST_CHECK;
void kvm_vm_close(struct engine *e);

/* ---- kvm_cpuid.c ---- */

/* Fills e->cpuid from the host's KVM. */
int kvm_cpuid_read_host(struct engine *e, struct err *err) MUST_CHECK;

/*
 * The CPUID of the machine, less what the host's KVM cannot do; -EOPNOTSUPP, and a message that says what, where that is of a named model.
 * *cpuid is the caller's, to be freed.
 */
int kvm_cpuid_make(const struct engine_vcpu *v, struct kvm_cpuid2 **cpuid, struct err *err) MUST_CHECK;

/* Gives the vCPU that. */
int kvm_cpuid_set(struct engine_vcpu *v, struct err *err) MUST_CHECK;

/* engine_type.cpuid */
void kvm_cpuid_shown(struct engine_vcpu *v, uint32_t leaf, uint32_t subleaf, struct x86_cpuid_regs *r);

/* ---- kvm_memory.c ---- */

int kvm_memory_open(struct engine *e, struct err *err) MUST_CHECK;
/* As struct engine_type has them. */
int kvm_memory_rom(struct engine *e, uint64_t gpa, const void *host, uint64_t size, struct err *err) MUST_CHECK;
int kvm_memory_dirty_start(struct engine *e, struct err *err) MUST_CHECK;
int kvm_memory_dirty_read(struct engine *e, uint64_t *bits) MUST_CHECK;
void kvm_memory_dirty_stop(struct engine *e);

/* Before the vCPUs; none where `entries` is 0 or the host has none. */
int kvm_memory_open_rings(struct engine *e, unsigned entries, struct err *err) MUST_CHECK;
int kvm_memory_map_ring(struct engine_vcpu *v, struct err *err) MUST_CHECK;
void kvm_memory_unmap_ring(struct engine_vcpu *v);
/* On the vCPU's thread. */
void kvm_memory_ring_full(struct engine_vcpu *v);

/* ---- kvm_irq.c ---- */

/* Takes back a vector that the vCPU's own local APIC has given; false where it was not its. */
bool kvm_irq_unack(struct engine_vcpu *v, uint8_t vector);

/* After the VM, before its vCPUs. */
int kvm_irq_open(struct engine *e, enum engine_irqchip which, struct err *err) MUST_CHECK;
void kvm_irq_close(struct engine *e);

/* ---- kvm_run.c ---- */

enum engine_exit kvm_run(struct engine_vcpu *v, uint64_t limit);
void kvm_run_kick(struct engine_vcpu *v);

/* The process's handler for the signal that ends KVM_RUN. */
int kvm_run_open_signal(struct err *err) MUST_CHECK;

/* ---- kvm_exit.c ---- */

/* Handles the exit that v->run tells of; true where kvm_run() is to return v->exit. */
bool kvm_exit(struct engine_vcpu *v);

/* Counts, and tells whoever traces. */
void kvm_exit_count(struct engine_vcpu *v, enum engine_exit_reason reason, uint64_t detail);

/* ---- kvm_stats.c ---- */

void kvm_stats_open(struct engine_vcpu *v);
void kvm_stats_close(struct engine_vcpu *v);
void kvm_stats_figures(struct engine_vcpu *v, const struct engine_figures *out);

/* ---- kvm_state.c ---- */

void kvm_state_get(struct engine_vcpu *v, struct x86_state *st);
void kvm_state_set(struct engine_vcpu *v, const struct x86_state *st);

/* Interrupts that KVM has taken and the guest not yet go back to where they came from, since struct x86_state has no room for them. */
void kvm_state_settle(struct engine_vcpu *v);

/* ---- kvm_time.c ---- */

/* What the guest's TSC counts in a second: e->tsc_hz, or what the host's KVM says where that is 0. */
int kvm_time_open(struct engine *e, struct err *err) MUST_CHECK;

/* Before a run: where the VM's clock has stood still meanwhile, so have TSC and paravirtual clock. */
void kvm_time_enter(struct engine_vcpu *v);

/* The port's TSC offset from the kernel's TSC, which the guest may have moved; and back, where somebody else has. */
void kvm_time_get(struct engine_vcpu *v);
void kvm_time_set(struct engine_vcpu *v);

/* ---- kvm_debug.c ---- */

/* Has the kernel stop where v->debug and the limit want it to. */
void kvm_debug_apply(struct engine_vcpu *v);

/* KVM_EXIT_DEBUG. True where kvm_run() is to return v->exit. */
bool kvm_debug_exit(struct engine_vcpu *v);

/* ---- kvm_report.c ---- */

/* KVM cannot go on: one line, the registers, the bytes at RIP. Sets v->exit to ENGINE_FAIL. */
void kvm_report(struct engine_vcpu *v, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
