/*
 * The backend "switch": a port of a switch between VMs on this host, which is a process of its own (`vireo switch`, switch_server.h). Frames
 * go through rings in memory that both share (switch_ring.h); the switch is taken for hostile, as it takes this end.
 *
 * The switch has to be there when the interface is opened. When it goes later the link is down, and up again once a switch of that name is
 * back.
 *
 * Threads: see net.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "net/backend.h"
#include "net/mac.h"
#include "net/offload.h"
#include "net/switch_ring.h"
#include "net/switch_wire.h"

#define PATIENCE_MS 5000 /* with a switch that does not answer, while opening */
#define RETRY_NS    (500 * NS_PER_MS)
#define TURN_FRAMES 256
#define BATCH_BYTES (128 * KIB) /* sent before the switch is woken, whatever the interface's batch is */
#define TURN_NOTES  8

struct switch_keys {
    char name[KEYVAL_PATH_MAX];
    char port[KEYVAL_TEXT_MAX];
    uint64_t vlan;
    bool trunk;
};

static const struct keyval_key keys[] = {
    {"the switch's name", KEYVAL_FIRST, offsetof(struct switch_keys, name)},
    {"vlan", KEYVAL_NUMBER, offsetof(struct switch_keys, vlan), 1, SWITCH_WIRE_VLAN_MOST},
    {"trunk", KEYVAL_FLAG, offsetof(struct switch_keys, trunk)},
    {"port", KEYVAL_TEXT, offsetof(struct switch_keys, port)},
};

static const struct keyval_table table = {"net: switch", keys, ARRAY_SIZE(keys)};

struct switch_net {
    struct net net;
    char path[SWITCH_WIRE_PATH_MAX];
    struct switch_wire_hello hello;
    struct loop_fd socket;  /* fd -1: not connected */
    struct loop_timer turn; /* the next turn of the ring, or the next attempt to connect */
    bool up;                /* welcomed */
    bool broken;            /* the switch has written nonsense into the ring of what is sent */
    bool told;              /* the user knows that the switch is gone */
    void *memory;
    size_t bytes;
    struct switch_ring in, out;
    size_t unflushed; /* bytes put since the switch was last woken, or found awake */
};

/* ---- the link ---- */

static void hang_up(struct switch_net *s)
{
    if (s->socket.fd >= 0) {
        loop_fd_remove(s->net.loop, &s->socket);
        close(s->socket.fd);
        s->socket.fd = -1;
    }
    if (s->memory)
        munmap(s->memory, s->bytes);
    s->memory = NULL;
}

static void tell_link(struct switch_net *s, bool up)
{
    s->up = up;
    if (s->net.receiver.link)
        s->net.receiver.link(s->net.receiver.opaque, up);
}

/* One line for each time that it goes, whatever happens until it is back. */
static void lose(struct switch_net *s, const char *why)
{
    hang_up(s);
    s->broken = false;
    loop_timer_set(&s->turn, loop_now() + RETRY_NS);
    if (!s->told)
        log_warn("net: switch '%s' is lost: %s; the link is down until it is back", s->path, why);
    s->told = true;
    if (s->up)
        tell_link(s, false);
}

/* ---- frames ---- */

static void wake_switch(struct switch_net *s)
{
    static const struct switch_wire_note note = {.kind = SWITCH_WIRE_WAKE};

    s->unflushed = 0;
    if (s->up && switch_ring_wake(&s->out))
        (void)switch_wire_send(s->socket.fd, &note, sizeof(note), -1); /* no room: others wait there to be read */
}

static void switch_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct switch_net *s = CONTAINER_OF(net, struct switch_net, net);
    int r = s->up ? switch_ring_put(&s->out, header, frame, n) : -ENOTCONN;

    if (r < 0)
        net->dropped++;
    if (r == -EPROTO) {
        s->broken = true;
        loop_timer_set(&s->turn, 0); /* not from within the interface's own call */
    }
    s->unflushed += offload_length(frame, n);
    if (s->unflushed >= BATCH_BYTES)
        wake_switch(s);
}

static void switch_flush(struct net *net)
{
    wake_switch(CONTAINER_OF(net, struct switch_net, net));
}

/* Whether the interface can be given a frame. Where it cannot, switch_resume() goes on. */
static bool ready(const struct switch_net *s)
{
    const struct net_receiver *to = &s->net.receiver;

    return to->deliver && to->ready(to->opaque);
}

