/* Both ends of vsock's connections played: the guest's by a driver that sends packets as it likes, the host's by sockets. */
#include "device/virtio_vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../unit.h"
#include "device/vsock_impl.h"
#include "device/vsock_spec.h"
#include "virtio/driver.h"

#define CID     33
#define WAIT_MS 20000
#define HDR     sizeof(struct vsock_header)
#define RX_SIZE 4096 /* of payload */
#define N_RX    32

struct rig {
    struct vboard b;
    struct driver d;
    char dir[32], path[64];
    uint64_t tx, rx[N_RX];
    int slot[VIRTQ_SIZE_MAX];    /* which of rx[] a chain's id is */
    uint32_t fwd_cnt, buf_alloc; /* the guest's, in what it sends */
    struct vsock_header h;       /* received last, */
    uint8_t data[RX_SIZE];       /* with this */
};

/* ---- the guest ---- */

static void give_rx(struct rig *r, int slot)
{
    const struct driver_buf bufs[2] = {{.gpa = r->rx[slot], .len = HDR, .write = true},
                                       {.gpa = r->rx[slot] + HDR, .len = RX_SIZE, .write = true}};
    int id = driver_add(&r->d.queues[0], bufs, 2);

    assert_true(id >= 0);
    r->slot[id] = slot;
    driver_kick(&r->d.queues[0]);
}

static void give_all_rx(struct rig *r)
{
    for (int i = 0; i < N_RX; i++)
        give_rx(r, i);
}

static void init(struct rig *r, uint64_t features)
{
    driver_init(&r->d, features);
    give_all_rx(r);
    vboard_drain(&r->b); /* it has started */
}

static struct rig *rig_open(const struct virtio_vsock_conf *more)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct virtio_vsock_conf conf = more ? *more : (struct virtio_vsock_conf){0};

    assert_non_null(r);
    signal(SIGPIPE, SIG_IGN);
    strcpy(r->dir, "/tmp/vireo-test-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof(r->path), "%s/vs", r->dir);
    conf.cid = CID;
    conf.path = r->path;
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &virtio_vsock_type, &conf);
    r->tx = vboard_alloc(&r->b, 256 * KIB, 4096);
    for (unsigned i = 0; i < N_RX; i++)
        r->rx[i] = vboard_alloc(&r->b, HDR + RX_SIZE, 16);
    r->buf_alloc = 1 << 20;
    return r;
}

static void rig_close(struct rig *r)
{
    driver_close(&r->d);
    vboard_close(&r->b);
    assert_int_equal(rmdir(r->dir), 0); /* no socket stays */
    free(r);
}

static void send_raw(struct rig *r, const struct vsock_header *h, const void *data, uint32_t len)
{
    const struct driver_buf bufs[2] = {{.gpa = r->tx, .len = HDR}, {.gpa = r->tx + HDR, .len = len}};
    unsigned id;
    uint32_t written;

    memcpy(vboard_at(&r->b, r->tx), h, HDR);
    if (len)
        memcpy(vboard_at(&r->b, r->tx + HDR), data, len);
    assert_true(driver_add(&r->d.queues[1], bufs, len ? 2 : 1) >= 0);
    driver_kick(&r->d.queues[1]);
    assert_true(driver_wait(&r->d.queues[1], &id, &written));
    assert_int_equal(written, 0);
}

static struct vsock_header header(struct rig *r, uint32_t from, uint32_t to, enum vsock_op op)
{
    return (struct vsock_header){.src_cid = CID,
                                 .dst_cid = 2,
                                 .src_port = from,
                                 .dst_port = to,
                                 .type = 1,
                                 .op = (uint16_t)op,
                                 .buf_alloc = r->buf_alloc,
                                 .fwd_cnt = r->fwd_cnt};
}

static void send_op(struct rig *r, uint32_t from, uint32_t to, enum vsock_op op)
{
    struct vsock_header h = header(r, from, to, op);

    send_raw(r, &h, NULL, 0);
}

static void send_shutdown(struct rig *r, uint32_t from, uint32_t to, unsigned flags)
{
    struct vsock_header h = header(r, from, to, VSOCK_OP_SHUTDOWN);

    h.flags = flags;
    send_raw(r, &h, NULL, 0);
}

static void send_data(struct rig *r, uint32_t from, uint32_t to, const void *data, uint32_t len)
{
    struct vsock_header h = header(r, from, to, VSOCK_OP_RW);

    h.len = len;
    send_raw(r, &h, data, len);
}

