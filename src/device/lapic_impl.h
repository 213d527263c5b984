/*
 * The local APIC's inside, shared by lapic.c (interrupts), lapic_regs.c (registers and MSRs), lapic_timer.c and, where the engine has the
 * local APIC itself, lapic_chip.c.
 *
 * Threads. A local APIC is owned by its vCPU's thread: only that thread writes its registers, acknowledges and ends interrupts.
 * From other threads come deliveries, which set bits in irr, tmr, errors and lint (atomic), read what they need to know
 * of the registers (atomic), and raise pins. So deliveries take no lock and may be made under any; ack, EOI and TPR take none
 * either. The timer is the exception: it is shared with the loop's thread, under timer.lock, a leaf.
 *
 * PIN_INTR is up when there is something above PPR. A deliverer sets irr, then reads PPR; the owner writes PPR, then reads irr
 * (both sequentially consistent): one of them sees the other. The owner lowers the pin before it looks a last time, so a late
 * delivery is never lost; a pin that is up for nothing costs one ack() that returns -1.
 *
 * Lock order: the device's lock (register page, reset, state) is taken by the owner or while it stands, never by a
 * deliverer; so an EOI may go on from under it into the IOAPIC's lock, and the IOAPIC may deliver from under its own.
 */
#ifndef DEVICE_LAPIC_IMPL_H
#define DEVICE_LAPIC_IMPL_H

#include "device/lapic.h"

enum { /* register numbers: offset / 16 in memory, MSR - 0x800 */
       REG_ID = 0x02,
       REG_VERSION = 0x03,
       REG_TPR = 0x08,
       REG_PPR = 0x0a,
       REG_EOI = 0x0b,
       REG_LDR = 0x0d,
       REG_DFR = 0x0e,
       REG_SVR = 0x0f,
       REG_ISR = 0x10,
       REG_TMR = 0x18,
       REG_IRR = 0x20,
       REG_ESR = 0x28,
       REG_ICR = 0x30,
       REG_ICR_HIGH = 0x31,
       REG_LVT = 0x32, /* and the five after it, in the order of enum lvt */
       REG_INITIAL = 0x38,
       REG_CURRENT = 0x39,
       REG_DIVIDE = 0x3e,
       REG_SELF_IPI = 0x3f,
};

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

enum {
    LVT_REMOTE_IRR = 1 << 14,
    LVT_LEVEL = 1 << 15,
    LVT_MASKED = 1 << 16,
    LVT_MODE_SHIFT = 8,
    SVR_ENABLED = 1 << 8,
    SVR_NO_EOI_BROADCAST = 1 << 12,
    ESR_SEND_ILLEGAL = 1 << 5,
    ESR_RECEIVE_ILLEGAL = 1 << 6,
    ESR_ILLEGAL_REGISTER = 1 << 7,
};

#define APIC_BASE_BSP    (UINT64_C(1) << 8)
#define APIC_BASE_X2APIC (UINT64_C(1) << 10)
#define APIC_BASE_ENABLE (UINT64_C(1) << 11)
#define APIC_BASE_FLAGS  (APIC_BASE_BSP | APIC_BASE_X2APIC | APIC_BASE_ENABLE)
#define LAPIC_UNMAPPED   UINT64_MAX

struct lapic_timer {
    pthread_mutex_t lock;
    struct vtimer vtimer;
    uint32_t initial;
    uint8_t divide;    /* the register */
    bool running;      /* one-shot and periodic: counting */
    int64_t start;     /* VM ns at which the count was `initial` */
    int64_t last_fire; /* VM ns */
    uint64_t deadline; /* IA32_TSC_DEADLINE; 0: not armed */
};

struct lapic {
    struct device dev;
    struct lapic_conf conf;
    struct apic_cpu cpu; /* id, logical, flags and priority (PPR): written by the owner */
    uint64_t mapped;     /* where the register page is on conf.mmio, or LAPIC_UNMAPPED */

    /* Written by the owner. */
    _Atomic uint64_t base; /* IA32_APIC_BASE */
    uint64_t icr;
    uint32_t svr, ldr, dfr, esr;
    uint8_t tpr;
    uint32_t isr[8];
    _Atomic uint32_t lvt[LVT_COUNT];

    /* Written by anybody. */
    _Atomic uint32_t irr[8], tmr[8];
    _Atomic uint32_t errors; /* what ESR will show when it is next written */
    _Atomic bool lint[2];    /* levels of the pins */
    _Atomic bool lint_remote_irr[2];
    _Atomic bool extint; /* an ExtINT message waits */

    struct lapic_timer timer;
};

/* lapic.c */
bool lapic_accept(struct lapic *l, uint8_t vector, bool level); /* any thread */
void lapic_error(struct lapic *l, uint32_t bits);               /* any thread */
void lapic_lint_check(struct lapic *l, unsigned n, bool rises); /* any thread */
void lapic_registers_reset(struct lapic *l);
void lapic_route(struct lapic *l); /* tells the bus of a new ID, mode or enable bit */
void lapic_set_tpr(struct lapic *l, uint8_t tpr);
void lapic_eoi(struct lapic *l);
void lapic_update(struct lapic *l); /* recomputes PPR and PIN_INTR */

/* lapic_regs.c */
uint64_t lapic_mmio_read(struct device *dev, unsigned region, uint64_t off, unsigned len);
void lapic_mmio_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val);
int lapic_msr_read(void *apic, uint32_t msr, uint64_t *val) MUST_CHECK;
int lapic_msr_write(void *apic, uint32_t msr, uint64_t val) MUST_CHECK;
void lapic_sanitize(struct lapic *l); /* after a load: no bit that no write could have set */
bool lapic_base_valid(const struct lapic *l, uint64_t base);
int lapic_map(struct lapic *l, uint64_t base) MUST_CHECK; /* puts the register page where `base` says */
uint32_t lapic_x2apic_ldr(const struct lapic *l);

/* lapic_timer.c */
void lapic_timer_init(struct lapic *l);
void lapic_timer_fini(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_set_lvt(struct lapic *l, uint32_t val);
void lapic_timer_set_initial(struct lapic *l, uint32_t val);
void lapic_timer_set_divide(struct lapic *l, uint8_t val);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
uint32_t lapic_timer_current(struct lapic *l);
uint64_t lapic_timer_deadline(struct lapic *l);
void lapic_timer_tsc_moved(void *apic);
void lapic_timer_state(struct lapic *l, struct stream *s);
/* Registers of an engine's timer, as they are now; after the LVT entries. */
void lapic_timer_load(struct lapic *l, uint32_t initial, uint32_t left, uint8_t divide, uint64_t deadline);

/* lapic_chip.c: the engine's registers to here, and back */
int lapic_chip_fetch(struct lapic *l) MUST_CHECK;
int lapic_chip_store(struct lapic *l) MUST_CHECK;
void lapic_chip_lint(struct lapic *l, unsigned n, bool level);        /* any thread */
bool lapic_chip_deliver(struct lapic *l, const struct apic_msg *msg); /* any thread */
extern const struct vcpu_apic_ops lapic_chip_ops;

/* The engine has this local APIC itself. */
static inline bool lapic_is_chip(const struct lapic *l)
{
    return l->dev.env->irqchip;
}

static inline bool lapic_enabled(const struct lapic *l)
{
    return atomic_load_explicit(&l->base, memory_order_relaxed) & APIC_BASE_ENABLE;
}

static inline bool lapic_x2apic(const struct lapic *l)
{
    return atomic_load_explicit(&l->base, memory_order_relaxed) & APIC_BASE_X2APIC;
}

#endif
