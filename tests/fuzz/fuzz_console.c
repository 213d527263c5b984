/*
 * A virtio console between a guest that says anything over its control queue and its ports, and host ends that come and go. The input is
 * records of 4 bytes: what happens, where, and a value.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "device/virtio_console.h"
#include "fuzz.h"
#include "virtio/driver.h"

#define N_PORTS  3
#define N_QUEUES (2 * N_PORTS + 2)
#define RECORD   4
#define RECORDS  600

enum { CONTROL, RECEIVE, WRITE, REUSE, HOST_ROOM, HOST_TYPE, HOST_AWAY, HOST_SIZE, PAUSE, SAVE, N_KINDS };

/* The host's end of a port. */
struct wire {
    struct chardev dev;
    size_t room, n_in;
    bool starved;
};

static struct vboard board;
static struct driver driver;
static struct wire wires[N_PORTS];
static unsigned n_wires;
static uint64_t buffers;

static struct wire *wire_of(struct chardev *dev)
{
    return CONTAINER_OF(dev, struct wire, dev);
}

static size_t wire_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    struct wire *w = wire_of(dev);
    size_t n = len < w->room ? len : w->room;

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
    static const uint8_t text[4096];

    while (w->n_in) {
        size_t n = dev->receiver.can_receive(dev->receiver.opaque);
        if (!n)
            return;
        n = n < w->n_in ? n : w->n_in;
        dev->receiver.receive(dev->receiver.opaque, text, n);
        w->n_in -= n;
    }
}

static void wire_close(struct chardev *dev)
{
}

static const struct chardev_ops wire_ops = {
    .name = "wire", .write = wire_write, .room = wire_room, .accept_input = wire_accept_input, .close = wire_close};

static int open_backend(void *opaque, struct chardev **dev, const char *backend, struct loop *loop, struct err *err)
{
    struct wire *w = &wires[n_wires++];

    w->dev = (struct chardev){.ops = &wire_ops, .cols = 80, .rows = 25};
    *dev = &w->dev;
    return 0;
}

static void clean_up(void)
{
    driver_close(&driver);
    vboard_close(&board);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct virtio_console_port ports[N_PORTS] = {{.is_console = true}, {.name = "a"}, {.name = "b"}};

    vboard_open(&board);
    buffers = vboard_alloc(&board, 64 * KIB, 16);
    driver_open(&driver, &board, &virtio_console_type,
                &(struct virtio_console_conf){
                    .ports = ports, .n_ports = N_PORTS, .open_backend = open_backend, .patience_ns = NS_PER_MS});
    atexit(clean_up);
    return 0;
}

static void add(unsigned queue, uint32_t len, bool write)
{
    const struct driver_buf buf = {.gpa = buffers, .len = len, .write = write};

    if (driver_add(&driver.queues[queue], &buf, 1) >= 0)
        driver_kick(&driver.queues[queue]);
}

static void reuse(unsigned queue)
{
    unsigned id;
    uint32_t len;

    while (driver_get(&driver.queues[queue], &id, &len))
        if (len > 64 * KIB)
            abort();
}

struct host_call {
    struct wire *w;
    unsigned kind;
    uint8_t value;
};

/* On the iothread. */
static void host(void *opaque)
{
    const struct host_call *c = opaque;
    struct wire *w = c->w;

    switch (c->kind) {
    case HOST_ROOM:
        w->room = (size_t)c->value << (c->value & 7);
        if (w->room && w->starved && w->dev.receiver.writable) {
            w->starved = false;
            w->dev.receiver.writable(w->dev.receiver.opaque);
        }
        break;
    case HOST_TYPE:
        w->n_in = (size_t)c->value * 16;
        wire_accept_input(&w->dev);
        break;
    case HOST_AWAY:
        chardev_set_away(&w->dev, c->value & 1);
        break;
    default:
        chardev_set_size(&w->dev, c->value, c->value / 2);
        break;
    }
}

static void save_and_load(uint8_t value)
{
    struct stream save, load;

    virtio_pci_pause(driver.dev);
    stream_init_save(&save);
    if (device_state(driver.dev, &save) < 0)
        abort();
    stream_init_load(&load, save.data, save.len);
    if (device_state(driver.dev, &load) < 0)
        abort();
    stream_fini(&save);
    virtio_pci_resume(driver.dev);
}

static void happen(const uint8_t *r)
{
    struct wire *w = &wires[r[1] % N_PORTS];
    struct host_call call = {w, r[0] % N_KINDS, r[2]};
    unsigned queue = r[1] % N_QUEUES;

    switch (call.kind) {
    case CONTROL:
        store_le32(vboard_at(&board, buffers), r[1] & 0x80 ? UINT32_MAX : r[1] & 7);
        store_le16(vboard_at(&board, buffers + 4), r[2]);
        store_le16(vboard_at(&board, buffers + 6), r[3]);
        add(3, r[1] & 0x40 ? r[3] : 8, false);
        break;
    case RECEIVE:
        add(queue & ~1u, r[1] & 0x80 ? r[2] : 64 + r[2], true);
        break;
    case WRITE:
        add(queue | 1, (uint32_t)r[2] << (r[3] & 7), r[3] & 0x80);
        break;
    case REUSE:
        reuse(queue);
        break;
    case PAUSE:
        virtio_pci_pause(driver.dev);
        virtio_pci_resume(driver.dev);
        break;
    case SAVE:
        save_and_load(r[2]);
        break;
    default:
        iothread_call(board.io, host, &call);
        break;
    }
    vboard_drain(&board);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint64_t without = (data[0] & 1 ? VIRTIO_F_RING_PACKED : 0) | (data[0] & 0x70 ? 0 : 2 /* several ports */);
    driver_init(&driver, DRIVER_ALL & ~without);
    for (size_t at = 1, n = 0; at + RECORD <= size && n < RECORDS; at += RECORD, n++)
        happen(data + at);
    return 0;
}
