/* What `vireo switch --status` tells, as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/mac.h"
#include "net/switch_server.h"

static json_t *integer(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *mac(const uint8_t *bytes)
{
    char text[MAC_TEXT_MAX];

    mac_format(bytes, text);
    return json_string(text);
}

static json_t *counters(const struct switch_counters *c)
{
    json_t *object = json_object(), *drops = json_object();

    json_object_set_new(object, "frames", integer(c->frames));
    json_object_set_new(object, "bytes", integer(c->bytes));
    for (unsigned i = 0; i < SWITCH_N_DROPS; i++)
        if (c->drops[i])
            json_object_set_new(drops, switch_drop_names[i], integer(c->drops[i]));
    json_object_set_new(object, "dropped", drops);
    return object;
}

static json_t *port(const struct switch_server *s, const struct switch_port *p)
{
    static const struct {
        unsigned bit;
        const char *name;
    } offloads[] = {{NET_OFFLOAD_CSUM, "csum"}, {NET_OFFLOAD_TSO4, "tso4"}, {NET_OFFLOAD_TSO6, "tso6"}};
    static const uint8_t none[6];
    json_t *object = json_object(), *takes = json_array();

    json_object_set_new(object, "name", json_string(p->name));
    json_object_set_new(object, "mac", memcmp(p->mac, none, 6) ? mac(p->mac) : json_null());
    json_object_set_new(object, "vlan", integer(p->vlan));
    json_object_set_new(object, "trunk", json_boolean(p->trunk));
    json_object_set_new(object, "isolated", json_boolean(p->isolated));
    json_object_set_new(object, "own_mac", json_boolean(p->own_mac));
    json_object_set_new(object, "uplink", json_boolean(p->uplink));
    for (unsigned i = 0; i < ARRAY_SIZE(offloads); i++)
        if (p->offloads & offloads[i].bit)
            json_array_append_new(takes, json_string(offloads[i].name));
    json_object_set_new(object, "offloads", takes);
    json_object_set_new(object, "addresses", integer(s->core.table.of_port[p->index]));
    json_object_set_new(object, "in", counters(&p->in));
    json_object_set_new(object, "out", counters(&p->out));
    return object;
}

static json_t *address(const struct switch_server *s, const struct switch_table_entry *e, int64_t now_ns)
{
    json_t *object = json_object();

    json_object_set_new(object, "mac", mac(e->mac));
    json_object_set_new(object, "vlan", integer(e->vlan));
    json_object_set_new(object, "port", json_string(s->core.ports[e->port]->name));
    json_object_set_new(object, "age_seconds", json_real((double)(now_ns - e->seen_ns) / 1e9));
    return object;
}

static json_t *addresses(const struct switch_server *s, int64_t now_ns)
{
    const struct switch_table *t = &s->core.table;
    json_t *array = json_array();

    for (unsigned i = 0; i < t->capacity; i++)
        if (t->entries[i].seen_ns && now_ns - t->entries[i].seen_ns <= t->age_ns)
            json_array_append_new(array, address(s, &t->entries[i], now_ns));
    return array;
}

char *switch_status(const struct switch_server *s, int64_t now_ns)
{
    json_t *object = json_object(), *ports = json_array();

    json_object_set_new(object, "name", json_string(s->conf.name));
    json_object_set_new(object, "pid", integer((uint64_t)getpid()));
    json_object_set_new(object, "uptime_seconds", json_real((double)(now_ns - s->started_ns) / 1e9));
    for (unsigned i = 0; i < s->core.end; i++)
        if (s->core.ports[i])
            json_array_append_new(ports, port(s, s->core.ports[i]));
    json_object_set_new(object, "ports", ports);
    json_object_set_new(object, "addresses", addresses(s, now_ns));
    json_object_set_new(object, "addresses_moved", integer(s->core.table.moved));
    json_object_set_new(object, "addresses_refused", integer(s->core.table.refused));
    char *text = json_dumps(object, JSON_INDENT(2));
    json_decref(object);
    return text;
}
