/* A driver at the guest's end of the ports; at the host's, chardevs that the test holds, and a real socket. */
#include "device/virtio_console.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../unit.h"
#include "console/console.h"
#include "device/vport_spec.h"
#include "virtio/driver.h"

#define F_SIZE      1
#define F_MULTIPORT 2
#define N_RX        4
#define RX_SIZE     256
#define MESSAGE     8

enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };

/* What the device writes to, and reads from. Its members are the iothread's, but for what call() looks at. */
struct wire {
    struct chardev dev;
    char name[16];
    uint8_t out[65536];
    size_t n_out, room; /* taken, and what more it would take */
    const char *in;     /* to be read by the guest */
    size_t n_in;
    bool starved, closed;
};

#define N_WIRES 3

struct rig {
    struct vboard b;
    struct driver d;
    struct wire wires[N_WIRES];
    unsigned n_wires;
    struct console_hooks hooks;
    char dir[32], path[64];
    uint64_t rx[VIRTIO_MAX_QUEUES][N_RX];
    int slot[VIRTIO_MAX_QUEUES][VIRTQ_SIZE_MAX];
    uint64_t tx;
    uint8_t got[RX_SIZE]; /* received last */
    uint32_t len;
};

/* ---- the host ---- */

static struct wire *wire_of(struct chardev *dev)
{
    return CONTAINER_OF(dev, struct wire, dev);
}

static size_t wire_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    struct wire *w = wire_of(dev);
    size_t n = len < w->room ? len : w->room;

    memcpy(w->out + w->n_out, buf, n);
    w->n_out += n;
    w->room -= n;
    w->starved |= n < len;
    return n;
}

static size_t wire_room(struct chardev *dev)
{
    return wire_of(dev)->room;
}

static void wire_accept_input(struct chardev *dev)
{
    struct wire *w = wire_of(dev);

    while (w->n_in) {
        size_t n = dev->receiver.can_receive(dev->receiver.opaque);
        if (!n)
            return;
        n = n < w->n_in ? n : w->n_in;
        dev->receiver.receive(dev->receiver.opaque, (const uint8_t *)w->in, n);
        w->in += n;
        w->n_in -= n;
    }
}

static void wire_close(struct chardev *dev)
{
    wire_of(dev)->closed = true;
}

static const struct chardev_ops wire_ops = {
    .name = "wire", .write = wire_write, .room = wire_room, .accept_input = wire_accept_input, .close = wire_close};

/* "wire", "terminal" (of 80 by 25), "away" (until it comes), or what console_open() knows. */
static int open_backend(void *opaque, struct chardev **dev, const char *backend, struct loop *loop, struct err *err)
{
    struct rig *r = opaque;

    if (strchr(backend, ':'))
        return console_open(dev, backend, loop, &r->hooks, err);
    struct wire *w = &r->wires[r->n_wires++];
    w->dev = (struct chardev){.ops = &wire_ops, .away = strcmp(backend, "away") == 0};
    w->room = sizeof(w->out);
    if (strcmp(backend, "terminal") == 0)
        chardev_set_size(&w->dev, 80, 25);
    *dev = &w->dev;
    return 0;
}

struct wire_call {
    struct wire *w;
    bool away;
    const char *text;
    uint16_t cols, rows;
    size_t room;
};

static void set_away(void *opaque)
{
    struct wire_call *c = opaque;
    chardev_set_away(&c->w->dev, c->away);
}

static void set_size(void *opaque)
{
    struct wire_call *c = opaque;
    chardev_set_size(&c->w->dev, c->cols, c->rows);
}

static void type_text(void *opaque)
{
    struct wire_call *c = opaque;
    c->w->in = c->text;
    c->w->n_in = strlen(c->text);
    wire_accept_input(&c->w->dev);
}

static void give_room(void *opaque)
{
    struct wire_call *c = opaque;
    c->w->room = c->room;
    if (c->w->starved && c->room && c->w->dev.receiver.writable) {
        c->w->starved = false;
        c->w->dev.receiver.writable(c->w->dev.receiver.opaque);
    }
}

