/*
 * The local APIC of one vCPU (SDM Vol. 3A chapter 11): xAPIC in memory, x2APIC in MSRs, timer, IPIs, the pins LINT0 and LINT1.
 * Version 0x14, six LVT entries (no CMCI), EOI-broadcast suppression.
 *
 * Where the engine has local APICs itself (env->irqchip), reset, lapic_virtual_wire() and state() are the engine's registers' too: state() takes
 * them from there and puts them there, in the same format. All vCPUs stand meanwhile.
 */
#ifndef DEVICE_LAPIC_H
#define DEVICE_LAPIC_H

#include "core/device.h"
#include "core/vcpu_port.h"
#include "device/apic_bus.h"

/* What the timer counts before its divider: the crystal that CPUID leaf 0x15 tells of. */
#define LAPIC_TIMER_HZ 1000000000

#define LAPIC_DEFAULT_BASE UINT64_C(0xfee00000)

struct lapic_conf {
    uint32_t apic_id;
    bool bsp;
    unsigned phys_bits;     /* IA32_APIC_BASE has no address bits from here on (CPUID 0x80000008) */
    struct vcpu_port *port; /* pins it drives; its apic and apic_ops are set by open */
    struct bus *mmio;       /* the vCPU's own: the register page comes and goes there */
    struct apic_bus *bus;
    /* Asked for the vector of an ExtINT. *pic may be set after open, before the VM runs; NULL: there is no PIC. */
    int (*pic_ack)(struct device *pic);
    struct device **pic;
};

extern const struct device_type lapic_type;

/* The pin LINTn, n 0 or 1. Any thread. */
struct irq_line lapic_lint(struct device *dev, unsigned n);

/*
 * INIT of the vCPU: all but APIC ID and IA32_APIC_BASE is as after power-on (SDM Vol. 3A 11.4.7.3). On the vCPU's own thread, or
 * while it stands.
 */
void lapic_init_reset(struct device *dev);

/*
 * Virtual wire mode as firmware leaves it on the boot processor (MultiProcessor Specification 3.6.2.2): enabled, LINT0 = ExtINT,
 * LINT1 = NMI. For boards that boot without firmware; after reset, while the vCPU stands.
 */
void lapic_virtual_wire(struct device *dev);

#endif