/* The next packet for the guest, whichever. */
static void receive(struct rig *r)
{
    unsigned id;
    uint32_t len;

    assert_true(driver_wait(&r->d.queues[0], &id, &len));
    assert_in_range(len, HDR, HDR + RX_SIZE);
    const uint8_t *at = vboard_at(&r->b, r->rx[r->slot[id]]);
    memcpy(&r->h, at, HDR);
    memcpy(r->data, at + HDR, RX_SIZE);
    assert_int_equal(r->h.len, len - HDR);
    assert_int_equal(r->h.dst_cid, CID);
    give_rx(r, r->slot[id]);
}

/* It must be this; `from` is the host's port. */
static void expect(struct rig *r, uint32_t from, uint32_t to, enum vsock_op op)
{
    receive(r);
    assert_int_equal(r->h.op, op);
    assert_int_equal(r->h.src_port, from);
    assert_int_equal(r->h.dst_port, to);
    assert_int_equal(r->h.src_cid, 2);
    assert_int_equal(r->h.type, 1);
}

static void expect_shutdown(struct rig *r, uint32_t from, uint32_t to, unsigned flags)
{
    expect(r, from, to, VSOCK_OP_SHUTDOWN);
    assert_int_equal(r->h.flags, flags);
}

/* Nothing is for the guest: what it asks for next is answered next. */
static void expect_nothing(struct rig *r)
{
    vboard_drain(&r->b);
    send_op(r, 999, 999, VSOCK_OP_CREDIT_REQUEST);
    expect(r, 999, 999, VSOCK_OP_RST);
}

/* ---- the host ---- */

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    return addr;
}