static void host(struct rig *r, void (*fn)(void *opaque), struct wire_call call)
{
    iothread_call(r->b.io, fn, &call);
}

static size_t left_to_type(struct rig *r, struct wire *w)
{
    vboard_drain(&r->b);
    return w->n_in;
}

static void expect_output(struct rig *r, struct wire *w, const char *text)
{
    vboard_drain(&r->b);
    assert_int_equal(w->n_out, strlen(text));
    assert_memory_equal(w->out, text, w->n_out);
    w->n_out = 0;
}

/* ---- the guest ---- */

static unsigned rx_queue(unsigned port)
{
    return port ? 2 * port + 2 : 0;
}

static void give_rx(struct rig *r, unsigned queue, int slot)
{
    const struct driver_buf buf = {.gpa = r->rx[queue][slot], .len = RX_SIZE, .write = true};
    int id = driver_add(&r->d.queues[queue], &buf, 1);

    assert_true(id >= 0);
    r->slot[queue][id] = slot;
    driver_kick(&r->d.queues[queue]);
}

static void give_all_rx(struct rig *r, unsigned queue)
{
    for (int i = 0; i < N_RX; i++) {
        if (!r->rx[queue][i])
            r->rx[queue][i] = vboard_alloc(&r->b, RX_SIZE, 16);
        give_rx(r, queue, i);
    }
}

static void receive(struct rig *r, unsigned queue)
{
    unsigned id;

    assert_true(driver_wait(&r->d.queues[queue], &id, &r->len));
    assert_in_range(r->len, 0, RX_SIZE);
    memcpy(r->got, vboard_at(&r->b, r->rx[queue][r->slot[queue][id]]), r->len);
    give_rx(r, queue, r->slot[queue][id]);
}

static bool anything(struct rig *r, unsigned queue)
{
    unsigned id;
    uint32_t len;

    vboard_drain(&r->b);
    return driver_get(&r->d.queues[queue], &id, &len);
}

static void expect_input(struct rig *r, unsigned port, const char *text)
{
    receive(r, rx_queue(port));
    assert_int_equal(r->len, strlen(text));
    assert_memory_equal(r->got, text, r->len);
}

static void expect_message(struct rig *r, unsigned port, unsigned event, unsigned value)
{
    receive(r, 2);
    assert_true(r->len >= MESSAGE);
    assert_int_equal(load_le32(r->got), port);
    assert_int_equal(load_le16(r->got + 4), event);
    assert_int_equal(load_le16(r->got + 6), value);
}

static void expect_name(struct rig *r, unsigned port, const char *name)
{
    expect_message(r, port, NAME, 1);
    assert_int_equal(r->len - MESSAGE, strlen(name));
    assert_memory_equal(r->got + MESSAGE, name, strlen(name));
}

static void say(struct rig *r, unsigned port, unsigned event, unsigned value)
{
    uint8_t m[MESSAGE];

    store_le32(m, port);
    store_le16(m + 4, (uint16_t)event);
    store_le16(m + 6, (uint16_t)value);
    driver_request(&r->d, 3, m, sizeof(m), NULL, 0);
}

/* Puts bytes into a port's transmit queue; the id. */
static int put(struct rig *r, unsigned port, const char *text)
{
    const struct driver_buf buf = {.gpa = r->tx, .len = (uint32_t)strlen(text)};

    memcpy(vboard_at(&r->b, r->tx), text, buf.len);
    r->tx += buf.len;
    int id = driver_add(&r->d.queues[rx_queue(port) + 1], &buf, 1);
    assert_true(id >= 0);
    driver_kick(&r->d.queues[rx_queue(port) + 1]);
    return id;
}

static void write_port(struct rig *r, unsigned port, const char *text)
{
    unsigned id;
    uint32_t len;

    put(r, port, text);
    assert_true(driver_wait(&r->d.queues[rx_queue(port) + 1], &id, &len));
    assert_int_equal(len, 0);
}

