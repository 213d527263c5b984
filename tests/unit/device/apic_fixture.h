/* Some CPUs' ports with a local APIC each, an APIC bus, and a PIC that is a variable. */
#ifndef TESTS_UNIT_DEVICE_APIC_FIXTURE_H
#define TESTS_UNIT_DEVICE_APIC_FIXTURE_H

#include "device/lapic.h"
#include "fixture.h"

#define CPUS          4
#define MSR_APIC_BASE 0x1b
#define MSR_DEADLINE  0x6e0
#define X2APIC(off)   (0x800 + (off) / 16)

enum { /* offsets of registers in the page */
       ID = 0x20,
       VERSION = 0x30,
       TPR = 0x80,
       PPR = 0xa0,
       EOI = 0xb0,
       LDR = 0xd0,
       DFR = 0xe0,
       SVR = 0xf0,
       ISR = 0x100,
       TMR = 0x180,
       IRR = 0x200,
       ESR = 0x280,
       ICR = 0x300,
       ICR_HIGH = 0x310,
       LVT_T = 0x320,
       LVT_0 = 0x350,
       LVT_1 = 0x360,
       LVT_E = 0x370,
       INITIAL = 0x380,
       CURRENT = 0x390,
       DIVIDE = 0x3e0,
       SELF_IPI = 0x3f0,
};

struct apic_fixture {
    struct fixture f;
    struct apic_bus bus;
    struct vcpu_port port[CPUS];
    struct bus mmio[CPUS];
    struct device *lapic[CPUS];
    struct device *pic; /* any pointer will do */
    unsigned kicks[CPUS];
    unsigned pic_acks;
};

static inline void count_kick(void *opaque)
{
    (*(unsigned *)opaque)++;
}

static inline int fake_pic_ack(struct device *pic)
{
    struct apic_fixture *a = (struct apic_fixture *)pic;
    a->pic_acks++;
    return 0x77;
}

static inline void apic_open_ids(struct apic_fixture *a, const uint32_t ids[CPUS])
{
    memset(a, 0, sizeof(*a));
    fixture_init(&a->f);
    a->pic = (struct device *)a;
    for (unsigned i = 0; i < CPUS; i++) {
        bus_init(&a->mmio[i], &a->f.mmio);
        a->port[i].kick = count_kick;
        a->port[i].vcpu = &a->kicks[i];
        const struct lapic_conf conf = {
            .apic_id = ids[i],
            .bsp = i == 0,
            .phys_bits = 40,
            .port = &a->port[i],
            .mmio = &a->mmio[i],
            .bus = &a->bus,
            .pic_ack = fake_pic_ack,
            .pic = &a->pic,
        };
        a->lapic[i] = fixture_open(&a->f, &lapic_type, &conf);
    }
}

static inline void apic_open(struct apic_fixture *a)
{
    static const uint32_t ids[CPUS] = {0, 1, 2, 3};
    apic_open_ids(a, ids);
}

static inline void apic_close(struct apic_fixture *a)
{
    for (unsigned i = 0; i < CPUS; i++) {
        device_close(a->lapic[i]);
        bus_fini(&a->mmio[i]);
    }
    fixture_fini(&a->f);
}

static inline uint32_t reg(struct apic_fixture *a, unsigned cpu, unsigned off)
{
    return read32(&a->mmio[cpu], LAPIC_DEFAULT_BASE + off);
}

static inline void set_reg(struct apic_fixture *a, unsigned cpu, unsigned off, uint32_t val)
{
    write32(&a->mmio[cpu], LAPIC_DEFAULT_BASE + off, val);
}

static inline int wrmsr(struct apic_fixture *a, unsigned cpu, uint32_t msr, uint64_t val)
{
    return a->port[cpu].apic_ops->msr_write(a->port[cpu].apic, msr, val);
}

static inline int rdmsr(struct apic_fixture *a, unsigned cpu, uint32_t msr, uint64_t *val)
{
    return a->port[cpu].apic_ops->msr_read(a->port[cpu].apic, msr, val);
}

static inline uint64_t msr(struct apic_fixture *a, unsigned cpu, uint32_t n)
{
    uint64_t val = 0xdead;
    assert_int_equal(rdmsr(a, cpu, n, &val), 0);
    return val;
}

static inline int ack(struct apic_fixture *a, unsigned cpu)
{
    return a->port[cpu].apic_ops->ack(a->port[cpu].apic);
}

static inline uint32_t pins(struct apic_fixture *a, unsigned cpu)
{
    return atomic_load(&a->port[cpu].pending);
}

static inline void enable(struct apic_fixture *a)
{
    for (unsigned i = 0; i < CPUS; i++)
        set_reg(a, i, SVR, 0x1ff);
}

static inline void enable_x2apic(struct apic_fixture *a, unsigned cpu)
{
    assert_int_equal(wrmsr(a, cpu, MSR_APIC_BASE, msr(a, cpu, MSR_APIC_BASE) | 0x400), 0);
}

static inline void lint(struct apic_fixture *a, unsigned cpu, unsigned n, bool level)
{
    struct irq_line line = lapic_lint(a->lapic[cpu], n);
    irq_set(&line, level);
}

static inline void ipi(struct apic_fixture *a, unsigned cpu, uint8_t dest, uint32_t low)
{
    set_reg(a, cpu, ICR_HIGH, (uint32_t)dest << 24);
    set_reg(a, cpu, ICR, low);
}

#endif
