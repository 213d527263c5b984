#include "../device/fixture.h"
#include "core/pci.h"
#include "machine/memmap.h"
#include "machine/pci_setup.h"

struct rig {
    struct fixture f;
    struct pci_func bridge, funcs[4];
    uint8_t elcr[2];
};

static uint64_t bar_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return region;
}

static void bar_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
}

static uint64_t elcr_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return ((uint8_t *)opaque)[off];
}

static void elcr_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    ((uint8_t *)opaque)[off] = (uint8_t)val;
}

static void add(struct rig *r, struct pci_func *func, uint8_t devfn, unsigned pin, bool multifunction)
{
    struct err err;

    pci_func_set(func, PCI_INTERRUPT_PIN, 1, pin, 0);
    pci_func_set(func, PCI_HEADER_TYPE, 1, multifunction ? PCI_HEADER_MULTIFUNCTION : 0, 0);
    assert_int_equal(pci_add(r->f.env.pci, func, devfn, &err), 0);
}

static void bar(struct pci_func *func, unsigned n, enum pci_bar_kind kind, uint64_t size, unsigned region)
{
    pci_func_set_bar(func, n, kind,
                     &(struct bus_region){.size = size, .read = bar_read, .write = bar_write, .region = region});
}

/* A bridge that routes PIRQs to 10 and 11, but PIRQC# nowhere; four functions with BARs of every kind. */
static int setup(void **state)
{
    static struct rig r;
    struct err err;

    memset(&r, 0, sizeof(r));
    fixture_init(&r.f);
    if (pci_bus_open(&r.f.env.pci, &r.f.pio, &r.f.mmio, &err) < 0)
        return -1;
    const struct bus_region elcr = {.base = 0x4d0, .size = 2, .read = elcr_read, .write = elcr_write, .opaque = r.elcr};
    if (bus_add(&r.f.pio, &elcr) < 0)
        return -1;
    r.elcr[0] = 8;
    pci_func_init(&r.bridge, 0x8086, 0x2918, 0x060100, 2);
    for (unsigned i = 0; i < 8; i++)
        pci_func_set(&r.bridge, i < 4 ? 0x60 + i : 0x64 + i, 1, i == 2 ? 0x80 : 10 + i % 2, 0xff);
    add(&r, &r.bridge, PCI_DEVFN(31, 0), 0, true);
    for (unsigned i = 0; i < 4; i++)
        pci_func_init(&r.funcs[i], 0x1af4, 0x1040, 0x010000, 1);
    bar(&r.funcs[0], 0, PCI_BAR_MEM64, 0x8000, 1);
    bar(&r.funcs[0], 3, PCI_BAR_IO, 32, 2);
    add(&r, &r.funcs[0], PCI_DEVFN(1, 0), 1, true); /* PIRQB# */
    bar(&r.funcs[1], 5, PCI_BAR_MEM32, 0x100000, 3);
    add(&r, &r.funcs[1], PCI_DEVFN(1, 7), 2, false); /* PIRQC# */
    bar(&r.funcs[2], 0, PCI_BAR_MEM32, 0x1000, 4);
    bar(&r.funcs[2], 1, PCI_BAR_IO, 256, 5);
    bar(&r.funcs[2], 2, PCI_BAR_MEM64, GIB, 6);       /* larger than what is left below 4 GiB */
    add(&r, &r.funcs[2], PCI_DEVFN(30, 0), 4, false); /* PIRQB# */
    add(&r, &r.funcs[3], PCI_DEVFN(2, 3), 1, false);  /* function 0 is not there: nobody looks */
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    for (unsigned i = 0; i < 4; i++)
        pci_remove(&r->funcs[i]);
    pci_remove(&r->bridge);
    bus_remove(&r->f.pio, 0x4d0);
    pci_bus_close(r->f.env.pci);
    fixture_fini(&r->f);
    return 0;
}

static uint64_t bar_at(struct pci_func *func, unsigned n)
{
    return pci_func_get(func, PCI_BAR0 + 4 * n, 4);
}

static void test_bars(void **state)
{
    struct rig *r = *state;

    for (unsigned twice = 0; twice < 2; twice++) { /* a second time finds what the first left */
        pci_setup(&r->f.pio);
        assert_int_equal(bar_at(&r->funcs[0], 0), MEMMAP_PCI32 | 4);
        assert_int_equal(bar_at(&r->funcs[0], 1), 0);
        assert_int_equal(bar_at(&r->funcs[0], 3), PCI_SETUP_IO | 1);
        assert_int_equal(bar_at(&r->funcs[1], 5), MEMMAP_PCI32 + 0x100000);
        assert_int_equal(bar_at(&r->funcs[2], 0), MEMMAP_PCI32 + 0x200000);
        assert_int_equal(bar_at(&r->funcs[2], 1), (PCI_SETUP_IO + 0x100) | 1);
        assert_int_equal(bar_at(&r->funcs[2], 2), 4);
        assert_int_equal(bar_at(&r->funcs[2], 3), MEMMAP_PCI64 >> 32);
        assert_int_equal(read32(&r->f.mmio, MEMMAP_PCI64 + GIB - 4), 6);
        assert_int_equal(read32(&r->f.mmio, MEMMAP_PCI32 + 0x7ffc), 1);
        assert_int_equal(read32(&r->f.pio, PCI_SETUP_IO), 2);
        assert_int_equal(read32(&r->f.mmio, MEMMAP_PCI32 + 0x100000), 3);
        assert_int_equal(read32(&r->f.mmio, MEMMAP_PCI32 + 0x200000), 4);
        assert_int_equal(read32(&r->f.pio, PCI_SETUP_IO + 0x100), 5);
        assert_int_equal(read32(&r->f.pio, 0xcf8), 0);
        assert_int_equal(pci_func_get(&r->funcs[0], PCI_COMMAND, 2), PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    }
}

static void test_lines(void **state)
{
    struct rig *r = *state;

    pci_setup(&r->f.pio);
    assert_int_equal(pci_func_get(&r->funcs[0], PCI_INTERRUPT_LINE, 1), 11);
    assert_int_equal(pci_func_get(&r->funcs[1], PCI_INTERRUPT_LINE, 1), 0xff);
    assert_int_equal(pci_func_get(&r->funcs[2], PCI_INTERRUPT_LINE, 1), 11);
    assert_int_equal(pci_func_get(&r->funcs[3], PCI_INTERRUPT_LINE, 1), 0);
    assert_int_equal(pci_func_get(&r->bridge, PCI_INTERRUPT_LINE, 1), 0);
    assert_int_equal(r->elcr[0], 8);
    assert_int_equal(r->elcr[1], 8);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_bars), T(test_lines)};
    return cmocka_run_group_tests_name("pci_setup", tests, NULL, NULL);
}
