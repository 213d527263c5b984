/* The network interface, between a driver of its own and a fake network. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit.h"
#include "core/stream.h"
#include "device/virtio_net_impl.h"
#include "virtio/driver.h"
#include "virtio/fake_net.h"

#define ALL_BUT(...) (DRIVER_ALL & ~(uint64_t)(__VA_ARGS__))
#define HEADER       VIRTIO_NET_HEADER_SIZE

static const uint8_t own_mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};
static const struct net_header plain;

struct rig {
    struct vboard b;
    struct driver d;
    struct fake_net *f;
    uint64_t tx_buf; /* 128 KiB */
    uint8_t frame[NET_FRAME_MAX];
};

static struct rig *rig_open_spec(const struct net_spec *spec, unsigned offloads, uint64_t features)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct virtio_net_conf conf = {.spec = spec, .plug = fake_net_plug};

    assert_non_null(r);
    memcpy(conf.mac, own_mac, sizeof(own_mac));
    fake_net_seed = (struct fake_net_seed){.offloads = offloads, .mtu = 9000};
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &virtio_net_type, &conf);
    r->f = fake_net_seed.made;
    if (features)
        driver_init(&r->d, features);
    vboard_drain(&r->b);
    r->tx_buf = vboard_alloc(&r->b, 128 * KIB, 4096);
    return r;
}

static struct rig *rig_open(unsigned offloads, uint64_t features)
{
    static const struct net_spec spec = {.queue_pairs = 1};

    return rig_open_spec(&spec, offloads, features);
}

static void rig_close(struct rig *r)
{
    driver_close(&r->d);
    vboard_close(&r->b);
    free(r);
}

static uint16_t config16(struct rig *r, unsigned off)
{
    return (uint16_t)driver_read(&r->d, r->d.config + off, 2);
}

/* A frame of IPv4 and UDP between two addresses, filled with a pattern. */
static void make_frame(struct rig *r, size_t len, uint8_t to, uint8_t from, uint16_t port)
{
    static const uint8_t head[] = {0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 0, 10, 0, 0, 0};

    for (size_t i = 0; i < len; i++)
        r->frame[i] = (uint8_t)(i * 7 + i / 251);
    memcpy(r->frame, own_mac, 6);
    memcpy(r->frame + 12, head, sizeof(head));
    r->frame[29] = from;
    r->frame[33] = to;
    store_le16(r->frame + 34, port);
    store_le16(r->frame + 36, 53);
}

/* Sends r->frame with a header, in a chain of pieces of at most `piece` bytes, and waits until the chain is back. */
static void send_with(struct rig *r, unsigned pair, const struct net_header *h, size_t len, uint32_t piece)
{
    struct driver_queue *q = &r->d.queues[2 * pair + 1];
    uint8_t *at = vboard_at(&r->b, r->tx_buf);
    struct driver_buf bufs[64];
    unsigned n = 0, id;
    uint32_t total = (uint32_t)(HEADER + len), written;

    memset(at, 0, HEADER);
    memcpy(at, h, sizeof(*h));
    memcpy(at + HEADER, r->frame, len);
    for (uint32_t off = 0; off < total; off += piece, n++)
        bufs[n] = (struct driver_buf){r->tx_buf + off, total - off < piece ? total - off : piece, false};
    assert_true(driver_add(q, bufs, n) >= 0);
    driver_kick(q);
    assert_true(driver_wait(q, &id, &written));
    assert_int_equal(written, 0);
    vboard_drain(&r->b);
}

static void send(struct rig *r, size_t len)
{
    send_with(r, 0, &plain, len, 64 * KIB);
}

/* Gives the device `n` buffers of `len` bytes. */
static uint64_t give_buffers(struct rig *r, unsigned pair, unsigned n, uint32_t len)
{
    struct driver_queue *q = &r->d.queues[2 * pair];
    uint64_t gpa = vboard_alloc(&r->b, (uint64_t)n * len, 64);

    for (unsigned i = 0; i < n; i++)
        assert_true(driver_add(q, &(struct driver_buf){gpa + (uint64_t)i * len, len, true}, 1) >= 0);
    driver_kick(q);
    return gpa;
}

static struct virtio_net_stats stats_of(struct rig *r)
{
    struct virtio_net_stats s;

    virtio_net_stats(r->d.v, &s);
    return s;
}

/* ---- identity ---- */

