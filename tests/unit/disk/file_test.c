/* The file under an image: through io_uring and through threads, at odd offsets, at its end, and where it is locked or no file at all. */
#include "disk/file.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "disk_fixture.h"

static struct file *open_file(struct disk_fixture *f, bool threads)
{
    struct file *file;

    f->conf.threads = threads;
    assert_int_equal(file_open(&file, &f->conf, f->loop, NULL), 0);
    return file;
}

static void submit(struct disk_fixture *f, struct file *file, struct disk_request *req)
{
    unsigned left = ++f->left;

    req->done = fixture_done;
    req->opaque = f;
    file_submit(file, req);
    assert_int_equal(f->left, left);
}

static int act(struct disk_fixture *f, struct file *file, enum disk_op op, bool unmap, uint64_t offset, void *buf,
               size_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct disk_request req = {.op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1, .unmap = unmap};

    submit(f, file, &req);
    fixture_wait(f);
    return req.result;
}

static void transfers(struct disk_fixture *f, bool threads)
{
    uint8_t buf[5000];

    fixture_make(f->path, 10000);
    struct file *file = open_file(f, threads);
    assert_int_equal(file_size(file), 10000);

    /* At any alignment. */
    assert_int_equal(act(f, file, DISK_READ, false, 1234, buf, 3333), 0);
    for (size_t i = 0; i < 3333; i++)
        assert_int_equal(buf[i], fixture_byte(1234 + i));
    /* Over the end, and wholly behind it: zeroes. */
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(act(f, file, DISK_READ, false, 9000, buf, 5000), 0);
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(buf[i], i < 1000 ? fixture_byte(9000 + i) : 0);
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(act(f, file, DISK_READ, false, 1 << 20, buf, 5000), 0);
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(buf[i], 0);
    assert_int_equal(file_size(file), 10000);

    /* A write behind the end moves it, and leaves zeroes between. */
    memset(buf, 0x55, sizeof(buf));
    assert_int_equal(act(f, file, DISK_WRITE, false, 12345, buf, 55), 0);
    assert_int_equal(file_size(file), 12400);
    assert_int_equal(fixture_size(f->path), 12400);
    assert_int_equal(file_read(file, 9999, buf, 2401), 0);
    assert_int_equal(buf[0], fixture_byte(9999));
    for (size_t i = 1; i < 2401; i++)
        assert_int_equal(buf[i], i < 12345 - 9999 ? 0 : 0x55);
    assert_int_equal(act(f, file, DISK_FLUSH, false, 0, NULL, 0), 0);
    file_close(file);
}

static void test_transfers_ring(void **state)
{
    transfers(*state, false);
}

static void test_transfers_threads(void **state)
{
    transfers(*state, true);
}

#define N_AT_ONCE 700

/* More at once than the ring holds, of several vectors each. */
static void many(struct disk_fixture *f, bool threads)
{
    static uint8_t data[N_AT_ONCE][4][257];
    static struct iovec iov[N_AT_ONCE][4];
    static struct disk_request reqs[N_AT_ONCE];

    fixture_make(f->path, 1);
    struct file *file = open_file(f, threads);
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < N_AT_ONCE; i++) {
            for (unsigned k = 0; k < 4; k++) {
                iov[i][k] = (struct iovec){.iov_base = data[i][k], .iov_len = 257};
                memset(data[i][k], pass ? 0 : (int)(i + k * 3), 257);
            }
            reqs[i] = (struct disk_request){
                .op = pass ? DISK_READ : DISK_WRITE, .offset = i * 1028, .len = 1028, .iov = iov[i], .n_iov = 4};
            submit(f, file, &reqs[i]);
        }
        fixture_wait(f);
        for (unsigned i = 0; i < N_AT_ONCE; i++)
            assert_int_equal(reqs[i].result, 0);
    }
    for (unsigned i = 0; i < N_AT_ONCE; i++)
        for (unsigned k = 0; k < 4; k++)
            for (unsigned at = 0; at < 257; at++)
                assert_int_equal(data[i][k][at], (uint8_t)(i + k * 3));
    assert_int_equal(file_size(file), N_AT_ONCE * 1028);
    file_close(file);
}

static void test_many_ring(void **state)
{
    many(*state, false);
}

static void test_many_threads(void **state)
{
    many(*state, true);
}

/* More vectors than one call of the host takes. */
static void test_many_vectors(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t data[3000];
    static struct iovec iov[3000];
    struct disk_request req = {.op = DISK_WRITE, .offset = 10, .len = 3000, .iov = iov, .n_iov = 3000};

    for (unsigned i = 0; i < 3000; i++) {
        data[i] = fixture_byte(i);
        iov[i] = (struct iovec){.iov_base = &data[i], .iov_len = 1};
    }
    fixture_make(f->path, 1);
    struct file *file = open_file(f, false);
    submit(f, file, &req);
    fixture_wait(f);
    assert_int_equal(req.result, 0);
    memset(data, 0, sizeof(data));
    req.op = DISK_READ;
    submit(f, file, &req);
    fixture_wait(f);
    assert_int_equal(req.result, 0);
    for (unsigned i = 0; i < 3000; i++)
        assert_int_equal(data[i], fixture_byte(i));
    file_close(file);
}

