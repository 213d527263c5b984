/*
 * Model-specific registers as RDMSR and WRMSR see them (SDM Vol. 4 chapter 2), for every engine. An MSR that is not here, a
 * reserved bit or a non-canonical address is #GP(0). The local APIC's MSRs go to the APIC, those of KVM's clock to core/pvclock.h.
 *
 * Threads: the vCPU's own.
 */
#ifndef X86_MSR_H
#define X86_MSR_H

#include "core/clock.h"
#include "core/vcpu_port.h"
#include "x86/cpuid.h"
#include "x86/state.h"

#define X86_MSR_EFER 0xc0000080u

/* KVM's (Linux, Documentation/virt/kvm/x86/msr.rst), which CPUID leaf 0x40000001 announces. */
#define MSR_KVM_WALL_CLOCK_NEW  0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

struct msr_env {
    struct x86_state *st;
    const struct x86_cpuid *cpuid;
    struct vcpu_port *port;
    struct clock *clock;
};

/* 0, or -EPERM for #GP(0). An engine looks at st->efer after a write: it may have changed what paging does. */
int msr_read(const struct msr_env *env, uint32_t msr, uint64_t *val) MUST_CHECK;
int msr_write(const struct msr_env *env, uint32_t msr, uint64_t val) MUST_CHECK;

/* An engine's set() calls it with the vCPU's new state: brings in line what MSRs stand for outside of it. */
void msr_state_set(const struct x86_state *st, struct vcpu_port *port);

/* The time-stamp counter of this CPU now. */
uint64_t msr_tsc(const struct msr_env *env);

#endif
