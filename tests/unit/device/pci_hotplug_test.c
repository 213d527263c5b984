/* The ports of hot plug: what is told stands until it is cleared, and only what was asked for can be let go of. */
#include "fixture.h"

#include "device/acpi_pm.h"
#include "device/pci_hotplug.h"

#define SCI     9
#define PM_BASE 0x600
#define GPE_STS (PM_BASE + ACPI_GPE0)
#define GPE_EN  (GPE_STS + ACPI_GPE0_LEN / 2)

struct plug {
    struct fixture f;
    struct device *pm, *dev;
    uint32_t ejected;
};

static void on_ejected(void *opaque, unsigned slot)
{
    struct plug *p = opaque;
    p->ejected |= UINT32_C(1) << slot;
}

static int setup(void **state)
{
    static struct plug p;
    memset(&p, 0, sizeof(p));
    fixture_init(&p.f);
    p.pm = fixture_open(&p.f, &acpi_pm_type, &(struct acpi_pm_conf){.sci = fixture_line(&p.f, SCI)});
    acpi_pm_move(p.pm, PM_BASE);
    p.dev = fixture_open(&p.f, &pci_hotplug_type,
                         &(struct pci_hotplug_conf){.acpi_pm = p.pm, .ejected = on_ejected, .opaque = &p});
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct plug *p = *state;
    device_close(p->dev);
    device_close(p->pm);
    fixture_fini(&p->f);
    return 0;
}

static uint32_t in32(struct plug *p, uint16_t port)
{
    return read32(&p->f.pio, port);
}

static void out32(struct plug *p, uint16_t port, uint32_t v)
{
    bus_access(&p->f.pio, port, &v, 4, true);
}

static void test_added(void **state)
{
    struct plug *p = *state;
    pci_hotplug_added(p->dev, 5);
    pci_hotplug_added(p->dev, 30);
    assert_int_equal(in32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_UP), 1 << 5 | 1 << 30);
    assert_int_equal(in32(p, GPE_STS), 1 << PCI_HOTPLUG_GPE);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_UP, 1 << 5);
    assert_int_equal(in32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_UP), 1 << 30);
    assert_int_equal(p->ejected, 0);
}

static void test_eject(void **state)
{
    struct plug *p = *state;
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, UINT32_MAX); /* nothing was asked for */
    assert_int_equal(p->ejected, 0);
    pci_hotplug_ask(p->dev, 3);
    assert_int_equal(in32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_DOWN), 1 << 3);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_DOWN, 1 << 3);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, 1 << 4);
    assert_int_equal(p->ejected, 0);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, 1 << 3 | 1 << 4);
    assert_int_equal(p->ejected, 1 << 3);
    p->ejected = 0;
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, 1 << 3); /* once */
    assert_int_equal(p->ejected, 0);
}

/* Asked twice, let go of at the first: that is no leave to throw out who comes into the slot next. */
static void test_asked_of_another(void **state)
{
    struct plug *p = *state;
    pci_hotplug_ask(p->dev, 3);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, 1 << 3);
    pci_hotplug_ask(p->dev, 3);
    p->ejected = 0;
    pci_hotplug_added(p->dev, 3);
    assert_int_equal(in32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_DOWN), 0);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, 1 << 3);
    assert_int_equal(p->ejected, 0);
}

/* SCI comes with the event, where the guest has enabled it. */
static void test_event(void **state)
{
    struct plug *p = *state;
    uint16_t on = 1;
    bus_access(&p->f.pio, PM_BASE + ACPI_PM1_CNT, &on, 2, true);
    pci_hotplug_added(p->dev, 1);
    assert_false(p->f.level[SCI]);
    out32(p, GPE_EN, 1 << PCI_HOTPLUG_GPE);
    assert_true(p->f.level[SCI]);
    out32(p, GPE_STS, 1 << PCI_HOTPLUG_GPE);
    assert_false(p->f.level[SCI]);
}

static void test_narrow_and_reset(void **state)
{
    struct plug *p = *state;
    uint8_t ones = 0xff;
    pci_hotplug_ask(p->dev, 3);
    bus_access(&p->f.pio, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, &ones, 1, true);
    bus_access(&p->f.pio, PCI_HOTPLUG_PORT + PCI_HOTPLUG_SIZE - 1, &ones, 1, false);
    assert_int_equal(ones, 0);
    assert_int_equal(p->ejected, 0);
    device_reset(p->dev);
    assert_int_equal(in32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_DOWN), 0);
    out32(p, PCI_HOTPLUG_PORT + PCI_HOTPLUG_EJECT, 1 << 3);
    assert_int_equal(p->ejected, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_added, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eject, setup, teardown),
        cmocka_unit_test_setup_teardown(test_asked_of_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_event, setup, teardown),
        cmocka_unit_test_setup_teardown(test_narrow_and_reset, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
