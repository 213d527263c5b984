/*
 * The local APIC: what is pending, what is in service, and what the CPU gets. Threads: see lapic_impl.h.
 */
#include "device/lapic.h"

#include <errno.h>

#include "base/log.h"
#include "device/lapic_impl.h"

#define LVT_RESET   ((uint32_t)LVT_MASKED)
#define SVR_RESET   0xff
#define DFR_FLAT    UINT32_MAX
#define CLASS(prio) ((prio) >> 4)

static int highest(const uint32_t bits[8])
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return i * 32 + 31 - __builtin_clz(bits[i]);
    return -1;
}

static int highest_irr(const struct lapic *l)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t bits = atomic_load(&l->irr[i]);
        if (bits)
            return i * 32 + 31 - __builtin_clz(bits);
    }
    return -1;
}

static uint32_t lvt_mode(uint32_t lvt)
{
    return lvt >> LVT_MODE_SHIFT & 7;
}

/* Whether the PIC (or whatever drives INTR) has an interrupt that this CPU takes. With the APIC disabled LINT0 is INTR. */
static bool extint_pending(const struct lapic *l)
{
    if (!lapic_enabled(l))
        return atomic_load(&l->lint[0]);
    for (unsigned n = 0; n < 2; n++) {
        uint32_t lvt = atomic_load(&l->lvt[LVT_LINT0 + n]);
        if (!(lvt & LVT_MASKED) && lvt_mode(lvt) == APIC_EXTINT && atomic_load(&l->lint[n]))
            return true;
    }
    return atomic_load(&l->extint);
}

static bool intr_pending(const struct lapic *l)
{
    return extint_pending(l) || CLASS(highest_irr(l)) > CLASS(atomic_load(&l->cpu.priority));
}

/* On the owner's thread, which needs no kick to look at its pins. */
void lapic_update(struct lapic *l)
{
    if (lapic_is_chip(l))
        return;
    int in_service = highest(l->isr);
    uint8_t ppr = in_service >= 0 && CLASS(in_service) > CLASS(l->tpr) ? in_service & 0xf0 : l->tpr;
    _Atomic uint32_t *pins = &l->conf.port->pending;

    if (atomic_load_explicit(&l->cpu.priority, memory_order_relaxed) != ppr)
        atomic_store(&l->cpu.priority, ppr);
    if (!intr_pending(l)) {
        if (!(atomic_load(pins) & PIN_INTR))
            return;
        atomic_fetch_and(pins, ~(uint32_t)PIN_INTR);
        if (!intr_pending(l))
            return;
    }
    if (!(atomic_load(pins) & PIN_INTR))
        atomic_fetch_or(pins, PIN_INTR);
}

void lapic_error(struct lapic *l, uint32_t bits)
{
    if (atomic_fetch_or(&l->errors, bits)) /* the next interrupt only when ESR has been written (SDM Vol. 3A 11.5.3) */
        return;
    uint32_t lvt = atomic_load(&l->lvt[LVT_ERROR]);
    if (!(lvt & LVT_MASKED))
        lapic_accept(l, (uint8_t)lvt, false);
}

bool lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
    uint32_t bit = 1u << (vector & 31);

    if (!(atomic_load_explicit(&l->cpu.flags, memory_order_relaxed) & APIC_CPU_SOFTWARE))
        return false;
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL);
        return false;
    }
    if (level)
        atomic_fetch_or_explicit(&l->tmr[vector >> 5], bit, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&l->tmr[vector >> 5], ~bit, memory_order_relaxed);
    atomic_fetch_or(&l->irr[vector >> 5], bit);
    if (CLASS(vector) > CLASS(atomic_load(&l->cpu.priority)))
        vcpu_port_raise(l->conf.port, PIN_INTR);
    return true;
}

