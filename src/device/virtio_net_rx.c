/*
 * Frames to the guest (5.1.6.3, 5.1.6.4). A frame is copied into as many of the guest's buffers as it takes. One that finds too few, or comes before
 * its turn under the limit, waits in the stash, and the backend is not ready to be read from until it has gone: what comes faster than the guest
 * takes it waits at its source.
 */
#include "device/virtio_net_impl.h"

#define PATIENCE_NS NS_PER_SEC /* a frame that needs more room than the guest gives is dropped then */

enum rx_result { RX_DONE, RX_WAITS, RX_TOO_LARGE };

/* Copies `len` bytes from one place in a frame's vectors to a chain's. */
struct source {
    const struct iovec *iov;
    size_t off; /* in the first vector */
};

static void copy_part(struct source *from, uint8_t *to, size_t len)
{
    while (len) {
        size_t part = from->iov->iov_len - from->off < len ? from->iov->iov_len - from->off : len;
        memcpy(to, (const uint8_t *)from->iov->iov_base + from->off, part);
        to += part;
        len -= part;
        from->off += part;
        if (from->off == from->iov->iov_len) {
            from->iov++;
            from->off = 0;
        }
    }
}

/* Fills a chain behind `skip` bytes; how much was stored there. */
static size_t fill(struct source *from, size_t left, const struct virtq_elem *elem, size_t skip)
{
    size_t done = 0;

    for (unsigned i = 0; i < elem->n_in && done < left; i++) {
        const struct iovec *iov = &elem->in[i];
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        size_t part = iov->iov_len - skip < left - done ? iov->iov_len - skip : left - done;
        copy_part(from, (uint8_t *)iov->iov_base + skip, part);
        done += part;
        skip = 0;
    }
    return done;
}

/* Pops chains with room for `need` bytes, one where buffers do not merge. How many; 0: there are too few, and a notification will tell of more. */
static unsigned gather(struct virtio_net *n, struct virtq *q, size_t need)
{
    bool merge = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
    unsigned count = 0;
    uint64_t room = 0;

    while (room < need && count < VIRTQ_SIZE_MAX && (merge || !count)) {
        struct virtq_elem *elem = virtq_pop(q);
        if (!elem && !virtq_enable_notify(q))
            break;
        if (!elem) {
            virtq_disable_notify(q);
            continue;
        }
        n->elems[count++] = elem;
        room += elem->in_len;
        if (elem->in_len < (merge ? VIRTIO_NET_HEADER_SIZE : VIRTIO_NET_HEADER_SIZE + 1u)) {
            virtq_break(q, "a receive buffer with no room for a header");
            break;
        }
    }
    if (room >= need)
        return count;
    while (count)
        virtq_unpop(q, n->elems[--count]);
    return 0;
}

/* The driver sees nothing that it has not asked for in the header. */
static void put_header(struct virtio_net *n, const struct net_header *h, const struct virtq_elem *elem,
                       unsigned buffers)
{
    uint8_t raw[VIRTIO_NET_HEADER_SIZE] = {0};
    unsigned takes = virtio_net_takes(n);

    if (takes && (h->flags || h->gso_type))
        memcpy(raw, h, sizeof(*h));
    raw[0] &= NET_HEADER_NEEDS_CSUM | NET_HEADER_DATA_VALID;
    store_le16(raw + sizeof(*h), (uint16_t)buffers);
    iov_write(elem->in, elem->n_in, 0, raw, sizeof(raw));
}

static enum rx_result receive(struct virtio_net *n, unsigned pair, const struct net_header *h,
                              const struct iovec *frame, size_t len)
{
    struct virtq *q = n->v.queues[2 * pair];
    struct source from = {frame, 0};
    size_t done = 0;

    unsigned count = gather(n, q, VIRTIO_NET_HEADER_SIZE + len);
    if (!count)
        return !virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF) && virtq_ready(q) ? RX_TOO_LARGE : RX_WAITS;
    put_header(n, h, n->elems[0], count);
    for (unsigned i = 0; i < count; i++) {
        size_t skip = i ? 0 : VIRTIO_NET_HEADER_SIZE;
        size_t part = fill(&from, len - done, n->elems[i], skip);
        n->written[i] = (uint32_t)(skip + part);
        done += part;
    }
    virtq_push_many(q, n->elems, n->written, count);
    n->rx_touched |= 1u << pair;
    n->stats.rx_frames++;
    n->stats.rx_bytes += len;
    return RX_DONE;
}

/* ---- waiting ---- */

static uint64_t count_segments(const struct net_header *h, size_t len)
{
    return h->gso_type && h->gso_size ? (len + h->gso_size - 1) / h->gso_size : 1;
}