/* Takes frames from the ring: all there are, or a turn's. */
static void serve(struct switch_net *s)
{
    const struct net_receiver *to = &s->net.receiver;
    struct net_header header;
    struct iovec frame;
    unsigned n = 0;
    int r = 0;

    while (s->up && n < TURN_FRAMES && ready(s)) {
        r = switch_ring_peek(&s->in, &header, &frame);
        if (r < 0 || (r == 0 && switch_ring_wait(&s->in)))
            break;
        if (r == 0)
            continue;
        to->deliver(to->opaque, &header, &frame, 1);
        switch_ring_take(&s->in);
        n++;
    }
    if (n)
        to->flush(to->opaque);
    if (r < 0)
        lose(s, "the records in its ring make no sense");
    else if (n == TURN_FRAMES)
        loop_timer_set(&s->turn, 0);
}

static void switch_resume(struct net *net)
{
    struct switch_net *s = CONTAINER_OF(net, struct switch_net, net);

    if (s->up)
        loop_timer_set(&s->turn, 0); /* not from within the interface's own call */
}

/* ---- connecting ---- */

static int take_welcome(struct switch_net *s, struct err *err)
{
    uint8_t message[SWITCH_WIRE_MOST];
    struct switch_wire_welcome w;
    int fd;
    ssize_t n = switch_wire_receive(s->socket.fd, message, sizeof(message), &fd);

    if (n <= 0)
        return n == -EAGAIN ? -EAGAIN : err_set(err, -ECONNRESET, "it hung up");
    int r = switch_wire_take_welcome(message, (size_t)n, &w, err);
    if (r == 0 && (fd < 0 || !switch_ring_size_ok(w.to_switch) || !switch_ring_size_ok(w.from_switch)))
        r = err_set(err, -EPROTO, "its welcome makes no sense");
    if (r == 0) {
        size_t to_switch = switch_ring_bytes(w.to_switch);
        s->bytes = to_switch + switch_ring_bytes(w.from_switch);
        s->memory = switch_wire_map(fd, s->bytes, err);
        r = s->memory ? 0 : -EPROTO;
        if (r == 0) {
            switch_ring_init(&s->out, s->memory, w.to_switch);
            switch_ring_init(&s->in, (uint8_t *)s->memory + to_switch, w.from_switch);
        }
    }
    if (fd >= 0)
        close(fd);
    return r;
}

static void on_message(void *opaque, uint32_t events);

/* Connects and says hello. */
static int call(struct switch_net *s)
{
    int fd = switch_wire_connect(s->path);

    if (fd < 0)
        return fd;
    int r = switch_wire_send(fd, &s->hello, sizeof(s->hello), -1);
    s->socket = (struct loop_fd){.fd = fd, .fn = on_message, .opaque = s};
    if (r == 0)
        r = loop_fd_add(s->net.loop, &s->socket, EPOLLIN);
    if (r < 0) {
        close(fd);
        s->socket.fd = -1;
    }
    return r;
}

/* The switch is back: what the interface takes may have changed since the hello was made. */
static void on_welcome(struct switch_net *s)
{
    struct err err;
    int r = take_welcome(s, &err);

    if (r == -EAGAIN)
        return;
    if (r < 0) {
        lose(s, err.msg);
        return;
    }
    log_notice("net: switch '%s' is back", s->path);
    s->told = false;
    tell_link(s, true);
    serve(s);
}

/* False: the switch has hung up, or sends nonsense. */
static bool read_notes(struct switch_net *s)
{
    struct switch_wire_note note;

    for (unsigned i = 0; i < TURN_NOTES; i++) {
        ssize_t n = switch_wire_receive(s->socket.fd, &note, sizeof(note), NULL);
        if (n == -EAGAIN)
            return true;
        if (n != sizeof(note) || note.kind != SWITCH_WIRE_WAKE)
            return false;
    }
    return true;
}

static void on_message(void *opaque, uint32_t events)
{
    struct switch_net *s = opaque;

    if (!s->up) {
        on_welcome(s);
        return;
    }
    bool there = read_notes(s);
    serve(s);
    if (!there && s->up)
        lose(s, "it hung up");
}

static void on_turn(void *opaque)
{
    struct switch_net *s = opaque;

    if (s->up && s->broken)
        lose(s, "the positions in its ring make no sense");
    else if (s->up)
        serve(s);
    else if (s->socket.fd >= 0)
        lose(s, "it does not answer");
    else
        loop_timer_set(&s->turn, loop_now() + (call(s) == 0 ? PATIENCE_MS * NS_PER_MS : RETRY_NS));
}

static void switch_set_offloads(struct net *net, unsigned offloads)
{
    struct switch_net *s = CONTAINER_OF(net, struct switch_net, net);
    const struct switch_wire_note note = {.kind = SWITCH_WIRE_OFFLOADS, .value = offloads};

    if (s->up && s->hello.offloads != offloads && switch_wire_send(s->socket.fd, &note, sizeof(note), -1) < 0)
        lose(s, "it does not read what it is sent");
    s->hello.offloads = offloads;
}

