/* Room that thin images promise: who they are, when there is too little, and when that is over. */
#include "disk/disk_space.h"

#include <sys/stat.h>

#include "disk/disk_known.h"
#include "disk/disk_thin.h"
#include "disk_fixture.h"

#define LARGE (UINT64_C(1) << 43) /* more than any host of tests has free */

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t bytes;
        unsigned percent;
    } cases[] = {
        {"10%", true, 0, 10},  {"0%", true, 0, 0},       {"100%", true, 0, 100},       {"0", true, 0, 0},
        {"5", true, 5, 0},     {"2G", true, 2 * GIB, 0}, {"101%", false, 0, 0},        {"-1%", false, 0, 0},
        {"10%%", false, 0, 0}, {"%", false, 0, 0},       {"4294967306%", false, 0, 0}, {"1.5G", false, 0, 0},
    };
    struct disk_space_limit limit;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(disk_space_parse(cases[i].text, &limit), cases[i].good);
        if (cases[i].good) {
            assert_int_equal(limit.bytes, cases[i].bytes);
            assert_int_equal(limit.percent, cases[i].percent);
        }
    }
}

/* The list is in a directory of the test's own. */
static void own_state(const struct disk_fixture *f)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/state", f->dir);
    assert_int_equal(setenv("XDG_STATE_HOME", path, 1), 0);
}

static void make_sparse(const char *path)
{
    fixture_make(path, 0);
    assert_int_equal(truncate(path, (off_t)LARGE), 0);
}

static void count(void *opaque, const char *format, const char *path)
{
    unsigned *n = opaque;
    char want[64];

    assert_string_equal(format, "raw");
    snprintf(want, sizeof(want), "/with a space/%u.img", n[1]++);
    n[0] += strcmp(path, want) == 0;
}

static void test_known(void **state)
{
    struct disk_fixture *f = *state;
    unsigned n[2] = {0, 0};
    char path[64];

    own_state(f);
    disk_known_each(count, n);
    assert_int_equal(n[1], 0);
    for (unsigned twice = 0; twice < 2; twice++) {
        for (unsigned i = 0; i < 20; i++) {
            snprintf(path, sizeof(path), "/with a space/%u.img", i);
            disk_known_add("raw", path);
        }
    }
    disk_known_add("raw", "/two\nlines");
    disk_known_each(count, n);
    assert_int_equal(n[0], 20);
    assert_int_equal(n[1], 20);
    for (unsigned i = 20; i <= DISK_KNOWN_MAX; i++) {
        snprintf(path, sizeof(path), "/with a space/%u.img", i);
        disk_known_add("raw", path);
    }
    n[0] = 0;
    n[1] = DISK_KNOWN_MAX / 2; /* the older half has gone */
    disk_known_each(count, n);
    assert_int_equal(n[0], DISK_KNOWN_MAX / 2 + 1);
}

static void count_all(void *opaque, const char *format, const char *path)
{
    assert_int_equal(*path, '/');
    ++*(unsigned *)opaque;
}

/* What somebody has made of the list does no harm. */
static void test_known_junk(void **state)
{
    struct disk_fixture *f = *state;
    char path[128];
    unsigned n = 0;

    own_state(f);
    disk_known_add("raw", "/a.img");
    snprintf(path, sizeof(path), "%s/state/vireo/images", f->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "\n\nraw\n /\nraw relative\nqcow2 /b\n%c /c\nraw /no end", 0);
    assert_int_equal(fclose(file), 0);
    disk_known_each(count_all, &n);
    assert_int_equal(n, 1); /* of text, which ends where there is a zero */
    assert_int_equal(truncate(path, 1 << 24), 0);
    n = 0;
    disk_known_each(count_all, &n);
    assert_int_equal(n, 0);
    disk_known_add("raw", "/a.img");
    disk_known_each(count_all, &n);
    assert_int_equal(n, 1);
}

