#include <errno.h>
#include <sched.h>

#include "apic_fixture.h"

#define MS NS_PER_MS

static uint8_t eois[8];
static unsigned n_eois;

static void count_eoi(void *opaque, uint8_t vector)
{
    eois[n_eois++ % 8] = vector;
}

static void test_reset_values(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    assert_int_equal(msr(&a, 0, MSR_APIC_BASE), 0xfee00900);
    assert_int_equal(msr(&a, 1, MSR_APIC_BASE), 0xfee00800);
    assert_int_equal(reg(&a, 2, ID), 2u << 24);
    assert_int_equal(reg(&a, 0, VERSION), 0x01050014);
    assert_int_equal(reg(&a, 0, SVR), 0xff);
    assert_int_equal(reg(&a, 0, DFR), 0xffffffff);
    for (unsigned off = LVT_T; off <= LVT_E; off += 16)
        assert_int_equal(reg(&a, 0, off), 0x10000);
    set_reg(&a, 0, LVT_T, 0x30); /* cannot be unmasked while disabled */
    assert_int_equal(reg(&a, 0, LVT_T), 0x10030);
    assert_int_equal(pins(&a, 0), 0);
    apic_close(&a);
}

static void test_priorities(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    ipi(&a, 1, 0, 0x41);
    assert_int_equal(pins(&a, 0), PIN_INTR);
    assert_int_equal(a.kicks[0], 1);
    ipi(&a, 1, 0, 0x61);
    ipi(&a, 1, 0, 0x62);
    assert_int_equal(ack(&a, 0), 0x62);
    assert_int_equal(reg(&a, 0, PPR), 0x60);
    assert_int_equal(reg(&a, 0, ISR + 0x30), 1u << 2);
    assert_int_equal(reg(&a, 0, IRR + 0x30), 1u << 1);
    assert_int_equal(pins(&a, 0), 0); /* 0x61 is of the class in service */
    assert_int_equal(ack(&a, 0), -1);
    ipi(&a, 1, 0, 0x71);
    assert_int_equal(pins(&a, 0), PIN_INTR);
    assert_int_equal(ack(&a, 0), 0x71);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(pins(&a, 0), 0);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(pins(&a, 0), PIN_INTR);
    assert_int_equal(ack(&a, 0), 0x61);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(ack(&a, 0), 0x41);
    set_reg(&a, 0, EOI, 0);
    set_reg(&a, 0, EOI, 0); /* with nothing in service */
    assert_int_equal(ack(&a, 0), -1);
    assert_int_equal(reg(&a, 0, PPR), 0);
    apic_close(&a);
}

static void test_tpr_and_cr8(void **state)
{
    struct apic_fixture a;
    const struct vcpu_apic_ops *ops;

    apic_open(&a);
    enable(&a);
    ops = a.port[0].apic_ops;
    ops->cr8_set(a.port[0].apic, 5);
    assert_int_equal(reg(&a, 0, TPR), 0x50);
    ipi(&a, 1, 0, 0x5f);
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(a.kicks[0], 0); /* a halted CPU sleeps on */
    set_reg(&a, 0, TPR, 0x4f);
    assert_int_equal(ops->cr8_get(a.port[0].apic), 4);
    assert_int_equal(reg(&a, 0, PPR), 0x4f);
    assert_int_equal(pins(&a, 0), PIN_INTR);
    ops->cr8_set(a.port[0].apic, 15);
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(ack(&a, 0), -1);
    ops->cr8_set(a.port[0].apic, 0);
    assert_int_equal(ack(&a, 0), 0x5f);
    apic_close(&a);
}

static void test_software_disable(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    set_reg(&a, 0, LVT_0, 0x700);
    ipi(&a, 1, 0, 0x50);
    set_reg(&a, 0, SVR, 0xff);
    assert_int_equal(reg(&a, 0, LVT_0), 0x10700);
    ipi(&a, 1, 0, 0x60); /* dropped */
    ipi(&a, 1, 0, 0x400);
    assert_int_equal(pins(&a, 0), PIN_INTR | PIN_NMI);
    assert_int_equal(ack(&a, 0), 0x50); /* what was pending is still to be handled (SDM Vol. 3A 11.4.7.2) */
    ipi(&a, 0, 1, 0x51);                /* it can still send */
    assert_int_equal(ack(&a, 1), 0x51);
    assert_int_equal(ack(&a, 0), -1);
    apic_close(&a);
}