static void test_config(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    uint8_t mac[6];

    assert_int_equal(driver_pci_read(&r->d, PCI_DEVICE_ID, 2), 0x1041);
    assert_int_equal(r->d.n_queues, 3);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(driver_read(&r->d, r->d.config + i, 1), own_mac[i]);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_STATUS), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_PAIRS), 1);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_MTU), 9000);
    assert_true(r->d.features & VIRTIO_NET_F_MTU);
    assert_false(r->d.features & VIRTIO_NET_F_MQ);
    virtio_net_mac(r->d.v, mac);
    assert_memory_equal(mac, own_mac, 6);
    rig_close(r);
}

/* What cannot be opened is the opener's error, and nothing stays. */
static int refuse(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    return err_set(err, -EBUSY, "it is taken");
}

static void test_open_fails(void **state)
{
    static const struct net_spec spec = {.queue_pairs = 1};
    const struct virtio_net_conf conf = {.spec = &spec, .plug = refuse};
    struct vboard b;
    struct device *dev;
    struct err err = {0};

    vboard_open(&b);
    const struct virtio_pci_conf pci = {&virtio_net_type, &conf, b.io, "net0", 8};
    assert_int_equal(device_open(&dev, &virtio_pci_type, &b.env, &pci, &err), -EBUSY);
    assert_non_null(strstr(err.msg, "it is taken"));
    vboard_close(&b);
}

/* ---- from the guest ---- */

static const uint64_t layouts[] = {DRIVER_ALL, ALL_BUT(VIRTIO_F_RING_PACKED), ALL_BUT(VIRTIO_F_INDIRECT_DESC)};

static void test_send(void **state)
{
    static const uint32_t pieces[] = {64 * KIB, HEADER, 5, 100};

    for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
        struct rig *r = rig_open(NET_OFFLOAD_ALL, layouts[i]);
        for (size_t j = 0; j < ARRAY_SIZE(pieces); j++) {
            make_frame(r, 300, 1, 2, 1000);
            send_with(r, 0, &plain, 300, pieces[j]);
            assert_int_equal(r->f->sent, j + 1);
            assert_int_equal(r->f->len, 300);
            assert_memory_equal(r->f->frame, r->frame, 300);
        }
        assert_true(r->f->flushes >= ARRAY_SIZE(pieces));
        assert_int_equal(stats_of(r).tx_frames, ARRAY_SIZE(pieces));
        assert_int_equal(stats_of(r).tx_bytes, 300 * ARRAY_SIZE(pieces));
        assert_int_equal(stats_of(r).tx_dropped, 0);
        rig_close(r);
    }
}

/* The largest packet that IP can be, and its header goes along as far as it says something. */
static void test_send_large(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM | 0x80,
                                 .gso_type = NET_GSO_TCPV4,
                                 .gso_size = 1448,
                                 .hdr_len = 0xffff,
                                 .csum_start = 34,
                                 .csum_offset = 16};

    make_frame(r, 65549, 1, 2, 1000);
    send_with(r, 0, &h, 65549, 4096);
    assert_int_equal(r->f->len, 65549);
    assert_memory_equal(r->f->frame, r->frame, 65549);
    assert_int_equal(r->f->header.flags, NET_HEADER_NEEDS_CSUM);
    assert_int_equal(r->f->header.gso_type, NET_GSO_TCPV4);
    assert_int_equal(r->f->header.gso_size, 1448);
    assert_in_range(r->f->header.hdr_len, 0, 65549);
    rig_close(r);
}

