#include "net/offload.h"

#define ETH_SIZE  14
#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_VLAN 0x8100
#define PROTO_TCP 6

enum { TCP_FIN = 1 << 0, TCP_PSH = 1 << 3, TCP_CWR = 1 << 7 };

static uint16_t load_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void store_be16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void store_be32(uint8_t *p, uint32_t v)
{
    store_be16(p, v >> 16);
    store_be16(p + 2, v & 0xffff);
}

static uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)load_be16(p) << 16 | load_be16(p + 2);
}

/* ---- sums ---- */

/* Words of 32 bits into 64 bits cannot overflow below 16 GiB, and four sums at once keep the CPU's units busy. */
uint64_t offload_sum(const void *data, size_t len, uint64_t sum)
{
    const uint8_t *p = data;
    uint64_t a = 0, b = 0, c = 0, d = 0;

    for (; len >= 16; p += 16, len -= 16) {
        a += load_le32(p);
        b += load_le32(p + 4);
        c += load_le32(p + 8);
        d += load_le32(p + 12);
    }
    sum += a + b + c + d;
    for (; len >= 2; p += 2, len -= 2)
        sum += load_le16(p);
    return len ? sum + *p : sum;
}

uint16_t offload_fold(uint64_t sum)
{
    sum = (sum >> 32) + (sum & UINT32_MAX);
    sum = (sum >> 32) + (sum & UINT32_MAX);
    sum = (sum >> 16) + (sum & UINT16_MAX);
    sum = (sum >> 16) + (sum & UINT16_MAX);
    return (uint16_t)((sum >> 16) + (sum & UINT16_MAX));
}

size_t offload_length(const struct iovec *frame, unsigned n)
{
    size_t len = 0;

    for (unsigned i = 0; i < n; i++)
        len += frame[i].iov_len;
    return len;
}

size_t offload_gather(const struct iovec *frame, unsigned n, void *buf, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t part = frame[i].iov_len < len - done ? frame[i].iov_len : len - done;
        memcpy((uint8_t *)buf + done, frame[i].iov_base, part);
        done += part;
    }
    return done;
}

/* ---- headers ---- */

bool offload_check(const struct net_header *h, size_t len)
{
    unsigned gso = h->gso_type & ~NET_GSO_ECN;

    if (len < ETH_SIZE || len > NET_FRAME_MAX)
        return false;
    if (h->flags & NET_HEADER_NEEDS_CSUM && (size_t)h->csum_start + h->csum_offset + 2 > len)
        return false;
    if (gso == NET_GSO_NONE)
        return h->gso_type == NET_GSO_NONE;
    return (gso == NET_GSO_TCPV4 || gso == NET_GSO_TCPV6) && h->gso_size >= OFFLOAD_SEGMENT_LEAST &&
           h->flags & NET_HEADER_NEEDS_CSUM;
}

unsigned offload_needs(const struct net_header *h)
{
    unsigned gso = h->gso_type & ~NET_GSO_ECN;

    return (h->flags & NET_HEADER_NEEDS_CSUM ? NET_OFFLOAD_CSUM : 0u) | (gso == NET_GSO_TCPV4 ? NET_OFFLOAD_TSO4 : 0u) |
           (gso == NET_GSO_TCPV6 ? NET_OFFLOAD_TSO6 : 0u);
}

/* A TCP packet: where its headers are. */
struct tcp_packet {
    size_t ip, tcp, payload; /* offsets in the frame */
    bool v6;
};

/* False where the frame's own headers do not say TCP over the IP that the header says. IPv6 with extension headers is none that is cut. */
static bool find_tcp(const struct net_header *h, const uint8_t *frame, size_t len, struct tcp_packet *t)
{
    size_t type = 12;

    *t = (struct tcp_packet){.v6 = (h->gso_type & ~NET_GSO_ECN) == NET_GSO_TCPV6};
    while (type + 2 <= len && load_be16(frame + type) == TYPE_VLAN && type < 20)
        type += 4;
    t->ip = type + 2;
    if (t->ip + 40 > len || load_be16(frame + type) != (t->v6 ? TYPE_IPV6 : TYPE_IPV4))
        return false;
    const uint8_t *ip = frame + t->ip;
    size_t ip_size = t->v6 ? 40 : (size_t)(ip[0] & 15) * 4;
    if (ip[0] >> 4 != (t->v6 ? 6 : 4) || ip_size < 20 || ip[t->v6 ? 6 : 9] != PROTO_TCP)
        return false;
    t->tcp = t->ip + ip_size;
    if (t->tcp + 20 > len)
        return false;
    size_t tcp_size = (size_t)(frame[t->tcp + 12] >> 4) * 4;
    t->payload = t->tcp + tcp_size;
    return tcp_size >= 20 && t->payload <= len;
}