static void test_ipi_kinds(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    ipi(&a, 0, 1, 0x4500); /* INIT, assert */
    assert_int_equal(pins(&a, 1), PIN_INIT);
    ipi(&a, 0, 2, 0x8500); /* INIT level de-assert: ignored */
    assert_int_equal(pins(&a, 2), 0);
    ipi(&a, 0, 1, 0x4609);
    assert_int_equal(pins(&a, 1), PIN_INIT | PIN_SIPI);
    assert_int_equal(atomic_load(&a.port[1].sipi_vector), 9);
    ipi(&a, 0, 1, 0x4500); /* an INIT drops the start-up before it */
    assert_int_equal(pins(&a, 1), PIN_INIT);
    ipi(&a, 0, 0, 0x4400); /* to itself */
    ipi(&a, 0, 0, 0x4500);
    ipi(&a, 0, 0, 0x4607);
    assert_int_equal(pins(&a, 0), PIN_NMI | PIN_INIT | PIN_SIPI);
    ipi(&a, 0, 3, 0x4200); /* SMI and the reserved ones reach nobody */
    ipi(&a, 0, 3, 0x4300);
    ipi(&a, 0, 3, 0x4700);
    assert_int_equal(pins(&a, 3), 0);
    assert_int_equal(reg(&a, 0, ICR), 0x4700);
    set_reg(&a, 0, ICR, 0x5041); /* delivery status is read-only */
    assert_int_equal(reg(&a, 0, ICR), 0x4041);
    apic_close(&a);
}

static void test_shorthands_and_logical(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    ipi(&a, 1, 0, 0x40040);
    assert_int_equal(ack(&a, 1), 0x40);
    ipi(&a, 1, 0, 0xc0041);
    assert_int_equal(ack(&a, 1), -1);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(ack(&a, i), i == 1 ? -1 : 0x41);
    ipi(&a, 1, 0, 0x800a0);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(ack(&a, i), 0xa0);

    for (unsigned i = 0; i < CPUS; i++) {
        set_reg(&a, i, LDR, 0x01000000u << i);
        set_reg(&a, i, EOI, 0);
        set_reg(&a, i, EOI, 0);
    }
    ipi(&a, 0, 0x0a, 0x842); /* flat: CPUs 1 and 3 */
    assert_int_equal(ack(&a, 0), -1);
    assert_int_equal(ack(&a, 1), 0x42);
    assert_int_equal(ack(&a, 2), -1);
    assert_int_equal(ack(&a, 3), 0x42);
    set_reg(&a, 2, DFR, 0); /* cluster 1, member 4 */
    assert_int_equal(reg(&a, 2, DFR), 0x0fffffff);
    set_reg(&a, 2, LDR, 0x14ffffff);
    assert_int_equal(reg(&a, 2, LDR), 0x14000000);
    ipi(&a, 0, 0x24, 0x850);
    assert_int_equal(ack(&a, 2), -1);
    ipi(&a, 0, 0x1c, 0x850);
    assert_int_equal(ack(&a, 2), 0x50);
    ipi(&a, 0, 0xff, 0x60); /* physical broadcast */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(ack(&a, i), 0x60);
    apic_close(&a);
}

static void test_lowest_priority(void **state)
{
    struct apic_fixture a;
    unsigned taken[CPUS] = {0};

    apic_open(&a);
    enable(&a);
    for (unsigned i = 0; i < CPUS; i++) {
        set_reg(&a, i, LDR, 0x01000000u << i);
        set_reg(&a, i, TPR, 0x20);
    }
    set_reg(&a, 2, TPR, 0x10);
    ipi(&a, 0, 0x0f, 0x940);
    assert_int_equal(ack(&a, 2), 0x40);
    assert_int_equal(ack(&a, 0) & ack(&a, 1) & ack(&a, 3), -1);
    ipi(&a, 0, 0x0f, 0x950); /* CPU 2 is at 0x40 now: one of the others */
    assert_int_equal(ack(&a, 2), -1);
    assert_int_equal((ack(&a, 0) == 0x50) + (ack(&a, 1) == 0x50) + (ack(&a, 3) == 0x50), 1);
    set_reg(&a, 3, SVR, 0xff); /* a disabled one takes part in nothing */
    set_reg(&a, 3, TPR, 0);
    ipi(&a, 0, 0x08, 0x960);
    assert_int_equal(ack(&a, 3), -1);

    lapic_init_reset(a.lapic[2]);
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_init_reset(a.lapic[i]);
        set_reg(&a, i, SVR, 0x1ff);
    }
    for (unsigned i = 0; i < 40; i++) {
        ipi(&a, 0, 0xff, 0x140);
        for (unsigned c = 0; c < CPUS; c++)
            if (ack(&a, c) == 0x40) {
                taken[c]++;
                set_reg(&a, c, EOI, 0);
            }
    }
    for (unsigned c = 0; c < CPUS; c++) /* ties go in turn */
        assert_int_equal(taken[c], 10);
    apic_close(&a);
}