static int host_connect(struct rig *r)
{
    struct sockaddr_un addr = address(r->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static int host_listen(struct rig *r, uint32_t port, int backlog)
{
    char path[96];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(path, sizeof(path), "%s_%u", r->path, port);
    struct sockaddr_un addr = address(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void host_unlisten(struct rig *r, int fd, uint32_t port)
{
    char path[96];

    snprintf(path, sizeof(path), "%s_%u", r->path, port);
    unlink(path);
    close(fd);
}

static void host_writes(int fd, const void *data, size_t len)
{
    assert_int_equal(write(fd, data, len), len);
}

static bool readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}

static void host_reads(int fd, const void *want, size_t len)
{
    const uint8_t *bytes = want;
    uint8_t buf[4096];

    for (size_t done = 0; done < len;) {
        size_t some = len - done < sizeof(buf) ? len - done : sizeof(buf);
        assert_true(readable(fd, WAIT_MS));
        ssize_t n = read(fd, buf, some);
        assert_true(n > 0);
        assert_memory_equal(buf, bytes + done, n);
        done += (size_t)n;
    }
}

static void host_reads_end(int fd)
{
    char c;

    assert_true(readable(fd, WAIT_MS));
    assert_true(read(fd, &c, 1) <= 0);
}

static void host_reads_nothing(struct rig *r, int fd)
{
    vboard_drain(&r->b);
    assert_false(readable(fd, 0));
}

/* A connection from the host to the guest's port; the host's port. */
static uint32_t connect_in(struct rig *r, uint32_t port, int *fd)
{
    char line[32];

    *fd = host_connect(r);
    snprintf(line, sizeof(line), "CONNECT %u\n", port);
    host_writes(*fd, line, strlen(line));
    receive(r);
    assert_int_equal(r->h.op, VSOCK_OP_REQUEST);
    assert_int_equal(r->h.dst_port, port);
    uint32_t from = r->h.src_port;
    send_op(r, port, from, VSOCK_OP_RESPONSE);
    snprintf(line, sizeof(line), "OK %u\n", from);
    host_reads(*fd, line, strlen(line));
    return from;
}

/* A connection from the guest to who listens there. */
static int connect_out(struct rig *r, int listener, uint32_t from, uint32_t port)
{
    send_op(r, from, port, VSOCK_OP_REQUEST);
    expect(r, port, from, VSOCK_OP_RESPONSE);
    assert_true(readable(listener, WAIT_MS));
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static void fill_pattern(uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
}

/* ---- tests ---- */

static void test_spec(void **state)
{
    static const char *const wrong[] = {
        "", "cid=3", "cid=2,unix=/x", "cid=4294967295,unix=/x", "cid=x,unix=/x", "unix=", "unix=/x,unix=/y", "path=/x"};
    struct vsock_spec spec;
    struct err err;
    char text[256] = "unix=/";

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(vsock_spec_parse(&spec, wrong[i], &err), -EINVAL);
        assert_null(strchr(err.msg, '\n'));
    }
    assert_int_equal(vsock_spec_parse(&spec, "unix=/run/a", &err), 0);
    assert_int_equal(spec.cid, 3);
    assert_string_equal(spec.path, "/run/a");
    assert_int_equal(vsock_spec_parse(&spec, "id=v,cid=4294967294,unix=/run/a", &err), 0);
    assert_int_equal(spec.cid, 4294967294);
    assert_string_equal(spec.id, "v");
    /* 107 bytes hold the longest port's "_4294967295" too. */
    memset(text + 6, 'a', 95);
    assert_int_equal(vsock_spec_parse(&spec, text, &err), 0);
    text[101] = 'a';
    assert_int_equal(vsock_spec_parse(&spec, text, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "has 97 bytes; up to 96 are accepted"));
}

static void test_open(void **state)
{
    struct rig *r = rig_open(NULL);
    struct stat st;
    uint64_t cid = driver_read(&r->d, r->d.config, 8);

    assert_int_equal(cid, CID);
    assert_int_equal(r->d.config_len, 8);
    assert_int_equal(r->d.n_queues, 3);
    assert_int_equal(driver_pci_read(&r->d, PCI_DEVICE_ID, 2), 0x1053);
    assert_int_equal(stat(r->path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    rig_close(r);
}

/* The path is another's: one line, and it stays as it is. */
static void test_path_taken(void **state)
{
    struct rig *r = rig_open(NULL);
    struct virtio_vsock_conf conf = {.cid = CID, .path = r->path};
    const struct virtio_pci_conf pci = {
        .type = &virtio_vsock_type, .conf = &conf, .io = r->b.io, .name = "vsock1", .devfn = 0x10};
    char other[80];
    struct device *dev;
    struct err err;

    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &pci, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, r->path));
    assert_int_equal(access(r->path, F_OK), 0);
    snprintf(other, sizeof(other), "%s/file", r->dir);
    close(open(other, O_CREAT | O_WRONLY, 0600));
    conf.path = other;
    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &pci, &err), -EEXIST);
    assert_int_equal(unlink(other), 0);
    rig_close(r);
}

/* From the host, with bytes behind the CONNECT line that came too early. */
static void connect_from_host(uint64_t features)
{
    struct rig *r = rig_open(NULL);
    int fd = host_connect(r);

    init(r, features);
    host_writes(fd, "conn", 4);
    vboard_drain(&r->b);
    host_writes(fd, "ect 52\nearly", 12);
    receive(r);
    assert_int_equal(r->h.op, VSOCK_OP_REQUEST);
    assert_int_equal(r->h.dst_port, 52);
    assert_true(r->h.buf_alloc >= 65536);
    uint32_t from = r->h.src_port;
    host_reads_nothing(r, fd);
    send_op(r, 52, from, VSOCK_OP_RESPONSE);
    expect(r, from, 52, VSOCK_OP_RW);
    assert_int_equal(r->h.len, 5);
    assert_memory_equal(r->data, "early", 5);
    char line[32];
    snprintf(line, sizeof(line), "OK %u\n", from);
    host_reads(fd, line, strlen(line));

    send_data(r, 52, from, "from the guest", 14);
    host_reads(fd, "from the guest", 14);
    host_writes(fd, "from the host", 13);
    expect(r, from, 52, VSOCK_OP_RW);
    assert_int_equal(r->h.len, 13);
    assert_memory_equal(r->data, "from the host", 13);
    assert_int_equal(r->h.fwd_cnt, 14);
    send_op(r, 52, from, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    rig_close(r);
}

static void test_from_host(void **state)
{
    connect_from_host(DRIVER_ALL);
    connect_from_host(DRIVER_ALL & ~VIRTIO_F_RING_PACKED);
    connect_from_host(VIRTIO_F_VERSION_1);
}

/* Lines that are none, ports without a listener, guests without a driver: the socket is closed. */
static void test_refused_host(void **state)
{
    static const char *const wrong[] = {"CONNECT \n",
                                        "CONNECT 1 2\n",
                                        "CONNECT -1\n",
                                        "CONNECT 4294967296\n",
                                        "HELLO 52\n",
                                        "\n",
                                        "CONNECT 0000000000000000000000000000000000000000052\n"};
    struct rig *r = rig_open(NULL);
    int fd = host_connect(r);

    host_writes(fd, "CONNECT 52\n", 11);
    host_reads_end(fd);
    close(fd);
    init(r, DRIVER_ALL);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        fd = host_connect(r);
        host_writes(fd, wrong[i], strlen(wrong[i]));
        host_reads_end(fd);
        close(fd);
    }
    expect_nothing(r);
    fd = host_connect(r);
    host_writes(fd, "CONNECT 52\n", 11);
    receive(r);
    assert_int_equal(r->h.op, VSOCK_OP_REQUEST);
    send_op(r, 52, r->h.src_port, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    /* One that does not wait for the answer. */
    fd = host_connect(r);
    host_writes(fd, "CONNECT 53\n", 11);
    receive(r);
    uint32_t from = r->h.src_port;
    close(fd);
    expect(r, from, 53, VSOCK_OP_RST);
    rig_close(r);
}

static void test_from_guest(void **state)
{
    struct rig *r = rig_open(NULL);

    init(r, DRIVER_ALL);
    send_op(r, 1000, 7000, VSOCK_OP_REQUEST); /* nobody there */
    expect(r, 7000, 1000, VSOCK_OP_RST);
    int listener = host_listen(r, 7000, 4);
    int fd = connect_out(r, listener, 1000, 7000);
    send_data(r, 1000, 7000, "question", 8);
    host_reads(fd, "question", 8);
    host_writes(fd, "answer", 6);
    expect(r, 7000, 1000, VSOCK_OP_RW);
    assert_memory_equal(r->data, "answer", 6);
    /* A second request for a connection that is there ends it. */
    send_op(r, 1000, 7000, VSOCK_OP_REQUEST);
    expect(r, 7000, 1000, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    host_unlisten(r, listener, 7000);
    rig_close(r);
}

/* A host program that is slow to accept makes the guest wait, and no longer than it may. */
static void test_full_backlog(void **state)
{
    struct rig *r = rig_open(&(struct virtio_vsock_conf){.patience_ns = 300 * NS_PER_MS});
    int listener = host_listen(r, 7000, 0), fds[3];

    init(r, DRIVER_ALL);
    fds[0] = -1;
    for (uint32_t i = 0; i < 3; i++)
        send_op(r, 1000 + i, 7000, VSOCK_OP_REQUEST);
    unsigned answered = 0, refused = 0;
    /* One finds room at once, and another when that is accepted; the third does not. */
    expect(r, 7000, 1000, VSOCK_OP_RESPONSE);
    fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; i < 2; i++) {
        receive(r);
        answered += r->h.op == VSOCK_OP_RESPONSE;
        refused += r->h.op == VSOCK_OP_RST;
    }
    assert_int_equal(answered, 1);
    assert_int_equal(refused, 1);
    close(fds[0]);
    host_unlisten(r, listener, 7000);
    rig_close(r);
}

/* The host sends more than the guest has room for: it gets what it has credit for, and the rest when it has more. */
static void test_credit_to_guest(void **state)
{
    enum { TOTAL = 100000, WINDOW = 10000 };
    static uint8_t data[TOTAL], got[TOTAL];
    struct rig *r = rig_open(NULL);
    size_t n = 0;
    int fd;

    init(r, DRIVER_ALL);
    fill_pattern(data, sizeof(data));
    r->buf_alloc = WINDOW;
    uint32_t from = connect_in(r, 52, &fd);
    host_writes(fd, data, sizeof(data));
    while (n < TOTAL) {
        receive(r);
        if (r->h.op == VSOCK_OP_CREDIT_REQUEST) {
            assert_int_equal(n - r->fwd_cnt, WINDOW); /* all it had */
            expect_nothing(r);
            r->fwd_cnt = (uint32_t)n;
            send_op(r, 52, from, VSOCK_OP_CREDIT_UPDATE);
            continue;
        }
        assert_int_equal(r->h.op, VSOCK_OP_RW);
        assert_true(n + r->h.len <= r->fwd_cnt + WINDOW);
        memcpy(got + n, r->data, r->h.len);
        n += r->h.len;
    }
    assert_memory_equal(got, data, TOTAL);
    expect(r, from, 52, VSOCK_OP_CREDIT_REQUEST);
    /* A count that cannot be is no credit. */
    r->fwd_cnt = (uint32_t)n + 1;
    send_op(r, 52, from, VSOCK_OP_CREDIT_UPDATE);
    host_writes(fd, "x", 1);
    expect_nothing(r);
    close(fd);
    rig_close(r);
}

/*
 * The guest sends more than the host program takes: as much as it was promised waits here, what is beyond ends the connection. `late`: the
 * program reads after all, and the guest is told of its new credit.
 */
static void credit_to_host(bool late)
{
    static uint8_t data[4 * MIB];
    struct rig *r = rig_open(NULL);
    uint32_t sent = 0, told = 0, room, least = 0;
    int fd, listener = host_listen(r, 80, 4);

    init(r, DRIVER_ALL);
    fill_pattern(data, sizeof(data));
    send_op(r, 1000, 80, VSOCK_OP_REQUEST);
    expect(r, 80, 1000, VSOCK_OP_RESPONSE);
    room = r->h.buf_alloc;
    assert_int_equal(room, VSOCK_BUFFER);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    /* Its socket takes some, and of that the guest is told. */
    for (;;) {
        uint32_t some = told + room - sent < 10000 ? told + room - sent : 10000;
        if (!some) {
            send_op(r, 1000, 80, VSOCK_OP_CREDIT_REQUEST);
            do {
                receive(r);
                assert_int_equal(r->h.op, VSOCK_OP_CREDIT_UPDATE);
                told = r->h.fwd_cnt;
            } while (told < least);
            least = told;
            some = told + room - sent;
            if (!some)
                break;
            some = some < 10000 ? some : 10000;
        }
        send_data(r, 1000, 80, data + sent, some);
        sent += some;
        assert_true(sent < sizeof(data));
    }
    if (late) {
        host_reads(fd, data, sent);
        do
            expect(r, 80, 1000, VSOCK_OP_CREDIT_UPDATE);
        while (r->h.fwd_cnt < sent);
        send_data(r, 1000, 80, "more", 4);
        host_reads(fd, "more", 4);
    } else {
        send_data(r, 1000, 80, data, 1);
        do
            receive(r);
        while (r->h.op == VSOCK_OP_CREDIT_UPDATE);
        assert_int_equal(r->h.op, VSOCK_OP_RST);
    }
    close(fd);
    host_unlisten(r, listener, 80);
    rig_close(r);
}

static void test_credit_to_host(void **state)
{
    credit_to_host(true);
    credit_to_host(false);
}

/* The host closes its halves one after the other, or both at once. */
static void test_host_shutdown(void **state)
{
    struct rig *r = rig_open(NULL);
    int fd;

    init(r, DRIVER_ALL);
    uint32_t from = connect_in(r, 52, &fd);
    host_writes(fd, "last", 4);
    shutdown(fd, SHUT_WR);
    expect(r, from, 52, VSOCK_OP_RW);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_SEND);
    send_data(r, 52, from, "and mine", 8);
    host_reads(fd, "and mine", 8);
    close(fd);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_BOTH);
    send_data(r, 52, from, "too late", 8); /* under way before it knew */
    send_op(r, 52, from, VSOCK_OP_RST);
    expect_nothing(r);

    from = connect_in(r, 52, &fd);
    host_writes(fd, "last", 4);
    close(fd);
    expect(r, from, 52, VSOCK_OP_RW);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_BOTH);
    /* A guest that answers with a shutdown of its own gets the reset. */
    send_shutdown(r, 52, from, VSOCK_SHUTDOWN_BOTH);
    expect(r, from, 52, VSOCK_OP_RST);

    /* Nobody reads any more, which the guest's next bytes show. */
    from = connect_in(r, 52, &fd);
    shutdown(fd, SHUT_RD);
    send_data(r, 52, from, "anybody?", 8);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_RECEIVE);
    host_writes(fd, "still here", 10);
    expect(r, from, 52, VSOCK_OP_RW);
    assert_int_equal(r->h.fwd_cnt, 8); /* what goes nowhere takes no credit */
    close(fd);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_BOTH);
    send_op(r, 52, from, VSOCK_OP_RST);
    rig_close(r);
}

