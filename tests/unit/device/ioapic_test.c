#include "device/ioapic.h"

#include "apic_fixture.h"

struct board {
    struct apic_fixture a;
    struct device *ioapic;
};

static void open_board(struct board *b)
{
    apic_open(&b->a);
    const struct ioapic_conf conf = {.bus = &b->a.bus};
    b->ioapic = fixture_open(&b->a.f, &ioapic_type, &conf);
    enable(&b->a);
}

static void close_board(struct board *b)
{
    device_close(b->ioapic);
    apic_close(&b->a);
}

static uint32_t io_read(struct board *b, uint8_t index)
{
    write32(&b->a.f.mmio, IOAPIC_BASE, index);
    return read32(&b->a.f.mmio, IOAPIC_BASE + 0x10);
}

static void io_write(struct board *b, uint8_t index, uint32_t val)
{
    write32(&b->a.f.mmio, IOAPIC_BASE, index);
    write32(&b->a.f.mmio, IOAPIC_BASE + 0x10, val);
}

static void route(struct board *b, unsigned pin, uint8_t dest, uint32_t low)
{
    io_write(b, (uint8_t)(0x11 + 2 * pin), (uint32_t)dest << 24);
    io_write(b, (uint8_t)(0x10 + 2 * pin), low);
}

static void set(struct board *b, unsigned n, bool level)
{
    struct irq_line line = ioapic_line(b->ioapic, n);
    irq_set(&line, level);
}

static void test_registers(void **state)
{
    struct board b;

    open_board(&b);
    assert_int_equal(io_read(&b, 1), 0x00170020);
    io_write(&b, 0, 0xffffffff);
    assert_int_equal(io_read(&b, 0), 0x0f000000);
    assert_int_equal(io_read(&b, 0x10), 0x10000);
    io_write(&b, 0x10, 0xffffffff);
    assert_int_equal(io_read(&b, 0x10), 0x1afff); /* delivery status and remote IRR are read-only */
    io_write(&b, 0x11, 0xffffffff);
    assert_int_equal(io_read(&b, 0x11), 0xff000000);
    assert_int_equal(io_read(&b, 0x40), 0xffffffff); /* past the last pin */
    io_write(&b, 0x40, 0);
    io_write(&b, 0xff, 0);
    io_write(&b, 0x05, 0);
    assert_int_equal(read32(&b.a.f.mmio, IOAPIC_BASE + 0x800), 0xffffffff);
    assert_null(ioapic_line(b.ioapic, 24).set);
    close_board(&b);
}

static void test_edge(void **state)
{
    struct board b;

    open_board(&b);
    route(&b, 4, 1, 0x10044);
    set(&b, 4, true); /* masked: lost */
    assert_int_equal(ack(&b.a, 1), -1);
    route(&b, 4, 1, 0x44);
    assert_int_equal(ack(&b.a, 1), -1);
    set(&b, 4, true); /* told again, no edge */
    assert_int_equal(ack(&b.a, 1), -1);
    set(&b, 4, false);
    set(&b, 4, true);
    assert_int_equal(ack(&b.a, 1), 0x44);
    assert_int_equal(io_read(&b, 0x18), 0x44);
    close_board(&b);
}

static void test_level_remote_irr(void **state)
{
    struct board b;

    open_board(&b);
    route(&b, 10, 0, 0x1a055);
    set(&b, 10, true);
    assert_int_equal(ack(&b.a, 0), -1);
    route(&b, 10, 0, 0xa055); /* unmasked with the line up */
    assert_int_equal(io_read(&b, 0x24), 0xe055);
    assert_int_equal(ack(&b.a, 0), 0x55);
    set(&b, 10, false);
    set(&b, 10, true); /* nothing more before the EOI */
    assert_int_equal(reg(&b.a, 0, IRR + 0x20), 0);
    set_reg(&b.a, 0, EOI, 0);
    assert_int_equal(ack(&b.a, 0), 0x55); /* still asserted: delivered again */
    set(&b, 10, false);
    assert_int_equal(io_read(&b, 0x24), 0xe055);
    set_reg(&b.a, 0, EOI, 0);
    assert_int_equal(io_read(&b, 0x24), 0xa055);
    assert_int_equal(ack(&b.a, 0), -1);
    close_board(&b);
}