/* Nothing of what makes no sense reaches the network, and what comes after it does. */
static void test_send_nonsense(void **state)
{
    static const struct {
        struct net_header h;
        size_t len;
    } cases[] = {
        {{0}, 0},
        {{0}, 13},
        {{0}, NET_FRAME_MAX + 1},
        {{.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 100}, 100},
        {{.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 0xffff, .csum_offset = 0xffff}, 1000},
        {{.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 34, .csum_offset = 65}, 100},
        {{.flags = NET_HEADER_NEEDS_CSUM, .gso_type = NET_GSO_TCPV4, .gso_size = 0, .csum_start = 34}, 1000},
        {{.flags = NET_HEADER_NEEDS_CSUM, .gso_type = NET_GSO_TCPV4, .gso_size = 1, .csum_start = 34}, 1000},
        {{.gso_type = NET_GSO_TCPV4, .gso_size = 1448}, 1000},
        {{.flags = NET_HEADER_NEEDS_CSUM, .gso_type = NET_GSO_UDP, .gso_size = 1448, .csum_start = 34}, 1000},
        {{.flags = NET_HEADER_NEEDS_CSUM, .gso_type = 0x7f, .gso_size = 1448, .csum_start = 34}, 1000},
    };
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_frame(r, 1000, 1, 2, 1000);
        if (cases[i].len > sizeof(r->frame)) {
            const struct driver_buf buf = {r->tx_buf, (uint32_t)cases[i].len + HEADER, false};
            struct driver_queue *q = &r->d.queues[1];
            unsigned id;
            uint32_t len;
            memset(vboard_at(&r->b, r->tx_buf), 0, HEADER);
            assert_true(driver_add(q, &buf, 1) >= 0);
            driver_kick(q);
            assert_true(driver_wait(q, &id, &len));
        } else {
            send_with(r, 0, &cases[i].h, cases[i].len, 64 * KIB);
        }
        assert_int_equal(r->f->sent, 0);
        assert_int_equal(stats_of(r).tx_dropped, i + 1);
    }
    make_frame(r, 100, 1, 2, 1000);
    send(r, 100);
    assert_int_equal(r->f->sent, 1);
    rig_close(r);
}

/* A chain shorter than a header. */
static void test_send_short(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    struct driver_queue *q = &r->d.queues[1];
    unsigned id;
    uint32_t len;

    for (uint32_t n = 1; n <= HEADER + 13; n++) {
        assert_true(driver_add(q, &(struct driver_buf){r->tx_buf, n, false}, 1) >= 0);
        driver_kick(q);
        assert_true(driver_wait(q, &id, &len));
    }
    assert_int_equal(driver_status(&r->d) & 0x40, 0);
    assert_int_equal(stats_of(r).tx_dropped, HEADER + 13);
    rig_close(r);
}

/* Offloads that were not negotiated are not asked for. */
static void test_send_not_negotiated(void **state)
{
    struct rig *r =
        rig_open(NET_OFFLOAD_ALL, ALL_BUT(VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6));
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};

    make_frame(r, 1000, 1, 2, 1000);
    send_with(r, 0, &h, 1000, 64 * KIB);
    assert_int_equal(r->f->sent, 0);
    send(r, 1000);
    assert_int_equal(r->f->sent, 1);
    rig_close(r);
}

/* A network that takes nothing but plain frames is given those. */
static void test_send_without_offloads(void **state)
{
    struct rig *r = rig_open(0, DRIVER_ALL);
    struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};

    make_frame(r, 1000, 1, 2, 1000);
    send_with(r, 0, &h, 1000, 300);
    assert_int_equal(r->f->sent, 1);
    assert_int_equal(r->f->header.flags, 0);
    assert_memory_equal(r->f->frame, r->frame, 40);
    /* The sum of what comes out is the negative of the partial one that stood there. */
    assert_int_equal(offload_fold(offload_sum(r->f->frame + 34, 1000 - 34, 0)), (uint16_t)~load_le16(r->frame + 40));

    make_frame(r, 3054, 1, 2, 1000);
    r->frame[23] = 6;
    r->frame[46] = 0x50;
    h = (struct net_header){.flags = NET_HEADER_NEEDS_CSUM,
                            .gso_type = NET_GSO_TCPV4,
                            .gso_size = 1000,
                            .csum_start = 34,
                            .csum_offset = 16};
    send_with(r, 0, &h, 3054, 1000);
    assert_int_equal(r->f->sent, 4);
    assert_int_equal(r->f->len, 1054);
    assert_memory_equal(r->f->frame + 54, r->frame + 2054, 1000);
    r->frame[23] = 17; /* no TCP */
    send_with(r, 0, &h, 3054, 1000);
    assert_int_equal(r->f->sent, 4);
    rig_close(r);
}

/* ---- to the guest ---- */

/* The frame that lies in the buffers used next, by the header's num_buffers; its bytes are compared with r->frame. */
static void expect_frame(struct rig *r, unsigned pair, uint64_t first, uint32_t buf_len, unsigned *index, size_t len)
{
    struct driver_queue *q = &r->d.queues[2 * pair];
    unsigned n = 1, id;
    size_t done = 0;
    uint32_t written;

    for (unsigned i = 0; i < n; i++, (*index)++) {
        const uint8_t *at = vboard_at(&r->b, first + (uint64_t)*index * buf_len);
        uint32_t skip = i ? 0 : HEADER;
        assert_true(driver_wait(q, &id, &written));
        n = i ? n : load_le16(at + 10);
        assert_in_range(n, 1, 1024);
        assert_memory_equal(at + skip, r->frame + done, written - skip);
        done += written - skip;
    }
    assert_int_equal(done, len);
}