static void on_notice(void *opaque, const char *line)
{
}

static struct rig *rig_open(const struct virtio_console_conf *more)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct virtio_console_conf conf = *more;

    assert_non_null(r);
    signal(SIGPIPE, SIG_IGN);
    r->hooks.notice = on_notice;
    conf.open_backend = open_backend;
    conf.opaque = r;
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &virtio_console_type, &conf);
    r->tx = vboard_alloc(&r->b, 256 * KIB, 4096);
    return r;
}

static struct rig *rig_open_ports(const struct virtio_console_port *ports, unsigned n)
{
    return rig_open(&(struct virtio_console_conf){.ports = ports, .n_ports = n});
}

static void init(struct rig *r, uint64_t features)
{
    driver_init(&r->d, features);
    for (unsigned i = 0; i < r->d.n_queues; i++)
        if (i % 2 == 0)
            give_all_rx(r, i);
}

static void rig_close(struct rig *r)
{
    driver_close(&r->d);
    for (unsigned i = 0; i < r->n_wires; i++)
        assert_true(r->wires[i].closed);
    vboard_close(&r->b);
    free(r);
}

static const struct virtio_console_port three[] = {{.backend = "terminal", .is_console = true},
                                                   {.name = "org.vireo.agent", .backend = "away"},
                                                   {.name = "log", .backend = "wire"}};

/* The whole of the introduction. */
static void introduce(struct rig *r)
{
    say(r, 0, READY, 1);
    for (unsigned i = 0; i < 3; i++)
        expect_message(r, i, ADD, 0);
    say(r, 0, PORT_READY, 1);
    expect_message(r, 0, CONSOLE, 1);
    expect_message(r, 0, RESIZE, 0);
    assert_int_equal(r->len, MESSAGE + 4);
    assert_int_equal(load_le16(r->got + MESSAGE), 80);
    assert_int_equal(load_le16(r->got + MESSAGE + 2), 25);
    expect_message(r, 0, OPEN, 1);
    say(r, 1, PORT_READY, 1);
    expect_name(r, 1, "org.vireo.agent");
    say(r, 2, PORT_READY, 1);
    expect_name(r, 2, "log");
    expect_message(r, 2, OPEN, 1);
}

/* ---- tests ---- */

static void test_spec(void **state)
{
    static const char *const wrong[] = {"",          "unix=/x",       "name=a",          "name=a/b,pty", "name=..,pty",
                                        "name=,pty", "name=a b,pty",  "name=a,pty,none", "name=a,unix=", "name=a,tcp=x",
                                        "console",   "console=on,pty"};
    struct vport_spec spec;
    struct err err;
    char text[128] = "pty,name=";

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(vport_spec_parse(&spec, wrong[i], &err), -EINVAL);
        assert_null(strchr(err.msg, '\n'));
    }
    assert_int_equal(vport_spec_parse(&spec, "name=org.vireo.agent,unix=/a,,b", &err), 0);
    assert_string_equal(spec.name, "org.vireo.agent");
    assert_string_equal(spec.backend, "unix:/a,b");
    assert_false(spec.is_console);
    assert_int_equal(vport_spec_parse(&spec, "console,stdio", &err), 0);
    assert_string_equal(spec.backend, "stdio");
    assert_true(spec.is_console);
    memset(text + 9, 'a', 63);
    assert_int_equal(vport_spec_parse(&spec, text, &err), 0);
    text[72] = 'a';
    assert_int_equal(vport_spec_parse(&spec, text, &err), -EINVAL);
}

