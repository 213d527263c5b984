/*
 * NBD, through libnbd: nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, and the same over TLS with nbds (the NBD project's uri.md and proto.md).
 *
 * Flushes are NBD_CMD_FLUSH; a server that has none but has FUA is asked for that with each write. What it has is mapped by the context
 * base:allocation. There is no lock: a server that lets several clients write trusts them to agree.
 *
 * On the file's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/file_net.h"
#include "disk/libraries.h"

#define MAX_TRANSFER (32 * MIB) /* proto.md, "Block size constraints": what a server takes that says nothing */
#define MAX_RANGE    (1 * GIB)  /* lengths are 32 bits wide */
#define ALLOCATION   "base:allocation"

enum { STATE_HOLE = 1 << 0, STATE_ZERO = 1 << 1 };

struct nbd {
    struct file_net_conn conn;
    struct nbd_handle *handle;
    bool flushes, fua;
    int spare; /* the socket once more, as libnbd closes its own whenever it likes; -1: none */
    char why[256];
};

static struct nbd *nbd_of(struct file_net_conn *conn)
{
    return CONTAINER_OF(conn, struct nbd, conn);
}

/* libnbd's message, without the name of the call in front. */
static const char *message(void)
{
    const char *text = nbd_get_error();
    const char *colon = text && strncmp(text, "nbd_", 4) == 0 ? strstr(text, ": ") : NULL;

    return colon ? colon + 2 : text ? text : "unknown error";
}

static int gone(struct nbd *nbd)
{
    snprintf(nbd->why, sizeof(nbd->why), "%s", message());
    return -ENOTCONN;
}

static const char *why(struct file_net_conn *conn)
{
    struct nbd *nbd = nbd_of(conn);
    return *nbd->why ? nbd->why : NULL;
}

/* ---- life ---- */

