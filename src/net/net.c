#include "net/net.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "net/backend.h"
#include "net/capture.h"
#include "net/mac.h"

#define BACKEND(name, syntax, help) extern const struct net_backend name##_backend;
#include "net/backends.def"
#undef BACKEND

struct listed {
    const struct net_backend *backend;
    const char *syntax;
};

static const struct listed backends[] = {
#define BACKEND(name, syntax, help) {&name##_backend, #name syntax},
#include "net/backends.def"
#undef BACKEND
};

/* ---- specifications ---- */

/* The keys of the interface itself. */
struct keys {
    char id[KEYVAL_TEXT_MAX], mac[KEYVAL_TEXT_MAX];
    uint64_t mtu, queues, bps, bps_burst, pps, pps_burst;
    char capture[KEYVAL_PATH_MAX];
};

#define MOST_RATE (UINT64_C(1) << 50)

static const struct keyval_key interface_keys[] = {
    {"id", KEYVAL_TEXT, offsetof(struct keys, id)},
    {"mac", KEYVAL_TEXT, offsetof(struct keys, mac)},
    {"mtu", KEYVAL_NUMBER, offsetof(struct keys, mtu), NET_MTU_LEAST, NET_MTU_MOST},
    {"queues", KEYVAL_NUMBER, offsetof(struct keys, queues), 1, NET_QUEUE_PAIRS_MOST},
    {"bps", KEYVAL_SIZE, offsetof(struct keys, bps), 1, MOST_RATE},
    {"bps-burst", KEYVAL_SIZE, offsetof(struct keys, bps_burst), 1, MOST_RATE},
    {"pps", KEYVAL_SIZE, offsetof(struct keys, pps), 1, MOST_RATE},
    {"pps-burst", KEYVAL_SIZE, offsetof(struct keys, pps_burst), 1, MOST_RATE},
    {"capture", KEYVAL_PATH, offsetof(struct keys, capture)},
};

static const struct keyval_table interface_table = {"net", interface_keys, ARRAY_SIZE(interface_keys)};

/* Behind an item, at the comma that ends it or at the end of the text; a doubled comma ends nothing. */
static const char *item_end(const char *p)
{
    for (; *p; p++) {
        if (*p != ',')
            continue;
        if (p[1] != ',')
            break;
        p++;
    }
    return p;
}

static bool has_key(const struct keyval_table *t, const char *item, size_t len)
{
    const char *equals = memchr(item, '=', len);

    if (equals)
        len = (size_t)(equals - item);
    for (size_t i = 0; i < t->n; i++)
        if (t->keys[i].kind != KEYVAL_FIRST && strlen(t->keys[i].name) == len &&
            memcmp(t->keys[i].name, item, len) == 0)
            return true;
    return false;
}

static void list_keys(const struct keyval_table *t, char *list, size_t size)
{
    size_t at = strlen(list);

    for (size_t i = 0; i < t->n && at < size; i++)
        if (t->keys[i].kind != KEYVAL_FIRST)
            at += (size_t)snprintf(list + at, size - at, "%s%s%s", at ? ", " : "", t->keys[i].name,
                                   t->keys[i].kind == KEYVAL_FLAG ? "" : "=");
}

static int no_key(const struct net_backend *b, const char *item, size_t len, struct err *err)
{
    char list[384] = "";

    list_keys(b->keys, list, sizeof(list));
    list_keys(&interface_table, list, sizeof(list));
    return err_set(err, -EINVAL, "net: '%.*s' is no key of %s; accepted are %s", (int)(len < 60 ? len : 60), item,
                   b->name, list);
}

static int append(char *text, size_t size, const char *item, size_t len, struct err *err)
{
    size_t at = strlen(text);

    if (at + (at != 0) + len >= size)
        return err_set(err, -EINVAL, "net: '%.60s...' is too long", item);
    if (at)
        text[at++] = ',';
    memcpy(text + at, item, len);
    text[at + len] = '\0';
    return 0;
}

/* Items go to whom their keys belong, as they are written. */
static int split(const char *p, const struct net_backend *b, struct net_spec *spec, char *own, size_t own_size,
                 struct err *err)
{
    int r = 0;

    while (r == 0 && *p == ',') {
        const char *item = p + 1;
        p = item_end(item);
        size_t len = (size_t)(p - item);
        if (has_key(&interface_table, item, len))
            r = append(own, own_size, item, len, err);
        else if (has_key(b->keys, item, len))
            r = append(spec->rest, sizeof(spec->rest), item, len, err);
        else
            r = no_key(b, item, len, err);
    }
    return r;
}

