#include "virtio/fake_net.h"

#include <stdlib.h>

#include "net/offload.h"

struct fake_net_seed fake_net_seed;

static struct fake_net *of(struct net *net)
{
    return CONTAINER_OF(net, struct fake_net, net);
}

static void fake_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct fake_net *f = of(net);

    f->header = *header;
    f->len = offload_gather(frame, n, f->frame, sizeof(f->frame));
    f->sent++;
    f->sent_bytes += f->len;
    if (!f->loopback)
        return;
    if (net->receiver.ready(net->receiver.opaque))
        net->receiver.deliver(net->receiver.opaque, header, frame, n);
    else
        net->dropped++;
}

static void fake_flush(struct net *net)
{
    of(net)->flushes++;
    net->receiver.flush(net->receiver.opaque);
}

static unsigned deliver_owed(struct fake_net *f, const struct net_header *header)
{
    const struct net_receiver *to = &f->net.receiver;
    const struct iovec iov = {f->owed, f->owed_len};
    unsigned taken = 0;

    while (f->owed_left && to->ready(to->opaque)) {
        to->deliver(to->opaque, header, &iov, 1);
        f->owed_left--;
        taken++;
    }
    to->flush(to->opaque);
    return taken;
}

static void fake_resume(struct net *net)
{
    struct fake_net *f = of(net);

    f->resumes++;
    if (f->owed_left)
        deliver_owed(f, &f->header);
}

static void fake_close(struct net *net)
{
    free(of(net)->owed);
    free(of(net));
}

static const struct net_type fake_type = {
    .name = "fake",
    .send = fake_send,
    .flush = fake_flush,
    .resume = fake_resume,
    .close = fake_close,
};

int fake_net_plug(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    struct fake_net *f = calloc(1, sizeof(*f));

    if (!f)
        abort();
    f->net.type = &fake_type;
    f->net.loop = loop;
    f->net.offloads = fake_net_seed.offloads;
    f->net.mtu = fake_net_seed.mtu;
    fake_net_seed.made = f;
    *net = &f->net;
    return 0;
}

struct delivery {
    struct fake_net *f;
    const struct net_header *header;
    const void *frame;
    size_t len;
    unsigned times, taken;
    bool up;
};

static void do_deliver(void *opaque)
{
    struct delivery *d = opaque;

    free(d->f->owed);
    d->f->owed = malloc(d->len);
    if (!d->f->owed)
        abort();
    memcpy(d->f->owed, d->frame, d->len);
    d->f->owed_len = d->len;
    d->f->owed_left = d->times;
    d->f->header = *d->header;
    d->taken = deliver_owed(d->f, d->header);
}

unsigned fake_net_deliver(struct fake_net *f, struct iothread *io, const struct net_header *header, const void *frame,
                          size_t len, unsigned times)
{
    struct delivery d = {f, header, frame, len, times, 0, false};

    iothread_call(io, do_deliver, &d);
    return d.taken;
}

static void do_link(void *opaque)
{
    struct delivery *d = opaque;

    d->f->net.receiver.link(d->f->net.receiver.opaque, d->up);
}

void fake_net_link(struct fake_net *f, struct iothread *io, bool up)
{
    struct delivery d = {.f = f, .up = up};

    iothread_call(io, do_link, &d);
}