static void test_receive(void **state)
{
    static const uint32_t sizes[] = {2048, 1526, 100, HEADER};

    for (size_t i = 0; i < ARRAY_SIZE(layouts); i++)
        for (size_t j = 0; j < ARRAY_SIZE(sizes); j++) {
            struct rig *r = rig_open(NET_OFFLOAD_ALL, layouts[i]);
            uint64_t gpa = give_buffers(r, 0, 200, sizes[j]);
            unsigned index = 0;
            for (size_t len = 60; len < 1600; len += 370) {
                make_frame(r, len, 2, 1, 1000);
                assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, len, 1), 1);
                if ((index + (HEADER + len + sizes[j] - 1) / sizes[j]) > 200)
                    break;
                expect_frame(r, 0, gpa, sizes[j], &index, len);
            }
            rig_close(r);
        }
}

static void test_loopback(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    uint64_t gpa = give_buffers(r, 0, 250, 4096);
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM,
                                 .gso_type = NET_GSO_TCPV4,
                                 .gso_size = 1448,
                                 .csum_start = 34,
                                 .csum_offset = 16};
    unsigned index = 0;

    r->f->loopback = true;
    for (unsigned i = 0; i < 10; i++) {
        make_frame(r, 65000, 1, 2, (uint16_t)i);
        send_with(r, 0, &h, 65000, 4096);
        assert_memory_equal(vboard_at(&r->b, gpa + (uint64_t)index * 4096), &h, 2);
        expect_frame(r, 0, gpa, 4096, &index, 65000);
        assert_int_equal(index, (i + 1) * 16);
    }
    rig_close(r);
}

/* Without merging a frame lies in one chain, and one that does not fit is lost. */
static void test_receive_unmerged(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, ALL_BUT(VIRTIO_NET_F_MRG_RXBUF));
    uint64_t gpa = give_buffers(r, 0, 4, 1526);
    unsigned index = 0;

    make_frame(r, 1514, 2, 1, 1000);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1514, 1), 1);
    expect_frame(r, 0, gpa, 1526, &index, 1514);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1515, 1), 1);
    make_frame(r, 100, 2, 1, 1000);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1), 1);
    expect_frame(r, 0, gpa, 1526, &index, 100);
    assert_int_equal(stats_of(r).rx_dropped, 1);
    rig_close(r);
}

/* A frame that wants more than the guest ever gives makes way in the end. */
static void test_receive_never(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    uint64_t gpa = give_buffers(r, 0, 4, 100);
    unsigned index = 0;

    make_frame(r, 1000, 2, 1, 1000);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1000, 1), 1);
    make_frame(r, 300, 2, 1, 1000);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 300, 1), 0);
    expect_frame(r, 0, gpa, 100, &index, 300);
    assert_int_equal(stats_of(r).rx_dropped, 1);
    rig_close(r);
}

/* Who has no buffers is not read for, and nothing is lost meanwhile. */
static void test_backpressure(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    unsigned index = 0;

    make_frame(r, 1000, 2, 1, 1000);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1000, 40), 0);
    uint64_t gpa = give_buffers(r, 0, 3, 600); /* for one frame and a half */
    expect_frame(r, 0, gpa, 600, &index, 1000);
    assert_int_equal(r->f->owed_left, 38); /* the second lies in the stash */
    gpa = give_buffers(r, 0, 100, 2000);
    for (unsigned i = 0; i < 30; i++) {
        unsigned id;
        uint32_t len;
        assert_true(driver_wait(&r->d.queues[0], &id, &len));
    }
    vboard_drain(&r->b);
    assert_int_equal(r->f->owed_left, 0);
    assert_int_equal(stats_of(r).rx_dropped, 0);
    assert_int_equal(stats_of(r).rx_frames, 40);
    rig_close(r);
}