/* When a frame may go on; 0: now. */
static int64_t pay(struct virtio_net *n, const struct net_header *h, size_t len)
{
    return limiter_limits(&n->rx_limiter) ? limiter_take(&n->rx_limiter, count_segments(h, len), len, loop_now()) : 0;
}

static void keep(struct virtio_net *n, unsigned pair, const struct net_header *h, const struct iovec *frame,
                 unsigned n_iov, int64_t when)
{
    struct virtio_net_stash *s = &n->stash;
    int64_t now = loop_now();

    if (s->full) {
        n->stats.rx_dropped++;
        return;
    }
    s->full = true;
    s->header = *h;
    s->len = offload_gather(frame, n_iov, s->frame, sizeof(s->frame));
    s->pair = pair;
    s->paid = !when;
    s->since = when ? when : now;
    loop_timer_set(&n->rx_timer, when ? when : now + PATIENCE_NS);
}

/* Tries the frame that waits. */
static void retry(struct virtio_net *n)
{
    struct virtio_net_stash *s = &n->stash;
    const struct iovec frame = {s->frame, s->len};

    if (!s->full || !virtio_running(&n->v))
        return;
    if (!s->paid) {
        int64_t when = pay(n, &s->header, s->len);
        if (when) {
            loop_timer_set(&n->rx_timer, when);
            return;
        }
        s->paid = true;
        s->since = loop_now();
    }
    enum rx_result result = receive(n, s->pair, &s->header, &frame, s->len);
    if (result == RX_WAITS && loop_now() - s->since < PATIENCE_NS) {
        loop_timer_set(&n->rx_timer, s->since + PATIENCE_NS);
        return;
    }
    n->stats.rx_dropped += result != RX_DONE;
    s->full = false;
    loop_timer_cancel(&n->rx_timer);
}

static void signal_guest(struct virtio_net *n)
{
    for (; n->rx_touched; n->rx_touched &= n->rx_touched - 1)
        virtq_signal(n->v.queues[2 * (unsigned)__builtin_ctz(n->rx_touched)]);
}

static void go_on(struct virtio_net *n)
{
    bool waited = n->stash.full;

    retry(n);
    if (n->stash.full)
        return;
    if (waited)
        signal_guest(n);
    net_resume(n->net);
}

void virtio_net_rx(struct virtio_net *n, unsigned pair)
{
    virtq_disable_notify(n->v.queues[2 * pair]);
    go_on(n);
}

void virtio_net_rx_again(void *opaque)
{
    struct virtio_net *n = opaque;

    if (virtio_running(&n->v))
        go_on(n);
}

/* ---- what the backend calls ---- */

/* Who is not there takes anything, and loses it: a backend is not held up by a guest that has not come so far. */
static bool on_ready(void *opaque)
{
    struct virtio_net *n = opaque;

    if (!virtio_running(&n->v))
        return !n->paused;
    if (n->stash.full)
        return false;
    if (n->active_pairs > 1 || !virtio_queue_enabled(&n->v, 0))
        return true;
    struct virtq *q = n->v.queues[0];
    if (virtq_ready(q))
        return true;
    if (!virtq_enable_notify(q))
        return false;
    virtq_disable_notify(q);
    return true;
}

static unsigned choose_pair(struct virtio_net *n, const struct iovec *frame, unsigned n_iov)
{
    if (n->active_pairs < 2)
        return 0;
    unsigned flow = virtio_net_flow(frame, n_iov), pair = n->flows[flow];
    return pair < n->active_pairs ? pair : 0;
}

static void pass(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n_iov)
{
    struct virtio_net *n = opaque;
    unsigned pair = choose_pair(n, frame, n_iov);
    size_t len = offload_length(frame, n_iov);

    if (!virtio_queue_enabled(&n->v, 2 * pair)) {
        n->stats.rx_dropped++;
        return;
    }
    int64_t when = n->stash.full ? 1 : pay(n, h, len);
    enum rx_result result = when ? RX_WAITS : receive(n, pair, h, frame, len);
    if (result == RX_WAITS)
        keep(n, pair, h, frame, n_iov, when);
    n->stats.rx_dropped += result == RX_TOO_LARGE;
}

static void on_deliver(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n_iov)
{
    struct virtio_net *n = opaque;

    if (!virtio_running(&n->v) || !n->cable || !n->peer || !offload_check(h, offload_length(frame, n_iov))) {
        n->stats.rx_dropped++;
        return;
    }
    if (!virtio_net_filter_passes(n, frame, n_iov))
        return;
    if (!offload_adapt(virtio_net_takes(n), h, frame, n_iov, &n->rx_scratch, pass, n))
        n->stats.rx_dropped++;
}

static void on_flush(void *opaque)
{
    signal_guest(opaque);
}

const struct net_receiver virtio_net_receiver = {.ready = on_ready, .deliver = on_deliver, .flush = on_flush};
