#include "virtio/echo.h"

#include <stdlib.h>

#define COPY_MAX 65536

/* What a device is shown lies in RAM, whatever the guest has done to its rings meanwhile. */
static void check_inside(const struct virtq_elem *elem, const struct ram *ram)
{
    uint64_t sum[2] = {0};

    for (unsigned i = 0; i < elem->n_out + elem->n_in; i++) {
        const struct iovec *v = i < elem->n_out ? &elem->out[i] : &elem->in[i - elem->n_out];
        uint64_t off = (uint64_t)((uint8_t *)v->iov_base - ram->base);
        uint64_t end = off < ram->low ? ram->low : ram->size;
        if (off >= ram->size || v->iov_len > end - off || !v->iov_len)
            abort();
        sum[i >= elem->n_out] += v->iov_len;
    }
    if (sum[0] != elem->out_len || sum[1] != elem->in_len)
        abort();
}

static void answer(struct virtq_elem *elem)
{
    uint8_t *buf = malloc(COPY_MAX);
    size_t n = elem->out_len < COPY_MAX ? (size_t)elem->out_len : COPY_MAX;

    if (!buf)
        abort();
    n = iov_read(elem->out, elem->n_out, 0, buf, n);
    n = iov_write(elem->in, elem->n_in, 0, buf, n);
    virtq_push(elem->queue, elem, (uint32_t)n);
    free(buf);
}

static void answer_held(struct echo *e)
{
    while (e->n_held)
        answer(e->held[--e->n_held]);
}

static void take(struct echo *e, struct virtq_elem *elem)
{
    if (!e->conf.hold) {
        answer(elem);
        return;
    }
    e->held[e->n_held++] = elem;
    if (e->n_held == e->conf.hold)
        answer_held(e);
}

static void echo_notify(struct virtio *v, unsigned n)
{
    struct echo *e = (struct echo *)v;
    struct virtq *q = v->queues[n];
    struct virtq_elem *elem;
    unsigned turn = 0;

    e->notifies++;
    do {
        virtq_disable_notify(q);
        while ((elem = virtq_pop(q))) {
            check_inside(elem, v->env->ram);
            take(e, elem);
            e->chains++;
            turn++;
        }
    } while (virtq_enable_notify(q));
    if (turn > e->largest_turn)
        e->largest_turn = turn;
    virtq_signal(q);
}

static void echo_start(struct virtio *v)
{
    ((struct echo *)v)->starts++;
}

/* What is held is given up. */
static void echo_stop(struct virtio *v)
{
    struct echo *e = (struct echo *)v;

    e->stops++;
    if (e->conf.slow_stop) {
        e->stopping = true;
        return;
    }
    e->n_held = 0;
    virtio_stopped(v);
}

static void release(void *opaque)
{
    struct echo *e = opaque;

    answer_held(e);
    for (unsigned i = 0; i < e->v.n_queues; i++)
        virtq_signal(e->v.queues[i]);
    if (e->stopping) {
        e->stopping = false;
        virtio_stopped(&e->v);
    }
}

void echo_release(struct virtio *v)
{
    iothread_call(v->io, release, v);
}

static void echo_reset(struct virtio *v)
{
    struct echo *e = (struct echo *)v;

    e->resets++;
    e->saved = 0;
}

static void echo_config_written(struct virtio *v, unsigned off, unsigned len)
{
    struct echo *e = (struct echo *)v;
    uint32_t val;

    virtio_config_get(v, 4, &val, 4);
    e->driver_wrote = val;
    e->config_writes++;
}

static int echo_state(struct virtio *v, struct stream *s)
{
    stream_section(s, "echo", 1);
    stream_u32(s, &((struct echo *)v)->saved);
    return s->error;
}

static int echo_open(struct virtio *v, const void *conf, struct err *err)
{
    struct echo *e = (struct echo *)v;
    const uint32_t first[2] = {0x01020304, 0};

    if (conf)
        e->conf = *(const struct echo_conf *)conf;
    v->features = ECHO_FEATURE;
    v->n_queues = e->conf.n_queues ? e->conf.n_queues : 1;
    v->queue_size = e->conf.queue_size;
    virtio_config_put(v, 0, first, sizeof(first));
    virtio_config_writable(v, 4, 4);
    return 0;
}

const struct virtio_type echo_type = {
    .name = "virtio-echo",
    .id = 42,
    .pci_class = 0x00ff00,
    .size = sizeof(struct echo),
    .open = echo_open,
    .start = echo_start,
    .notify = echo_notify,
    .stop = echo_stop,
    .config_written = echo_config_written,
    .reset = echo_reset,
    .state = echo_state,
};
