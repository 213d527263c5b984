/*
 * The 8254 timer and port 0x61.
 *
 * A channel does not count: it remembers at which tick its counting element was loaded, and everything else (count,
 * OUT, whether a new count has been taken over) is computed when somebody looks. Only channel 0 needs a timer, set at
 * the next rising edge of OUT: the interrupt controllers latch that edge, so the falling ones are told late, with it.
 *
 * Threads: ports from any vCPU, the timer on the loop's thread; all under the device's lock.
 */
#include "device/pit.h"

#include <errno.h>

#define REFRESH_NS     15085     /* the refresh request toggles bit 4 of port 0x61 */
#define MIN_PERIOD_NS  50000     /* faster edges are merged: no count may keep the host's loop busy */
#define NEVER          INT64_MAX /* a tick that does not come */
#define CONTROL_OFFSET 3

enum { REGION_COUNTERS, REGION_PORT61 };
enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum {
    PORT61_GATE2 = 1 << 0,
    PORT61_WRITABLE = 0x0f,
    PORT61_REFRESH = 1 << 4,
    PORT61_OUT2 = 1 << 5,
    STATUS_OUT = 1 << 7,
    STATUS_NULL_COUNT = 1 << 6,
    READBACK_NO_COUNT = 1 << 5,
    READBACK_NO_STATUS = 1 << 4,
};

struct channel {
    uint8_t mode; /* 0 to 5 */
    uint8_t access;
    bool bcd, gate;
    bool counting;      /* the counting element has been loaded (and triggered, where the mode wants that) */
    bool halfway_write; /* access both: the low byte is here, the high byte is not */
    bool halfway_read;
    bool count_latched, status_latched;
    uint8_t low_byte, status;
    uint16_t latch;
    uint32_t reload;  /* the count register: 1 to 65536; 0 until written */
    uint32_t current; /* what the counting element was loaded from */
    int64_t loaded;   /* tick of the load, or of the cycle's begin in modes 2 and 3 */
    int64_t renewed;  /* modes 2 and 3: tick at which reload was written over a running count; NEVER if it was not */
    int64_t held;     /* stopped by its gate: ticks counted so far, else -1 */
};

struct pit {
    struct device dev;
    struct pit_conf conf;
    struct channel channel[3];
    uint8_t port61;
    int64_t edge;      /* tick of channel 0's next rise that the line has not seen, or NEVER */
    int64_t last_edge; /* VM ns of the one it saw last */
    struct vtimer timer;
};

static int64_t ticks_now(struct pit *pit)
{
    return (int64_t)clock_ticks(clock_now(pit->dev.env->clock), PIT_HZ);
}

