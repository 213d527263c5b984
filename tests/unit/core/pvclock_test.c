/* The paravirtual clock as a guest reads it: right, by the protocol, and never outside RAM. */
#include "core/pvclock.h"

#include <time.h>

#include "../unit.h"

#define RAM_SIZE (64 * KIB)
#define VM_NOW   INT64_C(123456789012)

struct world {
    struct ram ram;
    struct clock clock;
    struct pvclock pv;
    struct vcpu_port port[2];
    struct pvclock_vcpu vcpu[2];
};

/* The clock stands at VM_NOW. */
static void open_world(struct world *w, uint64_t tsc_hz)
{
    struct err err;

    memset(w, 0, sizeof(*w));
    assert_int_equal(ram_open(&w->ram, RAM_SIZE, 2 * GIB, &err), 0);
    clock_init(&w->clock, NULL, tsc_hz);
    atomic_store(&w->clock.stopped, VM_NOW);
    pvclock_init(&w->pv, &w->ram, &w->clock);
    for (int i = 0; i < 2; i++)
        pvclock_join(&w->pv, &w->vcpu[i], &w->port[i]);
}

static void close_world(struct world *w)
{
    for (int i = 0; i < 2; i++)
        pvclock_leave(&w->vcpu[i]);
    assert_null(w->pv.vcpus);
    pvclock_fini(&w->pv);
    clock_fini(&w->clock);
    ram_close(&w->ram);
}

static uint64_t scaled(uint64_t ticks, uint32_t mul, int8_t shift)
{
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    return (uint64_t)((unsigned __int128)ticks * mul >> 32);
}

static uint32_t version(struct world *w, uint64_t gpa)
{
    return load_le32(w->ram.base + gpa);
}

static uint8_t flags(struct world *w, uint64_t gpa)
{
    return w->ram.base[gpa + 29];
}

/* What the guest makes of vCPU i's structure now. */
static uint64_t guest_time(struct world *w, int i, uint64_t gpa)
{
    const uint8_t *t = w->ram.base + gpa;
    uint64_t tsc = clock_tsc(&w->clock) + atomic_load(&w->port[i].tsc_offset);

    assert_int_equal(version(w, gpa) & 1, 0);
    assert_int_equal(load_le32(t + 4), 0);
    assert_int_equal(load_le16(t + 30), 0);
    return load_le64(t + 16) + scaled(tsc - load_le64(t + 8), load_le32(t + 24), (int8_t)t[28]);
}

static void assert_near(uint64_t a, uint64_t b, uint64_t by)
{
    assert_in_range(a, b > by ? b - by : 0, b + by);
}

static void scales(void **state)
{
    static const uint64_t rates[] = {1,          1000,       25000000,   999999999,        1000000000,
                                     1000000001, 2593907000, 5000000000, UINT64_C(1) << 62};
    uint32_t mul;
    int8_t shift;

    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        pvclock_scale(rates[i], &mul, &shift);
        assert_true(mul >> 31);
        assert_near(scaled(rates[i], mul, shift), NS_PER_SEC, 1);
    }
    pvclock_scale(1000000000, &mul, &shift);
    assert_int_equal(scaled(INT64_MAX, mul, shift), INT64_MAX);
}

static void tells_the_vms_time(void **state)
{
    static const uint64_t rates[] = {1000000000, 2593907000};

    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        struct world w;
        open_world(&w, rates[i]);
        atomic_store(&w.port[0].tsc_offset, (uint64_t)-5000);
        pvclock_start(&w.vcpu[0], 0x1004);
        assert_near(guest_time(&w, 0, 0x1004), VM_NOW, 100);
        atomic_store(&w.clock.stopped, VM_NOW * 7);
        assert_near(guest_time(&w, 0, 0x1004), VM_NOW * 7, 500);
        close_world(&w);
    }
}

static void versions_go_on(void **state)
{
    static const struct {
        uint32_t before, after;
    } cases[] = {{0, 2}, {1, 2}, {6, 8}, {7, 8}, {UINT32_MAX - 1, 0}, {UINT32_MAX, 0}};
    struct world w;

    open_world(&w, NS_PER_SEC);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        store_le32(w.ram.base + 0x2000, cases[i].before);
        pvclock_start(&w.vcpu[0], 0x2000);
        assert_int_equal(version(&w, 0x2000), cases[i].after);
    }
    close_world(&w);
}

