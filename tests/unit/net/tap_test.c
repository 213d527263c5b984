/*
 * A tap, in a network namespace of the test's own: what is opened and what is refused, frames both ways, and an interface that
 * goes away. Skipped where namespaces of users or /dev/net/tun are not to be had.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../unit.h"
#include "net/net.h"
#include "net/offload.h"

#define WAIT_NS (20 * NS_PER_SEC)

static struct {
    struct loop *loop;
    struct loop_timer tick;
    struct net *net;
    bool closed, link;
    unsigned frames, flushes;
    struct net_header header;
    uint8_t frame[NET_FRAME_MAX];
    size_t len;
} rig;

static bool have_namespace;
static bool have_users; /* more than one, to give interfaces to */

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        have_namespace = false;
    if (fd >= 0)
        close(fd);
}

static void run(const char *format, const char *name)
{
    char command[128];

    snprintf(command, sizeof(command), format, name);
    if (system(command) != 0)
        fail_msg("%s", command);
}

static int set_up(void **state)
{
    struct err err;
    unsigned user = geteuid();
    char map[32];

    have_users = geteuid() == 0 && unshare(CLONE_NEWNET) == 0;
    have_namespace = have_users || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    if (have_namespace && !have_users) {
        snprintf(map, sizeof(map), "0 %u 1", user);
        write_file("/proc/self/setgroups", "deny");
        write_file("/proc/self/uid_map", map);
    }
    have_namespace = have_namespace && access("/dev/net/tun", R_OK | W_OK) == 0;
    if (have_namespace)
        have_namespace = system("ip tuntap add dev probe mode tap >/dev/null 2>&1 && ip link del probe") == 0;
    return loop_open(&rig.loop, &err);
}

static int tear_down(void **state)
{
    loop_close(rig.loop);
    return 0;
}

#define NEEDS_NAMESPACE()    \
    do {                     \
        if (!have_namespace) \
            skip();          \
    } while (0)

/* ---- the guest's end ---- */

static bool on_ready(void *opaque)
{
    return !rig.closed;
}

static void on_deliver(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    rig.header = *header;
    rig.len = offload_gather(frame, n, rig.frame, sizeof(rig.frame));
    if (rig.frame[12] == 0x88 && rig.frame[13] == 0xb5) /* ours: the kernel sends some of its own */
        rig.frames++;
}

static void on_flush(void *opaque)
{
    rig.flushes++;
}

static void on_link(void *opaque, bool up)
{
    rig.link = up;
}

static void on_tick(void *opaque)
{
    loop_stop(rig.loop);
}

static void turn(void)
{
    loop_timer_set(&rig.tick, loop_now() + NS_PER_MS);
    loop_run(rig.loop);
}

#define WAIT_FOR(condition)                                                    \
    do {                                                                       \
        int64_t until = loop_now() + WAIT_NS;                                  \
        while (!(condition)) {                                                 \
            if (loop_now() > until)                                            \
                fail_msg("line %d: waited in vain: %s", __LINE__, #condition); \
            turn();                                                            \
        }                                                                      \
    } while (0)

static int try_open(const char *text, struct err *err)
{
    struct net_spec spec;

    loop_timer_init(&rig.tick, rig.loop, on_tick, NULL);
    rig.frames = 0;
    rig.closed = false;
    rig.link = true;
    assert_int_equal(net_spec_parse(text, &spec, err), 0);
    int r = net_open(&rig.net, &spec, rig.loop, err);
    if (r == 0)
        net_connect(rig.net, &(const struct net_receiver){on_ready, on_deliver, on_flush, on_link, NULL});
    return r;
}

static void refused(const char *text, int error, const char *words)
{
    struct err err = {0};

    assert_int_equal(try_open(text, &err), error);
    assert_null(rig.net);
    if (!strstr(err.msg, words) || !strstr(err.msg, text) || strchr(err.msg, '\n'))
        fail_msg("%s", err.msg);
}

/* ---- the tests ---- */

static void test_refused(void **state)
{
    NEEDS_NAMESPACE();
    refused("tap=none", -ENODEV, "there is no such interface");
    refused("tap=lo", -EINVAL, "no tap");
    run("ip tuntap add dev %s mode tun", "tun0");
    refused("tap=tun0", -EINVAL, "no tap");
    run("ip tuntap add dev %s mode tap", "tap0");
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq req = {.ifr_name = "tap0", .ifr_flags = IFF_TAP | IFF_NO_PI};
    assert_int_equal(ioctl(fd, TUNSETIFF, &req), 0);
    refused("tap=tap0", -EBUSY, "another process has it");
    close(fd);
    run("ip link del %s", "tap0");
    run("ip link del %s", "tun0");
}

/* The far end: a socket on the interface, as the host's kernel has it. */
static int open_packets(const char *name)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = (int)if_nametoindex(name)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(0x88b5));

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void check_frames(const char *name, const char *spec)
{
    static const struct net_header plain;
    struct err err = {0};
    uint8_t frame[1000], back[1500];
    ssize_t n;

    if (try_open(spec, &err) != 0)
        fail_msg("%s", err.msg);
    run("ip link set %s up", name);
    int fd = open_packets(name);
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 5);
    memset(frame, 0xff, 6);
    frame[12] = 0x88; /* a type for experiments */
    frame[13] = 0xb5;
    assert_int_equal(rig.net->offloads, NET_OFFLOAD_ALL);
    net_set_offloads(rig.net, NET_OFFLOAD_ALL);
    net_set_offloads(rig.net, 0);

    const struct iovec pieces[3] = {{frame, 14}, {frame + 14, 500}, {frame + 514, sizeof(frame) - 514}};
    net_send(rig.net, &plain, pieces, 3);
    WAIT_FOR((n = recv(fd, back, sizeof(back), 0)) > 0);
    assert_int_equal(n, sizeof(frame));
    assert_memory_equal(back, frame, sizeof(frame));

    struct iovec many[100]; /* more than it takes at once */
    for (unsigned i = 0; i < 100; i++)
        many[i] = (struct iovec){frame + 10 * i, 10};
    net_send(rig.net, &plain, many, 100);
    WAIT_FOR((n = recv(fd, back, sizeof(back), 0)) > 0);
    assert_int_equal(n, sizeof(frame));
    assert_memory_equal(back, frame, sizeof(frame));
    assert_int_equal(rig.net->dropped, 0);

    assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    WAIT_FOR(rig.frames == 1);
    assert_int_equal(rig.len, sizeof(frame));
    assert_memory_equal(rig.frame, frame, sizeof(frame));
    assert_true(rig.flushes > 0);

    rig.closed = true; /* and what comes waits in the kernel */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    for (unsigned i = 0; i < 20; i++)
        turn();
    assert_int_equal(rig.frames, 1);
    rig.closed = false;
    net_resume(rig.net);
    WAIT_FOR(rig.frames == 11);
    close(fd);
}

