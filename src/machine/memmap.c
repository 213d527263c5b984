#include "machine/memmap.h"

unsigned memmap_e820(const struct ram *ram, uint64_t acpi_base, uint64_t acpi_size, struct memmap_range *out)
{
    unsigned n = 0;

    out[n++] = (struct memmap_range){0, MEMMAP_EBDA, MEMMAP_RAM};
    out[n++] = (struct memmap_range){MEMMAP_EBDA, 0xa0000 - MEMMAP_EBDA, MEMMAP_RESERVED};
    out[n++] = (struct memmap_range){MEMMAP_BIOS, MEMMAP_BIOS_END - MEMMAP_BIOS, MEMMAP_RESERVED};
    out[n++] = (struct memmap_range){MEMMAP_HIGH, acpi_base - MEMMAP_HIGH, MEMMAP_RAM};
    out[n++] = (struct memmap_range){acpi_base, acpi_size, MEMMAP_ACPI};
    out[n++] = (struct memmap_range){MEMMAP_ECAM_BASE, MEMMAP_ECAM_SIZE, MEMMAP_RESERVED};
    out[n++] = (struct memmap_range){MEMMAP_RCBA, MEMMAP_RCBA_SIZE, MEMMAP_RESERVED};
    if (ram->high)
        out[n++] = (struct memmap_range){RAM_HIGH_BASE, ram->high, MEMMAP_RAM};
    return n;
}