/* One vCPU's structure serves the other while their TSCs agree. */
static void stable_while_together(void **state)
{
    struct world w;

    open_world(&w, NS_PER_SEC);
    pvclock_start(&w.vcpu[0], 0x1000);
    pvclock_start(&w.vcpu[1], 0x1020);
    assert_int_equal(flags(&w, 0x1000) & flags(&w, 0x1020), PVCLOCK_STABLE);

    atomic_store(&w.port[1].tsc_offset, 1 << 20);
    pvclock_tsc_moved(&w.vcpu[1]);
    assert_int_equal(flags(&w, 0x1000) | flags(&w, 0x1020), 0);
    assert_int_equal(guest_time(&w, 0, 0x1000), VM_NOW);
    assert_int_equal(guest_time(&w, 1, 0x1020), VM_NOW);

    atomic_store(&w.port[0].tsc_offset, 1 << 20);
    pvclock_tsc_moved(&w.vcpu[0]);
    assert_int_equal(flags(&w, 0x1000) & flags(&w, 0x1020), PVCLOCK_STABLE);
    assert_int_equal(guest_time(&w, 0, 0x1000), VM_NOW);
    close_world(&w);
}

static void stopped_is_left_alone(void **state)
{
    struct world w;

    open_world(&w, NS_PER_SEC);
    pvclock_start(&w.vcpu[0], 0x1000);
    pvclock_stop(&w.vcpu[0]);
    uint32_t before = version(&w, 0x1000);
    pvclock_tsc_moved(&w.vcpu[0]);
    assert_int_equal(version(&w, 0x1000), before);
    close_world(&w);
}

static void addresses_are_hostile(void **state)
{
    static const uint64_t bad[] = {RAM_SIZE - PVCLOCK_TIME_SIZE + 4,
                                   RAM_SIZE - 4,
                                   RAM_SIZE,
                                   0x2000 - PVCLOCK_WALL_SIZE + 4,
                                   2 * GIB,
                                   4 * GIB,
                                   UINT64_MAX - 1,
                                   UINT64_MAX - PVCLOCK_TIME_SIZE + 1,
                                   UINT64_C(0xffff888000001000)};
    struct world w;

    open_world(&w, NS_PER_SEC);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        pvclock_start(&w.vcpu[0], bad[i]);
        pvclock_tsc_moved(&w.vcpu[0]);
        pvclock_write_wall(&w.pv, i == 0 ? RAM_SIZE - PVCLOCK_WALL_SIZE + 4 : bad[i]);
    }
    for (size_t i = 0; i < RAM_SIZE; i++)
        assert_int_equal(w.ram.base[i], 0);
    /* The last that fit. */
    pvclock_start(&w.vcpu[0], RAM_SIZE - PVCLOCK_TIME_SIZE);
    assert_int_equal(guest_time(&w, 0, RAM_SIZE - PVCLOCK_TIME_SIZE), VM_NOW);
    pvclock_write_wall(&w.pv, 0x2000 - PVCLOCK_WALL_SIZE);
    assert_int_equal(version(&w, 0x2000 - PVCLOCK_WALL_SIZE), 2);
    close_world(&w);
}

static int64_t host_wall(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static void wall_time_of_power_on(void **state)
{
    struct world w;

    open_world(&w, NS_PER_SEC);
    int64_t before = host_wall();
    pvclock_write_wall(&w.pv, 0x3004);
    int64_t after = host_wall();
    assert_int_equal(version(&w, 0x3004), 2);
    assert_true(load_le32(w.ram.base + 0x300c) < NS_PER_SEC);
    int64_t wall = load_le32(w.ram.base + 0x3008) * NS_PER_SEC + load_le32(w.ram.base + 0x300c);
    assert_in_range(wall + VM_NOW, before, after);
    close_world(&w);
}

/* Engines hear of it: the page may hold code. */
static void code_in_the_page_is_stale(void **state)
{
    struct world w;

    open_world(&w, NS_PER_SEC);
    w.ram.page_flags[1] |= RAM_PAGE_CODE;
    ram_claim_code(&w.ram, w.ram.base + 0x1000, 1);
    pvclock_start(&w.vcpu[0], 0x1000);
    assert_true(w.ram.code[1].version > 0);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales),
        cmocka_unit_test(tells_the_vms_time),
        cmocka_unit_test(versions_go_on),
        cmocka_unit_test(stable_while_together),
        cmocka_unit_test(stopped_is_left_alone),
        cmocka_unit_test(addresses_are_hostile),
        cmocka_unit_test(wall_time_of_power_on),
        cmocka_unit_test(code_in_the_page_is_stale),
    };
    return cmocka_run_group_tests_name("pvclock", tests, NULL, NULL);
}
