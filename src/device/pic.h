/*
 * The pair of 8259A interrupt controllers (ICH9 datasheet 5.8; Intel 8259A datasheet, order 231468).
 * Ports 0x20/0x21 (master), 0xa0/0xa1 (slave, on the master's IR2), 0x4d0/0x4d1 (edge/level control).
 */
#ifndef DEVICE_PIC_H
#define DEVICE_PIC_H

#include "core/device.h"

struct pic_conf {
    struct irq_line intr; /* INTR of the master: LINT0 of the boot processor's local APIC */
};

extern const struct device_type pic_type;

/* Input n (0 to 15; 2 is the cascade and cannot be driven). */
struct irq_line pic_line(struct device *dev, unsigned n);

/* The INTA cycles: the vector, always; IR7 of the chip asked when its request has gone (8259A datasheet, "interrupt sequence"). */
int pic_ack(struct device *dev);

#endif
