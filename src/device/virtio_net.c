#include "device/virtio_net.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "device/virtio_net_impl.h"

static struct virtio_net *of(struct virtio *v)
{
    return CONTAINER_OF(v, struct virtio_net, v);
}

void virtio_net_complain(struct virtio_net *n, const char *what)
{
    if (!n->complained)
        log_warn("%s: the guest's driver sends %s; it is dropped", n->v.name, what);
    n->complained = true;
}

/* ---- the link ---- */

static void put_status(struct virtio_net *n)
{
    uint8_t status[2];

    store_le16(status, n->cable && n->peer ? VIRTIO_NET_S_LINK_UP : 0);
    virtio_config_put(&n->v, VIRTIO_NET_CONFIG_STATUS, status, sizeof(status));
}

static void change_link(struct virtio_net *n, bool *end, bool up)
{
    bool was = n->cable && n->peer;

    *end = up;
    if ((n->cable && n->peer) == was)
        return;
    put_status(n);
    virtio_config_changed(&n->v);
}

static void on_link(void *opaque, bool up)
{
    struct virtio_net *n = opaque;

    change_link(n, &n->peer, up);
}

struct link_call {
    struct virtio_net *n;
    bool up;
};

static void do_set_link(void *opaque)
{
    struct link_call *call = opaque;

    change_link(call->n, &call->n->cable, call->up);
}

void virtio_net_set_link(struct virtio *v, bool up)
{
    struct link_call call = {of(v), up};

    iothread_call(v->io, do_set_link, &call);
}

static void do_get_link(void *opaque)
{
    struct link_call *call = opaque;

    call->up = call->n->cable && call->n->peer;
}

bool virtio_net_link(struct virtio *v)
{
    struct link_call call = {of(v), false};

    iothread_call(v->io, do_get_link, &call);
    return call.up;
}

/* ---- what others ask ---- */

struct stats_call {
    struct virtio_net *n;
    struct virtio_net_stats stats;
    uint8_t mac[6];
};

static void do_stats(void *opaque)
{
    struct stats_call *call = opaque;

    call->stats = call->n->stats;
    call->stats.tx_dropped += call->n->net->dropped;
    memcpy(call->mac, call->n->mac, sizeof(call->mac));
}

void virtio_net_stats(struct virtio *v, struct virtio_net_stats *stats)
{
    struct stats_call call = {.n = of(v)};

    iothread_call(v->io, do_stats, &call);
    *stats = call.stats;
}

void virtio_net_mac(struct virtio *v, uint8_t mac[6])
{
    struct stats_call call = {.n = of(v)};

    iothread_call(v->io, do_stats, &call);
    memcpy(mac, call.mac, sizeof(call.mac));
}

/* ---- the life of an interface ---- */

unsigned virtio_net_takes(const struct virtio_net *n)
{
    if (!(n->offloads & VIRTIO_NET_F_GUEST_CSUM))
        return 0;
    return NET_OFFLOAD_CSUM | (n->offloads & VIRTIO_NET_F_GUEST_TSO4 ? NET_OFFLOAD_TSO4 : 0u) |
           (n->offloads & VIRTIO_NET_F_GUEST_TSO6 ? NET_OFFLOAD_TSO6 : 0u);
}

/* Without VIRTIO_NET_F_MQ there is one pair, whatever the device has, and the control queue follows it (5.1.2). */
static unsigned usable_pairs(const struct virtio_net *n)
{
    return virtio_has(&n->v, VIRTIO_NET_F_MQ) ? n->pairs : 1;
}

static void net_start(struct virtio *v)
{
    struct virtio_net *n = of(v);

    if (!n->configured) {
        n->offloads = v->driver_features & (VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 |
                                            VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_GUEST_ECN);
        n->filter.vlan_filter = virtio_has(v, VIRTIO_NET_F_CTRL_VLAN);
        n->active_pairs = 1;
    }
    n->configured = true;
    n->paused = false;
    net_set_offloads(n->net, virtio_net_takes(n));
    for (unsigned i = 0; i < usable_pairs(n); i++)
        if (virtio_queue_enabled(v, 2 * i))
            virtq_disable_notify(v->queues[2 * i]); /* until buffers are missing */
    net_resume(n->net);
}

static void net_notify(struct virtio *v, unsigned queue)
{
    struct virtio_net *n = of(v);
    unsigned pairs = usable_pairs(n);

    if (queue == 2 * pairs)
        virtio_net_ctrl(n, v->queues[queue]);
    else if (queue < 2 * pairs && queue & 1)
        virtio_net_tx(n, queue / 2);
    else if (queue < 2 * pairs)
        virtio_net_rx(n, queue / 2);
}

/* Nothing is held between callbacks. */
static void net_stop(struct virtio *v)
{
    struct virtio_net *n = of(v);

    loop_timer_cancel(&n->tx_timer);
    loop_timer_cancel(&n->rx_timer);
    n->tx_waiting = 0;
    n->paused = true;
    virtio_stopped(v);
}

