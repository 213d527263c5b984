/*
 * A tap interface of the host's, which whoever administers it has made and connected: it is opened, never created. Frames carry the kernel's own
 * virtio header, so checksums and segments are left to whoever receives them in the end.
 *
 * When the interface is removed, the link goes down and the VM goes on without it. That is seen at once, or with the next frame while the guest has
 * no room for any: a descriptor that nobody reads from tells nothing.
 *
 * Threads: the interface's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/backend.h"
#include "net/offload.h"

#define FRAMES_A_TIME 64 /* read before the thread looks at anything else */
#define VECTORS_MOST  64

struct tap {
    struct net net;
    char name[IFNAMSIZ];
    struct loop_fd source;
    bool silent; /* the guest has no room: not watched */
    bool gone;
    uint8_t frame[NET_FRAME_MAX];
};

struct tap_conf {
    char name[KEYVAL_PATH_MAX];
};

static struct tap *of(struct net *net)
{
    return CONTAINER_OF(net, struct tap, net);
}

static const struct keyval_key tap_keys[] = {
    {"an interface's name", KEYVAL_FIRST, offsetof(struct tap_conf, name)},
};

static const struct keyval_table tap_table = {"net tap", tap_keys, ARRAY_SIZE(tap_keys)};

static int parse(const char *rest, struct tap_conf *conf, struct err *err)
{
    int r = keyval_parse(&tap_table, rest, conf, err);

    if (r == 0 && strlen(conf->name) >= IFNAMSIZ)
        r = err_set(err, -EINVAL, "net: tap=%.60s: an interface's name has up to %d characters", conf->name,
                    IFNAMSIZ - 1);
    return r;
}

static int tap_check(const char *rest, struct err *err)
{
    struct tap_conf conf;

    return parse(rest, &conf, err);
}

/* ---- towards the guest ---- */

static void vanish(struct tap *t, int error)
{
    if (t->gone)
        return;
    t->gone = true;
    loop_fd_remove(t->net.loop, &t->source);
    log_error("net: tap=%s is gone (%s): its guest's link is down", t->name, strerror(error));
    if (t->net.receiver.link)
        t->net.receiver.link(t->net.receiver.opaque, false);
}

static void watch(struct tap *t, bool readable)
{
    if (t->gone || t->silent == !readable)
        return;
    t->silent = !readable;
    int r = loop_fd_modify(t->net.loop, &t->source, readable ? EPOLLIN : 0);
    if (r < 0)
        vanish(t, -r);
}

/* False when there is nothing more to read now. */
static bool read_frame(struct tap *t)
{
    const struct net_receiver *to = &t->net.receiver;
    struct net_header header;
    const struct iovec iov[2] = {{&header, sizeof(header)}, {t->frame, sizeof(t->frame)}};
    ssize_t n = readv(t->source.fd, iov, 2);

    if (n < 0 && errno != EAGAIN && errno != EINTR)
        vanish(t, errno);
    if (n <= (ssize_t)sizeof(header))
        return false;
    const struct iovec frame = {t->frame, (size_t)n - sizeof(header)};
    to->deliver(to->opaque, &header, &frame, 1);
    return true;
}

static void read_frames(struct tap *t)
{
    const struct net_receiver *to = &t->net.receiver;
    unsigned n = 0;

    while (n < FRAMES_A_TIME) {
        if (!to->ready(to->opaque)) {
            watch(t, false);
            break;
        }
        if (!read_frame(t))
            break;
        n++;
    }
    if (n)
        to->flush(to->opaque);
}

static void on_events(void *opaque, uint32_t events)
{
    struct tap *t = opaque;

    if (!t->net.receiver.ready || t->silent) {
        /* Nobody reads: what comes unasked is the interface's end. */
        if (events & (EPOLLERR | EPOLLHUP))
            vanish(t, ENODEV);
        else
            watch(t, false);
        return;
    }
    read_frames(t);
    if (events & (EPOLLERR | EPOLLHUP))
        vanish(t, ENODEV);
}

static void tap_resume(struct net *net)
{
    watch(of(net), true);
}

/* ---- from the guest ---- */

static void tap_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct tap *t = of(net);
    struct iovec iov[1 + VECTORS_MOST];
    size_t len = sizeof(*header) + offload_length(frame, n);

    iov[0] = (struct iovec){(void *)header, sizeof(*header)};
    if (n > VECTORS_MOST) {
        iov[1] = (struct iovec){t->frame, offload_gather(frame, n, t->frame, sizeof(t->frame))};
        n = 1;
    } else {
        memcpy(iov + 1, frame, n * sizeof(*frame));
    }
    if (!t->gone && writev(t->source.fd, iov, (int)n + 1) == (ssize_t)len)
        return;
    net->dropped++;
    if (!t->gone && errno == EBADFD)
        vanish(t, ENODEV);
}

