/*
 * The local APIC's registers: the page in memory (xAPIC, SDM Vol. 3A table 11-1) and the MSRs (x2APIC, table 11-6), with
 * IA32_APIC_BASE that switches between them. All on the owner's thread; see lapic_impl.h.
 */
#include <errno.h>

#include "device/lapic_impl.h"

#define PAGE              UINT64_C(0x1000)
#define MSR_APIC_BASE     0x1b
#define MSR_TSC_DEADLINE  0x6e0
#define MSR_X2APIC        0x800
#define VERSION           0x01050014u /* EOI-broadcast suppression, LVT entries 0 to 5, version 0x14 */
#define LVT_READ_ONLY     (1u << 12)  /* delivery status: a message is never under way here */
#define SVR_WRITABLE      0x13ffu
#define DIVIDE_WRITABLE   0x0bu
#define LDR_WRITABLE      0xff000000u
#define DFR_RESERVED      0x0fffffffu                  /* reads as ones */
#define ILLEGAL_VECTORS   0xffffu                      /* 0 to 15 */
#define X2APIC_ICR_FIELDS UINT64_C(0xffffffff000cdfff) /* delivery status counts as one: written back, it is ignored */

enum {
    ICR_LOGICAL = 1 << 11,
    ICR_STATUS = 1 << 12,
    ICR_ASSERT = 1 << 14,
    ICR_LEVEL = 1 << 15,
    ICR_SHORTHAND_SHIFT = 18,
};

static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

/* ---- interrupt command ---- */

static void send_ipi(struct lapic *l)
{
    uint32_t low = (uint32_t)l->icr;
    bool wide = lapic_x2apic(l);
    const struct apic_msg msg = {
        .dest = (uint32_t)(l->icr >> (wide ? 32 : 56)),
        .wide = wide,
        .logical = low & ICR_LOGICAL,
        .mode = low >> 8 & 7,
        .vector = (uint8_t)low,
    };

    switch (msg.mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (msg.vector < 16) {
            lapic_error(l, ESR_SEND_ILLEGAL);
            return;
        }
        break;
    case APIC_INIT: /* level de-assert: these processors ignore it (SDM Vol. 3A 11.6.1) */
        if ((low & ICR_LEVEL) && !(low & ICR_ASSERT))
            return;
        break;
    case APIC_NMI:
    case APIC_SIPI:
        break;
    default: /* SMI without system management mode; reserved */
        return;
    }
    apic_bus_send_ipi(l->conf.bus, &l->cpu, low >> ICR_SHORTHAND_SHIFT & 3, &msg);
}

/* ---- registers as xAPIC and x2APIC share them ---- */

static uint32_t read_lvt(struct lapic *l, unsigned i)
{
    uint32_t val = atomic_load(&l->lvt[i]);
    if ((i == LVT_LINT0 || i == LVT_LINT1) && atomic_load(&l->lint_remote_irr[i - LVT_LINT0]))
        val |= LVT_REMOTE_IRR;
    return val;
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t val)
{
    val &= lvt_writable[i];
    if (!(l->svr & SVR_ENABLED)) /* cannot be unmasked (SDM Vol. 3A 11.4.7.2) */
        val |= LVT_MASKED;
    if (i == LVT_TIMER) {
        lapic_timer_set_lvt(l, val);
        return;
    }
    atomic_store(&l->lvt[i], val);
    if (i != LVT_LINT0 && i != LVT_LINT1)
        return;
    unsigned n = i - LVT_LINT0;
    if (!(val & LVT_LEVEL)) /* an edge entry holds no level back */
        atomic_store(&l->lint_remote_irr[n], false);
    if (atomic_load(&l->lint[n]))
        lapic_lint_check(l, n, false);
    lapic_update(l);
}

static void write_svr(struct lapic *l, uint32_t val)
{
    l->svr = val & SVR_WRITABLE;
    lapic_route(l);
    if (l->svr & SVR_ENABLED)
        return;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        if (i == LVT_TIMER)
            lapic_timer_set_lvt(l, atomic_load(&l->lvt[i]) | LVT_MASKED);
        else
            atomic_fetch_or(&l->lvt[i], LVT_MASKED);
    lapic_update(l);
}

/* False: there is no such register. */
static bool read_reg(struct lapic *l, unsigned reg, uint32_t *val)
{
    *val = 0;
    switch (reg) {
    case REG_VERSION:
        *val = VERSION;
        break;
    case REG_TPR:
        *val = l->tpr;
        break;
    case REG_PPR:
        *val = atomic_load(&l->cpu.priority);
        break;
    case REG_SVR:
        *val = l->svr;
        break;
    case REG_ISR ... REG_ISR + 7:
        *val = l->isr[reg - REG_ISR];
        break;
    case REG_TMR ... REG_TMR + 7:
        *val = atomic_load(&l->tmr[reg - REG_TMR]);
        break;
    case REG_IRR ... REG_IRR + 7:
        *val = atomic_load(&l->irr[reg - REG_IRR]);
        break;
    case REG_ESR:
        *val = l->esr;
        break;
    case REG_ICR:
        *val = (uint32_t)l->icr;
        break;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        *val = read_lvt(l, reg - REG_LVT);
        break;
    case REG_INITIAL:
        *val = l->timer.initial;
        break;
    case REG_CURRENT:
        *val = lapic_timer_current(l);
        break;
    case REG_DIVIDE:
        *val = l->timer.divide;
        break;
    default:
        return false;
    }
    return true;
}

