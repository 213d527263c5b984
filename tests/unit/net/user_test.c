/* User-mode NAT, from a guest's end: ARP, DHCP, TCP both ways, forwarded ports, large packets, and a guest that is slow to read. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit.h"
#include "base/listen.h"
#include "net/net.h"
#include "net/offload.h"

#define WAIT_NS (20 * NS_PER_SEC)

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 1};
static const uint8_t host_mac[6] = {0x52, 0x55, 10, 0, 2, 2};
static const uint8_t guest_ip[4] = {10, 0, 2, 15}, host_ip[4] = {10, 0, 2, 2};

struct rig {
    struct loop *loop;
    struct net *net;
    struct loop_timer tick;
    bool closed; /* the guest takes nothing */
    unsigned frames;
    uint8_t flags; /* of the last header */
    uint8_t frame[NET_FRAME_MAX];
    size_t len;

    /* The guest's end of one TCP connection. */
    uint16_t port, peer_port;
    uint32_t seq, ack;
    uint8_t tcp_flags; /* of the last segment for it */
    size_t received;
    uint8_t sum; /* of the bytes received */
};

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

/* ---- the guest ---- */

static void send_frame(struct rig *r, const struct net_header *h, const uint8_t *frame, size_t len)
{
    const struct iovec iov[2] = {{(void *)frame, 20}, {(void *)(frame + 20), len - 20}};

    assert_true(offload_check(h, len));
    net_send(r->net, h, iov, 2);
    net_flush(r->net);
}

static void send_arp(struct rig *r, uint16_t op, const uint8_t *to_ip)
{
    uint8_t f[42] = {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4};

    put16(f + 20, op);
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, guest_ip, 4);
    memcpy(f + 38, to_ip, 4);
    send_frame(r, &(const struct net_header){0}, f, sizeof(f));
}

/* Ethernet and IPv4 for `len` bytes behind them; where those go. */
static uint8_t *begin_ip(uint8_t *f, const uint8_t *to, uint8_t protocol, size_t len)
{
    static const uint8_t head[] = {8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64};

    memcpy(f, host_mac, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, head, sizeof(head));
    put16(f + 16, (unsigned)(20 + len));
    f[23] = protocol;
    memcpy(f + 26, guest_ip, 4);
    memcpy(f + 30, to, 4);
    put16(f + 24, 0);
    store_le16(f + 24, (uint16_t)~offload_fold(offload_sum(f + 14, 20, 0)));
    return f + 34;
}

/* A segment whose checksum is left to do, cut by `gso` bytes where that is not 0. */
static void send_tcp(struct rig *r, uint8_t flags, const void *data, size_t len, uint16_t gso)
{
    static uint8_t f[NET_FRAME_MAX];
    uint8_t *tcp = begin_ip(f, host_ip, 6, 20 + len);
    const uint8_t pseudo[4] = {0, 6, (uint8_t)((20 + len) >> 8), (uint8_t)(20 + len)};
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM,
                                 .gso_type = gso ? NET_GSO_TCPV4 : NET_GSO_NONE,
                                 .gso_size = gso,
                                 .hdr_len = 54,
                                 .csum_start = 34,
                                 .csum_offset = 16};

    memset(tcp, 0, 20);
    put16(tcp, r->port);
    put16(tcp + 2, r->peer_port);
    put32(tcp + 4, r->seq);
    put32(tcp + 8, r->ack);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    store_le16(tcp + 16, offload_fold(offload_sum(f + 26, 8, offload_sum(pseudo, 4, 0))));
    memcpy(tcp + 20, data, len);
    r->seq += (uint32_t)len + (flags & TCP_SYN ? 1 : 0);
    send_frame(r, &h, f, 54 + len);
}

