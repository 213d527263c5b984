/*
 * The board: Intel Q35 with ICH9, as far as guests need it. Opens every device in order and wires them: ISA interrupts to PICs and
 * IOAPIC, PIRQs, SCI, LINT0, messages. One for each machine.
 *
 * Threads: opened and closed while no vCPU runs; wires are driven from any thread.
 */
#ifndef MACHINE_Q35_H
#define MACHINE_Q35_H

#include "core/pci.h"
#include "device/apic_bus.h"
#include "vm/vm.h"

struct q35_conf {
    bool debug_exit;
    /* The guest has let go of the PCI slot, as it was asked to. On a vCPU's thread, with locks held: hand it on. */
    void (*ejected)(void *opaque, unsigned slot);
    void *opaque;
};

/* Who drives an input of the PICs or the IOAPIC: it is up while any of them is. */
enum q35_driver { Q35_ISA, Q35_PIRQ, Q35_SCI, Q35_HPET };

struct board {
    struct vm *vm;
    struct pci_bus *pci;
    struct apic_bus apic_bus;
    struct device *pic, *ioapic, *hpet, *serial, *acpi_pm, *fwcfg, *hotplug;

    pthread_mutex_t wires;                    /* guards what follows; held on the way to PIC and IOAPIC */
    bool held;                                /* PIC and IOAPIC hear of nothing: see q35_hold_wires() */
    uint8_t pic_drivers[16], gsi_drivers[24]; /* a bit for each that is up */
};

int q35_open(struct board **board, struct vm *vm, const struct q35_conf *conf, struct err *err) MUST_CHECK;

/* After the VM's devices are closed. */
void q35_close(struct board *board);

/*
 * While a saved state is loaded: PIC and IOAPIC have their inputs' levels from it, and must not take for an edge what devices, one after the other, say of
 * theirs. When wires are let go, all inputs are at what their drivers have said.
 */
void q35_hold_wires(struct board *board, bool hold);

/* Saved state of what is no device's. */
void q35_state(struct board *board, struct stream *s);

/* What firmware would have set up before it starts a kernel. Devices have been reset. */
void q35_firmware_state(struct board *board);

#endif