static void test_errors(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    set_reg(&a, 0, LVT_E, 0x33);
    ipi(&a, 0, 1, 0x0f); /* vectors 0 to 15 are illegal */
    assert_int_equal(pins(&a, 1), 0);
    assert_int_equal(ack(&a, 0), 0x33);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(reg(&a, 0, ESR), 0);
    (void)reg(&a, 0, 0x90); /* reserved: no second interrupt before ESR is written */
    assert_int_equal(ack(&a, 0), -1);
    set_reg(&a, 0, ESR, 0);
    assert_int_equal(reg(&a, 0, ESR), 0xa0);
    set_reg(&a, 0, ESR, 0);
    assert_int_equal(reg(&a, 0, ESR), 0);
    set_reg(&a, 0, 0xff0, 1);
    assert_int_equal(ack(&a, 0), 0x33);
    set_reg(&a, 0, LVT_E, 0x05); /* an illegal vector of its own does not recurse */
    set_reg(&a, 0, ESR, 0);
    const struct apic_msg msg = {.dest = 0, .mode = APIC_FIXED, .vector = 3};
    assert_false(apic_bus_send(&a.bus, &msg));
    set_reg(&a, 0, ESR, 0);
    assert_int_equal(reg(&a, 0, ESR), 0x40);
    apic_close(&a);
}

static void test_level_and_eoi_broadcast(void **state)
{
    struct apic_fixture a;
    struct apic_msg msg = {.dest = 0, .mode = APIC_FIXED, .vector = 0x55, .level = true};

    apic_open(&a);
    enable(&a);
    n_eois = 0;
    a.bus.eoi = count_eoi;
    assert_true(apic_bus_send(&a.bus, &msg));
    assert_int_equal(reg(&a, 0, TMR + 0x20), 1u << 21);
    assert_int_equal(ack(&a, 0), 0x55);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(n_eois, 1);
    assert_int_equal(eois[0], 0x55);
    msg.level = false; /* TMR follows what is accepted last */
    assert_true(apic_bus_send(&a.bus, &msg));
    assert_int_equal(reg(&a, 0, TMR + 0x20), 0);
    assert_int_equal(ack(&a, 0), 0x55);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(n_eois, 1);
    msg.level = true; /* suppressed: the system writes the IOAPIC's EOI register */
    set_reg(&a, 0, SVR, 0x11ff);
    assert_true(apic_bus_send(&a.bus, &msg));
    assert_int_equal(ack(&a, 0), 0x55);
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(n_eois, 1);
    apic_close(&a);
}

static void test_lint0_extint(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    lint(&a, 0, 0, true); /* masked after reset */
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(ack(&a, 0), -1);
    assert_int_equal(a.pic_acks, 0);
    lapic_virtual_wire(a.lapic[0]);
    assert_int_equal(pins(&a, 0), PIN_INTR);
    ipi(&a, 0, 0, 0xf0);
    set_reg(&a, 0, TPR, 0xff); /* ExtINT stands outside the priorities */
    assert_int_equal(ack(&a, 0), 0x77);
    assert_int_equal(pins(&a, 0), PIN_INTR); /* the line is still up */
    lint(&a, 0, 0, false);
    assert_int_equal(ack(&a, 0), -1); /* gone before the acknowledge */
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(a.pic_acks, 1);
    set_reg(&a, 0, EOI, 0); /* an ExtINT is not in service here */
    set_reg(&a, 0, TPR, 0);
    assert_int_equal(ack(&a, 0), 0xf0);

    lint(&a, 0, 0, true);
    set_reg(&a, 0, LVT_0, 0x10700);
    assert_int_equal(ack(&a, 0), -1);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00100), 0); /* no APIC: LINT0 is INTR, LINT1 is NMI */
    assert_int_equal(pins(&a, 0), PIN_INTR);
    assert_int_equal(ack(&a, 0), 0x77);
    lint(&a, 0, 1, true);
    assert_int_equal(pins(&a, 0), PIN_INTR | PIN_NMI);
    apic_close(&a);
}