static void test_guest_shutdown(void **state)
{
    struct rig *r = rig_open(NULL);
    int fd;

    init(r, DRIVER_ALL);
    uint32_t from = connect_in(r, 52, &fd);
    send_data(r, 52, from, "last", 4);
    send_shutdown(r, 52, from, VSOCK_SHUTDOWN_SEND);
    host_reads(fd, "last", 4);
    host_reads_end(fd);
    host_writes(fd, "mine", 4);
    expect(r, from, 52, VSOCK_OP_RW);
    /* The host is done too, and there is nothing more to wait for. */
    shutdown(fd, SHUT_WR);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_BOTH);
    send_op(r, 52, from, VSOCK_OP_RST);
    close(fd);

    /* It wants no more: whoever writes is told by the host. */
    from = connect_in(r, 52, &fd);
    send_shutdown(r, 52, from, VSOCK_SHUTDOWN_RECEIVE);
    vboard_drain(&r->b);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    send_data(r, 52, from, "one way", 7);
    host_reads(fd, "one way", 7);
    /* Bytes behind the end of its own half are against the rules. */
    send_shutdown(r, 52, from, VSOCK_SHUTDOWN_BOTH);
    expect(r, from, 52, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    from = connect_in(r, 52, &fd);
    send_shutdown(r, 52, from, VSOCK_SHUTDOWN_SEND);
    send_data(r, 52, from, "x", 1);
    expect(r, from, 52, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);

    /* The host goes while the guest only sends. */
    from = connect_in(r, 52, &fd);
    send_shutdown(r, 52, from, VSOCK_SHUTDOWN_RECEIVE);
    vboard_drain(&r->b);
    close(fd);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_BOTH);
    send_op(r, 52, from, VSOCK_OP_RST);
    rig_close(r);
}

