#include "machine/pci_setup.h"

#include "base/log.h"
#include "core/pci.h"
#include "machine/memmap.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define ELCR           0x4d0 /* two ports: which inputs of the PICs are level-triggered */
#define LPC_DEVFN      PCI_DEVFN(31, 0)
#define PIRQA_ROUTE    0x60 /* the LPC bridge's registers (ICH9 datasheet 13.1.17): PIRQA# to D# */
#define PIRQE_ROUTE    0x68
#define NOT_ROUTED     0x80
#define NO_LINE        0xff /* PCI 3.0 section 6.2.4: unknown */

enum { BAR_IS_IO = 1, BAR_IS_64 = 4, BAR_TYPE_MASK = 6, BAR_FLAGS_IO = 3, BAR_FLAGS_MEMORY = 15 };

struct window {
    uint64_t next, end;
};

struct setup {
    struct bus *pio;
    struct window io, memory, high; /* high: for 64-bit BARs that find no place below */
    uint16_t level;                 /* PIC inputs that PIRQs are wired to */
};

static uint32_t config_read(struct setup *s, uint8_t devfn, unsigned off, unsigned len)
{
    uint32_t address = UINT32_C(0x80000000) | (uint32_t)devfn << 8 | (off & 0xfc), val = 0;

    bus_access(s->pio, CONFIG_ADDRESS, &address, 4, true);
    bus_access(s->pio, CONFIG_DATA + (off & 3), &val, len, false);
    return val;
}

static void config_write(struct setup *s, uint8_t devfn, unsigned off, unsigned len, uint32_t val)
{
    uint32_t address = UINT32_C(0x80000000) | (uint32_t)devfn << 8 | (off & 0xfc);

    bus_access(s->pio, CONFIG_ADDRESS, &address, 4, true);
    bus_access(s->pio, CONFIG_DATA + (off & 3), &val, len, true);
}

/* An aligned place of `size` bytes, or 0 where there is none left. */
static uint64_t take(struct window *w, uint64_t size)
{
    uint64_t at = align_up(w->next, size);

    if (at < w->next || at >= w->end || size > w->end - at)
        return 0;
    w->next = at + size;
    return at;
}

/* Asks a BAR how large it is by writing ones, and places it. Returns how many registers it takes. */
static unsigned place_bar(struct setup *s, uint8_t devfn, unsigned n)
{
    unsigned reg = PCI_BAR0 + 4 * n;

    config_write(s, devfn, reg, 4, UINT32_MAX);
    uint32_t low = config_read(s, devfn, reg, 4);
    if (!low)
        return 1; /* none */
    bool io = low & BAR_IS_IO, wide = !io && (low & BAR_TYPE_MASK) == BAR_IS_64;
    uint64_t mask = low & ~(uint32_t)(io ? BAR_FLAGS_IO : BAR_FLAGS_MEMORY);
    if (wide) {
        config_write(s, devfn, reg + 4, 4, UINT32_MAX);
        mask |= (uint64_t)config_read(s, devfn, reg + 4, 4) << 32;
    } else {
        mask |= UINT64_C(0xffffffff) << 32;
    }
    uint64_t size = mask & -mask, at = size ? take(io ? &s->io : &s->memory, size) : 0;
    if (!at && size && wide)
        at = take(&s->high, size);
    if (!at)
        log_warn("pci: no room for BAR %u of 00:%02x.%u", n, devfn >> 3, devfn & 7);
    config_write(s, devfn, reg, 4, (uint32_t)at);
    if (wide)
        config_write(s, devfn, reg + 4, 4, (uint32_t)(at >> 32));
    return wide ? 2 : 1;
}

/* The PIC's input for a pin, by way of its PIRQ. */
static uint8_t interrupt_line(struct setup *s, uint8_t devfn, unsigned pin)
{
    unsigned pirq = pci_pirq(devfn >> 3, pin);
    uint32_t route = config_read(s, LPC_DEVFN, pirq < 4 ? PIRQA_ROUTE + pirq : PIRQE_ROUTE + pirq - 4, 1);

    return route & NOT_ROUTED ? NO_LINE : route & 15;
}

static void set_up_function(struct setup *s, uint8_t devfn)
{
    uint32_t command = config_read(s, devfn, PCI_COMMAND, 2);

    /* Nothing decodes while BARs hold what they were asked with. */
    config_write(s, devfn, PCI_COMMAND, 2, command & ~(uint32_t)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
    for (unsigned n = 0; n < PCI_N_BARS;)
        n += place_bar(s, devfn, n);
    config_write(s, devfn, PCI_COMMAND, 2, command | PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    unsigned pin = config_read(s, devfn, PCI_INTERRUPT_PIN, 1);
    if (!pin)
        return;
    uint8_t line = interrupt_line(s, devfn, pin);
    config_write(s, devfn, PCI_INTERRUPT_LINE, 1, line);
    if (line != NO_LINE)
        s->level |= (uint16_t)(1u << line);
}

/* The chipset does not take inputs that are always edge-triggered. */
static void set_level_inputs(struct setup *s)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t elcr;
        bus_access(s->pio, ELCR + i, &elcr, 1, false);
        elcr |= (uint8_t)(s->level >> (8 * i));
        bus_access(s->pio, ELCR + i, &elcr, 1, true);
    }
}

void pci_setup(struct bus *pio)
{
    struct setup s = {.pio = pio,
                      .io = {PCI_SETUP_IO, PCI_SETUP_IO_END},
                      .memory = {MEMMAP_PCI32, MEMMAP_PCI32_END},
                      .high = {MEMMAP_PCI64, MEMMAP_PCI64_END}};

    for (unsigned slot = 0; slot < PCI_N_DEVFN / 8; slot++) {
        if (config_read(&s, PCI_DEVFN(slot, 0), PCI_VENDOR_ID, 2) == 0xffff)
            continue;
        unsigned fns = config_read(&s, PCI_DEVFN(slot, 0), PCI_HEADER_TYPE, 1) & PCI_HEADER_MULTIFUNCTION ? 8 : 1;
        for (unsigned fn = 0; fn < fns; fn++)
            if (config_read(&s, PCI_DEVFN(slot, fn), PCI_VENDOR_ID, 2) != 0xffff)
                set_up_function(&s, PCI_DEVFN(slot, fn));
    }
    set_level_inputs(&s);
    uint32_t address = 0;
    bus_access(pio, CONFIG_ADDRESS, &address, 4, true); /* as it was */
}
