#include "device/rtc.h"

#include <errno.h>

#include "fixture.h"

#define IRQ   8
#define MS    NS_PER_MS
#define EPOCH INT64_C(1700000000) /* Tuesday 14 November 2023 22:13:20 UTC: where VM time 0 is */

struct board {
    struct fixture f;
    struct device *rtc;
    int64_t wall_step; /* ns that the host's wall clock has been set by */
};

static int64_t wall(void *opaque)
{
    struct board *b = opaque;
    return EPOCH * NS_PER_SEC + b->wall_step + clock_now(&b->f.clock);
}

static void open_board(struct board *b)
{
    fixture_init(&b->f);
    b->wall_step = 0;
    const struct rtc_conf conf = {
        .irq = fixture_line(&b->f, IRQ),
        .ram_low = 512 * MIB,
        .ram_high = 5 * GIB,
        .n_cpus = 4,
        .wall_ns = wall,
        .wall_opaque = b,
    };
    b->rtc = fixture_open(&b->f, &rtc_type, &conf);
}

static void close_board(struct board *b)
{
    device_close(b->rtc);
    fixture_fini(&b->f);
}

static uint8_t get(struct board *b, uint8_t reg)
{
    out8(&b->f, 0x70, reg);
    return in8(&b->f, 0x71);
}

static void put(struct board *b, uint8_t reg, uint8_t val)
{
    out8(&b->f, 0x70, reg);
    out8(&b->f, 0x71, val);
}

/* Century, year, month, day, hour, minute, second as the registers show them. */
static void assert_time(struct board *b, uint64_t expected)
{
    static const uint8_t regs[] = {0x32, 9, 8, 7, 4, 2, 0};
    uint64_t val = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
        val = val << 8 | get(b, regs[i]);
    assert_true(val == expected);
}

static void test_time_and_formats(void **state)
{
    struct board b;

    open_board(&b);
    assert_time(&b, 0x20231114221320);
    assert_int_equal(get(&b, 6), 3); /* Sunday is 1 */
    fixture_advance(&b.f, 50 * NS_PER_SEC);
    assert_time(&b, 0x20231114221410);
    put(&b, 0xb, 0x06); /* binary */
    assert_time(&b, 0x14170b0e160e0a);
    put(&b, 0xb, 0x00); /* BCD, 12 hours */
    assert_int_equal(get(&b, 4), 0x90);
    fixture_advance(&b.f, 2 * 3600 * NS_PER_SEC);
    assert_time(&b, 0x20231115121410); /* 00:14 is 12:14 AM */
    close_board(&b);
}

static void test_setting(void **state)
{
    struct board b;

    open_board(&b);
    fixture_advance(&b.f, 300 * MS);
    put(&b, 0xb, 0x82); /* SET: the registers are memory */
    put(&b, 0x32, 0x19);
    put(&b, 9, 0x99);
    put(&b, 8, 0x12);
    put(&b, 7, 0x31);
    put(&b, 4, 0x23);
    put(&b, 2, 0x59);
    put(&b, 0, 0x58);
    put(&b, 6, 0x06);
    fixture_advance(&b.f, 10 * NS_PER_SEC);
    assert_time(&b, 0x19991231235958);
    put(&b, 0xb, 0x02);
    assert_time(&b, 0x19991231235958);
    fixture_advance(&b.f, 700 * MS); /* the divider went on: the second is over */
    assert_time(&b, 0x19991231235959);
    fixture_advance(&b.f, NS_PER_SEC);
    assert_time(&b, 0x20000101000000);
    assert_int_equal(get(&b, 6), 7);
    put(&b, 7, 0x15); /* one register while it runs */
    assert_time(&b, 0x20000115000000);
    device_reset(b.rtc); /* the battery keeps it */
    assert_time(&b, 0x20000115000000);
    b.wall_step = 3600 * NS_PER_SEC; /* it follows the host's clock all the same */
    assert_time(&b, 0x20000115010000);
    close_board(&b);
}

static void test_divider_reset(void **state)
{
    struct board b;

    open_board(&b);
    fixture_advance(&b.f, 900 * MS);
    put(&b, 0xa, 0x76);
    fixture_advance(&b.f, 5 * NS_PER_SEC);
    assert_int_equal(get(&b, 0), 0x20);
    put(&b, 0xa, 0x26);
    fixture_advance(&b.f, 499 * MS);
    assert_int_equal(get(&b, 0), 0x20);
    fixture_advance(&b.f, MS); /* half a second after the release */
    assert_int_equal(get(&b, 0), 0x21);
    close_board(&b);
}

