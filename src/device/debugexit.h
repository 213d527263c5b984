/*
 * Port 0xf4, on request only: writing v ends the VM with status (v << 1) | 1, as QEMU's isa-debug-exit does. For test guests that
 * have no ACPI.
 */
#ifndef DEVICE_DEBUGEXIT_H
#define DEVICE_DEBUGEXIT_H

#include "core/device.h"

extern const struct device_type debugexit_type;

#endif
