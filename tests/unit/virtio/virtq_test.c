#include <stdlib.h>

#include "../unit.h"
#include "oracle/rng.h"
#include "virtio/driver.h"
#include "virtio/echo.h"
#include "virtio/virtq_impl.h"

#define N_LAYOUTS 8 /* packed or not, indirect or not, event index or not */

struct rig {
    struct vboard b;
    struct driver d;
    struct echo *echo;
};

static uint64_t layout_features(unsigned n)
{
    return VIRTIO_F_VERSION_1 | (n & 1 ? VIRTIO_F_RING_PACKED : 0) | (n & 2 ? VIRTIO_F_INDIRECT_DESC : 0) |
           (n & 4 ? VIRTIO_F_EVENT_IDX : 0);
}

static struct rig *rig_open(const struct echo_conf *conf, uint64_t features)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &echo_type, conf);
    r->echo = (struct echo *)r->d.v;
    assert_int_equal(driver_init(&r->d, features), features);
    return r;
}

static void rig_close(struct rig *r)
{
    driver_close(&r->d);
    vboard_close(&r->b);
    free(r);
}

/* A chain that is to come back as it is: `n` buffers out and as many in, somewhere in the queue's own memory. */
struct chain {
    uint64_t out, in;
    uint32_t len;
    int id;
};

static void send_chain(struct rig *r, struct chain *c, struct rng *rng)
{
    struct driver_buf bufs[8];
    unsigned parts = 1 + rng_below(rng, 4), n = 0;
    uint32_t part = 1 + rng_below(rng, 100);

    c->len = part * parts;
    for (unsigned i = 0; i < c->len; i++)
        vboard_at(&r->b, c->out)[i] = (uint8_t)rng_next(rng);
    memset(vboard_at(&r->b, c->in), 0, c->len);
    for (unsigned i = 0; i < parts; i++)
        bufs[n++] = (struct driver_buf){.gpa = c->out + i * part, .len = part};
    for (unsigned i = 0; i < parts; i++)
        bufs[n++] = (struct driver_buf){.gpa = c->in + i * part, .len = part, .write = true};
    c->id = driver_add(&r->d.queues[0], bufs, n);
}

static void check_chain(struct rig *r, const struct chain *c, uint32_t written)
{
    assert_int_equal(written, c->len);
    assert_memory_equal(vboard_at(&r->b, c->in), vboard_at(&r->b, c->out), c->len);
}

#define N_CHAINS 24

/* Many rounds, so that every counter wraps; several chains at a time, which come back in another order. */
static void rounds(unsigned layout, unsigned size, unsigned hold)
{
    const struct echo_conf conf = {.queue_size = size, .hold = hold};
    struct rig *r = rig_open(&conf, layout_features(layout));
    struct driver_queue *q = &r->d.queues[0];
    struct rng rng = {.state = layout};
    struct chain chains[N_CHAINS], *by_id[VIRTQ_SIZE_MAX] = {0};

    for (unsigned i = 0; i < N_CHAINS; i++) {
        chains[i].out = i % 2 ? vboard_alloc(&r->b, 512, 1) : vboard_alloc_high(&r->b, 512, 1);
        chains[i].in = vboard_alloc(&r->b, 512, 1);
    }
    for (unsigned round = 0; round < 400; round++) {
        unsigned batch = hold ? hold : 1 + rng_below(&rng, N_CHAINS), sent = 0, id;
        uint32_t len;
        for (unsigned i = 0; i < batch; i++) {
            send_chain(r, &chains[i], &rng);
            if (chains[i].id < 0)
                break;
            by_id[chains[i].id] = &chains[i];
            sent++;
            if (rng_percent(&rng, 30))
                driver_kick(q);
        }
        driver_kick(q);
        for (unsigned i = 0; i < sent; i++) {
            assert_true(driver_wait(q, &id, &len));
            assert_non_null(by_id[id]);
            check_chain(r, by_id[id], len);
            by_id[id] = NULL;
        }
        assert_false(driver_get(q, &id, &len));
    }
    assert_int_equal(q->n_free, q->size);
    assert_int_equal(driver_status(&r->d), 15);
    rig_close(r);
}

