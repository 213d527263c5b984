/*
 * The board's devices through their buses: random accesses to ports, MMIO, configuration space and APIC MSRs, the interrupt acknowledge,
 * with the timers that the guest arms firing on the loop's thread meanwhile.
 *
 * The input is a list of operations of up to 13 bytes: kind and width, place, address offset (4), value (8 for writes).
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuzz.h"
#include "machine/memmap.h"
#include "machine/q35.h"

static struct vm vm;
static struct board *board;

/* The guest may ask for the end of the machine; here it goes on. */
static void ignore_power(void *opaque, enum power_request what, int status)
{
}

static void *serve(void *opaque)
{
    loop_run(vm.loop);
    return NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err = {0};
    const struct engine_type *engine = engine_find("interp", &err);
    pthread_t thread;

    if (!engine)
        abort();
    const struct vm_conf conf = {
        .engine = engine, .ram_size = 16 * MIB, .ram_low_max = MEMMAP_LOW_MAX, .n_vcpus = 2, .crystal_hz = 25000000};
    if (vm_open(&vm, &conf, &err))
        abort();
    vm.env.power = (struct power_sink){.request = ignore_power};
    if (q35_open(&board, &vm, &(struct q35_conf){.debug_exit = true}, &err))
        abort();
    clock_start(&vm.clock);
    return pthread_create(&thread, NULL, serve, NULL) ? -1 : 0;
}

/* Where something is, or nearly; the input's offset is added. */
static const uint64_t places[] = {
    0x20,
    0x40,
    0x60,
    0x70,
    0x92,
    0xa0,
    0xf4,
    0x3f8,
    0x4d0,
    MEMMAP_PM_PORT,
    0xcf8,
    0xcf9,
    0xcfc,
    MEMMAP_ECAM_BASE,
    MEMMAP_ECAM_BASE + (31 << 15),
    MEMMAP_PCI32,
    MEMMAP_IOAPIC,
    MEMMAP_IOAPIC + 0x10,
    MEMMAP_HPET,
    MEMMAP_HPET + 0x100,
    MEMMAP_RCBA,
    MEMMAP_LAPIC,
    MEMMAP_LAPIC + 0x300,
    MEMMAP_LAPIC + 0x380,
    UINT64_MAX - 16,
    0xffffffff,
};

struct reader {
    const uint8_t *data;
    size_t size;
};

static uint64_t take(struct reader *in, unsigned bytes)
{
    uint64_t val = 0;
    unsigned n = bytes < in->size ? bytes : (unsigned)in->size;

    memcpy(&val, in->data, n);
    in->data += n;
    in->size -= n;
    return val;
}

static void access_msr(struct vcpu_port *port, uint32_t msr, uint64_t val, bool write)
{
    if (write) {
        (void)port->apic_ops->msr_write(port->apic, msr, val);
    } else {
        (void)port->apic_ops->msr_read(port->apic, msr, &val);
    }
}

static void operate(struct reader *in)
{
    unsigned kind = (unsigned)take(in, 1), place = (unsigned)take(in, 1);
    struct vcpu *vcpu = vm.vcpus[kind >> 6 & 1];
    uint64_t addr = places[place % ARRAY_SIZE(places)];
    unsigned width = 1u << (kind >> 4 & 3);
    bool write = kind & 8;
    uint64_t offset = place & 0x80 ? take(in, 2) : take(in, 1) & 0x1f;
    uint64_t val = write ? take(in, width) : 0;

    switch (kind & 7) {
    case 0:
    case 1:
    case 2:
        bus_access(&vm.pio, (addr + offset) & 0xffff, &val, width > 4 ? 4 : width, write);
        break;
    case 3:
    case 4:
        bus_access(&vcpu->mmio, addr + offset, &val, width, write);
        break;
    case 5:
        access_msr(&vcpu->port,
                   place & 0x40 ? 0x800 + (uint32_t)(offset & 0xff)
                   : place & 1  ? 0x1b
                                : 0x6e0,
                   val, write);
        break;
    case 6:
        if (write)
            vcpu->port.apic_ops->cr8_set(vcpu->port.apic, val & 15);
        else if (atomic_load(&vcpu->port.pending) & PIN_INTR)
            (void)vcpu->port.apic_ops->ack(vcpu->port.apic);
        break;
    case 7: /* let a timer fire */
        usleep(place & 63);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader in = {data, size < 2048 ? size : 2048};

    while (in.size)
        operate(&in);
    for (struct device *dev = vm.devices; dev; dev = dev->next)
        device_reset(dev);
    for (unsigned i = 0; i < vm.conf.n_vcpus; i++)
        atomic_store(&vm.vcpus[i]->port.pending, 0);
    return 0;
}
