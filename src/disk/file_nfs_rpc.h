/*
 * Calls to an NFS server: ONC RPC version 2 over TCP (RFC 5531) with AUTH_SYS, NFSv4.0 compounds (RFC 7530), and their encoding (XDR, RFC 4506). Replies are read by
 * functions that never leave the message: what is not there reads as zero and makes the reader bad.
 *
 * On the file's thread.
 */
#ifndef DISK_FILE_NFS_RPC_H
#define DISK_FILE_NFS_RPC_H

#include "disk/file_net.h"

#define FILE_NFS_RPC_MESSAGE_MAX (2 * MIB) /* of a reply */

struct file_nfs_rpc {
    int fd; /* -1: none */
    uint32_t xid;
    uint32_t uid, gid;

    uint8_t *out; /* calls on their way, whole; from `sent` on not sent yet */
    size_t out_len, out_capacity, sent;
    size_t call;     /* where the one at hand begins */
    size_t n_ops_at; /* where the number of its operations stands */
    uint32_t n_ops;
    bool failed; /* no memory for it */

    uint8_t mark[4]; /* of the fragment at hand */
    unsigned mark_len;
    uint32_t fragment; /* bytes of it that are missing */
    bool last;
    uint8_t *in; /* a reply, as far as it is there */
    size_t in_len, in_capacity;
    const char *why; /* what is wrong with it */
};

/* To every address that `host` has, one after the other. */
int file_nfs_rpc_connect(struct file_nfs_rpc *rpc, struct file_net_conn *conn, const char *host, const char *port,
                         int64_t deadline, struct err *err) MUST_CHECK;
void file_nfs_rpc_close(struct file_nfs_rpc *rpc);

/* ---- a call ---- */

/* Begins a COMPOUND; returns its xid. What follows are its operations, each of an opcode and arguments. */
uint32_t file_nfs_rpc_begin(struct file_nfs_rpc *rpc);
void file_nfs_rpc_op(struct file_nfs_rpc *rpc, uint32_t op);
void file_nfs_rpc_put32(struct file_nfs_rpc *rpc, uint32_t v);
void file_nfs_rpc_put64(struct file_nfs_rpc *rpc, uint64_t v);
/* fixed: without its length in front. */
void file_nfs_rpc_put(struct file_nfs_rpc *rpc, const void *data, size_t len, bool fixed);
/* Ends it; it goes out with the next file_nfs_rpc_send(). -ENOMEM. */
int file_nfs_rpc_end(struct file_nfs_rpc *rpc) MUST_CHECK;

/* As much as the socket takes; -errno: it is broken. */
int file_nfs_rpc_send(struct file_nfs_rpc *rpc) MUST_CHECK;
bool file_nfs_rpc_sending(const struct file_nfs_rpc *rpc);

/* ---- a reply ---- */

struct file_nfs_reader {
    const uint8_t *at, *end;
    bool bad;
};

uint32_t file_nfs_rpc_get32(struct file_nfs_reader *r);
uint64_t file_nfs_rpc_get64(struct file_nfs_reader *r);
/* `len` bytes, or NULL; fixed: that is known, otherwise it stands in front. */
const uint8_t *file_nfs_rpc_get(struct file_nfs_reader *r, uint32_t *len, bool fixed);

/*
 * Takes what has come: 1 when a reply is whole, of which `r` then stands behind the compound's status (NFS4ERR_..., in *status) and number of
 * results, until the next call; 0 when there is none yet; -errno when the connection is of no use.
 */
int file_nfs_rpc_receive(struct file_nfs_rpc *rpc, uint32_t *xid, uint32_t *status,
                         struct file_nfs_reader *r) MUST_CHECK;

/* The next result in a reply, which must be of `op`: its status, 0 being NFS4_OK. Where it is not, or the reply has ended, the reader is bad. */
uint32_t file_nfs_rpc_result(struct file_nfs_reader *r, uint32_t op);

#endif
