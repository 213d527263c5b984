/*
 * User-mode NAT: libslirp's TCP/IP stack answers the guest on 10.0.2.0/24 and fec0::/64, and connects it to the host's network through ordinary
 * sockets. The host is 10.0.2.2, the name server 10.0.2.3, the guest gets 10.0.2.15 by DHCP. Needs no rights.
 *
 * libslirp wants to be asked, before each sleep, which descriptors it waits for, and to be told, after it, what they are ready for. That is kept in
 * an epoll (user_watch.h), so that a wake-up collects all that are ready in one call.
 *
 * TCP ends here, so its segments need not fit an Ethernet: the interface's MTU is nearly what IP can carry, and a packet that the guest would have cut
 * (TSO) is passed to libslirp whole, with its checksum completed. Towards the guest, frames are marked as checked.
 *
 * Threads: the interface's own. libslirp has globals (the time, the name servers), so a process's instances take turns.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "base/number.h"
#include "net/backend.h"
#include "net/offload.h"
#include "net/user_library.h"
#include "net/user_watch.h"

/*
 * Segments of up to 64 KiB would do, since TCP ends here. But libslirp's TCP waits for a window of a whole one, and where the guest opens none it
 * asks again after five seconds: slow connections stood still.
 */
#define USER_MTU   1500
#define QUEUE_MOST (4 * MIB) /* bytes of frames that wait for the guest */

/* A frame that waits until the guest has room. */
struct waiting {
    struct waiting *next;
    size_t len;
    uint8_t data[];
};

struct user {
    struct net net;
    Slirp *slirp;
    struct user_watch watch;
    struct loop_fd source; /* its epoll */
    struct loop_timer timer;
    int64_t timer_ns; /* what it is set for; 0: not set */

    bool stale; /* libslirp is to be asked what it waits for */

    struct waiting *waiting, **waiting_tail;
    size_t waiting_bytes;
    bool complained; /* of the guest's errors */
    uint8_t frame[NET_FRAME_MAX];
};

struct forward {
    bool udp;
    struct in_addr host, guest;
    uint16_t host_port, guest_port;
};

struct user_conf {
    struct keyval_list forwards;
    bool restricted;
};

static pthread_mutex_t slirp_lock = PTHREAD_MUTEX_INITIALIZER;

static struct user *of(struct net *net)
{
    return CONTAINER_OF(net, struct user, net);
}

/* ---- specifications ---- */

static const struct keyval_key user_keys[] = {
    {"hostfwd", KEYVAL_LIST, offsetof(struct user_conf, forwards)},
    {"restrict", KEYVAL_FLAG, offsetof(struct user_conf, restricted)},
};

static const struct keyval_table user_table = {"net user", user_keys, ARRAY_SIZE(user_keys)};

/* "[HOST]:PORT" at *p, ended by `end`; *p behind that. */
static bool take_address(const char **p, char end, struct in_addr *addr, uint16_t *port)
{
    char host[INET_ADDRSTRLEN];
    size_t len = strcspn(*p, ":");
    uint64_t number;

    if (len >= sizeof(host) || (*p)[len] != ':')
        return false;
    memcpy(host, *p, len);
    host[len] = '\0';
    if (len && inet_pton(AF_INET, host, addr) != 1)
        return false;
    *p += len + 1;
    if (!number_take(p, &number) || number < 1 || number > UINT16_MAX || **p != end)
        return false;
    *port = (uint16_t)number;
    *p += end != '\0';
    return true;
}

static int parse_forward(const char *text, struct forward *f, struct err *err)
{
    const char *p = text + 4;

    *f = (struct forward){.udp = strncmp(text, "udp:", 4) == 0};
    inet_pton(AF_INET, "127.0.0.1", &f->host);
    inet_pton(AF_INET, "10.0.2.15", &f->guest);
    if ((f->udp || strncmp(text, "tcp:", 4) == 0) && take_address(&p, '-', &f->host, &f->host_port) &&
        take_address(&p, '\0', &f->guest, &f->guest_port))
        return 0;
    return err_set(err, -EINVAL,
                   "net user: hostfwd=%.100s: accepted is tcp:HOST:PORT-GUEST:PORT, or udp, with IPv4 addresses; "
                   "without HOST it is "
                   "127.0.0.1, without GUEST 10.0.2.15",
                   text);
}

