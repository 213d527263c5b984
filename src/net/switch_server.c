#include "net/switch_server.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/switch_peer.h"
#include "net/switch_uplink.h"

void switch_server_apply_rules(struct switch_server *s, struct switch_port *port)
{
    for (unsigned i = 0; i < s->conf.n_rules; i++) {
        const struct switch_rule *rule = &s->conf.rules[i];
        if (strcmp(rule->port, port->name) != 0 && (port->uplink || strcmp(rule->port, "*") != 0))
            continue;
        port->isolated |= rule->isolated;
        port->own_mac |= rule->own_mac;
        if (rule->vlan) {
            port->vlan = rule->vlan;
            port->trunk = rule->trunk;
        }
        if (s->captures[i])
            port->capture = s->captures[i];
    }
    switch_port_limit(port, s->conf.storm);
}

/* ---- listening ---- */

/* Without descriptors nobody can be let in, nor be sent away: that waits a second. */
static void on_connection(void *opaque, uint32_t events)
{
    struct switch_server *s = opaque;
    int fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
        loop_fd_remove(s->loop, &s->listener);
        loop_timer_set(&s->listen_again, loop_now() + NS_PER_SEC);
    }
    if (fd >= 0 && switch_peer_add(s, fd) < 0)
        close(fd);
}

static void on_listen_again(void *opaque)
{
    struct switch_server *s = opaque;

    if (loop_fd_add(s->loop, &s->listener, EPOLLIN) < 0)
        loop_timer_set(&s->listen_again, loop_now() + NS_PER_SEC);
}

static void on_expire(void *opaque)
{
    struct switch_server *s = opaque;

    switch_table_expire(&s->core.table, loop_now());
    loop_timer_set(&s->expire, loop_now() + s->conf.mac_age_ns);
}

/* ---- open, close ---- */

static int open_captures(struct switch_server *s, struct err *err)
{
    for (unsigned i = 0; i < s->conf.n_rules; i++) {
        const char *path = s->conf.rules[i].capture;
        int r = path ? pcap_open(&s->captures[i], path, err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int open_all(struct switch_server *s, struct err *err)
{
    int r = open_captures(s, err);

    for (unsigned i = 0; r == 0 && i < s->conf.n_uplinks; i++)
        r = switch_uplink_open(s, i, err);
    if (r < 0)
        return r;
    r = listen_unix_messages(&s->socket, s->conf.path, err);
    if (r < 0)
        return r;
    s->listener = (struct loop_fd){.fd = s->socket.fd, .fn = on_connection, .opaque = s};
    r = loop_fd_add(s->loop, &s->listener, EPOLLIN);
    if (r < 0)
        return err_set(err, r, "'%s': %s", s->conf.path, strerror(-r));
    loop_timer_set(&s->expire, s->started_ns + s->conf.mac_age_ns);
    return 0;
}

int switch_server_open(struct switch_server **out, const struct switch_server_conf *conf, struct loop *loop,
                       struct err *err)
{
    struct switch_server *s = calloc(1, sizeof(*s));
    int r = -ENOMEM;

    *out = NULL;
    if (!s)
        return err_set(err, -ENOMEM, "switch: out of memory");
    s->conf = *conf;
    s->loop = loop;
    s->socket.fd = -1;
    s->started_ns = loop_now();
    loop_timer_init(&s->listen_again, loop, on_listen_again, s);
    loop_timer_init(&s->expire, loop, on_expire, s);
    s->captures = calloc(conf->n_rules + 1, sizeof(struct pcap *));
    s->uplinks = calloc(conf->n_uplinks + 1, sizeof(*s->uplinks));
    if (!s->captures || !s->uplinks || switch_core_init(&s->core, conf->mac_age_ns) < 0)
        err_set(err, r, "switch: out of memory");
    else
        r = open_all(s, err);
    if (r < 0) {
        switch_server_close(s);
        return r;
    }
    *out = s;
    return 0;
}

void switch_server_close(struct switch_server *s)
{
    if (!s)
        return;
    loop_timer_cancel(&s->listen_again);
    loop_timer_cancel(&s->expire);
    if (s->listener.fn)
        loop_fd_remove(s->loop, &s->listener);
    listen_close(&s->socket);
    while (s->peers)
        switch_peer_end(s->peers);
    for (unsigned i = 0; i < s->n_uplinks; i++)
        switch_uplink_close(&s->uplinks[i]);
    for (unsigned i = 0; s->captures && i < s->conf.n_rules; i++)
        pcap_close(s->captures[i]);
    switch_core_fini(&s->core);
    free(s->captures);
    free(s->uplinks);
    free(s);
}
