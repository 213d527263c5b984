/* The backend "switch" on a real switch, and on things that are none. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/iothread.h"
#include "net/net.h"
#include "net/offload.h"
#include "net/switch_ring.h"
#include "net/switch_server.h"

#include "../unit.h"

#define PATIENCE (20 * NS_PER_SEC)

/* An interface. */
struct interface {
    struct net *net;
    bool not_ready;
    unsigned n, flushes, ups, downs;
    size_t length;
    uint8_t frame[NET_FRAME_MAX];
    struct net_header header;
};

static char dir[] = "/tmp/vireo-switch-XXXXXX", path[64];
static struct iothread *io; /* the switch's */
static struct switch_server *server;
static struct switch_server_conf conf = {.name = "test", .path = path, .mac_age_ns = 300 * NS_PER_SEC};
static struct loop *loop; /* that of the interfaces */

/* ---- the switch, on its thread ---- */

static void do_open(void *opaque)
{
    struct err err;

    assert_int_equal(switch_server_open(&server, &conf, io->loop, &err), 0);
}

static void do_close(void *opaque)
{
    switch_server_close(server);
}

static void start_switch(void)
{
    iothread_call(io, do_open, NULL);
}

static void stop_switch(void)
{
    iothread_call(io, do_close, NULL);
}

/* ---- interfaces ---- */

static bool ready(void *opaque)
{
    return !((struct interface *)opaque)->not_ready;
}

static void deliver(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct interface *i = opaque;

    i->n++;
    i->header = *header;
    i->length = offload_gather(frame, n, i->frame, sizeof(i->frame));
}

static void flush(void *opaque)
{
    ((struct interface *)opaque)->flushes++;
}

static void on_link(void *opaque, bool up)
{
    struct interface *i = opaque;

    *(up ? &i->ups : &i->downs) += 1;
}

static int plug(struct interface *i, const char *keys, struct err *err)
{
    const struct net_receiver receiver = {ready, deliver, flush, on_link, i};
    struct net_spec spec;
    char text[128];

    memset(i, 0, sizeof(*i));
    snprintf(text, sizeof(text), "switch=%s%s", path, keys);
    int r = net_spec_parse(text, &spec, err);
    if (r == 0)
        r = net_open(&i->net, &spec, loop, err);
    if (r == 0)
        net_connect(i->net, &receiver);
    return r;
}

/* Runs the loop until *n is at least `least`. */
struct wait {
    struct loop_timer timer;
    const unsigned *n;
    unsigned least;
    int64_t until;
};

static void look(void *opaque)
{
    struct wait *w = opaque;

    if (*w->n >= w->least || loop_now() > w->until)
        loop_stop(loop);
    else
        loop_timer_set(&w->timer, loop_now() + NS_PER_MS);
}

static void wait_for(const unsigned *n, unsigned least)
{
    struct wait w = {.n = n, .least = least, .until = loop_now() + PATIENCE};

    loop_timer_init(&w.timer, loop, look, &w);
    loop_timer_set(&w.timer, 0);
    loop_run(loop);
    assert_in_range(*n, least, UINT32_MAX);
}

static void pass_time(void)
{
    static const unsigned never;
    struct wait w = {.n = &never, .least = 1, .until = loop_now() + 50 * NS_PER_MS};

    loop_timer_init(&w.timer, loop, look, &w);
    loop_timer_set(&w.timer, 0);
    loop_run(loop);
}

static void send_frame(struct interface *from, uint8_t seed, size_t len)
{
    static const struct net_header none;
    static uint8_t frame[NET_FRAME_MAX];
    const struct iovec pieces[] = {{frame, 12}, {frame + 12, len - 12}};

    memset(frame, seed, len);
    memset(frame, 0xff, 6);
    frame[6] = 0x52;
    net_send(from->net, &none, pieces, 2);
    net_flush(from->net);
}

/* ---- tests ---- */

static void test_frames(void **state)
{
    static struct interface a, b;
    struct err err;

    start_switch();
    assert_int_equal(plug(&a, "", &err), 0);                       /* named after the process */
    assert_int_equal(plug(&b, ",mac=52:54:00:00:00:0b", &err), 0); /* and after the address */
    assert_string_equal(server->core.ports[1]->name, "52-54-00-00-00-0b");
    for (unsigned i = 1; i <= 100; i++) {
        send_frame(&a, (uint8_t)i, 14 + i * 600);
        wait_for(&b.n, i);
        assert_int_equal(b.length, 14 + i * 600);
        assert_int_equal(b.frame[b.length - 1], i);
    }
    assert_int_equal(a.n, 0);
    assert_int_equal(b.flushes, 100);
    net_close(a.net);
    net_close(b.net);
    stop_switch();
}

