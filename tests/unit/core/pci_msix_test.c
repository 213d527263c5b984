#include "../device/fixture.h"
#include "core/pci_msix.h"

#define N_VECTORS 67

struct rig {
    struct fixture f;
    struct pci_func func;
    struct pci_msix msix;
};

static void on_written(struct pci_func *func, unsigned off, unsigned len)
{
    pci_msix_written(func->opaque);
}

static int setup(void **state)
{
    static struct rig r;
    struct err err;

    memset(&r, 0, sizeof(r));
    fixture_init(&r.f);
    if (pci_bus_open(&r.f.env.pci, &r.f.pio, &r.f.mmio, &err) < 0)
        return -1;
    pci_func_init(&r.func, 0x1af4, 0x1042, 0, 1);
    if (pci_msix_init(&r.msix, &r.func, &r.f.env.msi, N_VECTORS, 2, 0x1000, 0x2000) < 0)
        return -1;
    r.func.written = on_written;
    r.func.opaque = &r.msix;
    if (pci_add(r.f.env.pci, &r.func, PCI_DEVFN(1, 0), &err) < 0)
        return -1;
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    pci_remove(&r->func);
    pci_msix_fini(&r->msix);
    pci_bus_close(r->f.env.pci);
    fixture_fini(&r->f);
    return 0;
}

static void config_write16(struct rig *r, unsigned off, uint16_t val)
{
    write32(&r->f.pio, 0xcf8, 0x80000800 | (off & 0xfc));
    bus_access(&r->f.pio, 0xcfc + (off & 3), &val, 2, true);
}

static void control(struct rig *r, uint16_t val)
{
    config_write16(r, (unsigned)r->msix.cap + 2, val);
}

static void master(struct rig *r, bool on)
{
    config_write16(r, PCI_COMMAND, on ? PCI_COMMAND_MASTER : 0);
}

static void set_entry(struct rig *r, unsigned n, uint64_t addr, uint32_t data, uint32_t ctl)
{
    pci_msix_table_write(&r->msix, 16 * n, 8, addr);
    pci_msix_table_write(&r->msix, 16 * n + 8, 4, data);
    pci_msix_table_write(&r->msix, 16 * n + 12, 4, ctl);
}

static void test_capability(void **state)
{
    struct rig *r = *state;
    unsigned cap = (unsigned)r->msix.cap;

    assert_int_equal(pci_func_get(&r->func, cap, 1), PCI_CAP_MSIX);
    control(r, 0xffff);
    assert_int_equal(pci_func_get(&r->func, cap + 2, 2), 0xc000 | (N_VECTORS - 1));
    assert_int_equal(pci_func_get(&r->func, cap + 4, 4), 0x1002);
    assert_int_equal(pci_func_get(&r->func, cap + 8, 4), 0x2002);
    assert_int_equal(pci_msix_table_read(&r->msix, 12, 4), 1); /* masked at power-on */
    set_entry(r, 66, 0xfee01003, 0x4041, 0xfffffffe);
    assert_int_equal(pci_msix_table_read(&r->msix, 16 * 66, 8), 0xfee01000);
    assert_int_equal(pci_msix_table_read(&r->msix, 16 * 66 + 8, 8), 0x4041);
    assert_int_equal(pci_msix_table_read(&r->msix, 16 * 67, 4), 0xffffffff);
    assert_int_equal(pci_msix_table_read(&r->msix, 16 * 67 - 4, 8), UINT64_MAX);
    pci_msix_table_write(&r->msix, 16 * 67, 4, 0);
    pci_msix_table_write(&r->msix, 16 * 67 - 4, 8, 0);
    pci_msix_table_write(&r->msix, UINT64_MAX, 8, 0);
    assert_int_equal(pci_msix_pba_read(&r->msix, 8, 8), 0);
    assert_int_equal(pci_msix_pba_read(&r->msix, 16, 8), UINT64_MAX);
}

static void test_send(void **state)
{
    struct rig *r = *state;

    set_entry(r, 3, 0xfee00000, 0x55, 0);
    pci_msix_send(&r->msix, 3); /* not enabled: lost */
    assert_false(pci_msix_enabled(&r->msix));
    control(r, 0x8000);
    master(r, true);
    assert_true(pci_msix_enabled(&r->msix));
    assert_int_equal(r->f.messages, 0);
    pci_msix_send(&r->msix, 3);
    assert_int_equal(r->f.messages, 1);
    assert_int_equal(r->f.msi_addr, 0xfee00000);
    assert_int_equal(r->f.msi_data, 0x55);
    pci_msix_send(&r->msix, 67);
    pci_msix_send(&r->msix, 0xffff);
    assert_int_equal(r->f.messages, 1);
}

/* What comes while it is masked, by vector or by function, or while the bus may not be mastered, is delivered once after that. */
static void test_pending(void **state)
{
    struct rig *r = *state;

    control(r, 0x8000);
    master(r, true);
    set_entry(r, 66, 0xfee00000, 0x66, 1);
    pci_msix_send(&r->msix, 66);
    pci_msix_send(&r->msix, 66);
    assert_int_equal(pci_msix_pba_read(&r->msix, 8, 8), 1 << 2);
    pci_msix_table_write(&r->msix, 16 * 66 + 8, 4, 0x67);
    assert_int_equal(r->f.messages, 0);
    pci_msix_table_write(&r->msix, 16 * 66 + 12, 4, 0);
    assert_int_equal(r->f.messages, 1);
    assert_int_equal(r->f.msi_data, 0x67);
    assert_int_equal(pci_msix_pba_read(&r->msix, 8, 8), 0);

    control(r, 0xc000);
    pci_msix_send(&r->msix, 66);
    assert_int_equal(r->f.messages, 1);
    control(r, 0x8000);
    assert_int_equal(r->f.messages, 2);

    master(r, false);
    pci_msix_send(&r->msix, 66);
    assert_int_equal(r->f.messages, 2);
    master(r, true);
    assert_int_equal(r->f.messages, 3);
}

static void test_state(void **state)
{
    struct rig *r = *state;
    struct stream out, in;

    control(r, 0x8000);
    master(r, true);
    set_entry(r, 1, 0xfee00000, 0x11, 1);
    pci_msix_send(&r->msix, 1);
    stream_init_save(&out);
    pci_func_state(&r->func, &out);
    pci_msix_state(&r->msix, &out);
    pci_func_reset(&r->func);
    pci_msix_reset(&r->msix);
    assert_false(pci_msix_enabled(&r->msix));
    memset(out.data + out.len - 8, 0xff, 8); /* vectors that are not there */
    stream_init_load(&in, out.data, out.len);
    pci_func_state(&r->func, &in);
    pci_msix_state(&r->msix, &in);
    assert_int_equal(in.error, 0);
    assert_true(pci_msix_enabled(&r->msix));
    control(r, 0xc000);
    for (unsigned i = 0; i < N_VECTORS; i++)
        pci_msix_table_write(&r->msix, 16 * i + 12, 4, 0);
    control(r, 0x8000);
    assert_int_equal(r->f.messages, 1 + 3); /* and 64 to 66 */
    stream_fini(&out);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_capability), T(test_send), T(test_pending), T(test_state)};
    return cmocka_run_group_tests_name("pci_msix", tests, NULL, NULL);
}