static int parse(const char *rest, struct user_conf *conf, struct err *err)
{
    struct forward f;

    memset(conf, 0, sizeof(*conf));
    int r = keyval_parse(&user_table, rest, conf, err);
    for (unsigned i = 0; r == 0 && i < conf->forwards.n; i++)
        r = parse_forward(conf->forwards.items[i], &f, err);
    return r;
}

static int user_check(const char *rest, struct err *err)
{
    struct user_conf conf;

    return parse(rest, &conf, err);
}

/* ---- towards the guest ---- */

static void deliver(struct user *u, void *data, size_t len)
{
    const struct net_header header = {.flags = u->net.takes & NET_OFFLOAD_CSUM ? NET_HEADER_DATA_VALID : 0};
    const struct iovec frame = {data, len};

    u->net.receiver.deliver(u->net.receiver.opaque, &header, &frame, 1);
}

static bool receiver_ready(struct user *u)
{
    return u->net.receiver.ready(u->net.receiver.opaque);
}

/* From the first frame that has to wait until none does, nothing is read from sockets: what still comes are answers to what the guest sends. */
static void wait_for_guest(struct user *u, const void *data, size_t len)
{
    struct waiting *w = u->waiting_bytes + len <= QUEUE_MOST ? malloc(sizeof(*w) + len) : NULL;

    if (!w) {
        u->net.dropped++;
        return;
    }
    w->next = NULL;
    w->len = len;
    memcpy(w->data, data, len);
    if (!u->waiting && loop_fd_modify(u->net.loop, &u->source, 0) < 0)
        log_debug("net user: the guest's sockets stay watched");
    *u->waiting_tail = w;
    u->waiting_tail = &w->next;
    u->waiting_bytes += len;
}

static void drop_first(struct user *u)
{
    struct waiting *w = u->waiting;

    u->waiting = w->next;
    if (!u->waiting)
        u->waiting_tail = &u->waiting;
    u->waiting_bytes -= w->len;
    free(w);
}

static ssize_t on_packet(const void *buf, size_t len, void *opaque)
{
    struct user *u = opaque;

    if (!u->net.receiver.deliver)
        u->net.dropped++; /* nobody is plugged in yet */
    else if (!u->waiting && receiver_ready(u))
        deliver(u, (void *)buf, len);
    else
        wait_for_guest(u, buf, len);
    return (ssize_t)len;
}

static void flush_receiver(struct user *u)
{
    if (u->net.receiver.flush)
        u->net.receiver.flush(u->net.receiver.opaque);
}

/* ---- what libslirp waits for ---- */

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0u) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u) | (events & SLIRP_POLL_ERR ? EPOLLERR : 0u) |
           (events & SLIRP_POLL_HUP ? EPOLLHUP : 0u);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static int on_wanted(int fd, int events, void *opaque)
{
    struct user *u = opaque;

    return user_watch_name(&u->watch, fd, to_epoll(events));
}

static int on_ready(int fd, void *opaque)
{
    struct user *u = opaque;

    return from_epoll(user_watch_ready(&u->watch, fd));
}

static void on_register(int fd, void *opaque)
{
    struct user *u = opaque;

    u->stale = true;
}

/* Before it is closed, so that the number may come again. */
static void on_unregister(int fd, void *opaque)
{
    struct user *u = opaque;

    user_watch_forget(&u->watch, fd);
}

static void on_notify(void *opaque)
{
    struct user *u = opaque;

    u->stale = true;
}

