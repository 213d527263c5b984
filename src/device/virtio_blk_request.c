#include "device/virtio_blk_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"

/* 5.2.6 */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { RANGE_UNMAP = 1 << 0 };

#define HEADER_SIZE  16
#define RANGE_SIZE   16
#define LOG_INTERVAL (10 * NS_PER_SEC)

static struct virtio_blk_request *request_get(struct virtio_blk *blk)
{
    struct virtio_blk_request *req = blk->free;

    if (req)
        blk->free = req->next;
    else
        req = malloc(sizeof(*req));
    return req;
}

static void request_put(struct virtio_blk *blk, struct virtio_blk_request *req)
{
    req->next = blk->free;
    blk->free = req;
}

void virtio_blk_request_signal(void *opaque)
{
    struct virtio_blk *blk = opaque;
    uint64_t queues = blk->to_signal;

    blk->to_signal = 0;
    for (; queues; queues &= queues - 1)
        virtq_signal(blk->virtio.queues[__builtin_ctzll(queues)]);
}

/* The chain goes back to the guest, which hears of it when this batch is done. */
static void answer(struct virtio_blk *blk, struct virtio_blk_request *req, uint8_t status)
{
    blk->to_signal |= UINT64_C(1) << req->queue;
    loop_event_set(&blk->signal);
    *req->status = status;
    virtq_push(req->elem->queue, req->elem, (uint32_t)req->elem->in_len);
    request_put(blk, req);
}

static void count(struct virtio_blk *blk, enum virtio_blk_direction direction, uint64_t bytes, uint8_t status)
{
    struct virtio_blk_counter *c = &blk->counts[direction];

    if (status != S_OK) {
        virtio_blk_add(&c->errors, 1);
        return;
    }
    virtio_blk_add(&c->operations, 1);
    virtio_blk_add(&c->bytes, bytes);
}

static void log_failure(struct virtio_blk *blk, const struct virtio_blk_request *req, int error, bool pauses)
{
    static const char *const names[] = {"read", "write", "flush", "discard"};
    int64_t now = loop_now();

    if (!pauses && blk->logged_ns && now - blk->logged_ns < LOG_INTERVAL)
        return;
    blk->logged_ns = now;
    log_error("%s '%.200s': %s of %" PRIu64 " bytes at %" PRIu64 ": %s; %s", blk->virtio.name, blk->disk->path,
              names[req->direction], req->io.len, req->io.offset, strerror(-error),
              pauses ? "the VM is to pause, and it is tried again when it goes on" : "the guest sees an I/O error");
}

static bool pauses_for(const struct virtio_blk *blk, int error)
{
    if (!blk->conf.ask_pause)
        return false;
    if (blk->conf.spec.on_error == DISK_ON_ERROR_ENOSPC)
        return error == -ENOSPC || error == -EDQUOT;
    return blk->conf.spec.on_error == DISK_ON_ERROR_PAUSE;
}

/* The chain stays with us until the stop, and comes back with the start. */
static void hold(struct virtio_blk *blk, struct virtio_blk_request *req, int error)
{
    req->next = blk->held;
    blk->held = req;
    if (blk->asked || blk->stopping)
        return;
    blk->asked = true;
    log_failure(blk, req, error, true);
    blk->conf.ask_pause(blk->conf.opaque);
}

static void release_held(struct virtio_blk *blk)
{
    while (blk->held) {
        struct virtio_blk_request *req = blk->held;
        blk->held = req->next;
        request_put(blk, req);
    }
}

/* What is held goes back to its queue. */
void virtio_blk_request_finish_stop(struct virtio_blk *blk)
{
    if (!blk->stopping || blk->under_way)
        return;
    virtio_blk_request_signal(blk);
    release_held(blk);
    virtio_stopped(&blk->virtio);
}

static void finish(struct virtio_blk *blk, struct virtio_blk_request *req, int result)
{
    if (result < 0 && pauses_for(blk, result)) {
        hold(blk, req, result);
    } else {
        uint8_t status = result < 0 ? S_IOERR : S_OK;
        if (result < 0)
            log_failure(blk, req, result, false);
        if (req->committing)
            count(blk, VIRTIO_BLK_FLUSH, 0, status);
        count(blk, req->direction, req->type == T_IN || req->type == T_OUT ? req->io.len : 0, status);
        answer(blk, req, status);
    }
    virtio_blk_request_finish_stop(blk);
}

static void submit(struct virtio_blk *blk, struct virtio_blk_request *req)
{
    blk->under_way++;
    disk_submit(blk->disk, &req->io);
}

static void submit_range(struct virtio_blk *blk, struct virtio_blk_request *req)
{
    const struct virtio_blk_range *r = &req->ranges[req->next_range++];

    req->io.offset = r->sector * DISK_BLOCK_SIZE;
    req->io.len = (uint64_t)r->n_sectors * DISK_BLOCK_SIZE;
    req->io.unmap = r->flags & RANGE_UNMAP;
    submit(blk, req);
}

