/*
 * What the files of virtio-vsock share: packets, the device, its connections. virtio_vsock.c has the queues, vsock_conn.c a connection's
 * life, vsock_data.c its bytes, vsock_host.c how host programs come in and are found.
 *
 * Threads: all of it on the device's iothread.
 *
 * Bounds: a connection holds at most VSOCK_BUFFER bytes, on their way from the guest to a host program that reads slowly: that is the credit
 * the guest has (5.10.6.3). In the other direction nothing is held: a host's socket is read straight into the guest's receive buffers, as
 * far as the guest's own credit goes, and left unread otherwise.
 */
#ifndef DEVICE_VSOCK_IMPL_H
#define DEVICE_VSOCK_IMPL_H

#include "base/listen.h"
#include "device/virtio_vsock.h"

#define VSOCK_HOST_CID    2
#define VSOCK_TYPE_STREAM 1

#define VSOCK_BUFFER     (128 * 1024) /* a power of two */
#define VSOCK_PACKET_MAX (64 * 1024)  /* payload of a packet to the guest */
#define VSOCK_BUCKETS    256
#define VSOCK_LINE_MAX   32  /* "CONNECT 4294967295\n" and some room */
#define VSOCK_REPLIES    128 /* resets owed for packets without a connection */

enum vsock_op {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE,
    VSOCK_OP_RST,
    VSOCK_OP_SHUTDOWN,
    VSOCK_OP_RW,
    VSOCK_OP_CREDIT_UPDATE,
    VSOCK_OP_CREDIT_REQUEST,
};

enum { VSOCK_SHUTDOWN_RECEIVE = 1, VSOCK_SHUTDOWN_SEND = 2, VSOCK_SHUTDOWN_BOTH = 3 };

/* 5.10.6 */
struct vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt;
} __attribute__((packed));

_Static_assert(sizeof(struct vsock_header) == 44, "as in 5.10.6");

enum vsock_state {
    VSOCK_CLIENT,     /* a host program, and no CONNECT line yet; in no bucket */
    VSOCK_REQUESTED,  /* it is for the guest to answer */
    VSOCK_CONNECTING, /* the guest asked, and the host program has no room to accept at the moment */
    VSOCK_OPEN,       /* the stream, both halves or one */
    VSOCK_CLOSING,    /* the host is done, and the guest is to confirm with a reset; no descriptor any more */
    VSOCK_DEAD,       /* a reset is owed, and then nothing is left; no descriptor */
    VSOCK_LINGER,     /* the guest is done, and its last bytes go to a slow host program; in no bucket */
};

struct vsock_conn {
    struct vsock *vs;
    struct vsock_conn *next, **link;   /* all there are */
    struct vsock_conn *chain;          /* in its bucket */
    struct vsock_conn *ready, **queue; /* those with something for the guest; queue is NULL when not among them */
    enum vsock_state state;
    uint32_t guest_port, host_port;
    struct loop_timer timer; /* until somebody must have answered */
    int64_t give_up;         /* CONNECTING: when, as loop_now() counts */

    struct loop_fd source;
    bool watched;           /* source is in the loop, */
    uint32_t watched_for;   /* for these events */
    bool readable;          /* there may be bytes from the host */
    bool eof;               /* no more will be read from the host: it is done, or the guest does not want any */
    unsigned host_shutdown; /* VSOCK_SHUTDOWN_*: what the host has no use for any more; told to the guest, or owed */
    unsigned guest_shutdown;
    unsigned owed; /* 1 << VSOCK_OP_*: to be sent to the guest */

    /* Credit (5.10.6.3). Counts of bytes, free to wrap. */
    uint32_t from_guest, forwarded, told; /* received; passed on; of those the guest knows */
    uint32_t to_guest, guest_forwarded, guest_buffer;
    bool asked; /* for credit, since there was some last */

    uint8_t *buffer; /* VSOCK_BUFFER bytes, once the host program was too slow; a ring */
    uint32_t head, held;
    char line[VSOCK_LINE_MAX];
    unsigned line_len;
};

struct vsock_reply {
    uint64_t cid; /* of whom the guest addressed */
    uint32_t guest_port, host_port;
    uint16_t type;
};

struct vsock {
    struct virtio v;
    uint64_t cid;
    int64_t patience_ns;
    unsigned most;
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

