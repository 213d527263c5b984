#include "fixture.h"

#include "device/i8042.h"

#define IRQ     1
#define AUX_IRQ 12

struct kbc {
    struct fixture f;
    struct device *dev;
    unsigned n_reset;
};

static void on_request(void *opaque, enum power_request what, int status)
{
    ((struct kbc *)opaque)->n_reset += what == POWER_RESET;
}

static int setup(void **state)
{
    static struct kbc k;
    memset(&k, 0, sizeof(k));
    fixture_init(&k.f);
    k.f.env.power = (struct power_sink){.request = on_request, .opaque = &k};
    const struct i8042_conf conf = {.kbd_irq = fixture_line(&k.f, IRQ), .aux_irq = fixture_line(&k.f, AUX_IRQ)};
    k.dev = fixture_open(&k.f, &i8042_type, &conf);
    *state = &k;
    return 0;
}

static int teardown(void **state)
{
    struct kbc *k = *state;
    device_close(k->dev);
    fixture_fini(&k->f);
    return 0;
}

static void assert_answers(struct kbc *k, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(in8(&k->f, 0x64) & 1, 1);
        assert_int_equal(in8(&k->f, 0x60), (uint8_t)bytes[i]);
    }
    assert_int_equal(in8(&k->f, 0x64) & 1, 0);
}

static void test_controller(void **state)
{
    struct kbc *k = *state;
    assert_int_equal(in8(&k->f, 0x64), 0x14);
    out8(&k->f, 0x64, 0xaa);
    assert_answers(k, "\x55", 1);
    out8(&k->f, 0x64, 0xab);
    assert_answers(k, "\x00", 1);
    out8(&k->f, 0x64, 0x60);
    out8(&k->f, 0x60, 0x61);
    out8(&k->f, 0x64, 0x20);
    assert_answers(k, "\x61", 1);
    out8(&k->f, 0x64, 0xad);
    out8(&k->f, 0x64, 0x20);
    assert_answers(k, "\x71", 1);
    out8(&k->f, 0x64, 0x7f);
    out8(&k->f, 0x60, 0x99);
    out8(&k->f, 0x64, 0x3f);
    assert_answers(k, "\x99", 1);
}

static void test_keyboard(void **state)
{
    struct kbc *k = *state;
    out8(&k->f, 0x60, 0xff);
    assert_answers(k, "\xfa\xaa", 2);
    out8(&k->f, 0x60, 0xf2);
    assert_answers(k, "\xfa\xab\x41", 3);
    out8(&k->f, 0x60, 0xed);
    assert_answers(k, "\xfa", 1);
    out8(&k->f, 0x60, 0x07);
    assert_answers(k, "\xfa", 1);
    out8(&k->f, 0x60, 0xf0);
    out8(&k->f, 0x60, 0x03);
    out8(&k->f, 0x60, 0xf0);
    out8(&k->f, 0x60, 0x00);
    assert_answers(k, "\xfa\xfa\xfa\xfa\x03", 5);
    out8(&k->f, 0x60, 0xf0);
    out8(&k->f, 0x60, 0x04);
    assert_answers(k, "\xfa\xfe", 2);
    out8(&k->f, 0x60, 0xee);
    assert_answers(k, "\xee", 1);
    out8(&k->f, 0x60, 0x01);
    assert_answers(k, "\xfe", 1);
}

static void test_interrupt_for_each_byte(void **state)
{
    struct kbc *k = *state;
    out8(&k->f, 0x60, 0xff);
    assert_false(k->f.level[IRQ]);
    out8(&k->f, 0x64, 0x60);
    out8(&k->f, 0x60, 0x01);
    assert_int_equal(k->f.rises[IRQ], 1);
    in8(&k->f, 0x60);
    assert_int_equal(k->f.rises[IRQ], 2);
    in8(&k->f, 0x60);
    assert_false(k->f.level[IRQ]);
}

/* The port is well, loops back what the controller is told to put there, and interrupts; no device hangs on it. */
static void test_auxiliary_port(void **state)
{
    struct kbc *k = *state;
    out8(&k->f, 0x64, 0xa9);
    assert_answers(k, "\x00", 1);
    out8(&k->f, 0x64, 0xd3);
    out8(&k->f, 0x60, 0x5a);
    assert_int_equal(in8(&k->f, 0x64) & 0x21, 0x21);
    assert_false(k->f.level[AUX_IRQ]);
    assert_answers(k, "\x5a", 1);

    out8(&k->f, 0x64, 0x60);
    out8(&k->f, 0x60, 0x47); /* both interrupts */
    out8(&k->f, 0x64, 0xd3);
    out8(&k->f, 0x60, 0xa5);
    out8(&k->f, 0x60, 0xee);
    assert_true(k->f.level[AUX_IRQ]);
    assert_false(k->f.level[IRQ]);
    assert_int_equal(in8(&k->f, 0x60), 0xa5);
    assert_false(k->f.level[AUX_IRQ]);
    assert_true(k->f.level[IRQ]);
    assert_answers(k, "\xee", 1);

    out8(&k->f, 0x64, 0xd4);
    out8(&k->f, 0x60, 0xf2);
    assert_int_equal(in8(&k->f, 0x64) & 0x61, 0x61);
    assert_true(k->f.level[AUX_IRQ]);
    assert_answers(k, "\xfe", 1);
    assert_int_equal(in8(&k->f, 0x64) & 0x60, 0);
}

static void test_resets(void **state)
{
    struct kbc *k = *state;
    out8(&k->f, 0x64, 0xff); /* no line pulsed */
    assert_int_equal(k->n_reset, 0);
    out8(&k->f, 0x64, 0xfe);
    assert_int_equal(k->n_reset, 1);
    out8(&k->f, 0x64, 0xd1);
    out8(&k->f, 0x60, 0x03);
    assert_int_equal(k->n_reset, 1);
    out8(&k->f, 0x64, 0xd1);
    out8(&k->f, 0x60, 0x02);
    assert_int_equal(k->n_reset, 2);
}

static void test_flood_and_state(void **state)
{
    struct kbc *k = *state;
    struct fixture f;
    fixture_init(&f);
    const struct i8042_conf conf = {.kbd_irq = fixture_line(&f, IRQ), .aux_irq = fixture_line(&f, AUX_IRQ)};
    struct device *to = fixture_open(&f, &i8042_type, &conf);
    for (int i = 0; i < 1000; i++)
        out8(&k->f, 0x60, 0xee);
    fixture_copy_state(k->dev, to);
    unsigned n = 0;
    while (in8(&f, 0x64) & 1)
        n += in8(&f, 0x60) == 0xee;
    assert_int_equal(n, 16);
    device_close(to);
    fixture_fini(&f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_controller),     T(test_keyboard), T(test_interrupt_for_each_byte),
        T(test_auxiliary_port), T(test_resets),   T(test_flood_and_state),
    };
    return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