static bool deliver(struct apic_cpu *cpu, const struct apic_msg *msg)
{
    struct lapic *l = CONTAINER_OF(cpu, struct lapic, cpu);
    struct vcpu_port *port = l->conf.port;

    if (lapic_is_chip(l))
        return lapic_chip_deliver(l, msg);
    switch (msg->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return lapic_accept(l, msg->vector, msg->level);
    case APIC_NMI:
        vcpu_port_raise(port, PIN_NMI);
        return true;
    case APIC_INIT: /* a start-up request from before does not survive it */
        vcpu_port_lower(port, PIN_SIPI);
        vcpu_port_raise(port, PIN_INIT);
        return true;
    case APIC_SIPI:
        atomic_store(&port->sipi_vector, msg->vector);
        vcpu_port_raise(port, PIN_SIPI);
        return true;
    case APIC_EXTINT:
        atomic_store(&l->extint, true);
        vcpu_port_raise(port, PIN_INTR);
        return true;
    default: /* SMI: there is no system management mode; 3 is reserved */
        return false;
    }
}

/* ---- LINT0 and LINT1 ---- */

/* The pin is high: does what its LVT entry says. `rises`: it has just become so. */
void lapic_lint_check(struct lapic *l, unsigned n, bool rises)
{
    struct vcpu_port *port = l->conf.port;
    uint32_t lvt = atomic_load(&l->lvt[LVT_LINT0 + n]);

    if (!lapic_enabled(l)) { /* the pins are the CPU's INTR and NMI */
        if (n == 0)
            vcpu_port_raise(port, PIN_INTR);
        else if (rises)
            vcpu_port_raise(port, PIN_NMI);
        return;
    }
    if (lvt & LVT_MASKED)
        return;
    switch (lvt_mode(lvt)) {
    case APIC_EXTINT:
        vcpu_port_raise(port, PIN_INTR);
        break;
    case APIC_FIXED:
        if (!(lvt & LVT_LEVEL)) {
            if (rises)
                lapic_accept(l, (uint8_t)lvt, false);
        } else if (!atomic_exchange(&l->lint_remote_irr[n], true) && !lapic_accept(l, (uint8_t)lvt, true)) {
            atomic_store(&l->lint_remote_irr[n], false);
        }
        break;
    case APIC_NMI:
        if (rises)
            vcpu_port_raise(port, PIN_NMI);
        break;
    case APIC_INIT:
        if (rises)
            vcpu_port_raise(port, PIN_INIT);
        break;
    }
}

static void lint_set(void *opaque, unsigned n, bool level)
{
    struct lapic *l = opaque;

    if (lapic_is_chip(l)) {
        lapic_chip_lint(l, n, level);
        return;
    }
    bool was = atomic_exchange(&l->lint[n], level);

    if (level)
        lapic_lint_check(l, n, !was);
}

struct irq_line lapic_lint(struct device *dev, unsigned n)
{
    return (struct irq_line){.set = lint_set, .opaque = dev, .n = n & 1};
}

/* ---- the CPU's side ---- */

static int ack(void *apic)
{
    struct lapic *l = apic;
    int vector = -1;

    if (extint_pending(l)) {
        atomic_store(&l->extint, false);
        if (l->conf.pic_ack && l->conf.pic && *l->conf.pic)
            vector = l->conf.pic_ack(*l->conf.pic);
    } else {
        int v = highest_irr(l);
        if (v >= 0 && CLASS(v) > CLASS(atomic_load_explicit(&l->cpu.priority, memory_order_relaxed))) {
            vector = v;
            atomic_fetch_and(&l->irr[v >> 5], ~(1u << (v & 31)));
            l->isr[v >> 5] |= 1u << (v & 31);
        }
    }
    lapic_update(l);
    return vector;
}

static bool unack(void *apic, uint8_t vector)
{
    struct lapic *l = apic;
    uint32_t bit = 1u << (vector & 31);

    if (!(l->isr[vector >> 5] & bit))
        return false;
    l->isr[vector >> 5] &= ~bit;
    atomic_fetch_or(&l->irr[vector >> 5], bit);
    lapic_update(l);
    return true;
}