static void test_open(void **state)
{
    static const struct virtio_console_port twice[] = {{.name = "a", .backend = "wire"},
                                                       {.name = "a", .backend = "wire"}},
                                            refused[] = {{.name = "a", .backend = "wire"},
                                                         {.name = "b", .backend = "file:/absent/x"}},
                                            bad[] = {{.name = "a/b", .backend = "wire"}};
    struct rig *r = rig_open_ports(three, 3);
    struct virtio_console_conf conf = {.ports = twice, .n_ports = 2, .open_backend = open_backend, .opaque = r};
    const struct virtio_pci_conf pci = {
        .type = &virtio_console_type, .conf = &conf, .io = r->b.io, .name = "console1", .devfn = 0x10};
    struct device *dev;
    struct err err;

    assert_int_equal(driver_pci_read(&r->d, PCI_DEVICE_ID, 2), 0x1043);
    assert_int_equal(driver_read(&r->d, r->d.config, 2), 80);
    assert_int_equal(driver_read(&r->d, r->d.config + 2, 2), 25);
    assert_int_equal(driver_read(&r->d, r->d.config + 4, 4), 3);
    assert_int_equal(r->d.n_queues, 8);
    r->n_wires = 1;
    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &pci, &err), -EEXIST);
    assert_true(r->wires[1].closed);
    r->n_wires = 1;
    conf.ports = refused;
    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &pci, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "/absent/x"));
    conf.ports = bad;
    conf.n_ports = 1;
    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &pci, &err), -EINVAL);
    conf.n_ports = 31;
    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &pci, &err), -EINVAL);
    r->n_wires = 0;
    rig_close(r);
}

/* All ports that there may be, and a console that comes last. */
static void test_most_ports(void **state)
{
    struct virtio_console_port ports[VIRTIO_CONSOLE_PORTS];
    char names[VIRTIO_CONSOLE_PORTS][8];

    for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS; i++) {
        snprintf(names[i], sizeof(names[i]), "p%u", i);
        ports[i] = (struct virtio_console_port){.name = names[i], .backend = "file:/dev/null"};
    }
    struct rig *r = rig_open_ports(ports, VIRTIO_CONSOLE_PORTS);
    assert_int_equal(r->d.n_queues, 64);
    assert_int_equal(driver_read(&r->d, r->d.config + 4, 4), 31);
    init(r, DRIVER_ALL);
    say(r, 0, READY, 1);
    for (unsigned i = 1; i <= VIRTIO_CONSOLE_PORTS; i++)
        expect_message(r, i, ADD, 0);
    say(r, 30, PORT_READY, 1);
    expect_name(r, 30, "p29");
    expect_message(r, 30, OPEN, 1);
    write_port(r, 30, "gone");
    rig_close(r);

    ports[29].is_console = true;
    r = rig_open_ports(ports, VIRTIO_CONSOLE_PORTS);
    assert_int_equal(r->d.n_queues, 62);
    init(r, DRIVER_ALL);
    say(r, 0, PORT_READY, 1);
    expect_message(r, 0, CONSOLE, 1);
    expect_name(r, 0, "p29");
    rig_close(r);
}

static void test_ports(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    struct wire *console = &r->wires[0], *agent = &r->wires[1], *log = &r->wires[2];

    init(r, DRIVER_ALL);
    introduce(r);
    write_port(r, 0, "login: ");
    expect_output(r, console, "login: ");
    write_port(r, 2, "a line\n");
    expect_output(r, log, "a line\n");
    /* Input waits until somebody in the guest has the port open. */
    host(r, type_text, (struct wire_call){.w = console, .text = "root\n"});
    host(r, type_text, (struct wire_call){.w = agent, .text = "ping"});
    assert_int_equal(left_to_type(r, agent), 4);
    say(r, 1, OPEN, 1);
    expect_input(r, 1, "ping");
    say(r, 0, OPEN, 1);
    expect_input(r, 0, "root\n");
    say(r, 1, OPEN, 0);
    host(r, type_text, (struct wire_call){.w = agent, .text = "ping"});
    assert_int_equal(left_to_type(r, agent), 4);
    rig_close(r);
}

