/*
 * A guest whose other CPU changes descriptors, rings and indirect tables while the device works on them, on every device of devices.c: what the
 * device has looked at once must be what it acts on. And a guest that never lets the device come to an end. Seeded (VIREO_TEST_SEED), bounded in rounds
 * (VIREO_TEST_ROUNDS).
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "oracle/rng.h"
#include "unit/unit.h"
#include "virtio/devices.h"
#include "virtio/driver.h"
#include "virtio/echo.h"
#include "virtio/virtq_impl.h"

#define ROUNDS    300
#define AREA      (64 * KIB) /* descriptors, rings and tables: what changes under the device */
#define QUEUE_MAX 256

struct race {
    struct vboard b;
    struct driver d;
    const struct test_device *row;
    uint64_t area, buf;
    uint64_t desc, avail, used, tables;
    _Atomic unsigned size;
    _Atomic bool packed;
    struct rng rng; /* the main thread's */
    _Atomic bool stop;
    uint64_t seed;
};

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Half of them well, half of them as badly as can be. */
static uint64_t some_address(struct race *r, struct rng *rng)
{
    const uint64_t bad[] = {UINT64_MAX, UINT64_MAX - 15, VBOARD_BAR, VBOARD_RAM_LOW - 8, RAM_HIGH_BASE - 8,
                            0,          r->used,         r->desc};

    if (rng_percent(rng, 60))
        return r->buf + rng_below(rng, 4096);
    if (rng_percent(rng, 50))
        return r->tables + 16 * rng_below(rng, 64);
    return bad[rng_below(rng, ARRAY_SIZE(bad))];
}

static uint32_t some_length(struct rng *rng)
{
    const uint32_t odd[] = {0, 1, 15, 16, 17, 32, 4096, UINT32_MAX, 0xfffffff0, 1 << 20};

    return rng_percent(rng, 70) ? 16 * (1 + rng_below(rng, 16)) : odd[rng_below(rng, ARRAY_SIZE(odd))];
}

/* The last 8 bytes of a descriptor: length, and two halves whose order is the layout's. */
static uint64_t some_rest(struct race *r, struct rng *rng)
{
    const uint16_t split[] = {0, VIRTQ_DESC_NEXT, VIRTQ_DESC_WRITE, VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE,
                              VIRTQ_DESC_INDIRECT};
    uint16_t flags = split[rng_below(rng, ARRAY_SIZE(split))], other = (uint16_t)rng_below(rng, r->size + 1);

    if (r->packed)
        flags |= rng_percent(rng, 50) ? VIRTQ_DESC_AVAIL : VIRTQ_DESC_USED;
    uint16_t third = r->packed ? other : flags, fourth = r->packed ? flags : other;
    return some_length(rng) | (uint64_t)third << 32 | (uint64_t)fourth << 48;
}

static void store64(struct race *r, uint64_t gpa, uint64_t val)
{
    __atomic_store_n((uint64_t *)(void *)vboard_at(&r->b, gpa), val, __ATOMIC_RELAXED);
}

static void store16(struct race *r, uint64_t gpa, uint16_t val)
{
    __atomic_store_n((uint16_t *)(void *)vboard_at(&r->b, gpa), val, __ATOMIC_RELAXED);
}

static void scribble(struct race *r, struct rng *rng)
{
    uint64_t desc = rng_percent(rng, 60) ? r->desc + 16 * rng_below(rng, r->size) : r->tables + 16 * rng_below(rng, 64);

    switch (rng_below(rng, 8)) {
    case 0:
        store16(r, r->avail + 2 * rng_below(rng, r->size), (uint16_t)rng_next(rng));
        break;
    case 1:
        store16(r, r->avail + 2, (uint16_t)(virtq_load16(vboard_at(&r->b, r->avail + 2)) + rng_below(rng, 5)));
        break;
    case 2:
    case 3:
    case 4:
        store64(r, desc, some_address(r, rng));
        break;
    default:
        store64(r, desc + 8, some_rest(r, rng));
        break;
    }
}

static void *other_cpu(void *opaque)
{
    struct race *r = opaque;
    struct rng rng = {.state = r->seed ^ 0x5eed};

    while (!atomic_load_explicit(&r->stop, memory_order_relaxed))
        scribble(r, &rng);
    return NULL;
}

