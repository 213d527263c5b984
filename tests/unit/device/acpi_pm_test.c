#include "fixture.h"

#include "device/acpi_pm.h"

#define BASE 0x600
#define SCI  9

struct pm {
    struct fixture f;
    struct device *dev;
    unsigned n_off;
};

static void on_request(void *opaque, enum power_request what, int status)
{
    struct pm *p = opaque;
    p->n_off += what == POWER_OFF;
}

static int setup(void **state)
{
    static struct pm p;
    memset(&p, 0, sizeof(p));
    fixture_init(&p.f);
    p.f.env.power = (struct power_sink){.request = on_request, .opaque = &p};
    const struct acpi_pm_conf conf = {.sci = fixture_line(&p.f, SCI)};
    p.dev = fixture_open(&p.f, &acpi_pm_type, &conf);
    acpi_pm_move(p.dev, BASE);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct pm *p = *state;
    device_close(p->dev);
    fixture_fini(&p->f);
    return 0;
}

static uint16_t in16(struct pm *p, uint16_t port)
{
    uint16_t v;
    bus_access(&p->f.pio, port, &v, 2, false);
    return v;
}

static void out16(struct pm *p, uint16_t port, uint16_t v)
{
    bus_access(&p->f.pio, port, &v, 2, true);
}

static void test_timer_counts(void **state)
{
    struct pm *p = *state;
    assert_int_equal(read32(&p->f.pio, BASE + 8), 0);
    fixture_until(&p->f, NS_PER_SEC);
    assert_int_equal(read32(&p->f.pio, BASE + 8), 3579545);
    fixture_until(&p->f, 5 * NS_PER_SEC); /* 17,897,725 ticks are more than 2^24 */
    assert_int_equal(read32(&p->f.pio, BASE + 8), 17897725 - (1 << 24));
    assert_int_equal(in8(&p->f, BASE + 9), (17897725 - (1 << 24)) >> 8 & 0xff);
}

static void test_timer_overflow_interrupts(void **state)
{
    struct pm *p = *state;
    out8(&p->f, ACPI_SMI_CMD, ACPI_ENABLE);
    out16(p, BASE + 2, 1);
    fixture_until(&p->f, 2343 * NS_PER_MS); /* bit 23 rises after 2.34348 s */
    assert_false(p->f.level[SCI]);
    fixture_until(&p->f, 2344 * NS_PER_MS);
    assert_true(p->f.level[SCI]);
    assert_int_equal(in16(p, BASE), 1);
    out16(p, BASE, 1);
    assert_false(p->f.level[SCI]);
    fixture_until(&p->f, 4688 * NS_PER_MS);
    assert_true(p->f.level[SCI]);
}

static void test_power_button(void **state)
{
    struct pm *p = *state;
    acpi_pm_press_button(p->dev);
    assert_int_equal(in16(p, BASE), 0x100);
    out16(p, BASE + 2, 0x100);
    assert_false(p->f.level[SCI]); /* the hardware is still firmware's */
    out8(&p->f, ACPI_SMI_CMD, ACPI_ENABLE);
    assert_int_equal(in16(p, BASE + 4) & 1, 1);
    assert_true(p->f.level[SCI]);
    out16(p, BASE, 0x100);
    assert_false(p->f.level[SCI]);
    out8(&p->f, ACPI_SMI_CMD, ACPI_DISABLE);
    assert_int_equal(in16(p, BASE + 4) & 1, 0);
}

static void test_power_off(void **state)
{
    struct pm *p = *state;
    out16(p, BASE + 4, 7 << 10);
    assert_int_equal(p->n_off, 0);
    out16(p, BASE + 4, 7 << 10 | 1 << 13);
    assert_int_equal(p->n_off, 1);
    assert_int_equal(in16(p, BASE + 4), 7 << 10);
    out16(p, BASE + 4, 5 << 10 | 1 << 13); /* S3 is not offered */
    assert_int_equal(p->n_off, 1);
    out8(&p->f, BASE + 5, 7 << 2 | 1 << 5); /* byte by byte */
    assert_int_equal(p->n_off, 2);
}

static void test_gpe_and_widths(void **state)
{
    struct pm *p = *state;
    write64(&p->f.pio, BASE + 0x28, UINT64_C(0x8000000000000001));
    assert_int_equal(read32(&p->f.pio, BASE + 0x2c), 0x80000000);
    assert_int_equal(in8(&p->f, BASE + 0x28), 1);
    assert_int_equal(read32(&p->f.pio, BASE), 0);
    write32(&p->f.pio, BASE, 0xffffffff);
    assert_int_equal(in16(p, BASE + 2), 0x0521);
    assert_int_equal(read64(&p->f.pio, BASE + 0x7c), 0xffffffff00000000); /* beyond the block nobody answers */
}

static void test_state(void **state)
{
    struct pm *p = *state;
    struct fixture f;
    fixture_init(&f);
    const struct acpi_pm_conf conf = {.sci = fixture_line(&f, SCI)};
    struct device *to = fixture_open(&f, &acpi_pm_type, &conf);
    out8(&p->f, ACPI_SMI_CMD, ACPI_ENABLE);
    out16(p, BASE + 2, 0x100);
    acpi_pm_press_button(p->dev);
    fixture_copy_state(p->dev, to);
    assert_true(f.level[SCI]);
    device_close(to);
    fixture_fini(&f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_timer_counts),   T(test_timer_overflow_interrupts),
        T(test_power_button),   T(test_power_off),
        T(test_gpe_and_widths), T(test_state),
    };
    return cmocka_run_group_tests_name("acpi_pm", tests, NULL, NULL);
}
