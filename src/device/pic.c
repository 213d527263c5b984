/*
 * The pair of 8259A interrupt controllers.
 *
 * An input in edge mode latches its request on the rising edge and keeps it when the input falls: lines here may pulse
 * (irq_pulse), where a real device holds its line until the interrupt is acknowledged. An input in level mode follows
 * its line, so its request can vanish before the acknowledge; that, and masking in between, makes spurious interrupts.
 * The slave's output drives the master's IR2 in the same way.
 *
 * Threads: inputs from any, ports and pic_ack() from any vCPU; all under the device's lock. INTR is driven under it.
 */
#include "device/pic.h"

#include "base/log.h"

#define CASCADE  2
#define SPURIOUS 7

enum { REGION_MASTER, REGION_SLAVE, REGION_ELCR };

enum {
    ICW1_IC4 = 1 << 0, /* ICW4 follows */
    ICW1_SNGL = 1 << 1,
    ICW1_INIT = 1 << 4,
    ICW4_AEOI = 1 << 1,
    ICW4_SFNM = 1 << 4,
    OCW3_READ_ISR = 1 << 0,
    OCW3_READ = 1 << 1,
    OCW3_POLL = 1 << 2,
    OCW3 = 1 << 3,
    OCW3_SMM = 1 << 5,
    OCW3_ESMM = 1 << 6,
};

/* What the next write to the odd port is. */
enum icw_step { STEP_OCW1, STEP_ICW2, STEP_ICW3, STEP_ICW4 };

struct chip {
    uint8_t lines; /* levels of the inputs */
    uint8_t irr, imr, isr;
    uint8_t elcr;    /* level-triggered inputs */
    uint8_t highest; /* the input of highest priority; rotates */
    uint8_t base;    /* vector of IR0 */
    uint8_t icw1, icw3, icw4;
    uint8_t step; /* enum icw_step */
    bool special_mask;
    bool rotate_on_aeoi;
    bool read_isr;
    bool poll; /* the next read is a poll */
};

struct pic {
    struct device dev;
    struct pic_conf conf;
    struct chip chip[2]; /* master, slave */
};

static const uint8_t elcr_mask[2] = {0xf8, 0xde}; /* IRQ 0, 1, 2, 8 and 13 are always edge-triggered */

/* Distance of the highest-priority bit of `mask` from the top, 8 for none. */
static unsigned priority(const struct chip *c, uint8_t mask)
{
    for (unsigned i = 0; i < 8; i++)
        if (mask & 1u << ((c->highest + i) & 7))
            return i;
    return 8;
}

/* The input that the chip requests an interrupt for, or -1. */
static int request(const struct chip *c, bool master)
{
    uint8_t in_service = c->isr, wanted = c->irr & ~c->imr;

    /* Special fully nested: a slave in service does not hold off its own higher requests. */
    if (master && (c->icw4 & ICW4_SFNM))
        in_service &= ~(1u << CASCADE);
    /* Special mask: what is in service holds off itself alone. */
    unsigned limit = c->special_mask ? 8 : priority(c, in_service);
    if (c->special_mask)
        wanted &= ~in_service;
    unsigned p = priority(c, wanted);
    return p < limit ? (int)((c->highest + p) & 7) : -1;
}

static void set_input(struct chip *c, unsigned n, bool level)
{
    uint8_t bit = (uint8_t)(1u << n);

    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !(c->lines & bit))
        c->irr |= bit;
    c->lines = level ? c->lines | bit : c->lines & ~bit;
}

/* The engine has the PICs itself, and this is their way to reset and saved state. */
static bool is_whole(const struct pic *pic)
{
    return pic->dev.env->irqchip && pic->dev.env->irqchip->whole;
}

/* Carries a change of either chip to the outputs. */
static void update(struct pic *pic)
{
    if (is_whole(pic))
        return;
    set_input(&pic->chip[0], CASCADE, request(&pic->chip[1], false) >= 0);
    irq_set(&pic->conf.intr, request(&pic->chip[0], true) >= 0);
}

/* The chip's part in an INTA cycle for its input n. */
static void acknowledge(struct pic *pic, struct chip *c, unsigned n)
{
    uint8_t bit = (uint8_t)(1u << n);

    if (!(c->elcr & bit))
        c->irr &= ~bit;
    if (!(c->icw4 & ICW4_AEOI))
        c->isr |= bit;
    else if (c->rotate_on_aeoi)
        c->highest = (n + 1) & 7;
    if (c == &pic->chip[1]) /* its output falls, so that the next request makes an edge */
        set_input(&pic->chip[0], CASCADE, false);
}

