/*
 * The device: its three queues, and which connection a packet is for. See vsock_impl.h for the threads and the bounds.
 *
 * What a guest sends is answered with at most one packet. Where it does not take those, its packets stay in its queue: nothing piles up here.
 */
#include "device/virtio_vsock.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "device/vsock_impl.h"

#define F_STREAM UINT64_C(1)

#define DEFAULT_PATIENCE      (10 * NS_PER_SEC)
#define DEFAULT_MOST          1024
#define EVENT_TRANSPORT_RESET 0

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, N_QUEUES };

static struct vsock *of(struct virtio *v)
{
    return CONTAINER_OF(v, struct vsock, v);
}

void virtio_vsock_complain(struct vsock *vs, const char *what)
{
    if (!vs->complained)
        log_warn("%s: the guest %s", vs->v.name, what);
    vs->complained = true;
}

/* ---- to the guest ---- */

void virtio_vsock_reply(struct vsock *vs, const struct vsock_header *h)
{
    if (vs->n_replies == VSOCK_REPLIES) /* serve_tx() leaves room */
        return;
    vs->replies[(vs->reply_head + vs->n_replies++) % VSOCK_REPLIES] =
        (struct vsock_reply){.cid = h->dst_cid, .guest_port = h->src_port, .host_port = h->dst_port, .type = h->type};
}

static uint32_t fill_reply(struct vsock *vs, struct virtq_elem *elem)
{
    const struct vsock_reply *reply = &vs->replies[vs->reply_head];
    const struct vsock_header h = {.src_cid = reply->cid,
                                   .dst_cid = vs->cid,
                                   .src_port = reply->host_port,
                                   .dst_port = reply->guest_port,
                                   .type = reply->type,
                                   .op = VSOCK_OP_RST};

    vs->reply_head = (vs->reply_head + 1) % VSOCK_REPLIES;
    vs->n_replies--;
    iov_write(elem->in, elem->n_in, 0, &h, sizeof(h));
    return sizeof(h);
}

/* A packet's length, or 0: nothing is left to send. */
static uint32_t fill(struct vsock *vs, struct virtq_elem *elem)
{
    uint32_t len = 0;

    if (vs->n_replies)
        return fill_reply(vs, elem);
    while (vs->ready && !len)
        len = vsock_data_fill(vs->ready, elem);
    return len;
}

/* False: no receive buffer, or no more for now. */
static bool send_packet(struct vsock *vs, struct virtq *q)
{
    struct virtq_elem *elem = virtq_pop(q);

    if (!elem)
        return false;
    if (elem->in_len <= sizeof(struct vsock_header)) {
        virtq_push(q, elem, 0);
        virtq_break(q, "a receive buffer without room for a packet");
        return false;
    }
    uint32_t len = fill(vs, elem);
    if (len)
        virtq_push(q, elem, len);
    else
        virtq_unpop(q, elem);
    return len > 0;
}

static bool anything(const struct vsock *vs)
{
    return vs->n_replies || vs->ready;
}

static void serve_rx(struct vsock *vs)
{
    struct virtq *q = vs->v.queues[QUEUE_RX];
    bool any = false;

    if (!virtio_queue_enabled(&vs->v, QUEUE_RX))
        return;
    virtq_disable_notify(q);
    while (anything(vs)) {
        if (send_packet(vs, q)) {
            any = true;
        } else {
            if (!anything(vs) || !virtq_enable_notify(q))
                break;
            virtq_disable_notify(q);
        }
    }
    if (any)
        virtq_signal(q);
}

static void serve_tx(struct vsock *vs);

/* The queues say themselves when they have had their turn (virtq_pop()). */
void virtio_vsock_pump(struct vsock *vs)
{
    if (virtio_running(&vs->v)) {
        serve_rx(vs);
        while (vs->tx_held && vs->n_replies < VSOCK_REPLIES) {
            serve_tx(vs);
            serve_rx(vs);
        }
    }
    for (struct vsock_conn *c = vs->ready; c; c = c->ready)
        vsock_conn_watch(c);
}

/* ---- from the guest ---- */

static void take_packet(struct vsock *vs, const struct virtq_elem *elem)
{
    struct vsock_header h;

    if (elem->out_len < sizeof(h)) {
        virtio_vsock_complain(vs, "sends packets without a whole header");
        return;
    }
    iov_read(elem->out, elem->n_out, 0, &h, sizeof(h));
    if (h.src_cid != vs->cid) {
        virtio_vsock_complain(vs, "sends packets from an address that is not its own");
        return;
    }
    /* The host is all there is; what else the guest looks for is not reached. */
    struct vsock_conn *c =
        h.dst_cid == VSOCK_HOST_CID && h.type == VSOCK_TYPE_STREAM ? vsock_conn_find(vs, h.src_port, h.dst_port) : NULL;
    if (h.len > elem->out_len - sizeof(h)) {
        virtio_vsock_complain(vs, "sends packets that are shorter than they say");
        h.op = 0;
    }
    if (h.op == VSOCK_OP_REQUEST && !c && h.dst_cid == VSOCK_HOST_CID && h.type == VSOCK_TYPE_STREAM) {
        vsock_host_connect(vs, &h);
    } else if (c) {
        vsock_conn_packet(c, &h, elem->out, elem->n_out, sizeof(h));
    } else if (h.op != VSOCK_OP_RST) {
        virtio_vsock_reply(vs, &h);
    }
}

