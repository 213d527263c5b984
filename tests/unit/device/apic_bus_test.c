#include "device/apic_bus.h"

#include <errno.h>

#include "../unit.h"

struct target {
    struct apic_cpu cpu;
    unsigned taken;
    struct apic_msg last;
};

static bool take(struct apic_cpu *cpu, const struct apic_msg *msg)
{
    struct target *t = (struct target *)cpu;
    t->taken++;
    t->last = *msg;
    return true;
}

#define ON (APIC_CPU_ENABLED | APIC_CPU_SOFTWARE)

static void join(struct apic_bus *bus, struct target *t, uint32_t id, uint8_t logical, uint8_t flags)
{
    *t = (struct target){.cpu = {.id = id, .logical = logical, .flags = flags, .deliver = take}};
    assert_int_equal(apic_bus_join(bus, &t->cpu), 0);
}

static void msi(struct apic_bus *bus, uint64_t addr, uint32_t data)
{
    struct msi_sink sink = apic_bus_msi(bus);
    sink.send(sink.opaque, addr, data);
}

static void test_msi_decode(void **state)
{
    struct apic_bus bus = {0};
    struct target a, b;

    join(&bus, &a, 1, 1, ON);
    join(&bus, &b, 2, 2, ON);
    msi(&bus, 0xfee01000, 0x41);
    assert_int_equal(a.taken, 1);
    assert_int_equal(b.taken, 0);
    assert_int_equal(a.last.vector, 0x41);
    assert_int_equal(a.last.mode, APIC_FIXED);
    assert_false(a.last.level);
    msi(&bus, 0xfee02000, 0xc442); /* NMI, level, assert */
    assert_int_equal(b.last.mode, APIC_NMI);
    assert_true(b.last.level);
    msi(&bus, 0xfee02000, 0x8042); /* level, de-assert: nothing */
    msi(&bus, 0xfee02000, 0x0642); /* no start-up by message */
    msi(&bus, 0xfed02000, 0x42);
    msi(&bus, UINT64_C(0x1fee02000), 0x42);
    assert_int_equal(b.taken, 1);
    msi(&bus, 0xfee03004, 0x43); /* logical: both */
    assert_int_equal(a.taken, 2);
    assert_int_equal(b.taken, 2);
    atomic_store(&b.cpu.priority, 0x20);
    msi(&bus, 0xfee0300c, 0x44); /* redirected: to the lower priority */
    msi(&bus, 0xfee0300c, 0x44);
    assert_int_equal(a.taken, 4);
    assert_int_equal(b.taken, 2);
    msi(&bus, 0xfeeff000, 0x45);
    assert_int_equal(a.taken, 5);
    assert_int_equal(b.taken, 3);
}

static void test_destinations(void **state)
{
    struct apic_bus bus = {0};
    struct target flat, cluster, x2, off;
    struct apic_msg msg = {.mode = APIC_FIXED, .vector = 0x30, .logical = true};

    join(&bus, &flat, 0, 0x21, ON);
    join(&bus, &cluster, 1, 0x21, ON | APIC_CPU_CLUSTER);
    join(&bus, &x2, 0x12, 0, ON | APIC_CPU_X2APIC);
    join(&bus, &off, 3, 0xff, 0);
    msg.dest = 0x20; /* flat has the bit; in the cluster model it names no member */
    assert_true(apic_bus_send(&bus, &msg));
    assert_int_equal(flat.taken, 1);
    assert_int_equal(cluster.taken, 0);
    msg.dest = 0x23;
    assert_true(apic_bus_send(&bus, &msg));
    assert_int_equal(cluster.taken, 1);
    msg.wide = true;
    msg.dest = 0x10004;
    assert_true(apic_bus_send(&bus, &msg));
    assert_int_equal(x2.taken, 1);
    msg.dest = 0x10003;
    assert_false(apic_bus_send(&bus, &msg));
    msg.logical = false;
    msg.dest = 0xff;
    assert_false(apic_bus_send(&bus, &msg));
    msg.dest = UINT32_MAX;
    assert_true(apic_bus_send(&bus, &msg));
    assert_int_equal(flat.taken, 3);
    assert_int_equal(x2.taken, 2);
    msg.dest = 3;
    assert_false(apic_bus_send(&bus, &msg));
    assert_int_equal(off.taken, 0);
}

static void test_lowest_skips_disabled(void **state)
{
    struct apic_bus bus = {0};
    struct target a, b;
    const struct apic_msg msg = {.mode = APIC_LOWEST, .vector = 0x30, .dest = 0xff};

    assert_false(apic_bus_send(&bus, &msg)); /* an empty bus */
    join(&bus, &a, 0, 0, ON);
    join(&bus, &b, 1, 0, APIC_CPU_ENABLED);
    atomic_store(&a.cpu.priority, 0xf0);
    assert_true(apic_bus_send(&bus, &msg));
    assert_int_equal(a.taken, 1);
    apic_bus_send_ipi(&bus, &a.cpu, APIC_ALL_BUT_SELF, &msg);
    assert_int_equal(a.taken, 1);
    assert_int_equal(b.taken, 0);
    apic_bus_leave(&bus, &a.cpu);
    assert_false(apic_bus_send(&bus, &msg));
}

static void test_full(void **state)
{
    struct apic_bus bus = {.n_cpus = APIC_BUS_MAX_CPUS};
    struct target t = {0};

    assert_int_equal(apic_bus_join(&bus, &t.cpu), -ENOSPC);
    apic_bus_eoi(&bus, 0x30); /* nobody listens */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_msi_decode),
        cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_lowest_skips_disabled),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests_name("apic_bus", tests, NULL, NULL);
}