/* A guest that has no driver yet holds nobody up; one that is paused does. */
static void test_nobody_there(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, 0);

    make_frame(r, 1000, 2, 1, 1000);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1000, 5), 5);
    assert_int_equal(stats_of(r).rx_dropped, 5);
    driver_init(&r->d, DRIVER_ALL);
    uint64_t gpa = give_buffers(r, 0, 10, 2000);
    unsigned index = 0;
    vboard_drain(&r->b);
    virtio_pci_pause(r->d.dev);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1000, 5), 0);
    virtio_pci_resume(r->d.dev);
    for (unsigned i = 0; i < 5; i++)
        expect_frame(r, 0, gpa, 2000, &index, 1000);
    driver_reset(&r->d);
    assert_int_equal(fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1000, 5), 5);
    rig_close(r);
}

/* A receive buffer without room for a header ends the queue, not us. */
static void test_no_room_for_header(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);

    give_buffers(r, 0, 4, HEADER - 1);
    make_frame(r, 100, 2, 1, 1000);
    fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
    assert_true(driver_wait_status(&r->d, 0x40));
    driver_reset(&r->d);
    driver_init(&r->d, DRIVER_ALL);
    send(r, 100);
    assert_int_equal(r->f->sent, 1);
    rig_close(r);
}

/* What the guest does not take is done for it. */
static void test_receive_without_offloads(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, ALL_BUT(VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6));
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM,
                                 .gso_type = NET_GSO_TCPV4,
                                 .gso_size = 1000,
                                 .csum_start = 34,
                                 .csum_offset = 16};
    uint64_t gpa = give_buffers(r, 0, 10, 2000);
    unsigned id;
    uint32_t len;

    assert_int_equal(r->f->net.takes, NET_OFFLOAD_CSUM);
    make_frame(r, 3054, 1, 2, 1000);
    r->frame[23] = 6;
    r->frame[46] = 0x50;
    fake_net_deliver(r->f, r->b.io, &h, r->frame, 3054, 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(driver_wait(&r->d.queues[0], &id, &len));
        assert_int_equal(len, HEADER + 1054);
        assert_memory_equal(vboard_at(&r->b, gpa + i * 2000 + HEADER + 54), r->frame + 54 + i * 1000, 1000);
    }
    rig_close(r);
    r = rig_open(NET_OFFLOAD_ALL, ALL_BUT(VIRTIO_NET_F_GUEST_CSUM));
    assert_int_equal(r->f->net.takes, 0);
    gpa = give_buffers(r, 0, 1, 2000);
    const struct net_header valid = {.flags = NET_HEADER_DATA_VALID};
    fake_net_deliver(r->f, r->b.io, &valid, r->frame, 100, 1);
    assert_true(driver_wait(&r->d.queues[0], &id, &len));
    assert_int_equal(*vboard_at(&r->b, gpa), 0);
    rig_close(r);
}

/* ---- the control queue ---- */

static int command(struct rig *r, unsigned queue, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
    uint8_t out[4096] = {class, cmd}, ack = 0xaa;

    memcpy(out + 2, data, len);
    assert_int_equal(driver_request(&r->d, queue, out, len + 2, &ack, 1), 1);
    return ack;
}

/* Whether a frame for this address gets through. */
static bool passes(struct rig *r, const uint8_t *to)
{
    uint64_t before = stats_of(r).rx_frames;

    make_frame(r, 100, 2, 1, 1000);
    memcpy(r->frame, to, 6);
    fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
    return stats_of(r).rx_frames > before;
}

