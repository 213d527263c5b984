#include "net/switch_peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "net/mac.h"
#include "net/switch_uplink.h"

/* Room for some 30 of the largest frames each way, so that a port that is not scheduled for a few milliseconds loses nothing. */
#define RING_TO_SWITCH   (2 * MIB)
#define RING_FROM_SWITCH (4 * MIB)

/* A port's turn, and how much of it before those are woken who are sent to. */
#define TURN_FRAMES  256
#define TURN_BYTES   (1 * MIB)
#define BATCH_FRAMES 32
#define BATCH_BYTES  (128 * KIB)
#define TURN_NOTES   8

#define STRANGERS_MOST 16
#define PATIENCE_NS    (5 * NS_PER_SEC)

_Static_assert(SWITCH_WIRE_NAME_MAX == SWITCH_NAME_MAX, "a port's name as on the wire");

/* ---- frames ---- */

void switch_peer_end(struct switch_peer *p)
{
    struct switch_server *s = p->server;

    if (p->joined) {
        switch_core_remove(&s->core, &p->port);
        log_info("switch %s: port %s is gone", s->conf.name, p->port.name);
    } else {
        s->n_strangers--;
    }
    loop_timer_cancel(&p->turn);
    loop_fd_remove(s->loop, &p->socket);
    close(p->socket.fd);
    if (p->memory)
        munmap(p->memory, p->bytes);
    for (struct switch_peer **link = &s->peers; *link; link = &(*link)->next)
        if (*link == p) {
            *link = p->next;
            break;
        }
    free(p);
}

static struct switch_peer *peer_of(struct switch_port *port)
{
    return CONTAINER_OF(port, struct switch_peer, port);
}

/* Whoever does so goes with his next turn; others may be at work with the port. */
static void misbehaved(struct switch_peer *p, const char *how)
{
    p->misbehaved = how;
    loop_timer_set(&p->turn, 0);
}

static int deliver(struct switch_port *port, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct switch_peer *p = peer_of(port);

    if (p->misbehaved)
        return -EPROTO;
    int r = switch_ring_put(&p->out, header, frame, n);
    if (r == -EPROTO)
        misbehaved(p, "the positions in its ring make no sense");
    return r;
}

/* A note that finds no room is not needed: others wait there to be read. */
static void wake(struct switch_port *port)
{
    static const struct switch_wire_note note = {.kind = SWITCH_WIRE_WAKE};
    struct switch_peer *p = peer_of(port);

    if (switch_ring_wake(&p->out))
        (void)switch_wire_send(p->socket.fd, &note, sizeof(note), -1);
}

/* Takes frames from the ring of a port: all there are, or a turn's. False: it has ended. */
static bool serve(struct switch_peer *p)
{
    struct switch_core *core = &p->server->core;
    struct net_header header;
    struct iovec frame;
    size_t frames = 0, bytes = 0, batch_frames = 0, batch_bytes = 0;
    int64_t now = loop_now();
    int r;

    while ((r = switch_ring_peek(&p->in, &header, &frame)) > 0 || (r == 0 && !switch_ring_wait(&p->in))) {
        if (r == 0)
            continue;
        switch_core_input(core, &p->port, &header, &frame, 1, now);
        switch_ring_take(&p->in);
        batch_frames++;
        batch_bytes += frame.iov_len;
        if (batch_frames < BATCH_FRAMES && batch_bytes < BATCH_BYTES)
            continue;
        switch_core_flush(core);
        frames += batch_frames;
        bytes += batch_bytes;
        batch_frames = batch_bytes = 0;
        if (frames >= TURN_FRAMES || bytes >= TURN_BYTES) {
            loop_timer_set(&p->turn, 0);
            break;
        }
    }
    switch_core_flush(core);
    if (r < 0)
        p->misbehaved = "the records in its ring make no sense";
    return r >= 0;
}

