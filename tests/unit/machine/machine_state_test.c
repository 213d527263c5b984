/* Whole machines saved and loaded: on another engine every device says what it said, and no state whatever does harm. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit.h"
#include "base/log.h"
#include "machine/machine.h"
#include "state/saved.h"

#define HOSTILE 150 /* states; VIREO_TEST_STATES for more */

static const struct engine_type *engine(const char *name)
{
    struct err err;
    const struct engine_type *type = engine_find(name, &err);

    if (!type)
        fail_msg("%s", err.msg);
    return type;
}

/* The moment of saving, which lies in the first block behind section mark, names, counts, rates and the clock. */
static void forget_moment(struct saved *s)
{
    const size_t at = 20 + 16 + 16 + 4 + 8 + 8 + 8;

    memset(s->blocks[0].data + at, 0, 8);
}

static void assert_same(struct saved *a, struct saved *b)
{
    forget_moment(a);
    forget_moment(b);
    assert_int_equal(a->n, b->n);
    for (unsigned i = 0; i < a->n; i++) {
        const struct saved_block *x = &a->blocks[i], *y = &b->blocks[i];
        assert_int_equal(x->kind, y->kind);
        assert_int_equal(x->number, y->number);
        assert_int_equal(x->len, y->len);
        for (size_t at = i ? 0 : 16 + 20; at < x->len; at++) /* but for the engine's name */
            if (x->data[at] != y->data[at])
                fail_msg("block %u of kind %u (%.20s): byte %zu of %zu was %#x and is %#x", i, x->kind, x->data, at,
                         x->len, x->data[at], y->data[at]);
    }
}

static void test_round_trip(void **state)
{
    static const char *const engines[] = {"interp", "bt"};
    struct machine *m = saved_machine(engine("bt"), NULL, 0);
    struct saved first, again;

    saved_stir(m);
    saved_take(m, &first);
    machine_close(m);
    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++) {
        struct err err;
        int fd = saved_file(&first);
        if (saved_load(fd, engine(engines[i]), 0, &m, &err) < 0)
            fail_msg("%s", err.msg);
        close(fd);
        assert_int_equal(clock_now(&m->vm.clock), INT64_C(3001234567));
        saved_take(m, &again);
        assert_same(&first, &again);
        saved_free(&again);
        machine_close(m);
    }
    saved_free(&first);
}

/* Each device has a block, each block a device. */
static void test_missing(void **state)
{
    struct machine *m = saved_machine(engine("interp"), NULL, 0);
    struct saved s;
    struct err err;

    saved_stir(m);
    saved_take(m, &s);
    machine_close(m);
    for (unsigned i = 0; i < s.n; i++) {
        struct saved less = s, twice = s;
        if (s.blocks[i].kind == 2) /* memory that is not there is zeroes */
            continue;
        memmove(&less.blocks[i], &less.blocks[i + 1], (less.n - i - 1) * sizeof(less.blocks[0]));
        less.n--;
        int fd = saved_file(&less);
        assert_int_equal(saved_load(fd, engine("interp"), 0, &m, &err), -EPROTO);
        close(fd);
        twice.blocks[twice.n++] = s.blocks[i];
        fd = saved_file(&twice);
        int r = saved_load(fd, engine("interp"), 0, &m, &err);
        if (r == 0) /* the board, whose second state is as good as the first */
            machine_close(m);
        assert_true(r == -EPROTO || s.blocks[i].kind == 4);
        close(fd);
    }
    saved_free(&s);
}

/* Hashes that are right, and anything in the blocks: refused, or a machine that runs somehow. */
static void test_hostile(void **state)
{
    const char *more = getenv("VIREO_TEST_STATES");
    struct machine *m = saved_machine(engine("interp"), NULL, 0);
    unsigned refused = 0, n = more ? (unsigned)atoi(more) : HOSTILE;
    struct saved s;
    struct err err;

    log_set_level(LOG_LEVEL_ERROR);
    saved_stir(m);
    saved_take(m, &s);
    machine_close(m);
    srand(1);
    for (unsigned i = 0; i < n; i++) {
        struct saved_block *b = &s.blocks[rand() % s.n];
        size_t len = b->len;
        uint8_t *good = malloc(len + 1);
        memcpy(good, b->data, len);
        for (int edits = rand() % 4; edits >= 0 && len; edits--)
            b->data[rand() % len] = (uint8_t)(rand() % 3 ? rand() : rand() % 2 ? 0xff : 0);
        if (rand() % 16 == 0)
            b->len = rand() % (len + 1);
        int fd = saved_file(&s);
        int r = saved_load(fd, engine(i % 2 ? "bt" : "interp"), 2 * NS_PER_MS, &m, &err);
        close(fd);
        refused += r < 0;
        if (r == 0) {
            assert_int_equal(vm_run(&m->vm, &err), 0);
            machine_close(m);
        }
        memcpy(b->data, good, len);
        b->len = len;
        free(good);
    }
    assert_in_range(refused, n / 10, n);
    saved_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests_name("machine_state", tests, NULL, NULL);
}