static void test_frames(void **state)
{
    NEEDS_NAMESPACE();
    run("ip tuntap add dev %s mode tap", "tap0");
    check_frames("tap0", "tap=tap0");
    net_close(rig.net);
    run("ip link del %s", "tap0");
    run("ip tuntap add dev %s mode tap multi_queue", "tap1");
    check_frames("tap1", "tap=tap1");
    net_close(rig.net);
    run("ip link del %s", "tap1");
}

static void test_mtu(void **state)
{
    struct err err = {0};

    NEEDS_NAMESPACE();
    run("ip tuntap add dev %s mode tap", "tap0");
    assert_int_equal(try_open("tap=tap0", &err), 0);
    assert_int_equal(rig.net->mtu, 0);
    net_close(rig.net);
    run("ip link set %s mtu 4000", "tap0");
    assert_int_equal(try_open("tap=tap0", &err), 0);
    assert_int_equal(rig.net->mtu, 4000);
    net_close(rig.net);
    assert_int_equal(try_open("tap=tap0,mtu=2000", &err), 0);
    assert_int_equal(rig.net->mtu, 2000);
    net_close(rig.net);
    run("ip link del %s", "tap0");
}

/* The link goes down, at the latest when somebody reads or writes, and what is sent then is lost. */
static void test_removed(void **state)
{
    uint8_t frame[100] = {0};
    const struct iovec iov = {frame, sizeof(frame)};

    NEEDS_NAMESPACE();
    for (unsigned i = 0; i < 2; i++) {
        struct err err = {0};
        run("ip tuntap add dev %s mode tap", "tap0");
        assert_int_equal(try_open("tap=tap0", &err), 0);
        run("ip link set %s up", "tap0");
        rig.closed = i;
        turn();
        run("ip link del %s", "tap0");
        turn();
        rig.closed = false;
        net_resume(rig.net);
        WAIT_FOR(!rig.link);
        net_send(rig.net, &(const struct net_header){0}, &iov, 1);
        assert_int_equal(rig.net->dropped, 1);
        net_set_offloads(rig.net, NET_OFFLOAD_ALL);
        net_resume(rig.net);
        turn();
        net_close(rig.net);
    }
}

static void test_removed_sending(void **state)
{
    uint8_t frame[100] = {0};
    const struct iovec iov = {frame, sizeof(frame)};
    struct err err = {0};

    NEEDS_NAMESPACE();
    run("ip tuntap add dev %s mode tap", "tap0");
    assert_int_equal(try_open("tap=tap0", &err), 0);
    run("ip link del %s", "tap0");
    net_send(rig.net, &(const struct net_header){0}, &iov, 1);
    assert_false(rig.link);
    assert_int_equal(rig.net->dropped, 1);
    net_close(rig.net);
}

/* The last one: rights do not come back. */
static void test_no_right(void **state)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    NEEDS_NAMESPACE();
    if (!have_users)
        skip();
    run("ip tuntap add dev %s mode tap user 1", "tap0");
    assert_int_equal(syscall(SYS_capset, &head, none), 0);
    refused("tap=tap0", -EPERM, "no right");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_frames),          cmocka_unit_test(test_mtu),
        cmocka_unit_test(test_removed), cmocka_unit_test(test_removed_sending), cmocka_unit_test(test_no_right),
    };
    return cmocka_run_group_tests_name("tap", tests, set_up, tear_down);
}