static void cut_off(struct switch_peer *p)
{
    log_warn("switch %s: port %s is cut off: %s", p->server->conf.name, p->port.name, p->misbehaved);
    switch_peer_end(p);
}

static void on_turn(void *opaque)
{
    struct switch_peer *p = opaque;

    if (!p->joined)
        switch_peer_end(p); /* it has not said hello */
    else if (p->misbehaved || !serve(p))
        cut_off(p);
}

/* ---- hello ---- */

static void answer(struct switch_peer *p, int error, const char *text, uint64_t length, int fd)
{
    struct switch_wire_welcome w = {
        .magic = SWITCH_WIRE_MAGIC,
        .version = SWITCH_WIRE_VERSION,
        .error = -error,
        .offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6,
        .to_switch = RING_TO_SWITCH,
        .from_switch = RING_FROM_SWITCH,
        .length = length,
    };

    snprintf(w.text, sizeof(w.text), "%s", text);
    (void)switch_wire_send(p->socket.fd, &w, sizeof(w), fd); /* who does not read it has gone */
}

static bool is_gone(const struct switch_peer *p)
{
    struct pollfd pfd = {.fd = p->socket.fd};

    return poll(&pfd, 1, 0) == 1 && (pfd.revents & (POLLHUP | POLLERR));
}

static bool has_mac(const uint8_t *mac)
{
    static const uint8_t none[6];

    return memcmp(mac, none, 6) != 0;
}

/* Somebody else with that name or address. One that is gone and not yet noticed makes room. */
static int check_unique(struct switch_server *s, const struct switch_wire_hello *h, struct err *err)
{
    char mac[MAC_TEXT_MAX];

    for (struct switch_peer *p = s->peers, *next; p; p = next) {
        next = p->next;
        bool same_name = p->joined && strcmp(p->port.name, h->name) == 0;
        bool same_mac = p->joined && has_mac(h->mac) && memcmp(p->port.mac, h->mac, 6) == 0;
        if (!same_name && !same_mac)
            continue;
        if (is_gone(p))
            switch_peer_end(p);
        else if (same_name)
            return err_set(err, -EADDRINUSE, "there is a port '%s' already", h->name);
        else {
            mac_format(h->mac, mac);
            return err_set(err, -EADDRINUSE, "port '%s' has the address %s already", p->port.name, mac);
        }
    }
    for (unsigned i = 0; i < s->n_uplinks; i++)
        if (strcmp(s->uplinks[i].port.name, h->name) == 0)
            return err_set(err, -EADDRINUSE, "there is a port '%s' already", h->name);
    return 0;
}

static int make_rings(struct switch_peer *p, int *fd, struct err *err)
{
    size_t to_switch = switch_ring_bytes(RING_TO_SWITCH);

    p->bytes = to_switch + switch_ring_bytes(RING_FROM_SWITCH);
    *fd = switch_wire_make_memory("vireo-switch-port", p->bytes);
    if (*fd < 0)
        return err_set(err, *fd, "memory for the port: %s", strerror(-*fd));
    p->memory = switch_wire_map(*fd, p->bytes, err);
    if (!p->memory) {
        close(*fd);
        return -ENOMEM;
    }
    switch_ring_init(&p->in, p->memory, RING_TO_SWITCH);
    switch_ring_init(&p->out, (uint8_t *)p->memory + to_switch, RING_FROM_SWITCH);
    return 0;
}

