/*
 * The high-precision event timer.
 *
 * The counter does not count: it is computed from VM time. A timer knows the VM time of its next match; whatever has come due
 * is carried out when somebody looks (sync), and a vtimer makes sure that somebody does where an interrupt is wanted.
 *
 * Threads: registers from any vCPU, vtimers on the loop's thread, legacy inputs from the PIT and RTC (under their locks); all
 * under the device's lock. Lines and messages are driven under it.
 */
#include "device/hpet.h"

#include <errno.h>

#define REGION_SIZE   0x400
#define TIMERS        3
#define TICK_NS       10
#define MIN_PERIOD_NS 50000 /* faster periods are merged: no comparator may keep the host's loop busy */
#define NEVER         INT64_MAX

enum { /* register offsets, in 8-byte units */
       REG_CAPABILITIES = 0x00,
       REG_CONFIG = 0x10,
       REG_STATUS = 0x20,
       REG_COUNTER = 0xf0,
       REG_TIMERS = 0x100,
       REG_TIMERS_END = REG_TIMERS + TIMERS * 0x20,
       TIMER_CONFIG = 0x00,
       TIMER_COMPARATOR = 0x08,
       TIMER_FSB = 0x10,
};

enum {
    CONFIG_ENABLE = 1 << 0,
    CONFIG_LEGACY = 1 << 1,
    CONFIG_WRITABLE = CONFIG_ENABLE | CONFIG_LEGACY,

    TIMER_LEVEL = 1 << 1,
    TIMER_INT_ENABLE = 1 << 2,
    TIMER_PERIODIC = 1 << 3,
    TIMER_CAP_PERIODIC = 1 << 4,
    TIMER_CAP_64BIT = 1 << 5,
    TIMER_VAL_SET = 1 << 6,
    TIMER_32BIT = 1 << 8,
    TIMER_ROUTE_SHIFT = 9,
    TIMER_ROUTE = 0x1f << TIMER_ROUTE_SHIFT,
    TIMER_FSB_ENABLE = 1 << 14,
    TIMER_CAP_FSB = 1 << 15,
    TIMER_WRITABLE =
        TIMER_LEVEL | TIMER_INT_ENABLE | TIMER_PERIODIC | TIMER_VAL_SET | TIMER_32BIT | TIMER_ROUTE | TIMER_FSB_ENABLE,
};

struct timer {
    struct hpet *hpet;
    unsigned n;
    uint32_t config; /* the writable bits */
    uint64_t comparator, period, fsb;
    int64_t due;                    /* VM ns of the next match, or NEVER */
    int64_t last_fire;              /* VM ns */
    const struct irq_line *driving; /* the line held up, or NULL */
    struct vtimer vtimer;
};

struct hpet {
    struct device dev;
    struct hpet_conf conf;
    uint32_t routes; /* bit n: pin n can be chosen */
    uint32_t config, status;
    uint64_t base; /* the counter at `start` */
    int64_t start; /* VM ns; counts where enabled */
    bool legacy_in[2];
    struct timer timer[TIMERS];
};

static int64_t now(struct hpet *h)
{
    return clock_now(h->dev.env->clock);
}

static bool enabled(const struct hpet *h)
{
    return h->config & CONFIG_ENABLE;
}

static bool legacy(const struct hpet *h)
{
    return enabled(h) && (h->config & CONFIG_LEGACY);
}

static uint64_t counter(struct hpet *h)
{
    return enabled(h) ? h->base + (uint64_t)(now(h) - h->start) / TICK_NS : h->base;
}

