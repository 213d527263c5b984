/*
 * The keyboard controller (Intel 8042; IBM PS/2 Hardware Technical Reference, "Keyboard and auxiliary device controller") at ports
 * 0x60 and 0x64, with a keyboard that answers its commands and on which nobody types, and an auxiliary port with no device on it.
 * Pulsing the reset line (command 0xfe) resets the machine.
 */
#ifndef DEVICE_I8042_H
#define DEVICE_I8042_H

#include "core/device.h"

struct i8042_conf {
    struct irq_line kbd_irq;
    struct irq_line aux_irq;
};

extern const struct device_type i8042_type;

#endif
