#include "net/capture.h"

#include <errno.h>
#include <stdlib.h>

#include "net/offload.h"
#include "net/pcap.h"

#define PIECES_MOST 16 /* pcap_frame() */

struct capture {
    struct net net;
    struct net *inner;
    struct pcap *pcap;
    uint8_t frame[NET_FRAME_MAX];
};

static struct capture *of(struct net *net)
{
    return CONTAINER_OF(net, struct capture, net);
}

static void keep(struct capture *c, const struct iovec *frame, unsigned n)
{
    struct iovec whole = {c->frame, 0};

    if (n > PIECES_MOST) {
        whole.iov_len = offload_gather(frame, n, c->frame, sizeof(c->frame));
        frame = &whole;
        n = 1;
    }
    pcap_frame(c->pcap, frame, n);
}

static void capture_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct capture *c = of(net);

    keep(c, frame, n);
    net_send(c->inner, header, frame, n);
    net->dropped = c->inner->dropped;
}

static void capture_flush(struct net *net)
{
    net_flush(of(net)->inner);
}

static void capture_resume(struct net *net)
{
    net_resume(of(net)->inner);
}

static void capture_set_offloads(struct net *net, unsigned offloads)
{
    net_set_offloads(of(net)->inner, offloads);
}

static void capture_close(struct net *net)
{
    struct capture *c = of(net);

    net_close(c->inner);
    pcap_close(c->pcap);
    free(c);
}

static const struct net_type capture_type = {
    .name = "capture",
    .send = capture_send,
    .flush = capture_flush,
    .resume = capture_resume,
    .set_offloads = capture_set_offloads,
    .close = capture_close,
};

static bool on_ready(void *opaque)
{
    struct capture *c = opaque;

    return c->net.receiver.ready(c->net.receiver.opaque);
}

static void on_deliver(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct capture *c = opaque;

    keep(c, frame, n);
    c->net.receiver.deliver(c->net.receiver.opaque, header, frame, n);
    c->net.dropped = c->inner->dropped;
}

static void on_flush(void *opaque)
{
    struct capture *c = opaque;

    c->net.receiver.flush(c->net.receiver.opaque);
}

static void on_link(void *opaque, bool up)
{
    struct capture *c = opaque;

    c->net.receiver.link(c->net.receiver.opaque, up);
}

int capture_open(struct net **net, const char *path, struct err *err)
{
    struct capture *c = calloc(1, sizeof(*c));

    if (!c)
        return err_set(err, -ENOMEM, "net: capture: out of memory");
    int r = pcap_open(&c->pcap, path, err);
    if (r < 0) {
        free(c);
        return r;
    }
    c->inner = *net;
    c->net = (struct net){
        .type = &capture_type, .loop = c->inner->loop, .offloads = c->inner->offloads, .mtu = c->inner->mtu};
    net_connect(c->inner, &(const struct net_receiver){on_ready, on_deliver, on_flush, on_link, c});
    *net = &c->net;
    return 0;
}
