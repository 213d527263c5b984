/* Checksums and segmentation, against plain readings of RFC 1071, 791, 793 and 8200. */
#include "net/offload.h"

#include <stdlib.h>

#include "../unit.h"

#define MSS 1000

struct packet {
    uint8_t bytes[NET_FRAME_MAX];
    size_t ip, tcp, payload, len;
    bool v6;
};

static struct packet sent;
static struct offload_scratch scratch;

/* What comes out. */
static struct {
    unsigned n;
    struct net_header header;
    uint8_t frame[NET_FRAME_MAX];
    size_t len;
    uint8_t payload[NET_FRAME_MAX];
    size_t payload_len;
} got;

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* The folded sum of bytes as RFC 1071 has it: 0xffff over what includes a correct checksum. */
static uint32_t plain_sum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++) {
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

/* A TCP packet with `n` bytes of payload, with the sum of its pseudo-header in its checksum, as drivers leave it. */
static void build(struct packet *p, bool v6, unsigned vlan_tags, size_t n)
{
    uint8_t *b = p->bytes;
    size_t at = 12;

    memset(p, 0, sizeof(*p));
    p->v6 = v6;
    memset(b, 0x11, 12);
    for (unsigned i = 0; i < vlan_tags; i++, at += 4) {
        b[at] = 0x81;
        b[at + 3] = 5;
    }
    b[at] = v6 ? 0x86 : 0x08;
    b[at + 1] = v6 ? 0xdd : 0x00;
    p->ip = at + 2;
    p->tcp = p->ip + (v6 ? 40 : 24); /* IPv4 with an option */
    p->payload = p->tcp + 32;        /* and TCP with options */
    p->len = p->payload + n;
    size_t tcp_len = p->len - p->tcp;
    if (v6) {
        b[p->ip] = 0x60;
        b[p->ip + 6] = 6;
        memset(b + p->ip + 8, 0xab, 32);
    } else {
        b[p->ip] = 0x46;
        b[p->ip + 4] = 0xff;
        b[p->ip + 5] = 0xff;
        b[p->ip + 8] = 64;
        b[p->ip + 9] = 6;
        memset(b + p->ip + 12, 0x0a, 8);
    }
    b[p->tcp + 4] = 0xff;
    b[p->tcp + 5] = 0xff;
    b[p->tcp + 6] = 0xff;
    b[p->tcp + 12] = 0x80;
    b[p->tcp + 13] = 0x80 | 0x18 | 1; /* CWR, ACK, PSH, FIN */
    for (size_t i = 0; i < n; i++)
        b[p->payload + i] = (uint8_t)rand();
    const uint8_t pseudo[4] = {0, 6, (uint8_t)(tcp_len >> 8), (uint8_t)tcp_len};
    uint32_t sum = plain_sum(b + p->ip + (v6 ? 8 : 12), v6 ? 32 : 8, plain_sum(pseudo, 4, 0));
    b[p->tcp + 16] = (uint8_t)(sum >> 8);
    b[p->tcp + 17] = (uint8_t)sum;
}

static struct net_header header_of(const struct packet *p, bool gso)
{
    return (struct net_header){.flags = NET_HEADER_NEEDS_CSUM,
                               .gso_type = !gso    ? NET_GSO_NONE
                                           : p->v6 ? NET_GSO_TCPV6
                                                   : NET_GSO_TCPV4,
                               .gso_size = gso ? MSS : 0,
                               .hdr_len = (uint16_t)p->payload,
                               .csum_start = (uint16_t)p->tcp,
                               .csum_offset = 16};
}

/* A frame that is to be valid in itself, cut from `sent`. */
static void check_frame(const uint8_t *b, size_t len, bool last)
{
    const struct packet *p = &sent;
    size_t tcp_len = len - p->tcp;
    const uint8_t pseudo[4] = {0, 6, (uint8_t)(tcp_len >> 8), (uint8_t)tcp_len};

    assert_memory_equal(b, p->bytes, p->ip);
    if (p->v6) {
        assert_int_equal(be16(b + p->ip + 4), tcp_len);
    } else {
        assert_int_equal(be16(b + p->ip + 2), len - p->ip);
        assert_int_equal(plain_sum(b + p->ip, p->tcp - p->ip, 0), 0xffff);
        assert_int_equal(be16(b + p->ip + 4), (uint16_t)(0xffff + got.n));
    }
    assert_int_equal(plain_sum(b + p->tcp, tcp_len,
                               plain_sum(b + p->ip + (p->v6 ? 8 : 12), p->v6 ? 32 : 8, plain_sum(pseudo, 4, 0))),
                     0xffff);
    assert_int_equal(be32(b + p->tcp + 4), (uint32_t)(0xffffff00 + got.payload_len));
    assert_int_equal(b[p->tcp + 13], (got.n ? 0 : 0x80) | 0x10 | (last ? 0x09 : 0));
}

static void on_emit(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n)
{
    got.header = *h;
    got.len = offload_gather(frame, n, got.frame, sizeof(got.frame));
    assert_int_equal(got.len, offload_length(frame, n));
    if (!h->gso_type && !h->flags) {
        size_t part = got.len - sent.payload;
        check_frame(got.frame, got.len, got.payload_len + part == sent.len - sent.payload);
        memcpy(got.payload + got.payload_len, got.frame + sent.payload, part);
        got.payload_len += part;
    }
    got.n++;
}

static unsigned adapt(unsigned offloads, const struct net_header *h)
{
    /* In pieces of odd sizes, as a guest may have it. */
    const struct iovec frame[3] = {{sent.bytes, 13}, {sent.bytes + 13, 40}, {sent.bytes + 53, sent.len - 53}};

    memset(&got, 0, sizeof(got));
    return offload_adapt(offloads, h, frame, 3, &scratch, on_emit, NULL);
}

static void test_sum(void **state)
{
    static uint8_t data[5000];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)rand();
    for (size_t off = 0; off < 9; off++)
        for (size_t len = 0; len < 200; len++) {
            uint16_t sum = offload_fold(offload_sum(data + off, len, 0));
            assert_int_equal((uint16_t)(sum << 8 | sum >> 8), plain_sum(data + off, len, 0));
        }
    memset(data, 0xff, sizeof(data));
    assert_int_equal(offload_fold(offload_sum(data, sizeof(data), 0xffff0000)), 0xffff);
    assert_int_equal(offload_fold(UINT64_MAX), 0xffff);
}

