#include "device/pic.h"

#include "fixture.h"

#define INTR 0

static struct device *open_pic(struct fixture *f)
{
    fixture_init(f);
    const struct pic_conf conf = {.intr = fixture_line(f, INTR)};
    return fixture_open(f, &pic_type, &conf);
}

static void program(struct fixture *f, uint8_t icw4_master, uint8_t icw4_slave)
{
    out8(f, 0x20, 0x11);
    out8(f, 0x21, 0x20);
    out8(f, 0x21, 0x04);
    out8(f, 0x21, icw4_master);
    out8(f, 0xa0, 0x11);
    out8(f, 0xa1, 0x28);
    out8(f, 0xa1, 0x02);
    out8(f, 0xa1, icw4_slave);
}

static void set(struct device *pic, unsigned n, bool level)
{
    struct irq_line line = pic_line(pic, n);
    irq_set(&line, level);
}

static void pulse(struct device *pic, unsigned n)
{
    struct irq_line line = pic_line(pic, n);
    irq_pulse(&line);
}

static uint8_t isr(struct fixture *f, uint16_t port)
{
    out8(f, port, 0x0b);
    return in8(f, port);
}

static uint8_t irr(struct fixture *f, uint16_t port)
{
    out8(f, port, 0x0a);
    return in8(f, port);
}

static void close_pic(struct fixture *f, struct device *pic)
{
    device_close(pic);
    fixture_fini(f);
}

static void test_edge_priority_eoi(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    assert_false(f.level[INTR]);
    set(pic, 4, true);
    pulse(pic, 1); /* higher; a pulse is latched */
    assert_true(f.level[INTR]);
    assert_int_equal(irr(&f, 0x20), 0x12);
    assert_int_equal(pic_ack(pic), 0x21);
    assert_int_equal(isr(&f, 0x20), 0x02);
    assert_false(f.level[INTR]); /* 4 is lower than what is in service */
    out8(&f, 0x20, 0x20);
    assert_true(f.level[INTR]);
    assert_int_equal(pic_ack(pic), 0x24);
    out8(&f, 0x20, 0x60 | 3); /* the wrong specific EOI changes nothing */
    assert_int_equal(isr(&f, 0x20), 0x10);
    out8(&f, 0x20, 0x60 | 4);
    assert_int_equal(isr(&f, 0x20), 0);
    assert_false(f.level[INTR]); /* the line is still up, but that was one edge */
    set(pic, 4, true);
    assert_false(f.level[INTR]);
    set(pic, 4, false);
    set(pic, 4, true);
    assert_true(f.level[INTR]);
    close_pic(&f, pic);
}

static void test_slave_and_mask(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    out8(&f, 0xa1, 0xff);
    pulse(pic, 12);
    assert_false(f.level[INTR]);
    out8(&f, 0xa1, 0xef);
    assert_true(f.level[INTR]);
    out8(&f, 0x21, 0x04); /* the cascade masked */
    assert_false(f.level[INTR]);
    out8(&f, 0x21, 0x00);
    assert_int_equal(in8(&f, 0x21), 0x00);
    assert_int_equal(in8(&f, 0xa1), 0xef);
    assert_int_equal(pic_ack(pic), 0x2c);
    assert_int_equal(isr(&f, 0x20), 0x04);
    assert_int_equal(isr(&f, 0xa0), 0x10);
    out8(&f, 0xa1, 0);
    pulse(pic, 8);
    assert_false(f.level[INTR]); /* fully nested: IR2 in service holds off the slave */
    out8(&f, 0x20, 0x20);
    assert_true(f.level[INTR]);
    assert_int_equal(pic_ack(pic), 0x28);
    out8(&f, 0xa0, 0x20);
    assert_int_equal(isr(&f, 0xa0), 0x10);
    close_pic(&f, pic);
}

static void test_special_fully_nested(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 0x11, 1);
    pulse(pic, 12);
    assert_int_equal(pic_ack(pic), 0x2c);
    pulse(pic, 8);
    assert_true(f.level[INTR]);
    assert_int_equal(pic_ack(pic), 0x28);
    pulse(pic, 15);
    assert_false(f.level[INTR]);
    close_pic(&f, pic);
}

static void test_spurious(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    assert_int_equal(pic_ack(pic), 0x27);
    assert_int_equal(isr(&f, 0x20), 0);

    out8(&f, 0x4d1, 0x08); /* IRQ 11 by level: its request can vanish */
    set(pic, 11, true);
    assert_true(f.level[INTR]);
    set(pic, 11, false);
    assert_int_equal(pic_ack(pic), 0x2f);
    assert_int_equal(isr(&f, 0xa0), 0); /* nothing in service on the slave, IR2 on the master */
    assert_int_equal(isr(&f, 0x20), 0x04);
    close_pic(&f, pic);
}

static void test_elcr_level(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    out8(&f, 0x4d0, 0xff);
    out8(&f, 0x4d1, 0xff);
    assert_int_equal(in8(&f, 0x4d0), 0xf8);
    assert_int_equal(in8(&f, 0x4d1), 0xde);
    set(pic, 5, true);
    assert_int_equal(pic_ack(pic), 0x25);
    out8(&f, 0x20, 0x20);
    assert_true(f.level[INTR]); /* asked again: the line is still up */
    set(pic, 5, false);
    assert_false(f.level[INTR]);
    set(pic, 6, true);
    program(&f, 1, 1); /* ICW1 resets edge latches, not levels */
    assert_true(f.level[INTR]);
    assert_int_equal(pic_ack(pic), 0x26);
    close_pic(&f, pic);
}