static const struct listed *find(const char *text, struct err *err)
{
    size_t len = strcspn(text, ",="), at = 0;
    char list[256] = "";

    for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
        if (strlen(backends[i].backend->name) == len && memcmp(text, backends[i].backend->name, len) == 0)
            return &backends[i];
    for (size_t i = 0; i < ARRAY_SIZE(backends) && at < sizeof(list); i++)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", at ? ", " : "", backends[i].syntax);
    err_set(err, -EINVAL, "net: '%.60s' is nothing to plug an interface into; accepted are %s", text, list);
    return NULL;
}

/* "user" or "tap=IF": what stands behind the name; *p behind the item. */
static int parse_first(const char **p, const struct listed *l, struct net_spec *spec, struct err *err)
{
    const struct net_backend *b = l->backend;
    const char *value = *p + strlen(b->name), *end = item_end(value);
    bool wants = b->keys->n && b->keys->keys[0].kind == KEYVAL_FIRST;
    size_t len = (size_t)(end - value);

    if (wants ? len < 2 : len != 0)
        return err_set(err, -EINVAL, "net: '%.100s': accepted is %s", *p, l->syntax);
    *p = end;
    return wants ? append(spec->rest, sizeof(spec->rest), value + 1, len - 1, err) : 0;
}

static int check_id(const char *id, size_t most, struct err *err)
{
    bool ok = isalpha((unsigned char)id[0]) && strlen(id) <= most;

    for (const char *p = id; ok && *p; p++)
        ok = isalnum((unsigned char)*p) || *p == '-' || *p == '_' || *p == '.';
    return ok ? 0
              : err_set(err, -EINVAL, "net: id='%.60s': accepted is a letter, and up to %zu letters, digits and '-_.'",
                        id, most - 1);
}

static int take_keys(const struct keys *k, struct net_spec *spec, struct err *err)
{
    int r = k->id[0] ? check_id(k->id, sizeof(spec->id) - 1, err) : 0;

    if (r < 0)
        return r;
    spec->has_mac = k->mac[0] != '\0';
    if (spec->has_mac && !mac_parse(k->mac, spec->mac))
        return err_set(
            err, -EINVAL,
            "net: mac='%.60s': accepted are six bytes such as 52:54:00:12:34:56, which are no group's address", k->mac);
    if ((k->bps_burst && !k->bps) || (k->pps_burst && !k->pps))
        return err_set(err, -EINVAL, "net: %s-burst= stands there without %s=", k->bps_burst ? "bps" : "pps",
                       k->bps_burst ? "bps" : "pps");
    memcpy(spec->id, k->id, strlen(k->id) + 1);
    memcpy(spec->capture, k->capture, sizeof(spec->capture));
    spec->mtu = (uint16_t)k->mtu;
    spec->queue_pairs = (unsigned)k->queues;
    spec->bps = k->bps;
    spec->bps_burst = k->bps_burst;
    spec->pps = k->pps;
    spec->pps_burst = k->pps_burst;
    return 0;
}

int net_spec_parse(const char *text, struct net_spec *spec, struct err *err)
{
    struct keys keys = {.queues = 1};
    char own[sizeof(keys)] = "";
    const struct listed *l = find(text, err);

    memset(spec, 0, sizeof(*spec));
    if (!l)
        return -EINVAL;
    snprintf(spec->backend, sizeof(spec->backend), "%s", l->backend->name);
    int r = parse_first(&text, l, spec, err);
    if (r == 0)
        r = split(text, l->backend, spec, own, sizeof(own), err);
    if (r == 0)
        r = keyval_parse(&interface_table, own, &keys, err);
    if (r == 0)
        r = take_keys(&keys, spec, err);
    if (r == 0)
        r = l->backend->check(spec->rest, err);
    return r;
}

/* ---- open, close ---- */

int net_open(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    const struct listed *l = find(spec->backend, err);

    *net = NULL;
    if (!l)
        return -EINVAL;
    int r = l->backend->open(net, spec, loop, err);
    if (r == 0 && spec->capture[0]) {
        r = capture_open(net, spec->capture, err);
        if (r < 0) {
            net_close(*net);
            *net = NULL;
        }
    }
    return r;
}

void net_close(struct net *net)
{
    if (net)
        net->type->close(net);
}