static void test_lint_modes(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    lapic_virtual_wire(a.lapic[0]);
    lint(&a, 0, 1, true);
    assert_int_equal(pins(&a, 0), PIN_NMI);
    vcpu_port_lower(&a.port[0], PIN_NMI);
    lint(&a, 0, 1, true); /* told again, no edge */
    assert_int_equal(pins(&a, 0), 0);

    set_reg(&a, 1, LVT_0, 0x0061); /* fixed, edge */
    lint(&a, 1, 0, true);
    assert_int_equal(ack(&a, 1), 0x61);
    set_reg(&a, 1, EOI, 0);
    assert_int_equal(ack(&a, 1), -1);

    set_reg(&a, 2, LVT_0, 0x8062); /* fixed, level */
    lint(&a, 2, 0, true);
    assert_int_equal(reg(&a, 2, LVT_0), 0xc062);
    assert_int_equal(ack(&a, 2), 0x62);
    lint(&a, 2, 0, true);
    assert_int_equal(ack(&a, 2), -1); /* remote IRR holds it */
    set_reg(&a, 2, EOI, 0);
    assert_int_equal(ack(&a, 2), 0x62); /* still up */
    lint(&a, 2, 0, false);
    set_reg(&a, 2, EOI, 0);
    assert_int_equal(reg(&a, 2, LVT_0), 0x8062);
    assert_int_equal(pins(&a, 2), 0);
    apic_close(&a);
}

static void test_timer_one_shot_and_divide(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    set_reg(&a, 0, LVT_T, 0x40);
    set_reg(&a, 0, DIVIDE, 0xff);
    assert_int_equal(reg(&a, 0, DIVIDE), 0x0b); /* by one */
    set_reg(&a, 0, INITIAL, 1000000);
    fixture_advance(&a.f, 999999);
    assert_int_equal(reg(&a, 0, CURRENT), 1);
    assert_int_equal(pins(&a, 0), 0);
    fixture_advance(&a.f, 1);
    assert_int_equal(ack(&a, 0), 0x40);
    assert_int_equal(reg(&a, 0, CURRENT), 0);
    set_reg(&a, 0, EOI, 0);
    fixture_advance(&a.f, 10 * MS);
    assert_int_equal(pins(&a, 0), 0);

    set_reg(&a, 0, INITIAL, 1000000);
    fixture_advance(&a.f, 500000);
    set_reg(&a, 0, DIVIDE, 0); /* by two from here on */
    assert_int_equal(reg(&a, 0, CURRENT), 500000);
    fixture_advance(&a.f, 999999);
    assert_int_equal(pins(&a, 0), 0);
    fixture_advance(&a.f, 1);
    assert_int_equal(ack(&a, 0), 0x40);
    set_reg(&a, 0, EOI, 0);

    set_reg(&a, 0, DIVIDE, 0xa);
    set_reg(&a, 0, INITIAL, UINT32_MAX); /* by 128: 550 s */
    fixture_advance(&a.f, INT64_C(128) * UINT32_MAX - 1);
    assert_int_equal(pins(&a, 0), 0);
    fixture_advance(&a.f, 1);
    assert_int_equal(ack(&a, 0), 0x40);
    set_reg(&a, 0, EOI, 0);

    set_reg(&a, 0, INITIAL, 100);
    set_reg(&a, 0, INITIAL, 0); /* stopped */
    fixture_advance(&a.f, MS);
    assert_int_equal(pins(&a, 0), 0);
    assert_false(fixture_any_timer(&a.f));
    apic_close(&a);
}

static void test_timer_periodic(void **state)
{
    struct apic_fixture a;
    unsigned n = 0;

    apic_open(&a);
    enable(&a);
    set_reg(&a, 0, DIVIDE, 0xb);
    set_reg(&a, 0, LVT_T, 0x20040);
    set_reg(&a, 0, INITIAL, 4000000);
    for (unsigned i = 0; i < 1000; i++) {
        fixture_advance(&a.f, MS);
        if (ack(&a, 0) == 0x40) {
            set_reg(&a, 0, EOI, 0);
            n++;
        }
    }
    assert_int_equal(n, 250);
    fixture_advance(&a.f, MS);
    assert_int_equal(reg(&a, 0, CURRENT), 3000000);
    set_reg(&a, 0, LVT_T, 0x30040); /* masked: counts on, tells nobody */
    fixture_advance(&a.f, 4 * MS);
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(reg(&a, 0, CURRENT), 3000000);
    set_reg(&a, 0, LVT_T, 0x40); /* one-shot: this count is the last */
    fixture_advance(&a.f, 3 * MS);
    assert_int_equal(ack(&a, 0), 0x40);
    assert_false(fixture_any_timer(&a.f));
    set_reg(&a, 0, LVT_T, 0x20040);
    set_reg(&a, 0, INITIAL, 1); /* 1 ns: does not spin the host */
    fixture_advance(&a.f, MS);
    assert_int_equal(pins(&a, 0), 0); /* 0x40 is in service, and pending only once */
    set_reg(&a, 0, EOI, 0);
    assert_int_equal(ack(&a, 0), 0x40);
    apic_close(&a);
}

