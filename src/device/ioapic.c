/*
 * The I/O APIC: turns lines into messages on the APIC bus.
 *
 * A pin is high when its device asserts it: the polarity bit of an entry is kept, but says nothing here. An edge is
 * delivered when it comes, or lost where the pin is masked (82093AA, "interrupt mask"). A level is delivered while it is
 * high and no EOI is outstanding (remote IRR).
 *
 * Where the engine has the local APICs itself it is told of the level-triggered entries, whose EOIs come from there. Where it has the IOAPIC too
 * (irqchip.whole), this is its way to reset and saved state, and pins end there.
 *
 * Threads: pins and EOIs from any, registers from any vCPU; all under the device's lock. Messages are sent under it: the APIC bus
 * and the local APICs take no lock (apic_bus.h).
 */
#include "device/ioapic.h"

#include "base/log.h"

#define REGION_SIZE 0x1000
#define VERSION     (0x20 | (IOAPIC_PINS - 1) << 16)
#define ID_WRITABLE 0x0f000000u

enum { OFFSET_SELECT = 0x00, OFFSET_WINDOW = 0x10, OFFSET_EOI = 0x40 };
enum { REG_ID, REG_VERSION, REG_ARBITRATION, REG_REDIRECTION = 0x10 };

#define RTE_LOGICAL    (UINT64_C(1) << 11)
#define RTE_REMOTE_IRR (UINT64_C(1) << 14)
#define RTE_LEVEL      (UINT64_C(1) << 15)
#define RTE_MASKED     (UINT64_C(1) << 16)
#define RTE_WRITABLE   UINT64_C(0xff0000000001afff)

struct ioapic {
    struct device dev;
    struct ioapic_conf conf;
    uint8_t select;
    uint32_t id;
    uint32_t lines; /* levels of the pins */
    uint64_t rte[IOAPIC_PINS];
};

static uint8_t rte_mode(uint64_t rte)
{
    return rte >> 8 & 7;
}

/* Only fixed and lowest-priority interrupts can be level-triggered; the others are edges whatever the bit says. */
static bool is_level(uint64_t rte)
{
    return (rte & RTE_LEVEL) && rte_mode(rte) <= APIC_LOWEST;
}

static const struct irqchip *chip_of(const struct ioapic *io)
{
    return io->dev.env->irqchip;
}

static bool is_whole(const struct ioapic *io)
{
    return chip_of(io) && chip_of(io)->whole;
}

static struct apic_msg message(uint64_t rte)
{
    return (struct apic_msg){
        .dest = (uint32_t)(rte >> 56),
        .logical = rte & RTE_LOGICAL,
        .level = is_level(rte),
        .mode = rte_mode(rte),
        .vector = (uint8_t)rte,
    };
}

/* Masked or not: its EOI may be to come. */
static void route(struct ioapic *io, unsigned n)
{
    const struct irqchip *chip = chip_of(io);
    const struct apic_msg msg = message(io->rte[n]);
    uint64_t addr = 0;
    uint32_t data = 0;

    if (!chip || chip->whole)
        return;
    if (msg.level)
        (void)apic_bus_encode(&msg, &addr, &data);
    chip->route(chip->opaque, n, addr, data);
}

static bool send(struct ioapic *io, uint64_t rte)
{
    const struct apic_msg msg = message(rte);

    return msg.mode != APIC_SIPI && apic_bus_send(io->conf.bus, &msg); /* 6 is reserved here */
}

/* Delivers the level at pin n where one is due. One that no CPU takes stays due. */
static void level_check(struct ioapic *io, unsigned n)
{
    uint64_t *rte = &io->rte[n];

    if (!(io->lines & 1u << n) || !is_level(*rte) || (*rte & (RTE_MASKED | RTE_REMOTE_IRR)))
        return;
    *rte |= RTE_REMOTE_IRR; /* before the CPU can answer */
    if (!send(io, *rte))
        *rte &= ~RTE_REMOTE_IRR;
}

static void line_set(void *opaque, unsigned n, bool level)
{
    struct ioapic *io = opaque;
    uint32_t bit = 1u << n;

    if (is_whole(io)) {
        chip_of(io)->ioapic_line(chip_of(io)->opaque, n, level);
        return;
    }
    device_lock(&io->dev);
    bool rises = level && !(io->lines & bit);
    io->lines = level ? io->lines | bit : io->lines & ~bit;
    if (is_level(io->rte[n]))
        level_check(io, n);
    else if (rises && !(io->rte[n] & RTE_MASKED))
        send(io, io->rte[n]);
    device_unlock(&io->dev);
}

struct irq_line ioapic_line(struct device *dev, unsigned n)
{
    if (n >= IOAPIC_PINS)
        return (struct irq_line){0};
    return (struct irq_line){.set = line_set, .opaque = dev, .n = n};
}

static void eoi_locked(struct ioapic *io, uint8_t vector)
{
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        if ((uint8_t)io->rte[n] == vector && (io->rte[n] & RTE_REMOTE_IRR)) {
            io->rte[n] &= ~RTE_REMOTE_IRR;
            level_check(io, n);
        }
}

static void eoi(void *opaque, uint8_t vector)
{
    struct ioapic *io = opaque;

    device_lock(&io->dev);
    eoi_locked(io, vector);
    device_unlock(&io->dev);
}

