/*
 * A network for tests, plugged into an interface in place of a backend: it keeps what is sent, sends it back if told to, and delivers what the test
 * says.
 *
 * Threads: the interface's; a test gets there with fake_net_call() and what is built on it.
 */
#ifndef TESTS_VIRTIO_FAKE_NET_H
#define TESTS_VIRTIO_FAKE_NET_H

#include "base/iothread.h"
#include "net/net.h"

struct fake_net {
    struct net net;
    struct iothread *io;
    bool loopback;
    unsigned sent, flushes, resumes;
    struct net_header header; /* of the last frame sent */
    uint8_t frame[NET_FRAME_MAX];
    size_t len;
    uint64_t sent_bytes;
    uint8_t *owed; /* a frame that the interface was not ready for; delivered when it is */
    size_t owed_len, owed_left;
};

/* What the next fake_net_plug() on this thread makes is put here. */
struct fake_net_seed {
    unsigned offloads;
    uint16_t mtu;
    struct fake_net *made;
};
extern struct fake_net_seed fake_net_seed;

/* For virtio_net_conf.plug. */
int fake_net_plug(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err);

/* Delivers a frame, `times` times as the interface is ready for it; how many it has taken by the time that this returns. */
unsigned fake_net_deliver(struct fake_net *f, struct iothread *io, const struct net_header *header, const void *frame,
                          size_t len, unsigned times);

/* Takes the other end of the cable away or brings it back. */
void fake_net_link(struct fake_net *f, struct iothread *io, bool up);

#endif
