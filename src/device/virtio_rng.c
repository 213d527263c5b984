#include "device/virtio_rng.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/keyval.h"
#include "base/limiter.h"

#define CHUNK       4096 /* at most this much for a request, whatever the buffer: the guest asks again (5.4.6.1) */
#define LIMITED_MAX 64   /* under a limit less, so that it holds in short spans too */

struct virtio_rng {
    struct virtio v;
    struct virtio_rng_conf conf;
    struct limiter limiter;
    struct loop_timer again;
};

/* Bytes for a request of `len`. */
static size_t share(const struct virtio_rng *r, uint64_t len)
{
    size_t most = limiter_limits(&r->limiter) ? LIMITED_MAX : CHUNK;

    return len < most ? (size_t)len : most;
}

static void fill(struct virtq *q, struct virtq_elem *elem, size_t len)
{
    uint8_t buf[CHUNK];
    ssize_t n = len ? getrandom(buf, len, 0) : 0;

    virtq_push(q, elem, n > 0 ? (uint32_t)iov_write(elem->in, elem->n_in, 0, buf, (size_t)n) : 0);
}

/* false: the limit is reached, and the timer goes on with it. */
static bool serve(struct virtio_rng *r, struct virtq *q)
{
    struct virtq_elem *elem;

    while ((elem = virtq_pop(q))) {
        size_t len = share(r, elem->in_len);
        int64_t when = limiter_take(&r->limiter, 1, len, loop_now());
        if (when) {
            virtq_unpop(q, elem);
            loop_timer_set(&r->again, when);
            return false;
        }
        fill(q, elem, len);
    }
    return true;
}

static void rng_notify(struct virtio *v, unsigned n)
{
    struct virtio_rng *r = (struct virtio_rng *)v;
    struct virtq *q = v->queues[n];

    do
        virtq_disable_notify(q);
    while (serve(r, q) && virtq_enable_notify(q));
    virtq_signal(q);
}

static void on_again(void *opaque)
{
    struct virtio *v = opaque;

    if (virtio_running(v))
        rng_notify(v, 0);
}

static void rng_start(struct virtio *v)
{
}

static void rng_stop(struct virtio *v)
{
    loop_timer_cancel(&((struct virtio_rng *)v)->again);
    virtio_stopped(v);
}

static int rng_open(struct virtio *v, const void *conf, struct err *err)
{
    struct virtio_rng *r = (struct virtio_rng *)v;

    r->conf = *(const struct virtio_rng_conf *)conf;
    limiter_init(&r->limiter, 0, 0, r->conf.bps, 0);
    loop_timer_init(&r->again, v->io->loop, on_again, r);
    v->n_queues = 1;
    v->queue_size = 64;
    return 0;
}

const struct virtio_type virtio_rng_type = {
    .name = "virtio-rng",
    .id = 4,
    .pci_class = 0x00ff00, /* of no class */
    .size = sizeof(struct virtio_rng),
    .open = rng_open,
    .start = rng_start,
    .notify = rng_notify,
    .stop = rng_stop,
};

/* ---- the specification ---- */

struct values {
    uint64_t bps;
    char id[KEYVAL_TEXT_MAX];
};

static const struct keyval_key keys[] = {
    {.name = "bps", .kind = KEYVAL_SIZE, .offset = offsetof(struct values, bps), .least = 1, .most = GIB},
    {.name = "id", .kind = KEYVAL_TEXT, .offset = offsetof(struct values, id)},
};

int virtio_rng_parse(const char *spec, struct virtio_rng_conf *conf, char id[VIRTIO_RNG_ID_SIZE], struct err *err)
{
    const struct keyval_table table = {.what = "rng", .keys = keys, .n = ARRAY_SIZE(keys)};
    struct values values = {0};
    int r = keyval_parse(&table, spec, &values, err);

    if (r < 0)
        return r;
    if (strlen(values.id) >= VIRTIO_RNG_ID_SIZE)
        return err_set(err, -EINVAL, "rng: id=%.60s...: accepted are 1 to %d characters", values.id,
                       VIRTIO_RNG_ID_SIZE - 1);
    conf->bps = values.bps;
    snprintf(id, VIRTIO_RNG_ID_SIZE, "%s", values.id);
    return 0;
}
