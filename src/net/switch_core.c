#include "net/switch_core.h"

#include <errno.h>

#define TABLE_CAPACITY 8192
#define TABLE_PER_PORT 1024

#define ETHER_HEAD    14 /* two addresses and a type */
#define TAG_BYTES     4
#define TYPE_TAG      0x8100
#define TYPE_PROVIDER 0x88a8 /* and what was used before it was made a standard: */
#define TYPE_QINQ     0x9100
#define VLAN_MASK     0xfff

const char *const switch_drop_names[SWITCH_N_DROPS] = {
#define DROP(name) #name,
#include "net/switch_drops.def"
#undef DROP
};

/* A frame on its way through the switch: its Ethernet header both ways, and the rest where it lies. */
struct transit {
    struct switch_core *core;
    struct switch_port *from;
    uint16_t vlan;
    size_t length; /* untagged */
    struct net_header header;
    uint8_t plain[ETHER_HEAD], tagged[ETHER_HEAD + TAG_BYTES];
    struct iovec pieces[1 + SWITCH_PIECES_MOST]; /* the first is one of those */
    unsigned n;
};

int switch_core_init(struct switch_core *core, int64_t mac_age_ns)
{
    memset(core->ports, 0, sizeof(core->ports));
    core->end = 0;
    core->scratch_used = false;
    return switch_table_init(&core->table, TABLE_CAPACITY, TABLE_PER_PORT, mac_age_ns);
}

void switch_core_fini(struct switch_core *core)
{
    switch_table_fini(&core->table);
}

int switch_core_add(struct switch_core *core, struct switch_port *port)
{
    unsigned i = 0;

    while (i < core->end && core->ports[i])
        i++;
    if (i == SWITCH_PORTS_MOST)
        return -ENOSPC;
    core->ports[i] = port;
    core->end = i == core->end ? i + 1 : core->end;
    port->index = i;
    return 0;
}

void switch_core_remove(struct switch_core *core, struct switch_port *port)
{
    switch_table_forget(&core->table, port->index);
    core->ports[port->index] = NULL;
    while (core->end && !core->ports[core->end - 1])
        core->end--;
}

void switch_port_limit(struct switch_port *port, uint64_t flood)
{
    limiter_init(&port->flood, flood, 0, 0, 0);
}

/* ---- in ---- */

static uint16_t load_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static bool is_tag(uint16_t type)
{
    return type == TYPE_TAG || type == TYPE_PROVIDER || type == TYPE_QINQ;
}