static void test_update_in_progress(void **state)
{
    struct board b;

    open_board(&b);
    assert_int_equal(get(&b, 0xa), 0x26);
    fixture_advance(&b.f, NS_PER_SEC - 244001);
    assert_int_equal(get(&b, 0xa), 0x26);
    fixture_advance(&b.f, 1);
    assert_int_equal(get(&b, 0xa), 0xa6);
    assert_int_equal(get(&b, 0), 0x20);
    put(&b, 0xb, 0x82);
    assert_int_equal(get(&b, 0xa), 0x26);
    put(&b, 0xb, 0x02);
    fixture_advance(&b.f, 244000);
    assert_int_equal(get(&b, 0xa), 0x26);
    assert_int_equal(get(&b, 0), 0x21);
    close_board(&b);
}

static void test_update_interrupt(void **state)
{
    struct board b;

    open_board(&b);
    fixture_advance(&b.f, NS_PER_SEC);
    assert_int_equal(get(&b, 0xc), 0x50); /* flags are set without being enabled; the periodic one too */
    assert_int_equal(get(&b, 0xc), 0);
    assert_false(fixture_any_timer(&b.f));
    put(&b, 0xb, 0x12);
    fixture_advance(&b.f, NS_PER_SEC - 1);
    assert_false(b.f.level[IRQ]);
    fixture_advance(&b.f, 1);
    assert_true(b.f.level[IRQ]);
    assert_int_equal(get(&b, 0xc) & 0xb0, 0x90);
    assert_false(b.f.level[IRQ]);
    fixture_advance(&b.f, NS_PER_SEC);
    assert_true(b.f.level[IRQ]);
    put(&b, 0xb, 0x92); /* SET disables it */
    assert_int_equal(get(&b, 0xb), 0x82);
    assert_false(b.f.level[IRQ]);
    close_board(&b);
}

static void test_alarm(void **state)
{
    struct board b;

    open_board(&b);
    put(&b, 5, 0x23);
    put(&b, 3, 0x01);
    put(&b, 1, 0x05);
    put(&b, 0xb, 0x22);
    fixture_until(&b.f, (46 * 60 + 104) * NS_PER_SEC + 999 * MS); /* 23:01:04.999 */
    assert_false(b.f.level[IRQ]);
    fixture_advance(&b.f, MS);
    assert_true(b.f.level[IRQ]);
    assert_int_equal(get(&b, 0xc) & 0xa0, 0xa0);
    fixture_advance(&b.f, 86399 * NS_PER_SEC);
    assert_false(b.f.level[IRQ]);
    fixture_advance(&b.f, NS_PER_SEC); /* every day */
    assert_true(b.f.level[IRQ]);
    (void)get(&b, 0xc);

    put(&b, 5, 0xff); /* any hour, any minute */
    put(&b, 3, 0xc0);
    put(&b, 1, 0x30);
    fixture_advance(&b.f, 25 * NS_PER_SEC);
    assert_true(b.f.level[IRQ]);
    (void)get(&b, 0xc);
    fixture_advance(&b.f, 60 * NS_PER_SEC);
    assert_true(b.f.level[IRQ]);
    (void)get(&b, 0xc);

    put(&b, 0xb, 0x20); /* 12 hours: 11 PM */
    put(&b, 5, 0x91);
    put(&b, 3, 0x10);
    put(&b, 1, 0x00);
    fixture_advance(&b.f, 600 * NS_PER_SEC);
    assert_true(b.f.level[IRQ]);
    (void)get(&b, 0xc);
    put(&b, 1, 0xaa); /* no time at all: never, and costs nothing */
    fixture_advance(&b.f, 2 * 86400 * NS_PER_SEC);
    assert_false(b.f.level[IRQ]);
    close_board(&b);
}

static void test_periodic(void **state)
{
    struct board b;
    unsigned n = 0;

    open_board(&b);
    put(&b, 0xa, 0x2a); /* 64 Hz */
    (void)get(&b, 0xc);
    put(&b, 0xb, 0x42);
    for (unsigned i = 0; i < 1000; i++) {
        fixture_advance(&b.f, MS);
        if (b.f.level[IRQ]) {
            assert_int_equal(get(&b, 0xc) & 0xc0, 0xc0);
            n++;
        }
    }
    assert_int_equal(n, 64);
    unsigned rises = b.f.rises[IRQ];
    fixture_advance(&b.f, NS_PER_SEC); /* one interrupt until C is read */
    assert_int_equal(b.f.rises[IRQ], rises + 1);
    (void)get(&b, 0xc);
    put(&b, 0xa, 0x21); /* 256 Hz */
    rises = b.f.rises[IRQ];
    for (unsigned i = 0; i < 256; i++) {
        fixture_advance(&b.f, 3906250);
        (void)get(&b, 0xc);
    }
    assert_int_equal(b.f.rises[IRQ], rises + 256);
    put(&b, 0xa, 0x20); /* none */
    fixture_advance(&b.f, NS_PER_SEC);
    assert_int_equal(b.f.rises[IRQ], rises + 256);
    close_board(&b);
}