static void tap_set_offloads(struct net *net, unsigned offloads)
{
    struct tap *t = of(net);
    unsigned tun = 0;

    if (offloads & NET_OFFLOAD_CSUM)
        tun = TUN_F_CSUM | (offloads & NET_OFFLOAD_TSO4 ? TUN_F_TSO4 : 0u) |
              (offloads & NET_OFFLOAD_TSO6 ? TUN_F_TSO6 : 0u);
    if (!t->gone && ioctl(t->source.fd, TUNSETOFFLOAD, (unsigned long)tun) < 0)
        log_warn("net: tap=%s: offloads: %s", t->name, strerror(errno));
}

/* ---- open, close ---- */

static void tap_close(struct net *net)
{
    struct tap *t = of(net);

    if (t->source.fd >= 0) {
        if (!t->gone)
            loop_fd_remove(net->loop, &t->source);
        close(t->source.fd);
    }
    free(t);
}

static const struct net_type tap_type = {
    .name = "tap",
    .send = tap_send,
    .resume = tap_resume,
    .set_offloads = tap_set_offloads,
    .close = tap_close,
};

/* One with several queues is served through one of them. */
static int attach(struct tap *t)
{
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header_size = sizeof(struct net_header);

    memcpy(req.ifr_name, t->name, sizeof(req.ifr_name));
    int r = ioctl(t->source.fd, TUNSETIFF, &req);
    if (r < 0 && errno == EINVAL) {
        req.ifr_flags |= IFF_MULTI_QUEUE;
        r = ioctl(t->source.fd, TUNSETIFF, &req);
    }
    if (r < 0 || ioctl(t->source.fd, TUNSETVNETHDRSZ, &header_size) < 0 || ioctl(t->source.fd, TUNSETOFFLOAD, 0UL) < 0)
        return -errno;
    return 0;
}

static const char *explain(int error)
{
    switch (error) {
    case EPERM:
    case EACCES:
        return "no right to it; its owner is set by 'ip tuntap add dev NAME mode tap user USER'";
    case EBUSY:
        return "another process has it";
    case EINVAL:
        return "that is no tap interface";
    default:
        return strerror(error);
    }
}

static uint16_t read_mtu(const struct tap *t)
{
    struct ifreq req = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    memcpy(req.ifr_name, t->name, sizeof(req.ifr_name));
    bool ok =
        fd >= 0 && ioctl(fd, SIOCGIFMTU, &req) == 0 && req.ifr_mtu >= NET_MTU_LEAST && req.ifr_mtu <= NET_MTU_MOST;
    if (fd >= 0)
        close(fd);
    return ok && req.ifr_mtu != 1500 ? (uint16_t)req.ifr_mtu : 0;
}

static int open_interface(struct tap *t, struct err *err)
{
    int r;

    if (!if_nametoindex(t->name))
        return err_set(err, -ENODEV,
                       "net: tap=%s: there is no such interface; 'ip tuntap add dev %s mode tap' makes one", t->name,
                       t->name);
    t->source.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->source.fd < 0)
        return err_set(err, -errno, "net: tap=%s: /dev/net/tun: %s", t->name, strerror(errno));
    r = attach(t);
    if (r < 0)
        return err_set(err, r, "net: tap=%s: %s", t->name, explain(-r));
    r = loop_fd_add(t->net.loop, &t->source, EPOLLIN);
    return r < 0 ? err_set(err, r, "net: tap=%s: epoll: %s", t->name, strerror(-r)) : 0;
}

static int tap_open(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    struct tap *t = calloc(1, sizeof(*t));
    struct tap_conf conf = {0};
    int r;

    if (!t)
        return err_set(err, -ENOMEM, "net: tap: out of memory");
    t->net.type = &tap_type;
    t->net.loop = loop;
    t->net.offloads = NET_OFFLOAD_ALL;
    t->source = (struct loop_fd){.fd = -1, .fn = on_events, .opaque = t};
    r = parse(spec->rest, &conf, err);
    if (r == 0) {
        memcpy(t->name, conf.name, strlen(conf.name) + 1);
        r = open_interface(t, err);
    }
    if (r < 0) {
        tap_close(&t->net);
        return r;
    }
    t->net.mtu = spec->mtu ? spec->mtu : read_mtu(t);
    *net = &t->net;
    return 0;
}

const struct net_backend tap_backend = {"tap", &tap_table, tap_check, tap_open};