static void net_reset(struct virtio *v)
{
    struct virtio_net *n = of(v);

    n->paused = n->configured = n->complained = n->stash.full = false;
    n->active_pairs = 1;
    n->offloads = 0;
    n->rx_touched = 0;
    memset(n->flows, 0, sizeof(n->flows));
    memcpy(n->mac, n->first_mac, sizeof(n->mac));
    virtio_config_put(v, VIRTIO_NET_CONFIG_MAC, n->mac, sizeof(n->mac));
    virtio_net_filter_reset(n);
    net_set_offloads(n->net, 0);
    net_resume(n->net);
}

static int net_state(struct virtio *v, struct stream *s)
{
    struct virtio_net *n = of(v);
    uint16_t active = (uint16_t)n->active_pairs;

    stream_section(s, "virtio-net", 1);
    stream_bool(s, &n->configured);
    stream_bool(s, &n->cable);
    stream_u16(s, &active);
    stream_u64(s, &n->offloads);
    stream_bytes(s, n->mac, sizeof(n->mac));
    virtio_net_filter_state(n, s);
    if (!s->loading)
        return s->error;
    if (!s->error && (active < 1 || active > n->pairs || n->offloads & ~v->features))
        s->error = -EPROTO;
    if (s->error) {
        net_reset(v);
        return s->error;
    }
    n->active_pairs = active;
    n->stash.full = false;
    virtio_config_put(v, VIRTIO_NET_CONFIG_MAC, n->mac, sizeof(n->mac));
    put_status(n);
    return 0;
}

/* ---- open, close ---- */

struct open_call {
    struct virtio_net *n;
    const struct virtio_net_conf *conf;
    struct err *err;
    int result;
};

static void do_open(void *opaque)
{
    struct open_call *call = opaque;
    struct virtio_net *n = call->n;
    struct net_receiver receiver = virtio_net_receiver;

    call->result =
        (call->conf->plug ? call->conf->plug : net_open)(&n->net, call->conf->spec, n->v.io->loop, call->err);
    if (call->result < 0)
        return;
    receiver.link = on_link;
    receiver.opaque = n;
    net_connect(n->net, &receiver);
}

/* What the backend does not take is done here, so it is offered all the same. */
static uint64_t offered(const struct virtio_net *n)
{
    return VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | VIRTIO_NET_F_MAC |
           VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_HOST_TSO4 |
           VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_STATUS |
           VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_CTRL_RX_EXTRA |
           VIRTIO_NET_F_CTRL_MAC_ADDR | (n->net->mtu ? VIRTIO_NET_F_MTU : 0) | (n->pairs > 1 ? VIRTIO_NET_F_MQ : 0);
}

static int net_type_open(struct virtio *v, const void *opaque, struct err *err)
{
    const struct virtio_net_conf *conf = opaque;
    const struct net_spec *spec = conf->spec;
    struct virtio_net *n = of(v);
    struct open_call call = {n, conf, err, 0};
    uint8_t word[2];

    n->pairs = spec->queue_pairs ? spec->queue_pairs : 1;
    n->cable = n->peer = true;
    memcpy(n->first_mac, conf->mac, sizeof(n->first_mac));
    limiter_init(&n->tx_limiter, spec->pps, spec->pps_burst, spec->bps, spec->bps_burst);
    limiter_init(&n->rx_limiter, spec->pps, spec->pps_burst, spec->bps, spec->bps_burst);
    loop_timer_init(&n->tx_timer, v->io->loop, virtio_net_tx_again, n);
    loop_timer_init(&n->rx_timer, v->io->loop, virtio_net_rx_again, n);
    virtio_net_filter_reset(n);
    iothread_call(v->io, do_open, &call);
    if (call.result < 0)
        return call.result;
    v->features = offered(n);
    v->n_queues = 2 * n->pairs + 1;
    memcpy(n->mac, n->first_mac, sizeof(n->mac));
    virtio_config_put(v, VIRTIO_NET_CONFIG_MAC, n->mac, sizeof(n->mac));
    put_status(n);
    store_le16(word, (uint16_t)n->pairs);
    virtio_config_put(v, VIRTIO_NET_CONFIG_PAIRS, word, sizeof(word));
    store_le16(word, n->net->mtu);
    virtio_config_put(v, VIRTIO_NET_CONFIG_MTU, word, sizeof(word));
    return 0;
}

static void do_close(void *opaque)
{
    struct virtio_net *n = opaque;

    loop_timer_cancel(&n->tx_timer);
    loop_timer_cancel(&n->rx_timer);
    net_close(n->net);
}

static void net_type_close(struct virtio *v)
{
    iothread_call(v->io, do_close, of(v));
}

const struct virtio_type virtio_net_type = {
    .name = "virtio-net",
    .id = 1,
    .pci_class = 0x020000, /* an Ethernet controller */
    .size = sizeof(struct virtio_net),
    .open = net_type_open,
    .start = net_start,
    .notify = net_notify,
    .stop = net_stop,
    .reset = net_reset,
    .state = net_state,
    .close = net_type_close,
};