static uint64_t width_mask(const struct timer *t)
{
    return t->config & TIMER_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* ---- interrupts ---- */

/* The wire of timer t, or NULL where it has none. */
static const struct irq_line *wire(const struct timer *t)
{
    struct hpet *h = t->hpet;
    unsigned pin = t->config >> TIMER_ROUTE_SHIFT & 0x1f;

    if (legacy(h) && t->n < 2)
        return &h->dev.env->isa_irq[t->n ? 8 : 0];
    return pin < HPET_PINS && (h->routes & 1u << pin) ? &h->conf.pin[pin] : NULL;
}

/* Makes the wires of level-triggered timers say what the status register does. */
static void drive(struct timer *t)
{
    struct hpet *h = t->hpet;
    bool up = enabled(h) && (h->status & 1u << t->n) && (t->config & TIMER_INT_ENABLE) && (t->config & TIMER_LEVEL) &&
              !(t->config & TIMER_FSB_ENABLE);
    const struct irq_line *line = up ? wire(t) : NULL;

    if (t->driving == line)
        return;
    if (t->driving)
        irq_set(t->driving, false);
    if (line)
        irq_set(line, true);
    t->driving = line;
}

static void fire(struct timer *t)
{
    struct hpet *h = t->hpet;
    const struct irq_line *line = wire(t);

    t->last_fire = now(h);
    if (t->config & TIMER_LEVEL) { /* the status bit is set whether or not an interrupt follows (2.3.8) */
        h->status |= 1u << t->n;
        if (!(t->config & TIMER_FSB_ENABLE)) {
            drive(t);
            return;
        }
    }
    if (!(t->config & TIMER_INT_ENABLE))
        return;
    if (t->config & TIMER_FSB_ENABLE)
        h->dev.env->msi.send(h->dev.env->msi.opaque, t->fsb >> 32, (uint32_t)t->fsb);
    else if (line)
        irq_pulse(line);
}

/* ---- matching ---- */

/* Finds the next match afresh, after a change of the counter, the comparator or the width. */
static void schedule(struct timer *t)
{
    struct hpet *h = t->hpet;

    t->due = NEVER;
    if (!enabled(h))
        return;
    uint64_t left = (t->comparator - counter(h)) & width_mask(t);
    int64_t tick = now(h) - (now(h) - h->start) % TICK_NS;
    if (left < (uint64_t)(INT64_MAX / 4 / TICK_NS)) /* else centuries from now */
        t->due = tick + (int64_t)left * TICK_NS;
}

/* Carries out what is due at timer t. */
static void sync_timer(struct timer *t)
{
    int64_t ns = now(t->hpet);

    if (t->due > ns)
        return;
    uint64_t period = t->period & width_mask(t);
    bool periodic = (t->config & TIMER_PERIODIC) && period;
    if (periodic && period < (uint64_t)(INT64_MAX / 4 / TICK_NS)) {
        int64_t length = (int64_t)period * TICK_NS, n = (ns - t->due) / length + 1;
        t->comparator = (t->comparator + period * (uint64_t)n) & width_mask(t);
        t->due += length * n;
    } else if (t->config & TIMER_32BIT) { /* comes by again when the low half has gone round */
        t->due += (INT64_C(1) << 32) * TICK_NS * ((ns - t->due) / ((INT64_C(1) << 32) * TICK_NS) + 1);
    } else {
        t->due = NEVER;
    }
    fire(t);
}

static void arm(struct timer *t)
{
    if (t->due == NEVER || !(t->config & TIMER_INT_ENABLE)) {
        vtimer_cancel(&t->vtimer);
        return;
    }
    int64_t earliest = t->last_fire + MIN_PERIOD_NS;
    vtimer_set(&t->vtimer, t->due < earliest ? earliest : t->due);
}

static void sync_all(struct hpet *h)
{
    for (unsigned i = 0; i < TIMERS; i++)
        sync_timer(&h->timer[i]);
}

static void expired(void *opaque)
{
    struct timer *t = opaque;

    device_lock(&t->hpet->dev);
    sync_timer(t);
    arm(t);
    device_unlock(&t->hpet->dev);
}

/* ---- legacy replacement ---- */

static void drive_legacy(struct hpet *h, unsigned n)
{
    irq_set(&h->dev.env->isa_irq[n ? 8 : 0], h->legacy_in[n]);
}

static void legacy_set(void *opaque, unsigned n, bool level)
{
    struct hpet *h = opaque;

    device_lock(&h->dev);
    h->legacy_in[n] = level;
    if (!legacy(h))
        drive_legacy(h, n);
    device_unlock(&h->dev);
}

struct irq_line hpet_legacy_input(struct device *dev, unsigned n)
{
    return (struct irq_line){.set = legacy_set, .opaque = dev, .n = n & 1};
}

/* ---- registers ---- */

static uint64_t timer_read(const struct timer *t, unsigned reg)
{
    switch (reg) {
    case TIMER_CONFIG:
        return (uint64_t)t->hpet->routes << 32 | t->config | TIMER_CAP_PERIODIC | TIMER_CAP_64BIT | TIMER_CAP_FSB;
    case TIMER_COMPARATOR:
        return t->comparator & width_mask(t);
    case TIMER_FSB:
        return t->fsb;
    default:
        return 0;
    }
}

static uint64_t reg_read(struct hpet *h, unsigned reg)
{
    switch (reg) {
    case REG_CAPABILITIES:
        return (uint64_t)HPET_PERIOD_FS << 32 | HPET_ID;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter(h);
    }
    if (reg >= REG_TIMERS && reg < REG_TIMERS_END)
        return timer_read(&h->timer[(reg - REG_TIMERS) / 0x20], reg & 0x1f);
    return 0; /* reserved */
}

static void timer_config_write(struct timer *t, uint32_t val)
{
    uint32_t route = val >> TIMER_ROUTE_SHIFT & 0x1f;

    val &= TIMER_WRITABLE;
    if (!(t->hpet->routes & 1u << route)) /* software reads back to see whether it took (2.3.8) */
        val = (val & ~(uint32_t)TIMER_ROUTE) | (t->config & TIMER_ROUTE);
    if (!(val & TIMER_LEVEL))
        t->hpet->status &= ~(1u << t->n);
    t->config = val;
    t->comparator &= width_mask(t);
    schedule(t);
    drive(t);
}

/*
 * Where the timer is periodic, a write sets the period, and with VAL_SET, which it uses up, the next match too (2.3.9.2.2). mask: the
 * half that is written.
 */
static void comparator_write(struct timer *t, uint64_t val, uint64_t mask)
{
    bool periodic = t->config & TIMER_PERIODIC;

    if (periodic)
        t->period = (t->period & ~mask) | (val & mask);
    if (!periodic || (t->config & TIMER_VAL_SET)) {
        t->comparator = ((t->comparator & ~mask) | (val & mask)) & width_mask(t);
        schedule(t);
    }
    t->config &= ~(uint32_t)TIMER_VAL_SET;
}

static void config_write(struct hpet *h, uint32_t val)
{
    bool was_legacy = legacy(h);

    if ((val ^ h->config) & CONFIG_ENABLE) {
        h->base = counter(h);
        h->start = now(h);
    }
    h->config = val & CONFIG_WRITABLE;
    for (unsigned i = 0; i < 2; i++) /* the PIT's and RTC's wires change hands: first let go */
        if (legacy(h) && !was_legacy)
            irq_set(&h->dev.env->isa_irq[i ? 8 : 0], false);
    for (unsigned i = 0; i < TIMERS; i++) {
        schedule(&h->timer[i]);
        drive(&h->timer[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        if (!legacy(h) && was_legacy)
            drive_legacy(h, i);
}

static void reg_write(struct hpet *h, unsigned reg, uint64_t val, uint64_t mask)
{
    uint64_t whole = (reg_read(h, reg) & ~mask) | (val & mask);

    if (reg >= REG_TIMERS && reg < REG_TIMERS_END) {
        struct timer *t = &h->timer[(reg - REG_TIMERS) / 0x20];
        if ((reg & 0x1f) == TIMER_CONFIG)
            timer_config_write(t, (uint32_t)whole);
        else if ((reg & 0x1f) == TIMER_COMPARATOR)
            comparator_write(t, val, mask);
        else if ((reg & 0x1f) == TIMER_FSB)
            t->fsb = whole;
        return;
    }
    switch (reg) {
    case REG_CONFIG:
        config_write(h, (uint32_t)whole);
        break;
    case REG_STATUS: /* ones clear */
        h->status &= ~(uint32_t)(val & mask);
        for (unsigned i = 0; i < TIMERS; i++)
            drive(&h->timer[i]);
        break;
    case REG_COUNTER: /* only while it stands */
        if (!enabled(h))
            h->base = whole;
        break;
    }
}

static uint64_t hpet_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct hpet *h = (struct hpet *)dev;

    sync_all(h);
    return reg_read(h, (unsigned)off & ~7u) >> (8 * (off & 7)) & ones_mask(len);
}

/* 32 or 64 bits, aligned (2.3.1); others are ignored. */
static void hpet_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct hpet *h = (struct hpet *)dev;
    unsigned shift = 8 * (off & 7);

    if ((len != 4 && len != 8) || off % len)
        return;
    sync_all(h);
    reg_write(h, (unsigned)off & ~7u, val << shift, ones_mask(len) << shift);
    for (unsigned i = 0; i < TIMERS; i++)
        arm(&h->timer[i]);
}

static void hpet_reset(struct device *dev)
{
    struct hpet *h = (struct hpet *)dev;
    bool was_legacy = legacy(h);

    h->config = 0;
    h->status = 0;
    h->base = 0;
    h->start = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        struct timer *t = &h->timer[i];
        drive(t);
        t->config = 0;
        t->comparator = UINT64_MAX;
        t->period = 0;
        t->fsb = 0;
        t->due = NEVER;
        t->last_fire = -MIN_PERIOD_NS;
        vtimer_cancel(&t->vtimer);
    }
    for (unsigned i = 0; i < 2 && was_legacy; i++)
        drive_legacy(h, i);
}

static void timer_state(struct timer *t, struct stream *s)
{
    stream_u32(s, &t->config);
    stream_u64(s, &t->comparator);
    stream_u64(s, &t->period);
    stream_u64(s, &t->fsb);
    t->config &= TIMER_WRITABLE;
    t->comparator &= width_mask(t);
}

/* Matches are not saved: they follow from the counter and the comparators. */
static int hpet_state(struct device *dev, struct stream *s)
{
    struct hpet *h = (struct hpet *)dev;

    sync_all(h);
    uint64_t count = counter(h);
    stream_section(s, "hpet", 1);
    stream_u32(s, &h->config);
    stream_u32(s, &h->status);
    stream_u64(s, &count);
    stream_bool(s, &h->legacy_in[0]);
    stream_bool(s, &h->legacy_in[1]);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_state(&h->timer[i], s);
    if (!s->loading)
        return s->error;
    h->config &= CONFIG_WRITABLE;
    h->status &= (1u << TIMERS) - 1;
    h->base = count;
    h->start = now(h);
    for (unsigned i = 0; i < TIMERS; i++) {
        schedule(&h->timer[i]);
        drive(&h->timer[i]);
        arm(&h->timer[i]);
    }
    return s->error;
}

static int hpet_open(struct device *dev, const void *conf, struct err *err)
{
    struct hpet *h = (struct hpet *)dev;

    h->conf = *(const struct hpet_conf *)conf;
    int r = device_map(dev, dev->env->mmio, 0, HPET_BASE, REGION_SIZE, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < HPET_PINS; i++)
        if (h->conf.pin[i].set)
            h->routes |= 1u << i;
    for (unsigned i = 0; i < TIMERS; i++) {
        struct timer *t = &h->timer[i];
        t->hpet = h;
        t->n = i;
        vtimer_init(&t->vtimer, dev->env->clock, expired, t);
    }
    return 0;
}

static void hpet_close(struct device *dev)
{
    struct hpet *h = (struct hpet *)dev;

    for (unsigned i = 0; i < TIMERS; i++)
        vtimer_fini(&h->timer[i].vtimer);
}

const struct device_type hpet_type = {
    .name = "hpet",
    .size = sizeof(struct hpet),
    .open = hpet_open,
    .read = hpet_read,
    .write = hpet_write,
    .reset = hpet_reset,
    .state = hpet_state,
    .close = hpet_close,
};
