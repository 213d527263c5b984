/*
 * The chipset's ways to reset the machine: the Reset Control Register at 0xcf9 (ICH9 datasheet 13.7.5) and port 0x92, fast A20 and
 * INIT (13.7.3). A20 is never masked, as on processors that dropped the pin; its bit keeps what is written.
 */
#ifndef DEVICE_RESET_H
#define DEVICE_RESET_H

#include "core/device.h"

#define RESET_PORT  0xcf9
#define RESET_VALUE 0x06 /* SYS_RST | RST_CPU: what the FADT says to write */

extern const struct device_type reset_type;

#endif