/* A segment for the guest's connection, checked as a guest would. */
static void take_tcp(struct rig *r, const uint8_t *f, size_t len)
{
    const uint8_t *tcp = f + 34;
    size_t tcp_len = be16(f + 16) - 20u, head = (size_t)(tcp[12] >> 4) * 4;
    const uint8_t pseudo[4] = {0, 6, (uint8_t)(tcp_len >> 8), (uint8_t)tcp_len};

    assert_true(len >= 34 + tcp_len && tcp_len >= head);
    assert_int_equal(offload_fold(offload_sum(tcp, tcp_len, offload_sum(f + 26, 8, offload_sum(pseudo, 4, 0)))),
                     0xffff);
    if (be16(tcp + 2) != r->port)
        return;
    r->peer_port = be16(tcp);
    r->tcp_flags = tcp[13];
    if (tcp[13] & TCP_SYN) {
        r->ack = be32(tcp + 4) + 1;
        return;
    }
    if (be32(tcp + 4) != r->ack)
        return; /* sent anew */
    for (size_t i = head; i < tcp_len; i++)
        r->sum = (uint8_t)(r->sum + tcp[i]);
    r->received += tcp_len - head;
    r->ack += (uint32_t)(tcp_len - head);
}

static bool on_guest_ready(void *opaque)
{
    return !((struct rig *)opaque)->closed;
}

static void on_deliver(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct rig *r = opaque;

    assert_false(r->closed);
    r->frames++;
    r->flags = header->flags;
    r->len = offload_gather(frame, n, r->frame, sizeof(r->frame));
    if (r->len >= 54 && be16(r->frame + 12) == 0x0800 && r->frame[23] == 6)
        take_tcp(r, r->frame, r->len);
}

static void on_flush(void *opaque)
{
}

static void on_link(void *opaque, bool up)
{
}

/* ---- the rig ---- */

static void on_tick(void *opaque)
{
    loop_stop(((struct rig *)opaque)->loop);
}

static void turn(struct rig *r)
{
    loop_timer_set(&r->tick, loop_now() + NS_PER_MS);
    loop_run(r->loop);
}

#define WAIT_FOR(r, condition)                                                 \
    do {                                                                       \
        int64_t until = loop_now() + WAIT_NS;                                  \
        while (!(condition)) {                                                 \
            if (loop_now() > until)                                            \
                fail_msg("line %d: waited in vain: %s", __LINE__, #condition); \
            turn(r);                                                           \
        }                                                                      \
    } while (0)

static int try_open(struct rig *r, const char *text, struct err *err)
{
    struct net_spec spec;

    assert_int_equal(net_spec_parse(text, &spec, err), 0);
    int result = net_open(&r->net, &spec, r->loop, err);
    if (result == 0)
        net_connect(r->net, &(const struct net_receiver){on_guest_ready, on_deliver, on_flush, on_link, r});
    return result;
}

static struct rig *rig_open(const char *text)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct err err = {0};

    assert_non_null(r);
    assert_int_equal(loop_open(&r->loop, &err), 0);
    loop_timer_init(&r->tick, r->loop, on_tick, r);
    if (try_open(r, text, &err) != 0)
        fail_msg("%s", err.msg);
    r->port = 40000;
    r->seq = 1000;
    send_arp(r, 1, host_ip); /* tells who we are */
    WAIT_FOR(r, r->frames == 1);
    assert_int_equal(be16(r->frame + 20), 2);
    assert_memory_equal(r->frame + 22, host_mac, 6);
    return r;
}

static void rig_close(struct rig *r)
{
    net_close(r->net);
    loop_timer_cancel(&r->tick);
    loop_close(r->loop);
    free(r);
}

