/*
 * The control queue (5.1.6.5): receive modes and filters, the guest's address, how many pairs of queues it uses, which offloads it takes. And the
 * filters themselves.
 */
#include <errno.h>

#include "device/virtio_net_impl.h"
#include "net/mac.h"

enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_VLAN = 2, CLASS_MQ = 4, CLASS_GUEST_OFFLOADS = 5 };
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST };
enum { MAC_TABLE_SET, MAC_ADDR_SET };
enum { VLAN_ADD, VLAN_DEL };
enum { MQ_PAIRS_SET = 0 };
enum { GUEST_OFFLOADS_SET = 0 };
enum { ACK_OK = 0, ACK_ERR = 1 };

/* What is behind class and command. */
struct command {
    const struct virtq_elem *elem;
    size_t at;
};

static bool take(struct command *c, void *data, size_t len)
{
    bool ok = iov_read(c->elem->out, c->elem->n_out, c->at, data, len) == len;

    c->at += len;
    return ok;
}

static bool set_rx_mode(struct virtio_net *n, unsigned command, struct command *c)
{
    struct virtio_net_filter *f = &n->filter;
    bool *const modes[] = {&f->promisc, &f->allmulti, &f->alluni, &f->nomulti, &f->nouni, &f->nobcast};
    uint64_t feature = command <= RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA;
    uint8_t on;

    if (command >= ARRAY_SIZE(modes) || !virtio_has(&n->v, feature) || !take(c, &on, 1))
        return false;
    *modes[command] = on;
    return true;
}

/* A count, and as many addresses. What is beyond our room lets everything of its kind through. */
static bool take_table(struct command *c, struct virtio_net_table *t)
{
    uint8_t count[4];

    memset(t, 0, sizeof(*t));
    if (!take(c, count, sizeof(count)))
        return false;
    uint32_t n = load_le32(count);
    uint64_t len = (uint64_t)n * MAC_SIZE;
    if (c->at > c->elem->out_len || len > c->elem->out_len - c->at)
        return false;
    t->overflow = n > VIRTIO_NET_TABLE_MAX;
    t->n = t->overflow ? 0 : n;
    bool ok = take(c, t->macs, t->n * MAC_SIZE);
    if (t->overflow)
        c->at += len;
    return ok;
}

static bool set_macs(struct virtio_net *n, unsigned command, struct command *c)
{
    struct virtio_net_table uni, multi;
    uint8_t mac[MAC_SIZE];

    if (command == MAC_TABLE_SET && virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX)) {
        if (!take_table(c, &uni) || !take_table(c, &multi))
            return false;
        n->filter.uni = uni;
        n->filter.multi = multi;
        return true;
    }
    if (command != MAC_ADDR_SET || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_MAC_ADDR) || !take(c, mac, sizeof(mac)))
        return false;
    memcpy(n->mac, mac, sizeof(mac));
    virtio_config_put(&n->v, VIRTIO_NET_CONFIG_MAC, mac, sizeof(mac));
    return true;
}

static bool set_vlan(struct virtio_net *n, unsigned command, struct command *c)
{
    uint8_t raw[2];

    if (command > VLAN_DEL || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) || !take(c, raw, sizeof(raw)) ||
        load_le16(raw) > 4095)
        return false;
    uint16_t vlan = load_le16(raw);
    uint8_t bit = (uint8_t)(1u << vlan % 8), *byte = &n->filter.vlans[vlan / 8];
    *byte = command == VLAN_ADD ? *byte | bit : *byte & (uint8_t)~bit;
    return true;
}

static bool set_pairs(struct virtio_net *n, unsigned command, struct command *c)
{
    uint8_t raw[2];

    if (command != MQ_PAIRS_SET || !virtio_has(&n->v, VIRTIO_NET_F_MQ) || !take(c, raw, sizeof(raw)))
        return false;
    unsigned pairs = load_le16(raw);
    if (pairs < 1 || pairs > n->pairs)
        return false;
    n->active_pairs = pairs;
    return true;
}

