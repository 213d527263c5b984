/* Rings between two processes: frames come out as they went in, a full ring refuses, and an end that writes nonsense is found out. */
#include "net/switch_ring.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "../unit.h"

#define SIZE SWITCH_RING_LEAST

static void *memory;
static struct switch_ring put, take;

static int start(void **state)
{
    memory = aligned_alloc(4096, switch_ring_bytes(4 * SIZE));
    memset(memory, 0, switch_ring_bytes(4 * SIZE));
    switch_ring_init(&put, memory, SIZE);
    switch_ring_init(&take, memory, SIZE);
    return 0;
}

static int stop(void **state)
{
    free(memory);
    return 0;
}

static int put_one(unsigned seed, size_t len)
{
    static uint8_t bytes[NET_FRAME_MAX + 1];
    const struct net_header header = {.gso_size = (uint16_t)seed, .csum_start = (uint16_t)len};
    size_t cut = len / 3;
    const struct iovec pieces[2] = {{bytes, cut}, {bytes + cut, len - cut}};

    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(seed * 31 + i);
    return switch_ring_put(&put, &header, pieces, 2);
}

static void take_one(unsigned seed, size_t len)
{
    struct net_header header;
    struct iovec frame;

    assert_int_equal(switch_ring_peek(&take, &header, &frame), 1);
    assert_int_equal(switch_ring_peek(&take, &header, &frame), 1); /* the same */
    assert_int_equal(header.gso_size, (uint16_t)seed);
    assert_int_equal(header.csum_start, (uint16_t)len);
    assert_int_equal(frame.iov_len, len);
    for (size_t i = 0; i < len; i++)
        if (((const uint8_t *)frame.iov_base)[i] != (uint8_t)(seed * 31 + i))
            fail();
    switch_ring_take(&take);
}

static int peek(void)
{
    struct net_header header;
    struct iovec frame;

    return switch_ring_peek(&take, &header, &frame);
}

/* Sizes of all kinds, several in the ring, many times around it. */
static void test_order(void **state)
{
    static const size_t sizes[] = {0, 1, 14, 60, 1514, 15000, NET_FRAME_MAX, 40000};
    unsigned in = 0, out = 0;

    srand(1);
    assert_int_equal(peek(), 0);
    while (out < 5000) {
        for (unsigned n = (unsigned)rand() % 6; n; n--)
            in += put_one(in, sizes[in % ARRAY_SIZE(sizes)]) == 0;
        for (unsigned n = (unsigned)rand() % 6; n && out < in; n--, out++)
            take_one(out, sizes[out % ARRAY_SIZE(sizes)]);
    }
    for (; out < in; out++)
        take_one(out, sizes[out % ARRAY_SIZE(sizes)]);
    assert_int_equal(peek(), 0);
}

static void test_full(void **state)
{
    unsigned n = 0;

    while (put_one(n, 1000) == 0)
        n++;
    assert_int_equal(n, SIZE / 1024);
    assert_int_equal(put_one(n, 0), -ENOSPC);
    take_one(0, 1000);
    assert_int_equal(put_one(n, 1000), 0);
    assert_int_equal(put_one(n + 1, NET_FRAME_MAX + 1), -ENOSPC);
    for (unsigned i = 1; i <= n; i++)
        take_one(i, 1000);
}

/* An empty ring goes back to its start, so that little of it is ever used. */
static void test_restart(void **state)
{
    switch_ring_init(&put, memory, 4 * SIZE);
    switch_ring_init(&take, memory, 4 * SIZE);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(put_one(i, 60000), 0);
        take_one(i, 60000);
    }
    const uint8_t *records = (const uint8_t *)memory + SWITCH_RING_HEAD;
    for (size_t i = SIZE + 65536; i < 4 * SIZE; i++)
        assert_int_equal(records[i], 0);
    /* That takes nothing from what fits in. */
    for (unsigned i = 0; i < 4 * SIZE / 1024; i++)
        assert_int_equal(put_one(i, 1000), 0);
    assert_int_equal(put_one(0, 0), -ENOSPC);
    for (unsigned i = 0; i < 4 * SIZE / 1024; i++)
        take_one(i, 1000);
}

