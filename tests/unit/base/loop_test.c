#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../unit.h"
#include "base/loop.h"

#define N 100

struct order {
    struct loop *loop;
    struct loop_timer timers[N];
    int fired[N];
    int n_fired;
};

struct tick {
    struct order *order;
    int n;
};

static void fire(void *opaque)
{
    struct tick *t = opaque;
    t->order->fired[t->order->n_fired++] = t->n;
    if (t->order->n_fired == N - N / 4)
        loop_stop(t->order->loop);
}

/* Armed in a scrambled order, every fourth cancelled: the rest fire by deadline. */
static void test_timer_order(void **state)
{
    struct order order = {0};
    struct tick ticks[N];

    assert_int_equal(loop_open(&order.loop, NULL), 0);
    int64_t start = loop_now();
    for (int i = 0; i < N; i++) {
        int n = i * 37 % N;
        ticks[n] = (struct tick){&order, n};
        loop_timer_init(&order.timers[n], order.loop, fire, &ticks[n]);
        loop_timer_set(&order.timers[n], start + (N - n) * 1000);
    }
    for (int n = 0; n < N; n++)
        loop_timer_set(&order.timers[n], start + n * 1000); /* moved: now in ascending order */
    for (int n = 3; n < N; n += 4)
        loop_timer_cancel(&order.timers[n]);
    loop_run(order.loop);
    assert_int_equal(order.n_fired, N - N / 4);
    for (int i = 0, n = 0; i < order.n_fired; i++, n++) {
        if (n % 4 == 3)
            n++;
        assert_int_equal(order.fired[i], n);
    }
    loop_close(order.loop);
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

static void *post_later(void *opaque)
{
    assert_int_equal(loop_post(opaque, stop, opaque), 0);
    return NULL;
}

static void test_post_from_thread(void **state)
{
    struct loop *loop;
    pthread_t thread;

    assert_int_equal(loop_open(&loop, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, post_later, loop), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
    loop_close(loop);
}

#define N_EXCHANGES 200

struct exchange {
    struct loop *loop;
    struct loop_timer near, far;
    _Atomic int n; /* how often the loop's thread has been woken */
};

static void count(void *opaque)
{
    struct exchange *x = opaque;
    atomic_fetch_add(&x->n, 1);
}

/* Waits until the loop has been woken n times, and perhaps sleeps again. */
static void wait_for(struct exchange *x, int n)
{
    while (atomic_load(&x->n) < n)
        sched_yield();
}

/* By turns a post, a timer where there was none, and one before another: each must wake a loop that sleeps. */
static void *wake_again_and_again(void *opaque)
{
    struct exchange *x = opaque;

    for (int i = 0; i < N_EXCHANGES; i++) {
        if (i % 4 == 0)
            assert_int_equal(loop_post(x->loop, count, x), 0);
        else
            loop_timer_set(&x->near, i % 4 == 1 ? 0 : loop_now() + 100000);
        wait_for(x, i + 1);
        if (i % 4 == 1)
            loop_timer_set(&x->far, loop_now() + 3600 * NS_PER_SEC);
        else if (i % 4 == 2)
            loop_timer_cancel(&x->far);
    }
    loop_stop(x->loop);
    return NULL;
}

static void test_wakes_from_thread(void **state)
{
    struct exchange x = {0};
    pthread_t thread;

    assert_int_equal(loop_open(&x.loop, NULL), 0);
    loop_timer_init(&x.near, x.loop, count, &x);
    loop_timer_init(&x.far, x.loop, count, &x);
    assert_int_equal(pthread_create(&thread, NULL, wake_again_and_again, &x), 0);
    loop_run(x.loop);
    pthread_join(thread, NULL);
    assert_int_equal(x.n, N_EXCHANGES);
    loop_close(x.loop);
}

struct reader {
    struct loop *loop;
    struct loop_fd source;
    char got[8];
};

static void readable(void *opaque, uint32_t events)
{
    struct reader *r = opaque;
    assert_true(events & EPOLLIN);
    assert_int_equal(read(r->source.fd, r->got, sizeof(r->got)), 3);
    loop_fd_remove(r->loop, &r->source);
    loop_stop(r->loop);
}

static void test_fd(void **state)
{
    struct reader r = {0};
    int fds[2];

    assert_int_equal(loop_open(&r.loop, NULL), 0);
    assert_int_equal(pipe(fds), 0);
    r.source = (struct loop_fd){.fd = fds[0], .fn = readable, .opaque = &r};
    assert_int_equal(loop_fd_add(r.loop, &r.source, EPOLLIN), 0);
    assert_int_equal(write(fds[1], "abc", 3), 3);
    loop_run(r.loop);
    assert_memory_equal(r.got, "abc", 3);
    close(fds[0]);
    close(fds[1]);
    loop_close(r.loop);
}

struct events {
    struct loop *loop;
    struct loop_event first, second, gone;
    _Atomic unsigned n_first, n_second;
    _Atomic bool ended;
};

static void on_first(void *opaque)
{
    struct events *e = opaque;

    if (++e->n_first == 3)
        loop_event_set(&e->second);
}

static void on_second(void *opaque)
{
    struct events *e = opaque;

    e->n_second++;
    loop_stop(e->loop);
}

static void on_gone(void *opaque)
{
    fail_msg("an event that was taken back");
}

static void *set_events(void *opaque)
{
    struct events *e = opaque;

    while (!e->ended) {
        unsigned before = e->n_first;
        loop_event_set(&e->first);
        while (e->n_first == before && !e->ended)
            sched_yield();
    }
    return NULL;
}

/* Once for however many calls before it runs; a thread that sleeps is woken. */
static void test_events(void **state)
{
    struct events e = {0};
    pthread_t thread;

    assert_int_equal(loop_open(&e.loop, NULL), 0);
    loop_event_init(&e.first, e.loop, on_first, &e);
    loop_event_init(&e.second, e.loop, on_second, &e);
    loop_event_init(&e.gone, e.loop, on_gone, &e);
    loop_event_set(&e.gone);
    loop_event_set(&e.second);
    loop_event_set(&e.second);
    loop_event_fini(&e.gone);
    loop_run(e.loop);
    assert_int_equal(e.n_second, 1);
    assert_int_equal(pthread_create(&thread, NULL, set_events, &e), 0);
    loop_run(e.loop);
    e.ended = true;
    pthread_join(thread, NULL);
    assert_int_equal(e.n_second, 2);
    loop_close(e.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_timer_order),
        cmocka_unit_test(test_post_from_thread),
        cmocka_unit_test(test_wakes_from_thread),
        cmocka_unit_test(test_fd),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
