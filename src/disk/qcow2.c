/*
 * The disk_type: requests come in, take their steps until all of them has a place, and are done when what they started is over.
 *
 * Threads: the loop's alone. Whatever is woken runs from qcow2_run(), never from within what woke it.
 */
#include "disk/qcow2.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/workers.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"

/* ---- waiting ---- */

void qcow2_park(struct qcow2_waitlist *list, struct qcow2_waiter *w)
{
    w->next = NULL;
    if (!list->first)
        list->tail = &list->first;
    *list->tail = w;
    list->tail = &w->next;
}

void qcow2_wake(struct qcow2 *q, struct qcow2_waitlist *list, int result)
{
    for (struct qcow2_waiter *w = list->first, *next; w; w = next) {
        next = w->next;
        w->result = result;
        qcow2_park(&q->runnable, w);
    }
    list->first = NULL;
}

static void run_waiters(struct qcow2 *q)
{
    while (q->runnable.first) {
        struct qcow2_waiter *w = q->runnable.first;
        q->runnable.first = w->next;
        w->wake(w, w->result);
    }
}

void qcow2_run(struct qcow2 *q)
{
    if (q->running)
        return;
    q->running = true;
    for (;;) {
        run_waiters(q);
        struct disk_request *req = q->finished;
        if (!req)
            break;
        q->finished = req->next;
        disk_complete(req, req->result);
    }
    q->running = false;
}

static void finish(struct qcow2 *q, struct disk_request *req, int result)
{
    req->result = result;
    req->next = NULL;
    if (!q->finished)
        q->finished_tail = &q->finished;
    *q->finished_tail = req;
    q->finished_tail = &req->next;
}

int qcow2_broken(struct qcow2 *q, const char *fmt, ...)
{
    char what[256];
    va_list args;

    if (q->broken)
        return -EIO;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    q->broken = true;
    log_error("disk '%.200s': %s: the image is corrupt%s", q->disk.path, what,
              q->disk.read_only ? "" : ", and is not written to any more");
    if (!q->disk.read_only && q->version >= 3) {
        q->incompatible |= QCOW2_CORRUPT;
        if (qcow2_header_write(q))
            log_error("disk '%.200s': cannot mark the image as corrupt", q->disk.path);
    }
    return -EIO;
}

/* ---- the buffers of a request ---- */

unsigned qcow2_iov_count(const struct qcow2_req *r, uint64_t len)
{
    size_t skip = r->iov_skip;
    unsigned n = 0;

    for (unsigned i = r->iov_index; len && i < r->req->n_iov; i++, skip = 0, n++) {
        size_t here = r->req->iov[i].iov_len - skip;
        len -= here < len ? here : len;
    }
    return n;
}

unsigned qcow2_iov_take(struct qcow2_req *r, uint64_t len, struct iovec *out)
{
    unsigned n = 0;

    while (len && r->iov_index < r->req->n_iov) {
        const struct iovec *iov = &r->req->iov[r->iov_index];
        size_t here = iov->iov_len - r->iov_skip;
        if (here > len)
            here = len;
        if (here)
            out[n++] = (struct iovec){(uint8_t *)iov->iov_base + r->iov_skip, here};
        len -= here;
        r->iov_skip += here;
        if (r->iov_skip == iov->iov_len) {
            r->iov_index++;
            r->iov_skip = 0;
        }
    }
    return n;
}

void qcow2_iov_zero(struct qcow2_req *r, uint64_t len)
{
    while (len && r->iov_index < r->req->n_iov) {
        const struct iovec *iov = &r->req->iov[r->iov_index];
        size_t here = iov->iov_len - r->iov_skip;
        if (here > len)
            here = len;
        memset((uint8_t *)iov->iov_base + r->iov_skip, 0, here);
        len -= here;
        r->iov_skip += here;
        if (r->iov_skip == iov->iov_len) {
            r->iov_index++;
            r->iov_skip = 0;
        }
    }
}

void qcow2_iov_copy(const struct iovec *iov, unsigned n, const uint8_t *from)
{
    for (unsigned i = 0; i < n; from += iov[i++].iov_len)
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
}

