/*
 * The LPC bridge at 00:1f.0: Intel ICH9 (8086:2918; ICH9 datasheet 13.1). It routes PCI's PIRQs, and says where the ACPI block and
 * the chipset's root complex registers lie. Registers stand as firmware would leave them.
 */
#ifndef DEVICE_LPC_H
#define DEVICE_LPC_H

#include "core/device.h"

#define LPC_N_PIRQS 8

struct lpc_conf {
    struct device *acpi_pm;
    struct irq_line gsi[LPC_N_PIRQS]; /* IOAPIC inputs 16-23 */
    struct irq_line pic[16]; /* where PIRQs routed to the PIC arrive; an input may have other drivers besides */
    uint16_t pm_base;
    uint64_t rcba;
};

extern const struct device_type lpc_type;

#endif
