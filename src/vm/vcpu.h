/*
 * A vCPU: a thread that runs an engine, waits when the guest halts, and answers INIT and SIPI.
 *
 * Threads: vcpu_pause(), vcpu_resume() and vcpu_join() from the loop's thread; pins of `port` from any.
 */
#ifndef VM_VCPU_H
#define VM_VCPU_H

#include <pthread.h>

#include "core/device.h"
#include "engine/engine.h"

struct vm;

struct vcpu {
    struct vm *vm;
    unsigned index; /* = APIC ID; 0 is the bootstrap processor */
    struct vcpu_port port;
    struct bus mmio; /* its local APIC, then the VM's */
    struct device *lapic; /* set by the machine; reset by INIT through lapic_init_reset */
    void (*init_reset)(struct device *lapic);
    struct x86_cpuid cpuid;
    struct engine_vcpu *engine_vcpu;
    struct engine_stats stats;
    int64_t halted_ns; /* waited in HLT or for SIPI */
    int64_t run_ns;    /* inside engine->run() */
    pthread_t thread;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool started, paused_wanted, paused, quit;
    bool sleeping; /* waiting in HLT: a kick signals `changed` */
};

int vcpu_open(struct vcpu **vcpu, struct vm *vm, unsigned index, struct err *err) MUST_CHECK;
void vcpu_close(struct vcpu *vcpu);
int vcpu_start(struct vcpu *vcpu, struct err *err) MUST_CHECK; /* begins paused */
void vcpu_pause(struct vcpu *vcpu);  /* waits until it stands between instructions */
void vcpu_resume(struct vcpu *vcpu);
void vcpu_quit(struct vcpu *vcpu);   /* ends the thread and joins it */

#endif