/* The guest hears who comes and goes at the host's end, also of a visit too short to see. */
static void test_host_open(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    struct wire *agent = &r->wires[1];
    unsigned id;
    uint32_t len;

    init(r, DRIVER_ALL);
    host(r, set_away, (struct wire_call){.w = agent, .away = false});
    host(r, set_away, (struct wire_call){.w = agent, .away = true});
    assert_false(anything(r, 2)); /* it does not know of the port yet */
    introduce(r);
    host(r, set_away, (struct wire_call){.w = agent, .away = false});
    expect_message(r, 1, OPEN, 1);
    host(r, set_away, (struct wire_call){.w = agent, .away = true});
    expect_message(r, 1, OPEN, 0);
    /* No buffers: what is owed does not pile up. */
    driver_init(&r->d, DRIVER_ALL);
    for (unsigned i = 0; i < 2; i++)
        say(r, i, PORT_READY, 1);
    for (unsigned i = 0; i < 1000; i++)
        host(r, set_away, (struct wire_call){.w = agent, .away = i % 2});
    host(r, set_away, (struct wire_call){.w = agent, .away = false});
    assert_false(driver_get(&r->d.queues[2], &id, &len));
    give_all_rx(r, 2);
    expect_message(r, 0, CONSOLE, 1);
    expect_message(r, 0, RESIZE, 0);
    expect_message(r, 0, OPEN, 1);
    expect_name(r, 1, "org.vireo.agent");
    expect_message(r, 1, OPEN, 0);
    expect_message(r, 1, OPEN, 1);
    assert_false(anything(r, 2));
    rig_close(r);
}

static void test_size(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    struct wire *console = &r->wires[0];

    init(r, DRIVER_ALL);
    introduce(r);
    host(r, set_size, (struct wire_call){.w = console, .cols = 132, .rows = 50});
    expect_message(r, 0, RESIZE, 0);
    assert_int_equal(load_le16(r->got + MESSAGE), 132);
    assert_int_equal(load_le16(r->got + MESSAGE + 2), 50);
    assert_false(anything(r, 2));
    assert_int_equal(driver_read(&r->d, r->d.config, 2), 132);
    /* A guest with one port looks at the configuration. */
    init(r, F_SIZE | VIRTIO_F_VERSION_1);
    vboard_drain(&r->b);
    unsigned seen = vboard_messages(&r->b, r->d.n_queues);
    host(r, set_size, (struct wire_call){.w = console, .cols = 90, .rows = 30});
    assert_true(vboard_wait_message(&r->b, r->d.n_queues, seen));
    assert_int_equal(driver_read(&r->d, r->d.config, 2), 90);
    rig_close(r);
}

/* A guest that knows no ports has a console. */
static void test_one_port(void **state)
{
    struct rig *r = rig_open_ports(three, 3);

    init(r, VIRTIO_F_VERSION_1);
    write_port(r, 0, "hello");
    expect_output(r, &r->wires[0], "hello");
    host(r, type_text, (struct wire_call){.w = &r->wires[0], .text = "there"});
    expect_input(r, 0, "there");
    host(r, type_text, (struct wire_call){.w = &r->wires[2], .text = "lost?"});
    assert_int_equal(left_to_type(r, &r->wires[2]), 5);
    rig_close(r);
}

/* Input comes as the guest has buffers. */
static void test_input_waits(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    char text[N_RX * RX_SIZE + 101];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    init(r, DRIVER_ALL);
    introduce(r);
    say(r, 2, OPEN, 1);
    host(r, type_text, (struct wire_call){.w = &r->wires[2], .text = text});
    assert_int_equal(left_to_type(r, &r->wires[2]), 100);
    for (unsigned i = 0; i < N_RX; i++) {
        receive(r, rx_queue(2));
        assert_int_equal(r->len, RX_SIZE);
    }
    receive(r, rx_queue(2));
    assert_int_equal(r->len, 100);
    rig_close(r);
}

