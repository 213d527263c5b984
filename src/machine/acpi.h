/*
 * The ACPI tables of the board (ACPI 6.5 chapter 5; PCI Firmware Specification for MCFG; IA-PC HPET Specification 3.2.4): RSDP in the
 * BIOS area, XSDT, FADT, FACS, DSDT, MADT, MCFG and HPET at the top of low RAM. Written at each boot; the guest may then do to them
 * what it likes. No state.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include "base/err.h"
#include "core/ram.h"

struct acpi_conf {
    uint64_t base; /* guest-physical, 64-byte aligned */
    uint64_t size;
    unsigned n_cpus; /* APIC IDs 0 to n - 1 */
};

/* *rsdp: where the root pointer is. -ENOSPC where they do not fit, -EFAULT where there is no RAM. */
int acpi_write(struct ram *ram, const struct acpi_conf *conf, uint64_t *rsdp, struct err *err) MUST_CHECK;

#endif