/* ---- registers ---- */

static uint32_t window_read(const struct ioapic *io)
{
    switch (io->select) {
    case REG_ID:
    case REG_ARBITRATION: /* takes the ID's value with each write of it; there is no arbitration here that would turn it */
        return io->id;
    case REG_VERSION:
        return VERSION;
    }
    unsigned n = (io->select - REG_REDIRECTION) / 2;
    if (io->select < REG_REDIRECTION || n >= IOAPIC_PINS)
        return UINT32_MAX;
    return (uint32_t)(io->select & 1 ? io->rte[n] >> 32 : io->rte[n]);
}

static void window_write(struct ioapic *io, uint32_t val)
{
    unsigned n = (io->select - REG_REDIRECTION) / 2;

    if (io->select == REG_ID)
        io->id = val & ID_WRITABLE;
    if (io->select < REG_REDIRECTION || n >= IOAPIC_PINS)
        return;
    uint64_t old = io->rte[n], rte;
    if (io->select & 1)
        rte = (uint32_t)old | (uint64_t)val << 32;
    else
        rte = (old & ~UINT64_C(0xffffffff)) | val;
    io->rte[n] = (rte & RTE_WRITABLE) | (old & RTE_REMOTE_IRR);
    if (!is_level(io->rte[n])) /* the way out for systems without the EOI register: to edge and back */
        io->rte[n] &= ~RTE_REMOTE_IRR;
    route(io, n);
    level_check(io, n);
}

static uint64_t ioapic_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct ioapic *io = (struct ioapic *)dev;
    unsigned in_reg = off & 3;
    uint32_t val = UINT32_MAX;

    if ((off & ~UINT64_C(3)) == OFFSET_SELECT)
        val = io->select;
    else if ((off & ~UINT64_C(3)) == OFFSET_WINDOW)
        val = window_read(io);
    return val >> (8 * in_reg) & ones_mask(len);
}

static void ioapic_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct ioapic *io = (struct ioapic *)dev;

    if (off == OFFSET_SELECT)
        io->select = (uint8_t)val;
    else if (off == OFFSET_WINDOW && len >= 4) /* 32-bit accesses only */
        window_write(io, (uint32_t)val);
    else if (off == OFFSET_EOI)
        eoi_locked(io, (uint8_t)val);
}

/* ---- the engine's registers ---- */

static int chip_fetch(struct ioapic *io)
{
    struct irqchip_ioapic regs;
    int r = chip_of(io)->ioapic_get(chip_of(io)->opaque, &regs);

    if (r < 0)
        return r;
    io->select = regs.select;
    io->id = regs.id;
    io->lines = regs.lines;
    memcpy(io->rte, regs.rte, sizeof(io->rte));
    return 0;
}

static int chip_store(struct ioapic *io)
{
    struct irqchip_ioapic regs = {.id = io->id, .select = io->select, .lines = io->lines};

    memcpy(regs.rte, io->rte, sizeof(regs.rte));
    return chip_of(io)->ioapic_put(chip_of(io)->opaque, &regs);
}

static void ioapic_reset(struct device *dev)
{
    struct ioapic *io = (struct ioapic *)dev;

    if (is_whole(io))
        (void)chip_fetch(io); /* its lines */
    io->select = 0;
    io->id = 0;
    for (unsigned n = 0; n < IOAPIC_PINS; n++) {
        io->rte[n] = RTE_MASKED;
        route(io, n);
    }
    if (is_whole(io) && chip_store(io) < 0)
        log_error("ioapic: the engine does not take its registers");
}

static int ioapic_state(struct device *dev, struct stream *s)
{
    struct ioapic *io = (struct ioapic *)dev;

    if (is_whole(io) && !s->loading && !s->error)
        s->error = chip_fetch(io);
    stream_section(s, "ioapic", 1);
    stream_u8(s, &io->select);
    stream_u32(s, &io->id);
    stream_u32(s, &io->lines);
    for (unsigned n = 0; n < IOAPIC_PINS; n++) {
        stream_u64(s, &io->rte[n]);
        io->rte[n] &= RTE_WRITABLE | (is_level(io->rte[n]) ? RTE_REMOTE_IRR : 0);
    }
    io->id &= ID_WRITABLE;
    for (unsigned n = 0; s->loading && n < IOAPIC_PINS; n++)
        route(io, n);
    if (is_whole(io) && s->loading && !s->error)
        s->error = chip_store(io);
    return s->error;
}

static int ioapic_open(struct device *dev, const void *conf, struct err *err)
{
    struct ioapic *io = (struct ioapic *)dev;

    io->conf = *(const struct ioapic_conf *)conf;
    int r = device_map(dev, dev->env->mmio, 0, IOAPIC_BASE, REGION_SIZE, err);
    if (r < 0)
        return r;
    io->conf.bus->eoi = eoi;
    io->conf.bus->eoi_opaque = io;
    return 0;
}

static void ioapic_close(struct device *dev)
{
    ((struct ioapic *)dev)->conf.bus->eoi = NULL;
}

const struct device_type ioapic_type = {
    .name = "ioapic",
    .size = sizeof(struct ioapic),
    .open = ioapic_open,
    .read = ioapic_read,
    .write = ioapic_write,
    .reset = ioapic_reset,
    .state = ioapic_state,
    .close = ioapic_close,
};