/* One that is not ready loses nothing, as long as there is room. */
static void test_resume(void **state)
{
    static struct interface a, b;
    struct err err;

    start_switch();
    assert_int_equal(plug(&a, ",port=a", &err), 0);
    assert_int_equal(plug(&b, ",port=b", &err), 0);
    b.not_ready = true;
    for (unsigned i = 0; i < 500; i++)
        send_frame(&a, 1, 1500);
    pass_time();
    assert_int_equal(b.n, 0);
    b.not_ready = false;
    net_resume(b.net);
    wait_for(&b.n, 500);
    send_frame(&a, 2, 100);
    wait_for(&b.n, 501);
    net_close(a.net);
    net_close(b.net);
    stop_switch();
}

static void test_offloads(void **state)
{
    static struct interface a, b;
    const struct net_header header = {NET_HEADER_NEEDS_CSUM, NET_GSO_NONE, 0, 0, 34, 6};
    uint8_t frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0, 0, 0, 0, 1, 0x08, 0, 0x45};
    const struct iovec iov = {frame, sizeof(frame)};
    struct err err;

    start_switch();
    assert_int_equal(plug(&a, ",port=a", &err), 0);
    assert_int_equal(plug(&b, ",port=b", &err), 0);
    net_send(a.net, &header, &iov, 1);
    net_flush(a.net);
    wait_for(&b.n, 1);
    assert_int_equal(b.header.flags, 0); /* completed for it */
    net_set_offloads(b.net, NET_OFFLOAD_CSUM);
    for (unsigned i = 2; b.header.flags == 0 && i < 1000; i++) { /* until the switch has read of it */
        net_send(a.net, &header, &iov, 1);
        net_flush(a.net);
        wait_for(&b.n, i);
    }
    assert_int_equal(b.header.flags, NET_HEADER_NEEDS_CSUM);
    assert_int_equal(b.header.csum_start, 34);
    net_close(a.net);
    net_close(b.net);
    stop_switch();
}

/* The switch goes and returns: so does the link, once each. */
static void test_reconnect(void **state)
{
    static struct interface a, b;
    struct err err;

    start_switch();
    assert_int_equal(plug(&a, ",port=a,mac=52:54:00:00:00:01", &err), 0);
    assert_int_equal(plug(&b, ",port=b,mac=52:54:00:00:00:02", &err), 0);
    net_set_offloads(b.net, NET_OFFLOAD_ALL);
    for (unsigned i = 1; i <= 3; i++) {
        stop_switch();
        wait_for(&a.downs, i);
        wait_for(&b.downs, i);
        uint64_t dropped = a.net->dropped;
        send_frame(&a, 1, 100); /* into the void */
        assert_int_equal(a.net->dropped, dropped + 1);
        start_switch();
        wait_for(&a.ups, i);
        wait_for(&b.ups, i);
        send_frame(&a, 1, 100);
        wait_for(&b.n, i);
    }
    assert_int_equal(a.downs, 3);
    assert_int_equal(server->core.ports[server->core.ports[0]->name[0] == 'b' ? 0 : 1]->offloads, NET_OFFLOAD_ALL);
    net_close(a.net);
    stop_switch();
    net_close(b.net);
}

static void test_refused(void **state)
{
    static struct interface a, b, c;
    struct err err;

    assert_int_equal(plug(&a, "", &err), -ENOENT);
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, "vireo switch"));
    start_switch();
    assert_int_equal(plug(&a, ",port=a,mac=52:54:00:00:00:01", &err), 0);
    assert_int_equal(plug(&b, ",port=a", &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "'a'"));
    assert_int_equal(plug(&c, ",mac=52:54:00:00:00:01", &err), -EADDRINUSE);
    assert_non_null(strstr(err.msg, "52:54:00:00:00:01"));
    assert_int_equal(plug(&c, ",vlan=4095", &err), -EINVAL);
    assert_int_equal(plug(&c, ",vlan=0", &err), -EINVAL);
    assert_int_equal(plug(&c, ",port=a/b", &err), -EINVAL);
    assert_int_equal(plug(&c, ",lan=1", &err), -EINVAL);
    net_close(a.net);
    stop_switch();
}

/* ---- something that is no switch, and answers ---- */

struct impostor {
    struct listen_socket socket;
    pthread_t thread;
    const void *answer;
    size_t len;
    int memory;
    int client;
};