static void test_tsc_deadline(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    fixture_advance(&a.f, MS);
    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 2000000), 0); /* not in this mode: ignored */
    assert_int_equal(msr(&a, 0, MSR_DEADLINE), 0);
    set_reg(&a, 0, LVT_T, 0x40040);
    set_reg(&a, 0, INITIAL, 1000); /* ignored in turn */
    assert_false(fixture_any_timer(&a.f));
    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 2000000), 0);
    assert_int_equal(msr(&a, 0, MSR_DEADLINE), 2000000);
    assert_int_equal(reg(&a, 0, CURRENT), 0);
    fixture_until(&a.f, 2 * MS - 1);
    assert_int_equal(pins(&a, 0), 0);
    fixture_until(&a.f, 2 * MS);
    assert_int_equal(ack(&a, 0), 0x40);
    assert_int_equal(msr(&a, 0, MSR_DEADLINE), 0);
    set_reg(&a, 0, EOI, 0);

    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 1), 0); /* the past: at once */
    assert_int_equal(ack(&a, 0), 0x40);
    set_reg(&a, 0, EOI, 0);

    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 4000000), 0);
    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 0), 0); /* disarmed */
    fixture_until(&a.f, 5 * MS);
    assert_int_equal(pins(&a, 0), 0);

    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 6000000), 0);
    atomic_store(&a.port[0].tsc_offset, (uint64_t)-MS); /* the guest sets its TSC back, and does not say so */
    fixture_until(&a.f, 6 * MS);
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(msr(&a, 0, MSR_DEADLINE), 6000000);
    fixture_until(&a.f, 7 * MS);
    assert_int_equal(ack(&a, 0), 0x40);
    set_reg(&a, 0, EOI, 0);

    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, UINT64_MAX), 0); /* centuries */
    atomic_store(&a.port[0].tsc_offset, UINT64_MAX - (uint64_t)(8 * MS));
    a.port[0].apic_ops->tsc_moved(a.port[0].apic);
    fixture_until(&a.f, 8 * MS);
    assert_int_equal(ack(&a, 0), 0x40);
    set_reg(&a, 0, EOI, 0);

    atomic_store(&a.port[0].tsc_offset, 0);
    assert_int_equal(wrmsr(&a, 0, MSR_DEADLINE, 9000000), 0);
    set_reg(&a, 0, LVT_T, 0x40); /* leaving the mode disarms */
    set_reg(&a, 0, LVT_T, 0x40040);
    assert_int_equal(msr(&a, 0, MSR_DEADLINE), 0);
    fixture_until(&a.f, 10 * MS);
    assert_int_equal(pins(&a, 0), 0);
    apic_close(&a);
}

static void test_base_relocation(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0x80000900), 0);
    assert_int_equal(read32(&a.mmio[0], 0x80000030), 0x01050014);
    assert_int_equal(reg(&a, 0, VERSION), 0xffffffff);
    assert_int_equal(reg(&a, 1, VERSION), 0x01050014); /* the other CPU's own */
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00900), 0);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, UINT64_C(1) << 40 | 0x900), -EPERM); /* beyond MAXPHYADDR */
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00b00), -EPERM);                /* bit 9 is reserved */
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00901), -EPERM);
    assert_int_equal(msr(&a, 0, MSR_APIC_BASE), 0xfee00900);
    set_reg(&a, 0, SVR, 0x1ff);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00100), 0);
    assert_int_equal(reg(&a, 0, VERSION), 0xffffffff);
    ipi(&a, 1, 0, 0x4400); /* nobody there */
    assert_int_equal(pins(&a, 0), 0);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00900), 0);
    assert_int_equal(reg(&a, 0, SVR), 0xff); /* comes back as after reset */
    apic_close(&a);
}

