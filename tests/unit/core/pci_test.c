#include <errno.h>

#include "../device/fixture.h"
#include "core/pci.h"
#include "device/acpi_pm.h"
#include "device/lpc.h"
#include "device/mch.h"
#include "device/reset.h"

#define ECAM      UINT64_C(0xb0000000)
#define ECAM_TEST (ECAM + (3 << 15)) /* 00:03.0 */

struct board {
    struct fixture f;
    struct ram ram;
    struct pci_func func;
    unsigned written_off, n_written;
    struct err err;
};

static uint64_t bar_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return region * 0x11111111u + off;
}

static void bar_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
}

static void on_written(struct pci_func *func, unsigned off, unsigned len)
{
    struct board *b = func->opaque;
    b->written_off = off;
    b->n_written++;
}

/* A function at 00:03.0 with a BAR of each kind, behind a host bridge. */
static int setup(void **state)
{
    static struct board b;
    memset(&b, 0, sizeof(b));
    fixture_init(&b.f);
    b.ram = (struct ram){.low = GIB, .size = GIB};
    b.f.env.ram = &b.ram;
    if (pci_bus_open(&b.f.env.pci, &b.f.pio, &b.f.mmio, &b.err) < 0)
        return -1;
    pci_func_init(&b.func, 0x1af4, 0x1042, 0x010000, 1);
    const struct bus_region io = {.size = 32, .read = bar_read, .write = bar_write, .region = 1},
                            mem = {.size = 4096, .read = bar_read, .write = bar_write, .region = 2},
                            mem64 = {.size = 16384, .read = bar_read, .write = bar_write, .region = 3};
    pci_func_set_bar(&b.func, 0, PCI_BAR_IO, &io);
    pci_func_set_bar(&b.func, 1, PCI_BAR_MEM32, &mem);
    pci_func_set_bar(&b.func, 4, PCI_BAR_MEM64, &mem64);
    pci_func_set(&b.func, PCI_INTERRUPT_PIN, 1, 1, 0);
    b.func.written = on_written;
    b.func.opaque = &b;
    if (pci_add(b.f.env.pci, &b.func, PCI_DEVFN(3, 0), &b.err) < 0)
        return -1;
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct board *b = *state;
    pci_remove(&b->func);
    pci_bus_close(b->f.env.pci);
    fixture_fini(&b->f);
    return 0;
}

static uint32_t cfg_read(struct board *b, unsigned devfn, unsigned reg)
{
    write32(&b->f.pio, 0xcf8, 0x80000000 | devfn << 8 | reg);
    return read32(&b->f.pio, 0xcfc);
}

static void cfg_write(struct board *b, unsigned devfn, unsigned reg, uint32_t val)
{
    write32(&b->f.pio, 0xcf8, 0x80000000 | devfn << 8 | reg);
    write32(&b->f.pio, 0xcfc, val);
}

#define DEVFN (3 << 3)

static void test_config_ports(void **state)
{
    struct board *b = *state;
    assert_int_equal(cfg_read(b, DEVFN, 0), 0x10421af4);
    assert_int_equal(read32(&b->f.pio, 0xcf8), 0x80001800);
    uint16_t v;
    bus_access(&b->f.pio, 0xcfe, &v, 2, false);
    assert_int_equal(v, 0x1042);
    assert_int_equal(cfg_read(b, 9 << 3, 0), 0xffffffff);
    write32(&b->f.pio, 0xcf8, 0x80011800); /* bus 1 */
    assert_int_equal(read32(&b->f.pio, 0xcfc), 0xffffffff);
    write32(&b->f.pio, 0xcf8, 0x00001800); /* disabled */
    assert_int_equal(read32(&b->f.pio, 0xcfc), 0xffffffff);
    cfg_write(b, DEVFN, 0, 0);
    assert_int_equal(cfg_read(b, DEVFN, 0), 0x10421af4); /* read-only */
    cfg_write(b, DEVFN, 0x3c, 0xffffffff);
    assert_int_equal(cfg_read(b, DEVFN, 0x3c), 0x000001ff);
    assert_int_equal(b->written_off, 0x3c);
}

