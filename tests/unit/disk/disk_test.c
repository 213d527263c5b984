/* What all formats have in common, by way of raw: which format, what is refused, sizes, and when requests complete. */
#include "disk/disk.h"

#include "disk_fixture.h"

static void check_says(const char *path, const char *format, int want, const char *word)
{
    const struct disk_conf conf = {.path = path, .format = format};
    struct err err = {0};

    assert_int_equal(disk_check(&conf, &err), want);
    if (word)
        assert_non_null(strstr(err.msg, word));
}

static void test_format(void **state)
{
    check_says("a.img", NULL, 0, NULL);
    check_says("a.raw", NULL, 0, NULL);
    check_says("a.img", "raw", 0, NULL);
    check_says("a.iso", "raw", 0, NULL);
    check_says("a.iso", NULL, -EINVAL, "raw (.raw .img)");
    check_says("a", NULL, -EINVAL, "'a'");
    check_says("img", NULL, -EINVAL, "ending");
    check_says(".img", NULL, -EINVAL, "ending");
    check_says("a.img/b", NULL, -EINVAL, "ending");
    check_says("", NULL, -EINVAL, "ending");
    check_says("a.img", "vhdx", -EINVAL, "'vhdx'");
    check_says("a.img", "", -EINVAL, "''");
}

static struct disk *open_disk(struct disk_fixture *f)
{
    struct disk *disk;
    struct err err = {0};

    if (disk_open(&disk, &f->conf, f->loop, &err) < 0)
        fail_msg("%s", err.msg);
    return disk;
}

static void test_ranges(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[2048] = {0};

    fixture_make(f->path, 8192);
    struct disk *disk = open_disk(f);
    assert_int_equal(disk->size, 8192);
    static const struct {
        uint64_t offset;
        size_t len;
        int want;
    } cases[] = {
        {0, 512, 0},
        {8192 - 512, 512, 0},
        {8192, 0, 0},
        {0, 0, 0},
        {1, 512, -EINVAL},
        {0, 511, -EINVAL},
        {8192, 512, -EINVAL},
        {8192 - 512, 1024, -EINVAL},
        {UINT64_MAX - 511, 512, -EINVAL},
        {UINT64_MAX - 511, 1024, -EINVAL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (int op = DISK_READ; op <= DISK_ZERO; op++)
            if (op != DISK_FLUSH)
                assert_int_equal(fixture_do(f, disk, (enum disk_op)op, cases[i].offset, buf, cases[i].len),
                                 cases[i].want);
    assert_int_equal(fixture_do(f, disk, DISK_FLUSH, 12345, NULL, 1), 0);
    assert_int_equal(disk->under_way, 0);
    disk_close(disk);
}

static void test_under_way(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t buf[16][512];
    struct iovec iov[16];
    struct disk_request reqs[16];

    fixture_make(f->path, 8192);
    struct disk *disk = open_disk(f);
    for (unsigned i = 0; i < 16; i++) {
        iov[i] = (struct iovec){.iov_base = buf[i], .iov_len = 512};
        reqs[i] = (struct disk_request){
            .op = DISK_READ, .offset = i * 512 + (i == 3), .len = 512, .iov = &iov[i], .n_iov = 1};
        fixture_submit(f, disk, &reqs[i]);
        assert_int_equal(disk->under_way, i + 1);
    }
    fixture_wait(f);
    assert_int_equal(disk->under_way, 0);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(reqs[i].result, i == 3 ? -EINVAL : 0);
        if (i != 3)
            assert_int_equal(buf[i][5], fixture_byte(i * 512 + 5));
    }
    disk_close(disk);
}

static void test_read_only(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[512];

    fixture_make(f->path, 8192);
    f->conf.read_only = true;
    struct disk *disk = open_disk(f);
    assert_int_equal(fixture_do(f, disk, DISK_READ, 512, buf, 512), 0);
    assert_int_equal(buf[0], fixture_byte(512));
    assert_int_equal(fixture_do(f, disk, DISK_WRITE, 512, buf, 512), -EROFS);
    assert_int_equal(fixture_do(f, disk, DISK_DISCARD, 512, NULL, 512), -EROFS);
    assert_int_equal(fixture_do(f, disk, DISK_ZERO, 512, NULL, 512), -EROFS);
    assert_int_equal(fixture_do(f, disk, DISK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(disk_resize(disk, 16384, NULL), -EROFS);
    disk_close(disk);
}

/* Without discard, room stays and content may; zeroes are zeroes. */
static void test_discard_off(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t buf[65536];

    fixture_make(f->path, 1 << 20);
    uint64_t room = fixture_room(f->path);
    f->conf.discard = false;
    struct disk *disk = open_disk(f);
    assert_int_equal(fixture_do(f, disk, DISK_DISCARD, 0, NULL, 65536), 0);
    assert_int_equal(fixture_do(f, disk, DISK_READ, 0, buf, 65536), 0);
    assert_int_equal(buf[100], fixture_byte(100));
    assert_int_equal(fixture_do(f, disk, DISK_ZERO, 0, NULL, 65536), 0);
    assert_int_equal(fixture_do(f, disk, DISK_READ, 0, buf, 65536), 0);
    assert_int_equal(buf[100], 0);
    assert_int_equal(fixture_room(f->path), room);
    disk_close(disk);
}

/* The last block is not whole: it reads as zeroes behind the file's end, and a write to it makes it whole. */
static void test_odd_size(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[1024];

    fixture_make(f->path, 1000);
    struct disk *disk = open_disk(f);
    assert_int_equal(disk->size, 1024);
    assert_int_equal(fixture_do(f, disk, DISK_READ, 0, buf, 1024), 0);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(buf[i], i < 1000 ? fixture_byte(i) : 0);
    assert_int_equal(fixture_do(f, disk, DISK_WRITE, 512, buf + 512, 512), 0);
    assert_int_equal(fixture_size(f->path), 1024);
    disk_close(disk);
}

static void test_empty(void **state)
{
    struct disk_fixture *f = *state;
    struct disk *disk;
    struct err err = {0};

    fixture_make(f->path, 0);
    assert_int_equal(disk_open(&disk, &f->conf, f->loop, &err), -EINVAL);
    assert_null(disk);
    assert_non_null(strstr(err.msg, "empty"));
}

static void test_resize(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[512];

    fixture_make(f->path, 8192);
    struct disk *disk = open_disk(f);
    assert_int_equal(disk_resize(disk, 16384, NULL), 0);
    assert_int_equal(disk->size, 16384);
    assert_int_equal(fixture_size(f->path), 16384);
    assert_int_equal(fixture_do(f, disk, DISK_READ, 16384 - 512, buf, 512), 0);
    assert_int_equal(buf[0], 0);
    assert_int_equal(disk_resize(disk, 4096, NULL), 0);
    assert_int_equal(fixture_do(f, disk, DISK_READ, 4096, buf, 512), -EINVAL);
    assert_int_equal(disk_resize(disk, 4097, NULL), -EINVAL);
    assert_int_equal(disk_resize(disk, 0, NULL), -EINVAL);
    assert_int_equal(disk_resize(disk, UINT64_MAX - 511, NULL), -EINVAL);
    assert_int_equal(disk->size, 4096);
    disk_close(disk);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_format),      TEST(test_ranges),   TEST(test_under_way), TEST(test_read_only),
        TEST(test_discard_off), TEST(test_odd_size), TEST(test_empty),     TEST(test_resize),
    };
    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
