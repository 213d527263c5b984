#include "device/pit.h"

#include "fixture.h"

#define IRQ 0

static struct device *open_pit(struct fixture *f)
{
    fixture_init(f);
    const struct pit_conf conf = {.irq = fixture_line(f, IRQ)};
    return fixture_open(f, &pit_type, &conf);
}

static void close_pit(struct fixture *f, struct device *pit)
{
    device_close(pit);
    fixture_fini(f);
}

/* Moves time to tick n of the PIT's clock. */
static void tick(struct fixture *f, uint64_t n)
{
    fixture_until(f, clock_ticks_to_ns(n, PIT_HZ));
}

static void program(struct fixture *f, unsigned channel, uint8_t control, uint16_t count)
{
    out8(f, 0x43, (uint8_t)(channel << 6 | 0x30 | control));
    out8(f, (uint16_t)(0x40 + channel), (uint8_t)count);
    out8(f, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t latched(struct fixture *f, unsigned channel)
{
    out8(f, 0x43, (uint8_t)(channel << 6));
    uint8_t low = in8(f, (uint16_t)(0x40 + channel));
    return (uint16_t)(low | in8(f, (uint16_t)(0x40 + channel)) << 8);
}

static uint8_t status(struct fixture *f, unsigned channel)
{
    out8(f, 0x43, (uint8_t)(0xe0 | 2u << channel));
    return in8(f, (uint16_t)(0x40 + channel));
}

static bool out2(struct fixture *f)
{
    return in8(f, 0x61) & 0x20;
}

static void test_mode0(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 0, 0x0, 1000);
    assert_false(f.level[IRQ]);
    assert_int_equal(status(&f, 0), 0x40 | 0x30); /* loaded with the next tick only */
    tick(&f, 1);
    assert_int_equal(status(&f, 0), 0x30);
    assert_int_equal(latched(&f, 0), 1000);
    tick(&f, 1000);
    assert_false(f.level[IRQ]);
    assert_int_equal(latched(&f, 0), 1);
    tick(&f, 1001); /* N + 1 ticks after the write */
    assert_true(f.level[IRQ]);
    tick(&f, 1011);
    assert_int_equal(latched(&f, 0), 65526); /* goes on below zero */
    assert_int_equal(f.rises[IRQ], 2);       /* one for OUT before anything was programmed, and this */
    assert_false(fixture_any_timer(&f));
    out8(&f, 0x40, 5); /* a first byte pulls OUT down */
    assert_false(f.level[IRQ]);
    close_pit(&f, pit);
}

static void test_mode0_gate_holds(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    out8(&f, 0x61, 1);
    program(&f, 2, 0x0, 100);
    tick(&f, 51);
    out8(&f, 0x61, 0);
    tick(&f, 500);
    assert_int_equal(latched(&f, 2), 50);
    assert_false(out2(&f));
    out8(&f, 0x61, 1);
    tick(&f, 549);
    assert_false(out2(&f));
    tick(&f, 550);
    assert_true(out2(&f));
    close_pit(&f, pit);
}

static void test_mode1_trigger(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 2, 0x2, 100);
    tick(&f, 300);
    assert_true(out2(&f));
    out8(&f, 0x61, 1);
    tick(&f, 302);
    assert_false(out2(&f));
    program(&f, 2, 0x2, 100); /* a control word ends it: OUT high */
    assert_true(out2(&f));
    out8(&f, 0x61, 0);
    out8(&f, 0x61, 1);
    tick(&f, 350);
    out8(&f, 0x42, 50); /* a new count waits for the next trigger */
    out8(&f, 0x42, 0);
    assert_false(out2(&f));
    out8(&f, 0x61, 0); /* the gate does not stop a one-shot */
    tick(&f, 402);
    assert_false(out2(&f));
    tick(&f, 403);
    assert_true(out2(&f));
    out8(&f, 0x61, 1);
    tick(&f, 453);
    assert_false(out2(&f));
    tick(&f, 454);
    assert_true(out2(&f));
    close_pit(&f, pit);
}

static void test_mode2_periodic_interrupts(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 0, 0x4, 11932); /* 100 Hz */
    unsigned before = f.rises[IRQ];
    tick(&f, 11932);
    assert_int_equal(f.rises[IRQ], before);
    assert_false(status(&f, 0) & 0x80); /* low for the last tick of the period */
    tick(&f, 11933);
    assert_int_equal(f.rises[IRQ], before + 1);
    assert_int_equal(latched(&f, 0), 11932);
    fixture_until(&f, NS_PER_SEC);
    assert_int_equal(f.rises[IRQ], before + 99);
    close_pit(&f, pit);
}