/* Modes 2 and 3 repeat; 1 and 5 begin with a rising gate. */
static bool periodic(const struct channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool triggered(const struct channel *c)
{
    return c->mode == 1 || c->mode == 5;
}

static uint32_t modulus(const struct channel *c)
{
    return c->bcd ? 10000 : 65536;
}

/* Length of a period in ticks. A count of 1 is illegal in modes 2 and 3 (datasheet): it counts as 2. */
static int64_t period(uint32_t count)
{
    return count < 2 ? 2 : count;
}

static int64_t high_half(uint32_t count)
{
    return (period(count) + 1) / 2;
}

/*
 * A count written over a running one in mode 2 is taken over at the end of the period, in mode 3 at the end of the half-period
 * (datasheet, "mode 3"). Brings `current` and `loaded` up to date.
 */
static void take_over(struct channel *c, int64_t now)
{
    if (!periodic(c) || !c->counting || c->held >= 0 || c->renewed == NEVER)
        return;
    int64_t cycle = c->loaded + (c->renewed - c->loaded) / period(c->current) * period(c->current);
    int64_t half = cycle + high_half(c->current), end = cycle + period(c->current);

    if (c->mode == 3 && c->renewed < half) {
        if (now < half)
            return;
        c->loaded = half - high_half(c->reload); /* OUT falls here, and stays low for the new count's half */
    } else {
        if (now < end)
            return;
        c->loaded = end;
    }
    c->current = c->reload;
    c->renewed = NEVER;
}

static int64_t elapsed(const struct channel *c, int64_t now)
{
    int64_t n = c->held >= 0 ? c->held : now - c->loaded;
    return n < 0 ? 0 : n; /* loaded with the next clock pulse */
}

static bool out(struct channel *c, int64_t now)
{
    take_over(c, now);
    if (!c->counting)
        return c->mode != 0;
    int64_t n = elapsed(c, now);
    switch (c->mode) {
    case 0:
    case 1:
        return n >= c->current;
    case 2:
        return !c->gate || n % period(c->current) != period(c->current) - 1;
    case 3:
        return !c->gate || n % period(c->current) < high_half(c->current);
    default: /* 4 and 5: one low pulse at the end of the count */
        return n != c->current;
    }
}

/* The counting element, as its two bytes read. */
static uint16_t count(struct channel *c, int64_t now)
{
    take_over(c, now);
    int64_t n = elapsed(c, now), val;
    if (!c->counting)
        val = c->reload;
    else if (c->mode == 3) { /* counts down by two, twice a period */
        int64_t in_period = n % period(c->current), half = high_half(c->current);
        int64_t in_half = in_period < half ? in_period : in_period - half;
        val = (period(c->current) & ~INT64_C(1)) - 2 * in_half;
    } else if (c->mode == 2) {
        val = c->current - n % period(c->current);
    } else { /* goes on below zero */
        val = c->current - n % modulus(c);
        if (val < 0)
            val += modulus(c);
    }
    val %= modulus(c);
    if (!c->bcd)
        return (uint16_t)val;
    return (uint16_t)(val / 1000 << 12 | val / 100 % 10 << 8 | val / 10 % 10 << 4 | val % 10);
}

/* First tick after `now` at which OUT rises, or NEVER. */
static int64_t next_rise(struct channel *c, int64_t now)
{
    take_over(c, now);
    if (!c->counting || c->held >= 0)
        return NEVER;
    int64_t rise;
    if (periodic(c)) {
        int64_t p = period(c->current), half = c->loaded + elapsed(c, now) / p * p + high_half(c->current);
        if (c->mode == 3 && c->renewed != NEVER && now < half) /* the low half will be the new count's */
            return half + period(c->reload) - high_half(c->reload);
        return c->loaded + (elapsed(c, now) / p + 1) * p;
    }
    rise = c->loaded + c->current + (c->mode >= 4); /* the strobe of modes 4 and 5 ends one tick later */
    return rise > now ? rise : NEVER;
}

/* ---- channel 0's interrupt ---- */

/* Gives the line the rise that is due. Before channel 0 is changed, lest a late timer lose it. */
static void catch_up(struct pit *pit, int64_t now)
{
    if (now < pit->edge)
        return;
    pit->edge = NEVER;
    pit->last_edge = clock_now(pit->dev.env->clock);
    irq_set(&pit->conf.irq, false);
    irq_set(&pit->conf.irq, true);
}

/* Tells the line where OUT is and sets the timer for its next rise. */
static void follow(struct pit *pit, int64_t now)
{
    struct channel *c = &pit->channel[0];

    pit->edge = next_rise(c, now);
    irq_set(&pit->conf.irq, out(c, now));
    if (pit->edge == NEVER) {
        vtimer_cancel(&pit->timer);
        return;
    }
    int64_t at = clock_ticks_to_ns((uint64_t)pit->edge, PIT_HZ);
    int64_t earliest = pit->last_edge + MIN_PERIOD_NS;
    vtimer_set(&pit->timer, at < earliest ? earliest : at);
}

static void timer_fired(void *opaque)
{
    struct pit *pit = opaque;

    device_lock(&pit->dev);
    int64_t now = ticks_now(pit);
    catch_up(pit, now);
    follow(pit, now);
    device_unlock(&pit->dev);
}

/* ---- programming ---- */

static void load(struct channel *c, int64_t now)
{
    c->current = c->reload;
    c->loaded = now + 1;
    c->renewed = NEVER;
    c->held = c->gate || triggered(c) ? -1 : 0;
    c->counting = true;
}

static void count_written(struct channel *c, uint16_t raw, int64_t now)
{
    uint32_t val = raw;
    if (c->bcd) /* a digit above 9 has no meaning: it counts as its value */
        val = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
    take_over(c, now);
    c->reload = val == 0 || val > modulus(c) ? modulus(c) : val;
    if (triggered(c)) /* the next trigger takes it */
        return;
    if (periodic(c) && c->counting)
        c->renewed = now;
    else
        load(c, now);
}

static void set_gate(struct channel *c, bool gate, int64_t now)
{
    bool rises = gate && !c->gate;

    take_over(c, now);
    if (!gate && c->gate && c->counting && !triggered(c))
        c->held = elapsed(c, now);
    c->gate = gate;
    if (!rises || !c->reload)
        return;
    if (triggered(c) || periodic(c)) {
        load(c, now);
    } else if (c->held >= 0) {
        c->loaded = now - c->held;
        c->held = -1;
    }
}

static uint8_t status(struct channel *c, int64_t now)
{
    bool level = out(c, now);
    bool null = !c->counting || c->renewed != NEVER || now < c->loaded || c->current != c->reload;
    return (uint8_t)((level ? STATUS_OUT : 0) | (null ? STATUS_NULL_COUNT : 0) | c->access << 4 | c->mode << 1 |
                     c->bcd);
}

static void latch_count(struct channel *c, int64_t now)
{
    if (c->count_latched) /* the first latch stands until it is read */
        return;
    c->latch = count(c, now);
    c->count_latched = true;
}

static void read_back(struct pit *pit, uint8_t val, int64_t now)
{
    for (unsigned i = 0; i < 3; i++) {
        struct channel *c = &pit->channel[i];
        if (!(val & 2u << i))
            continue;
        if (!(val & READBACK_NO_COUNT))
            latch_count(c, now);
        if (!(val & READBACK_NO_STATUS) && !c->status_latched) {
            c->status = status(c, now);
            c->status_latched = true;
        }
    }
}

static void control_write(struct pit *pit, uint8_t val, int64_t now)
{
    if (val >> 6 == 3) {
        read_back(pit, val, now);
        return;
    }
    struct channel *c = &pit->channel[val >> 6];
    unsigned access = val >> 4 & 3, mode = val >> 1 & 7;
    if (access == ACCESS_LATCH) {
        latch_count(c, now);
        return;
    }
    *c = (struct channel){.mode = (uint8_t)(mode > 5 ? mode - 4 : mode), /* 6 and 7 are 2 and 3 */
                          .access = (uint8_t)access,
                          .bcd = val & 1,
                          .gate = c->gate,
                          .renewed = NEVER,
                          .held = -1};
}

static void counter_write(struct channel *c, uint8_t val, int64_t now)
{
    if (c->access == ACCESS_BOTH && !c->halfway_write) {
        c->low_byte = val;
        c->halfway_write = true;
        if (c->mode == 0) /* the first byte stops the count and OUT goes low (datasheet, "mode 0") */
            c->counting = false;
        return;
    }
    if (c->access == ACCESS_LOW)
        count_written(c, val, now);
    else
        count_written(c, (uint16_t)(val << 8 | (c->access == ACCESS_BOTH ? c->low_byte : 0)), now);
    c->halfway_write = false;
}

static uint8_t counter_read(struct channel *c, int64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t val = c->count_latched ? c->latch : count(c, now);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->halfway_read);
    if (c->access == ACCESS_BOTH)
        c->halfway_read = !c->halfway_read;
    if (!c->halfway_read)
        c->count_latched = false;
    return (uint8_t)(high ? val >> 8 : val);
}

