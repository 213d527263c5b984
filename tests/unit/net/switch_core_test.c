/* Where a switch sends a frame: VLANs, isolation, storms, own addresses, and what is dropped and counted. */
#include "net/switch_core.h"

#include <errno.h>
#include <stdlib.h>

#include "../unit.h"

#define N_PORTS 4

/* A port that keeps what it was sent last. */
struct sink {
    struct switch_port port;
    bool full;
    unsigned n, flushes;
    size_t length;
    uint8_t frame[2000];
    struct net_header header;
};

static struct switch_core *core;
static struct sink sinks[N_PORTS];
static const struct net_header plain;

static int deliver(struct switch_port *port, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct sink *s = CONTAINER_OF(port, struct sink, port);

    if (s->full)
        return -ENOSPC;
    s->n++;
    s->header = *header;
    s->length = offload_gather(frame, n, s->frame, sizeof(s->frame));
    return 0;
}

static void flush(struct switch_port *port)
{
    CONTAINER_OF(port, struct sink, port)->flushes++;
}

static int start(void **state)
{
    core = calloc(1, sizeof(*core));
    assert_int_equal(switch_core_init(core, 300 * NS_PER_SEC), 0);
    for (unsigned i = 0; i < N_PORTS; i++) {
        sinks[i] = (struct sink){.port = {.vlan = 1, .deliver = deliver, .flush = flush}};
        assert_int_equal(switch_core_add(core, &sinks[i].port), 0);
    }
    return 0;
}

static int stop(void **state)
{
    switch_core_fini(core);
    free(core);
    return 0;
}

/* Host n's address; 255: everybody's. */
static void put_mac(uint8_t *at, unsigned n)
{
    if (n == 255)
        memset(at, 0xff, 6);
    else
        memcpy(at, (uint8_t[]){0x52, 0x54, 0, 0, 0, (uint8_t)n}, 6);
}

/* A frame of 64 bytes; tci -1: no tag. */
static size_t make(uint8_t *frame, unsigned to, unsigned from, int tci)
{
    size_t at = 12;

    memset(frame, 0x5a, 64);
    put_mac(frame, to);
    put_mac(frame + 6, from);
    if (tci >= 0) {
        memcpy(frame + at, (uint8_t[]){0x81, 0, (uint8_t)(tci >> 8), (uint8_t)tci}, 4);
        at += 4;
    }
    memcpy(frame + at, (uint8_t[]){0x88, 0xb5}, 2);
    return 64;
}

static void input(unsigned port, const struct net_header *header, uint8_t *frame, size_t len)
{
    const struct iovec iov = {frame, len};

    for (unsigned i = 0; i < N_PORTS; i++)
        sinks[i].n = 0;
    switch_core_input(core, &sinks[port].port, header, &iov, 1, 1);
}

static void send_frame(unsigned port, unsigned to, unsigned from, int tci)
{
    uint8_t frame[64];

    input(port, &plain, frame, make(frame, to, from, tci));
}

static uint64_t dropped(unsigned port, enum switch_drop reason)
{
    return sinks[port].port.in.drops[reason];
}

/* Which ports the last frame left by: bit n for port n. */
static unsigned left_by(void)
{
    unsigned ports = 0;

    for (unsigned i = 0; i < N_PORTS; i++)
        ports |= (sinks[i].n > 0) << i;
    return ports;
}

static void test_learning(void **state)
{
    send_frame(0, 2, 1, -1);
    assert_int_equal(left_by(), 0xe);
    send_frame(1, 1, 2, -1);
    assert_int_equal(left_by(), 0x1);
    send_frame(0, 2, 1, -1);
    assert_int_equal(left_by(), 0x2);
    assert_int_equal(sinks[1].length, 64);
    send_frame(2, 2, 1, -1); /* it has moved */
    send_frame(1, 1, 2, -1);
    assert_int_equal(left_by(), 0x4);
    send_frame(2, 1, 9, -1);
    assert_int_equal(left_by(), 0);
    assert_int_equal(dropped(2, SWITCH_DROP_returning), 1);
    assert_int_equal(sinks[2].port.in.frames, 2);
    assert_int_equal(sinks[2].port.in.bytes, 128);
    switch_core_flush(core);
    assert_int_equal(sinks[1].flushes, 1);
    switch_core_flush(core);
    assert_int_equal(sinks[1].flushes, 1);
}

