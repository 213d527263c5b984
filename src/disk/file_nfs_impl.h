/*
 * What the parts of a file on an NFS server share: file_nfs.c finds it and holds it, file_nfs_io.c has its reads and writes, file_nfs_rpc.c the calls.
 */
#ifndef DISK_FILE_NFS_IMPL_H
#define DISK_FILE_NFS_IMPL_H

#include "disk/file_nfs_rpc.h"

#define FILE_NFS_CALLS  80 /* more than the pieces that may be under way */
#define FILE_NFS_FH_MAX 128

/* RFC 7530 section 16, and 13.1 */
enum file_nfs_op {
    OP_CLOSE = 4,
    OP_COMMIT = 5,
    OP_GETATTR = 9,
    OP_GETFH = 10,
    OP_LOOKUP = 15,
    OP_OPEN = 18,
    OP_OPEN_CONFIRM = 20,
    OP_PUTFH = 22,
    OP_PUTROOTFH = 24,
    OP_READ = 25,
    OP_RENEW = 30,
    OP_SETATTR = 34,
    OP_SETCLIENTID = 35,
    OP_SETCLIENTID_CONFIRM = 36,
    OP_WRITE = 38,
};

enum file_nfs_status {
    E_OK = 0,
    E_PERM = 1,
    E_NOENT = 2,
    E_IO = 5,
    E_ACCESS = 13,
    E_NOTDIR = 20,
    E_ISDIR = 21,
    E_FBIG = 27,
    E_NOSPC = 28,
    E_ROFS = 30,
    E_DQUOT = 69,
    E_DELAY = 10008,
    E_EXPIRED = 10011,
    E_LOCKED = 10012,
    E_GRACE = 10013,
    E_FHEXPIRED = 10014,
    E_SHARE_DENIED = 10015,
    E_WRONGSEC = 10016,
    E_STALE = 70,
    E_STALE_CLIENTID = 10022,
    E_STALE_STATEID = 10023,
    E_OLD_STATEID = 10024,
    E_BAD_STATEID = 10025,
    E_BAD_SEQID = 10026,
    E_ADMIN_REVOKED = 10047,
};

enum { UNSTABLE = 0, TYPE_REGULAR = 1 };
/* Section 5.6: bits of the attributes' mask. */
enum {
    ATTR_TYPE = 1,
    ATTR_SIZE = 4,
    ATTR_FSID = 8,
    ATTR_LEASE = 10,
    ATTR_FILEID = 20,
    ATTR_MAXREAD = 30,
    ATTR_MAXWRITE = 31
};

struct file_nfs_stateid {
    uint8_t bytes[16]; /* as it comes and goes; zeroes: the anonymous one (section 9.1.4.3) */
};

struct file_nfs_call {
    uint32_t xid;
    struct file_net_piece *piece; /* NULL: a RENEW */
    uint64_t done;                /* bytes of it that earlier calls have moved */
    bool used;
};

struct file_nfs {
    struct file_net_conn conn;
    struct file_nfs_rpc rpc;
    uint8_t fh[FILE_NFS_FH_MAX];
    uint32_t fh_len;
    struct file_nfs_stateid stateid;
    bool opened;
    uint32_t seqid;
    uint64_t client, salt;
    uint32_t lease; /* seconds */
    int64_t renewed;
    struct file_nfs_call calls[FILE_NFS_CALLS];
};

/* 0 or -errno; -ENOTCONN: the server has forgotten what it knew of us, or of the file. */
int file_nfs_status(uint32_t status);
void file_nfs_put_fh(struct file_nfs *nfs);
void file_nfs_put_stateid(struct file_nfs *nfs);
uint64_t file_nfs_get_verifier(struct file_nfs *nfs, struct file_nfs_reader *r);

/* As in struct file_net_type. */
int file_nfs_io_start(struct file_net_conn *conn, struct file_net_piece *piece);
int file_nfs_io_service(struct file_net_conn *conn, short events);
int file_nfs_io_tick(struct file_net_conn *conn, int64_t now);

#endif
