/*
 * The APIC bus: joins local APICs, the IOAPIC and message-signalled interrupts. It finds whom a message is for (SDM Vol. 3A
 * 11.6.2 and 11.12.9-10) and hands it over; it keeps no message.
 *
 * Threads: APICs join before the VM runs. Everything else from any thread, with or without a device's lock held: nothing
 * here takes a lock or waits, and neither does apic_cpu.deliver. EOIs go the other way (local APIC to IOAPIC) and take the
 * IOAPIC's lock, so whoever calls apic_bus_eoi() holds no lock that a deliverer takes.
 */
#ifndef DEVICE_APIC_BUS_H
#define DEVICE_APIC_BUS_H

#include <stdatomic.h>

#include "base/util.h"
#include "core/irq.h"
#include "core/irqchip.h"

#define APIC_BUS_MAX_CPUS 256

/* Delivery modes, as IOAPIC, MSI, ICR and LVT encode them (SDM Vol. 3A 11.6.1). */
enum apic_mode {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7,
};

enum apic_shorthand { APIC_NO_SHORTHAND, APIC_SELF, APIC_ALL, APIC_ALL_BUT_SELF };

struct apic_msg {
    uint32_t dest;
    bool wide;    /* dest has 32 bits (x2APIC), not 8 */
    bool logical; /* dest is a set of logical IDs */
    bool level;   /* level-triggered: its EOI is broadcast */
    uint8_t mode; /* enum apic_mode */
    uint8_t vector;
};

enum {
    APIC_CPU_ENABLED = 1 << 0,  /* by IA32_APIC_BASE: there at all */
    APIC_CPU_SOFTWARE = 1 << 1, /* by its spurious-vector register: takes fixed interrupts */
    APIC_CPU_X2APIC = 1 << 2,
    APIC_CPU_CLUSTER = 1 << 3, /* xAPIC logical IDs are in the cluster model (DFR) */
};

/* A local APIC as the bus sees it; kept up to date by its owner. */
struct apic_cpu {
    _Atomic uint32_t id;
    _Atomic uint8_t logical;  /* xAPIC logical ID: LDR bits 31:24 */
    _Atomic uint8_t flags;    /* APIC_CPU_ */
    _Atomic uint8_t priority; /* PPR */
    /* Whether it took the message. */
    bool (*deliver)(struct apic_cpu *cpu, const struct apic_msg *msg);
};

struct apic_bus {
    const struct irqchip *chip; /* the engine has the local APICs itself, and those here are their handles; or NULL */
    struct apic_cpu *cpus[APIC_BUS_MAX_CPUS];
    unsigned n_cpus;
    _Atomic unsigned turn; /* who is asked first where priorities tie */
    void (*eoi)(void *opaque, uint8_t vector);
    void *eoi_opaque;
};

/* -ENOSPC when the bus is full. */
int apic_bus_join(struct apic_bus *bus, struct apic_cpu *cpu) MUST_CHECK;
void apic_bus_leave(struct apic_bus *bus, struct apic_cpu *cpu);

/* Whether any local APIC took it. */
bool apic_bus_send(struct apic_bus *bus, const struct apic_msg *msg);

/* As a device's message would say it; false where none can. */
bool apic_bus_encode(const struct apic_msg *msg, uint64_t *addr, uint32_t *data);

/* An inter-processor interrupt; with a shorthand other than APIC_NO_SHORTHAND msg->dest does not count. */
void apic_bus_send_ipi(struct apic_bus *bus, struct apic_cpu *from, enum apic_shorthand shorthand,
                       const struct apic_msg *msg);

/* A level-triggered interrupt has been served. */
void apic_bus_eoi(struct apic_bus *bus, uint8_t vector);

/* Where devices send their messages (SDM Vol. 3A 11.11). Other addresses than 0xfeexxxxx are ignored. */
struct msi_sink apic_bus_msi(struct apic_bus *bus);

#endif
