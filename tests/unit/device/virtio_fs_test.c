#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"
#include "device/virtio_fs.h"
#include "virtio/back_end.h"
#include "virtio/driver.h"

#define PAGE      4096
#define VIRTIOFSD "/usr/lib/qemu/virtiofsd"

enum { HIGH_PRIORITY, REQUESTS };

struct fixture {
    char dir[64], path[80];
    struct back_end be;
    struct vboard b;
    struct driver d;
    uint64_t unique;

    /* For and from the back end's thread. */
    _Atomic bool keep, slow;
    uint8_t *scribble; /* guest memory that it overwrites before it reads the request */
    uint8_t seen[512]; /* the request */
    size_t n_seen;
    unsigned seen_out[8]; /* lengths of its pieces */
    uint32_t short_by;    /* says so many bytes less than it has written */
};

/* Answers with the header, and 0x77 in all the room there is. */
static int64_t serve(struct back_end *be, unsigned ring, struct iovec *out, unsigned n_out, struct iovec *in,
                     unsigned n_in)
{
    struct fixture *f = be->opaque;
    struct fuse_out_header reply = {0};
    uint64_t len = 0;

    if (f->scribble)
        memset(f->scribble, 0xff, sizeof(struct fuse_in_header));
    f->n_seen = 0;
    for (unsigned i = 0; i < n_out; i++) {
        size_t n = sizeof(f->seen) - f->n_seen < out[i].iov_len ? sizeof(f->seen) - f->n_seen : out[i].iov_len;
        memcpy(f->seen + f->n_seen, out[i].iov_base, n);
        f->n_seen += n;
        if (i < ARRAY_SIZE(f->seen_out))
            f->seen_out[i] = (unsigned)out[i].iov_len;
    }
    if (atomic_load(&f->keep))
        return -1;
    if (atomic_load(&f->slow))
        usleep(100000);
    for (unsigned i = 0; i < n_in; i++) {
        memset(in[i].iov_base, 0x77, in[i].iov_len);
        len += in[i].iov_len;
    }
    if (n_in == 0)
        return 0;
    reply.len = (uint32_t)len;
    reply.unique = ((struct fuse_in_header *)(void *)f->seen)->unique;
    memcpy(in[0].iov_base, &reply, sizeof(reply));
    return (int64_t)(len - f->short_by);
}

static void open_board(struct fixture *f, const struct virtio_fs_conf *conf)
{
    vboard_open(&f->b);
    driver_open(&f->d, &f->b, &virtio_fs_type, conf);
    driver_init(&f->d, DRIVER_ALL);
}

static void setup(struct fixture *f, bool readonly)
{
    memset(f, 0, sizeof(*f));
    strcpy(f->dir, "/tmp/vireo-fs-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/socket", f->dir);
    f->be.features = UINT64_C(1) << 32 | 1 << 30;
    f->be.protocol = 1 << 3;
    f->be.serve = serve;
    f->be.opaque = f;
    back_end_start(&f->be, f->path, -1);
    struct virtio_fs_conf conf = {.tag = "data", .readonly = readonly};
    strcpy(conf.socket, f->path);
    open_board(f, &conf);
}

static void close_board(struct fixture *f)
{
    driver_close(&f->d);
    vboard_close(&f->b);
}

static void teardown(struct fixture *f, bool back_end)
{
    close_board(f);
    if (back_end)
        back_end_stop(&f->be);
    unlink(f->path);
    rmdir(f->dir);
}

struct __attribute__((packed)) request {
    struct fuse_in_header head;
    uint8_t body[64];
};

/* Sends a request with a body, and returns the answer's error, or 1 where there is none. */
static int ask(struct fixture *f, unsigned queue, uint32_t opcode, const void *body, uint32_t len)
{
    struct request r = {
        .head = {.len = (uint32_t)sizeof(r.head) + len, .opcode = opcode, .unique = ++f->unique, .nodeid = 1}};
    struct {
        struct fuse_out_header head;
        uint8_t data[256];
    } answer = {0};

    if (len)
        memcpy(r.body, body, len);
    uint32_t n = driver_request(&f->d, queue, &r, r.head.len, &answer, sizeof(answer));
    if (n < sizeof(answer.head))
        return 1;
    assert_int_equal(answer.head.unique, r.head.unique);
    assert_int_equal(n, answer.head.len);
    return answer.head.error;
}

static struct virtio_fs_info info_of(struct fixture *f)
{
    struct virtio_fs_info info;

    virtio_fs_get(f->d.v, &info);
    return info;
}

