#include <errno.h>

#include "../unit.h"
#include "core/bus.h"

/* A region whose bytes read as their offset plus its region number times 16, and that remembers the last write. */
struct probe {
    uint64_t off, val;
    unsigned len, region;
};

static uint64_t probe_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    uint64_t val = 0;
    for (unsigned i = 0; i < len; i++)
        val |= (uint64_t)(uint8_t)(region * 16 + off + i) << (8 * i);
    return val;
}

static void probe_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    *(struct probe *)opaque = (struct probe){.off = off, .val = val, .len = len, .region = region};
}

static struct bus_region region(struct probe *p, unsigned n, uint64_t base, uint64_t size)
{
    return (struct bus_region){
        .base = base, .size = size, .read = probe_read, .write = probe_write, .opaque = p, .region = n};
}

static void test_reaches_region(void **state)
{
    struct probe p = {0};
    struct bus bus;
    uint32_t v;

    bus_init(&bus, NULL);
    struct bus_region r = region(&p, 1, 0x100, 8);
    assert_int_equal(bus_add(&bus, &r), 0);
    bus_access(&bus, 0x102, &v, 4, false);
    assert_int_equal(v, 0x15141312);
    v = 0xdeadbeef;
    bus_access(&bus, 0x104, &v, 2, true);
    assert_int_equal(p.off, 4);
    assert_int_equal(p.val, 0xbeef);
    assert_int_equal(p.len, 2);
    bus_fini(&bus);
}

static void test_absent_reads_ones(void **state)
{
    struct bus bus;
    uint64_t v = 0;

    bus_init(&bus, NULL);
    bus_access(&bus, 0x80, &v, 8, false);
    assert_int_equal(v, UINT64_MAX);
    bus_access(&bus, UINT64_MAX, &v, 1, true);
    bus_fini(&bus);
}

static void test_splits_at_boundaries(void **state)
{
    struct probe p = {0};
    struct bus bus;
    uint64_t v = 0;

    bus_init(&bus, NULL);
    struct bus_region a = region(&p, 1, 0x100, 4), b = region(&p, 2, 0x104, 2);
    assert_int_equal(bus_add(&bus, &b), 0);
    assert_int_equal(bus_add(&bus, &a), 0);
    bus_access(&bus, 0x102, &v, 8, false);
    assert_int_equal(v, 0xffffffff21201312);
    bus_access(&bus, 0xfe, &v, 4, false);
    assert_int_equal((uint32_t)v, 0x1110ffff);
    bus_fini(&bus);
}

static void test_refuses_overlap(void **state)
{
    struct probe p = {0};
    struct bus bus;

    bus_init(&bus, NULL);
    struct bus_region a = region(&p, 1, 0x100, 0x10), b = region(&p, 2, 0x10f, 1), c = region(&p, 3, 0xff, 2),
                      d = region(&p, 4, 0x110, 1), e = region(&p, 5, 0, 0), f = region(&p, 6, UINT64_MAX, 2);
    assert_int_equal(bus_add(&bus, &a), 0);
    assert_int_equal(bus_add(&bus, &b), -EEXIST);
    assert_int_equal(bus_add(&bus, &c), -EEXIST);
    assert_int_equal(bus_add(&bus, &d), 0);
    assert_int_equal(bus_add(&bus, &e), -EINVAL);
    assert_int_equal(bus_add(&bus, &f), -EINVAL);
    bus_remove(&bus, 0x100);
    assert_int_equal(bus_add(&bus, &b), 0);
    bus_fini(&bus);
}

static void test_falls_through_to_next(void **state)
{
    struct probe p = {0}, q = {0};
    struct bus vm, cpu;
    uint16_t v;

    bus_init(&vm, NULL);
    bus_init(&cpu, &vm);
    struct bus_region own = region(&p, 1, 0x1000, 0x10), shared = region(&q, 2, 0x0, 0x2000);
    assert_int_equal(bus_add(&cpu, &own), 0);
    assert_int_equal(bus_add(&vm, &shared), 0);
    bus_access(&cpu, 0x1000, &v, 2, false);
    assert_int_equal(v, 0x1110);
    bus_access(&cpu, 0x20, &v, 2, true);
    assert_int_equal(q.region, 2);
    bus_access(&cpu, 0x100f, &v, 2, false); /* the last byte of its own, then the shared one's */
    assert_int_equal(v, 0x301f);
    bus_fini(&cpu);
    bus_fini(&vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reaches_region),        cmocka_unit_test(test_absent_reads_ones),
        cmocka_unit_test(test_splits_at_boundaries),  cmocka_unit_test(test_refuses_overlap),
        cmocka_unit_test(test_falls_through_to_next),
    };
    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
