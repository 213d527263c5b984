/*
 * Somebody who is connected to a switch: a stranger until he has said hello, then a port.
 *
 * Threads: that of the switch's loop.
 */
#ifndef NET_SWITCH_PEER_H
#define NET_SWITCH_PEER_H

#include "net/switch_ring.h"
#include "net/switch_server.h"

struct switch_peer {
    struct switch_port port; /* when joined */
    struct switch_server *server;
    struct switch_peer *next;
    struct loop_fd socket;
    struct loop_timer turn; /* the next turn; before it has joined, the end of patience */
    bool joined;
    const char *misbehaved; /* how: it is to go */
    void *memory;
    size_t bytes;
    struct switch_ring in, out;
};

/* One who has connected, and whose socket that is from now on. -errno: the caller closes it. */
int switch_peer_add(struct switch_server *server, int fd) MUST_CHECK;

/* Closes and frees. Not while frames are on their way. */
void switch_peer_end(struct switch_peer *peer);

#endif