/* A port's output stays in the guest's buffers while the host takes none; through a pause too, and no byte twice. */
static void test_output_waits(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    struct wire *log = &r->wires[2];
    struct driver_queue *q = &r->d.queues[rx_queue(2) + 1];
    unsigned id;
    uint32_t len;

    init(r, DRIVER_ALL);
    introduce(r);
    host(r, give_room, (struct wire_call){.w = log, .room = 4});
    int first = put(r, 2, "first ");
    int second = put(r, 2, "second");
    assert_false(anything(r, rx_queue(2) + 1));
    expect_output(r, log, "firs");
    virtio_pci_pause(r->d.dev);
    host(r, give_room, (struct wire_call){.w = log, .room = 100});
    expect_output(r, log, "");
    host(r, give_room, (struct wire_call){.w = log, .room = 3});
    virtio_pci_resume(r->d.dev);
    assert_true(driver_wait(q, &id, &len));
    assert_int_equal(id, first);
    expect_output(r, log, "t s");
    host(r, give_room, (struct wire_call){.w = log, .room = 100});
    assert_true(driver_wait(q, &id, &len));
    assert_int_equal(id, second);
    expect_output(r, log, "econd");
    /* A reset forgets what was under way. */
    host(r, give_room, (struct wire_call){.w = log, .room = 2});
    put(r, 2, "old");
    vboard_drain(&r->b);
    init(r, DRIVER_ALL);
    host(r, give_room, (struct wire_call){.w = log, .room = 100});
    expect_output(r, log, "ol");
    write_port(r, 2, "new");
    expect_output(r, log, "new");
    rig_close(r);
}

/* A console does not hold its guest up for long: what nobody reads is lost, until somebody does. */
static void test_console_goes_on(void **state)
{
    struct rig *r =
        rig_open(&(struct virtio_console_conf){.ports = three, .n_ports = 3, .patience_ns = 20 * NS_PER_MS});
    struct wire *console = &r->wires[0];

    init(r, DRIVER_ALL);
    introduce(r);
    host(r, give_room, (struct wire_call){.w = console, .room = 4});
    write_port(r, 0, "kernel panic");
    write_port(r, 0, "and more");
    expect_output(r, console, "kern");
    host(r, give_room, (struct wire_call){.w = console, .room = 100});
    write_port(r, 0, "recovered");
    expect_output(r, console, "recovered");
    rig_close(r);
}

static void test_hostile(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    uint8_t half[4] = {0};

    init(r, DRIVER_ALL);
    introduce(r);
    say(r, 3, PORT_READY, 1);
    say(r, 0xffffffff, OPEN, 1);
    say(r, 31, OPEN, 1);
    say(r, 0, 99, 1);
    say(r, 0, ADD, 1);
    say(r, 0, READY, 0);
    say(r, 1, PORT_READY, 0);
    driver_request(&r->d, 3, half, sizeof(half), NULL, 0);
    assert_false(anything(r, 2));
    write_port(r, 0, "well");
    expect_output(r, &r->wires[0], "well");
    /* Receive buffers that can hold nothing. */
    const struct driver_buf none = {.gpa = r->tx, .len = 4};
    driver_init(&r->d, DRIVER_ALL);
    say(r, 2, OPEN, 1);
    host(r, type_text, (struct wire_call){.w = &r->wires[2], .text = "x"});
    assert_true(driver_add(&r->d.queues[rx_queue(2)], &none, 1) >= 0);
    driver_kick(&r->d.queues[rx_queue(2)]);
    assert_true(driver_wait_status(&r->d, 0x40));
    const struct driver_buf small = {.gpa = r->tx, .len = 7, .write = true};
    driver_init(&r->d, DRIVER_ALL);
    assert_true(driver_add(&r->d.queues[2], &small, 1) >= 0);
    driver_kick(&r->d.queues[2]);
    say(r, 2, PORT_READY, 1);
    assert_true(driver_wait_status(&r->d, 0x40));
    init(r, DRIVER_ALL);
    introduce(r);
    rig_close(r);
}

