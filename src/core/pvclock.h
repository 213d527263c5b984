/*
 * The paravirtual clock: a structure in guest RAM, one a vCPU, with the numbers that turn its time-stamp counter into nanoseconds
 * since power-on; and the wall-clock time of power-on. Layout and protocol are those of KVM and Xen (Linux,
 * arch/x86/include/asm/pvclock-abi.h and Documentation/virt/kvm/x86/msr.rst): `version` is odd while the rest changes.
 *
 * A vCPU's TSC is the VM's clock in other units plus an offset, and stands still with it: so a structure that was written once stays
 * true until a TSC is moved. Its flag TSC_STABLE tells that one vCPU's structure serves all, which is so while no two offsets differ:
 * moving one vCPU's TSC rewrites the structures of all.
 *
 * Threads: joined and left while no vCPU runs; the rest from any. `lock` is held with no other and never for long.
 */
#ifndef CORE_PVCLOCK_H
#define CORE_PVCLOCK_H

#include <pthread.h>
#include <stdbool.h>

#include "core/clock.h"
#include "core/ram.h"
#include "core/vcpu_port.h"

#define PVCLOCK_TIME_SIZE 32 /* bytes of struct pvclock_vcpu_time_info */
#define PVCLOCK_WALL_SIZE 12 /* bytes of struct pvclock_wall_clock */
#define PVCLOCK_STABLE    1u /* in its flags: PVCLOCK_TSC_STABLE_BIT */

struct pvclock_vcpu;

/* A VM's. */
struct pvclock {
    struct ram *ram;
    struct clock *clock;
    pthread_mutex_t lock; /* guards what follows, and writing the structures */
    struct pvclock_vcpu *vcpus;
};

/* A vCPU's part in it: port->pvclock. */
struct pvclock_vcpu {
    struct pvclock *pvclock;
    struct vcpu_port *port;
    struct pvclock_vcpu *next;
    bool on;
    uint64_t gpa; /* while on: where the guest wants the structure */
};

void pvclock_init(struct pvclock *pv, struct ram *ram, struct clock *clock);
void pvclock_fini(struct pvclock *pv);
void pvclock_join(struct pvclock *pv, struct pvclock_vcpu *vcpu, struct vcpu_port *port);
void pvclock_leave(struct pvclock_vcpu *vcpu);

/*
 * Keeps the vCPU's structure at `gpa` from now on. A structure that is not all in one page of RAM is not written, as on KVM: what the
 * guest asks for there is no error.
 */
void pvclock_start(struct pvclock_vcpu *vcpu, uint64_t gpa);
void pvclock_stop(struct pvclock_vcpu *vcpu);

/* port->tsc_offset of this vCPU has changed. */
void pvclock_tsc_moved(struct pvclock_vcpu *vcpu);

/* Writes the host's wall-clock time of VM time 0 to the structure at `gpa`, with the same limits. */
void pvclock_write_wall(struct pvclock *pv, uint64_t gpa);

/* ns = ((ticks << shift) * mul) >> 32 for ticks of `hz`; a negative shift is to the right. hz: 1 to 2^62. */
void pvclock_scale(uint64_t hz, uint32_t *mul, int8_t *shift);

#endif
