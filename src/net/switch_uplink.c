#include "net/switch_uplink.h"

#include <stdio.h>

#include "base/log.h"

static bool uplink_ready(void *opaque)
{
    return true;
}

static void from_uplink(void *opaque, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct switch_uplink *u = opaque;

    switch_core_input(&u->server->core, &u->port, header, frame, n, loop_now());
}

static void flush_from_uplink(void *opaque)
{
    struct switch_uplink *u = opaque;

    switch_core_flush(&u->server->core);
}

static void uplink_link(void *opaque, bool up)
{
    const struct switch_uplink *u = opaque;

    log_notice("switch %s: %s is %s", u->server->conf.name, u->port.name, up ? "up" : "down");
}

static int to_uplink(struct switch_port *port, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    net_send(CONTAINER_OF(port, struct switch_uplink, port)->net, header, frame, n);
    return 0;
}

static void flush_uplink(struct switch_port *port)
{
    net_flush(CONTAINER_OF(port, struct switch_uplink, port)->net);
}

int switch_uplink_open(struct switch_server *s, unsigned i, struct err *err)
{
    struct switch_uplink *u = &s->uplinks[i];
    const struct net_spec *spec = &s->conf.uplinks[i];
    const struct net_receiver receiver = {uplink_ready, from_uplink, flush_from_uplink, uplink_link, u};

    *u = (struct switch_uplink){
        .server = s,
        .port = {.vlan = SWITCH_VLAN_DEFAULT, .uplink = true, .deliver = to_uplink, .flush = flush_uplink},
    };
    if (spec->id[0])
        snprintf(u->port.name, sizeof(u->port.name), "%s", spec->id);
    else
        snprintf(u->port.name, sizeof(u->port.name), "uplink%u", i);
    int r = net_open(&u->net, spec, s->loop, err);
    if (r < 0)
        return r;
    u->port.offloads = u->net->offloads;
    switch_server_apply_rules(s, &u->port);
    r = switch_core_add(&s->core, &u->port);
    if (r < 0) {
        net_close(u->net);
        return err_set(err, r, "all %d ports are taken", SWITCH_PORTS_MOST);
    }
    net_connect(u->net, &receiver);
    net_set_offloads(u->net, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    s->n_uplinks++;
    return 0;
}

void switch_uplink_close(struct switch_uplink *u)
{
    net_close(u->net);
}
