/*
 * Files that a server has, over a protocol of the test's own: its server has blocks, breaks connections, asks for patience, does what is under way
 * in random order, and forgets what was not flushed. What is read must be what was written.
 */
#include "disk/file_net.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "disk/file_protocol.h"
#include "disk_fixture.h"

#define REGIONS     16
#define REGION      10007 /* no multiple of any block: neighbours share some */
#define SIZE        (REGIONS * REGION / 4096 * 4096)
#define MAX_PENDING 128

struct server {
    uint8_t *data, *durable;
    uint64_t size, durable_size;
    struct file_net_props props;
    uint64_t seed, epoch, n_calls, flushed;
    unsigned break_in; /* about one of so many calls finds the connection broken; 0: none */
    bool loses;        /* what is not flushed, with the connection */
    bool forgets;      /* the same within a connection: its epoch tells */
    unsigned n_breaks, n_lost;
    _Atomic bool down;   /* nobody connects */
    _Atomic bool silent; /* nothing is answered */
    int fail_flush;
};

/* A call under way; a flush makes durable what was done when it came, and no more. */
struct pending {
    struct file_net_piece *piece;
    uint8_t *cut;
    uint64_t cut_size, number;
};

struct server_conn {
    struct file_net_conn conn;
    int fd;
    struct pending pending[MAX_PENDING];
    unsigned n;
};

static struct server server;