static void test_filters(void **state)
{
    static const uint8_t other[6] = {2, 9}, group[6] = {1, 0, 0x5e, 0, 0, 7}, all[6] = {255, 255, 255, 255, 255, 255};
    static const uint8_t on = 1, off = 0;
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    uint8_t table[4 + 6 + 4 + 6] = {1};

    give_buffers(r, 0, 200, 2000);
    assert_true(passes(r, other)); /* until the driver says what it wants */
    assert_int_equal(command(r, 2, 0, 0, &off, 1), 0);
    assert_true(passes(r, own_mac));
    assert_true(passes(r, all));
    assert_false(passes(r, other));
    assert_false(passes(r, group));

    memcpy(table + 4, other, 6);
    table[10] = 1;
    memcpy(table + 14, group, 6);
    assert_int_equal(command(r, 2, 1, 0, table, sizeof(table)), 0);
    assert_true(passes(r, other));
    assert_true(passes(r, group));
    assert_int_equal(command(r, 2, 1, 0, &(uint64_t){0}, 8), 0);
    assert_false(passes(r, other));
    assert_false(passes(r, group));

    static const struct {
        uint8_t cmd;
        const uint8_t *mac;
        bool passes;
    } modes[] = {{1, group, true},    {2, other, true}, {3, group, false},
                 {4, own_mac, false}, {5, all, false},  {0, other, true}};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        bool before = passes(r, modes[i].mac);
        assert_int_equal(command(r, 2, 0, modes[i].cmd, &on, 1), 0);
        assert_int_equal(passes(r, modes[i].mac), modes[i].passes);
        assert_int_equal(command(r, 2, 0, modes[i].cmd, &off, 1), 0);
        assert_int_equal(passes(r, modes[i].mac), before);
    }
    assert_int_equal(stats_of(r).rx_dropped, 0);

    assert_int_equal(command(r, 2, 1, 1, other, 6), 0); /* another address for itself */
    assert_true(passes(r, other));
    assert_false(passes(r, own_mac));
    uint8_t mac[6];
    virtio_net_mac(r->d.v, mac);
    assert_memory_equal(mac, other, 6);
    assert_int_equal(driver_read(&r->d, r->d.config + 1, 1), 9);
    driver_init(&r->d, DRIVER_ALL);
    assert_int_equal(driver_read(&r->d, r->d.config + 1, 1), own_mac[1]);
    rig_close(r);
}

/* More addresses than there is room for let all of their kind through. */
static void test_filter_overflow(void **state)
{
    static const uint8_t other[6] = {2, 9, 9}, group[6] = {1, 0, 0x5e, 0, 0, 7}, off = 0;
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    uint8_t table[4 + 6 * (VIRTIO_NET_TABLE_MAX + 1) + 4 + 6] = {VIRTIO_NET_TABLE_MAX + 1};

    give_buffers(r, 0, 20, 2000);
    assert_int_equal(command(r, 2, 0, 0, &off, 1), 0);
    table[4 + 6 * (VIRTIO_NET_TABLE_MAX + 1)] = 1;
    memcpy(table + sizeof(table) - 6, group, 6);
    assert_int_equal(command(r, 2, 1, 0, table, sizeof(table)), 0);
    assert_true(passes(r, other));
    assert_true(passes(r, group));
    assert_false(passes(r, (const uint8_t[6]){1, 2}));
    rig_close(r);
}

static void test_vlans(void **state)
{
    static const uint8_t off = 0, vlan[2] = {100, 1};
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);

    give_buffers(r, 0, 20, 2000);
    assert_int_equal(command(r, 2, 0, 0, &off, 1), 0);
    for (unsigned i = 0; i < 3; i++) {
        if (i)
            assert_int_equal(command(r, 2, 2, i == 1 ? 0 : 1, vlan, 2), 0);
        uint64_t before = stats_of(r).rx_frames;
        make_frame(r, 100, 2, 1, 1000);
        memcpy(r->frame + 12, (const uint8_t[4]){0x81, 0, 0xe0 | 1, 100}, 4);
        fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
        assert_int_equal(stats_of(r).rx_frames - before, i == 1);
    }
    assert_int_equal(command(r, 2, 2, 0, (const uint8_t[2]){0, 0x10}, 2), 1);
    rig_close(r);
}

static void test_commands_refused(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6}, zero[16];
    static const struct {
        uint8_t class, cmd;
        const void *data;
        uint32_t len;
    } cases[] = {
        {0, 0, zero, 0},  {0, 6, zero, 1},   {0, 255, zero, 1}, {1, 0, zero, 4}, {1, 0, zero, 3},
        {1, 0, huge, 10}, {1, 1, zero, 5},   {1, 2, zero, 6},   {2, 0, zero, 1}, {2, 2, zero, 2},
        {3, 0, zero, 0},  {4, 0, "\1\0", 2}, {4, 0, zero, 2},   {5, 0, zero, 7}, {5, 0, "\0\0\0\0\0\0\0\200", 8},
        {5, 1, zero, 8},  {6, 0, zero, 8},   {255, 0, zero, 1},
    };
    uint8_t ack;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (command(r, 2, cases[i].class, cases[i].cmd, cases[i].data, cases[i].len) != 1)
            fail_msg("command %u.%u of %u bytes was taken", cases[i].class, cases[i].cmd, cases[i].len);
    assert_int_equal(driver_request(&r->d, 2, "\0", 1, &ack, 1), 1);
    assert_int_equal(ack, 1);
    assert_int_equal(driver_request(&r->d, 2, "\0\0\1", 3, NULL, 0), 0); /* nowhere to put the answer */
    rig_close(r);
}