static void test_round_trips(void **state)
{
    for (unsigned layout = 0; layout < N_LAYOUTS; layout++) {
        rounds(layout, 32, 0);
        rounds(layout, 256, 5);
    }
}

static void test_odd_packed_size(void **state)
{
    struct rig *r = rig_open(NULL, layout_features(7));
    struct driver_queue *q = &r->d.queues[0];
    uint8_t in[64], out[64];

    driver_reset(&r->d);
    assert_true(driver_negotiate(&r->d, layout_features(5)));
    driver_setup_queue(&r->d, 0, 7);
    driver_ready(&r->d);
    for (unsigned i = 0; i < 100; i++) {
        memset(out, (int)i, sizeof(out));
        assert_int_equal(driver_request(&r->d, 0, out, sizeof(out), in, sizeof(in)), sizeof(in));
        assert_memory_equal(in, out, sizeof(in));
    }
    assert_int_equal(q->n_free, 7);
    rig_close(r);
}

/* While the device works it wants no notifications; when it sleeps it wants one. */
static void test_notification_suppression(void **state)
{
    for (unsigned layout = 0; layout < N_LAYOUTS; layout++) {
        struct rig *r = rig_open(NULL, layout_features(layout));
        struct driver_queue *q = &r->d.queues[0];
        uint8_t byte = 1;
        for (unsigned i = 0; i < 50; i++) {
            assert_int_equal(driver_request(&r->d, 0, &byte, 1, &byte, 1), 1);
            vboard_drain(&r->b);
        }
        assert_int_equal(q->kicks, 50);
        rig_close(r);
    }
}

/* On the device's thread: a chain comes just when the device has looked for the last time before it asks to be notified. */
static void late_chain(void *opaque)
{
    struct rig *r = opaque;
    struct virtq *q = r->d.v->queues[0];
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};

    virtq_disable_notify(q);
    assert_null(virtq_pop(q));
    assert_false(virtq_ready(q));
    assert_true(driver_add(&r->d.queues[0], &buf, 1) >= 0);
    assert_true(virtq_enable_notify(q));
    struct virtq_elem *elem = virtq_pop(q);
    assert_non_null(elem);
    assert_int_equal(elem->in_len, 16);
    assert_int_equal(virtq_held(q), 1);
    virtq_push(q, elem, 16);
    assert_int_equal(virtq_held(q), 0);
    assert_false(virtq_enable_notify(q));
    virtq_signal(q);
}

static void test_no_notification_is_missed(void **state)
{
    for (unsigned layout = 0; layout < N_LAYOUTS; layout++) {
        struct rig *r = rig_open(NULL, layout_features(layout));
        unsigned id;
        uint32_t len;
        vboard_drain(&r->b);
        iothread_call(r->b.io, late_chain, r);
        assert_true(driver_wait(&r->d.queues[0], &id, &len));
        rig_close(r);
    }
}

