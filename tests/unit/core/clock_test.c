#include "../unit.h"
#include "core/clock.h"

static void test_stands_still(void **state)
{
    struct loop *loop;
    struct clock clock;

    assert_int_equal(loop_open(&loop, NULL), 0);
    clock_init(&clock, loop, 1000000000);
    assert_int_equal(clock_now(&clock), 0);
    clock_start(&clock);
    int64_t a = clock_now(&clock);
    while (clock_now(&clock) == a)
        ;
    clock_stop(&clock);
    int64_t b = clock_now(&clock);
    assert_true(b > a);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(clock_now(&clock), b);
    clock_start(&clock);
    assert_true(clock_now(&clock) >= b);
    clock_fini(&clock);
    loop_close(loop);
}

static void test_ticks(void **state)
{
    /* A year at 3.58 MHz overflows 64 bits in between. */
    const int64_t year = 365 * INT64_C(86400) * NS_PER_SEC;

    assert_int_equal(clock_ticks(NS_PER_SEC, 3579545), 3579545);
    assert_int_equal(clock_ticks(year, 3579545), UINT64_C(3579545) * 86400 * 365);
    assert_int_equal(clock_ticks(999, 1000000), 0);
    assert_int_equal(clock_ticks_to_ns(1, 1193182), 839); /* 838.09 rounded up: never early */
    for (uint64_t t = 1; t < 2000; t++)
        assert_int_equal(clock_ticks(clock_ticks_to_ns(t, 1193182), 1193182), t);
    assert_true(clock_ticks_to_ns(UINT64_MAX, 1) > 0);
}

struct seen {
    struct loop *loop;
    struct clock *clock;
    struct vtimer a, b;
    int fired_a, fired_b;
    int64_t at;
};

static void on_a(void *opaque)
{
    struct seen *s = opaque;
    s->fired_a++;
    s->at = clock_now(s->clock);
    loop_stop(s->loop);
}

static void on_b(void *opaque)
{
    ((struct seen *)opaque)->fired_b++;
}

/* Set while stopped, a timer waits for the clock; cancelled, it does not fire. */
static void test_timer(void **state)
{
    struct seen s = {0};
    struct clock clock;

    assert_int_equal(loop_open(&s.loop, NULL), 0);
    clock_init(&clock, s.loop, 1000000000);
    s.clock = &clock;
    vtimer_init(&s.a, &clock, on_a, &s);
    vtimer_init(&s.b, &clock, on_b, &s);
    vtimer_set(&s.a, 2 * NS_PER_MS);
    vtimer_set(&s.b, 1 * NS_PER_MS);
    vtimer_cancel(&s.b);
    clock_start(&clock);
    loop_run(s.loop);
    assert_int_equal(s.fired_a, 1);
    assert_int_equal(s.fired_b, 0);
    assert_true(s.at >= 2 * NS_PER_MS);
    assert_int_equal(s.a.deadline, -1);
    vtimer_fini(&s.a);
    vtimer_fini(&s.b);
    assert_null(clock.timers);
    clock_fini(&clock);
    loop_close(s.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stands_still),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_timer),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