static void on_done(struct disk_request *io, int result)
{
    struct virtio_blk_request *req = CONTAINER_OF(io, struct virtio_blk_request, io);
    struct virtio_blk *blk = req->blk;

    blk->under_way--;
    if (result == 0 && req->next_range < req->n_ranges && blk->stopping) {
        hold(blk, req, 0); /* to be begun anew: nobody waits for all of them */
        virtio_blk_request_finish_stop(blk);
    } else if (result == 0 && req->next_range < req->n_ranges) {
        submit_range(blk, req);
    } else if (result == 0 && !blk->writeback && io->op != DISK_READ && io->op != DISK_FLUSH && !req->committing) {
        req->committing = true;
        io->op = DISK_FLUSH;
        submit(blk, req);
    } else {
        finish(blk, req, result);
    }
}

/* ---- what the guest asks for ---- */

/* The last byte of what the device writes; takes it off the vectors. NULL: there is none. */
static uint8_t *take_status(struct virtq_elem *elem)
{
    struct iovec *last = elem->n_in ? &elem->in[elem->n_in - 1] : NULL;

    if (!last || !last->iov_len)
        return NULL;
    last->iov_len--;
    if (!last->iov_len)
        elem->n_in--;
    return (uint8_t *)last->iov_base + last->iov_len;
}

static void skip(struct iovec **iov, unsigned *n, size_t len)
{
    while (len && *n) {
        size_t part = len < (*iov)->iov_len ? len : (*iov)->iov_len;
        (*iov)->iov_base = (char *)(*iov)->iov_base + part;
        (*iov)->iov_len -= part;
        len -= part;
        if (!(*iov)->iov_len) {
            ++*iov;
            --*n;
        }
    }
}

/* Whole sectors within the disk. */
static bool in_range(const struct virtio_blk *blk, uint64_t sector, uint64_t len)
{
    uint64_t size = blk->disk->size;

    return len % DISK_BLOCK_SIZE == 0 && sector <= size / DISK_BLOCK_SIZE && len <= size - sector * DISK_BLOCK_SIZE;
}

static uint8_t prepare_transfer(struct virtio_blk *blk, struct virtio_blk_request *req, uint64_t sector)
{
    struct virtq_elem *elem = req->elem;
    bool reads = req->type == T_IN;
    uint64_t len = reads ? elem->in_len - 1 : elem->out_len - HEADER_SIZE;

    if (!in_range(blk, sector, len) || (!reads && blk->disk->read_only))
        return S_IOERR;
    req->direction = reads ? VIRTIO_BLK_READ : VIRTIO_BLK_WRITE;
    req->io.op = reads ? DISK_READ : DISK_WRITE;
    req->io.offset = sector * DISK_BLOCK_SIZE;
    req->io.len = len;
    req->io.iov = reads ? elem->in : elem->out;
    req->io.n_iov = reads ? elem->n_in : elem->n_out;
    return S_OK;
}

/* 5.2.6.2: flags are checked for what the device does not know, with a status of its own. */
static uint8_t check_range(const struct virtio_blk *blk, const struct virtio_blk_request *req,
                           const struct virtio_blk_range *r)
{
    uint32_t known = req->type == T_WRITE_ZEROES ? RANGE_UNMAP : 0;

    if (r->flags & ~known)
        return S_UNSUPP;
    if (r->n_sectors > VIRTIO_BLK_RANGE_SECTORS || !in_range(blk, r->sector, (uint64_t)r->n_sectors * DISK_BLOCK_SIZE))
        return S_IOERR;
    return S_OK;
}