static void start_device(struct race *r)
{
    uint64_t features = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | (r->packed ? VIRTIO_F_RING_PACKED : 0) |
                        (rng_percent(&r->rng, 50) ? VIRTIO_F_EVENT_IDX : 0);

    driver_reset(&r->d);
    if (!driver_negotiate(&r->d, features))
        fail_msg("%s: %s", r->row->name, "features refused");
    driver_write(&r->d, r->d.common + 0x16, 2, r->row->queue);
    driver_write(&r->d, r->d.common + 0x18, 2, r->size);
    driver_write(&r->d, r->d.common + 0x20, 8, r->desc);
    driver_write(&r->d, r->d.common + 0x28, 8, r->avail);
    driver_write(&r->d, r->d.common + 0x30, 8, r->used);
    driver_write(&r->d, r->d.common + 0x1a, 2, rng_below(&r->rng, r->d.n_queues + 2));
    driver_write(&r->d, r->d.common + 0x1c, 2, 1);
    driver_ready(&r->d);
}

/* Good chains to begin with, and an index that says they are there. */
static void lay_rings(struct race *r)
{
    for (uint64_t i = 0; i < AREA; i += 8)
        store64(r, r->area + i, 0);
    for (unsigned i = 0; i < r->size; i++) {
        store64(r, r->desc + 16 * (uint64_t)i, r->buf + 256 * (uint64_t)(i % 16));
        store64(r, r->desc + 16 * (uint64_t)i + 8, some_rest(r, &r->rng));
        store16(r, r->avail + 4 + 2 * (uint64_t)i, (uint16_t)i);
    }
    for (unsigned i = 0; i < 64; i++) {
        store64(r, r->tables + 16 * (uint64_t)i, r->buf + 64 * (uint64_t)i);
        store64(r, r->tables + 16 * (uint64_t)i + 8, some_rest(r, &r->rng));
    }
    store16(r, r->avail + 2, (uint16_t)rng_below(&r->rng, r->size + 1));
}

static void one_round(struct race *r)
{
    r->packed = rng_percent(&r->rng, 50);
    r->size = 1u << (1 + rng_below(&r->rng, 6));
    lay_rings(r);
    start_device(r);
    for (unsigned i = 0; i < 20 && !(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET); i++) {
        driver_write(&r->d, r->d.notify + r->d.notify_step * r->row->queue, 2, 0);
        if (rng_percent(&r->rng, 10)) {
            virtio_pci_pause(r->d.dev);
            virtio_pci_resume(r->d.dev);
        }
        if (rng_percent(&r->rng, 20))
            vboard_drain(&r->b);
    }
    if (rng_percent(&r->rng, 10))
        driver_write(&r->d, r->d.common + 0x14, 1, 0);
}

static void race_open(struct race *r, const struct test_device *row, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->row = row;
    r->seed = seed;
    r->rng.state = seed;
    r->size = QUEUE_MAX;
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, row->type, row->conf());
    r->area = vboard_alloc(&r->b, AREA, 4096);
    r->buf = vboard_alloc(&r->b, 64 * KIB, 4096);
    r->desc = r->area;
    r->avail = r->area + 0x4000;
    r->used = r->area + 0x8000;
    r->tables = r->area + 0xc000;
}

static void test_races(void **state)
{
    uint64_t seed = number_from("VIREO_TEST_SEED", 1), rounds = number_from("VIREO_TEST_ROUNDS", ROUNDS);
    static struct race r;

    for (unsigned i = 0; i < n_test_devices; i++) {
        pthread_t thread;
        race_open(&r, &test_devices[i], seed + i);
        assert_int_equal(pthread_create(&thread, NULL, other_cpu, &r), 0);
        for (uint64_t round = 0; round < rounds; round++)
            one_round(&r);
        r.stop = true;
        pthread_join(thread, NULL);

        const struct driver_buf bufs[] = {{r.buf, 16, false}, {r.buf + 4096, 512, true}};
        unsigned id;
        uint32_t len;
        driver_init(&r.d, VIRTIO_F_VERSION_1);
        struct driver_queue *q = &r.d.queues[r.row->queue];
        assert_true(driver_add_direct(q, bufs, 2) >= 0);
        driver_kick(q);
        assert_true(driver_wait(q, &id, &len));
        driver_close(&r.d);
        vboard_close(&r.b);
    }
}

/* ---- a guest that goes on and on ---- */

static void *refill(void *opaque)
{
    struct race *r = opaque;
    uint8_t *avail = vboard_at(&r->b, r->avail), *used = vboard_at(&r->b, r->used);

    while (!atomic_load_explicit(&r->stop, memory_order_relaxed))
        virtq_store16(avail + 2, (uint16_t)(virtq_load16(used + 2) + r->size)); /* always as much as there can be */
    return NULL;
}

static void nothing(void *opaque)
{
}