static void test_segments(void **state)
{
    static const size_t sizes[] = {1, MSS - 1, MSS, MSS + 1, 3 * MSS, 65000};

    for (unsigned v6 = 0; v6 < 2; v6++)
        for (unsigned tags = 0; tags < 3; tags++)
            for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                build(&sent, v6, tags, sizes[i]);
                const struct net_header h = header_of(&sent, true);
                assert_true(offload_check(&h, sent.len));
                unsigned n = adapt(NET_OFFLOAD_CSUM | (v6 ? NET_OFFLOAD_TSO4 : NET_OFFLOAD_TSO6), &h);
                assert_int_equal(n, (sizes[i] + MSS - 1) / MSS);
                assert_int_equal(got.n, n);
                assert_int_equal(got.payload_len, sizes[i]);
                assert_memory_equal(got.payload, sent.bytes + sent.payload, sizes[i]);
            }
}

/* Who takes it is given it as it is. */
static void test_as_it_is(void **state)
{
    build(&sent, false, 0, 5000);
    const struct net_header h = header_of(&sent, true);
    assert_int_equal(adapt(NET_OFFLOAD_ALL, &h), 1);
    assert_memory_equal(&got.header, &h, sizeof(h));
    assert_int_equal(got.len, sent.len);
    assert_memory_equal(got.frame, sent.bytes, sent.len);
    const struct net_header plain = {.flags = NET_HEADER_DATA_VALID};
    assert_int_equal(adapt(0, &plain), 1);
    assert_int_equal(got.header.flags, NET_HEADER_DATA_VALID);
}

static void test_checksum(void **state)
{
    for (unsigned v6 = 0; v6 < 2; v6++)
        for (size_t n = 100; n < 104; n++) {
            build(&sent, v6, 1, n);
            if (!v6) { /* it is complete, where checksums alone are left to do */
                sent.bytes[sent.ip + 3] = (uint8_t)(sent.len - sent.ip);
                uint32_t sum = ~plain_sum(sent.bytes + sent.ip, 24, 0);
                sent.bytes[sent.ip + 10] = (uint8_t)(sum >> 8);
                sent.bytes[sent.ip + 11] = (uint8_t)sum;
            } else {
                sent.bytes[sent.ip + 5] = (uint8_t)(sent.len - sent.tcp);
            }
            const struct net_header h = header_of(&sent, false);
            assert_true(offload_check(&h, sent.len));
            assert_int_equal(adapt(0, &h), 1);
            assert_int_equal(got.payload_len, n);
        }
}

