/*
 * What processes on a switch's socket may do. The input is a list of acts of three clients, hostile and honest by turns: a hello, frames through the
 * ring, nonsense into the memory of the rings, notes, an end. A fourth is honest: what comes out at its port has to be frames as they should be. A
 * client's end takes everything with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "net/switch_peer.h"

#define N_CLIENTS 4
#define HONEST    3

enum act { ACT_HELLO, ACT_RAW_HELLO, ACT_FRAME, ACT_POSITION, ACT_RECORD, ACT_NOTE, ACT_OFFLOADS, ACT_END, N_ACTS };

struct client {
    int fd; /* -1: not connected */
    uint8_t *memory;
    size_t bytes;
    uint64_t to_switch;
    struct switch_ring out, in;
};

static char dir[] = "/tmp/vireo-fuzz-switch-XXXXXX", path[64];
static struct loop *loop;
static struct switch_server *server;
static struct switch_rule rules[] = {{.port = "b", .isolated = true}, {.port = "c", .own_mac = true, .isolated = true}};
static struct switch_server_conf conf = {.name = "fuzz",
                                         .path = path,
                                         .mac_age_ns = NS_PER_SEC,
                                         .storm = 1000000,
                                         .rules = rules,
                                         .n_rules = ARRAY_SIZE(rules)};
static struct client clients[N_CLIENTS];

/* The input, byte by byte; zeroes behind its end. */
struct input {
    const uint8_t *data;
    size_t size, at;
};

static uint8_t next(struct input *in)
{
    return in->at < in->size ? in->data[in->at++] : 0;
}

static uint64_t next_number(struct input *in, unsigned bytes)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < bytes; i++)
        n |= (uint64_t)next(in) << 8 * i;
    return n;
}

static void clean_up(void)
{
    switch_server_close(server);
    loop_close(loop);
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err;

    log_set_level(LOG_LEVEL_ERROR);
    if (!mkdtemp(dir) || loop_open(&loop, &err) < 0)
        abort();
    snprintf(path, sizeof(path), "%s/socket", dir);
    if (switch_server_open(&server, &conf, loop, &err) < 0)
        abort();
    for (unsigned i = 0; i < N_CLIENTS; i++)
        clients[i].fd = -1;
    atexit(clean_up);
    return 0;
}

static void stop(void *opaque)
{
    loop_stop(loop);
}

/* The switch does what there is to do: an event a round. */
static void run(unsigned rounds)
{
    while (rounds--) {
        if (loop_post(loop, stop, NULL) < 0)
            abort();
        loop_run(loop);
    }
}

static void hang_up(struct client *c)
{
    if (c->memory)
        munmap(c->memory, c->bytes);
    if (c->fd >= 0)
        close(c->fd);
    *c = (struct client){.fd = -1};
}

static void say_hello(struct client *c, const void *hello, size_t len)
{
    uint8_t message[SWITCH_WIRE_MOST];
    struct switch_wire_welcome w;
    struct err err;
    int fd = -1;

    hang_up(c);
    c->fd = switch_wire_connect(path);
    if (c->fd < 0)
        return;
    (void)switch_wire_send(c->fd, hello, len, -1);
    run(4);
    ssize_t n = switch_wire_receive(c->fd, message, sizeof(message), &fd);
    if (n > 0 && switch_wire_take_welcome(message, (size_t)n, &w, &err) == 0 && fd >= 0 && w.length == 0) {
        c->bytes = switch_ring_bytes(w.to_switch) + switch_ring_bytes(w.from_switch);
        c->to_switch = w.to_switch;
        c->memory = switch_wire_map(fd, c->bytes, &err);
        if (!c->memory)
            abort();
        switch_ring_init(&c->out, c->memory, w.to_switch);
        switch_ring_init(&c->in, c->memory + switch_ring_bytes(w.to_switch), w.from_switch);
    }
    if (fd >= 0)
        close(fd);
}

static void join(unsigned i, unsigned wishes)
{
    struct switch_wire_hello hello = {
        .magic = SWITCH_WIRE_MAGIC,
        .version = SWITCH_WIRE_VERSION,
        .kind = wishes == 255 ? SWITCH_WIRE_STATUS : SWITCH_WIRE_JOIN,
        .offloads = wishes & 7,
        .vlan = wishes >> 4 & 3,
        .trunk = wishes >> 3 & 1,
        .mac = {0x52, 0, 0, 0, 0, (uint8_t)(wishes >> 6 ? i + 1 : 0)},
        .name = {(char)('a' + i)},
    };

    if (!hello.mac[5])
        hello.mac[0] = 0;
    say_hello(&clients[i], &hello, sizeof(hello));
}

