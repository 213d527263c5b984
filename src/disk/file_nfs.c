/*
 * NFS version 4.0 (RFC 7530): nfs://HOST[:PORT]/PATH, a regular file of a server.
 *
 * Writes are UNSTABLE, a flush is COMMIT. The file is held by OPEN with a share reservation: a writer lets nobody else write, a reader lets nobody
 * write. Each connection makes itself known with a verifier of its own, so that the server forgets the one before: what that had under way can do nothing any more. After the server's restart
 * the file is reclaimed, which lets it be used while others still wait for the server's grace to end.
 *
 * Why not libnfs: as Debian 12 has it (4.0.0) it sends no NFSv4 WRITE of more than 4 KiB, hides the write verifier, and its decoder trusts the server's
 * lengths.
 *
 * On the file's thread.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "disk/file_nfs_impl.h"

#define MAX_TRANSFER (256 * KIB)
#define LEASE_MIN    5 /* seconds; what a server says that is beyond these is not taken at its word */
#define LEASE_MAX    600

enum { ACCESS_READ = 1, ACCESS_BOTH = 3, DENY_WRITE = 2, CLAIM_NULL = 0, CLAIM_PREVIOUS = 1, RESULT_CONFIRM = 2 };

static struct file_nfs *nfs_of(struct file_net_conn *conn)
{
    return CONTAINER_OF(conn, struct file_nfs, conn);
}

static const char *why(struct file_net_conn *conn)
{
    return nfs_of(conn)->rpc.why;
}

int file_nfs_status(uint32_t status)
{
    switch (status) {
    case E_OK:
        return 0;
    case E_DELAY:
    case E_GRACE:
        return -EAGAIN;
    case E_EXPIRED:
    case E_FHEXPIRED:
    case E_STALE:
    case E_STALE_CLIENTID:
    case E_STALE_STATEID:
    case E_OLD_STATEID:
    case E_BAD_STATEID:
    case E_BAD_SEQID:
    case E_ADMIN_REVOKED:
        return -ENOTCONN;
    case E_NOENT:
        return -ENOENT;
    case E_ACCESS:
    case E_WRONGSEC:
    case E_PERM:
        return -EACCES;
    case E_NOTDIR:
        return -ENOTDIR;
    case E_ISDIR:
        return -EISDIR;
    case E_FBIG:
        return -EFBIG;
    case E_NOSPC:
        return -ENOSPC;
    case E_ROFS:
        return -EROFS;
    case E_DQUOT:
        return -EDQUOT;
    case E_LOCKED:
    case E_SHARE_DENIED:
        return -EBUSY;
    default:
        return -EIO;
    }
}

void file_nfs_put_fh(struct file_nfs *nfs)
{
    file_nfs_rpc_op(&nfs->rpc, OP_PUTFH);
    file_nfs_rpc_put(&nfs->rpc, nfs->fh, nfs->fh_len, false);
}

void file_nfs_put_stateid(struct file_nfs *nfs)
{
    file_nfs_rpc_put(&nfs->rpc, nfs->stateid.bytes, sizeof(nfs->stateid.bytes), true);
}

/* A write verifier, as this connection's: servers make theirs of a clock that may be coarse. ganesha's tells whole seconds. */
uint64_t file_nfs_get_verifier(struct file_nfs *nfs, struct file_nfs_reader *r)
{
    uint64_t verifier = file_nfs_rpc_get64(r) ^ nfs->salt;
    return verifier ? verifier : 1;
}

/* ---- calls that open waits for ---- */

/* Sends what was begun, and waits for its reply: the compound's status is looked at with each result. */
static int exchange(struct file_nfs *nfs, uint32_t xid, struct file_nfs_reader *r, int64_t deadline, const char *what,
                    struct err *err)
{
    struct file_nfs_rpc *rpc = &nfs->rpc;
    uint32_t got, status;
    int n = file_nfs_rpc_end(rpc);

    while (n == 0) {
        n = file_nfs_rpc_send(rpc);
        if (n == 0)
            n = file_nfs_rpc_receive(rpc, &got, &status, r);
        if (n == 1 && got == xid)
            return 0;
        if (n != 0)
            break;
        short events = (short)(POLLIN | (file_nfs_rpc_sending(rpc) ? POLLOUT : 0));
        n = file_net_poll(&nfs->conn, rpc->fd, events, deadline);
        n = n > 0 ? 0 : n;
    }
    n = n > 0 ? -EPROTO : n;
    return err_set(err, n, "%s: %s", what, rpc->why ? rpc->why : strerror(-n));
}