static uint8_t prepare_ranges(struct virtio_blk *blk, struct virtio_blk_request *req)
{
    struct virtq_elem *elem = req->elem;
    uint64_t len = elem->out_len - HEADER_SIZE;

    if (!virtio_has(&blk->virtio, req->type == T_DISCARD ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
        return S_UNSUPP;
    if (blk->disk->read_only || len == 0 || len % RANGE_SIZE || len / RANGE_SIZE > VIRTIO_BLK_RANGES_MAX)
        return S_IOERR;
    req->direction = VIRTIO_BLK_DISCARD;
    req->io.op = req->type == T_DISCARD ? DISK_DISCARD : DISK_ZERO;
    req->n_ranges = (unsigned)(len / RANGE_SIZE);
    for (unsigned i = 0; i < req->n_ranges; i++) {
        uint8_t raw[RANGE_SIZE] = {0};
        iov_read(elem->out, elem->n_out, i * RANGE_SIZE, raw, sizeof(raw));
        req->ranges[i] = (struct virtio_blk_range){
            .sector = load_le64(raw), .n_sectors = load_le32(raw + 8), .flags = load_le32(raw + 12)};
        uint8_t status = check_range(blk, req, &req->ranges[i]);
        if (status != S_OK)
            return status;
    }
    return S_OK;
}

/* S_OK: the disk is to do it. Otherwise that is the answer. */
static uint8_t prepare(struct virtio_blk *blk, struct virtio_blk_request *req, uint64_t sector)
{
    switch (req->type) {
    case T_IN:
    case T_OUT:
        return prepare_transfer(blk, req, sector);
    case T_FLUSH:
        req->direction = VIRTIO_BLK_FLUSH;
        req->io.op = DISK_FLUSH;
        return S_OK;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return prepare_ranges(blk, req);
    default:
        return S_UNSUPP;
    }
}

/* What moves, or is written as zeroes: all that is no mere change of what the image occupies. */
static uint64_t bytes_of(const struct virtio_blk_request *req)
{
    uint64_t bytes = req->type == T_IN || req->type == T_OUT ? req->io.len : 0;

    for (unsigned i = 0; req->type == T_WRITE_ZEROES && i < req->n_ranges; i++)
        if (!(req->ranges[i].flags & RANGE_UNMAP))
            bytes += (uint64_t)req->ranges[i].n_sectors * DISK_BLOCK_SIZE;
    return bytes;
}

/* Whether the limits have the request wait; then they say when to ask again. */
static bool throttles(struct virtio_blk *blk, const struct virtio_blk_request *req)
{
    int64_t when;

    if (!limiter_limits(&blk->limiter) || req->direction == VIRTIO_BLK_FLUSH)
        return false;
    when = limiter_take(&blk->limiter, 1, bytes_of(req), loop_now());
    if (!when)
        return false;
    blk->throttled = true;
    virtio_blk_add(&blk->n_throttled, 1);
    loop_timer_set(&blk->refilled, when);
    return true;
}

/* 5.2.6.1: 20 bytes, those of a shorter one filled up with zeroes. */
static void answer_id(struct virtio_blk *blk, struct virtio_blk_request *req)
{
    iov_write(req->elem->in, req->elem->n_in, 0, blk->serial, sizeof(blk->serial));
    answer(blk, req, S_OK);
}

/* Without clearing the ranges, which are many. */
static void request_init(struct virtio_blk_request *req, struct virtio_blk *blk, unsigned queue,
                         struct virtq_elem *elem)
{
    req->io = (struct disk_request){.done = on_done};
    req->blk = blk;
    req->elem = elem;
    req->queue = queue;
    req->direction = VIRTIO_BLK_READ;
    req->committing = false;
    req->n_ranges = req->next_range = 0;
}

/* false: the limits do not allow for it yet, and the chain went back. */
static bool begin(struct virtio_blk *blk, struct virtio_blk_request *req, unsigned queue, struct virtq_elem *elem)
{
    uint8_t header[HEADER_SIZE];

    request_init(req, blk, queue, elem);
    if (iov_read(elem->out, elem->n_out, 0, header, sizeof(header)) < sizeof(header) ||
        !(req->status = take_status(elem))) {
        virtq_break(elem->queue, "a request without header or status");
        request_put(blk, req);
        return true;
    }
    skip(&elem->out, &elem->n_out, HEADER_SIZE);
    req->type = load_le32(header);
    if (req->type == T_GET_ID) {
        answer_id(blk, req);
        return true;
    }
    uint8_t status = prepare(blk, req, load_le64(header + 8));
    if (status != S_OK) {
        count(blk, req->type == T_OUT ? VIRTIO_BLK_WRITE : req->direction, 0, status);
        answer(blk, req, status);
        return true;
    }
    if (throttles(blk, req)) {
        virtq_unpop(elem->queue, elem);
        request_put(blk, req);
        return false;
    }
    if (req->n_ranges)
        submit_range(blk, req);
    else
        submit(blk, req);
    return true;
}

void virtio_blk_request_serve(struct virtio_blk *blk, unsigned n)
{
    struct virtq *q = blk->virtio.queues[n];

    do {
        virtq_disable_notify(q);
        for (;;) {
            struct virtio_blk_request *req = request_get(blk);
            struct virtq_elem *elem = req ? virtq_pop(q) : NULL;
            if (!req)
                virtq_break(q, "out of memory");
            else if (!elem)
                request_put(blk, req);
            if (!elem)
                break;
            if (!begin(blk, req, n, elem))
                return;
        }
    } while (virtq_enable_notify(q));
}

void virtio_blk_request_free(struct virtio_blk *blk)
{
    release_held(blk);
    while (blk->free) {
        struct virtio_blk_request *req = blk->free;
        blk->free = req->next;
        free(req);
    }
}
