/*
 * One connection: its place in the tables, what packets and events do to it, and how it ends. When the guest is done, its bytes that are held
 * still reach the host program; the host's are in the guest already.
 */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/vsock_impl.h"

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
    return (guest_port * 31 + host_port) % VSOCK_BUCKETS;
}

struct vsock_conn *vsock_conn_find(struct vsock *vs, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_conn *c = vs->buckets[bucket_of(guest_port, host_port)];

    while (c && (c->guest_port != guest_port || c->host_port != host_port))
        c = c->chain;
    return c;
}

void vsock_conn_bind(struct vsock_conn *c, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_conn **bucket = &c->vs->buckets[bucket_of(guest_port, host_port)];

    c->guest_port = guest_port;
    c->host_port = host_port;
    c->chain = *bucket;
    *bucket = c;
}

static void unbind(struct vsock_conn *c)
{
    struct vsock_conn **p = &c->vs->buckets[bucket_of(c->guest_port, c->host_port)];

    while (*p && *p != c)
        p = &(*p)->chain;
    if (*p)
        *p = c->chain;
}

void vsock_conn_ready(struct vsock_conn *c)
{
    if (c->queue)
        return;
    c->ready = NULL;
    c->queue = c->vs->ready_tail;
    *c->queue = c;
    c->vs->ready_tail = &c->ready;
}

void vsock_conn_unready(struct vsock_conn *c)
{
    if (!c->queue)
        return;
    *c->queue = c->ready;
    if (c->ready)
        c->ready->queue = c->queue;
    else
        c->vs->ready_tail = c->queue;
    c->queue = NULL;
}

void vsock_conn_owe(struct vsock_conn *c, unsigned ops)
{
    c->owed |= ops;
    vsock_conn_ready(c);
}

/* ---- its descriptor ---- */

/*
 * Whether its descriptor is to be in the loop, and for which events. Epoll tells of a hang-up unasked, again and again: a descriptor whose hang-up
 * cannot be acted upon now must not be there.
 */
static bool wants(const struct vsock_conn *c, uint32_t *events)
{
    bool running = virtio_running(&c->vs->v);

    *events = 0;
    switch (c->state) {
    case VSOCK_CLIENT:
        *events = EPOLLIN;
        return true;
    case VSOCK_REQUESTED:
        return true;
    case VSOCK_OPEN:
        if (running && !c->eof && !c->readable && vsock_data_credit(c))
            *events |= EPOLLIN;
        if (c->held)
            *events |= EPOLLOUT;
        return *events || (running && c->eof);
    case VSOCK_LINGER:
        *events = EPOLLOUT;
        return true;
    default:
        return false;
    }
}

static void unwatch(struct vsock_conn *c)
{
    if (c->watched)
        loop_fd_remove(c->vs->v.io->loop, &c->source);
    c->watched = false;
}

void vsock_conn_watch(struct vsock_conn *c)
{
    struct loop *loop = c->vs->v.io->loop;
    uint32_t events;

    if (c->source.fd < 0 || !wants(c, &events)) {
        unwatch(c);
        return;
    }
    if (!c->watched)
        c->watched = loop_fd_add(loop, &c->source, events) == 0;
    else if (events != c->watched_for)
        c->watched = loop_fd_modify(loop, &c->source, events) == 0;
    c->watched_for = events;
}

static void close_fd(struct vsock_conn *c)
{
    unwatch(c);
    if (c->source.fd >= 0)
        close(c->source.fd);
    c->source.fd = -1;
    c->readable = false;
    c->eof = true;
    c->held = 0;
}

/* ---- how it ends ---- */

static bool waits(const struct vsock_conn *c)
{
    return c->state == VSOCK_REQUESTED || c->state == VSOCK_CLOSING;
}

void vsock_conn_wait(struct vsock_conn *c)
{
    if (waits(c) && virtio_running(&c->vs->v))
        loop_timer_set(&c->timer, loop_now() + c->vs->patience_ns);
    else if (waits(c))
        loop_timer_cancel(&c->timer);
}

void vsock_conn_free(struct vsock_conn *c)
{
    loop_timer_cancel(&c->timer);
    close_fd(c);
    vsock_conn_unready(c);
    unbind(c);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    c->vs->n_conns--;
    free(c->buffer);
    free(c);
}

void vsock_conn_kill(struct vsock_conn *c)
{
    loop_timer_cancel(&c->timer);
    close_fd(c);
    c->state = VSOCK_DEAD;
    c->owed = 0;
    vsock_conn_owe(c, 1 << VSOCK_OP_RST);
}

void vsock_conn_close(struct vsock_conn *c)
{
    close_fd(c);
    c->state = VSOCK_CLOSING;
    vsock_conn_wait(c);
}

static void on_timer(void *opaque)
{
    struct vsock_conn *c = opaque;
    struct vsock *vs = c->vs;

    if (c->state == VSOCK_CONNECTING)
        vsock_host_retry(c);
    else if (waits(c))
        vsock_conn_kill(c);
    else
        vsock_conn_free(c);
    virtio_vsock_pump(vs);
}

