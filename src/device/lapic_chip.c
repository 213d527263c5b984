/*
 * A local APIC that the engine has itself (core/irqchip.h): this device then is its way to reset and saved state, and the pin of the PICs. Its
 * registers here are what they were at the last reset, or when the state was taken.
 *
 * Threads: as lapic_impl.h; the engine's registers are read and set while the vCPUs stand.
 */
#include <errno.h>

#include "device/lapic_impl.h"

#define REG_AT(reg) ((size_t)(reg)*16)

static uint32_t get(const struct irqchip_lapic *chip, unsigned reg)
{
    return load_le32(chip->page + REG_AT(reg));
}

static void put(struct irqchip_lapic *chip, unsigned reg, uint32_t val)
{
    store_le32(chip->page + REG_AT(reg), val);
}

int lapic_chip_fetch(struct lapic *l)
{
    const struct irqchip *chip = l->dev.env->irqchip;
    struct irqchip_lapic regs = {0};
    int r = chip->lapic_get(chip->opaque, l->conf.apic_id, &regs);

    if (r < 0)
        return r;
    atomic_store(&l->base, regs.base);
    l->tpr = (uint8_t)get(&regs, REG_TPR);
    l->svr = get(&regs, REG_SVR);
    l->ldr = lapic_x2apic(l) ? 0 : get(&regs, REG_LDR);
    l->dfr = lapic_x2apic(l) ? UINT32_MAX : get(&regs, REG_DFR);
    l->esr = get(&regs, REG_ESR);
    l->icr = (uint64_t)get(&regs, REG_ICR_HIGH) << 32 | get(&regs, REG_ICR);
    for (unsigned i = 0; i < 8; i++) {
        l->isr[i] = get(&regs, REG_ISR + i);
        atomic_store(&l->tmr[i], get(&regs, REG_TMR + i));
        atomic_store(&l->irr[i], get(&regs, REG_IRR + i));
    }
    for (unsigned i = 0; i < LVT_COUNT; i++)
        atomic_store(&l->lvt[i], get(&regs, REG_LVT + i));
    lapic_sanitize(l);
    lapic_route(l);
    lapic_timer_load(l, get(&regs, REG_INITIAL), get(&regs, REG_CURRENT), (uint8_t)get(&regs, REG_DIVIDE),
                     regs.deadline);
    return 0;
}

int lapic_chip_store(struct lapic *l)
{
    const struct irqchip *chip = l->dev.env->irqchip;
    struct irqchip_lapic regs = {0};
    int r = chip->lapic_get(chip->opaque, l->conf.apic_id, &regs);
    bool wide = lapic_x2apic(l);

    if (r < 0)
        return r;
    regs.base = atomic_load(&l->base);
    put(&regs, REG_ID, wide ? l->conf.apic_id : l->conf.apic_id << 24);
    put(&regs, REG_TPR, l->tpr);
    put(&regs, REG_SVR, l->svr);
    put(&regs, REG_LDR, wide ? lapic_x2apic_ldr(l) : l->ldr);
    put(&regs, REG_DFR, l->dfr);
    put(&regs, REG_ESR, l->esr);
    put(&regs, REG_ICR, (uint32_t)l->icr);
    put(&regs, REG_ICR_HIGH, (uint32_t)(l->icr >> 32));
    for (unsigned i = 0; i < 8; i++) {
        put(&regs, REG_ISR + i, l->isr[i]);
        put(&regs, REG_TMR + i, atomic_load(&l->tmr[i]));
        put(&regs, REG_IRR + i, atomic_load(&l->irr[i]));
    }
    for (unsigned i = 0; i < LVT_COUNT; i++)
        put(&regs, REG_LVT + i, atomic_load(&l->lvt[i]));
    put(&regs, REG_INITIAL, l->timer.initial);
    put(&regs, REG_CURRENT, lapic_timer_current(l));
    put(&regs, REG_DIVIDE, l->timer.divide);
    regs.deadline = lapic_timer_deadline(l);
    return chip->lapic_put(chip->opaque, l->conf.apic_id, &regs);
}

/* ---- the pin of the PICs: the engine takes their vectors from here, when its local APIC lets them through ---- */

static bool waits(const struct lapic *l)
{
    return atomic_load(&l->lint[0]) || atomic_load(&l->extint);
}

static void update(struct lapic *l)
{
    if (!waits(l))
        vcpu_port_lower(l->conf.port, PIN_INTR);
    if (waits(l))
        vcpu_port_raise(l->conf.port, PIN_INTR);
}

void lapic_chip_lint(struct lapic *l, unsigned n, bool level)
{
    bool was = atomic_exchange(&l->lint[n], level);

    if (n == 0)
        update(l);
    else if (level && !was)
        vcpu_port_raise(l->conf.port, PIN_NMI);
}

bool lapic_chip_deliver(struct lapic *l, const struct apic_msg *msg)
{
    if (msg->mode != APIC_EXTINT)
        return false;
    atomic_store(&l->extint, true);
    update(l);
    return true;
}

static int ack(void *apic)
{
    struct lapic *l = apic;
    int vector = -1;

    if (!waits(l))
        return vector;
    atomic_store(&l->extint, false);
    if (l->conf.pic_ack && l->conf.pic && *l->conf.pic)
        vector = l->conf.pic_ack(*l->conf.pic);
    update(l);
    return vector;
}

static int no_msr_read(void *apic, uint32_t msr, uint64_t *val)
{
    return -EPERM;
}

static int no_msr_write(void *apic, uint32_t msr, uint64_t val)
{
    return -EPERM;
}

static uint8_t no_cr8_get(void *apic)
{
    return 0;
}

static void no_cr8_set(void *apic, uint8_t tpr)
{
}

static void eoi(void *apic, uint8_t vector)
{
    apic_bus_eoi(((struct lapic *)apic)->conf.bus, vector);
}

const struct vcpu_apic_ops lapic_chip_ops = {
    .ack = ack,
    .msr_read = no_msr_read,
    .msr_write = no_msr_write,
    .cr8_get = no_cr8_get,
    .cr8_set = no_cr8_set,
    .eoi = eoi,
};
