/*
 * A 16550A serial port (National PC16550D datasheet): 16-byte FIFOs both ways, all registers, loopback and modem lines. The world's
 * end of the wire is a chardev; to the guest it is a terminal that is always on (CTS, DSR and DCD asserted).
 */
#ifndef DEVICE_SERIAL_H
#define DEVICE_SERIAL_H

#include "core/device.h"

#define SERIAL_COM1 0x3f8

struct serial_conf {
    uint16_t port;
    struct irq_line irq;
};

extern const struct device_type serial_type;

/* Joins the port to a chardev; at most once, before the VM runs. The chardev stays the caller's, and must outlive the last access. */
void serial_connect(struct device *dev, struct chardev *chardev);

#endif
