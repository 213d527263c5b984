/* The survey of engines: complete, in order, and of one mind with "auto". */
#include "engine/survey.h"

#include "unit.h"

static void all_in_order(void **state)
{
    static const char *const names[] = {
#define ENGINE(name, kind) #name,
#include "engine/engines.def"
#undef ENGINE
    };
    struct survey found[ARRAY_SIZE(names) + 1];
    struct survey few[1];

    assert_int_equal(survey_engines(found, ARRAY_SIZE(found)), ARRAY_SIZE(names));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        assert_string_equal(found[i].name, names[i]);
        assert_int_equal(found[i].usable, !found[i].reason.msg[0]);
        assert_true(!found[i].usable || found[i].rate > 0);
    }
    assert_int_equal(survey_engines(few, 1), 1);
    assert_string_equal(few[0].name, names[0]);
}

static void auto_takes_the_first_usable(void **state)
{
    struct survey found[16];
    size_t n = survey_engines(found, ARRAY_SIZE(found)), first = 0;

    while (first < n && !found[first].usable)
        first++;
    assert_true(first < n); /* the reference engine runs anywhere */
    for (size_t i = 0; i < n; i++)
        assert_int_equal(found[i].preferred, i == first);
    assert_string_equal(engine_find("auto", NULL)->name, found[first].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_in_order),
        cmocka_unit_test(auto_takes_the_first_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