static void test_guest_offloads(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, ALL_BUT(VIRTIO_NET_F_GUEST_TSO6));
    uint64_t set = VIRTIO_NET_F_GUEST_CSUM;

    assert_int_equal(r->f->net.takes, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    assert_int_equal(command(r, 2, 5, 0, &set, 8), 0);
    assert_int_equal(r->f->net.takes, NET_OFFLOAD_CSUM);
    set = VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO6;
    assert_int_equal(command(r, 2, 5, 0, &set, 8), 1); /* not negotiated */
    set = 0;
    assert_int_equal(command(r, 2, 5, 0, &set, 8), 0);
    assert_int_equal(r->f->net.takes, 0);
    rig_close(r);
}

/* ---- several pairs ---- */

static void test_pairs(void **state)
{
    static const struct net_spec spec = {.queue_pairs = 4};
    struct rig *r = rig_open_spec(&spec, NET_OFFLOAD_ALL, DRIVER_ALL);
    uint64_t gpa[4];
    unsigned index[4] = {0}, id;
    uint32_t len;

    assert_int_equal(r->d.n_queues, 9);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_PAIRS), 4);
    for (unsigned i = 0; i < 4; i++)
        gpa[i] = give_buffers(r, i, 40, 2000);
    make_frame(r, 100, 1, 2, 1000);
    send_with(r, 2, &plain, 100, 4096);
    make_frame(r, 100, 2, 1, 53);
    store_le16(r->frame + 36, 1000);
    fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
    expect_frame(r, 0, gpa[0], 2000, &index[0], 100); /* one pair until told otherwise */

    assert_int_equal(command(r, 8, 4, 0, (const uint8_t[2]){5, 0}, 2), 1);
    assert_int_equal(command(r, 8, 4, 0, (const uint8_t[2]){4, 0}, 2), 0);
    for (unsigned i = 0; i < 4; i++) {
        /* A flow goes out through a pair, and its answers come in through that. */
        make_frame(r, 100, 1, 2, (uint16_t)(2000 + i));
        send_with(r, i, &plain, 100, 4096);
        make_frame(r, 100, 2, 1, 53);
        store_le16(r->frame + 36, (uint16_t)(2000 + i));
        fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
        expect_frame(r, i, gpa[i], 2000, &index[i], 100);
        assert_false(driver_get(&r->d.queues[2 * ((i + 1) % 4)], &id, &len));
    }
    assert_int_equal(command(r, 8, 4, 0, (const uint8_t[2]){1, 0}, 2), 0);
    fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
    expect_frame(r, 0, gpa[0], 2000, &index[0], 100);
    rig_close(r);

    /* A driver that knows no pairs finds the control queue behind the first one. */
    r = rig_open_spec(&spec, NET_OFFLOAD_ALL, ALL_BUT(VIRTIO_NET_F_MQ));
    assert_int_equal(command(r, 2, 0, 1, (const uint8_t[1]){1}, 1), 0);
    rig_close(r);
}

/* ---- the link ---- */

static void test_link(void **state)
{
    struct rig *r = rig_open(NET_OFFLOAD_ALL, DRIVER_ALL);
    unsigned vector = r->d.n_queues, seen = vboard_messages(&r->b, vector);

    give_buffers(r, 0, 10, 2000);
    make_frame(r, 100, 1, 2, 1000);
    virtio_net_set_link(r->d.v, false);
    assert_true(vboard_wait_message(&r->b, vector, seen));
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_STATUS), 0);
    assert_false(virtio_net_link(r->d.v));
    send(r, 100);
    assert_int_equal(r->f->sent, 0);
    fake_net_deliver(r->f, r->b.io, &plain, r->frame, 100, 1);
    assert_int_equal(stats_of(r).rx_frames, 0);
    seen = vboard_messages(&r->b, vector);
    virtio_net_set_link(r->d.v, false);
    assert_int_equal(vboard_messages(&r->b, vector), seen); /* as it was */
    virtio_net_set_link(r->d.v, true);
    assert_true(vboard_wait_message(&r->b, vector, seen));
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_STATUS), VIRTIO_NET_S_LINK_UP);
    send(r, 100);
    assert_int_equal(r->f->sent, 1);

    fake_net_link(r->f, r->b.io, false);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_STATUS), 0);
    virtio_net_set_link(r->d.v, false);
    fake_net_link(r->f, r->b.io, true);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_STATUS), 0); /* it takes both ends */
    virtio_net_set_link(r->d.v, true);
    assert_int_equal(config16(r, VIRTIO_NET_CONFIG_STATUS), VIRTIO_NET_S_LINK_UP);
    rig_close(r);
}

