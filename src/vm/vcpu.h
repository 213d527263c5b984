/*
 * A vCPU: a thread that runs an engine, waits when the guest halts, and answers INIT and SIPI.
 *
 * Threads: vcpu_start(), vcpu_pause(), vcpu_resume(), vcpu_quit() and the state calls from the loop's thread; vcpu_hold() and the pins
 * of `port` from any. The engine is called from the vCPU's own thread, or from the loop's while the vCPU stands paused.
 */
#ifndef VM_VCPU_H
#define VM_VCPU_H

#include <pthread.h>

#include "core/device.h"
#include "core/pvclock.h"
#include "engine/engine.h"

struct vm;

struct vcpu {
    struct vm *vm;
    unsigned index; /* = APIC ID; 0 is the bootstrap processor */
    struct vcpu_port port;
    struct pvclock_vcpu pvclock; /* for engines that run WRMSR by x86/msr.h */
    struct bus mmio;             /* its local APIC, then the VM's */
    struct x86_cpuid cpuid;
    struct engine_vcpu *engine_vcpu;
    bool whole; /* the engine has its local APIC too: halting, INIT and start-up IPIs are not this thread's */
    struct engine_stats stats;
    int64_t run_ns;    /* host time inside engine->run(); where `whole`, halted too */
    int64_t halted_ns; /* host time waiting in HLT or for SIPI */

    /* Set by the machine: what INIT does to the local APIC. */
    struct device *lapic;
    void (*lapic_init)(struct device *lapic);

    pthread_t thread;
    bool started;
    enum x86_activity activity; /* the vCPU's thread, or the loop's while paused */
    struct engine_debug debug;  /* as are these: what a debugger has asked for, see vcpu_debug() */
    bool debug_stopped;         /* the engine has stopped for it; debug.hit tells why */
    bool shut_down;     /* by a triple fault, and the debugger is to see it; if it happens again at once, the VM ends */
    bool frozen;        /* the debugger wants it to stand while others run; set while all are paused */
    uint32_t wake_pins; /* while halted: the pins that end it */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    _Atomic bool hold; /* wanted: stand paused */
    _Atomic bool quit; /* wanted: end the thread */
    bool paused;

    _Atomic bool sleeping;  /* in HLT or waiting for SIPI: a kick must wake the thread */
    _Atomic uint32_t kicks; /* of the sleeping thread, which waits for the next: a futex */
};

int vcpu_open(struct vcpu **vcpu, struct vm *vm, unsigned index, struct err *err) MUST_CHECK;
void vcpu_close(struct vcpu *vcpu);

/* Starts the thread, which stands paused until vcpu_resume(). */
int vcpu_start(struct vcpu *vcpu, struct err *err) MUST_CHECK;

/* Asks the vCPU to stand still at its next instruction boundary, without waiting for it. */
void vcpu_hold(struct vcpu *vcpu);

/* vcpu_hold(), and waits until it does. */
void vcpu_pause(struct vcpu *vcpu);
void vcpu_resume(struct vcpu *vcpu);

/* Ends the thread and joins it. */
void vcpu_quit(struct vcpu *vcpu);

/* Hands `debug`, as it is now, to the engine; without `on` the engine forgets it. While it stands paused, or has not been started. */
void vcpu_debug(struct vcpu *vcpu, bool on);

/* While it stands paused, or has not been started. */
void vcpu_get_state(struct vcpu *vcpu, struct x86_state *st);
void vcpu_set_state(struct vcpu *vcpu, const struct x86_state *st);

#endif
