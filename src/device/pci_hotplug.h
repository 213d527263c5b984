/*
 * Hot plug of PCI functions for guests with ACPI: ports in which the DSDT's methods find the slots that have changed (machine/dsdt.asl repeats the
 * layout), and write the slot that the guest has let go of. A general-purpose event tells them to look (ACPI 6.5 section 5.6.4).
 *
 * A slot's number is its device number on bus 0.
 */
#ifndef DEVICE_PCI_HOTPLUG_H
#define DEVICE_PCI_HOTPLUG_H

#include "core/device.h"

#define PCI_HOTPLUG_PORT 0xae00
#define PCI_HOTPLUG_SIZE 12
#define PCI_HOTPLUG_GPE  1

/* Dwords at the port, a bit a slot: come or to be let go of, cleared by writing ones; and let go of, written only. */
enum { PCI_HOTPLUG_UP = 0, PCI_HOTPLUG_DOWN = 4, PCI_HOTPLUG_EJECT = 8 };

struct pci_hotplug_conf {
    struct device *acpi_pm;
    /* The guest has let go of a slot that it was asked to. On a vCPU's thread, under this device's lock: hand it on. */
    void (*ejected)(void *opaque, unsigned slot);
    void *opaque;
};

extern const struct device_type pci_hotplug_type;

/* Tells the guest that something has come to the slot; or asks it to let go of what is there. Any thread. */
void pci_hotplug_added(struct device *dev, unsigned slot);
void pci_hotplug_ask(struct device *dev, unsigned slot);

#endif