static void test_bar_sizing_and_mapping(void **state)
{
    struct board *b = *state;
    cfg_write(b, DEVFN, 0x10, 0xffffffff);
    assert_int_equal(cfg_read(b, DEVFN, 0x10), 0xffffffe1);
    cfg_write(b, DEVFN, 0x14, 0xffffffff);
    assert_int_equal(cfg_read(b, DEVFN, 0x14), 0xfffff000);
    cfg_write(b, DEVFN, 0x20, 0xffffffff);
    cfg_write(b, DEVFN, 0x24, 0xffffffff);
    assert_int_equal(cfg_read(b, DEVFN, 0x20), 0xffffc004);
    assert_int_equal(cfg_read(b, DEVFN, 0x24), 0xffffffff);

    cfg_write(b, DEVFN, 0x10, 0xc000);
    cfg_write(b, DEVFN, 0x14, 0xd0000000);
    cfg_write(b, DEVFN, 0x20, 0);
    cfg_write(b, DEVFN, 0x24, 0x80);
    assert_int_equal(read32(&b->f.mmio, 0xd0000004), 0xffffffff); /* not enabled */
    cfg_write(b, DEVFN, 0x04, 3);
    assert_int_equal(read32(&b->f.pio, 0xc004), 0x11111115);
    assert_int_equal(read32(&b->f.mmio, 0xd0000004), 0x22222226);
    assert_int_equal(read32(&b->f.mmio, UINT64_C(0x8000000008)), 0x3333333b);
    cfg_write(b, DEVFN, 0x14, 0xd1000000);
    assert_int_equal(read32(&b->f.mmio, 0xd0000004), 0xffffffff);
    assert_int_equal(read32(&b->f.mmio, 0xd1000004), 0x22222226);
    cfg_write(b, DEVFN, 0x04, 1);
    assert_int_equal(read32(&b->f.mmio, 0xd1000004), 0xffffffff);
    assert_int_equal(read32(&b->f.pio, 0xc004), 0x11111115);
    pci_func_reset(&b->func);
    assert_int_equal(read32(&b->f.pio, 0xc004), 0xffffffff);
    assert_int_equal(cfg_read(b, DEVFN, 0x10), 1);
}

static void test_bar_over_another(void **state)
{
    struct board *b = *state;
    struct bus_region fixed = {.base = 0xd0000000, .size = 16, .read = bar_read, .write = bar_write, .region = 7};
    assert_int_equal(bus_add(&b->f.mmio, &fixed), 0);
    cfg_write(b, DEVFN, 0x14, 0xd0000000);
    cfg_write(b, DEVFN, 0x04, 2);
    assert_int_equal(read32(&b->f.mmio, 0xd0000000), 0x77777777);
    assert_int_equal(read32(&b->f.mmio, 0xd0000010), 0xffffffff);
    cfg_write(b, DEVFN, 0x14, 0xfffff000); /* the last page below 4 GiB is as good as any */
    assert_int_equal(read32(&b->f.mmio, 0xfffff000), 0x22222222);
    cfg_write(b, DEVFN, 0x20, 0xffffffff); /* the last 16 KiB there are */
    cfg_write(b, DEVFN, 0x24, 0xffffffff);
    assert_int_equal(read32(&b->f.mmio, UINT64_MAX - 0x3fff), 0x33333333);
    cfg_write(b, DEVFN, 0x10, 0xfffffff1);
    cfg_write(b, DEVFN, 0x04, 3);
    assert_int_equal(read32(&b->f.mmio, 0xd0000000), 0x77777777);
}

static void test_capabilities(void **state)
{
    struct board *b = *state;
    assert_int_equal(pci_func_add_cap(&b->func, PCI_CAP_VENDOR, 14), 0x40);
    assert_int_equal(pci_func_add_cap(&b->func, PCI_CAP_MSIX, 12), 0x50);
    assert_int_equal(cfg_read(b, DEVFN, 0x04), PCI_STATUS_CAPABILITIES << 16);
    assert_int_equal(cfg_read(b, DEVFN, 0x34) & 0xff, 0x40);
    assert_int_equal(cfg_read(b, DEVFN, 0x40) & 0xffff, 0x5009);
    assert_int_equal(cfg_read(b, DEVFN, 0x50) & 0xffff, 0x0011);
    assert_int_equal(pci_func_add_cap(&b->func, PCI_CAP_VENDOR, 200), -ENOSPC);
}

static void test_intx(void **state)
{
    struct board *b = *state;
    struct pci_func other;
    for (unsigned i = 0; i < PCI_N_PIRQS; i++) {
        struct irq_line line = fixture_line(&b->f, 16 + i);
        pci_bus_set_pirq(b->f.env.pci, i, &line);
    }
    pci_func_init(&other, 0x1af4, 0x1041, 0x020000, 1);
    pci_func_set(&other, PCI_INTERRUPT_PIN, 1, 1, 0);
    assert_int_equal(pci_add(b->f.env.pci, &other, PCI_DEVFN(11, 0), &b->err), 0); /* 11 % 8 is 3 again */
    assert_int_equal(pci_add(b->f.env.pci, &other, PCI_DEVFN(3, 0), &b->err), -EEXIST);
    pci_func_set_intx(&b->func, true);
    pci_func_set_intx(&other, true);
    assert_true(b->f.level[19]);
    assert_true(cfg_read(b, DEVFN, 0x04) >> 16 & PCI_STATUS_INTX);
    pci_func_set_intx(&b->func, false);
    assert_true(b->f.level[19]);
    cfg_write(b, 11 << 3, 0x04, PCI_COMMAND_INTX_DISABLE);
    assert_false(b->f.level[19]);
    cfg_write(b, 11 << 3, 0x04, 0);
    assert_true(b->f.level[19]);
    pci_func_reset(&other);
    assert_false(b->f.level[19]);
    pci_remove(&other);
}

