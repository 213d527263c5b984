/*
 * The MC146818 real-time clock and its CMOS RAM at ports 0x70/0x71 (Motorola MC146818A datasheet; ICH9 datasheet 13.6).
 * Time is UTC: the host's wall clock, plus what the guest has set it by.
 */
#ifndef DEVICE_RTC_H
#define DEVICE_RTC_H

#include "core/device.h"

struct rtc_conf {
    struct irq_line irq; /* IRQ 8, by way of the HPET's legacy route */
    uint64_t ram_low,
        ram_high;    /* bytes of RAM below the PCI hole and from 4 GiB: firmware looks for them in the CMOS */
    unsigned n_cpus; /* likewise, CMOS byte 0x5f */
    int64_t (*wall_ns)(void *); /* the wall clock, ns since 1970; NULL: the host's CLOCK_REALTIME */
    void *wall_opaque;
};

extern const struct device_type rtc_type;

#endif
