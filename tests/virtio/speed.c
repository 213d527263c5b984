/*
 * What a virtqueue costs, without a guest: nanoseconds of the device's CPU for a chain popped and pushed in batches of 64, and from a notification
 * to the interrupt for one at a time. Not a test: figures to compare one's own change by.
 *
 *   ninja -C build tests/virtio/virtio_speed && build/tests/virtio/virtio_speed
 */
#include <stdio.h>
#include <time.h>

#include "virtio/driver.h"
#include "virtio/virtq_impl.h"

#define BATCH  64
#define ROUNDS 2000

/* Gives every chain back as it is. */
static void null_notify(struct virtio *v, unsigned n)
{
    struct virtq *q = v->queues[n];
    struct virtq_elem *elem;

    do {
        virtq_disable_notify(q);
        while ((elem = virtq_pop(q)))
            virtq_push(q, elem, (uint32_t)elem->in_len);
    } while (virtq_enable_notify(q));
    virtq_signal(q);
}

static void null_start(struct virtio *v)
{
}

static void null_stop(struct virtio *v)
{
    virtio_stopped(v);
}

static int null_open(struct virtio *v, const void *conf, struct err *err)
{
    v->n_queues = 1;
    v->queue_size = 256;
    return 0;
}

static const struct virtio_type null_type = {.name = "virtio-null",
                                             .id = 42,
                                             .size = sizeof(struct virtio),
                                             .open = null_open,
                                             .start = null_start,
                                             .notify = null_notify,
                                             .stop = null_stop};

static int64_t cpu_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static void measure(const char *what, uint64_t features)
{
    static struct vboard b;
    static struct driver d;
    clockid_t device;
    unsigned id;
    uint32_t len;

    vboard_open(&b);
    driver_open(&d, &b, &null_type, NULL);
    driver_init(&d, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | features);
    struct driver_queue *q = &d.queues[0];
    uint64_t buf = vboard_alloc(&b, 8192, 4096);
    const struct driver_buf bufs[] = {{buf, 16, false}, {buf + 4096, 4096, true}, {buf + 16, 1, true}};
    if (pthread_getcpuclockid(b.io->thread, &device))
        return;
    int64_t pop_ns = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < BATCH; i++)
            if (driver_add(q, bufs, ARRAY_SIZE(bufs)) < 0)
                return;
        vboard_drain(&b);
        int64_t before = cpu_ns(device);
        driver_kick(q);
        vboard_drain(&b);
        pop_ns += cpu_ns(device) - before;
        while (driver_get(q, &id, &len))
            ;
    }
    int64_t idle = cpu_ns(device); /* what the draining costs by itself */
    for (unsigned round = 0; round < ROUNDS; round++)
        vboard_drain(&b);
    idle = cpu_ns(device) - idle;
    int64_t start = loop_now(), kick_ns = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (driver_add(q, bufs, ARRAY_SIZE(bufs)) < 0)
            return;
        int64_t kicked = loop_now();
        driver_kick(q);
        kick_ns += loop_now() - kicked;
        if (!driver_wait(q, &id, &len))
            return;
    }
    printf("%-24s %5.0f ns a chain of 3, %6.0f ns for a notification, %6.0f ns to the interrupt\n", what,
           (double)(pop_ns - idle) / ROUNDS / BATCH, (double)kick_ns / ROUNDS, (double)(loop_now() - start) / ROUNDS);
    driver_close(&d);
    vboard_close(&b);
}

int main(void)
{
    measure("split", 0);
    measure("split, event index", VIRTIO_F_EVENT_IDX);
    measure("packed", VIRTIO_F_RING_PACKED);
    measure("packed, event index", VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX);
    return 0;
}