/* A large packet in one piece, for who takes any size. */
static void test_finish(void **state)
{
    build(&sent, false, 0, 60000);
    struct net_header h = header_of(&sent, true);
    memset(&got, 0, sizeof(got));
    memcpy(got.frame, sent.bytes, sent.len);
    assert_true(offload_finish(&h, got.frame, sent.len));
    check_frame(got.frame, sent.len, true);
    assert_memory_equal(got.frame + sent.payload, sent.bytes + sent.payload, 60000);
    build(&sent, false, 0, 65530);
    assert_false(offload_finish(&h, sent.bytes, sent.len)); /* more than IP can say */
}

/* A UDP sum of zero is written as its other zero. */
static void test_no_zero(void **state)
{
    uint8_t frame[64] = {0};
    const struct net_header h = {.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};

    frame[50] = frame[51] = 0xff;
    assert_true(offload_finish(&h, frame, sizeof(frame)));
    assert_int_equal(be16(frame + 40), 0xffff);
}

static void test_check(void **state)
{
    struct net_header h = {0};

    assert_true(offload_check(&h, 14));
    assert_false(offload_check(&h, 13));
    assert_false(offload_check(&h, 0));
    assert_true(offload_check(&h, NET_FRAME_MAX));
    assert_false(offload_check(&h, NET_FRAME_MAX + 1));
    h = (struct net_header){.flags = NET_HEADER_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
    assert_true(offload_check(&h, 42));
    assert_false(offload_check(&h, 41));
    h.csum_start = h.csum_offset = 0xffff;
    assert_false(offload_check(&h, NET_FRAME_MAX));
    h.flags = 0;
    assert_true(offload_check(&h, 100)); /* not looked at then */
    build(&sent, false, 0, 3000);
    h = header_of(&sent, true);
    assert_true(offload_check(&h, sent.len));
    h.gso_type |= NET_GSO_ECN;
    assert_true(offload_check(&h, sent.len));
    h.gso_size = 0;
    assert_false(offload_check(&h, sent.len));
    h.gso_size = OFFLOAD_SEGMENT_LEAST - 1;
    assert_false(offload_check(&h, sent.len));
    h.gso_size = MSS;
    h.flags = 0;
    assert_false(offload_check(&h, sent.len)); /* segments need checksums */
    h = header_of(&sent, true);
    h.gso_type = NET_GSO_UDP;
    assert_false(offload_check(&h, sent.len));
    h.gso_type = 7;
    assert_false(offload_check(&h, sent.len));
    h.gso_type = NET_GSO_ECN;
    assert_false(offload_check(&h, sent.len));
}

/* Headers that promise what the frame does not hold: nothing comes out, whatever it is. */
static void test_lies(void **state)
{
    struct net_header h;

    for (unsigned v6 = 0; v6 < 2; v6++)
        for (unsigned round = 0; round < 20000; round++) {
            build(&sent, v6, round % 4, 200);
            sent.len = (size_t)(54 + rand() % 200);
            for (unsigned i = 0; i < 3; i++)
                sent.bytes[12 + (size_t)rand() % 60] = (uint8_t)rand();
            h = header_of(&sent, true);
            h.gso_size = (uint16_t)(OFFLOAD_SEGMENT_LEAST + rand() % 100);
            const struct iovec frame = {sent.bytes, sent.len};
            struct offload_scratch *s = malloc(sizeof(*s)); /* its ends are watched by the sanitizers */
            got.n = 0;
            got.payload_len = 0;
            sent.payload = NET_FRAME_MAX;
            unsigned n = 0;
            if (offload_check(&h, sent.len)) {
                size_t len = offload_gather(&frame, 1, s->frame, sizeof(s->frame));
                n += offload_finish(&h, s->frame, len);
            }
            assert_in_range(n, 0, 1);
            free(s);
        }
    build(&sent, false, 0, 100);
    h = header_of(&sent, true);
    sent.bytes[sent.ip + 9] = 17; /* UDP */
    assert_int_equal(adapt(0, &h), 0);
    build(&sent, false, 0, 100);
    sent.bytes[sent.tcp + 12] = 0x40; /* a header of 16 bytes */
    assert_int_equal(adapt(0, &h), 0);
    build(&sent, true, 0, 100);
    assert_int_equal(adapt(0, &h), 0); /* the header says IPv4 */
    assert_int_equal(got.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),      cmocka_unit_test(test_segments), cmocka_unit_test(test_as_it_is),
        cmocka_unit_test(test_checksum), cmocka_unit_test(test_finish),   cmocka_unit_test(test_no_zero),
        cmocka_unit_test(test_check),    cmocka_unit_test(test_lies),
    };
    return cmocka_run_group_tests_name("offload", tests, NULL, NULL);
}
