#include "net/switch_table.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

int switch_table_init(struct switch_table *t, unsigned capacity, unsigned per_port, int64_t age_ns)
{
    *t = (struct switch_table){.capacity = capacity, .per_port = per_port, .age_ns = age_ns};
    t->entries = calloc(capacity, sizeof(*t->entries));
    t->chains = calloc(capacity, sizeof(*t->chains));
    if (!t->entries || !t->chains) {
        switch_table_fini(t);
        return -ENOMEM;
    }
    if (getrandom(t->secret, sizeof(t->secret), GRND_NONBLOCK) < 0)
        t->secret[0] = (uintptr_t)t; /* a host that has just started, and has addresses that nobody can foretell */
    for (unsigned i = 0; i < capacity; i++)
        t->entries[i].next = (uint16_t)(i + 1 < capacity ? i + 2 : 0);
    t->free = 1;
    return 0;
}

void switch_table_fini(struct switch_table *t)
{
    free(t->entries);
    free(t->chains);
    t->entries = NULL;
    t->chains = NULL;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

static uint16_t *chain_of(struct switch_table *t, uint16_t vlan, const uint8_t mac[6])
{
    uint64_t key = (uint64_t)load_le32(mac) | (uint64_t)load_le16(mac + 4) << 32 | (uint64_t)vlan << 48;

    return &t->chains[mix(mix(key ^ t->secret[0]) ^ t->secret[1]) & (t->capacity - 1)];
}

static bool is_old(const struct switch_table *t, const struct switch_table_entry *e, int64_t now_ns)
{
    return now_ns - e->seen_ns > t->age_ns;
}

/* *link is the index + 1 that leads to the entry. */
static void drop(struct switch_table *t, uint16_t *link)
{
    uint16_t i = *link;
    struct switch_table_entry *e = &t->entries[i - 1];

    *link = e->next;
    t->of_port[e->port]--;
    t->used--;
    *e = (struct switch_table_entry){.next = t->free};
    t->free = i;
}

/* The entry; those of the chain that are too old go. */
static struct switch_table_entry *find(struct switch_table *t, uint16_t *link, uint16_t vlan, const uint8_t mac[6],
                                       int64_t now_ns)
{
    while (*link) {
        struct switch_table_entry *e = &t->entries[*link - 1];
        if (is_old(t, e, now_ns)) {
            drop(t, link);
            continue;
        }
        if (e->vlan == vlan && memcmp(e->mac, mac, 6) == 0)
            return e;
        link = &e->next;
    }
    return NULL;
}

void switch_table_learn(struct switch_table *t, uint16_t vlan, const uint8_t mac[6], unsigned port, int64_t now_ns)
{
    uint16_t *chain = chain_of(t, vlan, mac);
    struct switch_table_entry *e = find(t, chain, vlan, mac, now_ns);

    if (e && e->port == port) {
        e->seen_ns = now_ns;
        return;
    }
    if (t->of_port[port] >= t->per_port || (!e && !t->free)) {
        t->refused++;
        return;
    }
    if (e) {
        t->of_port[e->port]--;
        t->moved++;
    } else {
        uint16_t i = t->free;
        e = &t->entries[i - 1];
        t->free = e->next;
        e->next = *chain;
        *chain = i;
        t->used++;
    }
    t->of_port[port]++;
    memcpy(e->mac, mac, 6);
    e->vlan = vlan;
    e->port = (uint16_t)port;
    e->seen_ns = now_ns;
}

int switch_table_find(struct switch_table *t, uint16_t vlan, const uint8_t mac[6], int64_t now_ns)
{
    const struct switch_table_entry *e = find(t, chain_of(t, vlan, mac), vlan, mac, now_ns);

    return e ? e->port : -1;
}

void switch_table_expire(struct switch_table *t, int64_t now_ns)
{
    for (unsigned i = 0; i < t->capacity && t->used; i++)
        for (uint16_t *link = &t->chains[i]; *link;) {
            if (is_old(t, &t->entries[*link - 1], now_ns))
                drop(t, link);
            else
                link = &t->entries[*link - 1].next;
        }
}

void switch_table_forget(struct switch_table *t, unsigned port)
{
    for (unsigned i = 0; i < t->capacity && t->of_port[port]; i++)
        for (uint16_t *link = &t->chains[i]; *link;) {
            if (t->entries[*link - 1].port == port)
                drop(t, link);
            else
                link = &t->entries[*link - 1].next;
        }
}