/* The guest connects to a listening socket of the host's; the host's end. */
static int connect_out(struct rig *r, struct listen_socket *s)
{
    int fd;

    r->peer_port = (uint16_t)listen_port(s);
    send_tcp(r, TCP_SYN, "", 0, 0);
    WAIT_FOR(r, r->tcp_flags == (TCP_SYN | TCP_ACK));
    send_tcp(r, TCP_ACK, "", 0, 0);
    WAIT_FOR(r, (fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
    return fd;
}

static size_t read_all(int fd, void *buf, size_t size)
{
    size_t done = 0;
    ssize_t n;

    while (done < size && (n = read(fd, (char *)buf + done, size - done)) > 0)
        done += (size_t)n;
    return done;
}

/* ---- the tests ---- */

static void test_dhcp(void **state)
{
    struct rig *r = rig_open("user");
    uint8_t f[42 + 240 + 4] = {0};
    uint8_t *udp = begin_ip(f, (const uint8_t[4]){255, 255, 255, 255}, 17, sizeof(f) - 34);

    memset(f, 255, 6);
    put16(udp, 68);
    put16(udp + 2, 67);
    put16(udp + 4, sizeof(f) - 34);
    memcpy(udp + 8, (const uint8_t[]){1, 1, 6, 0, 1, 2, 3, 4}, 8);
    memcpy(udp + 8 + 28, guest_mac, 6);
    put32(udp + 8 + 236, 0x63825363);
    memcpy(udp + 8 + 240, (const uint8_t[]){53, 1, 1, 255}, 4);
    unsigned before = r->frames;
    send_frame(r, &(const struct net_header){0}, f, sizeof(f));
    WAIT_FOR(r, r->frames > before);
    assert_memory_equal(r->frame + 42 + 16, guest_ip, 4);
    assert_non_null(memmem(r->frame + 42, r->len - 42, "\6\4\12\0\2\3", 6)); /* the name server */
    assert_non_null(memmem(r->frame + 42, r->len - 42, "\3\4\12\0\2\2", 6)); /* the router */
    rig_close(r);
}

/* The guest's bytes reach the host, in small segments and in large ones that nobody has cut. */
static void test_to_host(void **state)
{
    static uint8_t data[60000], back[sizeof(data)];
    struct rig *r = rig_open("user");
    struct listen_socket s;
    struct err err = {0};
    size_t got = 0;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31 + i / 977);
    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    int fd = connect_out(r, &s);
    send_tcp(r, TCP_ACK | TCP_PSH, "hello", 5, 0);
    WAIT_FOR(r, (got = read_all(fd, back, 5)) > 0);
    assert_memory_equal(back, "hello", 5);
    for (unsigned round = 0; round < 4; round++) {
        send_tcp(r, TCP_ACK | TCP_PSH, data, sizeof(data), 1460);
        got = 0;
        WAIT_FOR(r, (got += read_all(fd, back + got, sizeof(back) - got)) == sizeof(back));
        assert_memory_equal(back, data, sizeof(data));
    }
    assert_int_equal(r->net->dropped, 0);
    assert_int_equal(r->flags, 0);
    close(fd);
    listen_close(&s);
    rig_close(r);
}

/* The host's bytes reach the guest; and while it takes none, they wait and none is lost. */
static void test_to_guest(void **state)
{
    static uint8_t data[300000];
    struct rig *r = rig_open("user");
    struct listen_socket s;
    struct err err = {0};
    size_t sent = 0;
    uint8_t sum = 0;

    net_set_offloads(r->net, NET_OFFLOAD_CSUM);
    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    int fd = connect_out(r, &s);
    for (size_t i = 0; i < sizeof(data); i++)
        sum = (uint8_t)(sum + (data[i] = (uint8_t)(i * 13 + i / 999)));
    int64_t end = loop_now() + WAIT_NS;
    for (unsigned i = 0; r->received < sizeof(data); i++) {
        assert_true(loop_now() < end);
        ssize_t n = sent < sizeof(data) ? write(fd, data + sent, sizeof(data) - sent) : 0;
        sent += n > 0 ? (size_t)n : 0;
        r->closed = i % 3 != 2;
        size_t before = r->received;
        turn(r);
        assert_true(!r->closed || r->received == before);
        r->closed = false;
        net_resume(r->net);
        send_tcp(r, TCP_ACK, "", 0, 0);
    }
    assert_int_equal(r->received, sizeof(data));
    assert_int_equal(r->sum, sum);
    assert_int_equal(r->flags, NET_HEADER_DATA_VALID);
    assert_int_equal(r->net->dropped, 0);
    close(fd);
    WAIT_FOR(r, r->tcp_flags & TCP_FIN);
    listen_close(&s);
    rig_close(r);
}

/* A port that is free now. */
static unsigned free_port(void)
{
    struct listen_socket s;
    struct err err = {0};

    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    unsigned port = listen_port(&s);
    listen_close(&s);
    return port;
}

static int connect_in(int type, unsigned port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void test_forwards(void **state)
{
    unsigned tcp = free_port(), udp = free_port();
    char text[128];

    snprintf(text, sizeof(text), "user,restrict,hostfwd=tcp::%u-:22,hostfwd=udp:127.0.0.1:%u-10.0.2.15:53", tcp, udp);
    struct rig *r = rig_open(text);
    r->port = 22;
    int fd = connect_in(SOCK_STREAM, tcp);
    WAIT_FOR(r, r->tcp_flags == TCP_SYN);
    send_tcp(r, TCP_SYN | TCP_ACK, "", 0, 0);
    WAIT_FOR(r, r->tcp_flags == TCP_ACK);
    assert_int_equal(write(fd, "knock", 5), 5);
    WAIT_FOR(r, r->received == 5);
    close(fd);
    fd = connect_in(SOCK_DGRAM, udp);
    unsigned before = r->frames;
    assert_int_equal(write(fd, "name?", 5), 5);
    WAIT_FOR(r, r->frames > before && r->frame[23] == 17);
    assert_int_equal(be16(r->frame + 36), 53);
    assert_memory_equal(r->frame + 42, "name?", 5);
    close(fd);
    rig_close(r);
}

static void test_port_in_use(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct listen_socket s;
    struct err err = {0};
    char text[128], number[8];

    assert_non_null(r);
    assert_int_equal(loop_open(&r->loop, &err), 0);
    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    snprintf(number, sizeof(number), "%u", listen_port(&s));
    snprintf(text, sizeof(text), "user,hostfwd=tcp::%u-:21,hostfwd=tcp::%s-:22", free_port(), number);
    assert_int_equal(try_open(r, text, &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, number));
    assert_non_null(strstr(err.msg, "127.0.0.1"));
    assert_null(strchr(err.msg, '\n'));
    assert_null(r->net);
    snprintf(text, sizeof(text), "user,hostfwd=udp::%s-:21,hostfwd=udp::%s-:22", number, number);
    assert_int_equal(try_open(r, text, &err), -EADDRINUSE);
    snprintf(text, sizeof(text), "user,hostfwd=tcp:192.0.2.1:%s-:21", number);
    assert_int_equal(try_open(r, text, &err), -EADDRNOTAVAIL); /* no address of ours */
    assert_non_null(strstr(err.msg, "192.0.2.1"));
    listen_close(&s);
    loop_close(r->loop);
    free(r);
}

/* Nothing of the host's is within a restricted guest's reach. */
static void test_restrict(void **state)
{
    struct rig *r = rig_open("user,restrict");
    struct listen_socket s;
    struct err err = {0};

    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    r->peer_port = (uint16_t)listen_port(&s);
    send_tcp(r, TCP_SYN, "", 0, 0);
    WAIT_FOR(r, r->tcp_flags & TCP_RST);
    assert_int_equal(accept4(s.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), -1);
    listen_close(&s);
    rig_close(r);
}

/* What is no TCP packet is not made one. */
static void test_nonsense(void **state)
{
    struct rig *r = rig_open("user");
    uint8_t f[1000] = {0};
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM,
                                 .gso_type = NET_GSO_TCPV4,
                                 .gso_size = 100,
                                 .csum_start = 34,
                                 .csum_offset = 16};

    send_frame(r, &h, f, sizeof(f));
    assert_int_equal(r->net->dropped, 1);
    rig_close(r);
}

/* Many connections at once: the watched descriptors come and go. */
static void test_many(void **state)
{
    enum { MANY = 100 };
    struct rig *r = rig_open("user");
    struct listen_socket s;
    struct err err = {0};
    static int fds[MANY];

    assert_int_equal(listen_tcp(&s, "127.0.0.1", "0", &err), 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            r->port = (uint16_t)(41000 + round * MANY + i);
            r->tcp_flags = 0;
            fds[i] = connect_out(r, &s);
        }
        for (unsigned i = 0; i < MANY; i++) { /* the last one is answered */
            r->received = 0;
            if (i == MANY - 1)
                assert_int_equal(write(fds[i], "x", 1), 1);
            else
                close(fds[i]);
        }
        WAIT_FOR(r, r->received == 1);
        close(fds[MANY - 1]);
    }
    listen_close(&s);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dhcp),     cmocka_unit_test(test_to_host),     cmocka_unit_test(test_to_guest),
        cmocka_unit_test(test_forwards), cmocka_unit_test(test_port_in_use), cmocka_unit_test(test_restrict),
        cmocka_unit_test(test_nonsense), cmocka_unit_test(test_many),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("user", tests, NULL, NULL);
}