static uint32_t rnd(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static struct server_conn *conn_of(struct file_net_conn *conn)
{
    return CONTAINER_OF(conn, struct server_conn, conn);
}

static void lose(void)
{
    memcpy(server.data, server.durable, SIZE * 2);
    server.size = server.durable_size;
    server.epoch++;
    server.n_lost++;
}

static int open_conn(struct file_net_conn *conn, const char *path, int64_t deadline, struct err *err)
{
    struct server_conn *c = conn_of(conn);

    c->fd = -1;
    if (server.down)
        return err_set(err, -ECONNREFUSED, "down");
    c->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    conn->props = server.props;
    conn->props.size = server.size;
    conn->props.epoch = server.forgets ? server.epoch : 0;
    return 0;
}

static void close_conn(struct file_net_conn *conn)
{
    struct server_conn *c = conn_of(conn);

    while (c->n)
        free(c->pending[--c->n].cut);
    if (c->fd >= 0)
        close(c->fd);
}

static int start(struct file_net_conn *conn, struct file_net_piece *piece)
{
    struct server_conn *c = conn_of(conn);
    uint64_t one = 1, end = piece->offset + piece->len;
    const struct file_net_props *p = &server.props;

    assert_true(c->n < MAX_PENDING);
    if (piece->kind == FILE_NET_READ || piece->kind == FILE_NET_WRITE) {
        assert_true(piece->len && piece->len <= p->max_transfer);
        assert_int_equal(piece->offset % p->block, 0);
        assert_true(end % p->block == 0 || end == server.size || p->grows);
    }
    struct pending *pending = &c->pending[c->n++];
    *pending = (struct pending){.piece = piece, .number = ++server.n_calls, .cut_size = server.size};
    if (piece->kind == FILE_NET_FLUSH) {
        pending->cut = malloc(SIZE * 2);
        memcpy(pending->cut, server.data, SIZE * 2);
    }
    assert_int_equal(write(c->fd, &one, sizeof(one)), sizeof(one));
    return 0;
}

static int flush(const struct pending *pending)
{
    if (server.fail_flush)
        return server.fail_flush;
    if (pending->number > server.flushed) {
        server.flushed = pending->number;
        memcpy(server.durable, pending->cut, SIZE * 2);
        server.durable_size = pending->cut_size;
    }
    return 0;
}

static int perform(struct pending *pending)
{
    struct file_net_piece *piece = pending->piece;
    uint64_t end = piece->offset + piece->len;

    piece->epoch = server.forgets ? server.epoch : 0;
    switch (piece->kind) {
    case FILE_NET_READ:
        memset(piece->buf, 0, piece->len);
        if (piece->offset < server.size)
            memcpy(piece->buf, server.data + piece->offset,
                   piece->len < server.size - piece->offset ? piece->len : server.size - piece->offset);
        return 0;
    case FILE_NET_WRITE:
        memcpy(server.data + piece->offset, piece->buf, piece->len);
        break;
    case FILE_NET_ZERO:
        memset(server.data + piece->offset, 0, piece->len);
        break;
    case FILE_NET_FLUSH:
        return flush(pending);
    case FILE_NET_TRUNCATE:
        if (piece->offset < server.size)
            memset(server.data + piece->offset, 0, server.size - piece->offset);
        server.size = server.durable_size = piece->offset;
        return 0;
    default:
        return 0;
    }
    server.size = server.size > end ? server.size : end;
    return 0;
}

static int service(struct file_net_conn *conn, short events)
{
    struct server_conn *c = conn_of(conn);
    uint64_t n;

    if (server.break_in && rnd(&server.seed) % server.break_in == 0) {
        server.n_breaks++;
        /* Some of what is under way was done, but nobody hears of it. */
        while (c->n && rnd(&server.seed) % 2) {
            perform(&c->pending[--c->n]);
            free(c->pending[c->n].cut);
        }
        if (server.loses && rnd(&server.seed) % 2)
            lose();
        return -ECONNRESET;
    }
    if (server.silent) {
        ssize_t ignored = read(c->fd, &n, sizeof(n));
        (void)ignored;
        return 0;
    }
    if (server.forgets && rnd(&server.seed) % 16 == 0)
        lose();
    for (unsigned i = 0; i < 4 && c->n; i++) {
        unsigned k = rnd(&server.seed) % c->n;
        struct pending pending = c->pending[k];
        c->pending[k] = c->pending[--c->n];
        bool patience = server.break_in && rnd(&server.seed) % 1000 == 0;
        file_net_done(pending.piece, patience ? -EAGAIN : perform(&pending));
        free(pending.cut);
    }
    if (!c->n) {
        ssize_t ignored = read(c->fd, &n, sizeof(n));
        (void)ignored;
    }
    return 0;
}

static int fd_of(struct file_net_conn *conn, short *events)
{
    *events = POLLIN;
    return conn_of(conn)->fd;
}

static const struct file_net_type type = {.name = "test",
                                          .size = sizeof(struct server_conn),
                                          .open = open_conn,
                                          .close = close_conn,
                                          .start = start,
                                          .fd = fd_of,
                                          .service = service};

static int setup(void **state)
{
    server = (struct server){.size = SIZE, .durable_size = SIZE, .seed = 12345, .epoch = 7};
    server.data = calloc(2, SIZE);
    server.durable = calloc(2, SIZE);
    server.props = (struct file_net_props){.block = 512,
                                           .max_transfer = 4096,
                                           .max_range = 8192,
                                           .volatile_cache = true,
                                           .discards = true,
                                           .zeroes = true};
    int r = fixture_setup(state);
    log_set_level(-1); /* of what breaks here, nobody wants to hear */
    return r;
}

static int teardown(void **state)
{
    free(server.data);
    free(server.durable);
    return fixture_teardown(state);
}

static struct file *open_file(struct disk_fixture *f)
{
    struct file *file;
    struct err err;

    if (file_net_open(&file, &type, &f->conf, f->loop, &err) < 0)
        fail_msg("%s", err.msg);
    return file;
}

static void submit(struct disk_fixture *f, struct file *file, struct disk_request *req)
{
    f->left++;
    req->done = fixture_done;
    req->opaque = f;
    file_submit(file, req);
}

/* One random request in each region at a time. */
static void run(struct disk_fixture *f, unsigned rounds)
{
    static uint8_t bufs[REGIONS][REGION], shadow[SIZE];
    struct file *file = open_file(f);
    uint64_t seed = 99;

    memset(shadow, 0, sizeof(shadow));
    for (unsigned round = 0; round < rounds; round++) {
        struct disk_request reqs[REGIONS + 1];
        struct iovec iovs[REGIONS][2];
        for (unsigned i = 0; i < REGIONS; i++) {
            uint32_t len = 1 + rnd(&seed) % (rnd(&seed) % 2 ? 700 : REGION - 1), at = rnd(&seed) % (REGION - len),
                     what = rnd(&seed) % 8;
            uint64_t offset = (uint64_t)i * REGION + at;
            len = offset + len > SIZE ? (uint32_t)(offset < SIZE ? SIZE - offset : 0) : len;
            uint32_t first = len / 3;
            iovs[i][0] = (struct iovec){bufs[i], first};
            iovs[i][1] = (struct iovec){bufs[i] + first, len - first};
            reqs[i] = (struct disk_request){.op = what < 3   ? DISK_READ
                                                  : what < 7 ? DISK_WRITE
                                                             : DISK_ZERO,
                                            .offset = offset,
                                            .len = len,
                                            .iov = iovs[i],
                                            .n_iov = 2};
            for (uint32_t k = 0; k < len && reqs[i].op == DISK_WRITE; k++)
                shadow[offset + k] = bufs[i][k] = (uint8_t)rnd(&seed);
            if (reqs[i].op == DISK_ZERO && len)
                memset(shadow + offset, 0, len);
            submit(f, file, &reqs[i]);
        }
        if (rnd(&seed) % 4 == 0) {
            reqs[REGIONS] = (struct disk_request){.op = DISK_FLUSH};
            submit(f, file, &reqs[REGIONS]);
        } else {
            reqs[REGIONS].result = 0;
        }
        fixture_wait(f);
        assert_int_equal(reqs[REGIONS].result, 0);
        for (unsigned i = 0; i < REGIONS; i++) {
            assert_int_equal(reqs[i].result, 0);
            if (reqs[i].op == DISK_READ && reqs[i].len)
                assert_memory_equal(bufs[i], shadow + reqs[i].offset, reqs[i].len);
        }
    }
    file_close(file); /* flushes */
    assert_memory_equal(server.durable, shadow, SIZE);
}

static void test_blocks(void **state)
{
    static const uint32_t blocks[] = {1, 512, 4096};

    for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
        server.props.block = blocks[i];
        server.props.zeroes = i != 1;
        memset(server.data, 0, SIZE);
        run(*state, 200);
    }
}