static uint8_t port61_read(struct pit *pit)
{
    bool refresh = clock_now(pit->dev.env->clock) / REFRESH_NS & 1;
    return (uint8_t)(pit->port61 | (refresh ? PORT61_REFRESH : 0) |
                     (out(&pit->channel[2], ticks_now(pit)) ? PORT61_OUT2 : 0));
}

static uint64_t pit_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct pit *pit = (struct pit *)dev;
    uint64_t val = 0;

    if (region == REGION_PORT61)
        return port61_read(pit);
    for (unsigned i = 0; i < len; i++) { /* the control word cannot be read */
        uint8_t byte = off + i >= CONTROL_OFFSET ? 0xff : counter_read(&pit->channel[off + i], ticks_now(pit));
        val |= (uint64_t)byte << (8 * i);
    }
    return val;
}

static void pit_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct pit *pit = (struct pit *)dev;
    int64_t now = ticks_now(pit);

    if (region == REGION_PORT61) {
        pit->port61 = val & PORT61_WRITABLE;
        set_gate(&pit->channel[2], val & PORT61_GATE2, now);
        return;
    }
    catch_up(pit, now);
    for (unsigned i = 0; i < len; i++, val >>= 8)
        if (off + i >= CONTROL_OFFSET)
            control_write(pit, (uint8_t)val, now);
        else
            counter_write(&pit->channel[off + i], (uint8_t)val, now);
    follow(pit, now);
}