static void test_x2apic_transitions(void **state)
{
    struct apic_fixture a;
    uint64_t val;

    apic_open(&a);
    assert_int_equal(rdmsr(&a, 0, X2APIC(VERSION), &val), -EPERM);
    assert_int_equal(wrmsr(&a, 0, X2APIC(TPR), 0), -EPERM);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00500), -EPERM); /* EXTD without EN */
    set_reg(&a, 0, TPR, 0x30);
    set_reg(&a, 0, ICR_HIGH, 0x05000000);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00d00), 0);
    assert_int_equal(reg(&a, 0, VERSION), 0xffffffff); /* no page in this mode */
    assert_int_equal(msr(&a, 0, X2APIC(TPR)), 0x30);
    assert_int_equal(msr(&a, 0, X2APIC(ICR)), 0);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00900), -EPERM); /* back to xAPIC only through disabled */
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00100), 0);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00d00), -EPERM);
    assert_int_equal(wrmsr(&a, 0, MSR_APIC_BASE, 0xfee00900), 0);
    assert_int_equal(reg(&a, 0, TPR), 0);
    assert_int_equal(reg(&a, 0, VERSION), 0x01050014);
    apic_close(&a);
}

static void test_x2apic_illegal(void **state)
{
    struct apic_fixture a;
    uint64_t val;

    apic_open(&a);
    enable_x2apic(&a, 0);
    static const uint32_t no_read[] = {0x800, 0x801, 0x809, 0x80b, 0x80c, 0x80e,
                                       0x82f, 0x831, 0x83a, 0x83f, 0x840, 0x8ff};
    for (unsigned i = 0; i < ARRAY_SIZE(no_read); i++)
        assert_int_equal(rdmsr(&a, 0, no_read[i], &val), -EPERM);
    static const uint32_t no_write[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810,
                                        0x818, 0x820, 0x827, 0x82f, 0x831, 0x839};
    for (unsigned i = 0; i < ARRAY_SIZE(no_write); i++)
        assert_int_equal(wrmsr(&a, 0, no_write[i], 0), -EPERM);
    static const struct {
        uint32_t reg;
        uint64_t bad;
    } reserved[] = {
        {X2APIC(TPR), 0x100},      {X2APIC(EOI), 1},          {X2APIC(SVR), 0x400},
        {X2APIC(ESR), 1},          {X2APIC(ICR), 0x2000},     {X2APIC(ICR), 0x100000},
        {X2APIC(LVT_T), 0x80000},  {X2APIC(LVT_T), 0x100},    {X2APIC(LVT_0), 0x20000},
        {X2APIC(LVT_E), 0x700},    {X2APIC(DIVIDE), 4},       {X2APIC(INITIAL), UINT64_C(1) << 32},
        {X2APIC(SELF_IPI), 0x100}, {X2APIC(TPR), UINT64_MAX}, {X2APIC(LVT_1), UINT64_C(1) << 63},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(reserved); i++)
        assert_int_equal(wrmsr(&a, 0, reserved[i].reg, reserved[i].bad), -EPERM);
    assert_int_equal(wrmsr(&a, 0, X2APIC(LVT_0), 0x5700), 0); /* read-only bits are no fault */
    assert_int_equal(msr(&a, 0, X2APIC(LVT_0)), 0x10700);
    assert_int_equal(rdmsr(&a, 0, 0x900, &val), -EPERM);
    assert_int_equal(wrmsr(&a, 0, 0x7ff, 0), -EPERM);
    apic_close(&a);
}