static void test_waking(void **state)
{
    assert_false(switch_ring_wake(&put));
    assert_true(switch_ring_wait(&take));
    assert_int_equal(put_one(1, 60), 0);
    assert_true(switch_ring_wake(&put));
    assert_false(switch_ring_wake(&put));  /* once */
    assert_false(switch_ring_wait(&take)); /* there is something */
    take_one(1, 60);
    assert_false(switch_ring_wake(&put));
    assert_true(switch_ring_wait(&take));
}

/* The taker is told nonsense by the putter. */
static void test_hostile_putter(void **state)
{
    struct switch_ring_shared *shared = memory;
    struct switch_ring_record *first = (void *)((uint8_t *)memory + SWITCH_RING_HEAD);
    static const struct {
        uint64_t position;
        uint32_t length;
        int result;
    } cases[] = {
        {SIZE + 16, 60, -EPROTO},           /* more than there is */
        {UINT64_MAX - 15, 60, -EPROTO},     /* going back */
        {88, 60, -EPROTO},                  /* not where a record ends */
        {96, 100, -EPROTO},                 /* a record that is longer than what was put */
        {SIZE, NET_FRAME_MAX + 1, -EPROTO}, /* no frame */
        {SIZE, UINT32_MAX - 1, -EPROTO},    /* a length that wraps */
        {16, 0, -EPROTO},                   /* less than a record's head */
        {96, SWITCH_RING_SKIP, -EPROTO},    /* to an end that was not put */
        {SIZE, SWITCH_RING_SKIP, 0},        /* that is allowed, and nothing comes behind it */
        {96, 60, 1},                        /* all is well */
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        switch_ring_init(&take, memory, SIZE);
        atomic_store(&shared->put, cases[i].position);
        first->length = cases[i].length;
        assert_int_equal(peek(), cases[i].result);
    }
    /* A first byte between two records. */
    switch_ring_init(&take, memory, SIZE);
    atomic_store(&shared->start, 8);
    assert_int_equal(peek(), -EPROTO);
    atomic_store(&shared->start, 0);
    /* Two records in a row that say "go on at the start". */
    switch_ring_init(&take, memory, SIZE);
    take.mine = take.other = SIZE - 16;
    ((struct switch_ring_record *)((uint8_t *)first + SIZE - 16))->length = SWITCH_RING_SKIP;
    first->length = SWITCH_RING_SKIP;
    atomic_store(&shared->put, 2 * SIZE - 16);
    assert_int_equal(peek(), -EPROTO);
    /* A record that would go beyond the end. */
    switch_ring_init(&take, memory, SIZE);
    take.mine = take.other = SIZE - 32;
    ((struct switch_ring_record *)((uint8_t *)first + SIZE - 32))->length = 60;
    atomic_store(&shared->put, SIZE + 64);
    assert_int_equal(peek(), -EPROTO);
}

/* The putter is told nonsense by the taker. */
static void test_hostile_taker(void **state)
{
    struct switch_ring_shared *shared = memory;

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(put_one(i, 60000), 0);
    atomic_store(&shared->taken, UINT64_C(1) << 40);
    assert_int_equal(put_one(4, 60000), -EPROTO);
    atomic_store(&shared->taken, put.mine - SIZE - 1);
    assert_int_equal(put_one(4, 60000), -EPROTO);
}

static void *put_all(void *opaque)
{
    for (unsigned i = 0; i < 20000; i++)
        while (put_one(i, i % 3000) < 0)
            sched_yield();
    return NULL;
}

static void test_two_threads(void **state)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, put_all, NULL), 0);
    for (unsigned i = 0; i < 20000; i++) {
        while (peek() == 0)
            sched_yield();
        take_one(i, i % 3000);
    }
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, start, stop),
        cmocka_unit_test_setup_teardown(test_full, start, stop),
        cmocka_unit_test_setup_teardown(test_restart, start, stop),
        cmocka_unit_test_setup_teardown(test_waking, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_putter, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_taker, start, stop),
        cmocka_unit_test_setup_teardown(test_two_threads, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