static void transferred(struct disk_request *req, int result)
{
    struct qcow2_io *io = CONTAINER_OF(req, struct qcow2_io, req);
    struct qcow2_req *r = io->r;
    struct qcow2 *q = r->q;

    if (io == &r->first_io)
        r->first_io.r = NULL;
    else
        free(io);
    qcow2_put(r, result);
    qcow2_run(q);
}

/* disk: NULL, or the backing file. */
static int transfer(struct qcow2_req *r, struct disk *disk, enum disk_op op, uint64_t host, uint64_t len)
{
    bool whole = len == r->req->len;
    unsigned n = op == DISK_ZERO || whole ? 0 : qcow2_iov_count(r, len);
    /* Most requests are one to the file. */
    struct qcow2_io *io = !n && !r->first_io.r ? &r->first_io : malloc(sizeof(*io) + n * sizeof(struct iovec));

    if (!io)
        return -ENOMEM;
    io->r = r;
    io->req = (struct disk_request){.op = op, .offset = host, .len = len, .done = transferred};
    if (op != DISK_ZERO && whole) {
        io->req.iov = r->req->iov;
        io->req.n_iov = r->req->n_iov;
    } else if (op != DISK_ZERO) {
        struct iovec *iov = (struct iovec *)(io + 1);
        io->req.n_iov = qcow2_iov_take(r, len, iov);
        io->req.iov = iov;
    }
    r->pos += len;
    r->pending++;
    if (disk)
        disk_submit(disk, &io->req);
    else
        file_submit(r->q->file, &io->req);
    return 0;
}

int qcow2_transfer(struct qcow2_req *r, enum disk_op op, uint64_t host, uint64_t len)
{
    return transfer(r, NULL, op, host, len);
}

int qcow2_transfer_backing(struct qcow2_req *r, uint64_t len)
{
    return transfer(r, r->q->backing, DISK_READ, r->pos, len);
}

/* ---- the life of a request ---- */

#define MAX_SPARE 128

/* The last that was over is the first to be used again: it is in the CPU's cache, where the C library's is seldom. */
static struct qcow2_req *get_req(struct qcow2 *q)
{
    struct qcow2_req *r = q->spare;

    if (!r)
        return malloc(sizeof(*r));
    q->spare = r->younger;
    q->n_spare--;
    return r;
}

static void put_req(struct qcow2 *q, struct qcow2_req *r)
{
    if (q->n_spare == MAX_SPARE) {
        free(r);
        return;
    }
    r->younger = q->spare;
    q->spare = r;
    q->n_spare++;
}

void qcow2_free_spare(struct qcow2 *q)
{
    while (q->spare) {
        struct qcow2_req *next = q->spare->younger;
        free(q->spare);
        q->spare = next;
    }
}

static void unlink_req(struct qcow2 *q, struct qcow2_req *r)
{
    *(r->older ? &r->older->younger : &q->oldest) = r->younger;
    *(r->younger ? &r->younger->older : &q->youngest) = r->older;
}

void qcow2_put(struct qcow2_req *r, int result)
{
    struct qcow2 *q = r->q;

    if (result && !r->result)
        r->result = result;
    if (--r->pending)
        return;
    qcow2_pack_drop(r);
    unlink_req(q, r);
    finish(q, r->req, r->result);
    put_req(q, r);
    qcow2_free_reap(q);
}

static void run_steps(struct qcow2_req *r)
{
    int result = 0;

    while (!result && !r->result && r->pos < r->end)
        result = r->step(r);
    if (result != -EAGAIN)
        qcow2_put(r, result);
}

static void woken(struct qcow2_waiter *w, int result)
{
    struct qcow2_req *r = CONTAINER_OF(w, struct qcow2_req, waiter);

    if (result)
        qcow2_put(r, result);
    else
        run_steps(r);
}

static void flushed(struct qcow2_waiter *w, int result)
{
    qcow2_put(CONTAINER_OF(w, struct qcow2_req, waiter), result);
}

/* Discards concern whole clusters; the last may be cut short by the disk's end. */
static void trim_discard(struct qcow2_req *r)
{
    const struct qcow2 *q = r->q;

    r->pos = align_up(r->pos, q->cluster_size);
    r->end = r->end == q->disk.size ? align_up(r->end, q->cluster_size) : align_down(r->end, q->cluster_size);
}