static int nbd_fd(struct file_net_conn *conn, short *events)
{
    struct nbd *nbd = nbd_of(conn);
    unsigned direction = nbd_aio_get_direction(nbd->handle);

    *events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                      (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    return nbd_aio_get_fd(nbd->handle);
}

static int nbd_service(struct file_net_conn *conn, short events)
{
    struct nbd *nbd = nbd_of(conn);
    unsigned direction = nbd_aio_get_direction(nbd->handle);
    int r = 0;

    if ((events & (POLLIN | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_READ))
        r = nbd_aio_notify_read(nbd->handle);
    else if ((events & (POLLOUT | POLLHUP | POLLERR)) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
        r = nbd_aio_notify_write(nbd->handle);
    if (r < 0)
        return gone(nbd);
    if (nbd_aio_is_dead(nbd->handle) || nbd_aio_is_closed(nbd->handle)) {
        snprintf(nbd->why, sizeof(nbd->why), "the server has closed it");
        return -ENOTCONN;
    }
    return 0;
}

static int set_up(struct nbd *nbd)
{
    struct nbd_handle *h = nbd->handle;

    if (nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
        nbd_set_uri_allow_local_file(h, true) < 0)
        return -1;
    return nbd_add_meta_context(h, ALLOCATION);
}

static int connect_nbd(struct nbd *nbd, const char *path, int64_t deadline, struct err *err)
{
    if (set_up(nbd) < 0 || nbd_aio_connect_uri(nbd->handle, path) < 0)
        return err_set(err, nbd_get_errno() ? -nbd_get_errno() : -EIO, "%.300s", message());
    while (nbd_aio_is_connecting(nbd->handle)) {
        short events;
        int fd = nbd_fd(&nbd->conn, &events);
        int r = file_net_poll(&nbd->conn, fd, events, deadline);
        if (r < 0)
            return err_set(err, r, "the server does not answer: %s", strerror(-r));
        if (nbd_service(&nbd->conn, (short)r) < 0)
            return err_set(err, nbd_get_errno() ? -nbd_get_errno() : -EIO, "%.300s", nbd->why);
    }
    if (!nbd_aio_is_ready(nbd->handle))
        return err_set(err, -EIO, "%.300s", *nbd->why ? nbd->why : message());
    return 0;
}

static int nbd_open(struct file_net_conn *conn, const char *path, int64_t deadline, struct err *err)
{
    struct nbd *nbd = nbd_of(conn);
    struct file_net_props *p = &conn->props;

    nbd->spare = -1;
    int r = libraries_load_nbd(err);
    if (r < 0)
        return r;
    nbd->handle = nbd_create();
    if (!nbd->handle)
        return err_set(err, -ENOMEM, "%.300s", message());
    r = connect_nbd(nbd, path, deadline, err);
    if (r < 0)
        return r;
    nbd->spare = fcntl(nbd_aio_get_fd(nbd->handle), F_DUPFD_CLOEXEC, 0);
    if (nbd->spare < 0)
        return err_set(err, -errno, "the connection's descriptor: %s", strerror(errno));
    int64_t size = nbd_get_size(nbd->handle);
    int64_t block = nbd_get_block_size(nbd->handle, LIBNBD_SIZE_MINIMUM);
    int64_t most = nbd_get_block_size(nbd->handle, LIBNBD_SIZE_MAXIMUM);
    if (size < 0)
        return err_set(err, -EINVAL, "the export's size: %.300s", message());
    nbd->flushes = nbd_can_flush(nbd->handle) == 1;
    nbd->fua = !nbd->flushes && nbd_can_fua(nbd->handle) == 1;
    p->size = (uint64_t)size;
    p->block = block > 0 && block <= UINT32_MAX ? (uint32_t)block : block == 0 ? 1 : 0;
    p->max_transfer = most > 0 && most < (int64_t)MAX_TRANSFER ? (uint32_t)most : (uint32_t)MAX_TRANSFER;
    p->max_range = MAX_RANGE;
    p->read_only = nbd_is_read_only(nbd->handle) != 0;
    p->volatile_cache = nbd->flushes;
    p->discards = nbd_can_trim(nbd->handle) == 1;
    p->zeroes = nbd_can_zero(nbd->handle) == 1;
    p->maps = nbd_can_meta_context(nbd->handle, ALLOCATION) == 1;
    return 0;
}

static void nbd_close_conn(struct file_net_conn *conn)
{
    struct nbd *nbd = nbd_of(conn);

    nbd_close(nbd->handle);
    if (nbd->spare >= 0)
        close(nbd->spare);
}

/* The server reads what it has got, finds the end, and closes. One that has gone is found out by probes, if nothing else does. */
static int nbd_fence(struct file_net_conn *conn)
{
    struct nbd *nbd = nbd_of(conn);
    const int on = 1, seconds = 5, probes = 4, unanswered_ms = 30000;
    int fd = nbd->spare;

    nbd->spare = -1;
    if (fd < 0)
        return -1;
    shutdown(fd, SHUT_WR);
    /* Of TCP; a Unix socket has none of them. */
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof(unanswered_ms));
    return fd;
}

/* ---- calls ---- */

static int on_done(void *opaque, int *error)
{
    bool broken = *error == ENOTCONN || *error == ESHUTDOWN || *error == ECONNRESET;

    file_net_done(opaque, broken ? -ENOTCONN : -*error);
    return 1; /* libnbd need not keep it */
}

/* Lengths and flags by turns, from the range's start on; the last may go beyond its end (proto.md, NBD_CMD_BLOCK_STATUS). */
static int on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n, int *error)
{
    struct file_net_piece *piece = opaque;
    uint64_t at = piece->offset, end = piece->offset + piece->len;
    unsigned i = 0;

    if (strcmp(context, ALLOCATION) != 0)
        return 0;
    for (size_t e = 0; e + 1 < n && at < end && i < piece->n_extents; e += 2) {
        uint64_t len = entries[e] < end - at ? entries[e] : end - at;
        bool zero = entries[e + 1] & STATE_ZERO, hole = entries[e + 1] & STATE_HOLE;
        if (len == 0)
            break;
        piece->extents[i++] = (struct disk_extent){.kind = !zero  ? DISK_EXTENT_DATA
                                                           : hole ? DISK_EXTENT_HOLE
                                                                  : DISK_EXTENT_ZERO,
                                                   .offset = at,
                                                   .len = len};
        at += len;
    }
    piece->n_extents = i;
    return 0;
}

static int64_t send_piece(struct nbd *nbd, struct file_net_piece *piece)
{
    const nbd_completion_callback done = {.callback = on_done, .user_data = piece};
    const nbd_extent_callback extents = {.callback = on_extents, .user_data = piece};
    struct nbd_handle *h = nbd->handle;
    uint32_t fua = nbd->fua ? LIBNBD_CMD_FLAG_FUA : 0;

    switch (piece->kind) {
    case FILE_NET_READ:
        return nbd_aio_pread(h, piece->buf, piece->len, piece->offset, done, 0);
    case FILE_NET_WRITE:
        return nbd_aio_pwrite(h, piece->buf, piece->len, piece->offset, done, fua);
    case FILE_NET_FLUSH:
        return nbd_aio_flush(h, done, 0);
    case FILE_NET_DISCARD:
        return nbd_aio_trim(h, piece->len, piece->offset, done, 0);
    case FILE_NET_ZERO:
        return nbd_aio_zero(h, piece->len, piece->offset, done, fua | (piece->unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
    case FILE_NET_MAP:
        piece->len = piece->len < MAX_RANGE ? piece->len : MAX_RANGE;
        return nbd_aio_block_status(h, piece->len, piece->offset, extents, done, 0);
    default:
        return -1;
    }
}

static int nbd_start(struct file_net_conn *conn, struct file_net_piece *piece)
{
    struct nbd *nbd = nbd_of(conn);

    if (send_piece(nbd, piece) >= 0)
        return 0;
    if (nbd_aio_is_dead(nbd->handle) || nbd_aio_is_closed(nbd->handle))
        return gone(nbd);
    int error = nbd_get_errno();
    if (!piece->finished)
        file_net_done(piece, error > 0 ? -error : -EIO);
    return 0;
}

static const struct file_net_type type = {
    .name = "NBD",
    .size = sizeof(struct nbd),
    .open = nbd_open,
    .close = nbd_close_conn,
    .start = nbd_start,
    .fd = nbd_fd,
    .service = nbd_service,
    .why = why,
    .fence = nbd_fence,
};

int file_nbd_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    return file_net_open(file, &type, conf, loop, err);
}
