#include "fixture.h"

#include "device/serial.h"

#define IRQ 4
enum { DATA = SERIAL_COM1, IER, IIR, LCR, MCR, LSR, MSR, SCR };

/* A chardev with as much room as the test says, that keeps what it took. */
struct wire {
    struct chardev dev;
    uint8_t out[64];
    size_t n_out, room;
    unsigned accepted;
};

static size_t wire_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    struct wire *w = (struct wire *)dev;
    size_t n = len < w->room ? len : w->room;
    memcpy(w->out + w->n_out, buf, n);
    w->n_out += n;
    w->room -= n;
    return n;
}

static size_t wire_room(struct chardev *dev)
{
    return ((struct wire *)dev)->room;
}

static void wire_accept(struct chardev *dev)
{
    ((struct wire *)dev)->accepted++;
}

static const struct chardev_ops wire_ops = {
    .name = "wire", .write = wire_write, .room = wire_room, .accept_input = wire_accept};

struct port {
    struct fixture f;
    struct wire wire;
    struct device *dev;
};

static int setup(void **state)
{
    static struct port p;
    fixture_init(&p.f);
    p.wire = (struct wire){.dev = {.ops = &wire_ops}, .room = 32};
    const struct serial_conf conf = {.port = SERIAL_COM1, .irq = fixture_line(&p.f, IRQ)};
    p.dev = fixture_open(&p.f, &serial_type, &conf);
    serial_connect(p.dev, &p.wire.dev);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct port *p = *state;
    device_close(p->dev);
    fixture_fini(&p->f);
    return 0;
}

static void type(struct port *p, const char *text)
{
    struct chardev_receiver *r = &p->wire.dev.receiver;
    for (; *text; text++)
        r->receive(r->opaque, (const uint8_t *)text, 1);
}

static size_t can_receive(struct port *p)
{
    return p->wire.dev.receiver.can_receive(p->wire.dev.receiver.opaque);
}

static void test_transmits(void **state)
{
    struct port *p = *state;
    assert_int_equal(in8(&p->f, LSR), 0x60);
    out8(&p->f, DATA, 'h');
    out8(&p->f, DATA, 'i');
    assert_int_equal(p->wire.n_out, 2);
    assert_memory_equal(p->wire.out, "hi", 2);
}

static void test_thr_waits_for_room(void **state)
{
    struct port *p = *state;
    out8(&p->f, MCR, 0x08);
    out8(&p->f, IER, 0x02);
    assert_int_equal(in8(&p->f, IIR), 0x02); /* enabling on an empty THR interrupts */
    assert_int_equal(in8(&p->f, IIR), 0x01); /* and reading IIR ends that */
    p->wire.room = 0;
    out8(&p->f, DATA, 'x');
    assert_int_equal(in8(&p->f, LSR), 0x00);
    assert_false(p->f.level[IRQ]);
    p->wire.room = 8;
    p->wire.dev.receiver.writable(p->wire.dev.receiver.opaque);
    assert_int_equal(p->wire.n_out, 1);
    assert_int_equal(in8(&p->f, LSR), 0x60);
    assert_true(p->f.level[IRQ]);
}

static void test_flood_without_room_is_bounded(void **state)
{
    struct port *p = *state;
    out8(&p->f, IIR, 0x01);
    p->wire.room = 0;
    for (int i = 0; i < 1000; i++)
        out8(&p->f, DATA, (uint8_t)i);
    p->wire.room = 64;
    p->wire.dev.receiver.writable(p->wire.dev.receiver.opaque);
    assert_int_equal(p->wire.n_out, 16);
}

static void test_receives_through_fifo(void **state)
{
    struct port *p = *state;
    out8(&p->f, MCR, 0x08);
    out8(&p->f, IIR, 0x41); /* FIFOs, trigger at 4 */
    out8(&p->f, IER, 0x01);
    assert_int_equal(can_receive(p), 16);
    type(p, "abc");
    assert_int_equal(in8(&p->f, IIR), 0xc1);
    type(p, "d");
    assert_true(p->f.level[IRQ]);
    assert_int_equal(in8(&p->f, IIR), 0xc4);
    assert_int_equal(can_receive(p), 12);
    assert_int_equal(in8(&p->f, DATA), 'a');
    assert_false(p->f.level[IRQ]);
    assert_true(p->wire.accepted > 0);
    assert_int_equal(in8(&p->f, LSR), 0x61);
}

