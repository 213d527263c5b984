#include "core/pci.h"

#include <errno.h>
#include <stdlib.h>

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define ADDRESS_ENABLE (UINT32_C(1) << 31)
#define ADDRESS_MASK   UINT32_C(0x80fffffc)
#define FIRST_CAP      0x40
#define NO_PIN         0

struct pci_bus {
    struct bus *pio, *mmio;
    struct bus narrow;    /* under CONFIG_ADDRESS */
    pthread_mutex_t lock; /* configuration, BARs, CONFIG_ADDRESS */
    uint32_t address;
    struct pci_func *funcs[PCI_N_DEVFN];

    pthread_mutex_t intx_lock; /* INTx pins */
    struct irq_line pirq[PCI_N_PIRQS];
};

void pci_func_init(struct pci_func *func, uint16_t vendor, uint16_t device, uint32_t class, uint8_t revision)
{
    *func = (struct pci_func){.next_cap = FIRST_CAP, .last_cap = PCI_CAPABILITIES};
    pci_func_set(func, PCI_VENDOR_ID, 2, vendor, 0);
    pci_func_set(func, PCI_DEVICE_ID, 2, device, 0);
    pci_func_set(func, PCI_REVISION, 4, class << 8 | revision, 0);
    pci_func_set(func, PCI_COMMAND, 2, 0,
                 PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    pci_func_set(func, PCI_INTERRUPT_LINE, 1, 0, 0xff);
}

void pci_func_set(struct pci_func *func, unsigned off, unsigned len, uint32_t val, uint32_t writable)
{
    for (unsigned i = 0; i < len && off + i < PCI_CONFIG_SIZE; i++) {
        func->initial[off + i] = (uint8_t)(val >> (8 * i));
        func->writable[off + i] = (uint8_t)(writable >> (8 * i));
    }
    memcpy(func->config, func->initial, sizeof(func->config));
}

void pci_func_set_bar(struct pci_func *func, unsigned n, enum pci_bar_kind kind, const struct bus_region *region)
{
    static const uint8_t type_bits[] = {[PCI_BAR_IO] = 1, [PCI_BAR_MEM32] = 0, [PCI_BAR_MEM64] = 4};
    uint64_t mask = ~(region->size - 1);

    func->bars[n] = (struct pci_bar){.kind = kind, .region = *region};
    pci_func_set(func, PCI_BAR0 + 4 * n, 4, type_bits[kind], (uint32_t)mask);
    if (kind == PCI_BAR_MEM64)
        pci_func_set(func, PCI_BAR0 + 4 * n + 4, 4, 0, (uint32_t)(mask >> 32));
}

int pci_func_add_cap(struct pci_func *func, uint8_t id, unsigned len)
{
    unsigned at = func->next_cap;

    if (len < 2 || len > PCI_CONFIG_SIZE - at)
        return -ENOSPC;
    func->next_cap = (unsigned)align_up(at + len, 4);
    pci_func_set(func, at, 1, id, 0);
    pci_func_set(func, func->last_cap, 1, at, 0);
    pci_func_set(func, PCI_STATUS, 2, PCI_STATUS_CAPABILITIES, 0);
    func->last_cap = (uint8_t)(at + 1);
    return (int)at;
}

/* ---- BARs ---- */

static struct bus *bar_bus(const struct pci_func *func, const struct pci_bar *bar)
{
    return bar->kind == PCI_BAR_IO ? func->bus->pio : func->bus->mmio;
}

/* Where the guest wants it, or false where it does not or the address makes no sense. */
static bool bar_wanted(const struct pci_func *func, unsigned n, uint64_t *base)
{
    const struct pci_bar *bar = &func->bars[n];
    uint16_t command = load_le16(func->config + PCI_COMMAND);
    const uint8_t *raw = func->config + PCI_BAR0 + 4 * n;
    uint64_t mask = ~(bar->region.size - 1);

    switch (bar->kind) {
    case PCI_BAR_IO:
        *base = load_le32(raw) & mask & ~UINT64_C(3);
        return (command & PCI_COMMAND_IO) && *base && *base + bar->region.size <= 0x10000;
    case PCI_BAR_MEM32:
        *base = load_le32(raw) & mask & ~UINT64_C(15);
        return (command & PCI_COMMAND_MEMORY) && *base;
    case PCI_BAR_MEM64:
        *base = load_le64(raw) & mask & ~UINT64_C(15);
        return (command & PCI_COMMAND_MEMORY) && *base;
    default:
        return false;
    }
}

static void take_off(struct pci_func *func, unsigned n)
{
    struct pci_bar *bar = &func->bars[n];

    if (!bar->mapped)
        return;
    if (func->moved)
        func->moved(func, n, false);
    bus_remove(bar_bus(func, bar), bar->region.base);
    bar->mapped = false;
}

static void put_on(struct pci_func *func, unsigned n, uint64_t base)
{
    struct pci_bar *bar = &func->bars[n];

    if (bar->mapped)
        return;
    bar->region.base = base;
    bar->mapped = bus_add(bar_bus(func, bar), &bar->region) == 0;
    if (bar->mapped && func->moved)
        func->moved(func, n, true);
}

/* A BAR put over something else stays off the bus: the first claimant answers. That hurts only the guest that did it. */
static void update_bars(struct pci_func *func)
{
    for (unsigned n = 0; n < PCI_N_BARS; n++) {
        struct pci_bar *bar = &func->bars[n];
        uint64_t base;
        bool wanted = bar_wanted(func, n, &base);

        if (!wanted || base != bar->region.base)
            take_off(func, n);
        if (wanted)
            put_on(func, n, base);
    }
}

/* A BAR that moved away may uncover one that was refused its place. */
static void update_all_bars(struct pci_bus *bus)
{
    for (unsigned i = 0; i < PCI_N_DEVFN; i++)
        if (bus->funcs[i])
            update_bars(bus->funcs[i]);
}

/* ---- INTx ---- */

static bool asserts(const struct pci_func *func)
{
    uint16_t command = load_le16(func->config + PCI_COMMAND);
    return func->intx && !(command & PCI_COMMAND_INTX_DISABLE);
}

/* The wire is the OR of all pins on it. */
static void update_pirq(struct pci_bus *bus, const struct pci_func *func)
{
    unsigned pin = func->config[PCI_INTERRUPT_PIN];
    bool level = false;

    if (pin == NO_PIN)
        return;
    pthread_mutex_lock(&bus->intx_lock);
    unsigned pirq = pci_pirq(func->devfn >> 3, pin);
    pthread_mutex_lock(&bus->lock);
    for (unsigned i = 0; i < PCI_N_DEVFN; i++) {
        const struct pci_func *f = bus->funcs[i];
        if (f && f->config[PCI_INTERRUPT_PIN] != NO_PIN && pci_pirq(i >> 3, f->config[PCI_INTERRUPT_PIN]) == pirq)
            level |= asserts(f);
    }
    pthread_mutex_unlock(&bus->lock);
    irq_set(&bus->pirq[pirq], level);
    pthread_mutex_unlock(&bus->intx_lock);
}

void pci_func_set_intx(struct pci_func *func, bool level)
{
    struct pci_bus *bus = func->bus;

    pthread_mutex_lock(&bus->lock);
    bool changed = func->intx != level;
    func->intx = level;
    if (level)
        func->config[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        func->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    pthread_mutex_unlock(&bus->lock);
    if (changed)
        update_pirq(bus, func);
}

/* ---- configuration space ---- */

void pci_func_reset(struct pci_func *func)
{
    pthread_mutex_lock(&func->bus->lock);
    memcpy(func->config, func->initial, sizeof(func->config));
    func->intx = false;
    update_all_bars(func->bus);
    pthread_mutex_unlock(&func->bus->lock);
    update_pirq(func->bus, func);
}

void pci_func_state(struct pci_func *func, struct stream *s)
{
    uint8_t config[PCI_CONFIG_SIZE];
    struct pci_bus *bus = func->bus;

    pthread_mutex_lock(&bus->lock);
    memcpy(config, func->config, sizeof(config));
    stream_bytes(s, config, sizeof(config));
    stream_bool(s, &func->intx);
    if (s->loading && !s->error) {
        func->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
        func->config[PCI_STATUS] |= func->intx ? PCI_STATUS_INTX : 0;
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) /* identity and masks are not the stream's to change */
            if (func->writable[i])
                func->config[i] = (uint8_t)((func->initial[i] & ~func->writable[i]) | (config[i] & func->writable[i]));
        update_all_bars(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    if (s->loading)
        update_pirq(bus, func);
}

uint32_t pci_func_get(struct pci_func *func, unsigned off, unsigned len)
{
    uint32_t val = 0;

    pthread_mutex_lock(&func->bus->lock);
    memcpy(&val, func->config + off, len);
    pthread_mutex_unlock(&func->bus->lock);
    return val;
}

void pci_func_put(struct pci_func *func, unsigned off, unsigned len, uint32_t val)
{
    pthread_mutex_lock(&func->bus->lock);
    memcpy(func->config + off, &val, len);
    pthread_mutex_unlock(&func->bus->lock);
}

static uint64_t config_read(struct pci_bus *bus, uint8_t devfn, unsigned off, unsigned len)
{
    uint64_t val = ones_mask(len);

    pthread_mutex_lock(&bus->lock);
    struct pci_func *func = bus->funcs[devfn];
    if (func && func->reading) {
        pthread_mutex_unlock(&bus->lock);
        func->reading(func, off, len);
        pthread_mutex_lock(&bus->lock);
    }
    if (func && off < PCI_CONFIG_SIZE && len <= PCI_CONFIG_SIZE - off) {
        val = 0;
        memcpy(&val, func->config + off, len);
    }
    pthread_mutex_unlock(&bus->lock);
    return val;
}

static void config_write(struct pci_bus *bus, uint8_t devfn, unsigned off, unsigned len, uint64_t val)
{
    pthread_mutex_lock(&bus->lock);
    struct pci_func *func = bus->funcs[devfn];
    if (!func || off >= PCI_CONFIG_SIZE || len > PCI_CONFIG_SIZE - off) {
        pthread_mutex_unlock(&bus->lock);
        return;
    }
    for (unsigned i = 0; i < len; i++) {
        uint8_t *c = &func->config[off + i], v = (uint8_t)(val >> (8 * i));
        uint8_t writable = func->writable[off + i];
        *c = (uint8_t)((*c & ~writable) | (v & writable));
        *c &= (uint8_t) ~(v & func->clearable[off + i]);
    }
    bool command = off < PCI_STATUS && off + len > PCI_COMMAND;
    if (command || (off < PCI_BAR0 + 4 * PCI_N_BARS && off + len > PCI_BAR0))
        update_all_bars(bus);
    pthread_mutex_unlock(&bus->lock);
    if (command)
        update_pirq(bus, func);
    if (func->written)
        func->written(func, off, len);
}

/* ---- the two ways in ---- */

static bool is_address(unsigned region, uint64_t off, unsigned len)
{
    return region == CONFIG_ADDRESS && off == 0 && len == 4;
}

static uint32_t get_address(struct pci_bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    uint32_t address = bus->address;
    pthread_mutex_unlock(&bus->lock);
    return address;
}

/* Bus 0 alone is there. */
static bool selects_us(uint32_t address)
{
    return (address & ADDRESS_ENABLE) && (address >> 16 & 0xff) == 0;
}

static uint64_t ports_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct pci_bus *bus = opaque;
    uint32_t address = get_address(bus);
    uint64_t val = ones_mask(len);

    if (is_address(region, off, len))
        val = address;
    else if (region == CONFIG_ADDRESS)
        bus_access(&bus->narrow, CONFIG_ADDRESS + off, &val, len, false);
    else if (selects_us(address))
        val = config_read(bus, (uint8_t)(address >> 8), (address & 0xfc) + (unsigned)off, len);
    return val;
}

/* PCI 3.0 section 3.2.2.3.2 */
static void ports_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct pci_bus *bus = opaque;
    uint32_t address = get_address(bus);

    if (is_address(region, off, len)) {
        pthread_mutex_lock(&bus->lock);
        bus->address = (uint32_t)val & ADDRESS_MASK;
        pthread_mutex_unlock(&bus->lock);
    } else if (region == CONFIG_ADDRESS) {
        bus_access(&bus->narrow, CONFIG_ADDRESS + off, &val, len, true);
    } else if (selects_us(address)) {
        config_write(bus, (uint8_t)(address >> 8), (address & 0xfc) + (unsigned)off, len, val);
    }
}

struct bus *pci_bus_narrow_ports(struct pci_bus *bus)
{
    return &bus->narrow;
}

uint64_t pci_ecam_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    if (off >> 20)
        return ones_mask(len);
    return config_read(opaque, (uint8_t)(off >> 12), off & 0xfff, len);
}