static void test_config(void **state)
{
    struct fixture f;

    setup(&f, false);
    for (unsigned i = 0; i < 36; i++)
        assert_int_equal(driver_read(&f.d, f.d.config + i, 1), i < 4 ? "data"[i] : 0);
    assert_int_equal(driver_read(&f.d, f.d.config + 36, 4), 1);
    assert_int_equal(f.d.n_queues, 2);
    teardown(&f, true);
    assert_int_equal(f.be.bad, 0);
}

/* On both queues, with and without an answer; the requests arrive as they were. */
static void test_requests(void **state)
{
    struct fixture f;
    static const char body[] = "a name of a file";

    setup(&f, false);
    for (unsigned i = 0; i < 2000; i++) {
        assert_int_equal(ask(&f, i % 2, FUSE_LOOKUP, body, sizeof(body)), 0);
        assert_int_equal(f.n_seen, sizeof(struct fuse_in_header) + sizeof(body));
        assert_memory_equal(f.seen + sizeof(struct fuse_in_header), body, sizeof(body));
    }
    struct fuse_in_header forget = {.len = sizeof(forget), .opcode = FUSE_FORGET, .unique = 9};
    assert_int_equal(driver_request(&f.d, HIGH_PRIORITY, &forget, sizeof(forget), NULL, 0), 0);
    assert_int_equal(info_of(&f).requests, 2001);
    teardown(&f, true);
    assert_int_equal(f.be.bad, 0);
}

/* Pieces in both parts of RAM come and go where the guest has them; they are cut at the copied head's end, and nowhere else. */
static void test_pieces(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;

    setup(&f, false);
    uint64_t head = vboard_alloc(&f.b, PAGE, PAGE), body = vboard_alloc_high(&f.b, PAGE, PAGE),
             in = vboard_alloc_high(&f.b, 4 * PAGE, PAGE), reply = vboard_alloc(&f.b, PAGE, PAGE);
    const struct driver_buf bufs[] = {
        {head, 40, false}, {body, 100, false}, {reply, 16, true}, {in + PAGE, PAGE, true}, {in, PAGE / 2, true}};
    struct fuse_in_header h = {.len = 140, .opcode = FUSE_WRITE, .unique = 5};
    memcpy(vboard_at(&f.b, head), &h, sizeof(h));
    memset(vboard_at(&f.b, body), 0x11, 100);
    assert_true(driver_add(&f.d.queues[REQUESTS], bufs, ARRAY_SIZE(bufs)) >= 0);
    driver_kick(&f.d.queues[REQUESTS]);
    assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
    assert_int_equal(len, 16 + PAGE + PAGE / 2);
    assert_int_equal(f.seen_out[0], 40);
    assert_int_equal(f.seen_out[1] + f.seen_out[2], 100);
    assert_int_equal(f.seen[139], 0x11);
    assert_int_equal(*vboard_at(&f.b, in + PAGE), 0x77);
    assert_int_equal(vboard_at(&f.b, in)[PAGE / 2 - 1], 0x77);
    assert_int_equal(vboard_at(&f.b, in)[PAGE / 2], 0);
    assert_int_equal(vboard_at(&f.b, in)[2 * PAGE], 0);
    teardown(&f, true);
    assert_int_equal(f.be.bad, 0);
}

/* Code was decoded from where a file is read to: the engines hear of it, also where the back end owns up to less than it has written. */
static void test_stores_are_told(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;

    setup(&f, false);
    uint64_t page = vboard_alloc(&f.b, 3 * PAGE, PAGE);
    const struct driver_buf bufs[] = {{page, 40, false}, {page + PAGE, 2 * PAGE, true}};
    for (unsigned i = 1; i <= 2; i++) {
        uint8_t *host = vboard_at(&f.b, page + i * PAGE);
        atomic_fetch_or(&f.b.ram.page_flags[ram_page(&f.b.ram, host)], RAM_PAGE_CODE);
        ram_claim_code(&f.b.ram, host + 64, 64);
    }
    const struct ram_code *code = &f.b.ram.code[ram_page(&f.b.ram, vboard_at(&f.b, page + PAGE))];
    for (unsigned i = 1; i <= 2; i++) {
        struct fuse_in_header h = {.len = 40, .opcode = FUSE_READ, .unique = i};
        memcpy(vboard_at(&f.b, page), &h, sizeof(h));
        f.short_by = i == 2 ? 2 * PAGE - 32 : 0;
        assert_true(driver_add(&f.d.queues[REQUESTS], bufs, ARRAY_SIZE(bufs)) >= 0);
        driver_kick(&f.d.queues[REQUESTS]);
        assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
        assert_true(code[0].version >= i);
        assert_true(code[1].version >= i);
    }
    teardown(&f, true);
}