/* The guest is done with both halves: it gets its reset at once, and what is held goes on to the host. */
static void guest_finished(struct vsock_conn *c, const struct vsock_header *h)
{
    virtio_vsock_reply(c->vs, h);
    if (c->state != VSOCK_OPEN || !c->held) {
        vsock_conn_free(c);
        return;
    }
    vsock_conn_unready(c);
    unbind(c);
    c->state = VSOCK_LINGER;
    vsock_conn_watch(c);
}

static void guest_shutdown(struct vsock_conn *c, const struct vsock_header *h)
{
    unsigned halves = h->flags & VSOCK_SHUTDOWN_BOTH, news = halves & ~c->guest_shutdown;

    c->guest_shutdown |= halves;
    if (c->guest_shutdown == VSOCK_SHUTDOWN_BOTH) {
        guest_finished(c, h);
        return;
    }
    if (c->state != VSOCK_OPEN)
        return;
    if (news & VSOCK_SHUTDOWN_RECEIVE) {
        c->eof = true;
        c->readable = false;
        shutdown(c->source.fd, SHUT_RD);
    }
    if (news & VSOCK_SHUTDOWN_SEND && !c->held)
        vsock_data_close(c);
    vsock_conn_watch(c);
}

/* The guest's listener took what a host program asked for. */
static bool accepted(struct vsock_conn *c)
{
    if (c->state != VSOCK_REQUESTED || c->owed & 1 << VSOCK_OP_REQUEST) {
        virtio_vsock_complain(c->vs, "answers what it was not asked");
        return false;
    }
    loop_timer_cancel(&c->timer);
    c->state = VSOCK_OPEN;
    return vsock_host_answer(c);
}

/* A packet on a connection that is there. False: it must not be, and the connection is to end. */
static bool take_packet(struct vsock_conn *c, const struct vsock_header *h, const struct iovec *data, unsigned n,
                        size_t skip)
{
    switch (h->op) {
    case VSOCK_OP_RESPONSE:
        return accepted(c);
    case VSOCK_OP_RW:
        return c->state == VSOCK_CLOSING || (c->state == VSOCK_OPEN && vsock_data_take(c, h->len, data, n, skip));
    case VSOCK_OP_CREDIT_UPDATE:
        return true;
    case VSOCK_OP_CREDIT_REQUEST:
        if (c->state == VSOCK_OPEN)
            vsock_conn_owe(c, 1 << VSOCK_OP_CREDIT_UPDATE);
        return true;
    default:
        virtio_vsock_complain(c->vs, "sends packets of an unknown kind, or out of order");
        return false;
    }
}

void vsock_conn_packet(struct vsock_conn *c, const struct vsock_header *h, const struct iovec *data, unsigned n,
                       size_t skip)
{
    if (h->op == VSOCK_OP_RST) {
        vsock_conn_free(c);
        return;
    }
    if (c->state == VSOCK_DEAD) /* the reset is under way */
        return;
    c->guest_buffer = h->buf_alloc;
    c->guest_forwarded = h->fwd_cnt;
    if (vsock_data_credit(c))
        c->asked = false;
    if (h->op == VSOCK_OP_SHUTDOWN && (c->state == VSOCK_OPEN || c->state == VSOCK_CLOSING)) {
        guest_shutdown(c, h);
        return;
    }
    if (take_packet(c, h, data, n, skip)) {
        vsock_conn_watch(c);
        return;
    }
    virtio_vsock_reply(c->vs, h);
    vsock_conn_free(c);
}

/* ---- the host's socket ---- */

static void open_event(struct vsock_conn *c, uint32_t events)
{
    if (c->held)
        vsock_data_flush(c);
    if (c->state != VSOCK_OPEN || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    if (!c->eof) {
        c->readable = true;
        vsock_conn_ready(c);
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        vsock_data_left(c);
    }
}

static void on_event(void *opaque, uint32_t events)
{
    struct vsock_conn *c = opaque;
    struct vsock *vs = c->vs;

    switch (c->state) {
    case VSOCK_CLIENT:
        vsock_host_event(c);
        break;
    case VSOCK_REQUESTED: /* it did not wait for the guest's answer */
        if (c->owed & 1 << VSOCK_OP_REQUEST)
            vsock_conn_free(c);
        else
            vsock_conn_kill(c);
        break;
    case VSOCK_OPEN:
        open_event(c, events);
        if (!c->readable)
            vsock_conn_watch(c);
        break;
    default:
        vsock_data_flush(c);
        break;
    }
    virtio_vsock_pump(vs);
}

struct vsock_conn *vsock_conn_new(struct vsock *vs, int fd, enum vsock_state state)
{
    struct vsock_conn *c = vs->n_conns < vs->most ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    c->vs = vs;
    c->state = state;
    c->source = (struct loop_fd){.fd = fd, .fn = on_event, .opaque = c};
    loop_timer_init(&c->timer, vs->v.io->loop, on_timer, c);
    c->next = vs->conns;
    c->link = &vs->conns;
    if (c->next)
        c->next->link = &c->next;
    vs->conns = c;
    vs->n_conns++;
    return c;
}