/* The guest has gone with bytes under way to a slow program, which gets them all. */
static void test_linger(void **state)
{
    static uint8_t data[4 * MIB];
    struct rig *r = rig_open(NULL);
    int fd, size = 4096, listener = host_listen(r, 80, 4);
    uint32_t sent = 0;

    init(r, DRIVER_ALL);
    fill_pattern(data, sizeof(data));
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    fd = connect_out(r, listener, 1000, 80);
    for (; sent < VSOCK_BUFFER; sent += 8192)
        send_data(r, 1000, 80, data + sent, 8192);
    uint32_t told;
    do {
        send_op(r, 1000, 80, VSOCK_OP_CREDIT_REQUEST);
        expect(r, 80, 1000, VSOCK_OP_CREDIT_UPDATE);
        told = r->h.fwd_cnt;
        for (; sent < told + VSOCK_BUFFER;
             sent += told + VSOCK_BUFFER - sent < 8192 ? told + VSOCK_BUFFER - sent : 8192)
            send_data(r, 1000, 80, data + sent, told + VSOCK_BUFFER - sent < 8192 ? told + VSOCK_BUFFER - sent : 8192);
    } while (told == sent);
    send_shutdown(r, 1000, 80, VSOCK_SHUTDOWN_BOTH);
    do
        receive(r);
    while (r->h.op == VSOCK_OP_CREDIT_UPDATE);
    assert_int_equal(r->h.op, VSOCK_OP_RST);
    /* The guest's port is free for another connection meanwhile. */
    int next = connect_out(r, listener, 1000, 80);
    host_reads(fd, data, sent);
    host_reads_end(fd);
    send_data(r, 1000, 80, "new", 3);
    host_reads(next, "new", 3);
    close(fd);
    close(next);
    host_unlisten(r, listener, 80);
    rig_close(r);
}