/* A great chain is written in pieces, and the device stops in between when it must. */
static void test_large_chain(void **state)
{
    static const struct virtio_console_port port = {.name = "null", .backend = "file:/dev/null"};
    struct rig *r = rig_open_ports(&port, 1);
    struct driver_buf bufs[8];
    struct driver_queue *q = &r->d.queues[rx_queue(1) + 1];
    uint64_t gpa = vboard_alloc_high(&r->b, 4 * MIB, 4096);
    unsigned id;
    uint32_t len;

    init(r, DRIVER_ALL);
    for (unsigned i = 0; i < ARRAY_SIZE(bufs); i++)
        bufs[i] = (struct driver_buf){.gpa = gpa, .len = 4 * MIB};
    assert_true(driver_add(q, bufs, ARRAY_SIZE(bufs)) >= 0);
    driver_kick(q);
    virtio_pci_pause(r->d.dev);
    virtio_pci_resume(r->d.dev);
    assert_true(driver_wait(q, &id, &len));
    rig_close(r);
}

static void test_state(void **state)
{
    struct rig *r = rig_open_ports(three, 3);
    struct stream save, load;

    init(r, DRIVER_ALL);
    introduce(r);
    say(r, 2, OPEN, 1);
    host(r, give_room, (struct wire_call){.w = &r->wires[2], .room = 4});
    put(r, 2, "first ");
    vboard_drain(&r->b);
    virtio_pci_pause(r->d.dev);
    stream_init_save(&save);
    assert_int_equal(device_state(r->d.dev, &save), 0);
    stream_init_load(&load, save.data, save.len);
    assert_int_equal(device_state(r->d.dev, &load), 0);
    for (size_t len = 0; len < save.len; len += 7) { /* cut short it is refused */
        struct stream bad;
        stream_init_load(&bad, save.data, len);
        assert_int_not_equal(device_state(r->d.dev, &bad), 0);
    }
    stream_init_load(&load, save.data, save.len);
    assert_int_equal(device_state(r->d.dev, &load), 0);
    stream_fini(&load);
    stream_fini(&save);
    host(r, give_room, (struct wire_call){.w = &r->wires[2], .room = 100});
    virtio_pci_resume(r->d.dev);
    /* The guest hears that the other end is another. */
    expect_message(r, 0, RESIZE, 0);
    expect_message(r, 0, OPEN, 0);
    expect_message(r, 0, OPEN, 1);
    expect_message(r, 1, OPEN, 0);
    expect_message(r, 2, OPEN, 0);
    expect_message(r, 2, OPEN, 1);
    expect_output(r, &r->wires[2], "first ");
    host(r, type_text, (struct wire_call){.w = &r->wires[2], .text = "in"});
    expect_input(r, 2, "in");
    rig_close(r);
}

/* A real socket, whose client comes, talks, and goes. */
static void test_socket(void **state)
{
    char dir[] = "/tmp/vireo-test-XXXXXX", spec[64], buf[16];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    assert_non_null(mkdtemp(dir));
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/sock", dir);
    snprintf(spec, sizeof(spec), "unix:%s/sock", dir);
    const struct virtio_console_port port = {.name = "agent", .backend = spec};
    struct rig *r = rig_open_ports(&port, 1);
    init(r, DRIVER_ALL);
    say(r, 1, PORT_READY, 1);
    say(r, 1, OPEN, 1);
    expect_name(r, 1, "agent");
    for (unsigned i = 0; i < 3; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
        expect_message(r, 1, OPEN, 1);
        assert_int_equal(write(fd, "ping", 4), 4);
        expect_input(r, 1, "ping");
        write_port(r, 1, "pong");
        assert_int_equal(recv(fd, buf, 4, MSG_WAITALL), 4);
        assert_memory_equal(buf, "pong", 4);
        close(fd);
        expect_message(r, 1, OPEN, 0);
    }
    rig_close(r);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec),         cmocka_unit_test(test_open),
        cmocka_unit_test(test_most_ports),   cmocka_unit_test(test_ports),
        cmocka_unit_test(test_host_open),    cmocka_unit_test(test_size),
        cmocka_unit_test(test_one_port),     cmocka_unit_test(test_input_waits),
        cmocka_unit_test(test_output_waits), cmocka_unit_test(test_console_goes_on),
        cmocka_unit_test(test_hostile),      cmocka_unit_test(test_large_chain),
        cmocka_unit_test(test_state),        cmocka_unit_test(test_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