/* Before the thread sleeps or does something else. */
static void ask(struct user *u)
{
    uint32_t timeout_ms = UINT32_MAX;

    user_watch_begin(&u->watch);
    slirp_pollfds_fill(u->slirp, &timeout_ms, on_wanted, u);
    user_watch_end(&u->watch);
    int64_t when = loop_now() + (int64_t)timeout_ms * NS_PER_MS;
    if (timeout_ms != UINT32_MAX && (!u->timer_ns || when < u->timer_ns)) {
        u->timer_ns = when;
        loop_timer_set(&u->timer, when);
    }
    u->stale = false;
}

/* What has come, and what time has brought. */
static void serve(struct user *u)
{
    pthread_mutex_lock(&slirp_lock);
    if (!u->waiting)
        user_watch_collect(&u->watch);
    slirp_pollfds_poll(u->slirp, 0, on_ready, u);
    user_watch_clear(&u->watch);
    ask(u);
    pthread_mutex_unlock(&slirp_lock);
    flush_receiver(u);
}

static void on_events(void *opaque, uint32_t events)
{
    serve(opaque);
}

static void on_timer(void *opaque)
{
    struct user *u = opaque;

    u->timer_ns = 0;
    serve(u);
}

/* ---- from the guest ---- */

static void user_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct user *u = of(net);
    size_t len = offload_gather(frame, n, u->frame, sizeof(u->frame));

    if (!offload_finish(header, u->frame, len)) {
        net->dropped++;
        return;
    }
    pthread_mutex_lock(&slirp_lock);
    slirp_input(u->slirp, u->frame, (int)len);
    pthread_mutex_unlock(&slirp_lock);
    u->stale = true;
}

static void user_flush(struct net *net)
{
    struct user *u = of(net);

    if (u->stale) {
        pthread_mutex_lock(&slirp_lock);
        ask(u);
        pthread_mutex_unlock(&slirp_lock);
    }
    flush_receiver(u);
}

static void user_resume(struct net *net)
{
    struct user *u = of(net);

    if (!u->waiting)
        return;
    while (u->waiting && receiver_ready(u)) {
        deliver(u, u->waiting->data, u->waiting->len);
        drop_first(u);
    }
    flush_receiver(u);
    if (!u->waiting && loop_fd_modify(net->loop, &u->source, EPOLLIN) < 0)
        log_error("net user: the network stands still: %s", strerror(errno));
}

/* ---- libslirp's timers, the log ---- */

struct slirp_timer {
    struct user *user;
    struct loop_timer timer;
    SlirpTimerId id;
    void *opaque;
};

static void on_slirp_timer(void *opaque)
{
    struct slirp_timer *t = opaque;

    pthread_mutex_lock(&slirp_lock);
    slirp_handle_timer(t->user->slirp, t->id, t->opaque);
    pthread_mutex_unlock(&slirp_lock);
    flush_receiver(t->user);
}

static void *on_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct slirp_timer *t = calloc(1, sizeof(*t));
    struct user *u = opaque;

    if (!t)
        abort(); /* libslirp does the same where it has no memory */
    *t = (struct slirp_timer){.user = u, .id = id, .opaque = cb_opaque};
    loop_timer_init(&t->timer, u->net.loop, on_slirp_timer, t);
    return t;
}

static void on_timer_free(void *timer, void *opaque)
{
    struct slirp_timer *t = timer;

    if (!t)
        return;
    loop_timer_cancel(&t->timer);
    free(t);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct slirp_timer *t = timer;

    loop_timer_set(&t->timer, expire_ms * NS_PER_MS);
}

static int64_t on_clock(void *opaque)
{
    return loop_now();
}

static void on_guest_error(const char *msg, void *opaque)
{
    struct user *u = opaque;

    if (!u->complained)
        log_warn("net user: the guest sent what makes no sense: %s", msg);
    u->complained = true;
}

static void on_init_completed(Slirp *slirp, void *opaque)
{
    struct user *u = opaque;

    u->slirp = slirp;
}

