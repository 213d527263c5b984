/*
 * A learning switch: ports, VLANs, and where a frame goes. It knows no socket; what a port leads to takes its frames through deliver().
 *
 * VLANs (IEEE 802.1Q): an access port is in one VLAN and carries no tags. A trunk carries all, tagged but for the one that is its own. A frame with two
 * tags, or with the tag of a provider's bridge, goes nowhere: it could come out of a trunk in a VLAN that it was not sent in.
 *
 * Frames lie in memory that their sender may write to, even now: the Ethernet header is copied once, judged and passed on from the copy.
 *
 * Threads: one.
 */
#ifndef NET_SWITCH_CORE_H
#define NET_SWITCH_CORE_H

#include "base/limiter.h"
#include "net/net.h"
#include "net/offload.h"
#include "net/pcap.h"
#include "net/switch_table.h"

#define SWITCH_VLAN_DEFAULT 1
#define SWITCH_VLAN_MOST    4094
#define SWITCH_NAME_MAX     32 /* of a port or a switch, with its end */
#define SWITCH_PIECES_MOST  12 /* of a frame that comes in */

enum switch_drop {
#define DROP(name) SWITCH_DROP_##name,
#include "net/switch_drops.def"
#undef DROP
    SWITCH_N_DROPS
};

extern const char *const switch_drop_names[SWITCH_N_DROPS];

struct switch_counters {
    uint64_t frames, bytes;
    uint64_t drops[SWITCH_N_DROPS];
};

struct switch_port {
    /* Set by whoever adds the port. */
    char name[SWITCH_NAME_MAX];
    uint8_t mac[6]; /* of the interface, where it has said; all zeroes: the first that it sends from */
    uint16_t vlan;
    bool trunk;
    bool isolated; /* reaches ports that are not */
    bool own_mac;  /* may send from its own address alone */
    bool uplink;   /* leads out of the switch: what it says about checksums is believed */
    unsigned offloads;
    struct limiter flood; /* frames that go to all; see switch_port_limit() */
    struct pcap *capture; /* or NULL; the port's owner closes it */
    /* A frame leaves: 0 or -errno, then it is dropped. flush: a batch has ended. */
    int (*deliver)(struct switch_port *port, const struct net_header *header, const struct iovec *frame, unsigned n);
    void (*flush)(struct switch_port *port);

    /* The switch's. */
    unsigned index;
    bool touched; /* frames were delivered since the last flush */
    struct switch_counters in, out;
};

struct switch_core {
    struct switch_port *ports[SWITCH_PORTS_MOST]; /* by index, NULL where there is none */
    unsigned end;                                 /* behind the last one */
    struct switch_table table;
    struct offload_scratch scratch;
    bool scratch_used; /* a backend may answer a frame with one before it returns */
};

int switch_core_init(struct switch_core *core, int64_t mac_age_ns) MUST_CHECK;
void switch_core_fini(struct switch_core *core);

/* -ENOSPC when there are SWITCH_PORTS_MOST already. */
int switch_core_add(struct switch_core *core, struct switch_port *port) MUST_CHECK;
void switch_core_remove(struct switch_core *core, struct switch_port *port);

/* How many frames a second the port may have sent to all ports, broadcasts and those to addresses nobody knows; 0: any number. */
void switch_port_limit(struct switch_port *port, uint64_t flood);

/* A frame came in at a port. What it leads to is flushed by switch_core_flush(), behind a batch. */
void switch_core_input(struct switch_core *core, struct switch_port *port, const struct net_header *header,
                       const struct iovec *frame, unsigned n, int64_t now_ns);
void switch_core_flush(struct switch_core *core);

#endif
