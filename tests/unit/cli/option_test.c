#include <errno.h>

#include "../unit.h"
#include "cli/run_options.h"

static struct err err;

static int parse(struct run_options *o, const char *first, const char *second)
{
    char *argv[] = {(char *)(uintptr_t)first, (char *)(uintptr_t)second, NULL};
    bool help;

    memset(o, 0, sizeof(*o));
    err.msg[0] = '\0';
    return option_parse(&run_option_table, first ? second ? 2 : 1 : 0, argv, o, &help, &err);
}

static void test_defaults(void **state)
{
    struct run_options o;

    assert_int_equal(parse(&o, NULL, NULL), 0);
    assert_string_equal(o.engine, "auto");
    assert_string_equal(o.console, "stdio");
    assert_int_equal(o.memory, 0); /* run decides, where no saved state does */
    assert_int_equal(o.cpus, 0);
    assert_int_equal(o.timeout, 0);
    assert_null(o.kernel);
    assert_false(o.no_reboot);
}

static void test_both_spellings(void **state)
{
    struct run_options o;

    assert_int_equal(parse(&o, "--memory", "3G"), 0);
    assert_int_equal(o.memory, 3 * GIB);
    assert_int_equal(parse(&o, "--memory=65536K", "--no-reboot"), 0);
    assert_int_equal(o.memory, 64 * MIB);
    assert_true(o.no_reboot);
    assert_int_equal(parse(&o, "--timeout", "2"), 0);
    assert_int_equal(o.timeout, 2 * NS_PER_SEC);
    assert_int_equal(parse(&o, "--append=", NULL), 0);
    assert_string_equal(o.append, "");
    assert_int_equal(parse(&o, "--cpus=2", "--cpus=16"), 0);
    assert_int_equal(o.cpus, 16);
}

/* One line that names the option, the value and what would do; no value is half taken. */
static void test_wrong_use(void **state)
{
    static const struct {
        const char *first, *second, *says;
    } cases[] = {
        {"--memory", "0", "0"},
        {"--memory", "-1", "-1"},
        {"--memory", "1Q", "1Q"},
        {"--memory", "", "memory"},
        {"--memory", "99999999999999999999", "99999999999999999999"},
        {"--memory", "16777216T", "16777216T"},
        {"--memory", NULL, "--memory"},
        {"--cpus", "0", "1 to 16"},
        {"--cpus", "17", "1 to 16"},
        {"--cpus", "2x", "2x"},
        {"--timeout", "-3", "-3"},
        {"--timeout", "nan", "nan"},
        {"--engine", "warp", "interp"},
        {"--console", "tty", "stdio"},
        {"--no-reboot=yes", NULL, "--no-reboot"},
        {"--memroy", "1G", "--memory"},
        {"stray", NULL, "stray"},
    };
    struct run_options o;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse(&o, cases[i].first, cases[i].second), -EINVAL);
        if (!strstr(err.msg, cases[i].says))
            fail_msg("%s %s: \"%s\" does not say \"%s\"", cases[i].first, cases[i].second, err.msg, cases[i].says);
        assert_null(strchr(err.msg, '\n'));
    }
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"kernel", "initrd", "memory"};

    assert_string_equal(option_nearest("kernal", names, 3), "kernel");
    assert_string_equal(option_nearest("intird", names, 3), "initrd");
    assert_null(option_nearest("zzz", names, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_both_spellings),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests_name("option", tests, NULL, NULL);
}