static const SlirpCb callbacks = {
    .send_packet = on_packet,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_new_opaque = on_timer_new,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_register,
    .unregister_poll_fd = on_unregister,
    .notify = on_notify,
    .init_completed = on_init_completed,
};

/* ---- open, close ---- */

static void user_close(struct net *net)
{
    struct user *u = of(net);

    net->receiver = (struct net_receiver){0};
    if (u->slirp) {
        pthread_mutex_lock(&slirp_lock);
        slirp_cleanup(u->slirp);
        pthread_mutex_unlock(&slirp_lock);
    }
    loop_timer_cancel(&u->timer);
    if (u->watch.epoll_fd >= 0)
        loop_fd_remove(net->loop, &u->source);
    user_watch_close(&u->watch);
    while (u->waiting)
        drop_first(u);
    free(u);
}

static const struct net_type user_type = {
    .name = "user",
    .send = user_send,
    .flush = user_flush,
    .resume = user_resume,
    .close = user_close,
};

static void start_slirp(struct user *u, bool restricted)
{
    SlirpConfig cfg = {.version = 4,
                       .restricted = restricted,
                       .in_enabled = true,
                       .in6_enabled = true,
                       .vprefix_len = 64,
                       .if_mtu = u->net.mtu,
                       .if_mru = u->net.mtu};

    inet_pton(AF_INET, "10.0.2.0", &cfg.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &cfg.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &cfg.vhost);
    inet_pton(AF_INET, "10.0.2.15", &cfg.vdhcp_start);
    inet_pton(AF_INET, "10.0.2.3", &cfg.vnameserver);
    inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &cfg.vhost6);
    inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6);
    u->slirp = slirp_new(&cfg, &callbacks, u);
}

static int add_forward(struct user *u, const char *text, struct err *err)
{
    char host[INET_ADDRSTRLEN];
    struct forward f;

    int r = parse_forward(text, &f, err);
    if (r < 0)
        return r;
    if (slirp_add_hostfwd(u->slirp, f.udp, f.host, f.host_port, f.guest, f.guest_port) == 0)
        return 0;
    r = errno ? errno : EIO;
    inet_ntop(AF_INET, &f.host, host, sizeof(host));
    return err_set(err, -r, "net user: hostfwd=%.100s: port %u of %s: %s", text, f.host_port, host, strerror(r));
}

static int user_open(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    struct user *u = calloc(1, sizeof(*u));
    struct user_conf conf;

    if (!u)
        return err_set(err, -ENOMEM, "net user: out of memory");
    u->net.type = &user_type;
    u->net.loop = loop;
    u->net.offloads = NET_OFFLOAD_ALL;
    u->net.mtu = spec->mtu ? spec->mtu : USER_MTU;
    u->waiting_tail = &u->waiting;
    loop_timer_init(&u->timer, loop, on_timer, u);
    int r = user_watch_open(&u->watch);
    u->source = (struct loop_fd){.fd = u->watch.epoll_fd, .fn = on_events, .opaque = u};
    if (r == 0)
        r = loop_fd_add(loop, &u->source, EPOLLIN);
    if (r < 0) {
        err_set(err, r, "net user: epoll: %s", strerror(-r));
        goto close_user;
    }
    r = user_library_load(err);
    if (r == 0)
        r = parse(spec->rest, &conf, err);
    if (r < 0)
        goto close_user;
    pthread_mutex_lock(&slirp_lock);
    start_slirp(u, conf.restricted);
    if (!u->slirp)
        r = err_set(err, -EINVAL, "net user: libslirp takes no MTU of %u", u->net.mtu);
    for (unsigned i = 0; r == 0 && i < conf.forwards.n; i++)
        r = add_forward(u, conf.forwards.items[i], err);
    if (r == 0)
        ask(u);
    pthread_mutex_unlock(&slirp_lock);
    if (r < 0)
        goto close_user;
    *net = &u->net;
    return 0;

close_user:
    user_close(&u->net);
    return r;
}

const struct net_backend user_backend = {"user", &user_table, user_check, user_open};