static void start(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;

    switch (r->req->op) {
    case DISK_READ:
        r->step = qcow2_read_step;
        break;
    case DISK_WRITE:
        r->step = r->req->compress ? qcow2_pack_step : qcow2_write_step;
        break;
    case DISK_ZERO:
        r->step = qcow2_zero_step;
        break;
    case DISK_DISCARD:
        r->step = qcow2_discard_step;
        if (q->disk.discard || r->forget)
            trim_discard(r);
        else
            r->pos = r->end;
        break;
    case DISK_FLUSH:
        if (!q->disk.read_only) {
            r->waiter.wake = flushed;
            qcow2_commit_wait(q, &r->waiter);
            return;
        }
        r->pos = r->end;
        break;
    case DISK_MAP:
        r->step = qcow2_map_step;
        r->room = r->req->n_extents;
        r->req->n_extents = 0;
        break;
    }
    run_steps(r);
}

static int begin(struct qcow2 *q, struct disk_request *req, bool forget)
{
    bool writes = req->op != DISK_READ && req->op != DISK_MAP;
    int result = writes ? qcow2_header_sure(q) : 0;
    struct qcow2_req *r = result ? NULL : get_req(q);

    if (!r)
        return result ? result : -ENOMEM;
    *r = (struct qcow2_req){.q = q,
                            .req = req,
                            .waiter.wake = woken,
                            .older = q->youngest,
                            .seq = ++q->seq,
                            .pos = req->offset,
                            .end = req->offset + req->len,
                            .forget = forget,
                            .pending = 1};
    *(q->youngest ? &q->youngest->younger : &q->oldest) = r;
    q->youngest = r;
    start(r);
    return 0;
}

int qcow2_inner(struct qcow2 *q, struct disk_request *req, bool forget)
{
    return begin(q, req, forget);
}

void qcow2_submit(struct disk *disk, struct disk_request *req)
{
    struct qcow2 *q = (struct qcow2 *)disk;

    if (q->holding) {
        req->next = NULL;
        *q->held_tail = req;
        q->held_tail = &req->next;
        return;
    }

    int r = begin(q, req, false);
    if (r)
        finish(q, req, r);
    if (q->running)
        return; /* whoever runs goes on with it */
    q->running = true;
    while (q->runnable.first || q->finished) {
        run_waiters(q);
        struct disk_request *done = q->finished;
        if (!done)
            continue;
        q->finished = done->next;
        if (done->disk)
            disk_complete_later(disk, done, done->result);
        else
            disk_complete(done, done->result); /* a request of our own */
    }
    q->running = false;
}

/* ---- plain calls ---- */

struct blocking {
    struct qcow2_waiter waiter;
    bool done;
    int result;
};

static void unblock(struct qcow2_waiter *w, int result)
{
    struct blocking *b = CONTAINER_OF(w, struct blocking, waiter);

    b->done = true;
    b->result = result;
}

/* Serves the file. From within a request's done() too. */
static void serve(struct qcow2 *q)
{
    bool running = q->running;

    q->running = false;
    qcow2_run(q);
    if (!q->packers || !workers_wait(q->packers)) {
        if (q->backing && q->backing->under_way)
            disk_wait(q->backing);
        else
            file_wait(q->file);
    }
    qcow2_run(q);
    q->running = running;
}

/* Until b's waiter has been woken. */
static int block(struct qcow2 *q, struct blocking *b)
{
    while (!b->done)
        serve(q);
    b->done = false;
    return b->result;
}

struct inner {
    struct blocking b;
    struct disk_request req;
};

static void inner_done(struct disk_request *req, int result)
{
    struct inner *inner = CONTAINER_OF(req, struct inner, req);

    inner->b.done = true;
    inner->b.result = result;
}

int qcow2_inner_wait(struct qcow2 *q, enum disk_op op, uint64_t offset, uint64_t len, bool forget)
{
    struct inner inner = {.req = {.op = op, .offset = offset, .len = len, .done = inner_done}};
    int r = qcow2_inner(q, &inner.req, forget);

    return r ? r : block(q, &inner.b);
}

