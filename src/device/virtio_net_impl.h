/*
 * Inside a network interface: virtio_net.c (its life and its link), virtio_net_tx.c and virtio_net_rx.c (frames), virtio_net_ctrl.c (what the guest
 * commands and which frames that lets through). All on the interface's thread.
 */
#ifndef DEVICE_VIRTIO_NET_IMPL_H
#define DEVICE_VIRTIO_NET_IMPL_H

#include "device/virtio_net.h"
#include "net/offload.h"

/* Feature bits (5.1.3). */
#define VIRTIO_NET_F_CSUM                (UINT64_C(1) << 0)
#define VIRTIO_NET_F_GUEST_CSUM          (UINT64_C(1) << 1)
#define VIRTIO_NET_F_CTRL_GUEST_OFFLOADS (UINT64_C(1) << 2)
#define VIRTIO_NET_F_MTU                 (UINT64_C(1) << 3)
#define VIRTIO_NET_F_MAC                 (UINT64_C(1) << 5)
#define VIRTIO_NET_F_GUEST_TSO4          (UINT64_C(1) << 7)
#define VIRTIO_NET_F_GUEST_TSO6          (UINT64_C(1) << 8)
#define VIRTIO_NET_F_GUEST_ECN           (UINT64_C(1) << 9)
#define VIRTIO_NET_F_HOST_TSO4           (UINT64_C(1) << 11)
#define VIRTIO_NET_F_HOST_TSO6           (UINT64_C(1) << 12)
#define VIRTIO_NET_F_HOST_ECN            (UINT64_C(1) << 13)
#define VIRTIO_NET_F_MRG_RXBUF           (UINT64_C(1) << 15)
#define VIRTIO_NET_F_STATUS              (UINT64_C(1) << 16)
#define VIRTIO_NET_F_CTRL_VQ             (UINT64_C(1) << 17)
#define VIRTIO_NET_F_CTRL_RX             (UINT64_C(1) << 18)
#define VIRTIO_NET_F_CTRL_VLAN           (UINT64_C(1) << 19)
#define VIRTIO_NET_F_CTRL_RX_EXTRA       (UINT64_C(1) << 20)
#define VIRTIO_NET_F_MQ                  (UINT64_C(1) << 22)
#define VIRTIO_NET_F_CTRL_MAC_ADDR       (UINT64_C(1) << 23)

/* The header before a frame: struct net_header and num_buffers (5.1.6). */
#define VIRTIO_NET_HEADER_SIZE 12

/* The configuration space (5.1.4). */
enum {
    VIRTIO_NET_CONFIG_MAC = 0,
    VIRTIO_NET_CONFIG_STATUS = 6,
    VIRTIO_NET_CONFIG_PAIRS = 8,
    VIRTIO_NET_CONFIG_MTU = 10
};
enum { VIRTIO_NET_S_LINK_UP = 1 };

#define VIRTIO_NET_TABLE_MAX 64  /* addresses in a filter; more let everything through */
#define VIRTIO_NET_FLOWS     256 /* a power of two */

struct virtio_net_table {
    uint32_t n;
    bool overflow;
    uint8_t macs[VIRTIO_NET_TABLE_MAX][6];
};

/* What the guest has asked for since the last reset. */
struct virtio_net_filter {
    bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
    bool vlan_filter; /* frames with tags pass by `vlans` only */
    struct virtio_net_table uni, multi;
    uint8_t vlans[4096 / 8];
};

/* A frame on its way to the guest that has to wait, for buffers or for its turn under the limit. */
struct virtio_net_stash {
    bool full;
    struct net_header header;
    size_t len;
    unsigned pair;
    bool paid;     /* the limit lets it through */
    int64_t since; /* when it came */
    uint8_t frame[NET_FRAME_MAX];
};

struct virtio_net {
    struct virtio v;
    struct net *net;
    uint8_t first_mac[6], mac[6];
    unsigned pairs, active_pairs;
    bool cable, peer;  /* both ends of the link */
    bool paused;       /* stopped, but not by a reset: what comes waits */
    bool configured;   /* started since the last reset */
    bool complained;   /* of a frame or a command, since the last reset */
    uint64_t offloads; /* feature bits of what the guest takes on receipt, as set last */

    struct limiter tx_limiter, rx_limiter;
    struct loop_timer tx_timer, rx_timer;
    uint32_t tx_waiting; /* pairs whose frames wait for the limit */

    struct virtio_net_filter filter;
    struct virtio_net_stash stash;
    uint32_t rx_touched;             /* pairs with buffers that the guest has not been told of */
    uint8_t flows[VIRTIO_NET_FLOWS]; /* the pair that a flow was last sent through */
    struct virtio_net_stats stats;
    struct offload_scratch tx_scratch, rx_scratch;
    struct virtq_elem *elems[VIRTQ_SIZE_MAX];
    uint32_t written[VIRTQ_SIZE_MAX];
};

/* A frame or a command that is not as the specification has it: said once until the next reset. */
void virtio_net_complain(struct virtio_net *n, const char *what);

/* What the guest takes on receipt, as the backend says it. */
unsigned virtio_net_takes(const struct virtio_net *n);

/* ---- tx ---- */

void virtio_net_tx(struct virtio_net *n, unsigned pair);
void virtio_net_tx_again(void *opaque); /* the limit's timer */
/* The place of a frame's flow in `flows`, the same for both of its directions. */
unsigned virtio_net_flow(const struct iovec *frame, unsigned n);

/* ---- rx ---- */

extern const struct net_receiver virtio_net_receiver;    /* but for opaque: the interface */
void virtio_net_rx(struct virtio_net *n, unsigned pair); /* the guest has added buffers, or may have */
void virtio_net_rx_again(void *opaque);                  /* the limit's timer */

/* ---- ctrl ---- */

void virtio_net_ctrl(struct virtio_net *n, struct virtq *q);
void virtio_net_filter_reset(struct virtio_net *n);
bool virtio_net_filter_passes(const struct virtio_net *n, const struct iovec *frame, unsigned n_iov);
void virtio_net_filter_state(struct virtio_net *n, struct stream *s);

#endif
