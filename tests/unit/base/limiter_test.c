/* Token buckets: rates in the long run, bursts, debts, and numbers of any size. */
#include "base/limiter.h"

#include "../unit.h"

#define START (INT64_C(1000) * NS_PER_SEC)

/* Asks as soon as it may, until `until`; the operations that passed. */
static uint64_t run(struct limiter *l, uint64_t bytes, int64_t *now, int64_t until)
{
    uint64_t n = 0;

    while (*now < until) {
        int64_t when = limiter_take(l, 1, bytes, *now);
        if (when == 0) {
            n++;
        } else {
            assert_true(when > *now);
            *now = when;
        }
    }
    return n;
}

static void about(uint64_t got, uint64_t want)
{
    if (got < want - want / 100 || got > want + want / 100)
        fail_msg("%lu, not %lu", (unsigned long)got, (unsigned long)want);
}

static void test_no_limit(void **state)
{
    struct limiter l;

    limiter_init(&l, 0, 0, 0, 0);
    assert_false(limiter_limits(&l));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(limiter_take(&l, 1, UINT64_MAX, START), 0);
}

static void test_operations(void **state)
{
    static const uint64_t rates[] = {1, 3, 10, 100, 5000, 99999, 1000000};
    struct limiter l;

    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        int64_t now = START, seconds = rates[i] < 100 ? 1000 : 3;
        limiter_init(&l, rates[i], 1, 0, 0);
        assert_true(limiter_limits(&l));
        about(run(&l, 4096, &now, START + seconds * NS_PER_SEC), rates[i] * (uint64_t)seconds);
    }
}

static void test_bytes(void **state)
{
    static const uint64_t sizes[] = {1, 512, 4096, 1000000, 50000000}; /* the last two are beyond the burst */
    struct limiter l;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        int64_t now = START, seconds = sizes[i] == 1 ? 1 : sizes[i] > 1000000 ? 10000 : 100;
        limiter_init(&l, 0, 0, 5000000, 0);
        about(run(&l, sizes[i], &now, START + seconds * NS_PER_SEC) * sizes[i], 5000000 * (uint64_t)seconds + 500000);
    }
}

/* Whichever is scarcer holds. */
static void test_both(void **state)
{
    struct limiter l;
    int64_t now = START;

    limiter_init(&l, 1000, 1, 1000000, 4096);
    about(run(&l, 500, &now, START + 10 * NS_PER_SEC), 10000);
    now = START;
    limiter_init(&l, 1000, 1, 1000000, 4096);
    about(run(&l, 4000, &now, START + 10 * NS_PER_SEC), 2500);
}

static void test_burst(void **state)
{
    struct limiter l;
    int64_t now = START;

    limiter_init(&l, 100, 500, 0, 0);
    for (int i = 0; i < 500; i++)
        assert_int_equal(limiter_take(&l, 1, 0, now), 0);
    assert_int_equal(limiter_take(&l, 1, 0, now), now + NS_PER_SEC / 100);
    /* Refused is not taken: the answer stays. */
    assert_int_equal(limiter_take(&l, 1, 0, now), now + NS_PER_SEC / 100);
    /* Two seconds without any give two hundred; an hour gives the burst and no more. */
    now += 2 * NS_PER_SEC;
    for (int i = 0; i < 200; i++)
        assert_int_equal(limiter_take(&l, 1, 0, now), 0);
    assert_true(limiter_take(&l, 1, 0, now) > now);
    now += 3600 * NS_PER_SEC;
    for (int i = 0; i < 500; i++)
        assert_int_equal(limiter_take(&l, 1, 0, now), 0);
    assert_true(limiter_take(&l, 1, 0, now) > now);
}

/* What one bucket refuses is not taken from the other. */
static void test_refusal_takes_nothing(void **state)
{
    struct limiter l;

    limiter_init(&l, 10, 2, 1000, 1000);
    assert_int_equal(limiter_take(&l, 1, 1000, START), 0);
    for (int i = 0; i < 100; i++)
        assert_true(limiter_take(&l, 1, 1000, START) > START);
    assert_int_equal(limiter_take(&l, 1, 0, START), 0);
}

static void test_debt(void **state)
{
    struct limiter l;

    limiter_init(&l, 0, 0, 1000, 100);
    assert_int_equal(limiter_take(&l, 1, 5000, START), 0);
    /* 4900 in debt: a byte more once that is paid back. */
    int64_t when = limiter_take(&l, 1, 1, START);
    assert_int_equal(when, START + 4901 * (NS_PER_SEC / 1000));
    assert_int_equal(limiter_take(&l, 1, 1, when), 0);
}

static void test_extremes(void **state)
{
    static const uint64_t values[] = {1, 2, 1000, UINT32_MAX, UINT64_C(1) << 40, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};

    for (size_t r = 0; r < ARRAY_SIZE(values); r++)
        for (size_t b = 0; b < ARRAY_SIZE(values) + 1; b++)
            for (size_t n = 0; n < ARRAY_SIZE(values); n++) {
                struct limiter l;
                int64_t now = START;
                limiter_init(&l, 0, 0, values[r], b ? values[b - 1] : 0);
                for (int i = 0; i < 20; i++) {
                    int64_t when = limiter_take(&l, 1, values[n], now);
                    assert_true(when == 0 || when > now);
                    if (when > INT64_MAX / 2)
                        break; /* a century or more */
                    now = when ? when : now + 1;
                }
            }
    struct limiter l;
    limiter_init(&l, 0, 0, 1, 1);
    assert_int_equal(limiter_take(&l, 1, UINT64_MAX, START), 0);
    assert_true(limiter_take(&l, 1, 1, START) > START + INT64_C(3000000000) * NS_PER_SEC / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_limit), cmocka_unit_test(test_operations),
        cmocka_unit_test(test_bytes),    cmocka_unit_test(test_both),
        cmocka_unit_test(test_burst),    cmocka_unit_test(test_refusal_takes_nothing),
        cmocka_unit_test(test_debt),     cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests_name("limiter", tests, NULL, NULL);
}