/* A result's status as the caller of open sees it. */
static int look(struct file_nfs_reader *r, uint32_t op, const char *what, struct err *err)
{
    uint32_t status = file_nfs_rpc_result(r, op);
    int n = file_nfs_status(status);

    if (r->bad)
        return err_set(err, -EPROTO, "%s: the server's reply is malformed", what);
    if (status == E_SHARE_DENIED)
        return err_set(err, -EBUSY,
                       "%s: the file is locked: somebody else has it open, or had until a crash, which the server "
                       "takes some time to "
                       "forget",
                       what);
    if (status == E_GRACE || status == E_DELAY)
        return err_set(err, -EAGAIN, "%s: the server was started a moment ago, and lets nobody in yet", what);
    return n < 0 ? err_set(err, n, "%s: %s (NFS status %u)", what, strerror(-n), status) : 0;
}

/* ---- who we are (section 16.33) ---- */

static int set_client(struct file_nfs *nfs, int64_t deadline, struct err *err)
{
    struct file_nfs_rpc *rpc = &nfs->rpc;
    struct file_nfs_reader r;
    char id[128], host[64] = "";
    uint64_t verifier;

    gethostname(host, sizeof(host) - 1);
    int len = snprintf(id, sizeof(id), "vireo %s %016llx", host, (unsigned long long)file_net_identity(&nfs->conn));
    if (getrandom(&verifier, sizeof(verifier), 0) != sizeof(verifier))
        return err_set(err, -errno, "getrandom: %s", strerror(errno));
    uint32_t xid = file_nfs_rpc_begin(rpc);
    file_nfs_rpc_op(rpc, OP_SETCLIENTID);
    file_nfs_rpc_put64(rpc, verifier);
    file_nfs_rpc_put(rpc, id, (size_t)len, false);
    /* Nobody can call us back, so that nothing is delegated to us. */
    file_nfs_rpc_put32(rpc, 0);
    file_nfs_rpc_put(rpc, "tcp", 3, false);
    file_nfs_rpc_put(rpc, "0.0.0.0.0.0", 11, false);
    file_nfs_rpc_put32(rpc, 0);
    int n = exchange(nfs, xid, &r, deadline, "SETCLIENTID", err);
    if (n == 0)
        n = look(&r, OP_SETCLIENTID, "SETCLIENTID", err);
    if (n < 0)
        return n;
    nfs->client = file_nfs_rpc_get64(&r);
    uint64_t confirm = file_nfs_rpc_get64(&r);
    xid = file_nfs_rpc_begin(rpc);
    file_nfs_rpc_op(rpc, OP_SETCLIENTID_CONFIRM);
    file_nfs_rpc_put64(rpc, nfs->client);
    file_nfs_rpc_put64(rpc, confirm);
    n = exchange(nfs, xid, &r, deadline, "SETCLIENTID_CONFIRM", err);
    return n < 0 ? n : look(&r, OP_SETCLIENTID_CONFIRM, "SETCLIENTID_CONFIRM", err);
}

/* ---- the file ---- */

/* The path's next component, behind slashes; its length, 0 at the end. */
static size_t component(const char **path)
{
    *path += strspn(*path, "/");
    return strcspn(*path, "/");
}

/* To the directory, and with `file` to the file itself. How many LOOKUPs there are. */
static unsigned put_path(struct file_nfs_rpc *rpc, const char *path, bool file, const char **last, size_t *last_len)
{
    unsigned n = 0;

    file_nfs_rpc_op(rpc, OP_PUTROOTFH);
    for (size_t len = component(&path); len; len = component(&path)) {
        const char *next = path + len;
        *last = path;
        *last_len = len;
        if (!file && !component(&next))
            break;
        file_nfs_rpc_op(rpc, OP_LOOKUP);
        file_nfs_rpc_put(rpc, path, len, false);
        path += len;
        n++;
    }
    return n;
}

static int look_path(struct file_nfs_reader *r, unsigned lookups, struct err *err)
{
    int n = look(r, OP_PUTROOTFH, "root", err);

    for (unsigned i = 0; i < lookups && n == 0; i++)
        n = look(r, OP_LOOKUP, "path", err);
    return n;
}

struct attrs {
    uint32_t type, lease;
    uint64_t size, fsid[2], fileid, maxread, maxwrite;
};

