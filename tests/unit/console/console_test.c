/* The backends from outside: what is refused, and a guest's bytes there and back through each. */
#include "console/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "../unit.h"

struct fixture {
    struct loop *loop;
    struct chardev *dev;
    struct console_hooks hooks;
    struct err err;
    char dir[32];
    char notice[128];
    int quits, powers, saves, fails;

    /* The guest's end: takes `capacity` bytes, and stops the loop when `want` bytes have come. */
    uint8_t got[256];
    size_t n_got, capacity, want;
};

static void on_power(void *opaque)
{
    ((struct fixture *)opaque)->powers++;
}

static void on_save(void *opaque)
{
    ((struct fixture *)opaque)->saves++;
}

static void on_quit(void *opaque)
{
    struct fixture *f = opaque;
    f->quits++;
    loop_stop(f->loop);
}

static void on_fail(void *opaque, const char *reason)
{
    struct fixture *f = opaque;
    f->fails++;
    loop_stop(f->loop);
}

static void on_notice(void *opaque, const char *line)
{
    struct fixture *f = opaque;
    snprintf(f->notice, sizeof(f->notice), "%s", line);
}

static size_t can_receive(void *opaque)
{
    struct fixture *f = opaque;
    return f->capacity - f->n_got;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
    struct fixture *f = opaque;

    assert_true(len <= f->capacity - f->n_got);
    memcpy(f->got + f->n_got, buf, len);
    f->n_got += len;
    if (f->n_got >= f->want)
        loop_stop(f->loop);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(loop_open(&f->loop, NULL), 0);
    f->hooks = (struct console_hooks){on_quit, on_power, on_save, on_fail, on_notice, f};
    f->capacity = f->want = sizeof(f->got);
    strcpy(f->dir, "/tmp/vireo-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    chardev_close(f->dev);
    loop_close(f->loop);
    assert_int_equal(rmdir(f->dir), 0); /* whatever a backend makes there, it or its test removes */
    free(f);
    return 0;
}

static void open_console(struct fixture *f, const char *spec)
{
    const struct chardev_receiver receiver = {can_receive, receive, NULL, f};

    assert_int_equal(console_open(&f->dev, spec, f->loop, &f->hooks, &f->err), 0);
    chardev_connect(f->dev, &receiver);
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

static void serve(struct fixture *f)
{
    assert_int_equal(loop_post(f->loop, stop, f->loop), 0);
    loop_run(f->loop);
}

/* Runs the loop until the guest has all of `text`. */
static void expect_input(struct fixture *f, const char *text)
{
    f->want = strlen(text);
    if (f->n_got < f->want)
        loop_run(f->loop);
    assert_int_equal(f->n_got, strlen(text));
    assert_memory_equal(f->got, text, f->n_got);
    f->n_got = 0;
    f->want = sizeof(f->got);
}

/* The guest writes `text`; it comes out at `fd`. */
static void expect_output(struct fixture *f, int fd, const char *text)
{
    char got[128];
    size_t n = 0;

    while (n < strlen(text)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        serve(f);
        if (poll(&p, 1, 1) != 1)
            continue;
        ssize_t r = read(fd, got + n, sizeof(got) - n);
        assert_true(r > 0);
        n += (size_t)r;
    }
    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, n);
}

static void guest_writes(struct fixture *f, const char *text)
{
    assert_int_equal(chardev_write(f->dev, (const uint8_t *)text, strlen(text)), strlen(text));
}

static void test_malformed(void **state)
{
    static const char *const wrong[] = {"",     "x",     "stdi", "stdios", "stdio:", "none:x",
                                        "file", "file:", "unix", "unix:",  ":"};
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(console_check(wrong[i], &f->err), -EINVAL);
        assert_non_null(strstr(f->err.msg, "stdio, pty, none, file:PATH, unix:PATH"));
        assert_null(strchr(f->err.msg, '\n'));
    }
    assert_int_equal(console_check("file:x", &f->err), 0);
    assert_int_equal(console_check("none", &f->err), 0);
}

static void test_file(void **state)
{
    struct fixture *f = *state;
    char spec[64], got[16];

    snprintf(spec, sizeof(spec), "file:%s/out", f->dir);
    open_console(f, spec);
    guest_writes(f, "hello");
    chardev_close(f->dev); /* writes what is left */
    f->dev = NULL;
    int fd = open(spec + 5, O_RDONLY);
    assert_int_equal(read(fd, got, sizeof(got)), 5);
    assert_memory_equal(got, "hello", 5);
    close(fd);
    unlink(spec + 5);

    snprintf(spec, sizeof(spec), "file:%s/absent/out", f->dir);
    assert_int_equal(console_open(&f->dev, spec, f->loop, &f->hooks, &f->err), -ENOENT);
    assert_non_null(strstr(f->err.msg, "/absent/out"));
}

