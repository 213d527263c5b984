/*
 * A board to put one device on: two buses, a clock that stands still until it is moved, interrupt lines and messages
 * that are counted.
 */
#ifndef TESTS_UNIT_DEVICE_FIXTURE_H
#define TESTS_UNIT_DEVICE_FIXTURE_H

#include "../unit.h"
#include "core/device.h"

#define FIXTURE_LINES 32

struct fixture {
    struct device_env env;
    struct bus pio, mmio;
    struct clock clock;
    bool level[FIXTURE_LINES];
    unsigned rises[FIXTURE_LINES];
    unsigned messages;
    uint64_t msi_addr;
    uint32_t msi_data;
};

static inline void fixture_line_set(void *opaque, unsigned n, bool level)
{
    struct fixture *f = opaque;
    if (level && !f->level[n])
        f->rises[n]++;
    f->level[n] = level;
}

static inline struct irq_line fixture_line(struct fixture *f, unsigned n)
{
    return (struct irq_line){.set = fixture_line_set, .opaque = f, .n = n};
}

static inline void fixture_msi(void *opaque, uint64_t addr, uint32_t data)
{
    struct fixture *f = opaque;
    f->messages++;
    f->msi_addr = addr;
    f->msi_data = data;
}

static inline void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    bus_init(&f->pio, NULL);
    bus_init(&f->mmio, NULL);
    clock_init(&f->clock, NULL, NS_PER_SEC); /* stopped: no timer reaches a loop */
    f->env = (struct device_env){
        .clock = &f->clock, .pio = &f->pio, .mmio = &f->mmio, .msi = {.send = fixture_msi, .opaque = f}};
    for (unsigned i = 0; i < 16; i++)
        f->env.isa_irq[i] = fixture_line(f, i);
}

static inline void fixture_fini(struct fixture *f)
{
    clock_fini(&f->clock);
    bus_fini(&f->pio);
    bus_fini(&f->mmio);
}

static inline struct device *fixture_open(struct fixture *f, const struct device_type *type, const void *conf)
{
    struct device *dev;
    struct err err;
    int r = device_open(&dev, type, &f->env, conf, &err);
    if (r < 0)
        fail_msg("%s", err.msg);
    return dev;
}

/* Moves VM time to `ns`, running the timers that come due on the way in their order. */
static inline void fixture_until(struct fixture *f, int64_t ns)
{
    for (;;) {
        struct vtimer *first = NULL;
        for (struct vtimer *t = f->clock.timers; t; t = t->next)
            if (t->deadline >= 0 && t->deadline <= ns && (!first || t->deadline < first->deadline))
                first = t;
        if (!first)
            break;
        if (first->deadline > clock_now(&f->clock))
            atomic_store(&f->clock.stopped, first->deadline);
        first->deadline = -1;
        first->fn(first->opaque);
    }
    atomic_store(&f->clock.stopped, ns);
}

static inline void fixture_advance(struct fixture *f, int64_t ns)
{
    fixture_until(f, clock_now(&f->clock) + ns);
}

static inline bool fixture_any_timer(struct fixture *f)
{
    for (struct vtimer *t = f->clock.timers; t; t = t->next)
        if (t->deadline >= 0)
            return true;
    return false;
}

static inline uint8_t in8(struct fixture *f, uint16_t port)
{
    uint8_t v;
    bus_access(&f->pio, port, &v, 1, false);
    return v;
}

static inline void out8(struct fixture *f, uint16_t port, uint8_t v)
{
    bus_access(&f->pio, port, &v, 1, true);
}

static inline uint32_t read32(struct bus *bus, uint64_t addr)
{
    uint32_t v;
    bus_access(bus, addr, &v, 4, false);
    return v;
}

static inline void write32(struct bus *bus, uint64_t addr, uint32_t v)
{
    bus_access(bus, addr, &v, 4, true);
}

static inline uint64_t read64(struct bus *bus, uint64_t addr)
{
    uint64_t v;
    bus_access(bus, addr, &v, 8, false);
    return v;
}

static inline void write64(struct bus *bus, uint64_t addr, uint64_t v)
{
    bus_access(bus, addr, &v, 8, true);
}

/* Saves one device, loads the bytes into another of its type, and checks that every shorter stream is refused. */
static inline void fixture_copy_state(struct device *from, struct device *to)
{
    struct stream out, in;

    stream_init_save(&out);
    assert_int_equal(device_state(from, &out), 0);
    for (size_t cut = 0; cut < out.len; cut++) {
        stream_init_load(&in, out.data, cut);
        assert_true(device_state(to, &in) < 0);
    }
    stream_init_load(&in, out.data, out.len);
    assert_int_equal(device_state(to, &in), 0);
    assert_int_equal(in.pos, out.len);
    stream_fini(&out);
}

#endif