/* Sections 5.6 and 16.7: as many as were asked for and are there, in the order of their numbers. */
static int get_attrs(struct file_nfs_reader *r, struct attrs *a, struct err *err)
{
    uint32_t n_words = file_nfs_rpc_get32(r), words[2] = {0, 0}, len;

    for (uint32_t i = 0; i < n_words && !r->bad; i++) {
        uint32_t word = file_nfs_rpc_get32(r);
        if (i < 2)
            words[i] = word;
    }
    const uint32_t known = 1u << ATTR_TYPE | 1u << ATTR_SIZE | 1u << ATTR_FSID | 1u << ATTR_LEASE | 1u << ATTR_FILEID |
                           1u << ATTR_MAXREAD | 1u << ATTR_MAXWRITE;
    const uint8_t *values = file_nfs_rpc_get(r, &len, false);
    struct file_nfs_reader v = {.at = values, .end = values ? values + len : NULL, .bad = !values};
    if (words[0] & ~known || words[1])
        return err_set(err, -EPROTO, "GETATTR: the server tells more than it was asked for");
    if (words[0] & 1u << ATTR_TYPE)
        a->type = file_nfs_rpc_get32(&v);
    if (words[0] & 1u << ATTR_SIZE)
        a->size = file_nfs_rpc_get64(&v);
    for (unsigned i = 0; i < 2 && words[0] & 1u << ATTR_FSID; i++)
        a->fsid[i] = file_nfs_rpc_get64(&v);
    if (words[0] & 1u << ATTR_LEASE)
        a->lease = file_nfs_rpc_get32(&v);
    if (words[0] & 1u << ATTR_FILEID)
        a->fileid = file_nfs_rpc_get64(&v);
    if (words[0] & 1u << ATTR_MAXREAD)
        a->maxread = file_nfs_rpc_get64(&v);
    if (words[0] & 1u << ATTR_MAXWRITE)
        a->maxwrite = file_nfs_rpc_get64(&v);
    if (r->bad || v.bad || !(words[0] & 1u << ATTR_TYPE) || !(words[0] & 1u << ATTR_SIZE))
        return err_set(err, -EPROTO, "GETATTR: the server's reply is malformed");
    return 0;
}

static void use_attrs(struct file_nfs *nfs, const struct attrs *a)
{
    struct file_net_props *p = &nfs->conn.props;
    uint64_t most = MAX_TRANSFER;

    most = a->maxread && a->maxread < most ? a->maxread : most;
    most = a->maxwrite && a->maxwrite < most ? a->maxwrite : most;
    nfs->lease = a->lease < LEASE_MIN ? LEASE_MIN : a->lease > LEASE_MAX ? LEASE_MAX : a->lease;
    p->size = a->size;
    p->id = a->fileid ^ a->fsid[0] * UINT64_C(0x9e3779b97f4a7c15) ^ a->fsid[1] * UINT64_C(0xc2b2ae3d27d4eb4f);
    p->block = 1;
    p->max_transfer = (uint32_t)most;
    p->max_range = MAX_TRANSFER;
    p->volatile_cache = true;
    p->grows = true;
}

static int find(struct file_nfs *nfs, const char *path, int64_t deadline, struct err *err)
{
    struct file_nfs_rpc *rpc = &nfs->rpc;
    struct file_nfs_reader r;
    struct attrs attrs = {.type = 0};
    const char *last = NULL;
    size_t last_len = 0;

    uint32_t xid = file_nfs_rpc_begin(rpc);
    unsigned lookups = put_path(rpc, path, true, &last, &last_len);
    file_nfs_rpc_op(rpc, OP_GETFH);
    file_nfs_rpc_op(rpc, OP_GETATTR);
    file_nfs_rpc_put32(rpc, 1);
    file_nfs_rpc_put32(rpc, 1u << ATTR_TYPE | 1u << ATTR_SIZE | 1u << ATTR_FSID | 1u << ATTR_LEASE | 1u << ATTR_FILEID |
                                1u << ATTR_MAXREAD | 1u << ATTR_MAXWRITE);
    int n = exchange(nfs, xid, &r, deadline, "LOOKUP", err);
    if (n == 0)
        n = look_path(&r, lookups, err);
    if (n == 0)
        n = look(&r, OP_GETFH, "GETFH", err);
    if (n < 0)
        return n;
    const uint8_t *fh = file_nfs_rpc_get(&r, &nfs->fh_len, false);
    if (!fh || nfs->fh_len > FILE_NFS_FH_MAX)
        return err_set(err, -EPROTO, "GETFH: the server's reply is malformed");
    memcpy(nfs->fh, fh, nfs->fh_len);
    n = look(&r, OP_GETATTR, "GETATTR", err);
    if (n == 0)
        n = get_attrs(&r, &attrs, err);
    if (n < 0)
        return n;
    if (attrs.type != TYPE_REGULAR)
        return err_set(err, -EINVAL, "it is no regular file");
    use_attrs(nfs, &attrs);
    return 0;
}