static void test_x2apic_ipis(void **state)
{
    static const uint32_t ids[CPUS] = {0, 1, 0x13, 0x1fe};
    struct apic_fixture a;

    apic_open_ids(&a, ids);
    enable(&a);
    for (unsigned i = 0; i < CPUS; i++)
        enable_x2apic(&a, i);
    assert_int_equal(msr(&a, 2, X2APIC(ID)), 0x13);
    assert_int_equal(msr(&a, 2, X2APIC(LDR)), 0x10008);
    assert_int_equal(msr(&a, 3, X2APIC(LDR)), 0x1f4000);
    assert_int_equal(wrmsr(&a, 0, X2APIC(ICR), UINT64_C(0x1fe) << 32 | 0x41), 0);
    assert_int_equal(ack(&a, 3), 0x41);
    assert_int_equal(wrmsr(&a, 3, X2APIC(EOI), 0), 0);
    assert_int_equal(wrmsr(&a, 0, X2APIC(ICR), UINT64_C(0xff) << 32 | 0x41), 0); /* no broadcast in this mode */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(ack(&a, i), -1);
    assert_int_equal(wrmsr(&a, 0, X2APIC(ICR), UINT64_C(0x00010008) << 32 | 0x842), 0); /* logical: cluster 1 */
    assert_int_equal(ack(&a, 2), 0x42);
    assert_int_equal(wrmsr(&a, 2, X2APIC(EOI), 0), 0);
    assert_int_equal(wrmsr(&a, 0, X2APIC(ICR), UINT64_C(0x00000003) << 32 | 0x842), 0); /* cluster 0: CPUs 0 and 1 */
    assert_int_equal(ack(&a, 0), 0x42);
    assert_int_equal(ack(&a, 1), 0x42);
    assert_int_equal(ack(&a, 2), -1);
    assert_int_equal(wrmsr(&a, 0, X2APIC(ICR), UINT64_C(0xffffffff) << 32 | 0x400), 0);
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(pins(&a, i) & PIN_NMI);
    assert_int_equal(wrmsr(&a, 1, X2APIC(SELF_IPI), 0x99), 0);
    assert_int_equal(ack(&a, 1), 0x99);
    assert_int_equal(wrmsr(&a, 1, X2APIC(SELF_IPI), 0x0f), 0);
    assert_int_equal(wrmsr(&a, 1, X2APIC(ESR), 0), 0);
    assert_int_equal(msr(&a, 1, X2APIC(ESR)), 0x20);
    assert_int_equal(msr(&a, 0, X2APIC(ICR)), UINT64_C(0xffffffff) << 32 | 0x400);
    apic_close(&a);
}

static void test_init_reset(void **state)
{
    struct apic_fixture a;

    apic_open(&a);
    enable(&a);
    enable_x2apic(&a, 1);
    assert_int_equal(wrmsr(&a, 1, X2APIC(LVT_T), 0x40040), 0);
    assert_int_equal(wrmsr(&a, 1, MSR_DEADLINE, 1000), 0);
    ipi(&a, 0, 1, 0x50);
    assert_int_equal(pins(&a, 1), PIN_INTR);
    lapic_init_reset(a.lapic[1]);
    assert_int_equal(pins(&a, 1), 0);
    assert_int_equal(msr(&a, 1, MSR_APIC_BASE), 0xfee00c00); /* INIT leaves the mode (SDM Vol. 3A 11.12.5.1) */
    assert_int_equal(msr(&a, 1, X2APIC(ID)), 1);
    assert_int_equal(msr(&a, 1, X2APIC(SVR)), 0xff);
    assert_int_equal(msr(&a, 1, X2APIC(LVT_T)), 0x10000);
    assert_false(fixture_any_timer(&a.f));
    device_reset(a.lapic[1]);
    assert_int_equal(msr(&a, 1, MSR_APIC_BASE), 0xfee00800);
    assert_int_equal(reg(&a, 1, VERSION), 0x01050014);
    apic_close(&a);
}

/*
 * An interrupt arrives while its CPU raises TPR over another that was pending, and lowers PIN_INTR for that one: the pin must be up
 * again for the new one.
 */
#define ROUNDS 50000

struct sender {
    struct apic_fixture *a;
    _Atomic unsigned round;
};

static void *send_each_round(void *opaque)
{
    struct sender *s = opaque;
    const struct apic_msg msg = {.mode = APIC_FIXED, .vector = 0x81};

    for (unsigned i = 1; i <= ROUNDS; i++) {
        while (atomic_load(&s->round) != i)
            sched_yield();
        for (unsigned n = i & 127; n; n--)
            atomic_signal_fence(memory_order_seq_cst);
        apic_bus_send(&s->a->bus, &msg);
    }
    return NULL;
}

static void test_no_interrupt_is_lost(void **state)
{
    struct apic_fixture a;
    struct sender s = {.a = &a};
    pthread_t thread;

    apic_open(&a);
    enable(&a);
    const struct vcpu_apic_ops *ops = a.port[0].apic_ops;
    ipi(&a, 1, 0, 0x31);
    assert_int_equal(pthread_create(&thread, NULL, send_each_round, &s), 0);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        atomic_store(&s.round, i);
        for (unsigned n = 0; n < 4; n++) {
            ops->cr8_set(a.port[0].apic, 0);
            ops->cr8_set(a.port[0].apic, 4);
        }
        int vector = -1;
        while (vector <
               0) { /* for ever, if one is lost; the pin itself may come up late, for one that has been taken */
            if (pins(&a, 0) & PIN_INTR)
                vector = ack(&a, 0);
            else
                sched_yield();
        }
        assert_int_equal(vector, 0x81);
        set_reg(&a, 0, EOI, 0);
    }
    pthread_join(thread, NULL);
    assert_int_equal(ack(&a, 0), -1);
    apic_close(&a);
}

