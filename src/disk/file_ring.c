/*
 * Requests through io_uring. Those of one callback of the loop are gathered and go to the kernel in one call; what it could do at once is complete when that
 * call returns, and nobody sleeps over it.
 *
 * What the page cache has need not go that way. A read of it is a copy, made right here if it does not have to wait (RWF_NOWAIT); after one that had, the
 * ring has a few. So is a write into it, but few file systems let io_uring make it without a thread of the kernel's, which takes twice as long; nor do
 * those that are in memory (tmpfs) let it read. Those are made right here as well, as long as they are prompt: after one that had to wait - for room in the
 * page cache, or for the journal - the kernel's threads have them for a while. One that only had to share its CPU has not waited: it would not be faster there.
 *
 * The ring's descriptor stands in the loop, readable while there are completions. All on the loop's thread. What comes back short goes to the
 * pool, which does the rest.
 */
#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "disk/file_impl.h"

#define ENTRIES      256         /* requests in the kernel at most; others wait here */
#define COPY_AT_ONCE (1 * MIB)   /* before the loop's other work has its turn */
#define LARGE        (256 * KIB) /* a read that a thread of the kernel's is worth, while there is something else to do */
#define READS_PASSED 32          /* to the ring, after a read that the page cache did not have */
#define SLOW         (10 * NS_PER_MS)  /* no copy takes as long: it has waited, or somebody else had the CPU */
#define PATIENCE     (500 * NS_PER_MS) /* until the next try */

struct file_ring {
    struct file_host *file;
    struct io_uring ring;
    struct loop_fd source;
    struct loop_event submit; /* at the end of the callback at hand */
    unsigned in_kernel;       /* taken from the waiting, and not complete */
    struct disk_request *waiting, **tail;
    int64_t slow_until; /* copies are not prompt */
    unsigned pass;      /* so many reads go to the ring */
};

static void on_complete(struct file_ring *ring, struct disk_request *req, int res)
{
    struct file_host *file = ring->file;
    bool moves = req->op != DISK_FLUSH;

    ring->in_kernel--;
    if (res == -EINTR || res == -EAGAIN || (moves && res >= 0 && (uint64_t)res < req->len)) {
        if (req->op != DISK_READ || res < 0 || !file_plain_pad(file, req, (uint64_t)res)) {
            file_pool_submit(file->pool, req, res > 0 ? (unsigned)res : 0);
            return;
        }
    }
    if (req->op == DISK_WRITE && res >= 0)
        file_grew(&file->base, req->offset + req->len);
    disk_complete(req, res < 0 ? res : 0);
}

/* Whether there were any. */
static bool reap(struct file_ring *ring)
{
    struct io_uring_cqe *cqe;
    bool any = false;

    while (io_uring_peek_cqe(&ring->ring, &cqe) == 0) {
        struct disk_request *req = io_uring_cqe_get_data(cqe);
        int res = cqe->res;
        io_uring_cqe_seen(&ring->ring, cqe);
        on_complete(ring, req, res);
        any = true;
    }
    return any;
}