/* ---- OPEN (section 16.16) ---- */

static int confirm(struct file_nfs *nfs, int64_t deadline, struct err *err)
{
    struct file_nfs_reader r;
    uint32_t len = sizeof(nfs->stateid.bytes);

    uint32_t xid = file_nfs_rpc_begin(&nfs->rpc);
    file_nfs_put_fh(nfs);
    file_nfs_rpc_op(&nfs->rpc, OP_OPEN_CONFIRM);
    file_nfs_put_stateid(nfs);
    file_nfs_rpc_put32(&nfs->rpc, nfs->seqid++);
    int n = exchange(nfs, xid, &r, deadline, "OPEN_CONFIRM", err);
    if (n == 0)
        n = look(&r, OP_PUTFH, "PUTFH", err);
    if (n == 0)
        n = look(&r, OP_OPEN_CONFIRM, "OPEN_CONFIRM", err);
    if (n < 0)
        return n;
    const uint8_t *id = file_nfs_rpc_get(&r, &len, true);
    if (!id)
        return err_set(err, -EPROTO, "OPEN_CONFIRM: the server's reply is malformed");
    memcpy(nfs->stateid.bytes, id, len);
    return 0;
}

static int open_by(struct file_nfs *nfs, const char *path, bool previous, int64_t deadline, struct err *err)
{
    struct file_nfs_rpc *rpc = &nfs->rpc;
    struct file_nfs_reader r;
    uint32_t len = sizeof(nfs->stateid.bytes);
    unsigned lookups = 0;
    const char *last = NULL;
    size_t last_len = 0;

    uint32_t xid = file_nfs_rpc_begin(rpc);
    if (previous)
        file_nfs_put_fh(nfs);
    else
        lookups = put_path(rpc, path, false, &last, &last_len);
    file_nfs_rpc_op(rpc, OP_OPEN);
    file_nfs_rpc_put32(rpc, nfs->seqid++);
    file_nfs_rpc_put32(rpc, file_net_writes(&nfs->conn) ? ACCESS_BOTH : ACCESS_READ);
    file_nfs_rpc_put32(rpc, DENY_WRITE);
    file_nfs_rpc_put64(rpc, nfs->client);
    file_nfs_rpc_put(rpc, "disk", 4, false);
    file_nfs_rpc_put32(rpc, 0); /* it is there */
    file_nfs_rpc_put32(rpc, previous ? CLAIM_PREVIOUS : CLAIM_NULL);
    if (previous)
        file_nfs_rpc_put32(rpc, 0); /* nothing was delegated */
    else
        file_nfs_rpc_put(rpc, last, last_len, false);
    int n = exchange(nfs, xid, &r, deadline, "OPEN", err);
    if (n == 0)
        n = previous ? look(&r, OP_PUTFH, "PUTFH", err) : look_path(&r, lookups, err);
    if (n == 0)
        n = look(&r, OP_OPEN, "OPEN", err);
    if (n < 0)
        return n;
    const uint8_t *id = file_nfs_rpc_get(&r, &len, true);
    uint32_t skip = 4 + 8 + 8; /* how the directory changed */
    if (id)
        memcpy(nfs->stateid.bytes, id, len);
    file_nfs_rpc_get(&r, &skip, true);
    uint32_t flags = file_nfs_rpc_get32(&r);
    if (r.bad)
        return err_set(err, -EPROTO, "OPEN: the server's reply is malformed");
    nfs->opened = true;
    return flags & RESULT_CONFIRM ? confirm(nfs, deadline, err) : 0;
}

static int hold(struct file_nfs *nfs, const char *path, int64_t deadline, struct err *err)
{
    if (!file_net_locks(&nfs->conn))
        return 0;
    int n = set_client(nfs, deadline, err);
    if (n < 0)
        return n;
    /* Outside of its grace the server wants nothing reclaimed. */
    if (file_net_again(&nfs->conn)) {
        n = open_by(nfs, path, true, deadline, err);
        if (n == 0 || n == -EPROTO || n == -ETIMEDOUT || n == -ECANCELED)
            return n;
    }
    return open_by(nfs, path, false, deadline, err);
}

