/*
 * Doorbells: guest-physical addresses outside RAM, a write to which an engine turns into a write to an eventfd, whatever is written. The guest goes on
 * at once; who waits for the eventfd does what the write is for. Where an engine offers none, the write comes by the bus.
 *
 * Threads: any.
 */
#ifndef CORE_DOORBELL_H
#define CORE_DOORBELL_H

#include <stdbool.h>
#include <stdint.h>

struct doorbells {
    void *opaque;
    /* `len`: bytes of the usual write. on: 0 or -errno, where there are too many; off takes back what was on, with the same address and descriptor. */
    int (*set)(void *opaque, uint64_t gpa, unsigned len, int fd, bool on);
};

#endif