/* The guest changes a request while it is served: what was checked is what the back end reads. */
static void test_head_is_copied(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;

    setup(&f, true);
    uint64_t page = vboard_alloc(&f.b, 2 * PAGE, PAGE);
    const struct driver_buf bufs[] = {{page, 48, false}, {page + PAGE, 64, true}};
    struct fuse_in_header h = {.len = 48, .opcode = FUSE_OPEN, .unique = 3};
    memcpy(vboard_at(&f.b, page), &h, sizeof(h));
    f.scribble = vboard_at(&f.b, page);
    assert_true(driver_add(&f.d.queues[REQUESTS], bufs, ARRAY_SIZE(bufs)) >= 0);
    driver_kick(&f.d.queues[REQUESTS]);
    assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
    assert_int_equal(len, 64);
    assert_memory_equal(f.seen, &h, sizeof(h));
    teardown(&f, true);
}

/* Every operation there is, and some that there are not: what may change anything is refused, and does not reach the back end. */
static void test_readonly(void **state)
{
    static const uint32_t passes[] = {FUSE_LOOKUP,      FUSE_FORGET,  FUSE_GETATTR, FUSE_READLINK,     FUSE_READ,
                                      FUSE_STATFS,      FUSE_RELEASE, FUSE_FSYNC,   FUSE_GETXATTR,     FUSE_LISTXATTR,
                                      FUSE_FLUSH,       FUSE_INIT,    FUSE_OPENDIR, FUSE_READDIR,      FUSE_RELEASEDIR,
                                      FUSE_FSYNCDIR,    FUSE_GETLK,   FUSE_SETLK,   FUSE_SETLKW,       FUSE_ACCESS,
                                      FUSE_INTERRUPT,   FUSE_DESTROY, FUSE_LSEEK,   FUSE_BATCH_FORGET, FUSE_OPEN,
                                      FUSE_READDIRPLUS, FUSE_SYNCFS};
    static const struct {
        uint32_t flags;
        int error;
    } opens[] = {{O_RDONLY, 0},       {O_RDONLY | O_NOFOLLOW, 0},   {O_WRONLY, -EROFS},          {O_RDWR, -EROFS},
                 {O_ACCMODE, -EROFS}, {O_RDONLY | O_TRUNC, -EROFS}, {O_RDONLY | O_CREAT, -EROFS}};
    const uint8_t zeroes[64] = {0};
    struct fixture f;

    setup(&f, true);
    for (uint32_t opcode = 0; opcode < 70; opcode++) {
        bool pass = false;
        for (size_t i = 0; i < ARRAY_SIZE(passes); i++)
            pass |= passes[i] == opcode;
        uint64_t before = info_of(&f).requests;
        assert_int_equal(ask(&f, REQUESTS, opcode, zeroes, sizeof(zeroes)), pass ? 0 : -EROFS);
        assert_int_equal(info_of(&f).requests - before, pass);
    }
    for (size_t i = 0; i < ARRAY_SIZE(opens); i++) {
        struct fuse_open_in body = {.flags = opens[i].flags};
        assert_int_equal(ask(&f, REQUESTS, FUSE_OPEN, &body, sizeof(body)), opens[i].error);
    }
    assert_int_equal(ask(&f, REQUESTS, FUSE_OPEN, zeroes, 7), -EROFS); /* cut off: whatever it would mean */
    teardown(&f, true);
}

/* What would end virtiofsd does not get there. */
static void test_malformed(void **state)
{
    struct fixture f;
    struct fuse_in_header h = {.len = sizeof(h), .opcode = FUSE_GETATTR};
    struct fuse_out_header answer = {0};

    setup(&f, false);
    assert_int_equal(driver_request(&f.d, REQUESTS, &h, sizeof(h), &answer, sizeof(answer)), sizeof(answer));
    assert_int_equal(answer.error, -EINVAL); /* its number is 0 */

    uint64_t page = vboard_alloc(&f.b, PAGE, PAGE), reply = vboard_alloc(&f.b, PAGE, PAGE);
    const struct driver_buf big[] = {{page, 40, false}, {4 * GIB, 1 * MIB + PAGE, false}, {reply, 16, true}};
    unsigned id;
    uint32_t len;
    h.unique = 7;
    memcpy(vboard_at(&f.b, page), &h, sizeof(h));
    assert_true(driver_add(&f.d.queues[REQUESTS], big, ARRAY_SIZE(big)) >= 0);
    driver_kick(&f.d.queues[REQUESTS]);
    assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
    assert_int_equal(((int32_t *)(void *)vboard_at(&f.b, reply))[1], -EINVAL);
    assert_int_equal(info_of(&f).requests, 0);
    assert_int_equal(info_of(&f).refused, 2);

    const struct driver_buf cut[] = {{page, 39, false}, {reply, 16, true}};
    assert_true(driver_add(&f.d.queues[REQUESTS], cut, ARRAY_SIZE(cut)) >= 0);
    driver_kick(&f.d.queues[REQUESTS]);
    assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
    assert_int_equal(len, 16);
    assert_int_equal(info_of(&f).refused, 3);
    assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, NULL, 0), 0);
    teardown(&f, true);
}