int pic_ack(struct device *dev)
{
    struct pic *pic = (struct pic *)dev;
    struct chip *master = &pic->chip[0], *slave = &pic->chip[1];
    int vector;

    device_lock(dev);
    int n = request(master, true);
    if (n < 0) {
        vector = master->base + SPURIOUS;
    } else if (n == CASCADE && !(master->icw1 & ICW1_SNGL)) {
        acknowledge(pic, master, CASCADE);
        int m = request(slave, false);
        if (m >= 0)
            acknowledge(pic, slave, (unsigned)m);
        vector = slave->base + (m >= 0 ? m : SPURIOUS);
    } else {
        acknowledge(pic, master, (unsigned)n);
        vector = master->base + n;
    }
    update(pic);
    device_unlock(dev);
    return vector;
}

static void line_set(void *opaque, unsigned n, bool level)
{
    struct pic *pic = opaque;

    if (is_whole(pic)) {
        pic->dev.env->irqchip->pic_line(pic->dev.env->irqchip->opaque, n, level);
        return;
    }
    device_lock(&pic->dev);
    set_input(&pic->chip[n >> 3], n & 7, level);
    update(pic);
    device_unlock(&pic->dev);
}

struct irq_line pic_line(struct device *dev, unsigned n)
{
    if (n > 15 || n == CASCADE)
        return (struct irq_line){0};
    return (struct irq_line){.set = line_set, .opaque = dev, .n = n};
}

/* ---- programming ---- */

static void icw1(struct chip *c, uint8_t val)
{
    c->icw1 = val;
    c->step = STEP_ICW2;
    c->imr = 0;
    c->isr = 0;
    c->irr &= c->elcr; /* the edge latches are reset, levels are still there */
    c->highest = 0;
    c->special_mask = false;
    c->rotate_on_aeoi = false;
    c->read_isr = false;
    c->poll = false;
    if (!(val & ICW1_IC4))
        c->icw4 = 0;
}

static void end_of_interrupt(struct chip *c, uint8_t val)
{
    bool rotate = val & 0x80, specific = val & 0x40;
    /* In special mask mode a masked level keeps its in-service bit through a non-specific EOI. */
    unsigned p = priority(c, c->special_mask ? c->isr & ~c->imr : c->isr);
    unsigned n = specific ? val & 7 : (c->highest + p) & 7;

    if (!specific && p == 8)
        return;
    c->isr &= ~(1u << n);
    if (rotate)
        c->highest = (n + 1) & 7;
}

static void ocw2(struct chip *c, uint8_t val)
{
    switch (val >> 5) {
    case 0:
        c->rotate_on_aeoi = false;
        break;
    case 4:
        c->rotate_on_aeoi = true;
        break;
    case 6: /* set priority: the level named becomes the lowest */
        c->highest = (val + 1) & 7;
        break;
    case 2: /* no operation */
        break;
    default:
        end_of_interrupt(c, val);
    }
}

static void ocw3(struct chip *c, uint8_t val)
{
    if (val & OCW3_ESMM)
        c->special_mask = val & OCW3_SMM;
    if (val & OCW3_POLL)
        c->poll = true;
    else if (val & OCW3_READ)
        c->read_isr = val & OCW3_READ_ISR;
}

static void write_odd(struct chip *c, uint8_t val)
{
    switch (c->step) {
    case STEP_ICW2:
        c->base = val & 0xf8;
        if (!(c->icw1 & ICW1_SNGL))
            c->step = STEP_ICW3;
        else
            c->step = c->icw1 & ICW1_IC4 ? STEP_ICW4 : STEP_OCW1;
        break;
    case STEP_ICW3: /* kept; the cascade is wired to IR2 */
        c->icw3 = val;
        c->step = c->icw1 & ICW1_IC4 ? STEP_ICW4 : STEP_OCW1;
        break;
    case STEP_ICW4:
        c->icw4 = val;
        c->step = STEP_OCW1;
        break;
    default:
        c->imr = val;
    }
}

static void chip_write(struct chip *c, bool odd, uint8_t val)
{
    if (odd)
        write_odd(c, val);
    else if (val & ICW1_INIT)
        icw1(c, val);
    else if (val & OCW3)
        ocw3(c, val);
    else
        ocw2(c, val);
}

static uint8_t chip_read(struct pic *pic, unsigned which, bool odd)
{
    struct chip *c = &pic->chip[which];

    if (c->poll) { /* the read is the acknowledge */
        c->poll = false;
        int n = request(c, which == 0);
        if (n < 0)
            return 0;
        acknowledge(pic, c, (unsigned)n);
        update(pic);
        return (uint8_t)(0x80 | n);
    }
    if (odd)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static void elcr_write(struct chip *c, unsigned which, uint8_t val)
{
    c->elcr = val & elcr_mask[which];
    c->irr = (c->irr & ~c->elcr) | (c->lines & c->elcr);
}

static uint64_t pic_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct pic *pic = (struct pic *)dev;
    uint64_t val = 0;

    for (unsigned i = 0; i < len; i++, off++)
        val |= (uint64_t)(region == REGION_ELCR ? pic->chip[off & 1].elcr : chip_read(pic, region, off & 1)) << (8 * i);
    return val;
}

