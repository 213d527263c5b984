/*
 * PCI bus 0 and the functions on it (PCI Local Bus Specification 3.0 chapter 6): configuration space with write masks, BARs that
 * appear on the buses where the guest puts them, capabilities, INTx. Configuration is reached through ports 0xcf8/0xcfc, which the
 * bus claims, and through ECAM, which the host bridge maps with pci_ecam_read() and pci_ecam_write().
 *
 * A device owns its struct pci_func, usually inside its own state. It sets identity, masks, BARs and capabilities in open, before
 * pci_add(), and calls pci_func_reset() from its reset.
 *
 * Threads: any. Two locks, `lock` for configuration and `intx_lock` for the wires; both may be taken under a device's lock, and
 * `written` and `reading` are called under neither, so they may take their device's; `moved` takes no lock of a device's.
 */
#ifndef CORE_PCI_H
#define CORE_PCI_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/bus.h"
#include "core/irq.h"
#include "core/stream.h"

#define PCI_CONFIG_SIZE     256
#define PCI_N_BARS          6
#define PCI_N_DEVFN         256
#define PCI_N_PIRQS         8
#define PCI_DEVFN(slot, fn) ((uint8_t)((slot) << 3 | (fn)))

enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* three bytes: interface, sub-class, class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};

enum {
    PCI_COMMAND_IO = 1 << 0,
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_INTX_DISABLE = 1 << 10
};
enum { PCI_STATUS_INTX = 1 << 3, PCI_STATUS_CAPABILITIES = 1 << 4 };
enum { PCI_HEADER_MULTIFUNCTION = 0x80 };
enum { PCI_CAP_MSI = 0x05, PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11 };

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
    enum pci_bar_kind kind;
    struct bus_region region; /* base: where it is mapped now */
    bool mapped;
};

struct pci_bus;

struct pci_func {
    struct pci_bus *bus;
    uint8_t devfn;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t initial[PCI_CONFIG_SIZE];   /* config after a reset */
    uint8_t writable[PCI_CONFIG_SIZE];  /* bits the guest may write */
    uint8_t clearable[PCI_CONFIG_SIZE]; /* bits the guest clears by writing 1 */
    struct pci_bar bars[PCI_N_BARS];
    unsigned next_cap; /* free room for capabilities */
    uint8_t last_cap;  /* offset of the pointer to patch */
    bool intx;         /* the function drives its pin; under intx_lock */

    /* The guest wrote [off, off + len). May be NULL. */
    void (*written)(struct pci_func *func, unsigned off, unsigned len);
    /* The guest is about to read [off, off + len): pci_func_put() what it is to see. May be NULL. */
    void (*reading)(struct pci_func *func, unsigned off, unsigned len);
    /* BAR n is about to leave the buses, or has come to them: bars[n].region says where. Under the configuration's lock. May be NULL. */
    void (*moved)(struct pci_func *func, unsigned n, bool mapped);
    void *opaque;
};

/* Zeroes *func and gives it its identity; class: 0xCCSSPP. */
void pci_func_init(struct pci_func *func, uint16_t vendor, uint16_t device, uint32_t class, uint8_t revision);

/* Initial values, little-endian; len 1, 2 or 4. `writable`: the bits the guest may change. */
void pci_func_set(struct pci_func *func, unsigned off, unsigned len, uint32_t val, uint32_t writable);

/* size: a power of two, at least 16 (4 for I/O). base in `region` is ignored. A 64-bit BAR takes n + 1 too. */
void pci_func_set_bar(struct pci_func *func, unsigned n, enum pci_bar_kind kind, const struct bus_region *region);

/* Room for a capability of `len` bytes with its two-byte head; returns its offset, or -ENOSPC. */
int pci_func_add_cap(struct pci_func *func, uint8_t id, unsigned len) MUST_CHECK;

/* Configuration as at power-on: BARs leave the buses, the INTx pin is released. */
void pci_func_reset(struct pci_func *func);
void pci_func_state(struct pci_func *func, struct stream *s);

/* What the guest has set; and what the device itself changes. */
uint32_t pci_func_get(struct pci_func *func, unsigned off, unsigned len);
void pci_func_put(struct pci_func *func, unsigned off, unsigned len, uint32_t val);

/* Drives INTA# to INTD#, whichever PCI_INTERRUPT_PIN says. */
void pci_func_set_intx(struct pci_func *func, bool level);

/* PIRQ of a slot's pin (1 = INTA#): the board's wiring, which the ACPI tables repeat. */
static inline unsigned pci_pirq(unsigned slot, unsigned pin)
{
    return (slot + pin - 1) % PCI_N_PIRQS;
}

/* pirq: lines for PIRQA# to PIRQH#, set once before the VM runs. */
int pci_bus_open(struct pci_bus **bus, struct bus *pio, struct bus *mmio, struct err *err) MUST_CHECK;
/* When nothing uses the port bus any more, or that is gone already. */
void pci_bus_close(struct pci_bus *bus);
void pci_bus_state(struct pci_bus *bus, struct stream *s); /* of CONFIG_ADDRESS; functions have their own */
void pci_bus_set_pirq(struct pci_bus *bus, unsigned n, const struct irq_line *line);

/*
 * What lies at ports 0xcf8-0xcfb under CONFIG_ADDRESS, which answers to whole dwords only: narrower accesses go to this bus. The
 * chipset's reset register at 0xcf9 lives there.
 */
struct bus *pci_bus_narrow_ports(struct pci_bus *bus);

/* Puts a function on the bus until pci_remove(). -EEXIST and a message when there is one. */
int pci_add(struct pci_bus *bus, struct pci_func *func, uint8_t devfn, struct err *err) MUST_CHECK;
/* The function keeps its bus, for who works for it still: an interrupt pin then is a pin of nobody's. */
void pci_remove(struct pci_func *func);

/* Region functions of an ECAM window: opaque is the bus; 1 MiB a bus number, 4 KiB a function. */
uint64_t pci_ecam_read(void *opaque, unsigned region, uint64_t off, unsigned len);
void pci_ecam_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val);

#endif
