#include "device/hpet.h"

#include <errno.h>

#include "fixture.h"

#define MS       NS_PER_MS
#define PIN(n)   (8 + (n)) /* the fixture's line for IOAPIC pin n, of which 12 to 23 can be chosen; 0 to 15 are ISA */
#define CONFIG   0x10
#define STATUS   0x20
#define COUNTER  0xf0
#define TCONF(n) (0x100u + 0x20u * (n))
#define TCMP(n)  (TCONF(n) + 8)
#define TFSB(n)  (TCONF(n) + 16)

static struct device *open_hpet(struct fixture *f)
{
    struct hpet_conf conf = {0};

    fixture_init(f);
    for (unsigned i = 20; i < 24; i++)
        conf.pin[i] = fixture_line(f, PIN(i));
    return fixture_open(f, &hpet_type, &conf);
}

static void close_hpet(struct fixture *f, struct device *hpet)
{
    device_close(hpet);
    fixture_fini(f);
}

static uint64_t get(struct fixture *f, unsigned off)
{
    return read64(&f->mmio, HPET_BASE + off);
}

static void put(struct fixture *f, unsigned off, uint64_t val)
{
    write64(&f->mmio, HPET_BASE + off, val);
}

static void test_identity_and_reserved_bits(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);

    assert_true(get(&f, 0) == UINT64_C(0x009896808086a201));
    put(&f, 0, 0);
    assert_true(get(&f, 0) == UINT64_C(0x009896808086a201));
    put(&f, CONFIG, ~UINT64_C(1));
    assert_int_equal(get(&f, CONFIG), 2);
    assert_true(get(&f, TCONF(0)) == UINT64_C(0x00f0000000008030));
    put(&f, TCONF(0), ~UINT64_C(0) & ~UINT64_C(0x3e40)); /* route 0 does not exist */
    assert_true(get(&f, TCONF(0)) == UINT64_C(0x00f000000000c13e));
    put(&f, TCONF(0), 21u << 9);
    assert_int_equal(get(&f, TCONF(0)) >> 9 & 0x1f, 21);
    put(&f, TCONF(0), 19u << 9);
    assert_int_equal(get(&f, TCONF(0)) >> 9 & 0x1f, 21);
    assert_true(get(&f, TCMP(2)) == UINT64_MAX);
    assert_int_equal(get(&f, TCONF(3)), 0);
    assert_int_equal(get(&f, 0x3f8), 0);
    close_hpet(&f, h);
}

static void test_counter(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);

    fixture_advance(&f, MS);
    assert_int_equal(get(&f, COUNTER), 0);
    put(&f, COUNTER, UINT64_C(0x1fffffff0));
    put(&f, CONFIG, 1);
    fixture_advance(&f, 320);
    assert_true(get(&f, COUNTER) == UINT64_C(0x200000010));
    assert_int_equal(read32(&f.mmio, HPET_BASE + COUNTER), 0x10);
    assert_int_equal(read32(&f.mmio, HPET_BASE + COUNTER + 4), 2);
    put(&f, COUNTER, 5); /* not while it runs */
    assert_true(get(&f, COUNTER) == UINT64_C(0x200000010));
    put(&f, CONFIG, 0);
    fixture_advance(&f, MS);
    assert_true(get(&f, COUNTER) == UINT64_C(0x200000010));
    write32(&f.mmio, HPET_BASE + COUNTER + 4, 7);
    assert_true(get(&f, COUNTER) == UINT64_C(0x700000010));
    put(&f, CONFIG, 1);
    fixture_advance(&f, 15);
    put(&f, CONFIG, 3);
    assert_true(get(&f, COUNTER) == UINT64_C(0x700000011));
    fixture_advance(&f, 5); /* no part of a tick is lost */
    assert_true(get(&f, COUNTER) == UINT64_C(0x700000012));
    close_hpet(&f, h);
}