static void fill_queue(struct fixture *f, unsigned n, uint64_t out, uint64_t in)
{
    for (unsigned i = 0; i < n; i++) {
        struct fuse_in_header h = {.len = 40, .opcode = FUSE_GETATTR, .unique = i + 1};
        const struct driver_buf bufs[] = {{out + i * 64, 20, false},
                                          {out + i * 64 + 20, 20, false},
                                          {in + i * 64, 16, true},
                                          {in + i * 64 + 16, 8, true}};
        memcpy(vboard_at(&f->b, out + i * 64), &h, sizeof(h));
        assert_true(driver_add(&f->d.queues[REQUESTS], bufs, ARRAY_SIZE(bufs)) >= 0);
    }
    driver_kick(&f->d.queues[REQUESTS]);
}

/* More than the back end's ring takes at a time. */
static void test_crowd(void **state)
{
    struct fixture f;
    unsigned id, n = 0;
    uint32_t len;

    setup(&f, false);
    uint64_t out = vboard_alloc(&f.b, 512 * 64, PAGE), in = vboard_alloc(&f.b, 512 * 64, PAGE);
    unsigned room = f.d.queues[REQUESTS].indirect ? f.d.queues[REQUESTS].size : f.d.queues[REQUESTS].size / 4;
    for (unsigned turn = 0; turn < 5; turn++) {
        fill_queue(&f, room, out, in);
        for (n = 0; n < room; n++) {
            assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
            assert_int_equal(len, 24);
        }
    }
    teardown(&f, true);
    assert_int_equal(f.be.bad, 0);
}

static void wait_chains(struct fixture *f, unsigned n)
{
    for (unsigned i = 0; i < 20000 && atomic_load(&f->be.n_chains) < n; i++)
        usleep(1000);
    assert_true(atomic_load(&f->be.n_chains) >= n);
}

/* The back end dies over requests that it has: they fail, those that wait, and those to come. A reset does not bring it back. */
static void test_death(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;

    setup(&f, false);
    atomic_store(&f.keep, true);
    uint64_t out = vboard_alloc(&f.b, 512 * 64, PAGE), in = vboard_alloc(&f.b, 512 * 64, PAGE);
    unsigned room = f.d.queues[REQUESTS].indirect ? f.d.queues[REQUESTS].size : f.d.queues[REQUESTS].size / 4;
    fill_queue(&f, room, out, in);
    wait_chains(&f, room < 200 ? room : 200);
    back_end_stop(&f.be);
    for (unsigned i = 0; i < room; i++) {
        assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
        assert_int_equal(len, 16);
    }
    for (unsigned i = 0; i < room; i++) {
        struct fuse_out_header answer;
        memcpy(&answer, vboard_at(&f.b, in + i * 64), sizeof(answer));
        assert_int_equal(answer.error, -EIO);
        assert_int_equal(answer.unique, i + 1);
    }
    assert_true(info_of(&f).gone);
    assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, NULL, 0), -EIO);
    driver_init(&f.d, DRIVER_ALL);
    assert_int_equal(ask(&f, HIGH_PRIORITY, FUSE_GETATTR, NULL, 0), -EIO);
    teardown(&f, false);
}

/* It returns what it was not given: no more of it is believed. */
static void test_lie(void **state)
{
    struct fixture f;

    setup(&f, false);
    assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, NULL, 0), 0);
    atomic_store(&f.be.lie_id, 501);
    assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, NULL, 0), -EIO);
    assert_true(info_of(&f).gone);
    teardown(&f, true);
}

