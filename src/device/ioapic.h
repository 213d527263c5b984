/* The I/O APIC (Intel 82093AA datasheet; ICH9 datasheet 13.5): 24 pins, version 0x20, which adds the EOI register. */
#ifndef DEVICE_IOAPIC_H
#define DEVICE_IOAPIC_H

#include "core/device.h"
#include "device/apic_bus.h"

#define IOAPIC_BASE UINT64_C(0xfec00000)
#define IOAPIC_PINS IRQCHIP_IOAPIC_PINS

struct ioapic_conf {
    struct apic_bus *bus; /* the IOAPIC becomes the one that hears of EOIs there */
};

extern const struct device_type ioapic_type;

/* Input pin n, below IOAPIC_PINS. Any thread. */
struct irq_line ioapic_line(struct device *dev, unsigned n);

#endif