static void test_one_shot_edge(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);

    put(&f, CONFIG, 1);
    put(&f, TCONF(1), 22u << 9 | 4);
    put(&f, TCMP(1), 100000);
    fixture_advance(&f, MS - 1);
    assert_int_equal(f.rises[PIN(22)], 0);
    fixture_advance(&f, 1);
    assert_int_equal(f.rises[PIN(22)], 1);
    assert_false(f.level[PIN(22)]);
    assert_int_equal(get(&f, STATUS), 0); /* edges leave no trace */
    fixture_advance(&f, 100 * MS);
    assert_int_equal(f.rises[PIN(22)], 1);
    put(&f, TCMP(1), 50000); /* the past: centuries from now */
    assert_false(fixture_any_timer(&f));
    put(&f, TCONF(1), 22u << 9 | 4 | 0x100); /* 32 bits: when they have gone round */
    fixture_advance(&f, INT64_C(42949672960) - 101 * MS);
    assert_int_equal(f.rises[PIN(22)], 1);
    fixture_advance(&f, MS);
    assert_int_equal(f.rises[PIN(22)], 2);
    close_hpet(&f, h);
}

static void test_level(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);

    put(&f, CONFIG, 1);
    put(&f, TCONF(0), 20u << 9 | 2); /* not enabled: status only */
    put(&f, TCMP(0), 100);
    fixture_advance(&f, MS);
    assert_int_equal(get(&f, STATUS), 1);
    assert_false(f.level[PIN(20)]);
    put(&f, TCONF(0), 20u << 9 | 6);
    assert_true(f.level[PIN(20)]);
    put(&f, TCONF(0), 21u << 9 | 6); /* moves to another pin */
    assert_false(f.level[PIN(20)]);
    assert_true(f.level[PIN(21)]);
    put(&f, CONFIG, 0);
    assert_false(f.level[PIN(21)]);
    put(&f, CONFIG, 1);
    assert_true(f.level[PIN(21)]);
    put(&f, STATUS, 6); /* other timers' bits */
    assert_true(f.level[PIN(21)]);
    put(&f, STATUS, 1);
    assert_false(f.level[PIN(21)]);
    assert_int_equal(get(&f, STATUS), 0);
    close_hpet(&f, h);
}

static void test_periodic(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);

    put(&f, CONFIG, 1);
    put(&f, TCONF(0), 20u << 9 | 0x4c); /* VAL_SET: first match, then the period, as Linux does it */
    put(&f, TCMP(0), 50000);
    assert_false(get(&f, TCONF(0)) & 0x40);
    put(&f, TCMP(0), 100000);
    assert_int_equal(get(&f, TCMP(0)), 50000);
    fixture_advance(&f, MS / 2);
    assert_int_equal(f.rises[PIN(20)], 1);
    assert_int_equal(get(&f, TCMP(0)), 150000);
    fixture_advance(&f, 1000 * MS);
    assert_int_equal(f.rises[PIN(20)], 1001);

    put(&f, TCONF(0), 20u << 9 | 0x48); /* disabled, it goes on unseen and needs no timer */
    assert_false(fixture_any_timer(&f));
    fixture_advance(&f, 10 * MS);
    assert_true(get(&f, TCMP(0)) > get(&f, COUNTER));
    assert_true(get(&f, TCMP(0)) - get(&f, COUNTER) <= 100000);

    put(&f, TCONF(0), 20u << 9 | 0x4c);
    put(&f, TCMP(0), get(&f, COUNTER));
    put(&f, TCMP(0), 1); /* 10 ns: does not spin the host */
    unsigned before = f.rises[PIN(20)];
    fixture_advance(&f, MS);
    assert_true(f.rises[PIN(20)] - before <= 21);
    put(&f, TCMP(0), 0); /* no period at all */
    fixture_advance(&f, MS);
    put(&f, TCMP(0), UINT64_MAX);
    fixture_advance(&f, MS);
    close_hpet(&f, h);
}

