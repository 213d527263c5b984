/*
 * Interrupt controllers that an engine has itself, in place of the machine's devices: the local APICs alone, or the IOAPIC and the PICs too.
 * The devices (device/lapic.h, ioapic.h, pic.h) are there on every engine: where this is, they are its registers' way to reset and saved state,
 * and the machine's wires still end in them. So state moves between engines.
 *
 * Threads: send, line and what concerns wires from any, and they wait for nothing; the others on any while the vCPUs stand, but route, which the
 * IOAPIC calls under its lock whenever the guest has changed an entry.
 */
#ifndef CORE_IRQCHIP_H
#define CORE_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define IRQCHIP_LAPIC_SIZE  1024 /* bytes of a local APIC's page that hold registers */
#define IRQCHIP_IOAPIC_PINS 24

struct irqchip_lapic {
    uint64_t base;     /* IA32_APIC_BASE */
    uint64_t deadline; /* IA32_TSC_DEADLINE */
    /* Registers of 32 bits at multiples of 16 (SDM Vol. 3A table 11-1), in x2APIC mode too: there the ID has all 32 bits, ICR's halves as here. */
    uint8_t page[IRQCHIP_LAPIC_SIZE];
};

struct irqchip_ioapic {
    uint32_t id; /* the register */
    uint8_t select;
    uint32_t lines; /* that are high and have a request */
    uint64_t rte[IRQCHIP_IOAPIC_PINS];
};

/* One 8259A; see device/pic.c for the names. */
struct irqchip_pic {
    uint8_t lines, irr, imr, isr, elcr, highest, base, step;
    bool read_isr, poll, special_mask, rotate_on_aeoi, aeoi, sfnm, ic4;
};

struct irqchip {
    void *opaque;
    bool whole; /* with IOAPIC and PICs */
    /* vCPU `cpu`'s local APIC. 0 or -errno. */
    int (*lapic_get)(void *opaque, unsigned cpu, struct irqchip_lapic *lapic);
    int (*lapic_put)(void *opaque, unsigned cpu, const struct irqchip_lapic *lapic);
    /* A message (SDM Vol. 3A 11.11) to the local APICs; whether one took it. */
    bool (*send)(void *opaque, uint64_t addr, uint32_t data);
    /* Where not whole: a level-triggered entry of the IOAPIC sends this message, and wants to hear of its EOI; 0 and 0: it is none. */
    void (*route)(void *opaque, unsigned pin, uint64_t addr, uint32_t data);

    /* Where whole; of two PICs, `slave` says which. */
    void (*ioapic_line)(void *opaque, unsigned pin, bool level);
    void (*pic_line)(void *opaque, unsigned input, bool level);
    int (*ioapic_get)(void *opaque, struct irqchip_ioapic *ioapic);
    int (*ioapic_put)(void *opaque, const struct irqchip_ioapic *ioapic);
    int (*pic_get)(void *opaque, bool slave, struct irqchip_pic *pic);
    int (*pic_put)(void *opaque, bool slave, const struct irqchip_pic *pic);

    /*
     * A wire: an eventfd each write to which sends a message. Returns its number, or -errno where no more can be had: then send() is the way.
     * wire_set gives it its message; a wire that is closed stops at once. The descriptor stays the caller's.
     */
    int (*wire_open)(void *opaque, int fd);
    int (*wire_set)(void *opaque, int wire, uint64_t addr, uint32_t data);
    void (*wire_close)(void *opaque, int wire, int fd);
};

#endif