/* Of a port that is no sink's. */
static int ignore(struct switch_port *port, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    return 0;
}

static void test_ports(void **state)
{
    static struct switch_port many[SWITCH_PORTS_MOST];

    for (unsigned i = 0; i < SWITCH_PORTS_MOST; i++) {
        many[i] = (struct switch_port){.vlan = 1, .deliver = ignore};
        assert_int_equal(switch_core_add(core, &many[i]), i + N_PORTS < SWITCH_PORTS_MOST ? 0 : -ENOSPC);
    }
    send_frame(1, 9, 1, -1);
    switch_core_remove(core, &sinks[1].port);
    assert_int_equal(core->table.used, 0);
    assert_int_equal(switch_core_add(core, &many[SWITCH_PORTS_MOST - 1]), 0);
    assert_int_equal(many[SWITCH_PORTS_MOST - 1].index, 1);
}

/* Every kind of frame from every kind of port: where it comes out, and with which tag there (-1: none). */
static void test_vlans(void **state)
{
    static const struct {
        unsigned port;
        int tci;
        unsigned left_by;
        int tag; /* on port 3, the trunk */
    } cases[] = {
        {0, -1, 0xa, 10},                /* access port of VLAN 10, with port 1 */
        {2, -1, 0x8, 20},                /* access port of VLAN 20 */
        {0, 0, 0xa, 10},                 /* a priority alone */
        {0, 5 << 13, 0xa, 5 << 13 | 10}, /* which is kept */
        {0, 10, 0, 0},                   /* a tag on an access port, its own VLAN's even */
        {0, 20, 0, 0},
        {3, 10, 0x3, 0}, /* the trunk's tagged frames */
        {3, 20, 0x4, 0},
        {3, 3 << 13 | 20, 0x4, 0},
        {3, 30, 0, 0},   /* nobody is there */
        {3, 4095, 0, 0}, /* reserved */
        {3, -1, 0, 0},   /* its own VLAN, 1, which nobody else is in */
    };

    sinks[0].port.vlan = sinks[1].port.vlan = 10;
    sinks[2].port.vlan = 20;
    sinks[3].port.trunk = true;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        send_frame(cases[i].port, 255, 1, cases[i].tci);
        assert_int_equal(left_by(), cases[i].left_by);
        if (cases[i].left_by & 8) {
            assert_int_equal(sinks[3].length, cases[i].tci < 0 ? 68 : 64);
            assert_int_equal(sinks[3].frame[12] << 8 | sinks[3].frame[13], 0x8100);
            assert_int_equal(sinks[3].frame[14] << 8 | sinks[3].frame[15], cases[i].tag);
            assert_int_equal(sinks[3].frame[16] << 8 | sinks[3].frame[17], 0x88b5);
        }
        if (cases[i].left_by & 4)
            assert_int_equal(sinks[2].frame[12] << 8 | sinks[2].frame[13], 0x88b5);
    }
    assert_int_equal(dropped(0, SWITCH_DROP_vlan), 2);
    assert_int_equal(dropped(3, SWITCH_DROP_vlan), 1);
    /* An address of one VLAN is none of the other. */
    send_frame(3, 255, 7, 10);
    send_frame(2, 7, 2, -1);
    assert_int_equal(left_by(), 0x8);
}

/* Tags behind tags, and those of providers' bridges, could come out of a trunk as another VLAN's. */
static void test_two_tags(void **state)
{
    static const uint16_t types[] = {0x8100, 0x88a8, 0x9100};
    uint8_t frame[64];

    sinks[3].port.trunk = true;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        for (unsigned port = 0; port < N_PORTS; port += 3) {
            size_t len = make(frame, 255, 1, 0);
            frame[16] = (uint8_t)(types[i] >> 8);
            frame[17] = (uint8_t)types[i];
            input(port, &plain, frame, len);
            assert_int_equal(left_by(), 0);
            if (types[i] != 0x8100) {
                frame[12] = (uint8_t)(types[i] >> 8);
                frame[13] = (uint8_t)types[i];
                input(port, &plain, frame, len);
                assert_int_equal(left_by(), 0);
            }
        }
    assert_int_equal(dropped(0, SWITCH_DROP_vlan), 5);
    assert_int_equal(dropped(3, SWITCH_DROP_vlan), 5);
}