void pci_ecam_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    if (!(off >> 20))
        config_write(opaque, (uint8_t)(off >> 12), off & 0xfff, len, val);
}

int pci_bus_open(struct pci_bus **out, struct bus *pio, struct bus *mmio, struct err *err)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));

    *out = NULL;
    if (!bus)
        return err_set(err, -ENOMEM, "pci: out of memory");
    bus->pio = pio;
    bus->mmio = mmio;
    pthread_mutex_init(&bus->lock, NULL);
    pthread_mutex_init(&bus->intx_lock, NULL);
    bus_init(&bus->narrow, NULL);
    struct bus_region r = {.base = CONFIG_ADDRESS,
                           .size = 4,
                           .read = ports_read,
                           .write = ports_write,
                           .opaque = bus,
                           .region = CONFIG_ADDRESS};
    int rc = bus_add(pio, &r);
    r.base = r.region = CONFIG_DATA;
    if (rc == 0)
        rc = bus_add(pio, &r);
    if (rc < 0) {
        bus_remove(pio, CONFIG_ADDRESS);
        pci_bus_close(bus);
        return err_set(err, rc, "pci: configuration ports: %s", strerror(-rc));
    }
    *out = bus;
    return 0;
}

void pci_bus_close(struct pci_bus *bus)
{
    if (!bus)
        return;
    bus_fini(&bus->narrow);
    pthread_mutex_destroy(&bus->intx_lock);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

void pci_bus_state(struct pci_bus *bus, struct stream *s)
{
    pthread_mutex_lock(&bus->lock);
    stream_u32(s, &bus->address);
    bus->address &= ADDRESS_MASK;
    pthread_mutex_unlock(&bus->lock);
}

void pci_bus_set_pirq(struct pci_bus *bus, unsigned n, const struct irq_line *line)
{
    bus->pirq[n] = *line;
}

int pci_add(struct pci_bus *bus, struct pci_func *func, uint8_t devfn, struct err *err)
{
    int r = 0;

    pthread_mutex_lock(&bus->lock);
    if (bus->funcs[devfn]) {
        r = err_set(err, -EEXIST, "pci: 00:%02x.%u is taken", devfn >> 3, devfn & 7);
    } else {
        func->bus = bus;
        func->devfn = devfn;
        bus->funcs[devfn] = func;
    }
    pthread_mutex_unlock(&bus->lock);
    return r;
}

void pci_remove(struct pci_func *func)
{
    struct pci_bus *bus = func->bus;

    if (!bus)
        return;
    pthread_mutex_lock(&bus->lock);
    bus->funcs[func->devfn] = NULL;
    for (unsigned n = 0; n < PCI_N_BARS; n++)
        take_off(func, n);
    bool asserted = func->intx;
    func->intx = false;
    pthread_mutex_unlock(&bus->lock);
    if (asserted)
        update_pirq(bus, func);
}