/* ---- limits ---- */

static void test_limits(void **state)
{
    static const struct net_spec spec = {.queue_pairs = 1, .bps = 100000, .bps_burst = 1000};
    struct rig *r = rig_open_spec(&spec, NET_OFFLOAD_ALL, DRIVER_ALL);
    struct driver_queue *q = &r->d.queues[1];
    int64_t start = loop_now();
    unsigned id;
    uint32_t len;

    make_frame(r, 1000, 1, 2, 1000);
    memset(vboard_at(&r->b, r->tx_buf), 0, HEADER);
    for (unsigned i = 0; i < 21; i++)
        assert_true(driver_add(q, &(struct driver_buf){r->tx_buf, HEADER + 1000, false}, 1) >= 0);
    driver_kick(q);
    for (unsigned i = 0; i < 21; i++) {
        assert_true(driver_wait(q, &id, &len));
        if (i == 10) { /* what waits for its turn outlives a pause */
            virtio_pci_pause(r->d.dev);
            virtio_pci_resume(r->d.dev);
        }
    }
    assert_true(loop_now() - start >= 200 * NS_PER_MS);
    vboard_drain(&r->b);
    assert_int_equal(r->f->sent, 21);

    start = loop_now();
    give_buffers(r, 0, 50, 2000);
    fake_net_deliver(r->f, r->b.io, &plain, r->frame, 1000, 21);
    for (unsigned i = 0; i < 21; i++)
        assert_true(driver_wait(&r->d.queues[0], &id, &len));
    assert_true(loop_now() - start >= 200 * NS_PER_MS);
    assert_int_equal(stats_of(r).rx_dropped, 0);
    rig_close(r);
}

/* ---- saved state ---- */

static void test_state(void **state)
{
    static const uint8_t other[6] = {2, 9}, off = 0;
    static const struct net_spec spec = {.queue_pairs = 2};
    struct rig *r = rig_open_spec(&spec, NET_OFFLOAD_ALL, DRIVER_ALL);
    uint64_t set = VIRTIO_NET_F_GUEST_CSUM;
    struct stream s;

    give_buffers(r, 0, 20, 2000);
    assert_int_equal(command(r, 4, 0, 0, &off, 1), 0);
    assert_int_equal(command(r, 4, 1, 1, other, 6), 0);
    assert_int_equal(command(r, 4, 4, 0, (const uint8_t[2]){2, 0}, 2), 0);
    assert_int_equal(command(r, 4, 5, 0, &set, 8), 0);
    stream_init_save(&s);
    assert_int_equal(device_state(r->d.dev, &s), 0);
    driver_reset(&r->d);
    assert_true(passes(r, own_mac) == false && r->f->net.takes == 0);
    struct stream in;
    stream_init_load(&in, s.data, s.len);
    assert_int_equal(device_state(r->d.dev, &in), 0);
    vboard_drain(&r->b);
    assert_true(passes(r, other));
    assert_false(passes(r, own_mac));
    assert_int_equal(r->f->net.takes, NET_OFFLOAD_CSUM);
    assert_int_equal(((struct virtio_net *)r->d.v)->active_pairs, 2);
    for (size_t len = 0; len < s.len; len += 7) { /* cut short */
        stream_init_load(&in, s.data, len);
        assert_true(device_state(r->d.dev, &in) < 0);
    }
    stream_fini(&s);
    rig_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_send),
        cmocka_unit_test(test_send_large),
        cmocka_unit_test(test_send_nonsense),
        cmocka_unit_test(test_send_short),
        cmocka_unit_test(test_send_not_negotiated),
        cmocka_unit_test(test_send_without_offloads),
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_receive_unmerged),
        cmocka_unit_test(test_receive_never),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_no_room_for_header),
        cmocka_unit_test(test_receive_without_offloads),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_filter_overflow),
        cmocka_unit_test(test_vlans),
        cmocka_unit_test(test_commands_refused),
        cmocka_unit_test(test_guest_offloads),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_link),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests_name("virtio_net", tests, NULL, NULL);
}