/* The guest is interrupted once for what it asked to know of, and not for what it did not. */
static void test_interrupt_suppression(void **state)
{
    for (unsigned layout = 0; layout < N_LAYOUTS; layout++) {
        struct rig *r = rig_open(NULL, layout_features(layout));
        struct driver_queue *q = &r->d.queues[0];
        const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};
        uint8_t *avail = vboard_at(&r->b, q->avail);
        unsigned id, before = vboard_messages(&r->b, 0);
        uint32_t len;
        if (q->packed)
            store_le16(avail + 2, 1);
        else if (q->event_idx)
            store_le16(avail + 4 + 2 * q->size, 0x8000);
        else
            store_le16(avail, 1);
        for (unsigned i = 0; i < 10; i++) {
            assert_true(driver_add(q, &buf, 1) >= 0);
            driver_kick(q);
        }
        vboard_drain(&r->b);
        for (unsigned i = 0; i < 10; i++)
            assert_true(driver_get(q, &id, &len));
        assert_int_equal(vboard_messages(&r->b, 0), before);
        /* The fifth from here. */
        if (q->event_idx && q->packed) {
            store_le16(avail, (uint16_t)((q->used_idx + 4) | 0x8000));
            store_le16(avail + 2, 2);
        } else if (q->event_idx) {
            store_le16(avail + 4 + 2 * q->size, (uint16_t)(q->used_idx + 4));
        } else if (q->packed) {
            store_le16(avail + 2, 0);
        } else {
            store_le16(avail, 0);
        }
        for (unsigned i = 0; i < 8; i++) {
            assert_true(driver_add(q, &buf, 1) >= 0);
            driver_kick(q);
            vboard_drain(&r->b);
            unsigned expected = q->event_idx ? i >= 4 : i + 1;
            assert_int_equal(vboard_messages(&r->b, 0) - before, expected);
        }
        rig_close(r);
    }
}

/* Chains that the device gave up at a pause come again, in their order, also in another device that takes over its state. */
static void test_given_up_chains(void **state)
{
    for (unsigned layout = 0; layout < N_LAYOUTS; layout++) {
        const struct echo_conf hold = {.hold = 6};
        struct rig *r = rig_open(&hold, layout_features(layout));
        struct driver_queue *q = &r->d.queues[0];
        struct rng rng = {.state = 3};
        struct chain chains[6];
        for (unsigned i = 0; i < 6; i++) {
            chains[i].out = vboard_alloc(&r->b, 512, 1);
            chains[i].in = vboard_alloc(&r->b, 512, 1);
        }
        for (unsigned i = 0; i < 4; i++)
            send_chain(r, &chains[i], &rng);
        driver_kick(q);
        while (r->echo->chains < 4)
            ;
        virtio_pci_pause(r->d.dev);
        assert_int_equal(r->echo->n_held, 0);
        virtio_pci_resume(r->d.dev);
        while (r->echo->chains < 8) /* anew */
            ;
        send_chain(r, &chains[4], &rng);
        r->echo->saved = 77;

        struct stream out, in;
        stream_init_save(&out);
        virtio_pci_pause(r->d.dev);
        assert_int_equal(device_state(r->d.dev, &out), 0);
        struct driver second;
        driver_close(&r->d);
        driver_open(&second, &r->b, &echo_type, &hold);
        for (size_t cut = 0; cut < out.len; cut += cut + 40 < out.len ? 7 : 1) {
            stream_init_load(&in, out.data, cut);
            assert_true(device_state(second.dev, &in) < 0);
        }
        stream_init_load(&in, out.data, out.len);
        assert_int_equal(device_state(second.dev, &in), 0);
        assert_int_equal(in.pos, out.len);
        assert_int_equal(((struct echo *)second.v)->saved, 77);
        stream_fini(&out);

        /* The ring is what it was; the device is another. */
        q->d = &second;
        send_chain(r, &chains[5], &rng);
        driver_kick(q);
        for (unsigned i = 0; i < 6; i++) {
            unsigned id;
            uint32_t len;
            assert_true(driver_wait(q, &id, &len));
            assert_int_equal(id, chains[5 - i].id); /* held in their order, answered the last one first */
            check_chain(r, &chains[5 - i], len);
        }
        driver_close(&second);
        vboard_close(&r->b);
        free(r);
    }
}

