#include "device/virtio_fs_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

/* The longest request that virtiofsd has room for: 256 pages, and what comes before them. */
#define REQUEST_MAX (256 * 4096 + 4096)

#define STOP_PATIENCE (10 * NS_PER_SEC) /* for the back end to finish what it has */

/* ---- chains back to the guest ---- */

static struct virtq *virtq_of(const struct fs_queue *q)
{
    return q->fs->v.queues[q->index];
}

/* An answer of our own, where the guest has left room for one: it has none for a FORGET. */
static void answer(struct fs_queue *q, struct virtq_elem *elem, uint64_t unique, int error)
{
    const struct fuse_out_header out = {.len = sizeof(out), .error = -error, .unique = unique};
    size_t n = elem->in_len >= sizeof(out) ? iov_write(elem->in, elem->n_in, 0, &out, sizeof(out)) : 0;

    virtq_push(virtq_of(q), elem, (uint32_t)n);
}

static void release(struct fs_queue *q, struct fs_request *req)
{
    req->next_free = q->free;
    q->free = req;
    q->under_way--;
}

static void stopped_if_done(struct virtio_fs *fs)
{
    if (!fs->stopping || fs->queues[0].under_way || fs->queues[1].under_way)
        return;
    fs->stopping = false;
    loop_timer_cancel(&fs->patience);
    virtio_stopped(&fs->v);
}

/* ---- requests ---- */

/* Read-only: what changes nothing, whatever the back end makes of it. */
static bool is_harmless(const struct fuse_in_header *head, const struct fuse_open_in *open)
{
    switch (head->opcode) {
    case FUSE_LOOKUP:
    case FUSE_FORGET:
    case FUSE_GETATTR:
    case FUSE_READLINK:
    case FUSE_READ:
    case FUSE_STATFS:
    case FUSE_RELEASE:
    case FUSE_FSYNC:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_FLUSH:
    case FUSE_INIT:
    case FUSE_OPENDIR:
    case FUSE_READDIR:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
    case FUSE_GETLK:
    case FUSE_SETLK:
    case FUSE_SETLKW:
    case FUSE_ACCESS:
    case FUSE_INTERRUPT:
    case FUSE_DESTROY:
    case FUSE_BATCH_FORGET:
    case FUSE_READDIRPLUS:
    case FUSE_LSEEK:
    case FUSE_SYNCFS:
        return true;
    case FUSE_OPEN:
        return (open->flags & O_ACCMODE) == O_RDONLY && !(open->flags & (O_TRUNC | O_CREAT));
    default:
        return false;
    }
}

/* What the guest is told at once: an errno, or 0. virtiofsd ends itself over a request that is too short or too long, or has no number. */
static int judge(const struct virtio_fs *fs, const struct fs_request *req, const struct virtq_elem *elem)
{
    struct fuse_open_in open = {.flags = O_RDWR};

    if (elem->out_len < sizeof(req->head) || elem->out_len > REQUEST_MAX ||
        elem->n_out + elem->n_in + 2 > VHOST_RING_SIZE || !req->head.unique)
        return EINVAL;
    if (elem->out_len >= HEAD_SIZE)
        memcpy(&open, req->copy + sizeof(req->head), sizeof(open));
    return fs->readonly && !is_harmless(&req->head, &open) ? EROFS : 0;
}

static unsigned add_seg(struct vhost_ring_seg *segs, unsigned n, uint64_t addr, uint64_t len)
{
    if (len)
        segs[n++] = (struct vhost_ring_seg){.addr = addr, .len = (uint32_t)len};
    return n;
}

/* The request's pieces, with our copy in place of its head. They are cut as the guest cut them, and at the copy's end. */
static bool hand_over(struct fs_queue *q, struct fs_request *req)
{
    const struct virtq_elem *elem = req->elem;
    const struct ram *ram = q->fs->v.env->ram;
    struct vhost_ring_seg segs[VHOST_RING_SIZE];
    size_t copied = 0;
    unsigned n = 0, n_out;

    for (unsigned i = 0; i < elem->n_out; i++) {
        const struct iovec *iov = &elem->out[i];
        size_t part = iov->iov_len < HEAD_SIZE - copied ? iov->iov_len : HEAD_SIZE - copied;
        n = add_seg(segs, n, virtio_fs_own_addr(q->fs, req->copy + copied), part);
        n = add_seg(segs, n, ram_gpa(ram, (uint8_t *)iov->iov_base + part), iov->iov_len - part);
        copied += part;
    }
    n_out = n;
    for (unsigned i = 0; i < elem->n_in; i++)
        n = add_seg(segs, n, ram_gpa(ram, elem->in[i].iov_base), elem->in[i].iov_len);
    return vhost_ring_add(&q->ring, segs, n_out, n - n_out, req);
}

/* False: there is no room for it now. */
static bool serve(struct fs_queue *q, struct virtq_elem *elem)
{
    struct virtio_fs *fs = q->fs;
    struct fs_request *req = q->free;

    if (!req)
        return false;
    memset(req->copy, 0, HEAD_SIZE);
    iov_read(elem->out, elem->n_out, 0, req->copy, HEAD_SIZE);
    memcpy(&req->head, req->copy, sizeof(req->head));
    int error = judge(fs, req, elem);
    if (error || atomic_load(&fs->gone)) {
        answer(q, elem, req->head.unique, error ? error : EIO);
        atomic_fetch_add(error ? &fs->n_refused : &fs->n_failed, 1);
        return true;
    }
    req->elem = elem;
    if (!hand_over(q, req))
        return false;
    q->free = req->next_free;
    q->under_way++;
    atomic_fetch_add(&fs->n_requests, 1);
    return true;
}

