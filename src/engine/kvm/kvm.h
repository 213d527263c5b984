/*
 * The KVM engine's inside: a VM of the host's KVM, its vCPUs, and what the engine's parts offer one another.
 *
 *   kvm.c        engine_type: life, kicks
 *   kvm_vm.c     the VM: what is asked of the host's KVM, memory slots, which MSRs the kernel keeps
 *   kvm_cpuid.c  the guest's CPUID: the machine's, less what this host cannot do
 *   kvm_run.c    into the guest and back: interrupts on the way in, kicks, the end of a run
 *   kvm_exit.c   the table of exits, a small handler each
 *   kvm_state.c  struct x86_state from and to the kernel's structures
 *   kvm_time.c   the guest's TSC and its paravirtual clock, which the kernel keeps, in line with the VM's clock
 *   kvm_debug.c  what a debugger outside the guest asks for
 *   kvm_report.c what is said when KVM cannot go on
 *
 * The interrupt controllers are the machine's own devices, as for every engine: HLT, MSRs of the local APIC and its page are exits, and
 * vectors go in by KVM_INTERRUPT. So what INIT, SIPI, pausing and resetting do is in vm/vcpu.c.
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

    pthread_mutex_t lock; /* of what follows */
    bool timed;           /* base and clock_offset are set */
    uint64_t tsc_base;    /* KVM's TSC offset of a vCPU whose TSC is clock_tsc() */
    int64_t clock_offset; /* clock->offset that tsc_base is right for */
};

struct engine_vcpu {
    struct engine *engine;
    struct engine_vcpu_conf conf;
    int fd;
    struct kvm_run *run;
    struct x86_state st; /* registers that the kernel does not keep: MTRRs and the like; the rest is stale */
    enum engine_exit exit;
    enum engine_exit_reason reason; /* of the exit that is being handled, as it was counted last */

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

int kvm_vm_open(struct engine *e, struct err *err) MUST_CHECK;
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

/* ---- kvm_state.c ---- */

void kvm_state_get(struct engine_vcpu *v, struct x86_state *st);
void kvm_state_set(struct engine_vcpu *v, const struct x86_state *st);

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
