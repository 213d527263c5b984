/*
 * Reads, writes and commits of a file on an NFS server, and what keeps its lease.
 *
 * On the file's thread.
 */
#include <errno.h>
#include <poll.h>

#include "disk/file_nfs_impl.h"

static struct file_nfs *nfs_of(struct file_net_conn *conn)
{
    return CONTAINER_OF(conn, struct file_nfs, conn);
}

static struct file_nfs_call *free_call(struct file_nfs *nfs)
{
    for (unsigned i = 0; i < FILE_NFS_CALLS; i++)
        if (!nfs->calls[i].used)
            return &nfs->calls[i];
    return NULL;
}

static int send_call(struct file_nfs *nfs, struct file_nfs_call *call)
{
    struct file_nfs_rpc *rpc = &nfs->rpc;
    const struct file_net_piece *piece = call->piece;
    uint64_t offset = piece->offset + call->done, len = piece->len - call->done;

    call->xid = file_nfs_rpc_begin(rpc);
    file_nfs_put_fh(nfs);
    switch (piece->kind) {
    case FILE_NET_READ:
        file_nfs_rpc_op(rpc, OP_READ);
        file_nfs_put_stateid(nfs);
        file_nfs_rpc_put64(rpc, offset);
        file_nfs_rpc_put32(rpc, (uint32_t)len);
        break;
    case FILE_NET_WRITE:
        file_nfs_rpc_op(rpc, OP_WRITE);
        file_nfs_put_stateid(nfs);
        file_nfs_rpc_put64(rpc, offset);
        file_nfs_rpc_put32(rpc, UNSTABLE);
        file_nfs_rpc_put(rpc, piece->buf + call->done, len, false);
        break;
    case FILE_NET_FLUSH:
        file_nfs_rpc_op(rpc, OP_COMMIT);
        file_nfs_rpc_put64(rpc, 0);
        file_nfs_rpc_put32(rpc, 0);
        break;
    default: /* TRUNCATE */
        file_nfs_rpc_op(rpc, OP_SETATTR);
        file_nfs_put_stateid(nfs);
        file_nfs_rpc_put32(rpc, 1);
        file_nfs_rpc_put32(rpc, 1u << ATTR_SIZE);
        file_nfs_rpc_put32(rpc, 8);
        file_nfs_rpc_put64(rpc, piece->offset);
        break;
    }
    call->used = true;
    int r = file_nfs_rpc_end(rpc);
    return r < 0 ? r : file_nfs_rpc_send(rpc);
}

int file_nfs_io_start(struct file_net_conn *conn, struct file_net_piece *piece)
{
    struct file_nfs *nfs = nfs_of(conn);
    struct file_nfs_call *call = free_call(nfs);

    if (!call)
        return -ENOBUFS;
    *call = (struct file_nfs_call){.piece = piece};
    piece->durable = true;
    return send_call(nfs, call);
}

static void finish(struct file_nfs_call *call, int result)
{
    call->used = false;
    if (call->piece)
        file_net_done(call->piece, result);
}

/* 1: the piece is whole; 0: the rest is to be asked for; -errno: the reply is malformed. */
static int read_reply(struct file_nfs_call *call, struct file_nfs_reader *r)
{
    struct file_net_piece *piece = call->piece;
    uint32_t eof = file_nfs_rpc_get32(r), len;
    const uint8_t *data = file_nfs_rpc_get(r, &len, false);
    uint64_t left = piece->len - call->done;

    if (!data || len > left || (len == 0 && !eof))
        return -EPROTO;
    memcpy(piece->buf + call->done, data, len);
    call->done += len;
    if (call->done < piece->len && eof) {
        memset(piece->buf + call->done, 0, piece->len - call->done);
        call->done = piece->len;
    }
    return call->done == piece->len;
}