static void test_cmos(void **state)
{
    struct board b;

    open_board(&b);
    assert_int_equal(get(&b, 0x15) | get(&b, 0x16) << 8, 640);
    assert_int_equal(get(&b, 0x17) | get(&b, 0x18) << 8, 0xffff);
    assert_int_equal(get(&b, 0x34) | get(&b, 0x35) << 8, 496 * 16);
    assert_int_equal(get(&b, 0x5b) | get(&b, 0x5c) << 8 | get(&b, 0x5d) << 16, 5 * 16384);
    assert_int_equal(get(&b, 0x5f), 3);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i < 0x2e; i++)
        sum += get(&b, i);
    assert_int_equal(get(&b, 0x2e) << 8 | get(&b, 0x2f), sum);
    assert_int_equal(get(&b, 0xd), 0x80);
    put(&b, 0xd, 0);
    put(&b, 0xc, 0xff);
    assert_int_equal(get(&b, 0xd), 0x80);
    assert_int_equal(get(&b, 0xc), 0);
    put(&b, 0xf | 0x80, 0x5a); /* with NMI masked */
    assert_int_equal(in8(&b.f, 0x70), 0x8f);
    assert_int_equal(get(&b, 0xf), 0x5a);
    uint16_t both = 0xa540; /* index and data in one OUT */
    bus_access(&b.f.pio, 0x70, &both, 2, true);
    assert_int_equal(get(&b, 0x40), 0xa5);
    close_board(&b);
}

static void test_hostile_dates(void **state)
{
    struct board b;

    open_board(&b);
    for (unsigned mode = 0; mode < 8; mode++)
        for (unsigned val = 0; val < 256; val++)
            for (unsigned reg = 0; reg < 11; reg++) {
                put(&b, 0xb, (uint8_t)((mode & 3) << 1 | 0x70 | (mode & 4 ? 0x80 : 0)));
                put(&b, reg == 10 ? 0x32 : (uint8_t)reg, (uint8_t)val);
                put(&b, 0xb, 0x02);
                (void)get(&b, (uint8_t)reg);
            }
    put(&b, 0xb, 0x82);
    put(&b, 0x32, 0x20);
    put(&b, 9, 0x23);
    put(&b, 8, 0x02);
    put(&b, 7, 0x31); /* 31 February */
    put(&b, 4, 0);
    put(&b, 2, 0);
    put(&b, 0, 0);
    put(&b, 0xb, 0x02);
    assert_int_equal(get(&b, 8) << 8 | get(&b, 7), 0x0303);
    close_board(&b);
}

static void test_state(void **state)
{
    struct board a, b;

    open_board(&a);
    open_board(&b);
    put(&a, 9, 0x30);
    put(&a, 0x50, 0x77);
    put(&a, 0xb, 0x12);
    fixture_advance(&a.f, NS_PER_SEC);
    fixture_advance(&b.f, NS_PER_SEC);
    assert_true(a.f.level[IRQ]);
    fixture_copy_state(a.rtc, b.rtc);
    assert_true(b.f.level[IRQ]);
    assert_int_equal(get(&b, 0x50), 0x77);
    assert_int_equal(get(&b, 9), 0x30);
    (void)get(&b, 0xc);
    fixture_advance(&b.f, NS_PER_SEC);
    assert_true(b.f.level[IRQ]);

    struct stream out, in;
    stream_init_save(&out);
    assert_int_equal(device_state(a.rtc, &out), 0);
    for (size_t i = 20; i < out.len; i++) {
        out.data[i] ^= 0xff;
        stream_init_load(&in, out.data, out.len);
        int r = device_state(b.rtc, &in);
        assert_true(r == 0 || r == -EPROTO);
        fixture_advance(&b.f, MS);
        (void)get(&b, 0);
        out.data[i] ^= 0xff;
    }
    stream_fini(&out);
    close_board(&a);
    close_board(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_and_formats), cmocka_unit_test(test_setting),
        cmocka_unit_test(test_divider_reset),    cmocka_unit_test(test_update_in_progress),
        cmocka_unit_test(test_update_interrupt), cmocka_unit_test(test_alarm),
        cmocka_unit_test(test_periodic),         cmocka_unit_test(test_cmos),
        cmocka_unit_test(test_hostile_dates),    cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("rtc", tests, NULL, NULL);
}
