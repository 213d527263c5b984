/*
 * The high-precision event timer (IA-PC HPET Specification 1.0a): a 64-bit counter at 100 MHz and three timers, each one-shot
 * or periodic, edge, level or by message.
 */
#ifndef DEVICE_HPET_H
#define DEVICE_HPET_H

#include "core/device.h"

#define HPET_BASE      UINT64_C(0xfed00000)
#define HPET_PERIOD_FS 10000000             /* femtoseconds a tick */
#define HPET_ID        UINT32_C(0x8086a201) /* low half of the capabilities, as ACPI's HPET table repeats it */
#define HPET_PINS      24

struct hpet_conf {
    struct irq_line pin[HPET_PINS]; /* the IOAPIC's inputs; those without a function cannot be chosen */
};

extern const struct device_type hpet_type;

/*
 * Where the PIT (n 0, to ISA IRQ 0) and the RTC (n 1, to ISA IRQ 8) drive their outputs: passed on, but while the legacy
 * replacement route gives those to timers 0 and 1.
 */
struct irq_line hpet_legacy_input(struct device *dev, unsigned n);

#endif