static void test_holes(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t buf[256 << 10];

    fixture_make(f->path, 1 << 20);
    struct file *file = open_file(f, false);
    uint64_t room = fixture_room(f->path);
    assert_true(room >= 1 << 20);
    assert_int_equal(act(f, file, DISK_DISCARD, false, 256 << 10, NULL, 256 << 10), 0);
    assert_true(fixture_room(f->path) <= room - (256 << 10));
    assert_int_equal(act(f, file, DISK_ZERO, true, 512 << 10, NULL, 256 << 10), 0);
    assert_true(fixture_room(f->path) <= room - (512 << 10));
    /* Keeps the room; at odd offsets. */
    room = fixture_room(f->path);
    assert_int_equal(act(f, file, DISK_ZERO, false, 1001, NULL, 9999), 0);
    assert_int_equal(fixture_room(f->path), room);
    assert_int_equal(file_read(file, 0, buf, 20000), 0);
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(buf[i], i >= 1001 && i < 11000 ? 0 : fixture_byte(i));
    assert_int_equal(file_read(file, 512 << 10, buf, sizeof(buf)), 0);
    for (unsigned i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], 0);
    assert_int_equal(file_size(file), 1 << 20);
    file_close(file);
}

/* Somebody cuts the image off while it is in use: what was there is an error, not zeroes. */
static void cut_off(struct disk_fixture *f, bool threads)
{
    uint8_t buf[4096];

    fixture_make(f->path, 64 << 10);
    struct file *file = open_file(f, threads);
    assert_int_equal(truncate(f->path, 8192 + 100), 0);
    assert_int_equal(act(f, file, DISK_READ, false, 4096, buf, 4096), 0);
    assert_int_equal(act(f, file, DISK_READ, false, 8192, buf, 4096), -EIO);
    assert_int_equal(act(f, file, DISK_READ, false, 32768, buf, 4096), -EIO);
    file_close(file);
}

static void test_cut_off(void **state)
{
    cut_off(*state, false);
    cut_off(*state, true);
}

/* The file may not grow beyond a limit: a part is written, and the rest is an error. */
static void no_room(struct disk_fixture *f, bool threads)
{
    static uint8_t buf[8192];
    struct rlimit old, limit = {.rlim_cur = 20000, .rlim_max = RLIM_INFINITY};

    fixture_make(f->path, 16384);
    struct file *file = open_file(f, threads);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int r = act(f, file, DISK_WRITE, false, 16384, buf, sizeof(buf));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(r, -EFBIG);
    assert_int_equal(act(f, file, DISK_WRITE, false, 16384, buf, sizeof(buf)), 0);
    assert_int_equal(file_size(file), 24576);
    file_close(file);
}

static void test_no_room(void **state)
{
    no_room(*state, false);
    no_room(*state, true);
}

/* `path` is refused with `code`, and the message holds the path and `word`. */
static void refuses(struct disk_fixture *f, const char *path, bool read_only, int code, const char *word)
{
    struct file *file;
    struct err err = {0};

    f->conf.path = path;
    f->conf.read_only = read_only;
    assert_int_equal(file_open(&file, &f->conf, f->loop, &err), code);
    assert_null(file);
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, word));
    assert_null(strchr(err.msg, '\n'));
    f->conf.path = f->path;
    f->conf.read_only = false;
}