static void test_eoi_of_shared_vector_and_register(void **state)
{
    struct board b;

    open_board(&b);
    route(&b, 20, 0, 0x8066);
    route(&b, 21, 0, 0x8066);
    set(&b, 20, true);
    set(&b, 21, true);
    assert_int_equal(ack(&b.a, 0), 0x66);
    set(&b, 20, false);
    set_reg(&b.a, 0, EOI, 0);
    assert_int_equal(ack(&b.a, 0), 0x66); /* the other one */
    set(&b, 21, false);
    set_reg(&b.a, 0, SVR, 0x11ff);
    set_reg(&b.a, 0, EOI, 0);
    assert_int_equal(io_read(&b, 0x10 + 42), 0xc066); /* the broadcast was suppressed */
    write32(&b.a.f.mmio, IOAPIC_BASE + 0x40, 0x65);
    assert_int_equal(io_read(&b, 0x10 + 42), 0xc066);
    write32(&b.a.f.mmio, IOAPIC_BASE + 0x40, 0x66);
    assert_int_equal(io_read(&b, 0x10 + 42), 0x8066);
    close_board(&b);
}

static void test_edge_and_back_clears_remote_irr(void **state)
{
    struct board b;

    open_board(&b);
    route(&b, 9, 0, 0x8070);
    set(&b, 9, true);
    assert_int_equal(io_read(&b, 0x22), 0xc070);
    io_write(&b, 0x22, 0x10070);
    io_write(&b, 0x22, 0x18070);
    assert_int_equal(io_read(&b, 0x22), 0x18070);
    close_board(&b);
}

static void test_no_taker(void **state)
{
    struct board b;

    open_board(&b);
    set_reg(&b.a, 0, SVR, 0xff);
    route(&b, 9, 0, 0x8070);
    set(&b, 9, true);
    assert_int_equal(io_read(&b, 0x22), 0x8070); /* nobody will ever send an EOI: not outstanding */
    set_reg(&b.a, 0, SVR, 0x1ff);
    set(&b, 9, true);
    assert_int_equal(ack(&b.a, 0), 0x70);
    close_board(&b);
}

static void test_delivery_modes(void **state)
{
    struct board b;

    open_board(&b);
    route(&b, 1, 1, 0x8400); /* NMI: an edge whatever the trigger bit says */
    set(&b, 1, true);
    assert_int_equal(pins(&b.a, 1), PIN_NMI);
    assert_int_equal(io_read(&b, 0x12), 0x8400);
    route(&b, 2, 2, 0x500);
    set(&b, 2, true);
    assert_int_equal(pins(&b.a, 2), PIN_INIT);
    route(&b, 3, 3, 0x700);
    set(&b, 3, true);
    assert_int_equal(ack(&b.a, 3), 0x77);
    assert_int_equal(ack(&b.a, 3), -1);
    route(&b, 4, 0, 0x600); /* reserved here: no start-up from a pin */
    route(&b, 5, 0, 0x300);
    route(&b, 6, 0, 0x200);
    set(&b, 4, true);
    set(&b, 5, true);
    set(&b, 6, true);
    assert_int_equal(pins(&b.a, 0), 0);

    for (unsigned i = 0; i < CPUS; i++)
        set_reg(&b.a, i, LDR, 0x01000000u << i);
    set_reg(&b.a, 0, TPR, 0x80);
    route(&b, 7, 0x03, 0x991); /* logical, lowest priority of CPUs 0 and 1 */
    set(&b, 7, true);
    assert_int_equal(ack(&b.a, 1), 0x91);
    assert_int_equal(ack(&b.a, 0), -1);
    close_board(&b);
}

static void test_state(void **state)
{
    struct board a, b;

    open_board(&a);
    open_board(&b);
    route(&a, 10, 0, 0x8055);
    set(&a, 10, true);
    fixture_copy_state(a.ioapic, b.ioapic);
    assert_int_equal(io_read(&b, 0x24), 0xc055);
    write32(&b.a.f.mmio, IOAPIC_BASE + 0x40, 0x55);
    assert_int_equal(ack(&b.a, 0), 0x55); /* it knows the line is up */
    device_reset(b.ioapic);
    assert_int_equal(io_read(&b, 0x24), 0x10000);
    close_board(&a);
    close_board(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_edge),
        cmocka_unit_test(test_level_remote_irr),
        cmocka_unit_test(test_eoi_of_shared_vector_and_register),
        cmocka_unit_test(test_edge_and_back_clears_remote_irr),
        cmocka_unit_test(test_no_taker),
        cmocka_unit_test(test_delivery_modes),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
