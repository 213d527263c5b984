/* Libraries that are loaded by those who need them: from one that every host has, and one that none has. */
#include "base/library.h"

#include <errno.h>
#include <math.h>

#include "unit.h"

LIBRARY_STUB(j0)

static const struct library_function functions[] = {LIBRARY_FUNCTION(j0)};

static void test_stub(void **ctx)
{
    struct library m = LIBRARY("libm.so.6", "Bessel functions", functions);
    volatile double zero = 0;
    struct err err;

    assert_int_equal(library_load(&m, &err), 0);
    assert_true(j0(zero) == 1);
    void *slot = library_slot_j0;
    assert_int_equal(library_load(&m, &err), 0);
    assert_ptr_equal(library_slot_j0, slot);
}

static void test_absent(void **ctx)
{
    struct library none = LIBRARY("libvireo-none.so.9", "nothing", functions);
    struct err err = {0};

    assert_int_equal(library_load(&none, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "libvireo-none.so.9, for nothing, cannot be loaded: "));
}

static void test_too_old(void **ctx)
{
    static void *slot;
    static const struct library_function newer[] = {{"j0_of_next_year", &slot}};
    struct library m = LIBRARY("libm.so.6", "Bessel functions", newer);
    struct err err = {0};

    assert_int_equal(library_load(&m, &err), -ENOENT);
    assert_string_equal(err.msg, "libm.so.6, for Bessel functions, is too old: it lacks j0_of_next_year");
    assert_false(m.loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stub),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_too_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