void lapic_eoi(struct lapic *l)
{
    int v = highest(l->isr);

    if (v < 0)
        return;
    l->isr[v >> 5] &= ~(1u << (v & 31));
    lapic_update(l);
    if (!(atomic_load(&l->tmr[v >> 5]) & 1u << (v & 31)))
        return;
    for (unsigned n = 0; n < 2; n++)
        if ((atomic_load(&l->lvt[LVT_LINT0 + n]) & 0xff) == (uint32_t)v &&
            atomic_exchange(&l->lint_remote_irr[n], false) && atomic_load(&l->lint[n]))
            lapic_lint_check(l, n, false);
    if (!(l->svr & SVR_NO_EOI_BROADCAST))
        apic_bus_eoi(l->conf.bus, (uint8_t)v);
}

void lapic_set_tpr(struct lapic *l, uint8_t tpr)
{
    l->tpr = tpr;
    lapic_update(l);
}

static uint8_t cr8_get(void *apic)
{
    return ((struct lapic *)apic)->tpr >> 4;
}

static void cr8_set(void *apic, uint8_t tpr)
{
    lapic_set_tpr(apic, (uint8_t)(tpr << 4));
}

static const struct vcpu_apic_ops apic_ops = {
    .ack = ack,
    .unack = unack,
    .msr_read = lapic_msr_read,
    .msr_write = lapic_msr_write,
    .cr8_get = cr8_get,
    .cr8_set = cr8_set,
    .tsc_moved = lapic_timer_tsc_moved,
};

/* ---- reset, state ---- */

void lapic_route(struct lapic *l)
{
    uint64_t base = atomic_load(&l->base);
    uint8_t flags = 0;

    if (base & APIC_BASE_ENABLE)
        flags |= APIC_CPU_ENABLED | (l->svr & SVR_ENABLED ? APIC_CPU_SOFTWARE : 0);
    if (base & APIC_BASE_X2APIC)
        flags |= APIC_CPU_X2APIC;
    if (l->dfr >> 28 == 0)
        flags |= APIC_CPU_CLUSTER;
    atomic_store(&l->cpu.id, base & APIC_BASE_X2APIC ? l->conf.apic_id : l->conf.apic_id & 0xff);
    atomic_store(&l->cpu.logical, (uint8_t)(l->ldr >> 24));
    atomic_store(&l->cpu.flags, flags);
}

void lapic_registers_reset(struct lapic *l)
{
    l->svr = SVR_RESET;
    lapic_route(l); /* takes nothing from here on */
    lapic_timer_reset(l);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        atomic_store(&l->lvt[i], LVT_RESET);
    for (unsigned i = 0; i < 8; i++) {
        atomic_store(&l->irr[i], 0);
        atomic_store(&l->tmr[i], 0);
        l->isr[i] = 0;
    }
    for (unsigned n = 0; n < 2; n++)
        atomic_store(&l->lint_remote_irr[n], false);
    atomic_store(&l->errors, 0);
    atomic_store(&l->extint, false);
    l->icr = 0;
    l->ldr = 0;
    l->dfr = DFR_FLAT;
    l->esr = 0;
    l->tpr = 0;
    lapic_route(l);
    lapic_update(l);
}

/* A host that refuses its own values is broken; the guest will notice. */
static void store(struct lapic *l)
{
    int r = lapic_is_chip(l) ? lapic_chip_store(l) : 0;
    if (r < 0)
        log_error("lapic %u: the engine does not take its registers: %s", l->conf.apic_id, strerror(-r));
}

void lapic_init_reset(struct device *dev)
{
    device_lock(dev);
    lapic_registers_reset((struct lapic *)dev);
    store((struct lapic *)dev);
    device_unlock(dev);
}

void lapic_virtual_wire(struct device *dev)
{
    struct lapic *l = (struct lapic *)dev;

    device_lock(dev);
    l->svr |= SVR_ENABLED;
    atomic_store(&l->lvt[LVT_LINT0], APIC_EXTINT << LVT_MODE_SHIFT);
    atomic_store(&l->lvt[LVT_LINT1], APIC_NMI << LVT_MODE_SHIFT);
    lapic_route(l);
    lapic_update(l);
    store(l);
    device_unlock(dev);
}