static void test_hostile(void **state)
{
    struct rig *r = rig_open(NULL);
    struct vsock_header h;
    int fd;

    init(r, DRIVER_ALL);
    uint32_t from = connect_in(r, 52, &fd);
    /* Not from itself: nobody to answer to. */
    h = header(r, 52, from, VSOCK_OP_RST);
    h.src_cid = 34;
    send_raw(r, &h, NULL, 0);
    expect_nothing(r);
    /* Not to the host: nobody there. */
    h = header(r, 1000, 7000, VSOCK_OP_REQUEST);
    h.dst_cid = 77;
    send_raw(r, &h, NULL, 0);
    receive(r);
    assert_int_equal(r->h.op, VSOCK_OP_RST);
    assert_int_equal(r->h.src_cid, 77);
    /* Of a type that there is not. */
    h = header(r, 52, from, VSOCK_OP_RST);
    h.type = 7;
    send_raw(r, &h, NULL, 0);
    expect_nothing(r);
    h.op = VSOCK_OP_REQUEST;
    send_raw(r, &h, NULL, 0);
    receive(r);
    assert_int_equal(r->h.op, VSOCK_OP_RST);
    assert_int_equal(r->h.type, 7);
    /* Without a connection. */
    for (unsigned op = 0; op < 10; op++) {
        if (op == VSOCK_OP_REQUEST || op == VSOCK_OP_RST)
            continue;
        send_op(r, 1, 2, op);
        expect(r, 2, 1, VSOCK_OP_RST);
    }
    /* Cut short. */
    const struct driver_buf half = {.gpa = r->tx, .len = HDR - 1};
    unsigned id;
    uint32_t len;
    assert_true(driver_add(&r->d.queues[1], &half, 1) >= 0);
    driver_kick(&r->d.queues[1]);
    assert_true(driver_wait(&r->d.queues[1], &id, &len));
    expect_nothing(r);
    /* After all of that the connection is well. */
    send_data(r, 52, from, "well", 4);
    host_reads(fd, "well", 4);
    /* What ends it: longer than it is, an answer to nothing, an unknown operation. */
    h = header(r, 52, from, VSOCK_OP_RW);
    h.len = 5;
    send_raw(r, &h, "four", 4);
    expect(r, from, 52, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    from = connect_in(r, 52, &fd);
    send_op(r, 52, from, VSOCK_OP_RESPONSE);
    expect(r, from, 52, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    from = connect_in(r, 52, &fd);
    send_op(r, 52, from, 99);
    expect(r, from, 52, VSOCK_OP_RST);
    close(fd);
    rig_close(r);
}

/* A guest that does not take its answers is not listened to for long. */
static void test_replies_are_bounded(void **state)
{
    enum { FLOOD = 200 };
    struct rig *r = rig_open(NULL);
    unsigned used = 0, id;
    uint32_t len;

    driver_init(&r->d, DRIVER_ALL);
    for (unsigned i = 0; i < FLOOD; i++) {
        struct vsock_header h = header(r, i, i, VSOCK_OP_RW);
        const struct driver_buf buf = {.gpa = r->tx + 64 * i, .len = HDR};
        memcpy(vboard_at(&r->b, buf.gpa), &h, HDR);
        assert_true(driver_add(&r->d.queues[1], &buf, 1) >= 0);
    }
    driver_kick(&r->d.queues[1]);
    vboard_drain(&r->b);
    while (driver_get(&r->d.queues[1], &id, &len))
        used++;
    assert_int_equal(used, VSOCK_REPLIES);
    give_all_rx(r);
    for (unsigned i = 0; i < FLOOD; i++)
        expect(r, i, i, VSOCK_OP_RST);
    while (used < FLOOD) {
        assert_true(driver_wait(&r->d.queues[1], &id, &len));
        used++;
    }
    rig_close(r);
}

static void test_small_receive_buffer(void **state)
{
    struct rig *r = rig_open(NULL);
    const struct driver_buf buf = {.gpa = r->rx[0], .len = HDR, .write = true};

    driver_init(&r->d, DRIVER_ALL);
    assert_true(driver_add(&r->d.queues[0], &buf, 1) >= 0);
    driver_kick(&r->d.queues[0]);
    send_op(r, 1, 2, VSOCK_OP_RW);
    assert_true(driver_wait_status(&r->d, 0x40));
    init(r, DRIVER_ALL); /* and it is as new */
    int fd;
    connect_in(r, 52, &fd);
    close(fd);
    rig_close(r);
}

/* A guest that does not answer gets a reset. */
static void test_patience(void **state)
{
    struct rig *r = rig_open(&(struct virtio_vsock_conf){.patience_ns = 20 * NS_PER_MS});
    int fd = host_connect(r);

    init(r, DRIVER_ALL);
    host_writes(fd, "CONNECT 52\n", 11);
    receive(r);
    assert_int_equal(r->h.op, VSOCK_OP_REQUEST);
    expect(r, r->h.src_port, 52, VSOCK_OP_RST);
    host_reads_end(fd);
    close(fd);
    uint32_t from = connect_in(r, 52, &fd);
    close(fd);
    expect_shutdown(r, from, 52, VSOCK_SHUTDOWN_BOTH);
    expect(r, from, 52, VSOCK_OP_RST);
    rig_close(r);
}

static void test_limit(void **state)
{
    struct rig *r = rig_open(&(struct virtio_vsock_conf){.connections = 3});
    int fds[3], listener = host_listen(r, 80, 4), more;

    init(r, DRIVER_ALL);
    connect_in(r, 52, &fds[0]);
    fds[1] = connect_out(r, listener, 1000, 80);
    fds[2] = host_connect(r); /* has not said anything yet */
    more = host_connect(r);
    host_reads_end(more);
    close(more);
    send_op(r, 1001, 80, VSOCK_OP_REQUEST);
    expect(r, 80, 1001, VSOCK_OP_RST);
    send_op(r, 1000, 80, VSOCK_OP_RST); /* one goes, and there is room for another */
    host_reads_end(fds[1]);
    close(fds[1]);
    fds[1] = connect_out(r, listener, 1002, 80);
    for (unsigned i = 0; i < 3; i++)
        close(fds[i]);
    host_unlisten(r, listener, 80);
    rig_close(r);
}

/* Many at once, in both directions, each with its own bytes. */
static void test_many(void **state)
{
    enum { N = 300 };
    struct rig *r = rig_open(NULL);
    int in[N], out[N], listener = host_listen(r, 80, 4);
    uint32_t from[N];
    char text[32];

    init(r, DRIVER_ALL);
    for (unsigned i = 0; i < N; i++) {
        from[i] = connect_in(r, 52, &in[i]);
        out[i] = connect_out(r, listener, 1000 + i, 80);
    }
    for (unsigned i = 0; i < N; i++) {
        snprintf(text, sizeof(text), "in %u", i);
        send_data(r, 52, from[i], text, (uint32_t)strlen(text));
        host_reads(in[i], text, strlen(text));
        snprintf(text, sizeof(text), "out %u", i);
        host_writes(out[i], text, strlen(text));
        expect(r, 80, 1000 + i, VSOCK_OP_RW);
        assert_memory_equal(r->data, text, strlen(text));
    }
    /* All hosts write before the guest takes anything: nobody is forgotten. */
    unsigned seen[N] = {0};
    for (unsigned i = 0; i < N; i++)
        host_writes(out[i], "again", 5);
    for (unsigned i = 0; i < N; i++) {
        receive(r);
        assert_int_equal(r->h.op, VSOCK_OP_RW);
        assert_in_range(r->h.dst_port, 1000, 1000 + N - 1);
        seen[r->h.dst_port - 1000]++;
    }
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(seen[i], 1);
        close(in[i]);
        close(out[i]);
    }
    host_unlisten(r, listener, 80);
    rig_close(r);
}

/* A reset ends what the guest has a part in; a pause nothing, and meanwhile nothing reaches the guest. */
static void test_reset_and_pause(void **state)
{
    struct rig *r = rig_open(NULL);
    int fd, waiting = host_connect(r);

    init(r, DRIVER_ALL);
    uint32_t from = connect_in(r, 52, &fd);
    virtio_pci_pause(r->d.dev);
    host_writes(fd, "meanwhile", 9);
    vboard_drain(&r->b);
    virtio_pci_resume(r->d.dev);
    expect(r, from, 52, VSOCK_OP_RW);
    assert_memory_equal(r->data, "meanwhile", 9);
    init(r, DRIVER_ALL);
    host_reads_end(fd);
    close(fd);
    host_writes(waiting, "CONNECT 53\n", 11);
    receive(r);
    assert_int_equal(r->h.dst_port, 53);
    close(waiting);
    rig_close(r);
}

/* The guest of a restored machine hears that its connections have gone. */
static void test_restore(void **state)
{
    struct rig *r = rig_open(NULL);
    struct stream save, load;
    struct driver_buf buf = {.gpa = r->tx, .len = 8, .write = true};
    unsigned id;
    uint32_t len;
    int fd;

    init(r, DRIVER_ALL);
    connect_in(r, 52, &fd);
    assert_true(driver_add(&r->d.queues[2], &buf, 1) >= 0);
    driver_kick(&r->d.queues[2]);
    vboard_drain(&r->b);
    assert_false(driver_get(&r->d.queues[2], &id, &len));
    virtio_pci_pause(r->d.dev);
    stream_init_save(&save);
    assert_int_equal(device_state(r->d.dev, &save), 0);
    /* Into itself, which is a machine with the same memory. */
    stream_init_load(&load, save.data, save.len);
    assert_int_equal(device_state(r->d.dev, &load), 0);
    stream_fini(&load);
    stream_fini(&save);
    host_reads_end(fd);
    close(fd);
    virtio_pci_resume(r->d.dev);
    assert_true(driver_wait(&r->d.queues[2], &id, &len));
    assert_int_equal(len, 4);
    assert_int_equal(load_le32(vboard_at(&r->b, r->tx)), 0);
    connect_in(r, 52, &fd);
    close(fd);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_path_taken),
        cmocka_unit_test(test_from_host),
        cmocka_unit_test(test_refused_host),
        cmocka_unit_test(test_from_guest),
        cmocka_unit_test(test_full_backlog),
        cmocka_unit_test(test_credit_to_guest),
        cmocka_unit_test(test_credit_to_host),
        cmocka_unit_test(test_host_shutdown),
        cmocka_unit_test(test_guest_shutdown),
        cmocka_unit_test(test_linger),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_replies_are_bounded),
        cmocka_unit_test(test_small_receive_buffer),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_reset_and_pause),
        cmocka_unit_test(test_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
