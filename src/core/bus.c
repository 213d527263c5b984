#include "core/bus.h"

#include <errno.h>
#include <stdlib.h>

void bus_init(struct bus *bus, struct bus *next)
{
    *bus = (struct bus){.next = next};
    pthread_rwlock_init(&bus->lock, NULL);
}

void bus_fini(struct bus *bus)
{
    free(bus->regions);
    pthread_rwlock_destroy(&bus->lock);
}

/* Index of the first region that ends after `addr`. */
static size_t lower_bound(const struct bus *bus, uint64_t addr)
{
    size_t lo = 0, hi = bus->n_regions;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct bus_region *r = &bus->regions[mid];
        if (r->base + (r->size - 1) < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int bus_add(struct bus *bus, const struct bus_region *region)
{
    int r = 0;

    if (!region->size || region->base + (region->size - 1) < region->base)
        return -EINVAL;
    pthread_rwlock_wrlock(&bus->lock);
    size_t at = lower_bound(bus, region->base);
    if (at < bus->n_regions && bus->regions[at].base <= region->base + (region->size - 1)) {
        r = -EEXIST;
        goto unlock;
    }
    struct bus_region *regions = realloc(bus->regions, (bus->n_regions + 1) * sizeof(*regions));
    if (!regions) {
        r = -ENOMEM;
        goto unlock;
    }
    memmove(regions + at + 1, regions + at, (bus->n_regions - at) * sizeof(*regions));
    regions[at] = *region;
    bus->regions = regions;
    bus->n_regions++;
unlock:
    pthread_rwlock_unlock(&bus->lock);
    return r;
}

void bus_remove(struct bus *bus, uint64_t base)
{
    pthread_rwlock_wrlock(&bus->lock);
    size_t at = lower_bound(bus, base);
    if (at < bus->n_regions && bus->regions[at].base == base) {
        bus->n_regions--;
        memmove(bus->regions + at, bus->regions + at + 1, (bus->n_regions - at) * sizeof(*bus->regions));
    }
    pthread_rwlock_unlock(&bus->lock);
}

/* The region that claims `addr`, and how many of the `*len` bytes from there it (or the gap around it) answers for. */
static bool find(struct bus *bus, uint64_t addr, unsigned *len, struct bus_region *found)
{
    bool hit = false;
    uint64_t room = UINT64_MAX;

    pthread_rwlock_rdlock(&bus->lock);
    size_t at = lower_bound(bus, addr);
    if (at < bus->n_regions) {
        const struct bus_region *r = &bus->regions[at];
        hit = r->base <= addr;
        room = hit ? r->base + (r->size - 1) - addr + 1 : r->base - addr;
        if (hit)
            *found = *r;
    }
    pthread_rwlock_unlock(&bus->lock);
    if (room && room < *len) /* room is 0 where a region covers all 2^64 bytes */
        *len = (unsigned)room;
    return hit;
}

void bus_access(struct bus *bus, uint64_t addr, void *data, unsigned len, bool write)
{
    uint8_t *bytes = data;

    while (len) {
        struct bus_region r;
        unsigned n = len;
        if (find(bus, addr, &n, &r)) {
            uint64_t val = 0;
            if (write) {
                memcpy(&val, bytes, n);
                r.write(r.opaque, r.region, addr - r.base, n, val);
            } else {
                val = r.read(r.opaque, r.region, addr - r.base, n);
                memcpy(bytes, &val, n);
            }
        } else if (bus->next) {
            bus_access(bus->next, addr, bytes, n, write);
        } else if (!write) {
            memset(bytes, 0xff, n);
        }
        addr += n;
        bytes += n;
        len -= n;
    }
}
