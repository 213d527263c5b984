/*
 * The pins of a virtual CPU's package, and its local APIC as the CPU sees it: all that joins an engine to the machine
 * around it besides the buses.
 *
 * Threads: pins may be raised from any thread, and never wait. The engine polls `pending` between instructions;
 * `kick` makes it look soon, and wakes the vCPU's thread from a halt.
 */
#ifndef CORE_VCPU_PORT_H
#define CORE_VCPU_PORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    PIN_INTR = 1 << 0, /* level: the local APIC (or the PIC, through LINT0) has a vector to deliver */
    PIN_NMI = 1 << 1,  /* edge: cleared by the engine when taken */
    PIN_INIT = 1 << 2, /* edge: handled by the VM's vCPU thread, as are the ones below; the engine returns KICKED */
    PIN_SIPI = 1 << 3, /* start-up vector in sipi_vector */
    PIN_KICK = 1 << 4, /* the VM wants the thread out of the guest */
};

struct vcpu_apic_ops {
    /* Interrupt acknowledge: takes the vector and updates PIN_INTR; -1 if there is none after all. */
    int (*ack)(void *apic);
    /* Takes back an ack() whose vector has not reached the guest; false where it was not the local APIC's own. NULL: never. */
    bool (*unack)(void *apic, uint8_t vector);
    /* IA32_APIC_BASE, IA32_TSC_DEADLINE and 0x800-0x8ff. 0, or -EPERM for #GP(0). */
    int (*msr_read)(void *apic, uint32_t msr, uint64_t *val);
    int (*msr_write)(void *apic, uint32_t msr, uint64_t val);
    /* CR8: bits 7:4 of the task priority register. */
    uint8_t (*cr8_get)(void *apic);
    void (*cr8_set)(void *apic, uint8_t tpr);
    /* tsc_offset has changed: a TSC deadline may be nearer than it was. On the vCPU's thread, after the change. */
    void (*tsc_moved)(void *apic);
    /* Where the engine has the local APIC itself: a level-triggered interrupt of this vector has been served. Else NULL. */
    void (*eoi)(void *apic, uint8_t vector);
};

struct pvclock_vcpu; /* core/pvclock.h */

struct vcpu_port {
    _Atomic uint32_t pending; /* PIN_ bits */
    _Atomic uint8_t sipi_vector;
    _Atomic uint8_t nmis;        /* not yet taken, at most 2: one about to be, one latched behind it */
    _Atomic uint64_t tsc_offset; /* guest TSC - clock_tsc(); written by the engine (IA32_TSC, IA32_TSC_ADJUST) */
    void (*kick)(void *vcpu);    /* set by the VM */
    void *vcpu;
    const struct vcpu_apic_ops *apic_ops; /* set by the local APIC */
    void *apic;
    struct pvclock_vcpu *pvclock; /* the guest's paravirtual clock; NULL where there is none */
};

/*
 * NMIs that come close together: a CPU takes the first at once and latches one more (SDM Vol. 3A 6.7.1). Ours may be late to look, so
 * that both can wait here.
 */
static inline void vcpu_port_count_nmi(struct vcpu_port *port)
{
    uint8_t n = atomic_load(&port->nmis);
    while (n < 2 && !atomic_compare_exchange_weak(&port->nmis, &n, n + 1))
        ;
}

static inline void vcpu_port_raise(struct vcpu_port *port, uint32_t pins)
{
    if (pins & PIN_NMI)
        vcpu_port_count_nmi(port);
    uint32_t old = atomic_fetch_or(&port->pending, pins);
    if ((old & pins) != pins && port->kick)
        port->kick(port->vcpu);
}

static inline void vcpu_port_lower(struct vcpu_port *port, uint32_t pins)
{
    if (pins & PIN_NMI)
        atomic_store(&port->nmis, 0);
    atomic_fetch_and(&port->pending, ~pins);
}

/* The engine takes one NMI; PIN_NMI stays up where another waits. */
static inline void vcpu_port_take_nmi(struct vcpu_port *port)
{
    atomic_fetch_and(&port->pending, ~(uint32_t)PIN_NMI);
    uint8_t n = atomic_load(&port->nmis);
    while (n && !atomic_compare_exchange_weak(&port->nmis, &n, n - 1))
        ;
    if (n > 1)
        atomic_fetch_or(&port->pending, PIN_NMI);
}

/* NMIs are no longer blocked: of those that came meanwhile, a CPU has latched one. */
static inline void vcpu_port_unblock_nmi(struct vcpu_port *port)
{
    uint8_t two = 2;
    atomic_compare_exchange_strong(&port->nmis, &two, 1);
}

#endif