static void test_odd_accesses(void **state)
{
    struct apic_fixture a;
    uint8_t byte;
    uint64_t quad = 0;

    apic_open(&a);
    bus_access(&a.mmio[0], LAPIC_DEFAULT_BASE + VERSION + 2, &byte, 1, false);
    assert_int_equal(byte, 0x05);
    bus_access(&a.mmio[0], LAPIC_DEFAULT_BASE + VERSION + 1, &quad, 8, false);
    assert_int_equal(quad, 0x010500);
    bus_access(&a.mmio[0], LAPIC_DEFAULT_BASE + VERSION + 7, &byte, 1, false);
    assert_int_equal(byte, 0);
    byte = 0x70; /* narrow writes change nothing */
    bus_access(&a.mmio[0], LAPIC_DEFAULT_BASE + TPR, &byte, 1, true);
    assert_int_equal(reg(&a, 0, TPR), 0);
    for (unsigned off = 0; off < 0x1000; off++) { /* whatever is written where, nothing breaks */
        set_reg(&a, 0, off, 0xffffffff);
        (void)reg(&a, 0, off);
    }
    apic_close(&a);
}

static void test_state(void **state)
{
    struct apic_fixture a, b;

    apic_open(&a);
    apic_open(&b);
    enable(&a);
    set_reg(&a, 0, LVT_T, 0x20040);
    set_reg(&a, 0, DIVIDE, 0xb);
    set_reg(&a, 0, INITIAL, 2000000);
    ipi(&a, 1, 0, 0x50);
    assert_int_equal(ack(&a, 0), 0x50);
    ipi(&a, 1, 0, 0x60);
    fixture_advance(&a.f, 500000);
    fixture_advance(&b.f, 500000);
    fixture_copy_state(a.lapic[0], b.lapic[0]);
    assert_int_equal(pins(&b, 0), PIN_INTR);
    assert_int_equal(ack(&b, 0), 0x60);
    assert_int_equal(reg(&b, 0, CURRENT), 1500000);
    set_reg(&b, 0, EOI, 0);
    set_reg(&b, 0, EOI, 0);
    fixture_advance(&b.f, 1500000);
    assert_int_equal(ack(&b, 0), 0x40);

    enable_x2apic(&a, 2);
    fixture_copy_state(a.lapic[2], b.lapic[2]);
    assert_int_equal(msr(&b, 2, X2APIC(ID)), 2);
    assert_int_equal(reg(&b, 2, VERSION), 0xffffffff);

    struct stream out, in;
    stream_init_save(&out);
    assert_int_equal(device_state(a.lapic[0], &out), 0);
    for (size_t i = 20; i < out.len; i++) {
        out.data[i] ^= 0xff;
        stream_init_load(&in, out.data, out.len);
        int r = device_state(b.lapic[0], &in);
        assert_true(r == 0 || r == -EPROTO);
        fixture_advance(&b.f, MS);
        assert_true(ack(&b, 0) < 256);
        out.data[i] ^= 0xff;
    }
    stream_fini(&out);
    apic_close(&a);
    apic_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_values),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_tpr_and_cr8),
        cmocka_unit_test(test_software_disable),
        cmocka_unit_test(test_ipi_kinds),
        cmocka_unit_test(test_shorthands_and_logical),
        cmocka_unit_test(test_lowest_priority),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_level_and_eoi_broadcast),
        cmocka_unit_test(test_lint0_extint),
        cmocka_unit_test(test_lint_modes),
        cmocka_unit_test(test_timer_one_shot_and_divide),
        cmocka_unit_test(test_timer_periodic),
        cmocka_unit_test(test_tsc_deadline),
        cmocka_unit_test(test_base_relocation),
        cmocka_unit_test(test_x2apic_transitions),
        cmocka_unit_test(test_x2apic_illegal),
        cmocka_unit_test(test_x2apic_ipis),
        cmocka_unit_test(test_init_reset),
        cmocka_unit_test(test_no_interrupt_is_lost),
        cmocka_unit_test(test_odd_accesses),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("lapic", tests, NULL, NULL);
}