/* Offsets in the virtio-net header count from the frame's start, tag and all. */
static void test_header_moves(void **state)
{
    const struct net_header header = {NET_HEADER_NEEDS_CSUM | NET_HEADER_DATA_VALID, NET_GSO_TCPV4, 54, 48, 34, 16};
    uint8_t frame[64];

    for (unsigned i = 0; i < N_PORTS; i++)
        sinks[i].port.offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6;
    sinks[1].port.vlan = 10;
    sinks[2].port.vlan = 10;
    sinks[3].port.trunk = true;
    input(1, &header, frame, make(frame, 255, 1, -1));
    assert_int_equal(left_by(), 0xc);
    assert_int_equal(sinks[2].header.csum_start, 34);
    assert_int_equal(sinks[2].header.hdr_len, 54);
    assert_int_equal(sinks[3].header.csum_start, 38);
    assert_int_equal(sinks[3].header.hdr_len, 58);
    assert_int_equal(sinks[3].header.gso_size, 48);
    input(3, &sinks[3].header, frame, make(frame, 255, 2, 10));
    assert_int_equal(left_by(), 0x6);
    assert_int_equal(sinks[2].header.csum_start, 34);
    assert_int_equal(sinks[2].header.hdr_len, 54);
    /* A guest's word that a checksum is right counts for nothing; the host's does. */
    assert_int_equal(sinks[2].header.flags, NET_HEADER_NEEDS_CSUM);
    sinks[1].port.uplink = true;
    input(1, &header, frame, make(frame, 255, 1, -1));
    assert_int_equal(sinks[2].header.flags, NET_HEADER_NEEDS_CSUM | NET_HEADER_DATA_VALID);
}

static void test_isolation(void **state)
{
    sinks[0].port.isolated = sinks[1].port.isolated = true;
    send_frame(0, 255, 1, -1);
    assert_int_equal(left_by(), 0xc);
    send_frame(1, 255, 2, -1);
    assert_int_equal(left_by(), 0xc);
    send_frame(0, 2, 1, -1);
    assert_int_equal(left_by(), 0);
    assert_int_equal(dropped(0, SWITCH_DROP_isolated), 1);
    send_frame(2, 2, 3, -1);
    assert_int_equal(left_by(), 0x2);
    send_frame(0, 3, 1, -1);
    assert_int_equal(left_by(), 0x4);
    send_frame(2, 255, 3, -1);
    assert_int_equal(left_by(), 0xb);
}

static void test_storm(void **state)
{
    uint8_t frame[64];
    const struct iovec iov = {frame, make(frame, 255, 1, -1)};

    switch_port_limit(&sinks[0].port, 100);
    for (unsigned i = 0; i < 200; i++)
        switch_core_input(core, &sinks[0].port, &plain, &iov, 1, NS_PER_SEC);
    assert_in_range(sinks[1].n, 10, 12); /* a burst: what comes in a tenth of a second */
    assert_int_equal(dropped(0, SWITCH_DROP_storm), 200 - sinks[1].n);
    /* Others, and frames to known addresses, are not concerned. */
    send_frame(1, 255, 2, -1);
    assert_int_equal(left_by(), 0xd);
    send_frame(0, 2, 1, -1);
    assert_int_equal(left_by(), 0x2);
    sinks[1].n = 0;
    for (unsigned i = 0; i < 1000; i++)
        switch_core_input(core, &sinks[0].port, &plain, &iov, 1, (2 + i) * NS_PER_SEC / 100 + 10 * NS_PER_SEC);
    assert_int_equal(sinks[1].n, 1000);
}