static void kick(struct fs_queue *q)
{
    uint64_t one = 1;
    ssize_t ignored = vhost_ring_kick(&q->ring) ? write(q->kick, &one, sizeof(one)) : 0;
    (void)ignored; /* full means kicked already */
}

/* Takes what the guest has made available; false: there is no room for the next. */
static bool take_all(struct fs_queue *q, struct virtq *vq)
{
    struct virtq_elem *elem;

    while ((elem = virtq_pop(vq))) {
        if (!serve(q, elem)) {
            virtq_unpop(vq, elem);
            return false;
        }
    }
    return true;
}

/* Where there is no room, the next completion comes here again, and the guest need not tell. */
static void pump(struct fs_queue *q)
{
    struct virtio_fs *fs = q->fs;
    struct virtq *vq = virtq_of(q);

    if (fs->stopping || !virtio_running(&fs->v) || !virtio_queue_enabled(&fs->v, q->index))
        return;
    do
        virtq_disable_notify(vq);
    while (take_all(q, vq) && virtq_enable_notify(vq));
    if (!atomic_load(&fs->gone))
        kick(q);
    virtq_signal(vq);
}

void virtio_fs_called(void *opaque, uint32_t events)
{
    struct fs_queue *q = opaque;
    struct virtio_fs *fs = q->fs;
    struct fs_request *req;
    uint64_t count;
    uint32_t written;
    void *taken;
    int r = read(q->call, &count, sizeof(count)) < 0 ? 0 : 1;

    if (!q->under_way) /* back ends call when they start, too */
        return;
    while (r > 0 && (r = vhost_ring_take(&q->ring, &taken, &written)) > 0) {
        req = taken;
        virtq_push(virtq_of(q), req->elem, written); /* the engines hear of all that it could have stored to */
        release(q, req);
    }
    if (r < 0)
        virtio_fs_sever(fs, "the back end returns a request that it does not have");
    virtq_signal(virtq_of(q));
    pump(q);
    stopped_if_done(fs);
}

/* ---- the device ---- */

void virtio_fs_gone(struct virtio_fs *fs, const char *why)
{
    atomic_store(&fs->gone, true);
    log_error("%s: %s; its requests fail from now on", fs->v.name, why);
    for (unsigned i = 0; fs->started && i < N_QUEUES; i++) {
        struct fs_queue *q = &fs->queues[i];
        struct fs_request *req;
        while ((req = vhost_ring_drop(&q->ring))) {
            answer(q, req->elem, req->head.unique, EIO);
            atomic_fetch_add(&fs->n_failed, 1);
            release(q, req);
        }
        virtq_signal(virtq_of(q));
        pump(q);
    }
    stopped_if_done(fs);
}

static void fs_start(struct virtio *v)
{
    ((struct virtio_fs *)v)->started = true;
}

static void fs_notify(struct virtio *v, unsigned n)
{
    if (n < N_QUEUES)
        pump(&((struct virtio_fs *)v)->queues[n]);
}

static void fs_stop(struct virtio *v)
{
    struct virtio_fs *fs = (struct virtio_fs *)v;

    fs->stopping = true;
    loop_timer_set(&fs->patience, loop_now() + STOP_PATIENCE);
    stopped_if_done(fs);
}

static int fs_open(struct virtio *v, const void *conf, struct err *err)
{
    struct virtio_fs *fs = (struct virtio_fs *)v;
    const struct virtio_fs_conf *c = conf;
    uint8_t config[VIRTIO_FS_TAG_MAX + 4] = {0};

    fs->readonly = c->readonly;
    v->n_queues = N_QUEUES;
    v->queue_size = QUEUE_SIZE;
    memcpy(config + CONFIG_TAG, c->tag, strnlen(c->tag, VIRTIO_FS_TAG_MAX));
    store_le32(config + CONFIG_N_QUEUES, N_QUEUES - 1);
    virtio_config_put(v, 0, config, sizeof(config));
    return virtio_fs_back_end_open(fs, c, err);
}

static void fs_close(struct virtio *v)
{
    virtio_fs_back_end_close((struct virtio_fs *)v);
}

void virtio_fs_get(struct virtio *v, struct virtio_fs_info *info)
{
    struct virtio_fs *fs = (struct virtio_fs *)v;

    *info = (struct virtio_fs_info){.requests = atomic_load(&fs->n_requests),
                                    .refused = atomic_load(&fs->n_refused),
                                    .failed = atomic_load(&fs->n_failed),
                                    .gone = atomic_load(&fs->gone)};
}

/* What the guest has open is known to the back end alone, and ends with it. */
static int fs_state(struct virtio *v, struct stream *s)
{
    stream_refuse(s, -ENOTSUP, "a shared directory's state cannot be saved: '%s' is to be detached before", v->name);
    return s->error;
}

const struct virtio_type virtio_fs_type = {
    .name = "virtio-fs",
    .id = 26,
    .pci_class = 0x018000,
    .size = sizeof(struct virtio_fs),
    .open = fs_open,
    .start = fs_start,
    .notify = fs_notify,
    .stop = fs_stop,
    .state = fs_state,
    .close = fs_close,
};
