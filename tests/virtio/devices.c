#include "virtio/devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/virtio_balloon.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_fs.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "device/virtio_vsock.h"
#include "virtio/back_end.h"
#include "virtio/echo.h"

static const void *no_conf(void)
{
    return NULL;
}

static const void *rng_conf(void)
{
    static const struct virtio_rng_conf conf;

    return &conf;
}

static const void *balloon_conf(void)
{
    static const struct virtio_balloon_conf conf;

    return &conf;
}

/* 1 MiB of memory as an image. */
static const void *blk_conf(void)
{
    static struct virtio_blk_conf conf;
    static int fd = -1;
    char text[96];

    if (fd < 0)
        fd = memfd_create("disk", MFD_CLOEXEC);
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=raw,discard=on", fd);
    if (fd < 0 || ftruncate(fd, 1 << 20) < 0 || disk_spec_parse(&conf.spec, text, NULL) < 0)
        abort();
    return &conf;
}

/* ---- a cable whose other end is in the same socket: what is sent comes back, one frame at a time ---- */

struct loop_net {
    struct net net;
    struct loop_event again;
    struct net_header header;
    bool full;
    size_t len;
    uint8_t frame[NET_FRAME_MAX];
};

static unsigned offloads_of(const struct net_header *h)
{
    unsigned gso = h->gso_type & ~NET_GSO_ECN;

    return (h->flags & NET_HEADER_NEEDS_CSUM ? NET_OFFLOAD_CSUM : 0) | (gso == NET_GSO_TCPV4 ? NET_OFFLOAD_TSO4 : 0) |
           (gso == NET_GSO_TCPV6 ? NET_OFFLOAD_TSO6 : 0);
}

static void loop_net_again(void *opaque)
{
    struct loop_net *l = opaque;
    const struct iovec iov = {l->frame, l->len};

    if (!l->full || !l->net.receiver.ready(l->net.receiver.opaque))
        return;
    l->full = false;
    if (offloads_of(&l->header) & ~l->net.takes)
        return;
    l->net.receiver.deliver(l->net.receiver.opaque, &l->header, &iov, 1);
    l->net.receiver.flush(l->net.receiver.opaque);
}

static void loop_net_send(struct net *net, const struct net_header *header, const struct iovec *frame, unsigned n)
{
    struct loop_net *l = (struct loop_net *)net;

    l->header = *header;
    l->len = iov_read(frame, n, 0, l->frame, sizeof(l->frame));
    l->full = true;
    loop_event_set(&l->again);
}

static void loop_net_resume(struct net *net)
{
    loop_event_set(&((struct loop_net *)net)->again);
}

static void loop_net_close(struct net *net)
{
    struct loop_net *l = (struct loop_net *)net;

    loop_event_fini(&l->again);
    free(l);
}

static int loop_net_plug(struct net **net, const struct net_spec *spec, struct loop *loop, struct err *err)
{
    static const struct net_type type = {
        .name = "loop", .send = loop_net_send, .resume = loop_net_resume, .close = loop_net_close};
    struct loop_net *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    l->net = (struct net){.type = &type, .loop = loop, .offloads = NET_OFFLOAD_ALL};
    loop_event_init(&l->again, loop, loop_net_again, l);
    *net = &l->net;
    return 0;
}

static const void *net_conf(void)
{
    static const struct net_spec spec = {.backend = "loop", .queue_pairs = 2};
    static const struct virtio_net_conf conf = {.spec = &spec, .mac = {0x52, 0x54, 0, 1, 2, 3}, .plug = loop_net_plug};

    return &conf;
}

/* ---- a console whose output goes nowhere ---- */

static size_t sink_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return len;
}

static size_t sink_room(struct chardev *dev)
{
    return CHARDEV_BUFFER;
}

static void sink_accept_input(struct chardev *dev)
{
}

static void sink_close(struct chardev *dev)
{
    free(dev);
}

static int open_sink(void *opaque, struct chardev **dev, const char *backend, struct loop *loop, struct err *err)
{
    static const struct chardev_ops ops = {"sink", sink_write, sink_room, sink_accept_input, sink_close};

    *dev = calloc(1, sizeof(**dev));
    if (!*dev)
        abort();
    (*dev)->ops = &ops;
    return 0;
}

static const void *console_conf(void)
{
    static const struct virtio_console_port ports[] = {{"", "sink", true}, {"agent", "sink", false}};
    static const struct virtio_console_conf conf = {.ports = ports, .n_ports = 2, .open_backend = open_sink};

    return &conf;
}

/* ---- vsock, with a socket in a directory of its own ---- */

static char vsock_dir[] = "/tmp/vireo-vsock-XXXXXX";

static void remove_vsock_dir(void)
{
    rmdir(vsock_dir);
}

static const void *vsock_conf(void)
{
    static struct virtio_vsock_conf conf;
    static char path[64];

    if (!conf.path) {
        if (!mkdtemp(vsock_dir) || atexit(remove_vsock_dir))
            abort();
        snprintf(path, sizeof(path), "%s/s", vsock_dir);
        conf = (struct virtio_vsock_conf){.cid = 3, .path = path};
    }
    return &conf;
}

/* ---- a file system whose back end fills all the room that a request has ---- */

static char fs_path[] = "/tmp/vireo-fs-XXXXXX";

static int64_t fs_serve(struct back_end *b, unsigned ring, struct iovec *out, unsigned n_out, struct iovec *in,
                        unsigned n_in)
{
    int64_t n = 0;

    for (unsigned i = 0; i < n_in; n += (int64_t)in[i++].iov_len)
        memset(in[i].iov_base, 0x77, in[i].iov_len);
    return n;
}

static struct back_end back_end; /* of the device that was opened last */

static void remove_fs_path(void)
{
    back_end_stop(&back_end);
    unlink(fs_path);
}

/* One device at a time: with the next, the last one's back end goes. */
static const void *fs_conf(void)
{
    static struct virtio_fs_conf conf = {.tag = "test"};

    if (back_end.serve) {
        back_end_stop(&back_end);
    } else {
        int fd = mkstemp(fs_path);
        if (fd < 0 || close(fd) < 0 || atexit(remove_fs_path))
            abort();
        memcpy(conf.socket, fs_path, sizeof(fs_path));
    }
    unlink(fs_path);
    memset(&back_end, 0, sizeof(back_end));
    back_end.features = VIRTIO_F_VERSION_1;
    back_end.serve = fs_serve;
    back_end_start(&back_end, fs_path, -1);
    return &conf;
}

/* New ones at the end: the fuzzer's corpus knows them by number. */
const struct test_device test_devices[] = {
    {"echo", &echo_type, no_conf, 0},
    {"rng", &virtio_rng_type, rng_conf, 0},
    {"balloon", &virtio_balloon_type, balloon_conf, 1}, /* deflation: the other queue says which pages to drop */
    {"blk", &virtio_blk_type, blk_conf, 0},
    {"net", &virtio_net_type, net_conf, 1},
    {"console", &virtio_console_type, console_conf, 1},
    {"vsock", &virtio_vsock_type, vsock_conf, 1},
    {"fs", &virtio_fs_type, fs_conf, 1},
};
const unsigned n_test_devices = ARRAY_SIZE(test_devices);
