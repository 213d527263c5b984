#include "device/apic_bus.h"

#include <errno.h>

#define BROADCAST_NARROW 0xff
#define BROADCAST_WIDE   UINT32_MAX
#define MSI_ADDRESS      UINT64_C(0xfee00000)

enum {
    MSI_ADDR_LOGICAL = 1 << 2,
    MSI_ADDR_REDIRECT = 1 << 3,
    MSI_DATA_ASSERT = 1 << 14,
    MSI_DATA_LEVEL = 1 << 15,
};

int apic_bus_join(struct apic_bus *bus, struct apic_cpu *cpu)
{
    if (bus->n_cpus == APIC_BUS_MAX_CPUS)
        return -ENOSPC;
    bus->cpus[bus->n_cpus++] = cpu;
    return 0;
}

void apic_bus_leave(struct apic_bus *bus, struct apic_cpu *cpu)
{
    for (unsigned i = 0; i < bus->n_cpus; i++)
        if (bus->cpus[i] == cpu) {
            bus->cpus[i] = bus->cpus[--bus->n_cpus];
            return;
        }
}

static bool matches_logical(const struct apic_cpu *cpu, uint8_t flags, uint32_t dest)
{
    if (flags & APIC_CPU_X2APIC) { /* LDR is derived: cluster ID[19:4], member 1 << ID[3:0] (SDM Vol. 3A 11.12.10.2) */
        uint32_t id = atomic_load_explicit(&cpu->id, memory_order_relaxed);
        return dest >> 16 == (id >> 4 & 0xffff) && (dest & 1u << (id & 15));
    }
    if (dest > 0xff)
        return false;
    uint8_t logical = atomic_load_explicit(&cpu->logical, memory_order_relaxed);
    if (flags & APIC_CPU_CLUSTER)
        return dest >> 4 == logical >> 4 && (dest & logical & 0xf);
    return dest & logical;
}

static bool matches(const struct apic_cpu *cpu, const struct apic_msg *msg)
{
    uint8_t flags = atomic_load_explicit(&cpu->flags, memory_order_relaxed);

    if (!(flags & APIC_CPU_ENABLED))
        return false;
    if (msg->dest == (msg->wide ? BROADCAST_WIDE : BROADCAST_NARROW))
        return true;
    if (msg->logical)
        return matches_logical(cpu, flags, msg->dest);
    return atomic_load_explicit(&cpu->id, memory_order_relaxed) == msg->dest;
}

/* Of those that match, the one at the lowest priority; where they tie, in turn. */
static bool send_lowest(struct apic_bus *bus, const struct apic_msg *msg, const struct apic_cpu *except, bool any)
{
    unsigned first = atomic_fetch_add_explicit(&bus->turn, 1, memory_order_relaxed);
    struct apic_cpu *best = NULL;
    uint8_t best_priority = 0;

    for (unsigned i = 0; i < bus->n_cpus; i++) {
        struct apic_cpu *cpu = bus->cpus[(first + i) % bus->n_cpus];
        uint8_t priority = atomic_load_explicit(&cpu->priority, memory_order_relaxed) >> 4;
        if (cpu == except || !(atomic_load_explicit(&cpu->flags, memory_order_relaxed) & APIC_CPU_SOFTWARE))
            continue;
        if ((any || matches(cpu, msg)) && (!best || priority < best_priority)) {
            best = cpu;
            best_priority = priority;
        }
    }
    return best && best->deliver(best, msg);
}

bool apic_bus_encode(const struct apic_msg *msg, uint64_t *addr, uint32_t *data)
{
    if (msg->dest > BROADCAST_NARROW)
        return false;
    *addr = MSI_ADDRESS | (uint64_t)msg->dest << 12 | (msg->logical ? MSI_ADDR_LOGICAL : 0);
    *data = msg->vector | (uint32_t)msg->mode << 8 | (msg->level ? MSI_DATA_LEVEL | MSI_DATA_ASSERT : 0);
    return true;
}

static bool send_to_chip(struct apic_bus *bus, const struct apic_msg *msg)
{
    uint64_t addr;
    uint32_t data;

    return apic_bus_encode(msg, &addr, &data) && bus->chip->send(bus->chip->opaque, addr, data);
}

bool apic_bus_send(struct apic_bus *bus, const struct apic_msg *msg)
{
    bool taken = false;

    if (bus->chip && msg->mode != APIC_EXTINT) /* which is a pin of the CPU's, and the engine asks for its vector */
        return send_to_chip(bus, msg);
    if (msg->mode == APIC_LOWEST)
        return send_lowest(bus, msg, NULL, false);
    for (unsigned i = 0; i < bus->n_cpus; i++)
        if (matches(bus->cpus[i], msg))
            taken |= bus->cpus[i]->deliver(bus->cpus[i], msg);
    return taken;
}

void apic_bus_send_ipi(struct apic_bus *bus, struct apic_cpu *from, enum apic_shorthand shorthand,
                       const struct apic_msg *msg)
{
    if (shorthand == APIC_NO_SHORTHAND) {
        apic_bus_send(bus, msg);
        return;
    }
    if (shorthand == APIC_SELF) {
        from->deliver(from, msg);
        return;
    }
    struct apic_cpu *except = shorthand == APIC_ALL_BUT_SELF ? from : NULL;
    if (msg->mode == APIC_LOWEST) {
        send_lowest(bus, msg, except, true);
        return;
    }
    for (unsigned i = 0; i < bus->n_cpus; i++)
        if (bus->cpus[i] != except &&
            (atomic_load_explicit(&bus->cpus[i]->flags, memory_order_relaxed) & APIC_CPU_ENABLED))
            bus->cpus[i]->deliver(bus->cpus[i], msg);
}

void apic_bus_eoi(struct apic_bus *bus, uint8_t vector)
{
    if (bus->eoi)
        bus->eoi(bus->eoi_opaque, vector);
}

static void msi_send(void *opaque, uint64_t addr, uint32_t data)
{
    struct apic_msg msg = {
        .dest = addr >> 12 & 0xff,
        .logical = addr & MSI_ADDR_LOGICAL,
        .level = data & MSI_DATA_LEVEL,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
    };

    if (addr >> 20 != 0xfee)
        return;
    if (msg.level && !(data & MSI_DATA_ASSERT)) /* a level goes away: nothing to deliver */
        return;
    if ((addr & MSI_ADDR_REDIRECT) && msg.mode == APIC_FIXED)
        msg.mode = APIC_LOWEST;
    if (msg.mode == APIC_SIPI) /* reserved in messages */
        return;
    apic_bus_send(opaque, &msg);
}

struct msi_sink apic_bus_msi(struct apic_bus *bus)
{
    return (struct msi_sink){.send = msi_send, .opaque = bus, .chip = bus->chip};
}
