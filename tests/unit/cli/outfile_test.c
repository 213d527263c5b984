#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"
#include "cli/outfile.h"

static int enter_directory(void **state)
{
    char *dir = strdup("/tmp/outfile.XXXXXX");

    *state = dir;
    return dir && mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static unsigned entries(void)
{
    DIR *dir = opendir(".");
    unsigned n = 0;

    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static int leave_directory(void **state)
{
    unlink("out");
    unlink("link");
    int r = chdir("/") || rmdir(*state);
    free(*state);
    return r;
}

static void assert_holds(const char *path, const char *text)
{
    char buf[64] = {0};
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_int_equal(read(fd, buf, sizeof(buf) - 1), strlen(text));
    assert_string_equal(buf, text);
    close(fd);
}

static void test_whole_or_nothing(void **state)
{
    struct outfile f;
    struct err err;

    assert_int_equal(outfile_open(&f, "out", &err), 0);
    assert_int_equal(access("out", F_OK), -1); /* not before it is complete */
    assert_int_equal(outfile_commit(&f, "new", 3, &err), 0);
    outfile_close(&f);
    assert_holds("out", "new");

    assert_int_equal(outfile_open(&f, "out", &err), 0);
    outfile_close(&f); /* given up: the old content stays, and nothing else */
    assert_holds("out", "new");
    assert_int_equal(entries(), 1);
}

static void test_through_a_link(void **state)
{
    struct outfile f;
    struct err err;
    struct stat st;

    assert_int_equal(outfile_open(&f, "out", &err), 0);
    assert_int_equal(outfile_commit(&f, "old", 3, &err), 0);
    outfile_close(&f);
    assert_int_equal(symlink("out", "link"), 0);
    assert_int_equal(outfile_open(&f, "link", &err), 0);
    assert_int_equal(outfile_commit(&f, "linked", 6, &err), 0);
    outfile_close(&f);
    assert_holds("out", "linked");
    assert_int_equal(lstat("link", &st), 0);
    assert_true(S_ISLNK(st.st_mode));
}

static void test_refused(void **state)
{
    static const char *const paths[] = {"missing/out", ".", ""};
    struct outfile f;
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        assert_true(outfile_open(&f, paths[i], &err) < 0);
        assert_non_null(strstr(err.msg, paths[i]));
    }
    assert_int_equal(entries(), 0);
}

static void test_full_disk(void **state)
{
    struct outfile f;
    struct err err;

    assert_int_equal(outfile_open(&f, "/dev/full", &err), 0);
    assert_int_equal(outfile_commit(&f, "x", 1, &err), -ENOSPC);
    assert_non_null(strstr(err.msg, "/dev/full"));
    outfile_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_or_nothing, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_through_a_link, enter_directory, leave_directory),
        cmocka_unit_test_setup_teardown(test_refused, enter_directory, leave_directory),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("outfile", tests, NULL, NULL);
}