static bool is_zero(const uint8_t mac[6])
{
    return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* Bridges keep these to themselves: 01-80-c2-00-00-00 to -0f. */
static bool is_reserved(const uint8_t *mac)
{
    static const uint8_t reserved[5] = {0x01, 0x80, 0xc2, 0x00, 0x00};

    return memcmp(mac, reserved, sizeof(reserved)) == 0 && mac[5] < 16;
}

/* What is left of the frame behind the first `skip` bytes. */
static void set_pieces(struct transit *t, const struct iovec *frame, unsigned n, size_t skip)
{
    t->n = 1;
    for (unsigned i = 0; i < n; i++) {
        size_t off = skip < frame[i].iov_len ? skip : frame[i].iov_len;
        skip -= off;
        if (frame[i].iov_len > off)
            t->pieces[t->n++] = (struct iovec){(uint8_t *)frame[i].iov_base + off, frame[i].iov_len - off};
    }
}

/* Offsets into the frame move with the tag before them. */
static void move_header(struct net_header *h, int by)
{
    if (h->flags & NET_HEADER_NEEDS_CSUM)
        h->csum_start = (uint16_t)(h->csum_start + by);
    if (h->hdr_len)
        h->hdr_len = (uint16_t)(h->hdr_len + by);
}

/* The header as the receiver may have it: offsets behind the Ethernet header, nothing but what vireo's own interfaces understand. */
static bool take_header(struct transit *t, const struct net_header *h, size_t length, size_t head)
{
    if (!offload_check(h, length) || ((h->flags & NET_HEADER_NEEDS_CSUM) && h->csum_start < head))
        return false;
    t->header = *h;
    t->header.flags &= t->from->uplink ? NET_HEADER_NEEDS_CSUM | NET_HEADER_DATA_VALID : NET_HEADER_NEEDS_CSUM;
    if (h->hdr_len < head)
        t->header.hdr_len = 0;
    return true;
}

/* Reads the Ethernet header and the tag. SWITCH_N_DROPS: the frame may go on. */
static enum switch_drop admit(struct transit *t, const struct net_header *h, const struct iovec *frame, unsigned n)
{
    const struct switch_port *port = t->from;
    uint8_t head[ETHER_HEAD + TAG_BYTES];
    size_t length = offload_length(frame, n), skip = ETHER_HEAD;

    if (length < ETHER_HEAD || length > NET_FRAME_MAX || n > SWITCH_PIECES_MOST)
        return SWITCH_DROP_malformed;
    size_t got = offload_gather(frame, n, head, sizeof(head));
    uint16_t type = load_be16(head + 12), tag = 0;
    t->vlan = port->vlan;
    if (type == TYPE_TAG) {
        if (got < sizeof(head))
            return SWITCH_DROP_malformed;
        tag = load_be16(head + 14);
        type = load_be16(head + 16);
        skip += TAG_BYTES;
        uint16_t vlan = tag & VLAN_MASK; /* 0: a priority alone */
        if (vlan && (!port->trunk || vlan > SWITCH_VLAN_MOST))
            return SWITCH_DROP_vlan;
        t->vlan = vlan ? vlan : port->vlan;
    }
    if (is_tag(type))
        return SWITCH_DROP_vlan;
    if ((head[6] & 1) || is_zero(head + 6) || !take_header(t, h, length, skip))
        return SWITCH_DROP_malformed;
    if (skip > ETHER_HEAD)
        move_header(&t->header, -TAG_BYTES);
    tag = (uint16_t)((tag & ~VLAN_MASK) | t->vlan);
    memcpy(t->plain, head, 12);
    memcpy(t->tagged, head, 12);
    memcpy(t->tagged + 12, (uint8_t[]){TYPE_TAG >> 8, TYPE_TAG & 0xff, (uint8_t)(tag >> 8), (uint8_t)tag}, TAG_BYTES);
    memcpy(t->plain + 12, (uint8_t[]){(uint8_t)(type >> 8), (uint8_t)type}, 2);
    memcpy(t->tagged + 16, t->plain + 12, 2);
    t->length = length - (skip - ETHER_HEAD);
    set_pieces(t, frame, n, skip);
    return SWITCH_N_DROPS;
}

/* ---- out ---- */

static void emit(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct switch_port *port = opaque;

    if (port->deliver(port, header, frame, n) < 0) {
        port->out.drops[SWITCH_DROP_full]++;
        return;
    }
    pcap_frame(port->capture, frame, n);
    port->out.frames++;
    port->out.bytes += offload_length(frame, n);
    port->touched = true;
}

/* Does for the port what it does not take. */
static void adapt(struct switch_core *core, struct switch_port *port, const struct net_header *header,
                  const struct iovec *frame, unsigned n)
{
    bool free = !core->scratch_used;

    core->scratch_used = true;
    if (!free || !offload_adapt(port->offloads, header, frame, n, &core->scratch, emit, port))
        port->out.drops[SWITCH_DROP_unadaptable]++;
    core->scratch_used = !free;
}

static void send_to(struct transit *t, struct switch_port *port)
{
    struct net_header header = t->header;

    t->pieces[0] = (struct iovec){t->plain, sizeof(t->plain)};
    if (port->trunk && t->vlan != port->vlan) {
        t->pieces[0] = (struct iovec){t->tagged, sizeof(t->tagged)};
        move_header(&header, TAG_BYTES);
    }
    if ((offload_needs(&header) & ~port->offloads) == 0)
        emit(port, &header, t->pieces, t->n);
    else
        adapt(t->core, port, &header, t->pieces, t->n);
}

/* Whether frames of that VLAN leave by the port, if they come from `from`. */
static bool leads(const struct switch_port *port, const struct transit *t)
{
    return (port->trunk || port->vlan == t->vlan) && !(port->isolated && t->from->isolated);
}

static enum switch_drop flood(struct transit *t, int64_t now_ns)
{
    if (limiter_take(&t->from->flood, 1, t->length, now_ns))
        return SWITCH_DROP_storm;
    for (unsigned i = 0; i < t->core->end; i++) {
        struct switch_port *port = t->core->ports[i];
        if (port && port != t->from && leads(port, t))
            send_to(t, port);
    }
    return SWITCH_N_DROPS;
}

/* Whether the port may send from the address; one that has not said its own gets it with the first frame. */
static bool owns(struct switch_port *port, const uint8_t *mac)
{
    if (port->own_mac && is_zero(port->mac))
        memcpy(port->mac, mac, 6);
    return !port->own_mac || memcmp(port->mac, mac, 6) == 0;
}

static enum switch_drop forward(struct transit *t, int64_t now_ns)
{
    const uint8_t *to = t->plain, *from = t->plain + 6;

    if (!owns(t->from, from))
        return SWITCH_DROP_spoofed;
    if (is_reserved(to))
        return SWITCH_DROP_reserved;
    switch_table_learn(&t->core->table, t->vlan, from, t->from->index, now_ns);
    if (to[0] & 1)
        return flood(t, now_ns);
    int index = switch_table_find(&t->core->table, t->vlan, to, now_ns);
    if (index < 0)
        return flood(t, now_ns);
    struct switch_port *port = t->core->ports[index];
    if (port == t->from)
        return SWITCH_DROP_returning;
    if (!leads(port, t))
        return port->isolated && t->from->isolated ? SWITCH_DROP_isolated : SWITCH_DROP_vlan;
    send_to(t, port);
    return SWITCH_N_DROPS;
}

void switch_core_input(struct switch_core *core, struct switch_port *port, const struct net_header *header,
                       const struct iovec *frame, unsigned n, int64_t now_ns)
{
    struct transit t;

    t.core = core;
    t.from = port;
    port->in.frames++;
    port->in.bytes += offload_length(frame, n);
    pcap_frame(port->capture, frame, n);
    enum switch_drop drop = admit(&t, header, frame, n);
    if (drop == SWITCH_N_DROPS)
        drop = forward(&t, now_ns);
    if (drop != SWITCH_N_DROPS)
        port->in.drops[drop]++;
}

void switch_core_flush(struct switch_core *core)
{
    for (unsigned i = 0; i < core->end; i++) {
        struct switch_port *port = core->ports[i];
        if (port && port->touched) {
            port->touched = false;
            if (port->flush)
                port->flush(port);
        }
    }
}