static void prepare(struct file_ring *ring, struct io_uring_sqe *sqe, struct disk_request *req)
{
    struct file_host *file = ring->file;
    int fd = file_plain_fd(file, req);

    switch (req->op) {
    case DISK_READ:
        io_uring_prep_readv(sqe, fd, req->iov, req->n_iov, req->offset);
        break;
    case DISK_WRITE:
        io_uring_prep_writev(sqe, fd, req->iov, req->n_iov, req->offset);
        break;
    default:
        io_uring_prep_fsync(sqe, file->buffered_fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, req);
}

/* A long copy that others wait for can as well be made beside them. */
static bool goes_aside(const struct file_ring *ring, const struct disk_request *req)
{
    return req->op == DISK_READ && req->len >= LARGE && (req->next || ring->in_kernel);
}

static struct disk_request *take_waiting(struct file_ring *ring)
{
    struct disk_request *req = ring->waiting;

    ring->waiting = req->next;
    if (!ring->waiting)
        ring->tail = &ring->waiting;
    return req;
}

/* Whether it is made right here, by a call that may wait. */
static bool is_copy(const struct file_ring *ring, const struct disk_request *req, int64_t now)
{
    const struct file_host *file = ring->file;

    return (req->op == DISK_WRITE || (req->op == DISK_READ && file->in_memory)) && now >= ring->slow_until &&
           file_plain_fd(file, req) == file->buffered_fd;
}

/* How often this thread has slept so far; that others had its CPU does not count. */
static long sleeps(void)
{
    struct rusage usage = {0};

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* slept: how often, before the first copy of this round. */
static void copy(struct file_ring *ring, struct disk_request *req, int64_t *now, long slept)
{
    int result = file_plain_do(ring->file, req, 0);
    int64_t before = *now;

    *now = loop_now();
    if (*now - before > SLOW && sleeps() != slept)
        ring->slow_until = *now + PATIENCE;
    disk_complete(req, result);
}

/* A read, if the page cache has all of it. */
static bool read_at_hand(struct file_ring *ring, const struct disk_request *req)
{
    const struct file_host *file = ring->file;

    if (req->op != DISK_READ || file->no_nowait || file_plain_fd(file, req) != file->buffered_fd)
        return false;
    if (ring->pass) {
        ring->pass--;
        return false;
    }
    if (file_plain_at_hand(ring->file, req))
        return true;
    ring->pass = READS_PASSED;
    return false;
}

static void submit_gathered(void *opaque)
{
    struct file_ring *ring = opaque;
    int64_t now = loop_now();
    uint64_t copied = 0;
    long slept = -1; /* not asked yet */

    while (ring->waiting && ring->in_kernel < ENTRIES && copied < COPY_AT_ONCE) {
        struct io_uring_sqe *sqe;
        uint64_t len = ring->waiting->len;
        bool aside = goes_aside(ring, ring->waiting);
        if (!aside && is_copy(ring, ring->waiting, now)) {
            copied += len;
            slept = slept < 0 ? sleeps() : slept;
            copy(ring, take_waiting(ring), &now, slept);
            continue;
        }
        if (!aside && read_at_hand(ring, ring->waiting)) {
            copied += len;
            disk_complete(take_waiting(ring), 0);
            continue;
        }
        sqe = io_uring_get_sqe(&ring->ring);
        if (!sqe)
            break;
        ring->in_kernel++;
        prepare(ring, sqe, take_waiting(ring));
        if (aside)
            io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    /* What the kernel does not take now, for want of memory, it is offered again. */
    if (io_uring_sq_ready(&ring->ring))
        io_uring_submit(&ring->ring);
    reap(ring);
    if (io_uring_sq_ready(&ring->ring) || (ring->waiting && ring->in_kernel < ENTRIES))
        loop_event_set(&ring->submit);
}

static void on_readable(void *opaque, uint32_t events)
{
    struct file_ring *ring = opaque;

    if (reap(ring) && ring->waiting)
        loop_event_set(&ring->submit);
}

void file_ring_submit(struct file_ring *ring, struct disk_request *req)
{
    if (req->n_iov > IOV_MAX) {
        file_pool_submit(ring->file->pool, req, 0);
        return;
    }
    req->next = NULL;
    *ring->tail = req;
    ring->tail = &req->next;
    loop_event_set(&ring->submit);
}

bool file_ring_wait(struct file_ring *ring)
{
    struct io_uring_cqe *cqe;

    if (!ring->waiting && !ring->in_kernel)
        return false;
    submit_gathered(ring);
    if (!reap(ring) && ring->in_kernel && io_uring_submit_and_wait(&ring->ring, 1) >= 0 &&
        io_uring_peek_cqe(&ring->ring, &cqe) == 0)
        reap(ring);
    return true;
}

static int init(struct io_uring *ring)
{
    int r = io_uring_queue_init(ENTRIES, ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CLAMP);
    return r == -EINVAL ? io_uring_queue_init(ENTRIES, ring, IORING_SETUP_CLAMP) : r;
}

int file_ring_open(struct file_ring **out, struct file_host *file)
{
    struct file_ring *ring = calloc(1, sizeof(*ring));
    int r;

    if (!ring)
        return -ENOMEM;
    ring->file = file;
    ring->tail = &ring->waiting;
    r = init(&ring->ring);
    if (r < 0)
        goto free_ring;
    /* IORING_FEAT_NODROP: 5.5; what is older has too little for us. */
    if (!(ring->ring.features & IORING_FEAT_NODROP)) {
        r = -ENOSYS;
        goto exit_ring;
    }
    ring->source = (struct loop_fd){.fd = ring->ring.ring_fd, .fn = on_readable, .opaque = ring};
    r = loop_fd_add(file->base.loop, &ring->source, EPOLLIN);
    if (r < 0)
        goto exit_ring;
    loop_event_init(&ring->submit, file->base.loop, submit_gathered, ring);
    *out = ring;
    return 0;

exit_ring:
    io_uring_queue_exit(&ring->ring);
free_ring:
    free(ring);
    return r;
}

void file_ring_close(struct file_ring *ring)
{
    if (!ring)
        return;
    loop_event_fini(&ring->submit);
    loop_fd_remove(ring->file->base.loop, &ring->source);
    io_uring_queue_exit(&ring->ring);
    free(ring);
}
