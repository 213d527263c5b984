/* What a device asks of the machine as a whole. The request is noted and carried out by the VM's own thread. */
#ifndef CORE_POWER_H
#define CORE_POWER_H

enum power_request {
    POWER_OFF,   /* ACPI S5 */
    POWER_RESET, /* 0xcf9, port 0x92, i8042, FADT reset register */
    POWER_EXIT,  /* isa-debug-exit: the process ends with `status` */
};

struct power_sink {
    void (*request)(void *opaque, enum power_request what, int status);
    void *opaque;
};

static inline void power_request(const struct power_sink *sink, enum power_request what, int status)
{
    sink->request(sink->opaque, what, status);
}

#endif
