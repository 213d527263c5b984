/*
 * ACPI power management of the ICH9 (ICH9 datasheet 13.8.3; ACPI 6.5 section 4.8): PM1 event and control block, PM timer, GPE0,
 * and the SMI command port that hands the hardware over to ACPI. There is no SMM: what firmware's handler would do is done here.
 */
#ifndef DEVICE_ACPI_PM_H
#define DEVICE_ACPI_PM_H

#include "core/device.h"

#define ACPI_PM_TIMER_HZ UINT64_C(3579545)
#define ACPI_PM_SIZE     0x80

/* Offsets in the block, for the FADT. */
enum { ACPI_PM1_EVT = 0x00, ACPI_PM1_CNT = 0x04, ACPI_PM_TMR = 0x08, ACPI_GPE0 = 0x20, ACPI_GPE0_LEN = 16 };

/* Port 0xb2 and what it takes; SLP_TYP of soft off. */
enum { ACPI_SMI_CMD = 0xb2, ACPI_ENABLE = 0x02, ACPI_DISABLE = 0x03, ACPI_SLP_TYP_S5 = 7 };

struct acpi_pm_conf {
    struct irq_line sci; /* level */
};

extern const struct device_type acpi_pm_type;

/* Puts the block at an I/O base (the LPC bridge's PMBASE), or nowhere when 0. */
void acpi_pm_move(struct device *dev, uint16_t base);

/* Sets a status bit of GPE0, 0 to 63, which the guest clears (ACPI 6.5 section 4.8.4.1). Any thread. */
void acpi_pm_raise_gpe(struct device *dev, unsigned n);

/* A short press on the power button. Any thread. */
void acpi_pm_press_button(struct device *dev);

#endif
