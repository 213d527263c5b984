/*
 * The host bridge at 00:00.0: Intel 82G33/Q35 MCH (8086:29c0; Intel 3 Series Express Chipset datasheet, section 5.1). PCIEXBAR
 * places the ECAM window; the rest tells the guest where RAM ends. PAM and SMRAM registers keep what is written, without effect: the
 * BIOS area is RAM from the start.
 */
#ifndef DEVICE_MCH_H
#define DEVICE_MCH_H

#include "core/device.h"

struct mch_conf {
    uint64_t ecam_base; /* where PCIEXBAR stands after a reset, as firmware would leave it */
};

extern const struct device_type mch_type;

#endif