/* False: there is no such register, or it cannot be written. ICR is the callers' own. */
static bool write_reg(struct lapic *l, unsigned reg, uint32_t val)
{
    switch (reg) {
    case REG_TPR:
        lapic_set_tpr(l, (uint8_t)val);
        break;
    case REG_EOI:
        lapic_eoi(l);
        break;
    case REG_SVR:
        write_svr(l, val);
        break;
    case REG_ESR: /* shows what came since the last write, and re-arms the error interrupt (SDM Vol. 3A 11.5.3) */
        l->esr = atomic_exchange(&l->errors, 0);
        break;
    case REG_LVT ... REG_LVT + LVT_COUNT - 1:
        write_lvt(l, reg - REG_LVT, val);
        break;
    case REG_INITIAL:
        lapic_timer_set_initial(l, val);
        break;
    case REG_DIVIDE:
        lapic_timer_set_divide(l, val & DIVIDE_WRITABLE);
        break;
    default:
        return false;
    }
    return true;
}

/* ---- xAPIC: the page ---- */

static uint32_t xapic_read(struct lapic *l, unsigned reg)
{
    uint32_t val;

    switch (reg) {
    case REG_ID:
        return l->conf.apic_id << 24;
    case REG_LDR:
        return l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_ICR_HIGH:
        return (uint32_t)(l->icr >> 32);
    case REG_EOI: /* write-only */
        return 0;
    }
    if (!read_reg(l, reg, &val))
        lapic_error(l, ESR_ILLEGAL_REGISTER);
    return val;
}

static void xapic_write(struct lapic *l, unsigned reg, uint32_t val)
{
    switch (reg) {
    case REG_LDR:
        l->ldr = val & LDR_WRITABLE;
        lapic_route(l);
        return;
    case REG_DFR:
        l->dfr = val | DFR_RESERVED;
        lapic_route(l);
        return;
    case REG_ICR:
        l->icr = (l->icr & ~UINT64_C(0xffffffff)) | (val & X2APIC_ICR_FIELDS & ~(uint32_t)ICR_STATUS);
        send_ipi(l);
        return;
    case REG_ICR_HIGH:
        l->icr = (uint64_t)(val & 0xff000000) << 32 | (uint32_t)l->icr;
        return;
    case REG_ID: /* fixed, as are the other read-only ones: no error */
    case REG_VERSION:
    case REG_PPR:
    case REG_ISR ... REG_IRR + 7:
    case REG_CURRENT:
        return;
    }
    if (!write_reg(l, reg, val))
        lapic_error(l, ESR_ILLEGAL_REGISTER);
}

/* Registers have 32 bits on 16-byte boundaries; what else the page holds reads as zero (SDM Vol. 3A 11.4.1: undefined). */
uint64_t lapic_mmio_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    unsigned in_reg = off & 15;

    if (in_reg >= 4)
        return 0;
    uint64_t val = xapic_read((struct lapic *)dev, (unsigned)(off >> 4)) >> (8 * in_reg);
    return val & ones_mask(len);
}

void lapic_mmio_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    if (off & 15 || len < 4)
        return;
    xapic_write((struct lapic *)dev, (unsigned)(off >> 4), (uint32_t)val);
}

/* ---- x2APIC: MSRs (SDM Vol. 3A 11.12.1) ---- */

uint32_t lapic_x2apic_ldr(const struct lapic *l)
{
    return (l->conf.apic_id & 0xffff0) << 12 | 1u << (l->conf.apic_id & 15);
}

static int x2apic_read(struct lapic *l, unsigned reg, uint64_t *val)
{
    uint32_t low;

    switch (reg) {
    case REG_ID:
        *val = l->conf.apic_id;
        return 0;
    case REG_LDR:
        *val = lapic_x2apic_ldr(l);
        return 0;
    case REG_ICR:
        *val = l->icr;
        return 0;
    }
    if (!read_reg(l, reg, &low))
        return -EPERM;
    *val = low;
    return 0;
}