static void lapic_reset(struct device *dev)
{
    struct lapic *l = (struct lapic *)dev;
    uint64_t base = LAPIC_DEFAULT_BASE | APIC_BASE_ENABLE | (l->conf.bsp ? APIC_BASE_BSP : 0);

    /* Without memory for the region the guest finds no registers, and soon gives up. */
    if (lapic_map(l, base) < 0)
        base &= ~APIC_BASE_ENABLE;
    atomic_store(&l->base, base);
    lapic_registers_reset(l);
    store(l);
}

static void stream_atomic_u32(struct stream *s, _Atomic uint32_t *p)
{
    uint32_t v = atomic_load(p);
    stream_u32(s, &v);
    atomic_store(p, v);
}

static void stream_atomic_bool(struct stream *s, _Atomic bool *p)
{
    bool v = atomic_load(p);
    stream_bool(s, &v);
    atomic_store(p, v);
}

static int lapic_state(struct device *dev, struct stream *s)
{
    struct lapic *l = (struct lapic *)dev;

    if (lapic_is_chip(l) && !s->loading && !s->error)
        s->error = lapic_chip_fetch(l);
    uint64_t base = atomic_load(&l->base);
    stream_section(s, "lapic", 1);
    stream_u64(s, &base);
    stream_u64(s, &l->icr);
    stream_u32(s, &l->svr);
    stream_u32(s, &l->ldr);
    stream_u32(s, &l->dfr);
    stream_u32(s, &l->esr);
    stream_u8(s, &l->tpr);
    for (unsigned i = 0; i < 8; i++) {
        stream_u32(s, &l->isr[i]);
        stream_atomic_u32(s, &l->irr[i]);
        stream_atomic_u32(s, &l->tmr[i]);
    }
    for (unsigned i = 0; i < LVT_COUNT; i++)
        stream_atomic_u32(s, &l->lvt[i]);
    stream_atomic_u32(s, &l->errors);
    for (unsigned n = 0; n < 2; n++) {
        stream_atomic_bool(s, &l->lint[n]);
        stream_atomic_bool(s, &l->lint_remote_irr[n]);
    }
    stream_atomic_bool(s, &l->extint);
    if (s->loading && !s->error && !lapic_base_valid(l, base))
        s->error = -EPROTO;
    if (s->loading && !s->error)
        s->error = lapic_map(l, base);
    if (!s->error)
        atomic_store(&l->base, base);
    if (s->loading) {
        lapic_sanitize(l);
        lapic_route(l);
    }
    lapic_timer_state(l, s);
    if (s->loading)
        lapic_update(l);
    if (lapic_is_chip(l) && s->loading && !s->error)
        s->error = lapic_chip_store(l);
    return s->error;
}

static int lapic_open(struct device *dev, const void *conf, struct err *err)
{
    struct lapic *l = (struct lapic *)dev;

    l->conf = *(const struct lapic_conf *)conf;
    l->mapped = LAPIC_UNMAPPED;
    l->cpu.deliver = deliver;
    if (apic_bus_join(l->conf.bus, &l->cpu) < 0)
        return err_set(err, -ENOSPC, "lapic %u: the APIC bus takes at most %u CPUs", l->conf.apic_id,
                       APIC_BUS_MAX_CPUS);
    lapic_timer_init(l);
    l->conf.port->apic = l;
    l->conf.port->apic_ops = lapic_is_chip(l) ? &lapic_chip_ops : &apic_ops;
    return 0;
}

static void lapic_close(struct device *dev)
{
    struct lapic *l = (struct lapic *)dev;

    if (l->mapped != LAPIC_UNMAPPED)
        bus_remove(l->conf.mmio, l->mapped);
    apic_bus_leave(l->conf.bus, &l->cpu);
    lapic_timer_fini(l);
}

const struct device_type lapic_type = {
    .name = "lapic",
    .size = sizeof(struct lapic),
    .open = lapic_open,
    .read = lapic_mmio_read,
    .write = lapic_mmio_write,
    .reset = lapic_reset,
    .state = lapic_state,
    .close = lapic_close,
};
