/* Sets of bits against an array of bytes. */
#include "disk/dirty.h"

#include <stdlib.h>

#include "../unit.h"

#define BITS (DIRTY_BITS * 3 + 77)

static void check(const struct dirty *d, const uint8_t *want, uint64_t bits)
{
    uint64_t count = 0, at = 0, run, n;

    for (uint64_t i = 0; i < bits; i++)
        count += want[i];
    assert_int_equal(dirty_count(d), count);
    for (dirty_next(d, 0, &run, &n); n; dirty_next(d, at, &run, &n)) {
        for (; at < run; at++)
            assert_false(want[at]);
        for (; at < run + n; at++)
            assert_true(want[at]);
        assert_true(at == bits || !want[at]);
    }
    for (; at < bits; at++)
        assert_false(want[at]);
}

static void random_runs(void **state)
{
    static uint8_t want[BITS * 2], saved[DIRTY_CHUNK];
    size_t room = 100;
    struct dirty d, copy;
    uint64_t bits = BITS;

    srandom(3);
    assert_int_equal(dirty_init(&d, bits, &room), 0);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t n = round % 20 == 19 ? DIRTY_BITS + 100 : (uint64_t)random() % 300 + 1;
        uint64_t first = (uint64_t)random() % (bits - n);
        dirty_set(&d, first, n);
        memset(want + first, 1, n);
        if (round % 50 == 10) {
            uint64_t size = (uint64_t)random() % BITS + BITS / 2;
            assert_int_equal(dirty_resize(&d, size), 0);
            if (size > bits)
                memset(want + bits, 1, size - bits);
            else
                memset(want + size, 0, bits - size);
            bits = size;
        }
        if (round % 7 == 0)
            check(&d, want, bits);
        if (round % 60 == 59) {
            dirty_clear(&d);
            memset(want, 0, sizeof(want));
        }
        if (round % 10 == 0) { /* there and back */
            assert_int_equal(dirty_init(&copy, bits, &room), 0);
            for (uint64_t at = 0; at < bits; at += 64 * 8) {
                dirty_save(&d, at, saved, 64);
                dirty_load(&copy, at, saved, 64);
            }
            check(&copy, want, bits);
            dirty_fini(&copy);
        }
    }
    dirty_fini(&d);
    assert_int_equal(room, 100);
}

/* Where there is no memory too many are set. */
static void no_room(void **state)
{
    size_t room = 1;
    uint64_t run, n;
    struct dirty d;

    assert_int_equal(dirty_init(&d, BITS, &room), 0);
    dirty_set(&d, 5, 1);
    dirty_set(&d, DIRTY_BITS + 5, 1);
    dirty_next(&d, 6, &run, &n);
    assert_int_equal(run, DIRTY_BITS);
    assert_int_equal(n, DIRTY_BITS);
    dirty_fini(&d);
    assert_int_equal(room, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_runs),
        cmocka_unit_test(no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