/* A pause waits for what is under way; a guest's reset too. */
static void test_pause(void **state)
{
    struct fixture f;
    unsigned id;
    uint32_t len;

    setup(&f, false);
    uint64_t out = vboard_alloc(&f.b, 4096, PAGE), in = vboard_alloc(&f.b, 4096, PAGE);
    atomic_store(&f.slow, true);
    fill_queue(&f, 3, out, in);
    wait_chains(&f, 1);
    virtio_pci_pause(f.d.dev);
    unsigned done = atomic_load(&f.be.n_chains);
    usleep(150000);
    assert_int_equal(atomic_load(&f.be.n_chains), done);
    atomic_store(&f.slow, false);
    virtio_pci_resume(f.d.dev);
    for (unsigned i = 0; i < 3; i++)
        assert_true(driver_wait(&f.d.queues[REQUESTS], &id, &len));
    atomic_store(&f.slow, true);
    fill_queue(&f, 3, out, in);
    driver_init(&f.d, DRIVER_ALL);
    atomic_store(&f.slow, false);
    assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, NULL, 0), 0);
    teardown(&f, true);
}

/* What is wrong with a share is told when it is opened, in one line. */
static void test_refused(void **state)
{
    static const struct {
        struct virtio_fs_conf conf;
        const char *words;
    } cases[] = {
        {{.tag = "t", .socket = "/nowhere/socket"}, "'/nowhere/socket': No such file"},
        {{.tag = "t", .source = "/", .virtiofsd = "/nowhere/virtiofsd"}, "'/nowhere/virtiofsd': No such file"},
        {{.tag = "t", .source = "/nowhere", .virtiofsd = "/bin/true"}, "'/nowhere': No such file"},
        {{.tag = "t", .source = "/etc/passwd", .virtiofsd = "/bin/true"}, "is no directory"},
        {{.tag = "t", .source = "/", .virtiofsd = "/bin/true"}, "closed the connection"},
        {{.tag = "t", .source = "/", .virtiofsd = "/bin/ls"}, "virtiofsd cannot start: "},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct vboard b;
        struct device *dev;
        struct err err;
        vboard_open(&b);
        const struct virtio_pci_conf conf = {
            .type = &virtio_fs_type, .conf = &cases[i].conf, .io = b.io, .name = "share0", .devfn = PCI_DEVFN(1, 0)};
        assert_true(device_open(&dev, &virtio_pci_type, &b.env, &conf, &err) < 0);
        if (!strstr(err.msg, cases[i].words))
            fail_msg("'%s' has no '%s'", err.msg, cases[i].words);
        vboard_close(&b);
    }
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static pid_t only_child(void)
{
    char path[64];
    int pid = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    fclose(f);
    return pid;
}

/* The real one: a session begins, the root has attributes; it ends with the device, or is killed. */
static void test_virtiofsd(void **state)
{
    if (access(VIRTIOFSD, X_OK) < 0)
        skip();
    for (unsigned killed = 0; killed < 2; killed++) {
        struct fixture f = {.dir = "/tmp/vireo-fs-XXXXXX"};
        const struct fuse_init_in init = {.major = 7, .minor = 36, .max_readahead = 1 << 20};
        assert_non_null(mkdtemp(f.dir));
        struct virtio_fs_conf conf = {.tag = "t"};
        strcpy(conf.source, f.dir);
        open_board(&f, &conf);
        assert_int_equal(ask(&f, REQUESTS, FUSE_INIT, &init, sizeof(init)), 0);
        assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, &(struct fuse_getattr_in){0}, sizeof(struct fuse_getattr_in)),
                         0);
        assert_int_equal(ask(&f, REQUESTS, FUSE_LOOKUP, "x", 2), -ENOENT);
        driver_init(&f.d, DRIVER_ALL);
        assert_int_equal(ask(&f, REQUESTS, FUSE_INIT, &init, sizeof(init)), 0);
        if (killed) {
            assert_int_equal(kill(only_child(), SIGKILL), 0);
            while (!info_of(&f).gone)
                usleep(1000);
            assert_int_equal(ask(&f, REQUESTS, FUSE_GETATTR, NULL, 0), -EIO);
            assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        }
        close_board(&f);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        rmdir(f.dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),         cmocka_unit_test(test_requests),
        cmocka_unit_test(test_pieces),         cmocka_unit_test(test_stores_are_told),
        cmocka_unit_test(test_head_is_copied), cmocka_unit_test(test_readonly),
        cmocka_unit_test(test_malformed),      cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_death),          cmocka_unit_test(test_lie),
        cmocka_unit_test(test_pause),          cmocka_unit_test(test_refused),
        cmocka_unit_test(test_virtiofsd),
    };
    return cmocka_run_group_tests_name("virtio_fs", tests, NULL, NULL);
}
