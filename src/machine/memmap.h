/*
 * The guest-physical address map of the board, in one place: RAM below 2 GiB, the PCI hole, RAM from 4 GiB; and what firmware would
 * say about it. No state, any thread.
 */
#ifndef MACHINE_MEMMAP_H
#define MACHINE_MEMMAP_H

#include "base/util.h"
#include "core/ram.h"

#define MEMMAP_LOW_MAX (2 * GIB) /* where RAM below the PCI hole ends at the latest */

/* Conventional memory, and the BIOS area that holds our tables. */
#define MEMMAP_EBDA     UINT64_C(0x9fc00)
#define MEMMAP_BIOS     UINT64_C(0xe0000) /* RSDP: ACPI 6.5 section 5.2.5.1 */
#define MEMMAP_BIOS_END UINT64_C(0x100000)
#define MEMMAP_HIGH     UINT64_C(0x100000) /* first byte that kernels load at */

/* The PCI hole. 32-bit BARs lie between the ECAM's end and the IOAPIC. */
#define MEMMAP_ECAM_BASE UINT64_C(0xb0000000)
#define MEMMAP_ECAM_SIZE (256 * MIB)
#define MEMMAP_PCI32     UINT64_C(0xc0000000)
#define MEMMAP_PCI32_END UINT64_C(0xfec00000)
#define MEMMAP_IOAPIC    UINT64_C(0xfec00000)
#define MEMMAP_HPET      UINT64_C(0xfed00000)
#define MEMMAP_RCBA      UINT64_C(0xfed1c000)
#define MEMMAP_RCBA_SIZE (16 * KIB)
#define MEMMAP_LAPIC     UINT64_C(0xfee00000)

/* 64-bit BARs; RAM must end below. */
#define MEMMAP_PCI64     (512 * GIB)
#define MEMMAP_PCI64_END (768 * GIB)

/* Tables at the top of low RAM. */
#define MEMMAP_ACPI_SIZE (64 * KIB)

/* I/O ports that ACPI tells of. */
#define MEMMAP_PM_PORT 0x600

/* Address range types (ACPI 6.5 table 15.2). */
enum memmap_type { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2, MEMMAP_ACPI = 3 };

struct memmap_range {
    uint64_t base, size;
    enum memmap_type type;
};

#define MEMMAP_MAX_RANGES 8

/*
 * What E820 (or its like) tells a kernel: ranges sorted and disjoint. acpi_base and acpi_size: the tables at the top of low RAM,
 * whole pages. Returns how many of out[MEMMAP_MAX_RANGES] it filled.
 */
unsigned memmap_e820(const struct ram *ram, uint64_t acpi_base, uint64_t acpi_size, struct memmap_range *out);

#endif