static void pit_reset(struct device *dev)
{
    struct pit *pit = (struct pit *)dev;

    for (unsigned i = 0; i < 3; i++) /* undefined until programmed (datasheet); as after a control word for mode 3 */
        pit->channel[i] =
            (struct channel){.mode = 3, .access = ACCESS_BOTH, .gate = i != 2, .renewed = NEVER, .held = -1};
    pit->port61 = 0;
    pit->last_edge = -MIN_PERIOD_NS;
    follow(pit, ticks_now(pit));
}

static void channel_state(struct channel *c, struct stream *s)
{
    stream_u8(s, &c->mode);
    stream_u8(s, &c->access);
    stream_bool(s, &c->bcd);
    stream_bool(s, &c->gate);
    stream_bool(s, &c->counting);
    stream_bool(s, &c->halfway_write);
    stream_bool(s, &c->halfway_read);
    stream_bool(s, &c->count_latched);
    stream_bool(s, &c->status_latched);
    stream_u8(s, &c->low_byte);
    stream_u8(s, &c->status);
    stream_u16(s, &c->latch);
    stream_u32(s, &c->reload);
    stream_u32(s, &c->current);
    stream_i64(s, &c->loaded);
    stream_i64(s, &c->renewed);
    stream_i64(s, &c->held);
}

/* What the arithmetic above relies on. `now`: no tick of a saved state is later than the next one. */
static bool channel_valid(const struct channel *c, int64_t now)
{
    return c->mode <= 5 && c->access >= ACCESS_LOW && c->access <= ACCESS_BOTH && c->reload <= modulus(c) &&
           c->current <= modulus(c) && (!c->counting || (c->reload && c->current)) && c->loaded >= -65536 &&
           c->loaded <= now + 1 && c->held >= -1 && c->held <= now + 1 &&
           (c->renewed == NEVER || (c->renewed >= 0 && c->renewed <= now));
}

static int pit_state(struct device *dev, struct stream *s)
{
    struct pit *pit = (struct pit *)dev;

    stream_section(s, "pit", 1);
    for (unsigned i = 0; i < 3; i++) {
        struct channel c = pit->channel[i];
        channel_state(&c, s);
        if (!s->error && !channel_valid(&c, ticks_now(pit)))
            s->error = -EPROTO;
        if (!s->error)
            pit->channel[i] = c;
    }
    stream_u8(s, &pit->port61);
    pit->port61 &= PORT61_WRITABLE;
    if (s->loading) /* last_edge is not worth saving: at worst one edge comes too soon after another */
        follow(pit, ticks_now(pit));
    return s->error;
}

static int pit_open(struct device *dev, const void *conf, struct err *err)
{
    struct pit *pit = (struct pit *)dev;
    int r;

    pit->conf = *(const struct pit_conf *)conf;
    if ((r = device_map(dev, dev->env->pio, REGION_COUNTERS, 0x40, 4, err)) < 0 ||
        (r = device_map(dev, dev->env->pio, REGION_PORT61, 0x61, 1, err)) < 0)
        return r;
    vtimer_init(&pit->timer, dev->env->clock, timer_fired, pit);
    return 0;
}

static void pit_close(struct device *dev)
{
    vtimer_fini(&((struct pit *)dev)->timer);
}

const struct device_type pit_type = {
    .name = "pit",
    .size = sizeof(struct pit),
    .open = pit_open,
    .read = pit_read,
    .write = pit_write,
    .reset = pit_reset,
    .state = pit_state,
    .close = pit_close,
};
