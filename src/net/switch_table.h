/*
 * Which port of a switch an Ethernet address was last seen at, for each VLAN (IEEE 802.1Q-2018 section 8.8, the filtering database). Entries age and
 * are bounded, in all and for each port, so that no port can fill the table with addresses of its making; what is not learned is flooded. The hash
 * has a secret of its own, that nobody can aim at one chain. Pure: the caller says what time it is.
 */
#ifndef NET_SWITCH_TABLE_H
#define NET_SWITCH_TABLE_H

#include "base/err.h"

#define SWITCH_PORTS_MOST 256

struct switch_table_entry {
    uint8_t mac[6];
    uint16_t vlan;
    uint16_t port;
    uint16_t next;   /* in the chain, or of the free ones: index + 1, or 0 */
    int64_t seen_ns; /* 0: free */
};

struct switch_table {
    struct switch_table_entry *entries;
    uint16_t *chains; /* index + 1, or 0 */
    unsigned capacity, used, per_port;
    uint16_t free;
    int64_t age_ns;
    uint64_t secret[2];
    unsigned of_port[SWITCH_PORTS_MOST];
    uint64_t moved, refused; /* addresses that came to another port; that there was no room for */
};

/* capacity: a power of two, up to 32768; per_port: how many of them one port may have; age: how long an address is known after it was seen. */
int switch_table_init(struct switch_table *t, unsigned capacity, unsigned per_port, int64_t age_ns) MUST_CHECK;
void switch_table_fini(struct switch_table *t);

/* The address was seen as the source of a frame. now_ns above 0. */
void switch_table_learn(struct switch_table *t, uint16_t vlan, const uint8_t mac[6], unsigned port, int64_t now_ns);

/* The port, or -1 where nobody knows. */
int switch_table_find(struct switch_table *t, uint16_t vlan, const uint8_t mac[6], int64_t now_ns);

/* Forgets what is too old, or all of a port that goes. */
void switch_table_expire(struct switch_table *t, int64_t now_ns);
void switch_table_forget(struct switch_table *t, unsigned port);

#endif