static void *answer(void *opaque)
{
    struct impostor *m = opaque;
    char hello[256];

    while ((m->client = accept4(m->socket.fd, NULL, NULL, SOCK_CLOEXEC)) < 0)
        usleep(1000);
    (void)!recv(m->client, hello, sizeof(hello), 0);
    switch_wire_send(m->client, m->answer, m->len, m->memory);
    return NULL;
}

/* What plugging into it comes to. */
static int plug_into(struct impostor *m, struct interface *i, struct err *err)
{
    assert_int_equal(listen_unix_messages(&m->socket, path, err), 0);
    assert_int_equal(pthread_create(&m->thread, NULL, answer, m), 0);
    int r = plug(i, "", err);
    pthread_join(m->thread, NULL);
    listen_close(&m->socket);
    if (r < 0)
        close(m->client);
    return r;
}

static void test_impostors(void **state)
{
    const struct switch_wire_welcome good = {.magic = SWITCH_WIRE_MAGIC,
                                             .version = SWITCH_WIRE_VERSION,
                                             .to_switch = SWITCH_RING_LEAST,
                                             .from_switch = SWITCH_RING_LEAST};
    const size_t bytes = 2 * switch_ring_bytes(SWITCH_RING_LEAST);
    static struct interface i;
    struct switch_wire_welcome w = good;
    struct impostor m = {.answer = &w, .len = sizeof(w), .memory = -1};
    struct err err;

    assert_int_equal(plug_into(&m, &i, &err), -EPROTO); /* no memory */
    m.memory = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(m.memory, (off_t)bytes), 0);
    assert_int_equal(plug_into(&m, &i, &err), -EPROTO); /* memory that can be taken away */
    close(m.memory);
    m.memory = switch_wire_make_memory("test", bytes);
    w.to_switch = SWITCH_RING_LEAST + 4096;
    assert_int_equal(plug_into(&m, &i, &err), -EPROTO);
    w.to_switch = UINT64_C(1) << 63;
    assert_int_equal(plug_into(&m, &i, &err), -EPROTO);
    w.to_switch = 2 * SWITCH_RING_LEAST; /* more than there is */
    assert_int_equal(plug_into(&m, &i, &err), -EPROTO);
    w = good;
    w.version = 7;
    assert_int_equal(plug_into(&m, &i, &err), -EPROTONOSUPPORT);
    w = good;
    m.len = 5;
    assert_int_equal(plug_into(&m, &i, &err), -EPROTO);
    m.len = 0; /* the end */
    assert_int_equal(plug_into(&m, &i, &err), -ECONNRESET);
    close(m.memory);
}

/* A switch that is one at first, and then writes nonsense into the rings, or sends it: the link goes down, and no more than that. */
static void test_mad_switch(void **state)
{
    const struct switch_wire_welcome good = {.magic = SWITCH_WIRE_MAGIC,
                                             .version = SWITCH_WIRE_VERSION,
                                             .to_switch = SWITCH_RING_LEAST,
                                             .from_switch = SWITCH_RING_LEAST};
    const size_t one = switch_ring_bytes(SWITCH_RING_LEAST);
    static struct interface i;
    struct err err;

    for (unsigned how = 0; how < 4; how++) {
        struct impostor m = {.answer = &good, .len = sizeof(good), .memory = switch_wire_make_memory("test", 2 * one)};
        uint8_t *memory = switch_wire_map(m.memory, 2 * one, &err);
        struct switch_ring_shared *to = (void *)memory, *from = (void *)(memory + one);
        assert_int_equal(plug_into(&m, &i, &err), 0);
        if (how == 0)
            atomic_store(&from->put, 1 << 30);
        else if (how == 1)
            atomic_store(&to->taken, UINT64_C(1) << 40);
        else if (how == 2)
            switch_wire_send(m.client, "?", 1, -1);
        else
            close(m.client);
        for (unsigned n = 0; n < 10; n++) /* more than there is room for */
            send_frame(&i, 1, 60000);
        wait_for(&i.downs, 1);
        net_close(i.net);
        munmap(memory, 2 * one);
        close(m.memory);
        if (how < 3)
            close(m.client);
    }
}

static int set_up(void **state)
{
    struct err err;

    snprintf(path, sizeof(path), "%s/socket", mkdtemp(dir));
    assert_int_equal(iothread_open(&io, "switch", &err), 0);
    return loop_open(&loop, &err);
}

static int tear_down(void **state)
{
    iothread_close(io);
    loop_close(loop);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),     cmocka_unit_test(test_resume),  cmocka_unit_test(test_offloads),
        cmocka_unit_test(test_reconnect),  cmocka_unit_test(test_refused), cmocka_unit_test(test_impostors),
        cmocka_unit_test(test_mad_switch),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
