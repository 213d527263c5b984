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
    /* IA32_APIC_BASE, IA32_TSC_DEADLINE and 0x800-0x8ff. 0, or -EPERM for #GP(0). */
    int (*msr_read)(void *apic, uint32_t msr, uint64_t *val);
    int (*msr_write)(void *apic, uint32_t msr, uint64_t val);
    /* CR8: bits 7:4 of the task priority register. */
    uint8_t (*cr8_get)(void *apic);
    void (*cr8_set)(void *apic, uint8_t tpr);
    /* tsc_offset has changed: a TSC deadline may be nearer than it was. On the vCPU's thread, after the change. */
    void (*tsc_moved)(void *apic);
};

struct vcpu_port {
    _Atomic uint32_t pending; /* PIN_ bits */
    _Atomic uint8_t sipi_vector;
    _Atomic uint64_t tsc_offset; /* guest TSC - clock_tsc(); written by the engine (IA32_TSC, IA32_TSC_ADJUST) */
    void (*kick)(void *vcpu);    /* set by the VM */
    void *vcpu;
    const struct vcpu_apic_ops *apic_ops; /* set by the local APIC */
    void *apic;
};

static inline void vcpu_port_raise(struct vcpu_port *port, uint32_t pins)
{
    uint32_t old = atomic_fetch_or(&port->pending, pins);
    if ((old & pins) != pins && port->kick)
        port->kick(port->vcpu);
}

static inline void vcpu_port_lower(struct vcpu_port *port, uint32_t pins)
{
    atomic_fetch_and(&port->pending, ~pins);
}

#endif
