/*
 * A virtual machine without its board: RAM, buses, clock, vCPU threads, and what happens when one of them stops. src/machine/ puts
 * devices on it and loads a kernel.
 *
 * Threads: vm_run() takes the calling thread for the event loop until the VM ends; each vCPU has a thread of its own.
 * vm_request() and everything a device may call comes from any of them. Devices are reset by the loop's thread while every vCPU is
 * paused.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include "core/device.h"
#include "core/pvclock.h"
#include "engine/engine.h"
#include "vm/vcpu.h"

#define VM_MAX_VCPUS 16
#define VM_PHYS_BITS 40 /* guest-physical address width, for CPUID: 1 TiB */

/* How a VM ended. */
enum vm_end {
    VM_RUNNING,
    VM_END_OFF,     /* the guest powered off */
    VM_END_RESET,   /* it reset, and conf.no_reboot says to end there */
    VM_END_CRASH,   /* triple fault; vm->crashed tells whose */
    VM_END_DEBUG,   /* debug exit, with vm->end_status */
    VM_END_TIMEOUT, /* conf.timeout_ns passed */
    VM_END_SAVED,   /* its state was saved, to go on another time */
    VM_END_QUIT,    /* the user ended it (Ctrl-A x, SIGTERM) */
    VM_END_FAIL,    /* an engine failed */
};

struct vm_conf {
    const struct engine_type *engine;
    const struct engine_trace *trace; /* see struct engine_conf */
    struct lockstep *lockstep;        /* see struct engine_conf */
    uint64_t ram_size;                /* bytes */
    uint64_t ram_low_max;
    unsigned n_vcpus;
    enum x86_cpu_model cpu;
    const struct cpuid_table *found; /* vm/cpuid_table.h: what a loaded guest has found, or NULL */
    uint64_t code_cache;             /* bytes of translated code; 0: the engine's own idea */
    bool profile;                    /* as in struct engine_conf */
    bool no_reboot;
    uint64_t tsc_hz;     /* what a loaded guest's TSC counts at; 0: the engine's own */
    int64_t timeout_ns;  /* 0: none */
    uint64_t crystal_hz; /* of the local APIC timer, for CPUID */
    enum engine_irqchip irqchip;
};

/* Who hears on the loop's thread that vCPUs have stopped for it (vcpu->debug_stopped); they stand, and the others soon will. */
struct vm_debugger {
    void (*stopped)(void *opaque);
    void *opaque;
    bool
        attached; /* it is there, and wants to see a vCPU that shuts down before the VM ends of it; set while all are paused */
};

struct vm {
    struct vm_conf conf;
    struct loop *loop;
    struct clock clock;
    struct ram ram;
    struct pvclock pvclock;
    struct bus pio, mmio;
    struct engine *engine;
    struct vcpu *vcpus[VM_MAX_VCPUS];

    struct device_env env;  /* for every device of this VM; the machine fills pci, isa_irq and msi */
    struct device *devices; /* in order of opening, through device.next */

    /* Set by the machine: puts the reset state of the CPUs and reloads what a reset needs. Called with all vCPUs paused. */
    int (*boot)(struct vm *vm, struct err *err);
    void *machine;
    bool loaded; /* everything is as a saved state had it: vm_run() goes on from there instead of booting */

    struct vm_debugger debugger; /* set before vm_run(), or nobody */
    unsigned pauses;             /* vm_pause() without vm_resume(); the first ends when vm_run() starts the vCPUs */

    pthread_mutex_t lock; /* guards what follows */
    enum vm_end end;
    int end_status;
    struct vcpu *crashed; /* VM_END_CRASH: whose registers are in crash_state */
    struct x86_state crash_state;
    bool reset_wanted;
    struct loop_timer timeout;
    int64_t started_ns, ended_ns; /* host time, for the statistics */
};

/* -EAGAIN where this host cannot run the engine, or not so. */
int vm_open(struct vm *vm, const struct vm_conf *conf, struct err *err) MUST_CHECK;
void vm_close(struct vm *vm);

/* Opens a device and puts it on the VM's list; it is reset and closed with the VM. */
int vm_add_device(struct vm *vm, const struct device_type *type, const void *conf, struct device **dev,
                  struct err *err) MUST_CHECK;

/* Closes a device that came last or that no other leans on. With every vCPU paused, on the loop's thread. */
void vm_remove_device(struct vm *vm, struct device *dev);

/* Whether vm_run() has begun and not ended: the guest sees what changes now. */
bool vm_is_running(const struct vm *vm);

/* Boots and runs until the end; 0, or -errno when it could not start. vm->end tells how it ended. */
int vm_run(struct vm *vm, struct err *err) MUST_CHECK;

/* Asks the running VM to end; the first asker wins. Any thread, not from signal handlers. */
void vm_end(struct vm *vm, enum vm_end how, int status);

/* A vCPU shut down on a triple fault: keeps its registers and ends the VM. On that vCPU's thread. */
void vm_crash(struct vm *vm, struct vcpu *vcpu);

/* Asks for a reset (or the end, under conf.no_reboot). Any thread; carried out by the loop's. */
void vm_reset(struct vm *vm);

/* Carries out a reset that was asked for and has not come yet. Loop's thread. */
void vm_settle(struct vm *vm);

/* An engine has stopped for the debugger: lets every vCPU stand, and tells it. On that vCPU's thread. */
void vm_debug_stop(struct vm *vm);

/*
 * Stops every vCPU at an instruction boundary, and the clock; and lets them go on, but for those that are frozen, when there have been as
 * many calls of the one as of the other. Loop's thread, or before vm_run(): then the VM stands at its first instruction.
 */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

#endif