/* ---- open, close ---- */

static void switch_close(struct net *net)
{
    struct switch_net *s = CONTAINER_OF(net, struct switch_net, net);

    loop_timer_cancel(&s->turn);
    hang_up(s);
    free(s);
}

static const struct net_type switch_type = {
    .name = "switch",
    .send = switch_send,
    .flush = switch_flush,
    .resume = switch_resume,
    .set_offloads = switch_set_offloads,
    .close = switch_close,
};

static int parse(const char *rest, struct switch_keys *k, struct err *err)
{
    *k = (struct switch_keys){0};
    int r = keyval_parse(&table, rest, k, err);
    if (r < 0)
        return r;
    if (!strchr(k->name, '/') && !switch_wire_name_ok(k->name))
        return err_set(err, -EINVAL,
                       "net: switch='%.60s': accepted are up to %d letters, digits and '-_.', or a path with a slash",
                       k->name, SWITCH_WIRE_NAME_MAX - 1);
    if (k->port[0] && !switch_wire_name_ok(k->port))
        return err_set(err, -EINVAL, "net: port='%.60s': accepted are up to %d letters, digits and '-_.'", k->port,
                       SWITCH_WIRE_NAME_MAX - 1);
    return 0;
}

static int switch_check(const char *rest, struct err *err)
{
    struct switch_keys k;

    return parse(rest, &k, err);
}

/* Waits for the welcome. */
static int join(struct switch_net *s, const char *name, struct err *err)
{
    int64_t until = loop_now() + PATIENCE_MS * NS_PER_MS;
    int r;

    while ((r = call(s)) == -EAGAIN && loop_now() < until)
        poll(NULL, 0, 10); /* as many as the switch lets wait are there already */

    if (r == -ENOENT || r == -ECONNREFUSED)
        return err_set(err, r, "there is no switch '%s' (at '%s'); `vireo switch %s` starts it", name, s->path, name);
    if (r < 0)
        return err_set(err, r, "switch '%s' (at '%s'): %s", name, s->path, strerror(-r));
    while ((r = take_welcome(s, err)) == -EAGAIN) {
        struct pollfd pfd = {.fd = s->socket.fd, .events = POLLIN};
        int64_t left = (until - loop_now()) / NS_PER_MS;
        if (left <= 0 || (poll(&pfd, 1, (int)left) < 0 && errno != EINTR))
            return err_set(err, -ETIMEDOUT, "switch '%s' (at '%s') does not answer", name, s->path);
    }
    if (r < 0)
        err_prefix(err, "switch '%s'", name);
    return r;
}

/* Where no name is given: the interface's address, which no other port has, and which is the same when the VM runs again. */
static void name_port(struct switch_net *s, const struct switch_keys *k, const struct net_spec *spec)
{
    char *name = s->hello.name;

    if (k->port[0]) {
        snprintf(name, sizeof(s->hello.name), "%.31s", k->port);
    } else if (spec->has_mac) {
        mac_format(spec->mac, name);
        for (char *colon; (colon = strchr(name, ':'));)
            *colon = '-';
    } else {
        snprintf(name, sizeof(s->hello.name), "%d.%.19s", (int)getpid(), spec->id[0] ? spec->id : "net");
    }
}

static int switch_open(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    struct switch_keys k;
    int r = parse(spec->rest, &k, err);

    *net = NULL;
    if (r < 0)
        return r;
    struct switch_net *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, -ENOMEM, "net: out of memory");
    s->net.type = &switch_type;
    s->net.loop = loop;
    s->net.offloads = NET_OFFLOAD_ALL;
    s->socket.fd = -1;
    loop_timer_init(&s->turn, loop, on_turn, s);
    s->hello = (struct switch_wire_hello){
        .magic = SWITCH_WIRE_MAGIC,
        .version = SWITCH_WIRE_VERSION,
        .kind = SWITCH_WIRE_JOIN,
        .vlan = (uint16_t)k.vlan,
        .trunk = k.trunk,
    };
    if (spec->has_mac)
        memcpy(s->hello.mac, spec->mac, sizeof(s->hello.mac));
    name_port(s, &k, spec);
    r = switch_wire_path(k.name, false, s->path, err);
    if (r == 0)
        r = join(s, k.name, err);
    if (r < 0) {
        err_prefix(err, "net");
        switch_close(&s->net);
        return r;
    }
    s->up = true;
    loop_timer_set(&s->turn, 0); /* the first look at the ring, from which on it is waited for */
    *net = &s->net;
    return 0;
}

const struct net_backend switch_backend = {"switch", &table, switch_check, switch_open};
