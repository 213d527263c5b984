/* What --disk says. */
#include "disk/disk_spec.h"

#include "../unit.h"

static void test_all(void **state)
{
    struct disk_spec spec;
    struct disk_conf conf;

    assert_int_equal(disk_spec_parse(&spec,
                                     "a,,b.img,readonly,discard=off,iops=500,iops-burst=1000,bps=10M,bps-burst=1G,"
                                     "serial=S1,id=root,queues=4,direct,threads,on-error=pause,backing=/a,backing=b,,c",
                                     NULL),
                     0);
    assert_string_equal(spec.path, "a,b.img");
    assert_true(spec.read_only && spec.direct && spec.threads && !spec.discard);
    assert_int_equal(spec.iops, 500);
    assert_int_equal(spec.iops_burst, 1000);
    assert_int_equal(spec.bps, 10 << 20);
    assert_int_equal(spec.bps_burst, 1 << 30);
    assert_string_equal(spec.serial, "S1");
    assert_string_equal(spec.id, "root");
    assert_int_equal(spec.queues, 4);
    assert_int_equal(spec.on_error, DISK_ON_ERROR_PAUSE);
    assert_int_equal(spec.backing.n, 2);
    assert_string_equal(spec.backing.items[0], "/a");
    assert_string_equal(spec.backing.items[1], "b,c");
    disk_spec_conf(&spec, &conf);
    assert_string_equal(conf.path, "a,b.img");
    assert_null(conf.format);
    assert_true(conf.read_only && conf.direct && conf.threads && !conf.discard);
}

static void test_defaults(void **state)
{
    struct disk_spec spec;
    struct disk_conf conf;

    assert_int_equal(disk_spec_parse(&spec, "x,format=raw", NULL), 0);
    assert_true(spec.discard && !spec.read_only && !spec.direct && !spec.threads);
    assert_int_equal(spec.iops | spec.bps | spec.queues, 0);
    assert_int_equal(spec.on_error, DISK_ON_ERROR_ENOSPC);
    assert_int_equal(spec.space.percent, 10);
    disk_spec_conf(&spec, &conf);
    assert_string_equal(conf.format, "raw");
}

static void test_wrong(void **state)
{
    static const char *const cases[][2] = {
        {"", "FILE"},
        {",readonly", "FILE"},
        {"x", "ending"},
        {"x.img,format=floppy", "'floppy'"},
        {"x.img,format=", "format"},
        {"x.img,speed=1", "speed"},
        {"x.img,readonly=on", "readonly"},
        {"x.img,discard=maybe", "on|off"},
        {"x.img,discard", "discard"},
        {"x.img,iops=0", "iops"},
        {"x.img,iops=-1", "iops"},
        {"x.img,bps=10Q", "bps"},
        {"x.img,iops-burst=5", "needs iops"},
        {"x.img,iops=5,bps-burst=5", "needs bps"},
        {"x.img,queues=65", "queues"},
        {"x.img,on-error=ignore", "report|pause|enospc"},
        {"x.img,space-warn=120%", "100%"},
        {"x.img,space-warn=much", "much"},
        {"x.img,serial=123456789012345678901", "20"},
        {"x.img,serial=a b", "serial"},
        {"x.img,readonly,readonly", "twice"},
    };
    struct disk_spec spec;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct err err = {0};
        assert_int_equal(disk_spec_parse(&spec, cases[i][0], &err), -22);
        if (!strstr(err.msg, cases[i][1]))
            fail_msg("'%s': '%s' lacks '%s'", cases[i][0], err.msg, cases[i][1]);
        assert_null(strchr(err.msg, '\n'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_wrong),
    };
    return cmocka_run_group_tests_name("disk_spec", tests, NULL, NULL);
}
