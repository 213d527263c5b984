/*
 * A network interface (virtio 1.2 section 5.1): pairs of queues, mergeable receive buffers, checksum and segmentation offloads, a control queue with
 * filters. Plugged into whatever its specification says (net/net.h), which works on the interface's thread too.
 *
 * What the guest's driver hands over is checked before anything acts on it: the header that asks for offloads against its frame, commands against
 * their lengths. A frame that makes no sense is dropped and counted.
 */
#ifndef DEVICE_VIRTIO_NET_H
#define DEVICE_VIRTIO_NET_H

#include "net/net.h"
#include "virtio/virtio.h"

struct virtio_net_conf {
    const struct net_spec *spec; /* the opener's, until the device is open */
    uint8_t mac[6];              /* as the machine has settled on it: the spec's, or one that was derived (net/mac.h) */
    /* Who plugs it in; NULL: net_open(). */
    int (*plug)(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err);
};

/* Counted since the device was opened. A frame to be cut into segments is one. */
struct virtio_net_stats {
    uint64_t tx_frames, tx_bytes, tx_dropped; /* from the guest */
    uint64_t rx_frames, rx_bytes, rx_dropped; /* to it; not those that its filters turned away */
};

extern const struct virtio_type virtio_net_type;

/* Unplugs the cable, or plugs it in again. Any thread. */
void virtio_net_set_link(struct virtio *v, bool up);

/* Whether the guest sees a link: the cable is plugged in, and the other end is there. Any thread. */
bool virtio_net_link(struct virtio *v);

/* The address that the guest has given itself last, at first the configured one. Any thread. */
void virtio_net_mac(struct virtio *v, uint8_t mac[6]);

/* Any thread. */
void virtio_net_stats(struct virtio *v, struct virtio_net_stats *stats);

#endif