/* COMMIT of all: tells the verifier. */
static int learn_epoch(struct file_nfs *nfs, int64_t deadline, struct err *err)
{
    struct file_nfs_reader r;

    if (!file_net_writes(&nfs->conn))
        return 0;
    uint32_t xid = file_nfs_rpc_begin(&nfs->rpc);
    file_nfs_put_fh(nfs);
    file_nfs_rpc_op(&nfs->rpc, OP_COMMIT);
    file_nfs_rpc_put64(&nfs->rpc, 0);
    file_nfs_rpc_put32(&nfs->rpc, 0);
    int n = exchange(nfs, xid, &r, deadline, "COMMIT", err);
    if (n == 0)
        n = look(&r, OP_PUTFH, "PUTFH", err);
    if (n == 0)
        n = look(&r, OP_COMMIT, "COMMIT", err);
    if (n < 0)
        return n;
    nfs->conn.props.epoch = file_nfs_get_verifier(nfs, &r);
    return r.bad ? err_set(err, -EPROTO, "COMMIT: the server's reply is malformed") : 0;
}

/* ---- life ---- */

/* "nfs://HOST[:PORT]/PATH"; an IPv6 address stands in brackets. */
static int parse(const char *url, char *host, size_t host_size, char *port, size_t port_size, const char **path,
                 struct err *err)
{
    const char *at = url + strlen("nfs://");
    bool bracket = *at == '[';
    size_t len = bracket ? strcspn(at + 1, "]/") : strcspn(at, ":/");
    const char *end = at + len + (bracket ? 2 : 0), *name = at + bracket;

    snprintf(port, port_size, "2049");
    snprintf(host, host_size, "%.*s", (int)len, name);
    if (bracket && at[1 + len] != ']')
        end = "";
    if (*end == ':') {
        size_t digits = strspn(end + 1, "0123456789");
        snprintf(port, port_size, "%.*s", (int)digits, end + 1);
        end = digits && digits < port_size ? end + 1 + digits : "";
    }
    *path = end;
    if (!len || len >= host_size || *end != '/' || !end[strspn(end, "/")])
        return err_set(err, -EINVAL, "accepted is nfs://HOST[:PORT]/PATH");
    return 0;
}

static int open_nfs(struct file_net_conn *conn, const char *url, int64_t deadline, struct err *err)
{
    struct file_nfs *nfs = nfs_of(conn);
    char host[256], port[8];
    const char *path;

    nfs->rpc.fd = -1;
    if (getrandom(&nfs->salt, sizeof(nfs->salt), 0) != sizeof(nfs->salt))
        return err_set(err, -errno, "getrandom: %s", strerror(errno));
    int r = parse(url, host, sizeof(host), port, sizeof(port), &path, err);
    if (r == 0)
        r = file_nfs_rpc_connect(&nfs->rpc, conn, host, port, deadline, err);
    if (r == 0)
        r = find(nfs, path, deadline, err);
    if (r == 0)
        r = hold(nfs, path, deadline, err);
    if (r == 0)
        r = learn_epoch(nfs, deadline, err);
    nfs->renewed = loop_now();
    return r;
}

static void close_nfs(struct file_net_conn *conn)
{
    struct file_nfs *nfs = nfs_of(conn);
    bool idle = nfs->opened && !file_nfs_rpc_sending(&nfs->rpc);

    /* The server need not wait for the lease's end: as much as the socket takes, and no answer is waited for. */
    if (idle) {
        file_nfs_rpc_begin(&nfs->rpc);
        file_nfs_put_fh(nfs);
        file_nfs_rpc_op(&nfs->rpc, OP_CLOSE);
        file_nfs_rpc_put32(&nfs->rpc, nfs->seqid++);
        file_nfs_put_stateid(nfs);
        int r = file_nfs_rpc_end(&nfs->rpc);
        if (r == 0)
            r = file_nfs_rpc_send(&nfs->rpc);
        (void)r;
    }
    file_nfs_rpc_close(&nfs->rpc);
}

static int fd_of(struct file_net_conn *conn, short *events)
{
    struct file_nfs *nfs = nfs_of(conn);

    *events = (short)(POLLIN | (file_nfs_rpc_sending(&nfs->rpc) ? POLLOUT : 0));
    return nfs->rpc.fd;
}

static const struct file_net_type type = {
    .name = "NFS",
    .size = sizeof(struct file_nfs),
    .open = open_nfs,
    .close = close_nfs,
    .start = file_nfs_io_start,
    .fd = fd_of,
    .service = file_nfs_io_service,
    .why = why,
    .tick = file_nfs_io_tick,
};

int file_nfs_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    return file_net_open(file, &type, conf, loop, err);
}
