/*
 * A connection's bytes, both ways, and the credit for them. The guest's go to the host program at once, or as soon as it reads; the
 * host's are read into the guest's buffers. A half is over when whoever sent there says so: the guest with VIRTIO_VSOCK_OP_SHUTDOWN, the
 * host program with shutdown() or by going.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "device/vsock_impl.h"

#define VECTORS 64 /* of a call to the host; more are left to the next */

uint32_t vsock_data_credit(const struct vsock_conn *c)
{
    uint32_t under_way = c->to_guest - c->guest_forwarded;

    return under_way < c->guest_buffer ? c->guest_buffer - under_way : 0;
}

/* What the host has no use for any more. Both: the stream is over as soon as the guest confirms. */
static void host_shutdown(struct vsock_conn *c, unsigned halves)
{
    c->host_shutdown |= halves;
    vsock_conn_owe(c, 1 << VSOCK_OP_SHUTDOWN);
    if (c->host_shutdown == VSOCK_SHUTDOWN_BOTH)
        vsock_conn_close(c);
}

/* Nobody reads at the host's end any more. What is held is gone, and gives its credit back: the guest sends into the void, as on any socket. */
void vsock_data_left(struct vsock_conn *c)
{
    unsigned halves = VSOCK_SHUTDOWN_RECEIVE | (c->eof ? VSOCK_SHUTDOWN_SEND : 0);

    c->forwarded += c->held;
    c->held = 0;
    if (halves & ~c->host_shutdown)
        host_shutdown(c, halves);
}

/* All that the host sent is in the guest. */
static void host_finished(struct vsock_conn *c)
{
    struct pollfd p = {.fd = c->source.fd};
    bool gone = poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR);
    bool guest_done = c->guest_shutdown & VSOCK_SHUTDOWN_SEND && !c->held;

    c->eof = true;
    if (gone)
        c->forwarded += c->held;
    host_shutdown(c, VSOCK_SHUTDOWN_SEND | (gone || guest_done ? VSOCK_SHUTDOWN_RECEIVE : 0));
}

/* ---- from the guest to the host ---- */

/* Up to VECTORS vectors that are [off, off + len) of others; *len is what they hold. */
static unsigned slice(struct iovec *to, const struct iovec *from, unsigned n, size_t off, size_t *len)
{
    size_t left = *len;
    unsigned k = 0;

    for (unsigned i = 0; i < n && left && k < VECTORS; i++) {
        if (off >= from[i].iov_len) {
            off -= from[i].iov_len;
            continue;
        }
        size_t some = from[i].iov_len - off < left ? from[i].iov_len - off : left;
        to[k++] = (struct iovec){.iov_base = (uint8_t *)from[i].iov_base + off, .iov_len = some};
        left -= some;
        off = 0;
    }
    *len -= left;
    return k;
}