int qcow2_alloc_wait(struct qcow2 *q, uint64_t n, uint64_t *first)
{
    struct blocking b = {.waiter.wake = unblock};
    uint64_t got;
    bool fresh;
    int r;

    while ((r = qcow2_refcount_alloc(q, n, n, &b.waiter, first, &got, &fresh)) == -EAGAIN) {
        r = block(q, &b);
        if (r)
            return r;
    }
    return r;
}

int qcow2_settle(struct qcow2 *q)
{
    struct blocking b = {.waiter.wake = unblock};
    int r = qcow2_header_sure(q);

    for (unsigned rounds = 0; rounds < 3 && r == 0 && (rounds == 0 || qcow2_commit_dirty(q)); rounds++) {
        qcow2_commit_wait(q, &b.waiter);
        r = block(q, &b);
        while (q->reaper.busy || q->commit.running || q->grow.busy)
            serve(q);
    }
    return r;
}

void qcow2_serve(struct disk *disk)
{
    serve((struct qcow2 *)disk);
}

int qcow2_hold(struct qcow2 *q)
{
    if (q->holding)
        return -EBUSY;
    q->held = NULL;
    q->held_tail = &q->held;
    q->holding = true;
    while (q->oldest)
        serve(q);
    int r = qcow2_settle(q);
    if (r == 0 && qcow2_commit_dirty(q))
        r = -EIO;
    q->pack_at = 0;
    if (r)
        qcow2_unhold(q);
    return r;
}

void qcow2_unhold(struct qcow2 *q)
{
    struct disk_request *req = q->held, *next;

    q->holding = false;
    q->held = NULL;
    for (; req; req = next) {
        next = req->next;
        qcow2_submit(&q->disk, req);
    }
}

static void release(struct qcow2 *q)
{
    qcow2_page_fini(q);
    qcow2_free_fini(&q->frees);
    qcow2_free_fini(&q->ripe);
    qcow2_free_fini(&q->commit.frees);
    qcow2_table_fini(&q->l1);
    qcow2_table_fini(&q->refcounts);
    qcow2_set_fini(&q->meta);
    free(q->block_full);
    free(q->snapshots);
    qcow2_free_spare(q);
    free(q->zeroes);
    free(q->unpacked);
    workers_close(q->packers);
    qcow2_bitmap_fini(q);
    free(q->backing_name);
    disk_close(q->backing);
    file_close(q->file);
    free(q);
}

static void close_image(struct disk *disk)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    uint64_t bytes = q->end << q->cluster_bits;

    if (!disk->read_only && !q->for_check) {
        int r = qcow2_settle(q);
        if (r == 0)
            r = qcow2_bitmap_close(q);
        if (r)
            log_error("disk '%.200s': its metadata cannot be written: %s", disk->path, strerror(-r));
        bytes = q->end << q->cluster_bits;
        if (r == 0 && q->grown && file_size(q->file) > bytes && file_truncate(q->file, bytes))
            log_warn("disk '%.200s': the room that it did not need stays at its end", disk->path);
    }
    release(q);
}

static const struct disk_type qcow2_type = {
    .name = "qcow2",
    .info = qcow2_info,
    .check = qcow2_check_image,
    .submit = qcow2_submit,
    .snapshots = &qcow2_snapshot_ops,
    .bitmaps = &qcow2_bitmap_ops,
    .resize = qcow2_resize,
    .wait = qcow2_serve,
    .close = close_image,
    .backing = &qcow2_backing_ops,
};

int qcow2_open(struct disk **disk, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    int r;

    *disk = NULL;
    if (!q)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", conf->path);
    r = file_open(&q->file, conf, loop, err);
    if (r) {
        free(q);
        return r;
    }
    disk_init(&q->disk, &qcow2_type, conf, loop);
    q->broken = q->for_check = conf->check;
    r = qcow2_header_read(q, err);
    if (r == 0)
        r = qcow2_bitmap_start(q, err);
    if (r)
        err_prefix(err, "disk '%.200s'", conf->path);
    else if (!conf->check)
        r = qcow2_backing_open(q, conf, err);
    if (r) {
        loop_event_fini(&q->disk.easy_event);
        release(q);
        return r;
    }
    *disk = &q->disk;
    return 0;
}
