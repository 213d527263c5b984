/*
 * An address space of devices: port I/O or memory-mapped I/O. bus_access() is the one gate from CPU to device.
 *
 * A bus may stand in front of another: each vCPU has its own MMIO bus, which holds its local APIC and passes the rest
 * on to the VM's. What no region claims reads as ones and ignores writes. An access that spans regions is split.
 *
 * Threads: bus_access from any vCPU; regions may come and go meanwhile (PCI BARs move). A region's functions run
 * without the bus's lock and take their device's own.
 */
#ifndef CORE_BUS_H
#define CORE_BUS_H

#include <pthread.h>
#include <stdbool.h>

#include "base/err.h"

struct bus_region {
    uint64_t base, size;
    uint64_t (*read)(void *opaque, unsigned region, uint64_t off, unsigned len);
    void (*write)(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val);
    void *opaque;
    unsigned region; /* passed on: which of its regions a device is asked for */
};

struct bus {
    struct bus *next; /* asked for what this one does not claim; may be NULL */
    pthread_rwlock_t lock;
    struct bus_region *regions; /* sorted by base, disjoint */
    size_t n_regions;
};

void bus_init(struct bus *bus, struct bus *next);
void bus_fini(struct bus *bus);

/* Copies *region. -EEXIST when it overlaps one on this bus, -EINVAL when empty or beyond 2^64, -ENOMEM. */
int bus_add(struct bus *bus, const struct bus_region *region) MUST_CHECK;

/* Takes away the region that begins at `base`. */
void bus_remove(struct bus *bus, uint64_t base);

/* len: 1 to 8 bytes at `data`, little-endian; a read fills all of it. */
void bus_access(struct bus *bus, uint64_t addr, void *data, unsigned len, bool write);

#endif