static void test_own_mac(void **state)
{
    sinks[0].port.own_mac = sinks[1].port.own_mac = true;
    put_mac(sinks[0].port.mac, 1);
    send_frame(0, 255, 2, -1);
    assert_int_equal(left_by(), 0);
    assert_int_equal(core->table.used, 0);
    send_frame(0, 255, 1, -1);
    assert_int_equal(left_by(), 0xe);
    send_frame(1, 255, 3, -1); /* has said none: the first is its own */
    assert_int_equal(left_by(), 0xd);
    send_frame(1, 255, 1, -1);
    assert_int_equal(left_by(), 0);
    assert_int_equal(dropped(0, SWITCH_DROP_spoofed), 1);
    assert_int_equal(dropped(1, SWITCH_DROP_spoofed), 1);
}

static void test_malformed(void **state)
{
    static const struct net_header bad[] = {
        {NET_HEADER_NEEDS_CSUM, 0, 0, 0, 13, 0}, /* a checksum over the Ethernet header */
        {NET_HEADER_NEEDS_CSUM, 0, 0, 0, 60, 3}, /* beyond the end */
        {0, NET_GSO_UDP, 0, 100, 0, 0},          /* nobody offers that */
        {NET_HEADER_NEEDS_CSUM, NET_GSO_TCPV4, 0, 0, 34, 16},
    };
    static uint8_t large[NET_FRAME_MAX + 1];
    uint8_t frame[64];

    input(0, &plain, frame, 0);
    input(0, &plain, frame, 13);
    make(large, 255, 1, -1);
    input(0, &plain, large, sizeof(large));
    input(0, &plain, frame, make(frame, 1, 255, -1)); /* from everybody */
    make(frame, 255, 1, -1);
    memset(frame + 6, 0, 6);
    input(0, &plain, frame, 64);
    make(frame, 255, 1, 0);
    input(0, &plain, frame, 17); /* a tag, and no type */
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        input(0, &bad[i], frame, make(frame, 255, 1, -1));
        assert_int_equal(left_by(), 0);
    }
    struct iovec pieces[SWITCH_PIECES_MOST + 1];
    for (unsigned i = 0; i <= SWITCH_PIECES_MOST; i++)
        pieces[i] = (struct iovec){frame + 4 * i, 4};
    switch_core_input(core, &sinks[0].port, &plain, pieces, SWITCH_PIECES_MOST + 1, 1);
    assert_int_equal(dropped(0, SWITCH_DROP_malformed), 7 + ARRAY_SIZE(bad));
    switch_core_input(core, &sinks[0].port, &plain, pieces, SWITCH_PIECES_MOST, 1);
    assert_int_equal(sinks[1].length, 48);
    assert_memory_equal(sinks[1].frame, frame, 48);
    assert_int_equal(sinks[0].port.in.frames, 8 + ARRAY_SIZE(bad));
    memcpy(frame, (uint8_t[]){0x01, 0x80, 0xc2, 0, 0, 0x0e}, 6);
    input(0, &plain, frame, 64);
    assert_int_equal(dropped(0, SWITCH_DROP_reserved), 1);
}

static void test_full(void **state)
{
    sinks[2].full = true;
    send_frame(0, 255, 1, -1);
    assert_int_equal(left_by(), 0xa);
    assert_int_equal(sinks[2].port.out.drops[SWITCH_DROP_full], 1);
    assert_int_equal(sinks[2].port.out.frames, 0);
    assert_int_equal(sinks[1].port.out.bytes, 64);
}

/* What a port does not take, and cannot be made of it. */
static void test_unadaptable(void **state)
{
    const struct net_header header = {NET_HEADER_NEEDS_CSUM, NET_GSO_TCPV4, 54, 100, 34, 16};
    uint8_t frame[64];

    sinks[1].port.offloads = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4;
    input(0, &header, frame, make(frame, 255, 1, -1)); /* no TCP at all */
    assert_int_equal(left_by(), 0x2);
    assert_int_equal(sinks[2].port.out.drops[SWITCH_DROP_unadaptable], 1);
    assert_int_equal(sinks[1].port.out.drops[SWITCH_DROP_unadaptable], 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_learning),     TEST(test_ports),     TEST(test_vlans),       TEST(test_two_tags),
        TEST(test_header_moves), TEST(test_isolation), TEST(test_storm),       TEST(test_own_mac),
        TEST(test_malformed),    TEST(test_full),      TEST(test_unadaptable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
