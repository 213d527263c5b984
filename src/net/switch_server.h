/*
 * A switch as a process has it: its socket, the ports of those who are connected to it (switch_wire.h), and its uplinks, which are backends like
 * those of a VM's interface (net.h).
 *
 * Who is connected is hostile: each says hello within seconds or goes, what comes in is checked, and a turn of one port is short, so that
 * nobody keeps others waiting.
 *
 * Threads: all on the thread of the loop.
 */
#ifndef NET_SWITCH_SERVER_H
#define NET_SWITCH_SERVER_H

#include "base/listen.h"
#include "net/switch_core.h"
#include "net/switch_wire.h"

#define SWITCH_UPLINKS_MOST 8

/* What holds for a port by its name, whatever it asks for. Several rules for one port add up; the last one's VLAN counts. */
struct switch_rule {
    char port[SWITCH_WIRE_NAME_MAX]; /* "*": all but uplinks */
    bool isolated, own_mac, trunk;
    uint16_t vlan;       /* 0: what the port asks for */
    const char *capture; /* a file, or NULL */
};

struct switch_peer;
struct switch_uplink;

struct switch_server_conf {
    const char *name, *path; /* of the socket */
    int64_t mac_age_ns;
    uint64_t storm; /* frames a second that a port may flood; 0: any number */
    const struct switch_rule *rules;
    unsigned n_rules;
    struct net_spec *uplinks;
    unsigned n_uplinks;
};

struct switch_server {
    struct switch_core core;
    struct switch_server_conf conf; /* the caller's */
    struct loop *loop;
    struct listen_socket socket;
    struct loop_fd listener;
    struct loop_timer listen_again, expire;
    struct switch_peer *peers;
    unsigned n_strangers; /* who have not said hello */
    struct switch_uplink *uplinks;
    unsigned n_uplinks;
    struct pcap **captures; /* of each rule */
    int64_t started_ns;
};

/* conf is kept: it and what it points to live as long. -errno. */
int switch_server_open(struct switch_server **server, const struct switch_server_conf *conf, struct loop *loop,
                       struct err *err) MUST_CHECK;
void switch_server_close(struct switch_server *server);

/* Sets what the rules and the configuration say of a port with that name. */
void switch_server_apply_rules(struct switch_server *server, struct switch_port *port);

/* JSON of everything there is to tell; to be freed. NULL: no memory. */
char *switch_status(const struct switch_server *server, int64_t now_ns);

#endif