static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void test_unix(void **state)
{
    struct fixture *f = *state;
    struct chardev *second;
    char spec[64];
    const char *path = spec + 5;
    struct stat st;

    snprintf(spec, sizeof(spec), "unix:%s/sock", f->dir);
    open_console(f, spec);
    guest_writes(f, "before ");
    int first = connect_to(path);
    guest_writes(f, "and after");
    expect_output(f, first, "before and after");
    assert_int_equal(write(first, "typed", 5), 5);
    expect_input(f, "typed");

    /* The second client waits for the first to go. */
    int next = connect_to(path);
    assert_int_equal(write(next, "next", 4), 4);
    serve(f);
    assert_int_equal(f->n_got, 0);
    close(first);
    expect_input(f, "next");
    guest_writes(f, "hi");
    expect_output(f, next, "hi");
    close(next);

    /* The path is in use: another vireo does not take it over. */
    assert_int_equal(console_open(&second, spec, f->loop, &f->hooks, &f->err), -EADDRINUSE);
    chardev_close(f->dev);
    f->dev = NULL;
    assert_int_equal(stat(path, &st), -1);
}

static void test_unix_path_taken(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char spec[64], long_spec[256] = "unix:";
    const char *path = spec + 5;

    snprintf(spec, sizeof(spec), "unix:%s/sock", f->dir);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(console_open(&f->dev, spec, f->loop, &f->hooks, &f->err), -EEXIST);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);

    /* A socket left behind by a process that died is replaced. */
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    open_console(f, spec);

    memset(long_spec + 5, 'a', 200);
    struct chardev *second;
    assert_int_equal(console_open(&second, long_spec, f->loop, &f->hooks, &f->err), -ENAMETOOLONG);
}

static void test_pty(void **state)
{
    struct fixture *f = *state;

    open_console(f, "pty");
    const char *path = strchr(f->notice, '/');
    assert_non_null(path);
    guest_writes(f, "early\r\n");
    for (int i = 0; i < 3; i++) { /* opened, closed, opened again */
        int fd = open(path, O_RDWR | O_NOCTTY);
        assert_true(fd >= 0);
        expect_output(f, fd, i ? "again\r\n" : "early\r\n");
        assert_int_equal(write(fd, "ab\r\x03", 4), 4);
        expect_input(f, "ab\r\x03");
        close(fd);
        serve(f);
        serve(f);
        guest_writes(f, "again\r\n");
    }
}

/* Puts `in` and `out` at 0 and 1 for a stdio console; returns copies of what was there. */
struct std_fds {
    int in, out;
};

static struct std_fds swap_stdio(int in, int out)
{
    struct std_fds old = {dup(0), dup(1)};
    dup2(in, 0);
    dup2(out, 1);
    return old;
}

static void restore_stdio(struct std_fds old)
{
    dup2(old.in, 0);
    dup2(old.out, 1);
    close(old.in);
    close(old.out);
}

/* A file as standard input: all of it comes, as the guest takes it, Ctrl-A and all; its end is no event. */
static void test_stdio_from_file(void **state)
{
    struct fixture *f = *state;
    char path[64];
    int out[2];

    snprintf(path, sizeof(path), "%s/in", f->dir);
    int in = open(path, O_CREAT | O_RDWR, 0600);
    unlink(path);
    assert_int_equal(write(in, "one\x01xtwo", 8), 8);
    lseek(in, 0, SEEK_SET);
    assert_int_equal(pipe(out), 0);
    struct std_fds old = swap_stdio(in, out[1]);
    open_console(f, "stdio");
    restore_stdio(old);

    f->capacity = 4;
    expect_input(f, "one\x01");
    chardev_accept_input(f->dev);
    expect_input(f, "xtwo");
    assert_int_equal(f->quits, 0);
    guest_writes(f, "out");
    expect_output(f, out[0], "out");
    assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0); /* what others share is as it was */
    close(in);
    close(out[0]);
    close(out[1]);
}

static int open_terminal(int *slave)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    char path[64];

    assert_true(master >= 0);
    assert_int_equal(grantpt(master) | unlockpt(master) | ptsname_r(master, path, sizeof(path)), 0);
    *slave = open(path, O_RDWR | O_NOCTTY);
    assert_true(*slave >= 0);
    return master;
}

static void test_stdio_keys(void **state)
{
    struct fixture *f = *state;
    struct termios before = {0}, during, after = {0};
    int slave, master = open_terminal(&slave);

    tcgetattr(slave, &before);
    struct std_fds old = swap_stdio(slave, slave);
    open_console(f, "stdio");
    restore_stdio(old);
    tcgetattr(slave, &during);
    assert_int_equal(during.c_lflag & (ICANON | ECHO | ISIG), 0);

    assert_int_equal(write(master,
                           "a\x01\x01"
                           "b\x01zc\x03\x01p\x01s",
                           12),
                     12);
    expect_input(f, "a\x01"
                    "bc\x03");
    assert_int_equal(f->powers, 1);
    assert_int_equal(f->saves, 1);
    /* A guest that takes nothing can still be ended. */
    f->capacity = 0;
    for (int i = 0; i < 20; i++) {
        static const uint8_t many[500] = {0};
        assert_int_equal(write(master, many, sizeof(many)), sizeof(many));
        serve(f);
    }
    assert_int_equal(write(master, "\x01x", 2), 2);
    loop_run(f->loop);
    assert_int_equal(f->quits, 1);

    chardev_close(f->dev);
    f->dev = NULL;
    tcgetattr(slave, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    close(slave);
    close(master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unix_path_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stdio_from_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stdio_keys, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