static void test_character_timeout(void **state)
{
    struct port *p = *state;
    out8(&p->f, MCR, 0x08);
    out8(&p->f, IIR, 0x81); /* trigger at 8 */
    out8(&p->f, LCR, 0x80);
    out8(&p->f, DATA, 1); /* 115200 baud */
    out8(&p->f, IER, 0);
    out8(&p->f, LCR, 0x03); /* 8N1: ten bits a character */
    out8(&p->f, IER, 0x01);
    type(p, "ab");
    fixture_advance(&p->f, 340000); /* 4 characters are 347.2 us */
    assert_int_equal(in8(&p->f, IIR), 0xc1);
    fixture_advance(&p->f, 8000);
    assert_true(p->f.level[IRQ]);
    assert_int_equal(in8(&p->f, IIR), 0xcc);
    assert_int_equal(in8(&p->f, DATA), 'a');
    assert_int_equal(in8(&p->f, IIR), 0xc1); /* reading starts the time anew */
    fixture_advance(&p->f, 348000);
    assert_int_equal(in8(&p->f, IIR), 0xcc);
    assert_int_equal(in8(&p->f, DATA), 'b');
    assert_false(fixture_any_timer(&p->f));
}

static void test_overrun_and_priorities(void **state)
{
    struct port *p = *state;
    out8(&p->f, MCR, 0x08);
    out8(&p->f, IER, 0x0f);
    type(p, "ab"); /* no FIFO: b replaces a */
    assert_int_equal(in8(&p->f, IIR), 0x06);
    assert_int_equal(in8(&p->f, LSR), 0x63);
    assert_int_equal(in8(&p->f, IIR), 0x04);
    assert_int_equal(in8(&p->f, DATA), 'b');
    assert_int_equal(in8(&p->f, IIR), 0x02);
    assert_int_equal(in8(&p->f, IIR), 0x01);
}

static void test_loopback(void **state)
{
    struct port *p = *state;
    assert_int_equal(in8(&p->f, MSR), 0xb0); /* a terminal that is there */
    out8(&p->f, MCR, 0x1f);
    assert_int_equal(in8(&p->f, MSR), 0xf0);
    out8(&p->f, MCR, 0x1a);
    assert_int_equal(in8(&p->f, MSR), 0x96); /* DSR fell, RI ended */
    assert_int_equal(in8(&p->f, MSR), 0x90);
    out8(&p->f, DATA, 'z');
    assert_int_equal(p->wire.n_out, 0);
    assert_int_equal(can_receive(p), 0);
    assert_int_equal(in8(&p->f, DATA), 'z');
    out8(&p->f, MCR, 0x08);
    assert_int_equal(can_receive(p), 1);
}

static void test_modem_interrupt(void **state)
{
    struct port *p = *state;
    out8(&p->f, MCR, 0x18);
    in8(&p->f, MSR);
    out8(&p->f, IER, 0x08);
    assert_false(p->f.level[IRQ]);
    out8(&p->f, MCR, 0x1a);
    assert_true(p->f.level[IRQ]);
    assert_int_equal(in8(&p->f, IIR), 0x00);
    in8(&p->f, MSR);
    assert_false(p->f.level[IRQ]);
}

static void test_registers(void **state)
{
    struct port *p = *state;
    out8(&p->f, SCR, 0x5a);
    assert_int_equal(in8(&p->f, SCR), 0x5a);
    out8(&p->f, IER, 0xff);
    assert_int_equal(in8(&p->f, IER), 0x0f);
    out8(&p->f, MCR, 0xff);
    assert_int_equal(in8(&p->f, MCR), 0x1f);
    out8(&p->f, LCR, 0xff);
    out8(&p->f, DATA, 0x34);
    out8(&p->f, IER, 0x12);
    assert_int_equal(in8(&p->f, DATA), 0x34);
    assert_int_equal(in8(&p->f, IER), 0x12);
    out8(&p->f, LSR, 0);
    assert_int_equal(in8(&p->f, LSR) & 0x60, 0x60);
}

static void test_wide_access_is_bytes(void **state)
{
    struct port *p = *state;
    uint32_t v = 0x03000f00; /* THR 0, IER 0x0f, FCR 0, LCR 3 */
    bus_access(&p->f.pio, DATA, &v, 4, true);
    assert_int_equal(in8(&p->f, IER), 0x0f);
    assert_int_equal(in8(&p->f, LCR), 0x03);
    assert_int_equal(p->wire.n_out, 1);
}

static void test_state(void **state)
{
    struct port *p = *state;
    struct fixture f;
    fixture_init(&f);
    const struct serial_conf conf = {.port = SERIAL_COM1, .irq = fixture_line(&f, IRQ)};
    struct device *to = fixture_open(&f, &serial_type, &conf);
    out8(&p->f, IIR, 0xc1);
    out8(&p->f, MCR, 0x0b);
    out8(&p->f, IER, 0x01);
    out8(&p->f, SCR, 0x77);
    type(p, "q");
    fixture_copy_state(p->dev, to);
    assert_int_equal(in8(&f, SCR), 0x77);
    assert_true(fixture_any_timer(&f));
    assert_int_equal(in8(&f, DATA), 'q');
    device_close(to);
    fixture_fini(&f);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_transmits),
        T(test_thr_waits_for_room),
        T(test_flood_without_room_is_bounded),
        T(test_receives_through_fifo),
        T(test_character_timeout),
        T(test_overrun_and_priorities),
        T(test_loopback),
        T(test_modem_interrupt),
        T(test_registers),
        T(test_wide_access_is_bytes),
        T(test_state),
    };
    return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