static void pic_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct pic *pic = (struct pic *)dev;

    for (unsigned i = 0; i < len; i++, off++, val >>= 8)
        if (region == REGION_ELCR)
            elcr_write(&pic->chip[off & 1], off & 1, (uint8_t)val);
        else
            chip_write(&pic->chip[region], off & 1, (uint8_t)val);
    update(pic);
}

/* ---- the engine's registers ---- */

static int chip_fetch(struct pic *pic)
{
    const struct irqchip *chip = pic->dev.env->irqchip;

    for (unsigned i = 0; i < 2; i++) {
        struct irqchip_pic r;
        int error = chip->pic_get(chip->opaque, i == 1, &r);
        if (error < 0)
            return error;
        pic->chip[i] = (struct chip){
            .lines = r.lines,
            .irr = r.irr,
            .imr = r.imr,
            .isr = r.isr,
            .elcr = r.elcr,
            .highest = r.highest,
            .base = r.base,
            .icw1 = (uint8_t)(ICW1_INIT | (r.ic4 ? ICW1_IC4 : 0)),
            .icw4 = (uint8_t)((r.aeoi ? ICW4_AEOI : 0) | (r.sfnm ? ICW4_SFNM : 0)),
            .step = r.step,
            .special_mask = r.special_mask,
            .rotate_on_aeoi = r.rotate_on_aeoi,
            .read_isr = r.read_isr,
            .poll = r.poll,
        };
    }
    return 0;
}

static int chip_store(const struct pic *pic)
{
    const struct irqchip *chip = pic->dev.env->irqchip;

    for (unsigned i = 0; i < 2; i++) {
        const struct chip *c = &pic->chip[i];
        const struct irqchip_pic r = {
            .lines = c->lines,
            .irr = c->irr,
            .imr = c->imr,
            .isr = c->isr,
            .elcr = c->elcr,
            .highest = c->highest,
            .base = c->base,
            .step = c->step,
            .read_isr = c->read_isr,
            .poll = c->poll,
            .special_mask = c->special_mask,
            .rotate_on_aeoi = c->rotate_on_aeoi,
            .aeoi = c->icw4 & ICW4_AEOI,
            .sfnm = c->icw4 & ICW4_SFNM,
            .ic4 = c->icw1 & ICW1_IC4,
        };
        int error = chip->pic_put(chip->opaque, i == 1, &r);
        if (error < 0)
            return error;
    }
    return 0;
}

static void pic_reset(struct device *dev)
{
    struct pic *pic = (struct pic *)dev;

    if (is_whole(pic))
        (void)chip_fetch(pic);       /* its lines */
    for (unsigned i = 0; i < 2; i++) /* whoever drives an input goes on doing so */
        pic->chip[i] = (struct chip){.lines = pic->chip[i].lines};
    update(pic);
    if (is_whole(pic) && chip_store(pic) < 0)
        log_error("pic: the engine does not take its registers");
}

static void chip_state(struct chip *c, unsigned which, struct stream *s)
{
    stream_u8(s, &c->lines);
    stream_u8(s, &c->irr);
    stream_u8(s, &c->imr);
    stream_u8(s, &c->isr);
    stream_u8(s, &c->elcr);
    stream_u8(s, &c->highest);
    stream_u8(s, &c->base);
    stream_u8(s, &c->icw1);
    stream_u8(s, &c->icw3);
    stream_u8(s, &c->icw4);
    stream_u8(s, &c->step);
    stream_bool(s, &c->special_mask);
    stream_bool(s, &c->rotate_on_aeoi);
    stream_bool(s, &c->read_isr);
    stream_bool(s, &c->poll);
    c->elcr &= elcr_mask[which];
    c->highest &= 7;
    c->base &= 0xf8;
}

static int pic_state(struct device *dev, struct stream *s)
{
    struct pic *pic = (struct pic *)dev;

    if (is_whole(pic) && !s->loading && !s->error)
        s->error = chip_fetch(pic);
    stream_section(s, "pic", 1);
    for (unsigned i = 0; i < 2; i++)
        chip_state(&pic->chip[i], i, s);
    if (s->loading)
        update(pic);
    if (is_whole(pic) && s->loading && !s->error)
        s->error = chip_store(pic);
    return s->error;
}

static int pic_open(struct device *dev, const void *conf, struct err *err)
{
    struct pic *pic = (struct pic *)dev;
    int r;

    pic->conf = *(const struct pic_conf *)conf;
    if ((r = device_map(dev, dev->env->pio, REGION_MASTER, 0x20, 2, err)) < 0 ||
        (r = device_map(dev, dev->env->pio, REGION_SLAVE, 0xa0, 2, err)) < 0 ||
        (r = device_map(dev, dev->env->pio, REGION_ELCR, 0x4d0, 2, err)) < 0)
        return r;
    return 0;
}

const struct device_type pic_type = {
    .name = "pic",
    .size = sizeof(struct pic),
    .open = pic_open,
    .read = pic_read,
    .write = pic_write,
    .reset = pic_reset,
    .state = pic_state,
};
