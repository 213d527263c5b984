#include "virtio/virtio_doorbell.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio/virtio_impl.h"

#define NOTIFY_LEN 2 /* a driver writes the queue's number (4.1.5.2) */

struct bell {
    struct loop_fd source;
    struct virtio *v;
    unsigned n;
    bool listening, placed;
};

struct virtio_doorbell {
    struct virtio *v;
    const struct doorbells *offered;
    struct bell bells[];
};

static void rung(void *opaque, uint32_t events)
{
    struct bell *b = opaque;
    uint64_t count;

    if (read(b->source.fd, &count, sizeof(count)) == sizeof(count))
        virtio_kick(b->v, b->n);
}

static void listen_all(void *opaque)
{
    struct virtio_doorbell *bells = opaque;

    for (unsigned i = 0; i < bells->v->n_queues; i++)
        bells->bells[i].listening = loop_fd_add(bells->v->io->loop, &bells->bells[i].source, EPOLLIN) == 0;
}

static void listen_to_none(void *opaque)
{
    struct virtio_doorbell *bells = opaque;

    for (unsigned i = 0; i < bells->v->n_queues; i++)
        if (bells->bells[i].listening)
            loop_fd_remove(bells->v->io->loop, &bells->bells[i].source);
}

struct virtio_doorbell *virtio_doorbell_open(struct virtio *v)
{
    const struct doorbells *offered = v->env->doorbells;
    bool all = true;

    if (!offered)
        return NULL;
    struct virtio_doorbell *bells = calloc(1, sizeof(*bells) + v->n_queues * sizeof(bells->bells[0]));
    if (!bells)
        return NULL;
    bells->v = v;
    bells->offered = offered;
    for (unsigned i = 0; i < v->n_queues; i++) {
        struct bell *b = &bells->bells[i];
        *b = (struct bell){.v = v, .n = i};
        b->source = (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = rung, .opaque = b};
        all &= b->source.fd >= 0;
    }
    if (all)
        iothread_call(v->io, listen_all, bells);
    if (all)
        return bells;
    virtio_doorbell_close(bells);
    return NULL;
}

void virtio_doorbell_close(struct virtio_doorbell *bells)
{
    if (!bells)
        return;
    iothread_call(bells->v->io, listen_to_none, bells);
    for (unsigned i = 0; i < bells->v->n_queues; i++)
        if (bells->bells[i].source.fd >= 0)
            close(bells->bells[i].source.fd);
    free(bells);
}

void virtio_doorbell_place(struct virtio_doorbell *bells, uint64_t base, unsigned step, bool on)
{
    for (unsigned i = 0; bells && i < bells->v->n_queues; i++) {
        struct bell *b = &bells->bells[i];
        if (b->placed == on || !b->listening)
            continue;
        int r = bells->offered->set(bells->offered->opaque, base + (uint64_t)i * step, NOTIFY_LEN, b->source.fd, on);
        b->placed = on && r == 0;
    }
}