static void test_breaks(void **state)
{
    server.break_in = 200;
    run(*state, 200);
    assert_true(server.n_breaks > 10);
}

static void test_loses(void **state)
{
    server.break_in = 200;
    server.loses = true;
    server.props.block = 4096;
    run(*state, 200);
    assert_true(server.n_lost > 5);
}

static void test_forgets(void **state)
{
    server.props.grows = true;
    server.props.block = 1;
    server.forgets = true;
    /* Reads may come before anybody has heard of it: only what is there in the end is asked for. */
    struct disk_fixture *f = *state;
    struct file *file = open_file(f);
    static uint8_t data[SIZE];

    for (unsigned i = 0; i < 10 * SIZE / 4096; i++) {
        unsigned at = i * 7 % (SIZE / 4096) * 4096;
        memset(data + at, (int)i + 1, 4096);
        assert_int_equal(file_write(file, at, data + at, 4096), 0);
        if (i % 20 == 0) {
            assert_int_equal(file_sync(file), 0);
            assert_memory_equal(server.durable, data, SIZE);
        }
    }
    file_close(file);
    assert_true(server.n_lost > 5);
    assert_memory_equal(server.durable, data, SIZE);
}

static void test_ends(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[1024];

    /* One size for good: nothing behind the end but zeroes. */
    struct file *file = open_file(f);
    memset(buf, 0xee, sizeof(buf));
    assert_int_equal(file_write(file, SIZE - 512, buf, 512), 0);
    assert_int_equal(file_write(file, SIZE - 512, buf, 513), -ENOSPC);
    memset(buf, 0x11, sizeof(buf));
    assert_int_equal(file_read(file, SIZE - 512, buf, 1024), 0);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(buf[i], i < 512 ? 0xee : 0);
    assert_int_equal(file_truncate(file, SIZE + 1), -ENOTSUP);
    assert_int_equal(file_truncate(file, 512), 0);
    file_close(file);

    /* One that grows. */
    server.props.grows = true;
    server.props.block = 1;
    file = open_file(f);
    assert_int_equal(file_write(file, SIZE + 1000, buf, 24), 0);
    assert_int_equal(file_size(file), SIZE + 1024);
    assert_int_equal(file_truncate(file, 1000), 0);
    assert_int_equal(file_size(file), 1000);
    assert_int_equal(server.size, 1000);
    file_close(file);
}