static void test_mode2_new_count_waits_for_period(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 0, 0x4, 1000);
    tick(&f, 501);
    out8(&f, 0x40, 0xd0);
    out8(&f, 0x40, 0x07); /* 2000 */
    assert_true(status(&f, 0) & 0x40);
    assert_int_equal(latched(&f, 0), 500);
    unsigned before = f.rises[IRQ];
    tick(&f, 1001);
    assert_int_equal(f.rises[IRQ], before + 1);
    assert_false(status(&f, 0) & 0x40);
    assert_int_equal(latched(&f, 0), 2000);
    tick(&f, 3000);
    assert_int_equal(f.rises[IRQ], before + 1);
    tick(&f, 3001);
    assert_int_equal(f.rises[IRQ], before + 2);
    close_pit(&f, pit);
}

static void test_mode3_square(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    out8(&f, 0x61, 1);
    program(&f, 2, 0x6, 101); /* odd: high for 51, low for 50 */
    tick(&f, 51);
    assert_true(out2(&f));
    assert_int_equal(latched(&f, 2), 0);
    tick(&f, 52);
    assert_false(out2(&f));
    assert_int_equal(latched(&f, 2), 100);
    tick(&f, 101);
    assert_false(out2(&f));
    tick(&f, 102);
    assert_true(out2(&f));
    out8(&f, 0x42, 40); /* in the high half: the low one is of the new count */
    out8(&f, 0x42, 0);
    tick(&f, 152);
    assert_true(out2(&f));
    tick(&f, 153);
    assert_false(out2(&f));
    tick(&f, 172);
    assert_false(out2(&f));
    tick(&f, 173);
    assert_true(out2(&f));
    tick(&f, 193);
    assert_false(out2(&f));
    out8(&f, 0x61, 0); /* gate low: OUT high at once */
    assert_true(out2(&f));
    tick(&f, 300);
    out8(&f, 0x61, 1);
    tick(&f, 320);
    assert_true(out2(&f));
    tick(&f, 321);
    assert_false(out2(&f));
    close_pit(&f, pit);
}

static void test_mode3_channel0_reprogram(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 0, 0x6, 1000);
    unsigned before = f.rises[IRQ];
    tick(&f, 101);
    out8(&f, 0x40, 0xc8);
    out8(&f, 0x40, 0x00); /* 200: low half of 100 from tick 501 */
    tick(&f, 600);
    assert_int_equal(f.rises[IRQ], before);
    tick(&f, 601);
    assert_int_equal(f.rises[IRQ], before + 1);
    tick(&f, 801);
    assert_int_equal(f.rises[IRQ], before + 2);
    close_pit(&f, pit);
}

static void test_mode4_and_5_strobe(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    out8(&f, 0x61, 1);
    program(&f, 2, 0x8, 10);
    tick(&f, 10);
    assert_true(out2(&f));
    tick(&f, 11);
    assert_false(out2(&f));
    tick(&f, 12);
    assert_true(out2(&f));
    out8(&f, 0x61, 0);
    program(&f, 2, 0xa, 10); /* mode 5 waits for the gate */
    tick(&f, 100);
    assert_true(out2(&f));
    out8(&f, 0x61, 1);
    tick(&f, 111);
    assert_false(out2(&f));
    tick(&f, 112);
    assert_true(out2(&f));

    unsigned before = f.rises[IRQ];
    program(&f, 0, 0x8, 1000); /* channel 0's line rises again as the strobe ends */
    fixture_advance(&f, 2 * NS_PER_MS);
    assert_int_equal(f.rises[IRQ], before + 1);
    assert_true(f.level[IRQ]);
    close_pit(&f, pit);
}

static void test_bcd_and_zero(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 0, 0x1, 0x1234);
    tick(&f, 1);
    assert_int_equal(latched(&f, 0), 0x1234);
    tick(&f, 36);
    assert_int_equal(latched(&f, 0), 0x1199);
    program(&f, 0, 0x5, 0); /* 10000 */
    tick(&f, 38);
    assert_int_equal(latched(&f, 0), 0x9999);
    program(&f, 0, 0x4, 0); /* 65536 */
    tick(&f, 41);
    assert_int_equal(latched(&f, 0), 65534);
    program(&f, 0, 0x5, 0xffff); /* no decimal digits: a value all the same */
    tick(&f, 100000);
    program(&f, 0, 0x4, 1); /* illegal in mode 2: counts as 2, and does not spin the host */
    tick(&f, 200000);
    close_pit(&f, pit);
}