static void serve_tx(struct vsock *vs)
{
    struct virtq *q = vs->v.queues[QUEUE_TX];
    struct virtq_elem *elem;
    bool any = false;

    vs->tx_held = false;
    if (!virtio_queue_enabled(&vs->v, QUEUE_TX))
        return;
    do {
        virtq_disable_notify(q);
        while (vs->n_replies < VSOCK_REPLIES && (elem = virtq_pop(q))) {
            take_packet(vs, elem);
            virtq_push(q, elem, 0);
            any = true;
        }
        vs->tx_held = vs->n_replies == VSOCK_REPLIES;
    } while (!vs->tx_held && virtq_enable_notify(q));
    if (any)
        virtq_signal(q);
}

/* All connections have gone, and the address may be another (5.10.6.7). */
static void send_event(struct vsock *vs)
{
    const uint8_t event[4] = {EVENT_TRANSPORT_RESET};
    struct virtq *q = vs->v.queues[QUEUE_EVENT];
    struct virtq_elem *elem;

    if (!vs->reset_event || !virtio_queue_enabled(&vs->v, QUEUE_EVENT))
        return;
    do {
        virtq_disable_notify(q);
        elem = virtq_pop(q);
    } while (!elem && virtq_enable_notify(q));
    if (!elem)
        return;
    virtq_push(q, elem, (uint32_t)iov_write(elem->in, elem->n_in, 0, event, sizeof(event)));
    virtq_signal(q);
    vs->reset_event = false;
}

/* ---- the type ---- */

static void vsock_start(struct virtio *v)
{
    struct vsock *vs = of(v);

    vs->started = true;
    for (struct vsock_conn *c = vs->conns; c; c = c->next) {
        vsock_conn_wait(c);
        vsock_conn_watch(c);
    }
}

static void vsock_notify(struct virtio *v, unsigned n)
{
    struct vsock *vs = of(v);

    if (n == QUEUE_TX)
        serve_tx(vs);
    else if (n == QUEUE_EVENT)
        send_event(vs);
    virtio_vsock_pump(vs);
}

static void vsock_stop(struct virtio *v)
{
    struct vsock *vs = of(v);

    for (struct vsock_conn *c = vs->conns; c; c = c->next) {
        vsock_conn_wait(c);
        vsock_conn_watch(c);
    }
    virtio_stopped(v);
}

/* Those that the guest has a part in; `all`: the others too. */
static void drop(struct vsock *vs, bool all)
{
    for (struct vsock_conn *c = vs->conns, *next; c; c = next) {
        next = c->next;
        if (all || (c->state != VSOCK_CLIENT && c->state != VSOCK_LINGER))
            vsock_conn_free(c);
    }
    vs->n_replies = 0;
    vs->tx_held = false;
}

static void vsock_reset(struct virtio *v)
{
    struct vsock *vs = of(v);

    drop(vs, false);
    vs->started = vs->reset_event = false;
}

/* Connections do not outlive the process that has their other ends. */
static int vsock_state(struct virtio *v, struct stream *s)
{
    struct vsock *vs = of(v);
    bool started = vs->started;

    stream_section(s, "virtio-vsock", 1);
    stream_bool(s, &started);
    if (!s->loading || s->error)
        return s->error;
    drop(vs, false);
    vs->started = vs->reset_event = started;
    virtio_config_put(v, 0, &vs->cid, sizeof(vs->cid));
    return 0;
}

static int vsock_open(struct virtio *v, const void *opaque, struct err *err)
{
    const struct virtio_vsock_conf *conf = opaque;
    struct vsock *vs = of(v);

    vs->cid = conf->cid;
    vs->patience_ns = conf->patience_ns ? conf->patience_ns : DEFAULT_PATIENCE;
    vs->most = conf->connections ? conf->connections : DEFAULT_MOST;
    vs->ready_tail = &vs->ready;
    v->features = F_STREAM;
    v->n_queues = N_QUEUES;
    virtio_config_put(v, 0, &vs->cid, sizeof(vs->cid));
    return vsock_host_open(vs, conf->path, err);
}

/* On the iothread. */
static void close_all(void *opaque)
{
    struct vsock *vs = opaque;

    vsock_host_close(vs);
    drop(vs, true);
}

static void vsock_close(struct virtio *v)
{
    iothread_call(v->io, close_all, of(v));
}

const struct virtio_type virtio_vsock_type = {
    .name = "vsock",
    .id = 19,
    .pci_class = 0x078000, /* communication controller, other */
    .size = sizeof(struct vsock),
    .open = vsock_open,
    .start = vsock_start,
    .notify = vsock_notify,
    .stop = vsock_stop,
    .reset = vsock_reset,
    .state = vsock_state,
    .close = vsock_close,
};