static void wake(struct client *c)
{
    const struct switch_wire_note note = {.kind = SWITCH_WIRE_WAKE};

    if (c->fd >= 0)
        (void)switch_wire_send(c->fd, &note, sizeof(note), -1);
}

/* A frame with a head from the input. */
static void send_frame(struct client *c, struct input *in)
{
    static uint8_t frame[NET_FRAME_MAX];
    struct net_header header;
    unsigned head = next(in) & 63;
    size_t length = next_number(in, 2);

    for (unsigned i = 0; i < sizeof(header); i++)
        ((uint8_t *)&header)[i] = next(in);
    for (unsigned i = 0; i < head; i++)
        frame[i] = next(in);
    const struct iovec iov = {frame, length};
    if (c->memory)
        (void)switch_ring_put(&c->out, &header, &iov, 1);
    wake(c);
}

/* One of the positions of one of the rings. */
static void spoil_position(struct client *c, struct input *in)
{
    unsigned which = next(in);
    uint64_t value = next_number(in, which & 0x80 ? 8 : 3);

    if (!c->memory)
        return;
    struct switch_ring_shared *shared = (void *)(c->memory + (which & 4 ? switch_ring_bytes(c->to_switch) : 0));
    if (which & 8)
        value += which & 1 ? shared->taken : shared->put;
    if ((which & 3) == 0)
        atomic_store(&shared->put, value);
    else if ((which & 3) == 1)
        atomic_store(&shared->taken, value);
    else if ((which & 3) == 2)
        atomic_store(&shared->start, value);
    else
        atomic_store(&shared->waits, (uint32_t)value);
    wake(c);
}

static void spoil_record(struct client *c, struct input *in)
{
    uint64_t at = next_number(in, 2) * SWITCH_RING_ALIGN;
    uint32_t length = (uint32_t)next_number(in, 4);

    if (c->memory && at + sizeof(length) <= c->to_switch)
        memcpy(c->memory + SWITCH_RING_HEAD + at, &length, sizeof(length));
    wake(c);
}

static void send_raw(struct client *c, struct input *in, bool hello)
{
    uint8_t bytes[64];
    size_t len = next(in) % sizeof(bytes);

    for (size_t i = 0; i < len; i++)
        bytes[i] = next(in);
    if (hello)
        say_hello(c, bytes, len);
    else if (c->fd >= 0)
        (void)switch_wire_send(c->fd, bytes, len, -1);
}

static void act(struct input *in)
{
    unsigned what = next(in);
    unsigned i = what >> 4 & 3;
    struct client *c = &clients[i < HONEST ? i : 0];

    switch (what % N_ACTS) {
    case ACT_HELLO:
        join((unsigned)(c - clients), next(in));
        break;
    case ACT_RAW_HELLO:
        send_raw(c, in, true);
        break;
    case ACT_FRAME:
        send_frame(c, in);
        break;
    case ACT_POSITION:
        spoil_position(c, in);
        break;
    case ACT_RECORD:
        spoil_record(c, in);
        break;
    case ACT_NOTE:
        send_raw(c, in, false);
        break;
    case ACT_OFFLOADS:
        if (c->fd >= 0)
            (void)switch_wire_send(c->fd, &(struct switch_wire_note){SWITCH_WIRE_OFFLOADS, next(in)}, 8, -1);
        break;
    default:
        hang_up(c);
    }
}

/* What the honest port is sent is a frame, and asks for nothing that it has not offered. */
static void check_honest(void)
{
    struct client *c = &clients[HONEST];
    struct net_header header;
    struct iovec frame;
    int r;

    while (c->memory && (r = switch_ring_peek(&c->in, &header, &frame)) != 0) {
        if (r < 0 || !offload_check(&header, frame.iov_len) || offload_needs(&header) & ~(unsigned)NET_OFFLOAD_CSUM)
            abort();
        if (((uint8_t *)frame.iov_base)[6] & 1)
            abort();
        switch_ring_take(&c->in);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size, 0};

    join(HONEST, NET_OFFLOAD_CSUM);
    for (unsigned i = 0; i < HONEST; i++)
        join(i, i == 1 ? 8 : NET_OFFLOAD_ALL);
    if (!clients[HONEST].memory)
        abort();
    while (in.at < in.size && in.at < 4096) {
        act(&in);
        run(2);
        check_honest();
    }
    run(4);
    check_honest();
    for (unsigned i = 0; i < N_CLIENTS; i++)
        hang_up(&clients[i]);
    for (unsigned i = 0; server->peers && i < 1000; i++)
        run(1);
    if (server->peers || server->n_strangers || server->core.end || server->core.table.used)
        abort();
    return 0;
}
