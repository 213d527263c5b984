/*
 * The 8254 programmable interval timer (Intel 8254 datasheet, order 231164) at ports 0x40-0x43, and the system control
 * port 0x61 that gates its channel 2 (ICH9 datasheet 13.7.1).
 */
#ifndef DEVICE_PIT_H
#define DEVICE_PIT_H

#include "core/device.h"

#define PIT_HZ 1193182

struct pit_conf {
    struct irq_line irq; /* OUT of channel 0: IRQ 0, by way of the HPET's legacy route */
};

extern const struct device_type pit_type;

#endif