static void test_legacy_replacement(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);
    struct irq_line pit = hpet_legacy_input(h, 0), rtc = hpet_legacy_input(h, 1);

    irq_set(&pit, true);
    irq_set(&rtc, true);
    assert_true(f.level[0]);
    assert_true(f.level[8]);
    irq_set(&rtc, false);
    put(&f, CONFIG, 2); /* not in force before the counter runs */
    assert_true(f.level[0]);
    put(&f, CONFIG, 3);
    assert_false(f.level[0]);
    irq_set(&rtc, true);
    assert_false(f.level[8]);
    put(&f, TCONF(0), 20u << 9 | 4);
    put(&f, TCONF(1), 4);
    put(&f, TCMP(0), get(&f, COUNTER) + 1000);
    put(&f, TCMP(1), get(&f, COUNTER) + 1000);
    unsigned irq0 = f.rises[0], irq8 = f.rises[8];
    fixture_advance(&f, MS);
    assert_int_equal(f.rises[0], irq0 + 1);
    assert_int_equal(f.rises[8], irq8 + 1);
    assert_int_equal(f.rises[PIN(20)], 0);
    put(&f, CONFIG, 1); /* back to the PIT and the RTC as they stand */
    assert_true(f.level[0]);
    assert_true(f.level[8]);
    close_hpet(&f, h);
}

static void test_message(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);

    put(&f, CONFIG, 1);
    put(&f, TFSB(2), UINT64_C(0xfee0100000000041));
    assert_true(get(&f, TFSB(2)) == UINT64_C(0xfee0100000000041));
    put(&f, TCONF(2), 0x4004);
    put(&f, TCMP(2), 100);
    fixture_advance(&f, MS);
    assert_int_equal(f.messages, 1);
    assert_int_equal(f.msi_addr, 0xfee01000);
    assert_int_equal(f.msi_data, 0x41);
    close_hpet(&f, h);
}

static void test_odd_accesses(void **state)
{
    struct fixture f;
    struct device *h = open_hpet(&f);
    uint8_t byte = 1;
    uint64_t quad;

    bus_access(&f.mmio, HPET_BASE + CONFIG, &byte, 1, true);
    assert_int_equal(get(&f, CONFIG), 0);
    bus_access(&f.mmio, HPET_BASE + 3, &byte, 1, false);
    assert_int_equal(byte, 0x80);
    bus_access(&f.mmio, HPET_BASE + 4, &quad, 8, false);
    assert_int_equal(quad, 0x989680);
    put(&f, CONFIG, 3);
    for (unsigned off = 0; off < 0x400; off++) {
        put(&f, off, UINT64_MAX);
        write32(&f.mmio, HPET_BASE + off, 0x7fffffff);
        (void)get(&f, off);
    }
    put(&f, CONFIG, 3);
    fixture_advance(&f, 10 * MS);
    close_hpet(&f, h);
}

static void test_state(void **state)
{
    struct fixture f, g;
    struct device *a = open_hpet(&f), *b = open_hpet(&g);

    put(&f, CONFIG, 1);
    put(&f, TCONF(0), 20u << 9 | 0x4c);
    put(&f, TCMP(0), 100000);
    put(&f, TCONF(1), 21u << 9 | 6);
    put(&f, TCMP(1), 100);
    fixture_advance(&f, MS / 2);
    fixture_advance(&g, MS / 2);
    fixture_copy_state(a, b);
    assert_int_equal(get(&g, COUNTER), 50000);
    assert_true(g.level[PIN(21)]);
    fixture_advance(&g, MS / 2);
    assert_int_equal(g.rises[PIN(20)], 1);

    struct stream out, in;
    stream_init_save(&out);
    assert_int_equal(device_state(a, &out), 0);
    for (size_t i = 20; i < out.len; i++) {
        out.data[i] ^= 0xff;
        stream_init_load(&in, out.data, out.len);
        int r = device_state(b, &in);
        assert_true(r == 0 || r == -EPROTO);
        fixture_advance(&g, MS);
        out.data[i] ^= 0xff;
    }
    stream_fini(&out);
    device_reset(b);
    assert_false(g.level[PIN(21)]);
    assert_false(fixture_any_timer(&g));
    close_hpet(&f, a);
    close_hpet(&g, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_and_reserved_bits),
        cmocka_unit_test(test_counter),
        cmocka_unit_test(test_one_shot_edge),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_legacy_replacement),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_odd_accesses),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("hpet", tests, NULL, NULL);
}