/* The device's thread does other things between, comes to a stop when it is told to, and takes no more than a queue's worth in a turn. */
static void test_endless_guest(void **state)
{
    static const struct test_device echo = {"echo", &echo_type, NULL, 0};
    static const struct echo_conf conf;
    static struct race r;
    pthread_t thread;

    memset(&r, 0, sizeof(r));
    r.row = &echo;
    vboard_open(&r.b);
    driver_open(&r.d, &r.b, &echo_type, &conf);
    r.size = 64;
    r.area = vboard_alloc(&r.b, AREA, 4096);
    r.buf = vboard_alloc(&r.b, 4096, 4096);
    r.desc = r.area;
    r.avail = r.area + 0x4000;
    r.used = r.area + 0x8000;
    for (unsigned i = 0; i < r.size; i++) {
        store64(&r, r.desc + 16 * (uint64_t)i, r.buf);
        store64(&r, r.desc + 16 * (uint64_t)i + 8, 64 | (uint64_t)VIRTQ_DESC_WRITE << 32);
        store16(&r, r.avail + 4 + 2 * (uint64_t)i, (uint16_t)i);
    }
    start_device(&r);
    assert_int_equal(pthread_create(&thread, NULL, refill, &r), 0);
    driver_write(&r.d, r.d.notify, 2, 0);
    struct echo *e = (struct echo *)r.d.v;
    while (e->chains < 10000)
        driver_write(&r.d, r.d.notify, 2, 0);
    for (unsigned i = 0; i < 200; i++)
        iothread_call(r.b.io, nothing, NULL);
    virtio_pci_pause(r.d.dev);
    virtio_pci_resume(r.d.dev);
    driver_reset(&r.d);
    assert_true(e->largest_turn <= r.size);
    r.stop = true;
    pthread_join(thread, NULL);
    driver_close(&r.d);
    vboard_close(&r.b);
}

static int64_t device_cpu_ns(struct vboard *b)
{
    clockid_t clock;
    struct timespec ts;

    if (pthread_getcpuclockid(b->io->thread, &clock) || clock_gettime(clock, &ts))
        return 0;
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* The most that one notification can cost: every chain of the largest queue as long as an indirect table may make it. */
static void test_dearest_notification(void **state)
{
    static const struct echo_conf conf = {.queue_size = VIRTQ_SIZE_MAX};
    static struct vboard b;
    static struct driver d;

    vboard_open(&b);
    driver_open(&d, &b, &echo_type, &conf);
    driver_init(&d, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC);
    uint64_t table = vboard_alloc(&b, 16 * VIRTQ_SIZE_MAX, 16), buf = vboard_alloc(&b, 64, 1);
    for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
        uint8_t *at = vboard_at(&b, table + 16 * (uint64_t)i);
        store_le64(at, buf);
        store_le32(at + 8, 64);
        store_le16(at + 12, i + 1 < VIRTQ_SIZE_MAX ? VIRTQ_DESC_NEXT | VIRTQ_DESC_WRITE : VIRTQ_DESC_WRITE);
        store_le16(at + 14, (uint16_t)(i + 1));
    }
    struct driver_queue *q = &d.queues[0];
    for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
        uint8_t *at = vboard_at(&b, q->desc + 16 * (uint64_t)i);
        store_le64(at, table);
        store_le32(at + 8, 16 * VIRTQ_SIZE_MAX);
        store_le16(at + 12, VIRTQ_DESC_INDIRECT);
        store_le16(vboard_at(&b, q->avail + 4 + 2 * (uint64_t)i), (uint16_t)i);
    }
    vboard_drain(&b);
    int64_t before = device_cpu_ns(&b);
    virtq_store16(vboard_at(&b, q->avail + 2), VIRTQ_SIZE_MAX);
    driver_write(&d, q->notify, 2, 0);
    while (virtq_load16(vboard_at(&b, q->used + 2)) < VIRTQ_SIZE_MAX)
        vboard_drain(&b);
    struct echo *e = (struct echo *)d.v;
    assert_int_equal(e->chains, VIRTQ_SIZE_MAX);
    assert_true(e->largest_turn <= VIRTQ_SIZE_MAX / 32);
    print_message("# the dearest notification took %.1f ms of CPU in %u turns\n",
                  (double)(device_cpu_ns(&b) - before) / 1e6, e->notifies);
    driver_close(&d);
    vboard_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_endless_guest),
        cmocka_unit_test(test_dearest_notification),
    };
    return cmocka_run_group_tests_name("virtio race", tests, NULL, NULL);
}
