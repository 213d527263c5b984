/*
 * The firmware's part of PCI, which kernels that are loaded directly still rely on: every BAR of bus 0 gets its place, memory and I/O decoding are
 * on, PCI_INTERRUPT_LINE tells which PIC input a pin is wired to, and those inputs are level-triggered. 64-bit BARs go below 4 GiB too, so that guests
 * without paging reach them, as far as there is room. What a driver turns on - bus mastering, MSI - stays off.
 *
 * No state; while no vCPU runs, after the devices' reset. It works through ports 0xcf8 and 0xcfc as firmware would.
 */
#ifndef MACHINE_PCI_SETUP_H
#define MACHINE_PCI_SETUP_H

#include "core/bus.h"

#define PCI_SETUP_IO     UINT64_C(0x1000) /* I/O BARs from here to the end of the ports */
#define PCI_SETUP_IO_END UINT64_C(0x10000)

void pci_setup(struct bus *pio);

#endif
