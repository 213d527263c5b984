/*
 * What the parts of a network file share: file_net.c is the disk's side of it, file_net_op.c cuts requests to what the server takes, file_net_link.c has
 * the connection, its end and what is sent again.
 */
#ifndef DISK_FILE_NET_IMPL_H
#define DISK_FILE_NET_IMPL_H

#include "base/iothread.h"
#include "disk/file_net.h"

/* A request on its way. */
struct file_net_job {
    struct disk_request *req; /* NULL: one of our own */
    const struct disk_request *what;
    struct file_net *net;
    bool waited_for; /* somebody waits in file_net_call() for `done` */
    bool done;
    unsigned left; /* operations not done */
    int error;
    uint64_t truncate; /* the size, where `what` is NULL */
    struct file_net_job *next;
};

/* A part of a job that is under way, or a write that is kept. In one list. */
struct file_net_op {
    struct file_net_op *next;
    struct file_net_job *job; /* NULL: sent again, or a flush of our own */
    enum file_net_kind kind;
    bool unmap;
    bool patch;           /* WRITE of less than a block: it is read first */
    bool patched;         /* it was */
    bool zeroes;          /* WRITE: one buffer of zeroes, up to max_transfer, for all of it */
    uint64_t offset, len; /* whole blocks; patch: the block */
    uint64_t job_offset;  /* READ: of the first byte that the job wants. patch: of the first that is written */
    uint64_t job_len;
    uint8_t *buf;
    struct disk_extent *extents;
    unsigned n_extents;
    uint64_t started, finished; /* bytes of len */
    unsigned under_way;         /* pieces */
    int error;
    int64_t deadline;
    unsigned attempts; /* the link's, when the operation came */
    unsigned extended; /* how often its deadline was moved */
    uint64_t epoch;    /* of its writes, or of its FLUSH; FILE_NET_STALE: of several, or of none */
    bool durable;      /* none of its writes needs a flush */
    bool kept;         /* in net->kept, and sent again where it is under way */
    uint64_t seq;      /* when it was kept; FLUSH: what it covers */
};

#define FILE_NET_STALE UINT64_MAX

struct file_net_list {
    struct file_net_op *first, **tail;
};

enum file_net_state { FILE_NET_DOWN, FILE_NET_REPLAY, FILE_NET_UP };

struct file_net {
    struct file base;
    const struct file_net_type *type;
    struct iothread *io;
    char path[4096];
    char shown[4096]; /* without a password */
    bool read_only, no_lock;
    int64_t timeout; /* ns */
    uint64_t identity;

    /* From the disk's loop to the thread and back. */
    pthread_mutex_t lock;
    pthread_cond_t fewer;
    struct file_net_job *arrived, **arrived_tail;
    struct disk_request *done, **done_tail;
    unsigned n_under_way; /* requests submitted and not complete */
    struct loop_event arrival, completion;
    int cancel_fd; /* readable: the file is being closed */

    /* The thread's alone. */
    enum file_net_state state;
    struct file_net_conn *conn;  /* NULL: DOWN */
    int fence;                   /* what ends when the server has let go of the last one; -1: nothing */
    struct file_net_props props; /* of the first connection: what requests are cut to */
    struct loop_fd source;
    bool source_added;
    short source_events;
    struct loop_timer tick;
    struct loop_event pump;
    struct file_net_list todo, busy, kept;
    struct file_net_piece *pieces, *free_pieces;
    unsigned n_pieces;
    bool patching; /* one write of less than a block has all to itself */
    uint64_t kept_bytes, busy_bytes, seq, epoch, n_connections;
    uint64_t safe_size; /* where the file grows: what a server that lost its cache may still have */
    int replay_error;
    bool flush_sent;    /* one of our own, for want of room */
    int64_t hold_until; /* the server has asked for a moment's patience */
    int64_t down_since; /* 0: it is not */
    int64_t last_attempt, next_attempt, backoff, last_progress;
    unsigned attempts;
    uint64_t sent_again; /* operations, since the connection was made */
    bool told_gone, closing;
    char reason[256];
};

/* ---- file_net_op.c ---- */

/* Cuts a job into operations, which go to net->todo. Or completes it. */
void file_net_op_begin(struct file_net *net, struct file_net_job *job);
/* The operation is over for its job, which is done with the last one. */
void file_net_op_answer(struct file_net *net, struct file_net_op *op, int result);
void file_net_op_free(struct file_net_op *op);
/* A patch has been read into the second half of its buffer: the rest of the block goes around it. */
void file_net_op_patch(struct file_net_op *op);
void file_net_op_append(struct file_net_list *list, struct file_net_op *op);
void file_net_op_remove(struct file_net_list *list, struct file_net_op *op);
void file_net_op_prepend(struct file_net_list *list, struct file_net_op *op);

/* ---- file_net.c ---- */

/* The job is done. On the thread. */
void file_net_finish(struct file_net *net, struct file_net_job *job);

/* ---- file_net_link.c: on the thread ---- */

void file_net_link_init(struct file_net *net);
/* One attempt; what the server says is what it is held to from then on. */
int file_net_link_first(struct file_net *net, struct err *err) MUST_CHECK;
void file_net_link_close(struct file_net *net);
/* The connection is no good; it is made again. */
void file_net_link_break(struct file_net *net, const char *why);
/* Does what there is to do. */
void file_net_link_pump(struct file_net *net);

/* ---- file_net_send.c: on the thread ---- */

/* Sends what may be sent, and looks at what was answered. False: the connection has broken, and the link is down. */
bool file_net_send(struct file_net *net);
/* What is under way goes back to where it is sent again from; the connection is closed. */
void file_net_send_reset(struct file_net *net);
/* Whether a kept write may be lost. */
bool file_net_send_stale(const struct file_net *net);

#endif
