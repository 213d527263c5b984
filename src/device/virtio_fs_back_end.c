#include "device/virtio_fs_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "virtio/vhost_user.h"

#define LINGER_PATIENCE (2 * NS_PER_SEC) /* for a child to end when it has closed its socket */

/* ---- its end ---- */

static void unwatch(struct virtio_fs *fs, struct fs_watch *w)
{
    if (w->on)
        loop_fd_remove(fs->v.io->loop, &w->source);
    w->on = false;
}

static void unwatch_all(void *opaque)
{
    struct virtio_fs *fs = opaque;

    loop_timer_cancel(&fs->patience);
    for (unsigned i = 0; i < N_QUEUES; i++)
        unwatch(fs, &fs->queues[i].called);
    unwatch(fs, &fs->on_socket);
    unwatch(fs, &fs->on_child);
    unwatch(fs, &fs->on_output);
}

static void on_output(void *opaque, uint32_t events)
{
    struct virtio_fs *fs = opaque;
    char line[sizeof(fs->words)];

    virtiofsd_last_words(&fs->child, line, sizeof(line));
    if (*line) {
        memcpy(fs->words, line, sizeof(line));
        log_debug("%s: virtiofsd: %s", fs->v.name, line);
    }
    if (events & EPOLLHUP)
        unwatch(fs, &fs->on_output);
}

static void on_child(void *opaque, uint32_t events)
{
    struct virtio_fs *fs = opaque;
    char how[32], why[sizeof(fs->words) + 96];

    (void)events;
    on_output(fs, 0);
    virtiofsd_reap(&fs->child, how, sizeof(how));
    unwatch_all(fs);
    snprintf(why, sizeof(why), "virtiofsd has ended (%s%s%s)", how, *fs->words ? "; its last line: " : "", fs->words);
    virtio_fs_gone(fs, why);
}

/* Without a child there is nobody to wait for. A child's end is waited for, since until then it has the guest's memory in its hands. */
void virtio_fs_sever(struct virtio_fs *fs, const char *why)
{
    if (atomic_load(&fs->gone) || fs->killed)
        return;
    if (!fs->child.pid) {
        unwatch_all(fs);
        shutdown(fs->socket, SHUT_RDWR);
        virtio_fs_gone(fs, why);
        return;
    }
    log_warn("%s: %s", fs->v.name, why);
    fs->killed = true;
    virtiofsd_kill(&fs->child);
}