/* A given-up chain moves the position in a packed ring on by no more than the ring has, whatever a saved state says. */
static void test_saved_slots(void **state)
{
    const struct echo_conf hold = {.hold = 6};
    struct rig *r = rig_open(&hold, layout_features(1));
    struct rng rng = {.state = 3};
    struct chain chain = {.out = vboard_alloc(&r->b, 512, 1), .in = vboard_alloc(&r->b, 512, 1)};
    struct stream out, in;
    unsigned loaded = 0;

    send_chain(r, &chain, &rng);
    driver_kick(&r->d.queues[0]);
    while (r->echo->chains < 1)
        ;
    stream_init_save(&out);
    virtio_pci_pause(r->d.dev);
    assert_int_equal(device_state(r->d.dev, &out), 0);
    for (size_t at = 0; at + 2 <= out.len; at++) {
        uint8_t was[2];
        memcpy(was, (uint8_t *)out.data + at, 2);
        memset((uint8_t *)out.data + at, 0xee, 2);
        stream_init_load(&in, out.data, out.len);
        struct virtq *q = r->d.v->queues[0];
        if (device_state(r->d.dev, &in) == 0)
            for (struct virtq_item *item = q->returned.first; item; item = item->next, loaded++)
                assert_in_range(item->slots, 1, q->regs.size);
        memcpy((uint8_t *)out.data + at, was, 2);
    }
    assert_true(loaded > 0);
    stream_fini(&out);
    virtio_pci_resume(r->d.dev);
    rig_close(r);
}

static void test_reset_drops_chains(void **state)
{
    const struct echo_conf hold = {.hold = 10};
    struct rig *r = rig_open(&hold, layout_features(0));
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};

    assert_true(driver_add(&r->d.queues[0], &buf, 1) >= 0);
    driver_kick(&r->d.queues[0]);
    while (r->echo->chains < 1)
        ;
    driver_init(&r->d, layout_features(1));
    assert_int_equal(r->echo->resets, 2); /* with that of opening */
    vboard_drain(&r->b);
    assert_int_equal(r->echo->chains, 1);
    rig_close(r);
}

/* A queue has its turn, and no more, however many chains come while it is served. */
static void test_turns(void **state)
{
    struct rig *r = rig_open(&(struct echo_conf){.queue_size = 16}, layout_features(0));
    struct driver_queue *q = &r->d.queues[0];
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};
    uint32_t len;

    for (unsigned i = 0, got = 0, id; got < 5000;) {
        while (i < 5000 && driver_add(q, &buf, 1) >= 0)
            i++;
        driver_kick(q);
        while (driver_get(q, &id, &len))
            got++;
    }
    assert_true(r->echo->largest_turn <= 16);
    rig_close(r);
}

static void test_iov(void **state)
{
    char a[] = "abc", b[] = "", c[] = "defgh", buf[16] = {0};
    const struct iovec iov[] = {{a, 3}, {b, 0}, {c, 5}};

    assert_int_equal(iov_read(iov, 3, 0, buf, sizeof(buf)), 8);
    assert_memory_equal(buf, "abcdefgh", 8);
    assert_int_equal(iov_read(iov, 3, 2, buf, 3), 3);
    assert_memory_equal(buf, "cde", 3);
    assert_int_equal(iov_read(iov, 3, 8, buf, 3), 0);
    assert_int_equal(iov_read(iov, 3, SIZE_MAX, buf, 3), 0);
    assert_int_equal(iov_write(iov, 3, 3, "XY", 2), 2);
    assert_string_equal(c, "XYfgh");
    assert_int_equal(iov_write(iov, 3, 7, "1234", 4), 1);
    assert_string_equal(c, "XYfg1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_odd_packed_size),
        cmocka_unit_test(test_notification_suppression),
        cmocka_unit_test(test_no_notification_is_missed),
        cmocka_unit_test(test_interrupt_suppression),
        cmocka_unit_test(test_given_up_chains),
        cmocka_unit_test(test_saved_slots),
        cmocka_unit_test(test_reset_drops_chains),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_iov),
    };
    return cmocka_run_group_tests_name("virtq", tests, NULL, NULL);
}