/* Images in other directories count too, once, by the format that they were opened with. */
static void test_promises(void **state)
{
    struct disk_fixture *f = *state;
    struct disk_promises sum;
    char other[128], path[160], again[160];

    own_state(f);
    make_sparse(f->path);
    snprintf(other, sizeof(other), "%s/other", f->dir);
    assert_int_equal(mkdir(other, 0700), 0);
    snprintf(path, sizeof(path), "%s/nameless", other);
    make_sparse(path);
    assert_int_equal(disk_thin_promises(f->path, "raw", &sum), 0);
    assert_int_equal(sum.images, 1);
    assert_int_equal(sum.promised, LARGE);
    assert_int_equal(disk_thin_note(path, "raw"), LARGE);
    snprintf(again, sizeof(again), "%s/again", other);
    assert_int_equal(link(path, again), 0);
    assert_int_equal(disk_thin_note(again, "raw"), LARGE);
    assert_int_equal(disk_thin_note("/dev/null", "raw"), 0);
    assert_int_equal(disk_thin_note("nbd://there/it-is.img", "raw"), 0);
    assert_int_equal(disk_thin_promises(f->path, "raw", &sum), 0);
    assert_int_equal(sum.images, 2);
    assert_int_equal(sum.promised, 2 * LARGE);
    assert_true(sum.available > 0 && sum.available < LARGE);
    assert_int_equal(disk_thin_promises("/nowhere/a.img", "raw", &sum), -ENOENT);
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

/* One look, with other figures. */
static bool look(struct disk_space *space, struct loop *loop, uint64_t least)
{
    struct loop_timer end;
    uint64_t available;
    bool scarce;

    space->limit = (struct disk_space_limit){.bytes = least};
    space->counted = 0;
    loop_timer_init(&end, loop, stop, loop);
    loop_timer_set(&space->timer, 0);
    loop_timer_set(&end, 1);
    loop_run(loop);
    assert_true(disk_space_read(space, &available, &scarce));
    assert_true(available > 0);
    return scarce;
}

static void test_scarce(void **state)
{
    struct disk_fixture *f = *state;
    struct disk *disk;
    struct disk_space space;
    uint64_t available;
    bool scarce;

    own_state(f);
    make_sparse(f->path);
    assert_int_equal(disk_open(&disk, &f->conf, f->loop, NULL), 0);
    disk_space_init(&space, disk, &(struct disk_space_limit){.percent = 100});
    assert_true(disk_space_read(&space, &available, &scarce));
    assert_true(scarce); /* no file system is free to 100 % */
    assert_false(look(&space, f->loop, 1));
    assert_true(look(&space, f->loop, LARGE));
    assert_true(look(&space, f->loop, available - available / 32)); /* not much more than that: not over yet */
    assert_false(look(&space, f->loop, available / 2));
    assert_false(look(&space, f->loop, available - available / 32)); /* enough, before it was scarce */
    disk_space_fini(&space);
    disk_space_init(&space, disk, &(struct disk_space_limit){0});
    assert_false(disk_space_read(&space, &available, &scarce));
    disk_space_fini(&space);
    disk_close(disk);
}

/* What takes all its room is not touched by what others take. */
static void test_thick(void **state)
{
    struct disk_fixture *f = *state;
    struct disk *disk;
    struct disk_space space;

    own_state(f);
    int fd = open(f->path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(posix_fallocate(fd, 0, 65536), 0);
    close(fd);
    assert_int_equal(disk_open(&disk, &f->conf, f->loop, NULL), 0);
    disk_space_init(&space, disk, &(struct disk_space_limit){.bytes = 1});
    assert_false(look(&space, f->loop, LARGE));
    disk_space_fini(&space);
    disk_close(disk);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse), TEST(test_known),  TEST(test_known_junk),
        TEST(test_promises),          TEST(test_scarce), TEST(test_thick),
    };
    return cmocka_run_group_tests_name("disk_space", tests, NULL, NULL);
}