/* Nothing comes from the socket but its end. A child is about to end too, and its status says more. */
static void on_socket(void *opaque, uint32_t events)
{
    struct virtio_fs *fs = opaque;
    char bytes[256];

    if (!(events & (EPOLLHUP | EPOLLERR)) && recv(fs->socket, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        return;
    unwatch(fs, &fs->on_socket);
    if (fs->child.pid)
        loop_timer_set(&fs->patience, loop_now() + LINGER_PATIENCE);
    else
        virtio_fs_sever(fs, "the back end has closed the connection");
}

static void on_patience(void *opaque)
{
    struct virtio_fs *fs = opaque;

    virtio_fs_sever(fs, fs->stopping ? "the back end does not finish its requests"
                                     : "virtiofsd has closed its connection, and stays");
}

/* ---- its beginning ---- */

/* The child's or a listening back end's socket, connected. */
static int connect_back_end(struct virtio_fs *fs, const struct virtio_fs_conf *c, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    static const char *const caches[] = {
        [VIRTIO_FS_CACHE_AUTO] = "auto", [VIRTIO_FS_CACHE_ALWAYS] = "always", [VIRTIO_FS_CACHE_NONE] = "none"};
    const struct virtiofsd_conf conf = {.program = c->virtiofsd, .source = c->source, .cache = caches[c->cache]};

    if (*c->source) {
        int r = virtiofsd_open(&fs->child, &conf, err);
        fs->socket = fs->child.socket;
        return r;
    }
    if (strlen(c->socket) >= sizeof(addr.sun_path))
        return err_set(err, -ENAMETOOLONG, "the socket's path '%.80s...' is too long: up to %zu bytes are accepted",
                       c->socket, sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, c->socket, strlen(c->socket));
    fs->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fs->socket < 0 || connect(fs->socket, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_set(err, -errno, "cannot connect to the back end's socket '%s': %s", c->socket, strerror(errno));
    return 0;
}

static int open_queue(struct fs_queue *q, struct err *err)
{
    uint8_t *memory = q->fs->own + q->index * OWN_QUEUE_SIZE;

    q->requests = calloc(QUEUE_SIZE, sizeof(*q->requests));
    if (!q->requests || vhost_ring_open(&q->ring, memory) < 0)
        return err_set(err, -ENOMEM, "no memory for its queues");
    for (unsigned i = QUEUE_SIZE; i-- > 0;) {
        q->requests[i] = (struct fs_request){.copy = memory + VHOST_RING_BYTES + i * HEAD_STRIDE, .next_free = q->free};
        q->free = &q->requests[i];
    }
    q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return q->kick < 0 || q->call < 0 ? err_set(err, -errno, "eventfd: %s", strerror(errno)) : 0;
}

static int open_own(struct virtio_fs *fs, struct err *err)
{
    int r = 0;

    fs->own_fd = memfd_create("vhost-rings", MFD_CLOEXEC);
    if (fs->own_fd < 0 || ftruncate(fs->own_fd, OWN_SIZE) < 0)
        return err_set(err, -errno, "memory for its queues: %s", strerror(errno));
    void *p = mmap(NULL, OWN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fs->own_fd, 0);
    if (p == MAP_FAILED)
        return err_set(err, -errno, "memory for its queues: %s", strerror(errno));
    fs->own = p;
    for (unsigned i = 0; r == 0 && i < N_QUEUES; i++)
        r = open_queue(&fs->queues[i], err);
    return r;
}

/* The guest's memory and ours, and the rings. */
static int set_up_back_end(struct virtio_fs *fs, struct err *err)
{
    const struct ram *ram = fs->v.env->ram;
    struct vhost_user_region regions[3] = {
        {.len = ram->low, .fd = ram->fd},
        {.addr = OWN_ADDR, .len = OWN_SIZE, .fd = fs->own_fd},
        {.addr = RAM_HIGH_BASE, .len = ram->high, .offset = ram->low, .fd = ram->fd}};
    struct vhost_user vu;

    int r = vhost_user_open(&vu, fs->socket, VIRTIO_F_VERSION_1, err);
    if (r == 0)
        r = vhost_user_set_memory(&vu, regions, ram->high ? 3 : 2, err);
    for (unsigned i = 0; r == 0 && i < N_QUEUES; i++) {
        const struct fs_queue *q = &fs->queues[i];
        const struct vhost_user_ring ring = {.index = i,
                                             .size = VHOST_RING_SIZE,
                                             .desc = virtio_fs_own_addr(fs, q->ring.desc),
                                             .avail = virtio_fs_own_addr(fs, q->ring.avail),
                                             .used = virtio_fs_own_addr(fs, q->ring.used),
                                             .kick = q->kick,
                                             .call = q->call};
        r = vhost_user_start_ring(&vu, &ring, err);
    }
    if (r < 0 && fs->child.pid) {
        virtiofsd_last_words(&fs->child, fs->words, sizeof(fs->words));
        if (*fs->words)
            err_set(err, r, "virtiofsd cannot start: %s", fs->words);
    }
    return r;
}

static int watch(struct virtio_fs *fs, struct fs_watch *w, int fd, void (*fn)(void *, uint32_t), void *opaque)
{
    w->source = (struct loop_fd){.fd = fd, .fn = fn, .opaque = opaque};
    int r = loop_fd_add(fs->v.io->loop, &w->source, EPOLLIN);
    w->on = r == 0;
    return r;
}

static void watch_all(void *opaque)
{
    struct virtio_fs *fs = opaque;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < N_QUEUES; i++)
        r = watch(fs, &fs->queues[i].called, fs->queues[i].call, virtio_fs_called, &fs->queues[i]);
    if (r == 0)
        r = watch(fs, &fs->on_socket, fs->socket, on_socket, fs);
    if (r == 0 && fs->child.pid)
        r = watch(fs, &fs->on_child, fs->child.pid_fd, on_child, fs);
    if (r == 0 && fs->child.pid)
        r = watch(fs, &fs->on_output, fs->child.output, on_output, fs);
    if (r < 0)
        virtio_fs_sever(fs, "the back end cannot be watched");
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void free_all(struct virtio_fs *fs)
{
    for (unsigned i = 0; i < N_QUEUES; i++) {
        close_fd(fs->queues[i].kick);
        close_fd(fs->queues[i].call);
        vhost_ring_close(&fs->queues[i].ring);
        free(fs->queues[i].requests);
    }
    if (fs->child.socket >= 0)
        virtiofsd_close(&fs->child);
    else
        close_fd(fs->socket);
    if (fs->own)
        munmap(fs->own, OWN_SIZE);
    close_fd(fs->own_fd);
}

int virtio_fs_back_end_open(struct virtio_fs *fs, const struct virtio_fs_conf *conf, struct err *err)
{
    fs->socket = fs->own_fd = fs->child.pid_fd = fs->child.socket = fs->child.output = -1;
    for (unsigned i = 0; i < N_QUEUES; i++)
        fs->queues[i] = (struct fs_queue){.fs = fs, .index = i, .kick = -1, .call = -1};
    loop_timer_init(&fs->patience, fs->v.io->loop, on_patience, fs);
    int r = open_own(fs, err);
    if (r == 0)
        r = connect_back_end(fs, conf, err);
    if (r == 0)
        r = set_up_back_end(fs, err);
    if (r == 0)
        iothread_call(fs->v.io, watch_all, fs);
    else
        free_all(fs);
    return r;
}

void virtio_fs_back_end_close(struct virtio_fs *fs)
{
    iothread_call(fs->v.io, unwatch_all, fs); /* behind what is posted */
    free_all(fs);
}
