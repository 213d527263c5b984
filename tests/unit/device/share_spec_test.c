#include "../unit.h"
#include "device/share_spec.h"

static void test_directory(void **state)
{
    char id[SHARE_SPEC_ID_SIZE];
    struct virtio_fs_conf c;
    struct err err;

    assert_int_equal(share_spec_parse("/srv/a,,b,tag=data", &c, id, &err), 0);
    assert_string_equal(c.source, "/srv/a,b");
    assert_string_equal(c.tag, "data");
    assert_int_equal(c.cache, VIRTIO_FS_CACHE_AUTO);
    assert_false(c.readonly);
    assert_string_equal(id, "");
    assert_int_equal(share_spec_parse("d,id=one,readonly,cache=none,tag=t,virtiofsd=/bin/x", &c, id, &err), 0);
    assert_true(c.readonly);
    assert_int_equal(c.cache, VIRTIO_FS_CACHE_NONE);
    assert_string_equal(c.virtiofsd, "/bin/x");
    assert_string_equal(id, "one");
}

static void test_socket(void **state)
{
    char id[SHARE_SPEC_ID_SIZE];
    struct virtio_fs_conf c;
    struct err err;

    assert_int_equal(share_spec_parse("socket=/run/fs.sock,tag=t", &c, id, &err), 0);
    assert_string_equal(c.source, "");
    assert_string_equal(c.socket, "/run/fs.sock");
    assert_int_equal(share_spec_parse("./socket=,tag=t", &c, id, &err), 0);
    assert_string_equal(c.source, "./socket=");
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "a directory"},
        {"/srv", "no tag="},
        {"/srv,tag=", "1 to"},
        {"/srv,tag=0123456789012345678901234567890123456", "1 to 36 bytes"},
        {"/srv,tag=a,tag=b", "twice"},
        {"/srv,tag=a,socket=/x", "no key"},
        {"/srv,tag=a,cache=all", "auto|always|none"},
        {"/srv,tag=a,readonly=on", "takes no value"},
        {"socket=/x,tag=a,virtiofsd=/y", "goes with a directory"},
        {"socket=,tag=a", "1 to"},
        {"/srv,tag=a,id=01234567890123456789012345678901", "1 to 31"},
    };
    char id[SHARE_SPEC_ID_SIZE];
    struct virtio_fs_conf c;
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(share_spec_parse(cases[i].text, &c, id, &err) < 0);
        if (!strstr(err.msg, cases[i].words))
            fail_msg("'%s' for '%s'", err.msg, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_socket),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("share_spec", tests, NULL, NULL);
}