static void test_locks(void **state)
{
    struct disk_fixture *f = *state;
    struct file *readers[2];

    fixture_make(f->path, 4096);
    struct file *file = open_file(f, false);
    refuses(f, f->path, false, -EBUSY, "locked");
    refuses(f, f->path, true, -EBUSY, "locked");
    pid_t child = fork();
    if (child == 0) {
        struct file *other;
        _exit(file_open(&other, &f->conf, f->loop, NULL) == -EBUSY ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    file_close(file);

    f->conf.read_only = true;
    for (int i = 0; i < 2; i++)
        assert_int_equal(file_open(&readers[i], &f->conf, f->loop, NULL), 0);
    refuses(f, f->path, false, -EBUSY, "readonly");
    for (int i = 0; i < 2; i++)
        file_close(readers[i]);
    file_close(open_file(f, false));
}

static void test_no_file(void **state)
{
    struct disk_fixture *f = *state;
    char path[160];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    refuses(f, f->path, false, -ENOENT, "No such file");
    refuses(f, f->dir, false, -EINVAL, "directory");
    refuses(f, f->dir, true, -EINVAL, "directory");
    refuses(f, "/dev/null", false, -EINVAL, "character device");
    snprintf(path, sizeof(path), "%s/fifo", f->dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    refuses(f, path, true, -EINVAL, "FIFO");
    snprintf(path, sizeof(path), "%s/socket", f->dir);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    refuses(f, path, false, -EINVAL, "socket");
    close(fd);
}

static void test_no_right(void **state)
{
    struct disk_fixture *f = *state;

    if (geteuid() == 0) /* whom permissions do not hold up: be somebody else */
        assert_int_equal(seteuid(65534), 0);
    else
        skip();
    refuses(f, "/etc/passwd", false, -EACCES, "readonly");
    refuses(f, "/etc/shadow", true, -EACCES, "denied");
    assert_int_equal(seteuid(0), 0);
}

static void test_direct(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t buf[65536] __attribute__((aligned(4096)));
    struct file *file;

    fixture_make(f->path, 65536 + 100);
    f->conf.direct = true;
    if (file_open(&file, &f->conf, f->loop, NULL) < 0)
        skip(); /* a file system without */
    assert_int_equal(act(f, file, DISK_READ, false, 4096, buf, 8192), 0);
    for (unsigned i = 0; i < 8192; i++)
        assert_int_equal(buf[i], fixture_byte(4096 + i));
    /* Neither memory nor offset is aligned, then over the end. */
    assert_int_equal(act(f, file, DISK_READ, false, 777, buf + 1, 1000), 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(buf[1 + i], fixture_byte(777 + i));
    assert_int_equal(act(f, file, DISK_READ, false, 61440, buf, 8192), 0);
    for (unsigned i = 0; i < 8192; i++)
        assert_int_equal(buf[i], i < 4196 ? fixture_byte(61440 + i) : 0);
    memset(buf, 0x77, sizeof(buf));
    assert_int_equal(act(f, file, DISK_WRITE, false, 8192, buf, 4096), 0);
    assert_int_equal(act(f, file, DISK_WRITE, false, 8192 + 4096, buf, 10), 0);
    assert_int_equal(file_read(file, 8190, buf, 4200), 0);
    assert_int_equal(buf[1], fixture_byte(8191));
    for (unsigned i = 2; i < 2 + 4096 + 10; i++)
        assert_int_equal(buf[i], 0x77);
    assert_int_equal(buf[2 + 4096 + 10], fixture_byte(8192 + 4096 + 10));
    file_close(file);
}

/* Past the page cache, many at once: nothing of that is done on the loop's own thread. */
static void test_many_direct(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t data[64][4096] __attribute__((aligned(4096)));
    static struct iovec iov[64];
    static struct disk_request reqs[64];
    struct file *file;

    fixture_make(f->path, 1);
    f->conf.direct = true;
    if (file_open(&file, &f->conf, f->loop, NULL) < 0)
        skip();
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < 64; i++) {
            iov[i] = (struct iovec){.iov_base = data[i], .iov_len = 4096};
            memset(data[i], pass ? 0 : (int)i, 4096);
            reqs[i] = (struct disk_request){
                .op = pass ? DISK_READ : DISK_WRITE, .offset = i * 4096, .len = 4096, .iov = &iov[i], .n_iov = 1};
            submit(f, file, &reqs[i]);
        }
        fixture_wait(f);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(reqs[i].result, 0);
    }
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(data[i][4095], i);
    assert_int_equal(file_size(file), 64 * 4096);
    file_close(file);
}

/* Without the loop: all that is under way, of every kind, is done while the caller waits. */
static void test_wait(void **state)
{
    static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_ZERO, DISK_FLUSH, DISK_DISCARD};
    struct disk_fixture *f = *state;
    uint8_t buf[10][512];
    struct iovec iov[10];
    struct disk_request reqs[10];

    fixture_make(f->path, 10000);
    for (int threads = 0; threads < 2; threads++) {
        struct file *file = open_file(f, threads);
        for (unsigned i = 0; i < 10; i++) {
            iov[i] = (struct iovec){buf[i], sizeof(buf[i])};
            memset(buf[i], 0xee, sizeof(buf[i]));
            reqs[i] = (struct disk_request){
                .op = ops[i % 5], .offset = i * 600, .len = 512, .iov = &iov[i], .n_iov = 1, .result = 1};
            submit(f, file, &reqs[i]);
        }
        while (f->left)
            file_wait(file);
        file_wait(file); /* for nothing */
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(reqs[i].result, 0);
        assert_int_equal(file_read(file, 600, buf[1], 1), 0);
        assert_int_equal(buf[1][0], 0xee);
        file_close(file);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_transfers_ring), TEST(test_transfers_threads),
        TEST(test_many_ring),      TEST(test_many_threads),
        TEST(test_many_vectors),   TEST(test_holes),
        TEST(test_cut_off),        TEST(test_no_room),
        TEST(test_locks),          TEST(test_no_file),
        TEST(test_no_right),       TEST(test_direct),
        TEST(test_many_direct),    TEST(test_wait),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
