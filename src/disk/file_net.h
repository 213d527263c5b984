/*
 * Files that a server has: what NBD, iSCSI and NFS share, and what each of them fills in.
 *
 * A file has a thread of its own (base/iothread.h), where all of its connection is: libraries may resolve names and wait there without holding up the
 * disk's loop. Requests go there and come back as whole lists, one event each way.
 *
 * A connection that breaks is made again, with pauses from 0.1 to 5 s between the attempts. Requests wait meanwhile and are sent again, each up to
 * disk_conf.timeout; then it fails with -ETIMEDOUT. A server that is silent for half of that while requests are under way counts as gone. When it has been
 * gone for as long, what is new fails with the next attempt that does. A server is not believed: what it says about itself is checked each time, and one that comes back with another size is refused.
 *
 * What a flush has not covered may be lost when the server is, though each write was acknowledged. So completed writes are kept until a flush has
 * covered them, and sent again, in order and before anything else, when the server may have lost them. Which that is says a number that each
 * connection and each reply has, the epoch: a write is safe when a flush has completed in the write's own epoch.
 *
 *   NBD    no reply tells one server from the next: each connection is an epoch.
 *   iSCSI  a target that was reset says so (UNIT ATTENTION), but one that was started anew says nothing else: each connection is an epoch. The session
 *          keeps its ISID, so that a target that is still there ends the old one, and what that had under way, first (RFC 7143 section 6.3.5).
 *   NFS    WRITE and COMMIT replies carry the server's write verifier, which changes when it has lost what was not committed (RFC 7530 section 16.36.5): that
 *          is the epoch, within a connection. Over several it is not relied on: a server that is started twice within a second may have one verifier
 *          for both (ganesha makes it of its start in whole seconds).
 *
 * A write that was under way may be carried out late, by a server that was silent and goes on: after it was sent again, and over what was written since. iSCSI and
 * NFS have the server end the session before. NBD knows no sessions: there no other connection is made before the server has let go of the old one, which it does
 * when it has read it to its end.
 *
 * Kept are up to 32 MiB; with half of it a flush is sent, and with all of it writes wait for that.
 */
#ifndef DISK_FILE_NET_H
#define DISK_FILE_NET_H

#include "disk/file_type.h"

#define FILE_NET_TIMEOUT 60 /* seconds, where disk_conf has none */

enum file_net_kind {
    FILE_NET_READ,
    FILE_NET_WRITE,
    FILE_NET_FLUSH,
    FILE_NET_DISCARD,
    FILE_NET_ZERO,
    FILE_NET_MAP,
    FILE_NET_TRUNCATE,
};

/* What a server says about a file; checked by file_net_link.c. */
struct file_net_props {
    uint64_t size;         /* bytes */
    uint64_t id;           /* of the file, where the server has such: another one is another file */
    uint64_t epoch;        /* 0: the connection's number stands for it */
    uint32_t block;        /* offsets and lengths are multiples of it, but for the file's end; a power of two */
    uint32_t max_transfer; /* bytes of a READ or a WRITE */
    uint64_t max_range;    /* bytes of a DISCARD or ZERO */
    bool read_only;
    bool volatile_cache; /* a write is safe only when a FLUSH has come after it; and FLUSH is there */
    bool discards, zeroes, maps;
    bool grows; /* writes may go beyond the end, and TRUNCATE is there */
};

/* One call to the server: within props' limits. */
struct file_net_piece {
    enum file_net_kind kind;
    bool unmap;                  /* ZERO */
    uint64_t offset;             /* TRUNCATE: the size */
    uint64_t len;                /* MAP: of the range; when it is done, of what is known of it */
    uint8_t *buf;                /* READ, WRITE */
    uint64_t epoch;              /* set by the protocol before it is done, WRITE and FLUSH; 0: the connection's */
    bool durable;                /* set by the protocol, WRITE: safe already */
    struct disk_extent *extents; /* MAP: up to n_extents; when it is done, so many */
    unsigned n_extents;

    /* file_net_link.c's */
    struct file_net_op *op;
    struct file_net_piece *next, **link;
    struct file_net_conn *conn;
    bool finished;
    int result;
};

struct file_net;

struct file_net_conn {
    const struct file_net_type *type;
    struct file_net *net; /* file_net.c's */
    struct file_net_props props;
};

struct file_net_type {
    const char *name; /* "NBD" */
    size_t size;      /* of the connection; struct file_net_conn comes first, the rest is zeroes */
    /*
     * Connects, and fills in props; waits, but no longer than until `deadline`, by file_net_poll(). One line in err, without the path. The connection is
     * closed afterwards in any case.
     */
    int (*open)(struct file_net_conn *conn, const char *path, int64_t deadline, struct err *err);
    void (*close)(struct file_net_conn *conn); /* whatever is under way: file_net_done() is not called any more */
    /* file_net_done() is called for it at any time later, also from within. -errno: the connection is broken. */
    int (*start)(struct file_net_conn *conn, struct file_net_piece *piece);
    int (*fd)(struct file_net_conn *conn, short *events);     /* of poll(2) */
    int (*service)(struct file_net_conn *conn, short events); /* -errno: the connection is broken */
    const char *(*why)(struct file_net_conn *conn);           /* of the last -errno; NULL: strerror() tells it */
    /*
     * Before a broken connection is closed: a socket, the caller's from then on, that ends when the server has done all that came by the connection. No other
     * connection is made before. -1, or NULL: there is nothing to wait for.
     */
    int (*fence)(struct file_net_conn *conn);
    /* Called every second or so; NULL: nothing to do. -errno: the connection is broken. */
    int (*tick)(struct file_net_conn *conn, int64_t now);
};

int file_net_open(struct file **file, const struct file_net_type *type, const struct disk_conf *conf, struct loop *loop,
                  struct err *err) MUST_CHECK;

/* ---- for protocols ---- */

/*
 * 0 or -errno of the server's. -EAGAIN: to be sent again in a moment. -ENOTCONN: by this connection never; it is made again. Otherwise what the server said about
 * this one request.
 */
void file_net_done(struct file_net_piece *piece, int result);

/* Waits for events of poll(2): those that there are, -ETIMEDOUT, or -ECANCELED when the file is being closed. */
int file_net_poll(struct file_net_conn *conn, int fd, short events, int64_t deadline) MUST_CHECK;

/* Whether the file was opened to be written to; and whether without a lock. */
bool file_net_writes(const struct file_net_conn *conn);
bool file_net_locks(const struct file_net_conn *conn);
/* A random number that is the same for each connection of the file. */
uint64_t file_net_identity(const struct file_net_conn *conn);
/* Whether the file had a connection before. */
bool file_net_again(const struct file_net_conn *conn);

#endif
