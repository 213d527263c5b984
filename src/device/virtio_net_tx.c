/*
 * Frames from the guest (5.1.6.2). They go to the backend as the vectors in which they lie in the guest's memory, and each chain is given back when
 * the backend has returned: it has copied, written or dropped by then.
 */
#include "device/virtio_net_impl.h"

#define ETH_SIZE 14

/* The header that was read, made one that we go by: checked, and without what says nothing here. */
static bool check_header(const struct virtio_net *n, size_t len, struct net_header *h)
{
    if (!offload_check(h, len))
        return false;
    unsigned needs = offload_needs(h);
    if ((needs & NET_OFFLOAD_CSUM && !virtio_has(&n->v, VIRTIO_NET_F_CSUM)) ||
        (needs & NET_OFFLOAD_TSO4 && !virtio_has(&n->v, VIRTIO_NET_F_HOST_TSO4)) ||
        (needs & NET_OFFLOAD_TSO6 && !virtio_has(&n->v, VIRTIO_NET_F_HOST_TSO6)))
        return false;
    if (!needs)
        *h = (struct net_header){0};
    h->flags &= NET_HEADER_NEEDS_CSUM;
    if (h->hdr_len > len)
        h->hdr_len = (uint16_t)len;
    return true;
}

/* The vectors behind the header; they are the holder's to consume. */
static struct iovec *skip_header(struct virtq_elem *elem, unsigned *n)
{
    struct iovec *iov = elem->out;
    size_t skip = VIRTIO_NET_HEADER_SIZE;

    *n = elem->n_out;
    while (*n && iov->iov_len <= skip) {
        skip -= iov->iov_len;
        iov++;
        (*n)--;
    }
    if (*n) {
        iov->iov_base = (uint8_t *)iov->iov_base + skip;
        iov->iov_len -= skip;
    }
    return iov;
}

static void emit(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n)
{
    struct virtio_net *net = opaque;

    net_send(net->net, h, frame, n);
}

static void send_frame(struct virtio_net *n, struct virtq_elem *elem, size_t len, struct net_header *h, unsigned pair)
{
    unsigned n_iov;

    if (len < ETH_SIZE || len > NET_FRAME_MAX || !check_header(n, len, h)) {
        virtio_net_complain(n, "a frame whose header makes no sense");
        n->stats.tx_dropped++;
        return;
    }
    if (!n->cable || !n->peer) {
        n->stats.tx_dropped++;
        return;
    }
    struct iovec *frame = skip_header(elem, &n_iov);
    if (n->active_pairs > 1)
        n->flows[virtio_net_flow(frame, n_iov)] = (uint8_t)pair;
    n->stats.tx_frames++;
    n->stats.tx_bytes += len;
    if (!offload_adapt(n->net->offloads, h, frame, n_iov, &n->tx_scratch, emit, n)) {
        virtio_net_complain(n, "a frame that is not what its header says");
        n->stats.tx_dropped++;
    }
}

/* Frames as they count: what is cut into segments is as many. */
static uint64_t count_segments(const struct net_header *h, size_t len)
{
    return h->gso_type && h->gso_size ? (len + h->gso_size - 1) / h->gso_size : 1;
}

/* False when the limit is reached: the chain is back in its queue, and the timer runs. */
static bool pay(struct virtio_net *n, struct virtq *q, struct virtq_elem *elem, size_t len, const struct net_header *h,
                unsigned pair)
{
    if (!limiter_limits(&n->tx_limiter))
        return true;
    int64_t when = limiter_take(&n->tx_limiter, count_segments(h, len), len, loop_now());
    if (!when)
        return true;
    virtq_unpop(q, elem);
    n->tx_waiting |= 1u << pair;
    loop_timer_set(&n->tx_timer, when);
    return false;
}

static bool drain(struct virtio_net *n, struct virtq *q, unsigned pair)
{
    struct virtq_elem *elem;

    while ((elem = virtq_pop(q))) {
        size_t len = elem->out_len > VIRTIO_NET_HEADER_SIZE ? (size_t)elem->out_len - VIRTIO_NET_HEADER_SIZE : 0;
        struct net_header h = {0}; /* read once: what is paid for is what is sent */
        iov_read(elem->out, elem->n_out, 0, &h, sizeof(h));
        if (!pay(n, q, elem, len, &h, pair))
            return false;
        send_frame(n, elem, len, &h, pair);
        virtq_push(q, elem, 0);
    }
    return true;
}

void virtio_net_tx(struct virtio_net *n, unsigned pair)
{
    struct virtq *q = n->v.queues[2 * pair + 1];

    if (n->tx_waiting & 1u << pair)
        return;
    do
        virtq_disable_notify(q);
    while (drain(n, q, pair) && virtq_enable_notify(q));
    net_flush(n->net);
    virtq_signal(q);
}

void virtio_net_tx_again(void *opaque)
{
    struct virtio_net *n = opaque;
    uint32_t waiting = n->tx_waiting;

    n->tx_waiting = 0;
    for (; waiting && virtio_running(&n->v); waiting &= waiting - 1)
        virtio_net_tx(n, (unsigned)__builtin_ctz(waiting));
}

/* ---- flows ---- */

#define FLOW_BYTES 64 /* enough for tags, addresses and ports */

static uint32_t be32(const uint8_t *p)
{
    return __builtin_bswap32(load_le32(p));
}

/* Sums are the same with source and destination exchanged. */
static uint32_t flow_hash(const uint8_t *b, size_t len)
{
    size_t at = 12;
    uint32_t sum = 0;

    while (at + 4 <= len && b[at] == 0x81 && b[at + 1] == 0)
        at += 4;
    const uint8_t *ip = b + at + 2;
    size_t left = len > at + 2 ? len - at - 2 : 0, ports = 0;
    if (left >= 20 && b[at] == 0x08 && b[at + 1] == 0x00) {
        sum = be32(ip + 12) + be32(ip + 16) + ip[9];
        ports = (ip[9] == 6 || ip[9] == 17) && !(load_le16(ip + 6) & 0xff3f) ? (size_t)(ip[0] & 15) * 4 : 0;
    } else if (left >= 40 && b[at] == 0x86 && b[at + 1] == 0xdd) {
        for (unsigned i = 8; i < 40; i += 4)
            sum += be32(ip + i);
        sum += ip[6];
        ports = ip[6] == 6 || ip[6] == 17 ? 40 : 0;
    }
    if (ports && ports + 4 <= left)
        sum += (uint32_t)load_le16(ip + ports) + load_le16(ip + ports + 2);
    return sum * UINT32_C(0x9e3779b1);
}

unsigned virtio_net_flow(const struct iovec *frame, unsigned n)
{
    uint8_t b[FLOW_BYTES];

    return (flow_hash(b, offload_gather(frame, n, b, sizeof(b))) >> 16) & (VIRTIO_NET_FLOWS - 1);
}
