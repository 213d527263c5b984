/*
 * The MSI-X capability of a PCI function (PCI Local Bus Specification 3.0 section 6.8.2): a table of messages and the bits of those that
 * wait behind a mask, both in a memory BAR. Where the engine has wires for messages, each vector that is sent gets one. The function's owner passes accesses to them on, and says when configuration was written.
 *
 * Threads: any. One lock, a leaf but for the message's way to a CPU.
 */
#ifndef CORE_PCI_MSIX_H
#define CORE_PCI_MSIX_H

#include "core/pci.h"

#define PCI_MSIX_MAX           128 /* vectors */
#define PCI_MSIX_ENTRY_SIZE    16
#define PCI_MSIX_TABLE_SIZE(n) ((n)*PCI_MSIX_ENTRY_SIZE) /* bytes in the BAR */

/* A vector's way past this code: an eventfd that the engine turns into its message. */
struct pci_msix_wire {
    int fd, wire;  /* fd -1: none */
    uint64_t addr; /* the message that the engine has */
    uint32_t data;
};

struct pci_msix {
    struct pci_func *func;
    const struct msi_sink *sink;
    unsigned n;
    int cap; /* its offset in configuration space */

    pthread_mutex_t lock; /* guards what follows */
    bool enabled, masked, master;
    uint8_t table[PCI_MSIX_MAX * PCI_MSIX_ENTRY_SIZE];
    uint64_t pending[PCI_MSIX_MAX / 64];
    struct pci_msix_wire *wires; /* n of them, or NULL: all goes to the sink */
};

/* Adds the capability to `func`, before pci_add(). n: 1 to PCI_MSIX_MAX vectors; offsets into the BAR: multiples of 8. sink: the machine's. */
int pci_msix_init(struct pci_msix *msix, struct pci_func *func, const struct msi_sink *sink, unsigned n, unsigned bar,
                  uint32_t table_off, uint32_t pba_off) MUST_CHECK;
void pci_msix_fini(struct pci_msix *msix);

/* Accesses to table and pending bits, by offset into either; any width. */
uint64_t pci_msix_table_read(struct pci_msix *msix, uint64_t off, unsigned len);
void pci_msix_table_write(struct pci_msix *msix, uint64_t off, unsigned len, uint64_t val);
uint64_t pci_msix_pba_read(struct pci_msix *msix, uint64_t off, unsigned len);

/* From the function's `written`. */
void pci_msix_written(struct pci_msix *msix);

/* Whether the guest uses MSI-X; then INTx stands still. */
bool pci_msix_enabled(struct pci_msix *msix);

/*
 * Sends vector n, or keeps it while it is masked or the function may not master the bus. A vector that is not there is none. false, and nothing done,
 * where the guest does not use MSI-X: the interrupt goes another way.
 */
bool pci_msix_send(struct pci_msix *msix, unsigned n);

/* After pci_func_reset() and pci_func_state(). */
void pci_msix_reset(struct pci_msix *msix);
void pci_msix_state(struct pci_msix *msix, struct stream *s);

#endif