static void test_access_modes_and_latches(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    out8(&f, 0x43, 0x14); /* channel 0, low byte only */
    out8(&f, 0x40, 0x80);
    tick(&f, 1);
    assert_int_equal(in8(&f, 0x40), 0x80);
    out8(&f, 0x43, 0x24); /* high byte only */
    out8(&f, 0x40, 0x02);
    tick(&f, 2);
    assert_int_equal(in8(&f, 0x40), 0x02);

    program(&f, 0, 0x4, 0x1234);
    tick(&f, 3);
    out8(&f, 0x43, 0x00);
    tick(&f, 1000);
    out8(&f, 0x43, 0x00); /* the first latch stands */
    out8(&f, 0x43, 0xc2); /* read-back of count and status: status first */
    assert_int_equal(in8(&f, 0x40), 0xb4);
    assert_int_equal(in8(&f, 0x40), 0x34);
    assert_int_equal(in8(&f, 0x40), 0x12);
    assert_int_not_equal(in8(&f, 0x40) | in8(&f, 0x40) << 8, 0x1234);
    assert_int_equal(in8(&f, 0x43), 0xff);
    uint32_t v = read32(&f.pio, 0x40); /* four ports at once */
    assert_int_equal(v >> 24, 0xff);
    write32(&f.pio, 0x40, 0xffffffff);
    close_pit(&f, pit);
}

static void test_port61(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    out8(&f, 0x61, 0xff);
    assert_int_equal(in8(&f, 0x61) & ~0x30, 0x0f);
    bool refresh = in8(&f, 0x61) & 0x10;
    fixture_advance(&f, 15085);
    assert_int_not_equal(!!(in8(&f, 0x61) & 0x10), refresh);
    fixture_advance(&f, 15085);
    assert_int_equal(!!(in8(&f, 0x61) & 0x10), refresh);
    close_pit(&f, pit);
}

static void test_late_timer_loses_no_edge(void **state)
{
    struct fixture f;
    struct device *pit = open_pit(&f);

    program(&f, 0, 0x0, 1000);
    unsigned before = f.rises[IRQ];
    atomic_store(&f.clock.stopped, 10 * NS_PER_MS); /* past the edge, and the loop has not got round to it */
    assert_false(f.level[IRQ]);
    out8(&f, 0x43, 0x00);
    assert_true(f.level[IRQ]);
    assert_int_equal(f.rises[IRQ], before + 1);
    fixture_advance(&f, NS_PER_MS);
    assert_int_equal(f.rises[IRQ], before + 1);
    close_pit(&f, pit);
}

static void test_state(void **state)
{
    struct fixture f, g;
    struct device *a = open_pit(&f), *b = open_pit(&g);

    out8(&f, 0x61, 1);
    program(&f, 0, 0x4, 1000);
    program(&f, 2, 0x6, 100);
    tick(&f, 20);
    fixture_until(&g, clock_now(&f.clock));
    fixture_copy_state(a, b);
    assert_int_equal(latched(&g, 0), latched(&f, 0));
    assert_int_equal(in8(&g, 0x61), in8(&f, 0x61));
    unsigned before = g.rises[IRQ];
    tick(&g, 1001);
    assert_int_equal(g.rises[IRQ], before + 1);

    struct stream out, in;
    stream_init_save(&out);
    assert_int_equal(device_state(a, &out), 0);
    for (size_t i = 20; i < out.len; i++) { /* whatever a state says, it is refused or harmless */
        out.data[i] ^= 0xff;
        stream_init_load(&in, out.data, out.len);
        int r = device_state(b, &in);
        assert_true(r == 0 || r == -71);
        fixture_advance(&g, NS_PER_MS);
        (void)latched(&g, 0);
        out.data[i] ^= 0xff;
    }
    stream_fini(&out);
    close_pit(&f, a);
    close_pit(&g, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mode0),
        cmocka_unit_test(test_mode0_gate_holds),
        cmocka_unit_test(test_mode1_trigger),
        cmocka_unit_test(test_mode2_periodic_interrupts),
        cmocka_unit_test(test_mode2_new_count_waits_for_period),
        cmocka_unit_test(test_mode3_square),
        cmocka_unit_test(test_mode3_channel0_reprogram),
        cmocka_unit_test(test_mode4_and_5_strobe),
        cmocka_unit_test(test_bcd_and_zero),
        cmocka_unit_test(test_access_modes_and_latches),
        cmocka_unit_test(test_port61),
        cmocka_unit_test(test_late_timer_loses_no_edge),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("pit", tests, NULL, NULL);
}