static void test_ecam(void **state)
{
    struct board *b = *state;
    struct device *mch = fixture_open(&b->f, &mch_type, &(struct mch_conf){.ecam_base = ECAM});
    assert_int_equal(read32(&b->f.mmio, ECAM), 0x29c08086);
    assert_int_equal(read32(&b->f.mmio, ECAM_TEST), 0x10421af4);
    assert_int_equal(read32(&b->f.mmio, ECAM_TEST + 0x100), 0xffffffff);
    assert_int_equal(read32(&b->f.mmio, ECAM + (1 << 20)), 0xffffffff);
    write32(&b->f.mmio, ECAM_TEST + 0x3c, 0x0b);
    assert_int_equal(cfg_read(b, DEVFN, 0x3c), 0x10b);

    cfg_write(b, 0, 0x60, 0xe0000000 | 2 << 1 | 1); /* 64 MiB */
    assert_int_equal(read32(&b->f.mmio, ECAM), 0xffffffff);
    assert_int_equal(read32(&b->f.mmio, 0xe0000000), 0x29c08086);
    assert_int_equal(read32(&b->f.mmio, 0xe4000000), 0xffffffff);
    cfg_write(b, 0, 0x60, 0xe0000007); /* a reserved length */
    assert_int_equal(read32(&b->f.mmio, 0xe0000000), 0xffffffff);
    device_reset(mch);
    assert_int_equal(read32(&b->f.mmio, ECAM), 0x29c08086);
    device_close(mch);
}

static void test_reset_register_under_config_address(void **state)
{
    struct board *b = *state;
    struct device *reset = fixture_open(&b->f, &reset_type, NULL);
    out8(&b->f, 0xcf9, 0x02);
    assert_int_equal(in8(&b->f, 0xcf9), 0x02);
    write32(&b->f.pio, 0xcf8, 0x80000600); /* a dword there is no reset: it would have called a NULL sink */
    assert_int_equal(read32(&b->f.pio, 0xcf8), 0x80000600);
    device_close(reset);
}

static void test_lpc_routes(void **state)
{
    struct board *b = *state;
    const struct acpi_pm_conf pm_conf = {.sci = fixture_line(&b->f, 9)};
    struct device *pm = fixture_open(&b->f, &acpi_pm_type, &pm_conf);
    struct lpc_conf conf = {.acpi_pm = pm, .pm_base = 0x600, .rcba = 0xfed1c000};
    for (unsigned i = 0; i < 16; i++)
        conf.pic[i] = fixture_line(&b->f, i);
    for (unsigned i = 0; i < LPC_N_PIRQS; i++)
        conf.gsi[i] = fixture_line(&b->f, 16 + i);
    struct device *lpc = fixture_open(&b->f, &lpc_type, &conf);
    const unsigned isa = 31 << 3;

    assert_int_equal(cfg_read(b, isa, 0), 0x29188086);
    assert_int_equal(read32(&b->f.mmio, 0xfed1c000), 0);
    pci_func_set_intx(&b->func, true); /* PIRQD#: IRQ 11 */
    assert_true(b->f.level[19] && b->f.level[11]);
    cfg_write(b, isa, 0x60, 0x850a0b0a); /* PIRQC# to 10, PIRQD# to none */
    assert_true(b->f.level[19]);
    assert_false(b->f.level[11]);
    cfg_write(b, isa, 0x60, 0x050a0b0a);
    assert_true(b->f.level[5]);
    cfg_write(b, isa, 0x60, 0x000a0b0a); /* IRQ 0 is not to be had */
    assert_false(b->f.level[0] || b->f.level[5]);

    assert_int_equal(read32(&b->f.pio, 0x604), 0);
    cfg_write(b, isa, 0x40, 0x00000400);
    assert_int_equal(read32(&b->f.pio, 0x604), 0xffffffff);
    assert_int_equal(read32(&b->f.pio, 0x404), 0);
    cfg_write(b, isa, 0x44, 0);
    assert_int_equal(read32(&b->f.pio, 0x404), 0xffffffff);
    device_reset(lpc);
    assert_int_equal(read32(&b->f.pio, 0x604), 0);
    device_close(lpc);
    device_close(pm);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_config_ports),
        T(test_bar_sizing_and_mapping),
        T(test_bar_over_another),
        T(test_capabilities),
        T(test_intx),
        T(test_ecam),
        T(test_lpc_routes),
        T(test_reset_register_under_config_address),
    };
    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
