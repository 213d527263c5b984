/*
 * What a network interface is plugged into: user-mode NAT, a tap, a port of a switch (backends.def). Ethernet frames go both ways, each with
 * the header of virtio-net (virtio 1.2 section 5.1.6) before it, which says what is left to do: checksums to complete, segments to cut.
 *
 * Threads: all on the thread of the loop it was opened with, which is the interface's own.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/limiter.h"
#include "base/loop.h"

#define NET_FRAME_MAX (65536 + 64) /* an Ethernet frame, segmentation offload and all, without its virtio header */
#define NET_MTU_LEAST 576
#define NET_MTU_MOST  65521

#define NET_QUEUE_PAIRS_MOST 16

/* struct virtio_net_hdr_mrg_rxbuf without num_buffers, which is the device's (virtio 1.2 section 5.1.6). Little-endian. */
struct net_header {
    uint8_t flags;    /* NET_HEADER_ */
    uint8_t gso_type; /* NET_GSO_ */
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

enum { NET_HEADER_NEEDS_CSUM = 1, NET_HEADER_DATA_VALID = 2 };
enum { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_UDP = 3, NET_GSO_TCPV6 = 4, NET_GSO_ECN = 0x80 };

/* What one side takes from the other without having it done before. */
enum {
    NET_OFFLOAD_CSUM = 1 << 0, /* frames with NEEDS_CSUM */
    NET_OFFLOAD_TSO4 = 1 << 1, /* and with GSO_TCPV4 */
    NET_OFFLOAD_TSO6 = 1 << 2,
    NET_OFFLOAD_ALL = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6,
};

struct net;

/* The interface's end: virtio-net, or whoever else is plugged in. */
struct net_receiver {
    /* Whether a frame may be delivered now. Where not, the backend stops reading until net_resume(). */
    bool (*ready)(void *opaque);
    /* A frame; copied before it returns. The backend respects what net_set_offloads() said last. */
    void (*deliver)(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n);
    /* A batch has ended: the time to interrupt. */
    void (*flush)(void *opaque);
    /* The link to the outside went or came. */
    void (*link)(void *opaque, bool up);
    void *opaque;
};

struct net_type {
    const char *name;
    /* Sends a frame; what cannot go now is dropped and counted. */
    void (*send)(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n);
    void (*flush)(struct net *net);                           /* a batch of sends has ended; may be NULL */
    void (*resume)(struct net *net);                          /* the receiver is ready again */
    void (*set_offloads)(struct net *net, unsigned offloads); /* what the receiver takes from now on; may be NULL */
    void (*close)(struct net *net);
};

/* Allocated by the type, which embeds it. */
struct net {
    const struct net_type *type;
    struct loop *loop;
    struct net_receiver receiver; /* set by net_connect() */
    unsigned offloads;            /* NET_OFFLOAD_ that send() takes; set in open */
    uint16_t mtu;                 /* what the interface should tell its guest, or 0: the usual 1500 */
    unsigned takes;               /* NET_OFFLOAD_ that deliver() takes, by net_set_offloads(); none at first */
    uint64_t dropped;             /* frames, either way, that this backend could not pass on */
};

/*
 * How a backend is opened: "user,hostfwd=tcp:127.0.0.1:2222-:22" and so on (backends.def). The keys of the interface itself - mac=, mtu=, queues=,
 * limits - are read by net_spec_parse() too.
 */
struct net_spec {
    char backend[16];
    char rest[4096]; /* the backend's own keys, as net_open() takes them */
    char id[32];
    uint8_t mac[6];
    bool has_mac;
    uint16_t mtu; /* 0: as the backend says */
    unsigned queue_pairs;
    uint64_t pps, pps_burst, bps, bps_burst; /* frames and bytes a second each way; 0: no limit, the usual burst */
    char capture[4096];                      /* a pcap file, or "" */
};

/* -EINVAL and a message that lists what is accepted. Opens nothing. */
int net_spec_parse(const char *text, struct net_spec *spec, struct err *err) MUST_CHECK;

/*
 * On the loop's thread, or before it runs (iothread_call()). net_connect() comes before the loop goes on: until then, nothing may be delivered.
 * The capture of the spec is opened too.
 */
int net_open(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err) MUST_CHECK;
void net_close(struct net *net); /* on the loop's thread */

static inline void net_connect(struct net *net, const struct net_receiver *receiver)
{
    net->receiver = *receiver;
}

/* A frame on its way out. The header has been checked against it (offload_check()), and asks for nothing that net->offloads has not. */
static inline void net_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    net->type->send(net, header, frame, n);
}

static inline void net_flush(struct net *net)
{
    if (net->type->flush)
        net->type->flush(net);
}

static inline void net_resume(struct net *net)
{
    net->type->resume(net);
}

static inline void net_set_offloads(struct net *net, unsigned offloads)
{
    net->takes = offloads;
    if (net->type->set_offloads)
        net->type->set_offloads(net, offloads);
}

#endif