    struct listen_socket socket;
    struct loop_fd listener;
    struct loop_timer listen_timer; /* to accept again, when descriptors ran out */

    struct vsock_conn *conns;
    unsigned n_conns;
    struct vsock_conn *buckets[VSOCK_BUCKETS];
    struct vsock_conn *ready, **ready_tail;
    uint32_t next_port;

    struct vsock_reply replies[VSOCK_REPLIES];
    unsigned reply_head, n_replies;

    bool started;     /* a driver is there, also while the VM is paused */
    bool reset_event; /* to be sent: all connections have gone (5.10.6.7) */
    bool tx_held;     /* packets are left in the queue until there is room for replies */
    bool complained;  /* the guest sends what it must not: said once */
};

/* ---- virtio_vsock.c ---- */

/* Sends what there is to send, as far as the guest has receive buffers. Not from within a connection's own functions: it may end any. */
void virtio_vsock_pump(struct vsock *vs);
/* A reset for a packet that belongs to no connection, or to one that has just ended. There is room for one for each packet. */
void virtio_vsock_reply(struct vsock *vs, const struct vsock_header *h);
void virtio_vsock_complain(struct vsock *vs, const char *what);

/* ---- vsock_conn.c ---- */

/* fd becomes the connection's. NULL: there are as many as may be, or no memory; fd stays the caller's. */
struct vsock_conn *vsock_conn_new(struct vsock *vs, int fd, enum vsock_state state);
void vsock_conn_free(struct vsock_conn *c);
struct vsock_conn *vsock_conn_find(struct vsock *vs, uint32_t guest_port, uint32_t host_port);
/* Sets the ports, and packets find it from now on. */
void vsock_conn_bind(struct vsock_conn *c, uint32_t guest_port, uint32_t host_port);
/* Owes the guest packets: 1 << VSOCK_OP_*. */
void vsock_conn_owe(struct vsock_conn *c, unsigned ops);
/* Ends it, and tells the guest with a reset. */
void vsock_conn_kill(struct vsock_conn *c);
/* Has the loop wait for what matters now. After every change. */
void vsock_conn_watch(struct vsock_conn *c);
/* The time that the guest has for an answer begins anew. */
void vsock_conn_wait(struct vsock_conn *c);
/* A packet from the guest; `data` has h->len bytes of payload behind `skip` others. May end the connection. */
void vsock_conn_packet(struct vsock_conn *c, const struct vsock_header *h, const struct iovec *data, unsigned n,
                       size_t skip);
/* Over: the guest has been told, or will be, and is to confirm. */
void vsock_conn_close(struct vsock_conn *c);
/* Among those that have something for the guest, at their end; and not. */
void vsock_conn_ready(struct vsock_conn *c);
void vsock_conn_unready(struct vsock_conn *c);

/* ---- vsock_data.c ---- */

/* Bytes that the guest has room for. */
uint32_t vsock_data_credit(const struct vsock_conn *c);
/* Payload from the guest. False: it broke its word, or there is no memory. */
bool vsock_data_take(struct vsock_conn *c, uint32_t len, const struct iovec *data, unsigned n, size_t skip) MUST_CHECK;
/* Passes on what is held. Ends a connection that lingers, when that is all. */
void vsock_data_flush(struct vsock_conn *c);
/* The guest has no more for the host, and all of it is there. */
void vsock_data_close(struct vsock_conn *c);
/* Nobody is at the host's end any more. */
void vsock_data_left(struct vsock_conn *c);
/* Writes one packet to an element of the guest's receive queue; its length, or 0: there was none after all. May end the connection. */
uint32_t vsock_data_fill(struct vsock_conn *c, struct virtq_elem *elem);

/* ---- vsock_host.c ---- */

int vsock_host_open(struct vsock *vs, const char *path, struct err *err) MUST_CHECK;
void vsock_host_close(struct vsock *vs);
/* A client before its connection: something has come, or it has gone. */
void vsock_host_event(struct vsock_conn *c);
/* The guest has answered: tells the client. False: it is gone. */
bool vsock_host_answer(struct vsock_conn *c) MUST_CHECK;
/* A guest's connection: to a host program that listens at the port's path. Answers, or resets. */
void vsock_host_connect(struct vsock *vs, const struct vsock_header *h);
/* Once more, for one that had no room. */
void vsock_host_retry(struct vsock_conn *c);

#endif