/* Bytes taken, -EAGAIN for none, or another -errno: nobody will take any. */
static ssize_t send_some(struct vsock_conn *c, struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;

    do {
        sent = sendmsg(c->source.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* Has the guest told how much more it may send, when it would run short: not for every few bytes. */
static void tell_credit(struct vsock_conn *c)
{
    uint32_t known = VSOCK_BUFFER - (c->from_guest - c->told), news = c->forwarded - c->told;

    if (known < VSOCK_BUFFER / 2 && news && (!c->held || news >= VSOCK_BUFFER / 4))
        vsock_conn_owe(c, 1 << VSOCK_OP_CREDIT_UPDATE);
}

/* The guest has no more for the host, and all of it is there. */
void vsock_data_close(struct vsock_conn *c)
{
    if (c->host_shutdown & VSOCK_SHUTDOWN_SEND)
        host_shutdown(c, VSOCK_SHUTDOWN_BOTH);
    else
        shutdown(c->source.fd, SHUT_WR);
}

/* Passes on what is held. May end a connection that lingers. */
void vsock_data_flush(struct vsock_conn *c)
{
    while (c->held) {
        uint32_t run = VSOCK_BUFFER - c->head < c->held ? VSOCK_BUFFER - c->head : c->held;
        struct iovec iov = {.iov_base = c->buffer + c->head, .iov_len = run};
        ssize_t sent = send_some(c, &iov, 1);
        if (sent == -EAGAIN)
            break;
        if (sent < 0 && c->state == VSOCK_OPEN)
            vsock_data_left(c);
        if (sent < 0)
            c->held = 0;
        if (sent <= 0)
            break;
        c->head = (c->head + (uint32_t)sent) % VSOCK_BUFFER;
        c->held -= (uint32_t)sent;
        c->forwarded += (uint32_t)sent;
    }
    if (c->state == VSOCK_LINGER && !c->held) {
        vsock_conn_free(c);
        return;
    }
    if (c->state != VSOCK_OPEN)
        return;
    if (!c->held && c->guest_shutdown & VSOCK_SHUTDOWN_SEND)
        vsock_data_close(c);
    if (c->state == VSOCK_OPEN)
        tell_credit(c);
}

/* Keeps payload for later. False: no memory. */
static bool hold(struct vsock_conn *c, const struct iovec *data, unsigned n, size_t skip, size_t len)
{
    if (!c->buffer)
        c->buffer = malloc(VSOCK_BUFFER);
    if (!c->buffer)
        return false;
    while (len) {
        uint32_t tail = (c->head + c->held) % VSOCK_BUFFER;
        size_t run = VSOCK_BUFFER - tail < len ? VSOCK_BUFFER - tail : len;
        iov_read(data, n, skip, c->buffer + tail, run);
        c->held += (uint32_t)run;
        skip += run;
        len -= run;
    }
    return true;
}

/* False: the guest broke its word, or there is no memory. */
bool vsock_data_take(struct vsock_conn *c, uint32_t len, const struct iovec *data, unsigned n, size_t skip)
{
    struct iovec iov[VECTORS];

    if (c->guest_shutdown & VSOCK_SHUTDOWN_SEND) {
        virtio_vsock_complain(c->vs, "sends on a stream that it has shut down");
        return false;
    }
    if (len > VSOCK_BUFFER - (c->from_guest - c->forwarded)) {
        virtio_vsock_complain(c->vs, "sends more than it has credit for");
        return false;
    }
    c->from_guest += len;
    while (len && !c->held && !(c->host_shutdown & VSOCK_SHUTDOWN_RECEIVE)) {
        size_t some = len;
        unsigned k = slice(iov, data, n, skip, &some);
        ssize_t sent = send_some(c, iov, k);
        if (sent == -EAGAIN)
            break;
        if (sent < 0) {
            vsock_data_left(c);
            break;
        }
        c->forwarded += (uint32_t)sent;
        skip += (size_t)sent;
        len -= (uint32_t)sent;
    }
    if (c->host_shutdown & VSOCK_SHUTDOWN_RECEIVE)
        c->forwarded += len;
    else if (len && !hold(c, data, n, skip, len))
        return false;
    if (c->state == VSOCK_OPEN)
        tell_credit(c);
    return true;
}

/* ---- from the host to the guest ---- */

static uint32_t write_header(struct vsock_conn *c, struct virtq_elem *elem, enum vsock_op op, uint32_t len)
{
    const struct vsock_header h = {.src_cid = VSOCK_HOST_CID,
                                   .dst_cid = c->vs->cid,
                                   .src_port = c->host_port,
                                   .dst_port = c->guest_port,
                                   .len = len,
                                   .type = VSOCK_TYPE_STREAM,
                                   .op = (uint16_t)op,
                                   .flags = op == VSOCK_OP_SHUTDOWN ? c->host_shutdown : 0,
                                   .buf_alloc = VSOCK_BUFFER,
                                   .fwd_cnt = c->forwarded};

    iov_write(elem->in, elem->n_in, 0, &h, sizeof(h));
    c->told = c->forwarded;
    c->owed &= ~(1U << op | 1U << VSOCK_OP_CREDIT_UPDATE); /* every packet tells of credit */
    return (uint32_t)sizeof(h) + len;
}

/* A packet of bytes, or 0: there are none, or the guest has no room for any. */
static uint32_t fill_data(struct vsock_conn *c, struct virtq_elem *elem)
{
    struct iovec iov[VECTORS];
    size_t room = elem->in_len - sizeof(struct vsock_header);

    room = room < vsock_data_credit(c) ? room : vsock_data_credit(c);
    room = room < VSOCK_PACKET_MAX ? room : VSOCK_PACKET_MAX;
    if (!room) {
        c->readable = false; /* the loop tells again when there is credit */
        if (!c->asked)
            vsock_conn_owe(c, 1 << VSOCK_OP_CREDIT_REQUEST);
        c->asked = true;
        return 0;
    }
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = slice(iov, elem->in, elem->n_in, sizeof(struct vsock_header), &room)};
    ssize_t n;
    do {
        n = recvmsg(c->source.fd, &msg, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        uint32_t len = write_header(c, elem, VSOCK_OP_RW, (uint32_t)n);
        c->to_guest += (uint32_t)n;
        c->readable = (size_t)n == room; /* a short read has taken all there was */
        return len;
    }
    c->readable = false;
    if (n == 0 || errno != EAGAIN)
        host_finished(c);
    return 0;
}

uint32_t vsock_data_fill(struct vsock_conn *c, struct virtq_elem *elem)
{
    /* In the order of a connection's life; bytes from the host go before what says that they have ended. */
    static const enum vsock_op first[] = {VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE},
                               last[] = {VSOCK_OP_CREDIT_REQUEST, VSOCK_OP_SHUTDOWN, VSOCK_OP_CREDIT_UPDATE};
    uint32_t len = 0;

    if (c->owed & 1 << VSOCK_OP_RST) {
        len = write_header(c, elem, VSOCK_OP_RST, 0);
        vsock_conn_free(c);
        return len;
    }
    for (size_t i = 0; i < ARRAY_SIZE(first) && !len; i++)
        if (c->owed & 1U << first[i])
            len = write_header(c, elem, first[i], 0);
    if (!len && c->readable)
        len = fill_data(c, elem);
    for (size_t i = 0; i < ARRAY_SIZE(last) && !len; i++)
        if (c->owed & 1U << last[i])
            len = write_header(c, elem, last[i], 0);
    /* To the end of the queue, behind the others that wait. */
    vsock_conn_unready(c);
    if (c->owed || c->readable)
        vsock_conn_ready(c);
    if (!c->readable) /* else at the end of the pump, when there is no room for all of it */
        vsock_conn_watch(c);
    return len;
}
