/* A file is whole or absent, where the file system has files without names, and where it seems to have none. */
#include "image/target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../unit.h"
#include "base/util.h"

#define SIZE 300000

struct place {
    char dir[64], path[96];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    strcpy(p->dir, "/tmp/vireo-target-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/image", p->dir);
    *state = p;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static int teardown(void **state)
{
    struct place *p = *state;

    nftw(p->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(p);
    return 0;
}

static unsigned entries(const struct place *p)
{
    DIR *dir = opendir(p->dir);
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static void put(const char *path, char fill)
{
    static char buf[SIZE];
    int fd = open(path, O_WRONLY);

    assert_true(fd >= 0);
    memset(buf, fill, sizeof(buf));
    assert_int_equal(write(fd, buf, sizeof(buf)), SIZE);
    assert_int_equal(close(fd), 0);
}

/* What all of the file is. */
static char content(const char *path)
{
    static char buf[SIZE + 1];
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_int_equal(read(fd, buf, sizeof(buf)), SIZE);
    close(fd);
    for (size_t i = 1; i < SIZE; i++)
        assert_int_equal(buf[i], buf[0]);
    return buf[0];
}

static struct image_target *begin(const struct place *p, bool replace, char fill)
{
    struct image_target *t;
    struct err err;

    if (image_target_open(&t, p->path, replace, &err))
        fail_msg("%s", err.msg);
    assert_false(image_target_in_place(t));
    put(image_target_path(t), fill);
    return t;
}

static void commit(struct image_target *t)
{
    struct err err;

    if (image_target_commit(t, &err))
        fail_msg("%s", err.msg);
    image_target_close(t);
}

static void test_new(void **state)
{
    const struct place *p = *state;
    struct image_target *t = begin(p, false, 'a');

    assert_int_equal(access(p->path, F_OK), -1);
    commit(t);
    assert_int_equal(content(p->path), 'a');
    assert_int_equal(entries(p), 1);
    image_target_close(begin(p, true, 'b'));
    image_target_close(NULL);
    assert_int_equal(content(p->path), 'a');
    assert_int_equal(entries(p), 1);
}

static void test_there(void **state)
{
    const struct place *p = *state;
    struct image_target *t = begin(p, false, 'a'), *late;
    struct err err;

    commit(begin(p, false, 'b')); /* it was there first */
    assert_int_equal(image_target_commit(t, &err), -EEXIST);
    assert_non_null(strstr(err.msg, p->path));
    image_target_close(t);
    assert_int_equal(content(p->path), 'b');
    assert_int_equal(image_target_open(&late, p->path, false, &err), -EEXIST);
    assert_null(late);
    assert_int_equal(entries(p), 1);
}

static void test_replace(void **state)
{
    const struct place *p = *state;
    struct place other = *p;
    struct stat st;

    commit(begin(p, true, 'a')); /* nothing is there yet */
    assert_int_equal(chmod(p->path, 0604), 0);
    snprintf(other.path, sizeof(other.path), "%s/link", p->dir);
    assert_int_equal(symlink("image", other.path), 0);
    struct image_target *t = begin(&other, true, 'b');
    assert_int_equal(content(p->path), 'a');
    commit(t);
    assert_int_equal(content(p->path), 'b');
    assert_int_equal(lstat(other.path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0604);
    assert_int_equal(entries(p), 2);
}

static void test_refused(void **state)
{
    const struct place *p = *state;
    struct image_target *t;
    char path[128];
    struct err err;

    assert_int_equal(image_target_open(&t, p->dir, true, &err), -EINVAL);
    assert_int_equal(mkfifo(p->path, 0600), 0);
    assert_int_equal(image_target_open(&t, p->path, true, &err), -EINVAL);
    assert_int_equal(unlink(p->path), 0);
    snprintf(path, sizeof(path), "%s/none/image", p->dir);
    assert_int_equal(image_target_open(&t, path, true, &err), -ENOENT);
    assert_int_equal(image_target_open(&t, "nbd://there/image", false, &err), -EINVAL);
    assert_int_equal(image_target_open(&t, "nbd://there/image", true, &err), 0);
    assert_true(image_target_in_place(t));
    assert_string_equal(image_target_path(t), "nbd://there/image");
    commit(t);
    assert_int_equal(entries(p), 0);
}

/* A name as long as the file system has leaves room for the one beside it. */
static void test_long_name(void **state)
{
    struct place *p = *state;
    char path[400];
    struct image_target *t;
    struct err err;

    snprintf(path, sizeof(path), "%s/%0255d", p->dir, 1);
    for (int replace = 0; replace < 2; replace++) {
        assert_int_equal(image_target_open(&t, path, replace, &err), 0);
        put(image_target_path(t), 'a');
        commit(t);
    }
    assert_int_equal(content(path), 'a');
    assert_int_equal(entries(p), 1);
}

static void write_again_and_again(const struct place *p, bool replace)
{
    for (char fill = 'a';; fill = fill == 'z' ? 'a' : (char)(fill + 1)) {
        commit(begin(p, replace, fill));
        if (!replace)
            assert_int_equal(unlink(p->path), 0);
    }
}

/* SIGKILL at any moment; litter: what it may leave behind beside the file. */
static void kill_writers(const struct place *p, bool replace, bool litter)
{
    for (int i = 0; i < 60; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            write_again_and_again(p, replace);
            _exit(1);
        }
        const struct timespec while_it_works = {.tv_nsec = (i * 7919 % 60 + 1) * 300000};
        nanosleep(&while_it_works, NULL);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        unsigned n = entries(p);
        if (access(p->path, F_OK) == 0) {
            content(p->path);
            n--;
            if (!replace)
                assert_int_equal(unlink(p->path), 0);
        }
        if (!litter)
            assert_int_equal(n, 0);
    }
}

static void test_killed(void **state)
{
    kill_writers(*state, false, false);
}

static void test_killed_replacing(void **state)
{
    kill_writers(*state, true, true); /* between link and rename there is a name */
}

static void test_killed_named(void **state)
{
    kill_writers(*state, false, true);
    kill_writers(*state, true, true);
}

/* From now on no file system has files without names, nor links. */
static void test_take_away(void **state)
{
    const struct place *p = *state;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_link, 6, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_linkat, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, O_TMPFILE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_TMPFILE, 2, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
    };
    const struct sock_fprog filter = {ARRAY_SIZE(code), code};

    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
    struct image_target *t = begin(p, false, 'a');
    assert_non_null(strstr(image_target_path(t), "/.image."));
    assert_int_equal(entries(p), 1);
    image_target_close(t);
    assert_int_equal(entries(p), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_new),
        TEST(test_there),
        TEST(test_replace),
        TEST(test_refused),
        TEST(test_long_name),
        TEST(test_killed),
        TEST(test_killed_replacing),
        TEST(test_take_away), /* for those that follow */
        TEST(test_new),
        TEST(test_there),
        TEST(test_replace),
        TEST(test_refused),
        TEST(test_long_name),
        TEST(test_killed_named),
    };
    return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