/* The bits that may be set in a write; 0 where only a zero may be written. */
static uint64_t x2apic_fields(unsigned reg)
{
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_SVR:
        return SVR_WRITABLE;
    case REG_ICR:
        return X2APIC_ICR_FIELDS;
    case REG_LVT + LVT_LINT0:
    case REG_LVT + LVT_LINT1:
        return lvt_writable[LVT_LINT0] | LVT_READ_ONLY | LVT_REMOTE_IRR;
    case REG_LVT + LVT_TIMER:
    case REG_LVT + LVT_THERMAL:
    case REG_LVT + LVT_PERF:
    case REG_LVT + LVT_ERROR:
        return lvt_writable[reg - REG_LVT] | LVT_READ_ONLY;
    case REG_INITIAL:
        return UINT32_MAX;
    case REG_DIVIDE:
        return DIVIDE_WRITABLE;
    default: /* EOI, ESR; and what cannot be written at all */
        return 0;
    }
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t val)
{
    if (val & ~x2apic_fields(reg))
        return -EPERM;
    if (reg == REG_ICR) {
        l->icr = val & ~(uint64_t)ICR_STATUS;
        send_ipi(l);
        return 0;
    }
    if (reg == REG_SELF_IPI) {
        if (val < 16)
            lapic_error(l, ESR_SEND_ILLEGAL);
        else
            lapic_accept(l, (uint8_t)val, false);
        return 0;
    }
    return write_reg(l, reg, (uint32_t)val) ? 0 : -EPERM;
}

void lapic_sanitize(struct lapic *l)
{
    l->svr &= SVR_WRITABLE;
    l->dfr |= DFR_RESERVED;
    l->ldr &= LDR_WRITABLE;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        atomic_fetch_and(&l->lvt[i], lvt_writable[i]);
    atomic_fetch_and(&l->irr[0], ~ILLEGAL_VECTORS);
    l->isr[0] &= ~ILLEGAL_VECTORS;
}

/* ---- IA32_APIC_BASE ---- */

bool lapic_base_valid(const struct lapic *l, uint64_t base)
{
    uint64_t address = ((UINT64_C(1) << l->conf.phys_bits) - 1) & ~(PAGE - 1);

    if (base & ~(address | APIC_BASE_FLAGS))
        return false;
    return (base & APIC_BASE_ENABLE) || !(base & APIC_BASE_X2APIC);
}

int lapic_map(struct lapic *l, uint64_t base)
{
    uint64_t at = base & ~(PAGE - 1);

    if (!(base & APIC_BASE_ENABLE) || (base & APIC_BASE_X2APIC) || lapic_is_chip(l))
        at = LAPIC_UNMAPPED;
    if (at == l->mapped)
        return 0;
    int r = at == LAPIC_UNMAPPED ? 0 : device_map(&l->dev, l->conf.mmio, 0, at, PAGE, NULL);
    if (r < 0)
        return r;
    if (l->mapped != LAPIC_UNMAPPED)
        bus_remove(l->conf.mmio, l->mapped);
    l->mapped = at;
    return 0;
}

/* The legal transitions: SDM Vol. 3A figure 11-27. */
static int write_base(struct lapic *l, uint64_t val)
{
    uint64_t old = atomic_load(&l->base), mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
    bool was_x2apic = old & APIC_BASE_X2APIC, was_enabled = old & APIC_BASE_ENABLE;

    if (!lapic_base_valid(l, val))
        return -EPERM;
    if ((val & mode) == APIC_BASE_ENABLE && was_x2apic) /* from x2APIC to xAPIC only by way of disabled */
        return -EPERM;
    if ((val & mode) == mode && !was_enabled)
        return -EPERM;
    if (lapic_map(l, val) < 0)
        return -EPERM;
    atomic_store(&l->base, val);
    if (was_enabled && !(val & APIC_BASE_ENABLE)) {
        lapic_registers_reset(l);
    } else if ((val & APIC_BASE_X2APIC) && !was_x2apic) {
        l->icr &= UINT32_MAX; /* an 8-bit destination means nothing here */
        lapic_route(l);
    } else {
        lapic_route(l);
        lapic_update(l);
    }
    return 0;
}

int lapic_msr_read(void *apic, uint32_t msr, uint64_t *val)
{
    struct lapic *l = apic;

    if (msr == MSR_APIC_BASE)
        *val = atomic_load(&l->base);
    else if (msr == MSR_TSC_DEADLINE)
        *val = lapic_timer_deadline(l);
    else if (msr - MSR_X2APIC < 0x100 && lapic_x2apic(l))
        return x2apic_read(l, msr - MSR_X2APIC, val);
    else
        return -EPERM;
    return 0;
}

int lapic_msr_write(void *apic, uint32_t msr, uint64_t val)
{
    struct lapic *l = apic;

    if (msr == MSR_APIC_BASE)
        return write_base(l, val);
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(l, val);
        return 0;
    }
    if (msr - MSR_X2APIC < 0x100 && lapic_x2apic(l))
        return x2apic_write(l, msr - MSR_X2APIC, val);
    return -EPERM;
}
