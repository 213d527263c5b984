/*
 * virtio over PCI (virtio 1.2 section 4.1), modern only: one 64-bit BAR with common configuration, ISR status, device configuration,
 * notifications and the MSI-X table. Each is a device (core/device.h) that the machine opens with the type it is to carry.
 */
#ifndef VIRTIO_VIRTIO_PCI_H
#define VIRTIO_VIRTIO_PCI_H

#include "virtio/virtio.h"

struct virtio_pci_conf {
    const struct virtio_type *type;
    const void *conf;    /* the type's own */
    struct iothread *io; /* where it works; the opener's to close, after the device */
    const char *name;    /* for messages, up to 31 characters; copied */
    uint8_t devfn;
};

extern const struct device_type virtio_pci_type;

/* The type's state in a device of virtio_pci_type. */
struct virtio *virtio_pci_of(struct device *dev);

/*
 * Stops and starts the device's work without the guest seeing it, around a pause of the VM: nothing of the guest's memory is touched in
 * between. Nest. The thread that pauses the VM; waits for what is under way.
 */
void virtio_pci_pause(struct device *dev);
void virtio_pci_resume(struct device *dev);

#endif
