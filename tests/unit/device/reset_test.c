#include "fixture.h"

#include "device/debugexit.h"
#include "device/reset.h"

struct asked {
    unsigned n;
    enum power_request what;
    int status;
};

static void on_request(void *opaque, enum power_request what, int status)
{
    struct asked *a = opaque;
    *a = (struct asked){.n = a->n + 1, .what = what, .status = status};
}

static void test_cf9_fires_on_rise(void **state)
{
    struct fixture f;
    struct asked a = {0};
    fixture_init(&f);
    f.env.power = (struct power_sink){.request = on_request, .opaque = &a};
    struct device *dev = fixture_open(&f, &reset_type, NULL);
    out8(&f, RESET_PORT, 0x02);
    assert_int_equal(a.n, 0);
    assert_int_equal(in8(&f, RESET_PORT), 0x02);
    out8(&f, RESET_PORT, 0x06);
    assert_int_equal(a.n, 1);
    assert_int_equal(a.what, POWER_RESET);
    out8(&f, RESET_PORT, 0x0e);
    assert_int_equal(a.n, 1); /* still high */
    device_reset(dev);
    assert_int_equal(in8(&f, RESET_PORT), 0);
    device_close(dev);
    fixture_fini(&f);
}

static void test_port92(void **state)
{
    struct fixture f;
    struct asked a = {0};
    fixture_init(&f);
    f.env.power = (struct power_sink){.request = on_request, .opaque = &a};
    struct device *dev = fixture_open(&f, &reset_type, NULL);
    assert_int_equal(in8(&f, 0x92), 0x02);
    out8(&f, 0x92, 0x00);
    assert_int_equal(in8(&f, 0x92), 0x00);
    assert_int_equal(a.n, 0);
    out8(&f, 0x92, 0x01);
    assert_int_equal(a.n, 1);
    struct device *to;
    struct fixture g;
    fixture_init(&g);
    to = fixture_open(&g, &reset_type, NULL);
    fixture_copy_state(dev, to);
    assert_int_equal(in8(&g, 0x92), 0x01);
    device_close(to);
    fixture_fini(&g);
    device_close(dev);
    fixture_fini(&f);
}

static void test_debug_exit(void **state)
{
    struct fixture f;
    struct asked a = {0};
    fixture_init(&f);
    f.env.power = (struct power_sink){.request = on_request, .opaque = &a};
    struct device *dev = fixture_open(&f, &debugexit_type, NULL);
    out8(&f, 0xf4, 0x10);
    assert_int_equal(a.what, POWER_EXIT);
    assert_int_equal(a.status, 0x21);
    write32(&f.pio, 0xf4, 0xffffffff);
    assert_int_equal(a.status, 0xff);
    assert_int_equal(a.n, 2);
    device_close(dev);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cf9_fires_on_rise),
        cmocka_unit_test(test_port92),
        cmocka_unit_test(test_debug_exit),
    };
    return cmocka_run_group_tests_name("reset", tests, NULL, NULL);
}