/* Lengths and checksums of a TCP packet whose headers are `head` and whose payload's sum is `payload_sum`. False when it is too long for IP. */
static bool seal(const struct tcp_packet *t, uint8_t *head, size_t payload_len, uint64_t payload_sum)
{
    uint8_t *ip = head + t->ip, *tcp = head + t->tcp;
    size_t tcp_len = t->payload - t->tcp + payload_len, ip_len = t->payload - t->ip + payload_len;
    uint8_t pseudo[4] = {0, PROTO_TCP};

    if (ip_len > UINT16_MAX)
        return false;
    if (t->v6) {
        store_be16(ip + 4, tcp_len);
    } else {
        store_be16(ip + 2, ip_len);
        store_be16(ip + 10, 0);
        store_le16(ip + 10, (uint16_t)~offload_fold(offload_sum(ip, t->tcp - t->ip, 0)));
    }
    store_be16(pseudo + 2, tcp_len);
    store_be16(tcp + 16, 0);
    uint64_t sum = offload_sum(pseudo, sizeof(pseudo), payload_sum);
    sum = t->v6 ? offload_sum(ip + 8, 32, sum) : offload_sum(ip + 12, 8, sum);
    store_le16(tcp + 16, (uint16_t)~offload_fold(offload_sum(tcp, t->payload - t->tcp, sum)));
    return true;
}

bool offload_finish(const struct net_header *h, uint8_t *frame, size_t len)
{
    struct tcp_packet t;

    if (h->gso_type != NET_GSO_NONE)
        return find_tcp(h, frame, len, &t) &&
               seal(&t, frame, len - t.payload, offload_sum(frame + t.payload, len - t.payload, 0));
    if (h->flags & NET_HEADER_NEEDS_CSUM) {
        uint16_t sum = (uint16_t)~offload_fold(offload_sum(frame + h->csum_start, len - h->csum_start, 0));
        /* Zero stands for "no checksum" in UDP, and is as good as its negative elsewhere. */
        store_le16(frame + h->csum_start + h->csum_offset, sum ? sum : UINT16_MAX);
    }
    return true;
}

/* ---- segments ---- */

struct cut {
    const struct net_header *h;
    struct tcp_packet t;
    uint8_t *frame, *headers;
    size_t len;
};

/* The headers of the segment at `off` in the payload, as Linux's and every card's segmentation has them. */
static bool make_headers(const struct cut *c, size_t off, size_t part, unsigned index)
{
    uint8_t *ip = c->headers + c->t.ip, *tcp = c->headers + c->t.tcp;
    bool last = c->t.payload + off + part == c->len;

    memcpy(c->headers, c->frame, c->t.payload);
    if (!c->t.v6)
        store_be16(ip + 4, (uint16_t)(load_be16(ip + 4) + index));
    store_be32(tcp + 4, load_be32(tcp + 4) + (uint32_t)off);
    if (!last)
        tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (index)
        tcp[13] &= (uint8_t)~TCP_CWR;
    return seal(&c->t, c->headers, part, offload_sum(c->frame + c->t.payload + off, part, 0));
}

static unsigned segment(const struct net_header *h, struct offload_scratch *s, size_t len,
                        void (*emit)(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n),
                        void *opaque)
{
    static const struct net_header plain;
    struct cut c = {.h = h, .frame = s->frame, .headers = s->headers, .len = len};
    unsigned count = 0;
    size_t off = 0;

    if (!find_tcp(h, s->frame, len, &c.t) || c.t.payload > sizeof(s->headers))
        return 0;
    do {
        size_t left = len - c.t.payload - off, part = left < h->gso_size ? left : h->gso_size;
        if (!make_headers(&c, off, part, count))
            break;
        const struct iovec iov[2] = {{s->headers, c.t.payload}, {s->frame + c.t.payload + off, part}};
        emit(opaque, &plain, iov, part ? 2 : 1);
        count++;
        off += part;
    } while (c.t.payload + off < len);
    return count;
}

unsigned offload_adapt(unsigned offloads, const struct net_header *h, const struct iovec *frame, unsigned n,
                       struct offload_scratch *scratch,
                       void (*emit)(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n),
                       void *opaque)
{
    static const struct net_header plain;

    if (!(offload_needs(h) & ~offloads)) {
        emit(opaque, h, frame, n);
        return 1;
    }
    size_t len = offload_gather(frame, n, scratch->frame, sizeof(scratch->frame));
    if (h->gso_type != NET_GSO_NONE)
        return segment(h, scratch, len, emit, opaque);
    if (!offload_finish(h, scratch->frame, len))
        return 0;
    const struct iovec whole = {scratch->frame, len};
    emit(opaque, &plain, &whole, 1);
    return 1;
}