static int join(struct switch_peer *p, const struct switch_wire_hello *h, struct err *err)
{
    struct switch_server *s = p->server;
    int fd, r = check_unique(s, h, err);

    if (r < 0)
        return r;
    p->port = (struct switch_port){
        .vlan = h->vlan ? h->vlan : SWITCH_VLAN_DEFAULT,
        .trunk = h->trunk,
        .offloads = h->offloads,
        .deliver = deliver,
        .flush = wake,
    };
    memcpy(p->port.name, h->name, sizeof(h->name));
    memcpy(p->port.mac, h->mac, sizeof(h->mac));
    switch_server_apply_rules(s, &p->port);
    r = make_rings(p, &fd, err);
    if (r < 0)
        return r;
    r = switch_core_add(&s->core, &p->port);
    if (r == 0)
        answer(p, 0, "", 0, fd);
    else
        err_set(err, r, "all %d ports are taken", SWITCH_PORTS_MOST);
    close(fd);
    if (r < 0)
        return r;
    p->joined = true;
    s->n_strangers--;
    loop_timer_set(&p->turn, 0); /* the first look at the ring, from which on it is waited for */
    log_info("switch %s: port %s joined", s->conf.name, p->port.name);
    return 0;
}

static int tell_status(struct switch_peer *p, struct err *err)
{
    char *text = switch_status(p->server, loop_now());

    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    size_t len = strlen(text);
    int fd = switch_wire_make_memory("vireo-switch-status", len), r = fd;
    if (fd >= 0 && pwrite(fd, text, len, 0) != (ssize_t)len)
        r = -ENOMEM;
    if (r >= 0)
        answer(p, 0, "", len, fd);
    else
        err_set(err, r, "the status: %s", strerror(-r));
    if (fd >= 0)
        close(fd);
    free(text);
    return r;
}

static void greet(struct switch_peer *p)
{
    uint8_t message[SWITCH_WIRE_MOST];
    struct switch_wire_hello hello;
    struct err err;
    ssize_t n = switch_wire_receive(p->socket.fd, message, sizeof(message), NULL);

    if (n == -EAGAIN)
        return;
    if (n > 0) {
        int r = switch_wire_take_hello(message, (size_t)n, &hello, &err);
        if (r == 0)
            r = hello.kind == SWITCH_WIRE_STATUS ? tell_status(p, &err) : join(p, &hello, &err);
        if (r < 0)
            answer(p, r, err.msg, 0, -1);
    }
    if (!p->joined)
        switch_peer_end(p);
}

/* ---- notes ---- */

/* False: it has hung up. */
static bool read_notes(struct switch_peer *p)
{
    struct switch_wire_note note;

    for (unsigned i = 0; i < TURN_NOTES; i++) {
        ssize_t n = switch_wire_receive(p->socket.fd, &note, sizeof(note), NULL);
        if (n == -EAGAIN)
            return true;
        if (n == sizeof(note) && note.kind == SWITCH_WIRE_OFFLOADS)
            p->port.offloads = note.value;
        else if (n > 0 ? n != sizeof(note) || note.kind != SWITCH_WIRE_WAKE : n == -EMSGSIZE)
            p->misbehaved = "it sent what is no note";
        else if (n <= 0)
            return false;
    }
    return true;
}

/* What came before the end still goes on. */
static void on_message(void *opaque, uint32_t events)
{
    struct switch_peer *p = opaque;

    if (!p->joined) {
        greet(p);
        return;
    }
    bool there = read_notes(p);
    if (p->misbehaved || !serve(p))
        cut_off(p);
    else if (!there)
        switch_peer_end(p);
}

/* ---- coming ---- */

int switch_peer_add(struct switch_server *s, int fd)
{
    struct switch_peer *p = s->n_strangers < STRANGERS_MOST ? calloc(1, sizeof(*p)) : NULL;

    if (!p)
        return -ENOMEM;
    p->server = s;
    p->socket = (struct loop_fd){.fd = fd, .fn = on_message, .opaque = p};
    int r = loop_fd_add(s->loop, &p->socket, EPOLLIN);
    if (r < 0) {
        free(p);
        return r;
    }
    loop_timer_init(&p->turn, s->loop, on_turn, p);
    loop_timer_set(&p->turn, loop_now() + PATIENCE_NS);
    p->next = s->peers;
    s->peers = p;
    s->n_strangers++;
    return 0;
}
