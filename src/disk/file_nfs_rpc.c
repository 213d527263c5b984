#include "disk/file_nfs_rpc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* RFC 5531 sections 8.2 and 9; RFC 7530 section 3.1. */
enum { CALL = 0, REPLY = 1, RPC_VERSION = 2, AUTH_NONE = 0, AUTH_SYS = 1, ACCEPTED = 0, SUCCESS = 0 };
enum { NFS_PROGRAM = 100003, NFS_VERSION = 4, PROC_COMPOUND = 1 };
#define LAST_FRAGMENT UINT32_C(0x80000000)
#define MACHINE       "vireo"

/* ---- the socket ---- */

static int connect_to(struct file_nfs_rpc *rpc, struct file_net_conn *conn, const struct addrinfo *ai, int64_t deadline)
{
    const int on = 1;
    int error = 0;
    socklen_t len = sizeof(error);

    rpc->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (rpc->fd < 0)
        return -errno;
    setsockopt(rpc->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(rpc->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (connect(rpc->fd, ai->ai_addr, ai->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    int r = file_net_poll(conn, rpc->fd, POLLOUT, deadline);
    if (r < 0)
        return r;
    if (getsockopt(rpc->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    return -error;
}

int file_nfs_rpc_connect(struct file_nfs_rpc *rpc, struct file_net_conn *conn, const char *host, const char *port,
                         int64_t deadline, struct err *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list;

    rpc->uid = geteuid();
    rpc->gid = getegid();
    rpc->xid = (uint32_t)file_net_identity(conn) ^ (uint32_t)loop_now();
    int r = getaddrinfo(host, port, &hints, &list);
    if (r != 0)
        return err_set(err, -EHOSTUNREACH, "host '%.100s': %s", host, gai_strerror(r));
    r = -EHOSTUNREACH;
    for (const struct addrinfo *ai = list; ai && r < 0 && r != -ECANCELED; ai = ai->ai_next) {
        if (rpc->fd >= 0)
            close(rpc->fd);
        r = connect_to(rpc, conn, ai, deadline);
    }
    freeaddrinfo(list);
    return r < 0 ? err_set(err, r, "connect: %s", strerror(-r)) : 0;
}

void file_nfs_rpc_close(struct file_nfs_rpc *rpc)
{
    if (rpc->fd >= 0)
        close(rpc->fd);
    rpc->fd = -1;
    free(rpc->out);
    free(rpc->in);
    rpc->out = rpc->in = NULL;
}

/* ---- a call ---- */

static bool reserve(uint8_t **buf, size_t *capacity, size_t len)
{
    if (len <= *capacity)
        return true;
    size_t more = *capacity * 2 > len ? *capacity * 2 : len + 4096;
    uint8_t *grown = realloc(*buf, more);
    if (!grown)
        return false;
    *buf = grown;
    *capacity = more;
    return true;
}

void file_nfs_rpc_put(struct file_nfs_rpc *rpc, const void *data, size_t len, bool fixed)
{
    size_t padded = align_up(len, 4);

    if (!fixed)
        file_nfs_rpc_put32(rpc, (uint32_t)len);
    if (rpc->failed || !reserve(&rpc->out, &rpc->out_capacity, rpc->out_len + padded)) {
        rpc->failed = true;
        return;
    }
    if (len)
        memcpy(rpc->out + rpc->out_len, data, len);
    memset(rpc->out + rpc->out_len + len, 0, padded - len);
    rpc->out_len += padded;
}

void file_nfs_rpc_put32(struct file_nfs_rpc *rpc, uint32_t v)
{
    v = htonl(v);
    file_nfs_rpc_put(rpc, &v, 4, true);
}

void file_nfs_rpc_put64(struct file_nfs_rpc *rpc, uint64_t v)
{
    file_nfs_rpc_put32(rpc, (uint32_t)(v >> 32));
    file_nfs_rpc_put32(rpc, (uint32_t)v);
}

uint32_t file_nfs_rpc_begin(struct file_nfs_rpc *rpc)
{
    if (rpc->sent && rpc->sent == rpc->out_len)
        rpc->sent = rpc->out_len = 0;
    rpc->call = rpc->out_len;
    rpc->n_ops = 0;
    rpc->failed = false;
    const uint32_t header[] = {0, ++rpc->xid, CALL, RPC_VERSION, NFS_PROGRAM, NFS_VERSION, PROC_COMPOUND, AUTH_SYS};
    for (size_t i = 0; i < ARRAY_SIZE(header); i++)
        file_nfs_rpc_put32(rpc, header[i]);
    /* RFC 5531 appendix A: stamp, machine, uid, gid, more gids. */
    file_nfs_rpc_put32(rpc, 4 + 4 + align_up(sizeof(MACHINE) - 1, 4) + 12);
    file_nfs_rpc_put32(rpc, 0);
    file_nfs_rpc_put(rpc, MACHINE, sizeof(MACHINE) - 1, false);
    const uint32_t rest[] = {rpc->uid, rpc->gid, 0, AUTH_NONE, 0, 0 /* tag */, 0 /* minor version */};
    for (size_t i = 0; i < ARRAY_SIZE(rest); i++)
        file_nfs_rpc_put32(rpc, rest[i]);
    rpc->n_ops_at = rpc->out_len;
    file_nfs_rpc_put32(rpc, 0);
    return rpc->xid;
}

void file_nfs_rpc_op(struct file_nfs_rpc *rpc, uint32_t op)
{
    rpc->n_ops++;
    file_nfs_rpc_put32(rpc, op);
}

int file_nfs_rpc_end(struct file_nfs_rpc *rpc)
{
    if (rpc->failed) {
        rpc->out_len = rpc->call;
        return -ENOMEM;
    }
    uint32_t mark = htonl(LAST_FRAGMENT | (uint32_t)(rpc->out_len - rpc->call - 4)), n = htonl(rpc->n_ops);
    memcpy(rpc->out + rpc->call, &mark, 4);
    memcpy(rpc->out + rpc->n_ops_at, &n, 4);
    return 0;
}

bool file_nfs_rpc_sending(const struct file_nfs_rpc *rpc)
{
    return rpc->sent < rpc->out_len;
}

int file_nfs_rpc_send(struct file_nfs_rpc *rpc)
{
    while (file_nfs_rpc_sending(rpc)) {
        ssize_t n = send(rpc->fd, rpc->out + rpc->sent, rpc->out_len - rpc->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        rpc->sent += (size_t)n;
    }
    return 0;
}

/* ---- a reply ---- */

const uint8_t *file_nfs_rpc_get(struct file_nfs_reader *r, uint32_t *len, bool fixed)
{
    uint32_t n = fixed ? *len : file_nfs_rpc_get32(r);
    size_t left = (size_t)(r->end - r->at);
    const uint8_t *at = r->at;

    *len = 0;
    if (r->bad || n > left || align_up(n, 4) > left) {
        r->bad = true;
        return NULL;
    }
    r->at += align_up(n, 4);
    *len = n;
    return at;
}

uint32_t file_nfs_rpc_get32(struct file_nfs_reader *r)
{
    uint32_t v, len = 4;
    const uint8_t *at = file_nfs_rpc_get(r, &len, true);

    if (!at)
        return 0;
    memcpy(&v, at, 4);
    return ntohl(v);
}

uint64_t file_nfs_rpc_get64(struct file_nfs_reader *r)
{
    uint64_t high = file_nfs_rpc_get32(r);
    return high << 32 | file_nfs_rpc_get32(r);
}

uint32_t file_nfs_rpc_result(struct file_nfs_reader *r, uint32_t op)
{
    uint32_t got = file_nfs_rpc_get32(r), status = file_nfs_rpc_get32(r);

    r->bad = r->bad || got != op;
    return r->bad ? 0 : status;
}

/* Up to `len` bytes: how many, 0 if there are none now. */
static ssize_t take(struct file_nfs_rpc *rpc, void *buf, size_t len)
{
    for (;;) {
        ssize_t n = recv(rpc->fd, buf, len, MSG_DONTWAIT);
        if (n > 0)
            return n;
        if (n == 0) {
            rpc->why = "the server has closed it";
            return -ECONNRESET;
        }
        if (errno != EINTR)
            return errno == EAGAIN ? 0 : -errno;
    }
}

/* 1 when the message is whole. */
static int fill(struct file_nfs_rpc *rpc)
{
    for (;;) {
        ssize_t n;
        if (rpc->fragment == 0) {
            n = take(rpc, rpc->mark + rpc->mark_len, 4 - rpc->mark_len);
            if (n <= 0)
                return (int)n;
            rpc->mark_len += (unsigned)n;
            if (rpc->mark_len < 4)
                continue;
            uint32_t mark;
            memcpy(&mark, rpc->mark, 4);
            mark = ntohl(mark);
            rpc->mark_len = 0;
            rpc->last = mark & LAST_FRAGMENT;
            rpc->fragment = mark & ~LAST_FRAGMENT;
            if (rpc->fragment > FILE_NFS_RPC_MESSAGE_MAX - rpc->in_len || (!rpc->fragment && !rpc->last)) {
                rpc->why = "the server sends a reply of a size that none has";
                return -EPROTO;
            }
            if (!reserve(&rpc->in, &rpc->in_capacity, rpc->in_len + rpc->fragment + 1))
                return -ENOMEM;
        }
        n = rpc->fragment ? take(rpc, rpc->in + rpc->in_len, rpc->fragment) : 0;
        if (n < 0 || (n == 0 && rpc->fragment))
            return (int)n;
        rpc->in_len += (size_t)n;
        rpc->fragment -= (uint32_t)n;
        if (rpc->fragment == 0 && rpc->last)
            return 1;
    }
}

int file_nfs_rpc_receive(struct file_nfs_rpc *rpc, uint32_t *xid, uint32_t *status, struct file_nfs_reader *r)
{
    uint32_t len;
    int done = fill(rpc);

    if (done <= 0)
        return done;
    *r = (struct file_nfs_reader){.at = rpc->in, .end = rpc->in + rpc->in_len};
    rpc->in_len = 0;
    *xid = file_nfs_rpc_get32(r);
    uint32_t direction = file_nfs_rpc_get32(r), accepted = file_nfs_rpc_get32(r);
    if (direction != REPLY || accepted != ACCEPTED) {
        rpc->why = direction != REPLY ? "the server sends what is no reply" : "the server does not accept AUTH_SYS";
        return direction != REPLY ? -EPROTO : -EACCES;
    }
    file_nfs_rpc_get32(r);
    file_nfs_rpc_get(r, &len, false);
    if (file_nfs_rpc_get32(r) != SUCCESS || r->bad) {
        rpc->why = "the server does not speak NFS version 4";
        return -EPROTONOSUPPORT;
    }
    *status = file_nfs_rpc_get32(r);
    file_nfs_rpc_get(r, &len, false);
    file_nfs_rpc_get32(r);
    return r->bad ? -EPROTO : 1;
}