static void test_poll(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    out8(&f, 0x20, 0x0c);
    assert_int_equal(in8(&f, 0x20), 0);
    pulse(pic, 3);
    pulse(pic, 9);
    out8(&f, 0x20, 0x0c);
    assert_int_equal(in8(&f, 0x21), 0x82); /* the poll answers on either port */
    assert_int_equal(isr(&f, 0x20), 0x04);
    out8(&f, 0xa0, 0x0c);
    assert_int_equal(in8(&f, 0xa0), 0x81);
    assert_int_equal(isr(&f, 0xa0), 0x02);
    out8(&f, 0x20, 0x20);
    assert_int_equal(pic_ack(pic), 0x23);
    close_pic(&f, pic);
}

static void test_rotation(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    pulse(pic, 3);
    assert_int_equal(pic_ack(pic), 0x23);
    out8(&f, 0x20, 0xa0); /* rotate on non-specific EOI: 3 is the lowest now */
    pulse(pic, 3);
    pulse(pic, 1);
    pulse(pic, 6);
    assert_int_equal(pic_ack(pic), 0x26);
    out8(&f, 0x20, 0x20);
    assert_int_equal(pic_ack(pic), 0x21);
    out8(&f, 0x20, 0xe0 | 1); /* rotate on specific EOI */
    pulse(pic, 1);
    assert_int_equal(pic_ack(pic), 0x23);
    out8(&f, 0x20, 0x63);
    out8(&f, 0x20, 0xc0 | 7); /* set priority: 7 lowest, as at first */
    pulse(pic, 7);
    assert_int_equal(pic_ack(pic), 0x21);
    close_pic(&f, pic);
}

static void test_special_mask(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 1, 1);
    pulse(pic, 1);
    assert_int_equal(pic_ack(pic), 0x21);
    pulse(pic, 6);
    assert_false(f.level[INTR]);
    out8(&f, 0x20, 0x68);
    out8(&f, 0x21, 0x02);
    assert_true(f.level[INTR]); /* lower ones come through */
    assert_int_equal(pic_ack(pic), 0x26);
    out8(&f, 0x20, 0x20); /* non-specific EOI leaves the masked level in service */
    assert_int_equal(isr(&f, 0x20), 0x02);
    out8(&f, 0x20, 0x48);
    out8(&f, 0x21, 0x00);
    pulse(pic, 6);
    assert_false(f.level[INTR]);
    close_pic(&f, pic);
}

static void test_auto_eoi(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);

    program(&f, 3, 3);
    pulse(pic, 10);
    pulse(pic, 11);
    assert_int_equal(pic_ack(pic), 0x2a);
    assert_int_equal(isr(&f, 0x20) | isr(&f, 0xa0), 0);
    assert_true(f.level[INTR]); /* the slave made a new edge on IR2 */
    assert_int_equal(pic_ack(pic), 0x2b);
    assert_false(f.level[INTR]);
    out8(&f, 0x20, 0x80); /* rotate in automatic EOI mode */
    pulse(pic, 0);
    assert_int_equal(pic_ack(pic), 0x20);
    pulse(pic, 0);
    pulse(pic, 1);
    assert_int_equal(pic_ack(pic), 0x21);
    close_pic(&f, pic);
}

static void test_wide_access_and_inputs(void **state)
{
    struct fixture f;
    struct device *pic = open_pic(&f);
    uint16_t v = 0xfb20;

    program(&f, 1, 1);
    bus_access(&f.pio, 0x20, &v, 2, true); /* an EOI and a mask in one OUT */
    assert_int_equal(in8(&f, 0x21), 0xfb);
    assert_null(pic_line(pic, 2).set);
    assert_null(pic_line(pic, 16).set);
    close_pic(&f, pic);
}

static void test_state(void **state)
{
    struct fixture f, g;
    struct device *a = open_pic(&f), *b = open_pic(&g);

    program(&f, 1, 1);
    out8(&f, 0x4d1, 0x08);
    pulse(a, 1);
    set(a, 11, true);
    assert_int_equal(pic_ack(a), 0x21);
    fixture_copy_state(a, b);
    assert_int_equal(isr(&g, 0x20), 0x02);
    assert_false(g.level[INTR]);
    out8(&g, 0x20, 0x20);
    assert_true(g.level[INTR]);
    assert_int_equal(pic_ack(b), 0x2b);
    close_pic(&f, a);
    close_pic(&g, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edge_priority_eoi),
        cmocka_unit_test(test_slave_and_mask),
        cmocka_unit_test(test_special_fully_nested),
        cmocka_unit_test(test_spurious),
        cmocka_unit_test(test_elcr_level),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_special_mask),
        cmocka_unit_test(test_auto_eoi),
        cmocka_unit_test(test_wide_access_and_inputs),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("pic", tests, NULL, NULL);
}