static int write_reply(struct file_nfs *nfs, struct file_nfs_call *call, struct file_nfs_reader *r)
{
    struct file_net_piece *piece = call->piece;
    uint32_t count = file_nfs_rpc_get32(r), committed = file_nfs_rpc_get32(r);
    uint64_t verifier = file_nfs_get_verifier(nfs, r);

    if (r->bad || count == 0 || count > piece->len - call->done)
        return -EPROTO;
    /* Of several verifiers the first: then it is not the last flush's, and the piece is sent again. */
    piece->epoch = piece->epoch ? piece->epoch : verifier;
    piece->durable = piece->durable && committed != UNSTABLE;
    call->done += count;
    return call->done == piece->len;
}

static int piece_reply(struct file_nfs *nfs, struct file_nfs_call *call, struct file_nfs_reader *r)
{
    static const enum file_nfs_op ops[] = {[FILE_NET_READ] = OP_READ,
                                           [FILE_NET_WRITE] = OP_WRITE,
                                           [FILE_NET_FLUSH] = OP_COMMIT,
                                           [FILE_NET_TRUNCATE] = OP_SETATTR};
    struct file_net_piece *piece = call->piece;
    int n = file_nfs_status(file_nfs_rpc_result(r, OP_PUTFH));

    if (n == 0 && !r->bad)
        n = file_nfs_status(file_nfs_rpc_result(r, ops[piece->kind]));
    if (r->bad)
        return -EPROTO;
    if (n < 0) {
        finish(call, n);
        return 0;
    }
    if (piece->kind == FILE_NET_READ)
        n = read_reply(call, r);
    else if (piece->kind == FILE_NET_WRITE)
        n = write_reply(nfs, call, r);
    else
        n = 1;
    if (piece->kind == FILE_NET_FLUSH)
        piece->epoch = file_nfs_get_verifier(nfs, r);
    if (n < 0 || r->bad)
        return -EPROTO;
    if (n == 1)
        finish(call, 0);
    return n == 1 ? 0 : send_call(nfs, call);
}

static int renew_reply(struct file_nfs_call *call, struct file_nfs_reader *r)
{
    uint32_t status = file_nfs_rpc_result(r, OP_RENEW);

    call->used = false;
    return r->bad || file_nfs_status(status) == -ENOTCONN ? -EPROTO : 0;
}

static int reply(struct file_nfs *nfs, uint32_t xid, struct file_nfs_reader *r)
{
    for (unsigned i = 0; i < FILE_NFS_CALLS; i++) {
        struct file_nfs_call *call = &nfs->calls[i];
        if (!call->used || call->xid != xid)
            continue;
        return call->piece ? piece_reply(nfs, call, r) : renew_reply(call, r);
    }
    return -EPROTO; /* to nothing that we have asked */
}

int file_nfs_io_service(struct file_net_conn *conn, short events)
{
    struct file_nfs *nfs = nfs_of(conn);
    struct file_nfs_reader r;
    uint32_t xid, status;
    int n = events & POLLOUT ? file_nfs_rpc_send(&nfs->rpc) : 0;

    if (n < 0 || !(events & (POLLIN | POLLHUP | POLLERR)))
        return n;
    while ((n = file_nfs_rpc_receive(&nfs->rpc, &xid, &status, &r)) > 0) {
        n = reply(nfs, xid, &r);
        if (n < 0) {
            nfs->rpc.why = n == -EPROTO ? "the server's reply is malformed, or tells that it has forgotten us" : NULL;
            return n;
        }
    }
    return n;
}

/* Calls with the file's stateid renew the lease too, but an idle guest makes none. */
int file_nfs_io_tick(struct file_net_conn *conn, int64_t now)
{
    struct file_nfs *nfs = nfs_of(conn);
    struct file_nfs_call *call;

    if (!nfs->opened || now - nfs->renewed < (int64_t)nfs->lease * NS_PER_SEC / 3 || !(call = free_call(nfs)))
        return 0;
    nfs->renewed = now;
    *call = (struct file_nfs_call){.used = true, .xid = file_nfs_rpc_begin(&nfs->rpc)};
    file_nfs_rpc_op(&nfs->rpc, OP_RENEW);
    file_nfs_rpc_put64(&nfs->rpc, nfs->client);
    int r = file_nfs_rpc_end(&nfs->rpc);
    return r < 0 ? r : file_nfs_rpc_send(&nfs->rpc);
}
