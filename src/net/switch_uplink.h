/*
 * What joins a switch to the outside: a backend (net.h) as one of its ports.
 *
 * Threads: that of the switch's loop.
 */
#ifndef NET_SWITCH_UPLINK_H
#define NET_SWITCH_UPLINK_H

#include "net/switch_server.h"

struct switch_uplink {
    struct switch_port port;
    struct switch_server *server;
    struct net *net;
};

/* Number i of those that the configuration names. */
int switch_uplink_open(struct switch_server *server, unsigned i, struct err *err) MUST_CHECK;
void switch_uplink_close(struct switch_uplink *uplink);

#endif
