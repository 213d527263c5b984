#include "../unit.h"
#include "device/balloon_spec.h"

static void test_accepted(void **state)
{
    char id[BALLOON_SPEC_ID_SIZE];
    struct virtio_balloon_conf c;
    struct err err;

    assert_int_equal(balloon_spec_parse("on", &c, id, &err), 0);
    assert_int_equal(c.target, 0);
    assert_int_equal(c.stats_secs, 0);
    assert_int_equal(balloon_spec_parse("target=256M,stats=5,id=b", &c, id, &err), 0);
    assert_int_equal(c.target, 256 * MIB);
    assert_int_equal(c.stats_secs, 5);
    assert_string_equal(id, "b");
}

static void test_refused(void **state)
{
    static const char *const cases[] = {"",
                                        "off",
                                        "on=1",
                                        "target=-1",
                                        "target=2T",
                                        "stats=1.5",
                                        "target=1,target=2",
                                        "on,id=01234567890123456789012345678901"};
    char id[BALLOON_SPEC_ID_SIZE];
    struct virtio_balloon_conf c;
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(balloon_spec_parse(cases[i], &c, id, &err) < 0);
        assert_non_null(strstr(err.msg, "balloon"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("balloon_spec", tests, NULL, NULL);
}