static bool set_offloads(struct virtio_net *n, unsigned command, struct command *c)
{
    const uint64_t all =
        VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 | VIRTIO_NET_F_GUEST_ECN;
    uint8_t raw[8];

    if (command != GUEST_OFFLOADS_SET || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
        !take(c, raw, sizeof(raw)) || load_le64(raw) & ~(n->v.driver_features & all))
        return false;
    n->offloads = load_le64(raw);
    net_set_offloads(n->net, virtio_net_takes(n));
    return true;
}

static bool obey(struct virtio_net *n, const struct virtq_elem *elem)
{
    struct command c = {elem, 0};
    uint8_t head[2];

    if (!take(&c, head, sizeof(head)))
        return false;
    switch (head[0]) {
    case CLASS_RX:
        return set_rx_mode(n, head[1], &c);
    case CLASS_MAC:
        return set_macs(n, head[1], &c);
    case CLASS_VLAN:
        return set_vlan(n, head[1], &c);
    case CLASS_MQ:
        return set_pairs(n, head[1], &c);
    case CLASS_GUEST_OFFLOADS:
        return set_offloads(n, head[1], &c);
    default:
        return false;
    }
}

void virtio_net_ctrl(struct virtio_net *n, struct virtq *q)
{
    struct virtq_elem *elem;

    do {
        virtq_disable_notify(q);
        while ((elem = virtq_pop(q))) {
            uint8_t ack = obey(n, elem) ? ACK_OK : ACK_ERR;
            virtq_push(q, elem, (uint32_t)iov_write(elem->in, elem->n_in, 0, &ack, sizeof(ack)));
        }
    } while (virtq_enable_notify(q));
    virtq_signal(q);
}

/* ---- filters ---- */

/* Until the driver says which frames it wants, it gets all of them. */
void virtio_net_filter_reset(struct virtio_net *n)
{
    n->filter = (struct virtio_net_filter){.promisc = true};
}

static bool in_table(const struct virtio_net_table *t, const uint8_t *mac)
{
    if (t->overflow)
        return true;
    for (uint32_t i = 0; i < t->n; i++)
        if (memcmp(t->macs[i], mac, MAC_SIZE) == 0)
            return true;
    return false;
}

static bool vlan_passes(const struct virtio_net_filter *f, const uint8_t *tag)
{
    unsigned vlan = (tag[0] & 15u) << 8 | tag[1];

    return f->vlans[vlan / 8] & 1u << vlan % 8;
}

bool virtio_net_filter_passes(const struct virtio_net *n, const struct iovec *frame, unsigned n_iov)
{
    static const uint8_t broadcast[MAC_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const struct virtio_net_filter *f = &n->filter;
    uint8_t b[16];

    if (f->promisc)
        return true;
    size_t len = offload_gather(frame, n_iov, b, sizeof(b));
    if (f->vlan_filter && len == sizeof(b) && b[12] == 0x81 && b[13] == 0x00 && !vlan_passes(f, b + 14))
        return false;
    if (memcmp(b, broadcast, MAC_SIZE) == 0)
        return !f->nobcast;
    if (mac_is_group(b))
        return !f->nomulti && (f->allmulti || in_table(&f->multi, b));
    return !f->nouni && (f->alluni || memcmp(b, n->mac, MAC_SIZE) == 0 || in_table(&f->uni, b));
}

static void table_state(struct virtio_net_table *t, struct stream *s)
{
    stream_u32(s, &t->n);
    stream_bool(s, &t->overflow);
    stream_bytes(s, t->macs, sizeof(t->macs));
    if (t->n > VIRTIO_NET_TABLE_MAX) {
        t->n = 0;
        s->error = s->error ? s->error : -EPROTO;
    }
}

void virtio_net_filter_state(struct virtio_net *n, struct stream *s)
{
    struct virtio_net_filter *f = &n->filter;
    bool *const modes[] = {&f->promisc, &f->allmulti, &f->alluni, &f->nomulti, &f->nouni, &f->nobcast, &f->vlan_filter};

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        stream_bool(s, modes[i]);
    table_state(&f->uni, s);
    table_state(&f->multi, s);
    stream_bytes(s, f->vlans, sizeof(f->vlans));
}
