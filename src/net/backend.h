/*
 * What a backend shows net.c: one `struct net_backend NAME_backend` in NAME.c, for its line in backends.def.
 */
#ifndef NET_BACKEND_H
#define NET_BACKEND_H

#include "base/keyval.h"
#include "net/net.h"

struct net_backend {
    const char *name;
    /* The keys of its own, which stand in `rest`. With a KEYVAL_FIRST at their head it is written "NAME=FIRST,...", else "NAME,...". */
    const struct keyval_table *keys;
    /* Whether `rest` can be meant: -EINVAL and what would be accepted. Opens nothing. */
    int (*check)(const char *rest, struct err *err);
    /* On the thread of `loop`, or before that runs. Sets *net, with type, loop, offloads and mtu; the rest of it is zeroes. */
    int (*open)(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err);
};

#endif