/* A server that is gone for longer than anybody waits: requests fail, and what was acknowledged is there when it is back. */
static void test_gone(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[512], got[512];

    f->conf.timeout = 1;
    struct file *file = open_file(f);
    memset(buf, 0x77, sizeof(buf));
    assert_int_equal(file_write(file, 1024, buf, sizeof(buf)), 0);
    server.down = true;
    server.silent = true;
    assert_int_equal(file_read(file, 0, got, sizeof(got)), -ETIMEDOUT);
    assert_int_equal(file_read(file, 0, got, sizeof(got)), -ETIMEDOUT);
    memset(server.data, 0, SIZE);
    server.silent = false;
    server.down = false;
    assert_int_equal(file_read(file, 1024, got, sizeof(got)), 0);
    assert_memory_equal(got, buf, sizeof(buf));
    file_close(file);
    assert_memory_equal(server.durable + 1024, buf, sizeof(buf));
}

/* What a flush says is what the server said. */
static void test_flush_fails(void **state)
{
    struct disk_fixture *f = *state;
    uint8_t buf[512] = {1};
    struct file *file = open_file(f);

    assert_int_equal(file_write(file, 0, buf, sizeof(buf)), 0);
    server.fail_flush = -EIO;
    assert_int_equal(file_sync(file), -EIO);
    server.fail_flush = 0;
    assert_int_equal(file_sync(file), 0);
    file_close(file);
    assert_int_equal(server.durable[0], 1);
}

/* More than is kept: flushes come by themselves. */
static void test_room(void **state)
{
    struct disk_fixture *f = *state;
    static uint8_t buf[64 << 10];
    struct file *file;

    server.props.max_transfer = sizeof(buf);
    file = open_file(f);
    for (unsigned i = 0; i < 1500; i++)
        assert_int_equal(file_write(file, 0, buf, sizeof(buf)), 0);
    buf[0] = 5;
    for (unsigned i = 0; i < 600; i++)
        assert_int_equal(file_write(file, 0, buf, sizeof(buf)), 0);
    assert_int_equal(server.durable[0], 5);
    file_close(file);
}

static void test_lies(void **state)
{
    struct disk_fixture *f = *state;
    struct file_net_props good = server.props;
    struct file *file;
    struct err err;
    struct {
        struct file_net_props props;
        uint64_t size;
        const char *says;
    } lies[] = {{good, UINT64_MAX, "18446744073709551615 bytes"},
                {good, SIZE, "blocks of 0 bytes"},
                {good, SIZE, "blocks of 1000 bytes"},
                {good, SIZE, "blocks of 1048576 bytes"},
                {good, SIZE, "takes 256 bytes"},
                {good, SIZE, "lets nobody write"}};

    lies[1].props.block = 0;
    lies[2].props.block = 1000;
    lies[3].props.block = 1 << 20;
    lies[4].props.max_transfer = 256;
    lies[5].props.read_only = true;
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        server.props = lies[i].props;
        server.size = lies[i].size;
        assert_int_not_equal(file_net_open(&file, &type, &f->conf, f->loop, &err), 0);
        if (!strstr(err.msg, lies[i].says))
            fail_msg("%s", err.msg);
    }
}

static void test_names(void **state)
{
    char scheme[FILE_SCHEME_MAX], shown[64];
    struct err err;

    assert_true(file_protocol_scheme("nbd+unix:///x?socket=/y", scheme));
    assert_string_equal(scheme, "nbd+unix");
    assert_false(file_protocol_is("./nbd://x"));
    assert_false(file_protocol_is("a:b//c"));
    assert_false(file_protocol_is("://"));
    assert_int_equal(file_protocol_check("nbd://x", &err), 0);
    assert_int_equal(file_protocol_check("http://x", &err), -EINVAL);
    assert_non_null(strstr(err.msg, "nfs://"));
    assert_int_equal(file_protocol_check("averyveryverylongscheme://x", &err), -EINVAL);
    assert_int_equal(file_protocol_length("nbd://h/a.raw?x=.qcow2"), 13);
    assert_int_equal(file_protocol_length("a.raw?x"), 7);
    file_protocol_show("iscsi://alice%secret@host/iqn/1", shown, sizeof(shown));
    assert_string_equal(shown, "iscsi://alice@host/iqn/1");
    file_protocol_show("iscsi://host/iqn%20@/1", shown, sizeof(shown));
    assert_string_equal(shown, "iscsi://host/iqn%20@/1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_breaks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
