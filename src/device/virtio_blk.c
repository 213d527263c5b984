#include "device/virtio_blk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/limiter.h"
#include "base/log.h"

/* 5.2.3 */
#define F_SEG_MAX      (UINT64_C(1) << 2)
#define F_RO           (UINT64_C(1) << 5)
#define F_BLK_SIZE     (UINT64_C(1) << 6)
#define F_FLUSH        (UINT64_C(1) << 9)
#define F_TOPOLOGY     (UINT64_C(1) << 10)
#define F_CONFIG_WCE   (UINT64_C(1) << 11)
#define F_MQ           (UINT64_C(1) << 12)
#define F_DISCARD      (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)

/* 5.2.4: offsets in the configuration space. */
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_BLOCK_EXP = 24,
    CONFIG_MIN_IO_SIZE = 26,
    CONFIG_WRITEBACK = 32,
    CONFIG_NUM_QUEUES = 34,
    CONFIG_MAX_DISCARD_SECTORS = 36,
    CONFIG_MAX_DISCARD_SEG = 40,
    CONFIG_DISCARD_SECTOR_ALIGNMENT = 44,
    CONFIG_MAX_WRITE_ZEROES_SECTORS = 48,
    CONFIG_MAX_WRITE_ZEROES_SEG = 52,
    CONFIG_WRITE_ZEROES_MAY_UNMAP = 56,
    CONFIG_LEN = 60,
};

/* 5.2.6 */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { RANGE_UNMAP = 1 << 0 };

#define QUEUE_SIZE    256
#define HEADER_SIZE   16
#define RANGE_SIZE    16
#define RANGES_MAX    16
#define RANGE_SECTORS (UINT32_C(1) << 21) /* 1 GiB: what one may take of a worker's time */
#define LOG_INTERVAL  (10 * NS_PER_SEC)

struct range {
    uint64_t sector;
    uint32_t n_sectors, flags;
};

/* One chain, while the disk is at it. */
struct request {
    struct disk_request io;
    struct virtio_blk *blk;
    struct virtq_elem *elem;
    unsigned queue;
    uint8_t *status; /* the guest's byte */
    uint32_t type;
    enum virtio_blk_direction direction;
    bool committing; /* the flush behind a write, where there is no write cache */
    struct range ranges[RANGES_MAX];
    unsigned n_ranges, next_range;
    struct request *next; /* in a list of free or failed ones */
};

struct count {
    _Atomic uint64_t operations, bytes, errors;
};

struct virtio_blk {
    struct virtio virtio;
    struct virtio_blk_conf conf;
    struct disk *disk;
    char serial[DISK_SERIAL_MAX];

    struct request *free;
    struct request *held; /* for another try after the next start */
    unsigned under_way;   /* at the disk */
    bool stopping;
    bool asked;     /* for a pause, since the start */
    bool writeback; /* there is a write cache */
    int64_t logged_ns;

    struct limiter limiter;
    struct loop_timer refilled;
    bool throttled; /* until refilled */

    uint64_t to_signal; /* queues with chains pushed */
    struct loop_event signal;

    struct count counts[VIRTIO_BLK_DIRECTIONS];
    _Atomic uint64_t n_throttled;
};

static struct virtio_blk *blk_of(struct virtio *v)
{
    return CONTAINER_OF(v, struct virtio_blk, virtio);
}

/* One thread writes it. */
static void add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- requests ---- */

static struct request *request_get(struct virtio_blk *blk)
{
    struct request *req = blk->free;

    if (req)
        blk->free = req->next;
    else
        req = malloc(sizeof(*req));
    return req;
}

static void request_put(struct virtio_blk *blk, struct request *req)
{
    req->next = blk->free;
    blk->free = req;
}

static void signal_queues(void *opaque)
{
    struct virtio_blk *blk = opaque;
    uint64_t queues = blk->to_signal;

    blk->to_signal = 0;
    for (; queues; queues &= queues - 1)
        virtq_signal(blk->virtio.queues[__builtin_ctzll(queues)]);
}

/* The chain goes back to the guest, which hears of it when this batch is done. */
static void answer(struct virtio_blk *blk, struct request *req, uint8_t status)
{
    blk->to_signal |= UINT64_C(1) << req->queue;
    loop_event_set(&blk->signal);
    *req->status = status;
    virtq_push(req->elem->queue, req->elem, (uint32_t)req->elem->in_len);
    request_put(blk, req);
}

static void count(struct virtio_blk *blk, enum virtio_blk_direction direction, uint64_t bytes, uint8_t status)
{
    struct count *c = &blk->counts[direction];

    if (status != S_OK) {
        add(&c->errors, 1);
        return;
    }
    add(&c->operations, 1);
    add(&c->bytes, bytes);
}

static void log_failure(struct virtio_blk *blk, const struct request *req, int error, bool pauses)
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
static void hold(struct virtio_blk *blk, struct request *req, int error)
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
        struct request *req = blk->held;
        blk->held = req->next;
        request_put(blk, req);
    }
}

/* What is held goes back to its queue. */
static void finish_stop(struct virtio_blk *blk)
{
    if (!blk->stopping || blk->under_way)
        return;
    signal_queues(blk);
    release_held(blk);
    virtio_stopped(&blk->virtio);
}

static void finish(struct virtio_blk *blk, struct request *req, int result)
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
    finish_stop(blk);
}

static void submit(struct virtio_blk *blk, struct request *req)
{
    blk->under_way++;
    disk_submit(blk->disk, &req->io);
}

static void submit_range(struct virtio_blk *blk, struct request *req)
{
    const struct range *r = &req->ranges[req->next_range++];

    req->io.offset = r->sector * DISK_BLOCK_SIZE;
    req->io.len = (uint64_t)r->n_sectors * DISK_BLOCK_SIZE;
    req->io.unmap = r->flags & RANGE_UNMAP;
    submit(blk, req);
}

static void on_done(struct disk_request *io, int result)
{
    struct request *req = CONTAINER_OF(io, struct request, io);
    struct virtio_blk *blk = req->blk;

    blk->under_way--;
    if (result == 0 && req->next_range < req->n_ranges && blk->stopping) {
        hold(blk, req, 0); /* to be begun anew: nobody waits for all of them */
        finish_stop(blk);
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

static uint8_t prepare_transfer(struct virtio_blk *blk, struct request *req, uint64_t sector)
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
static uint8_t check_range(const struct virtio_blk *blk, const struct request *req, const struct range *r)
{
    uint32_t known = req->type == T_WRITE_ZEROES ? RANGE_UNMAP : 0;

    if (r->flags & ~known)
        return S_UNSUPP;
    if (r->n_sectors > RANGE_SECTORS || !in_range(blk, r->sector, (uint64_t)r->n_sectors * DISK_BLOCK_SIZE))
        return S_IOERR;
    return S_OK;
}

static uint8_t prepare_ranges(struct virtio_blk *blk, struct request *req)
{
    struct virtq_elem *elem = req->elem;
    uint64_t len = elem->out_len - HEADER_SIZE;

    if (!virtio_has(&blk->virtio, req->type == T_DISCARD ? F_DISCARD : F_WRITE_ZEROES))
        return S_UNSUPP;
    if (blk->disk->read_only || len == 0 || len % RANGE_SIZE || len / RANGE_SIZE > RANGES_MAX)
        return S_IOERR;
    req->direction = VIRTIO_BLK_DISCARD;
    req->io.op = req->type == T_DISCARD ? DISK_DISCARD : DISK_ZERO;
    req->n_ranges = (unsigned)(len / RANGE_SIZE);
    for (unsigned i = 0; i < req->n_ranges; i++) {
        uint8_t raw[RANGE_SIZE] = {0};
        iov_read(elem->out, elem->n_out, i * RANGE_SIZE, raw, sizeof(raw));
        req->ranges[i] =
            (struct range){.sector = load_le64(raw), .n_sectors = load_le32(raw + 8), .flags = load_le32(raw + 12)};
        uint8_t status = check_range(blk, req, &req->ranges[i]);
        if (status != S_OK)
            return status;
    }
    return S_OK;
}

/* S_OK: the disk is to do it. Otherwise that is the answer. */
static uint8_t prepare(struct virtio_blk *blk, struct request *req, uint64_t sector)
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

/* Whether the limits have the request wait; then they say when to ask again. */
static bool throttles(struct virtio_blk *blk, const struct request *req)
{
    uint64_t bytes = req->type == T_IN || req->type == T_OUT ? req->io.len : 0;
    int64_t when;

    if (!limiter_limits(&blk->limiter) || req->direction == VIRTIO_BLK_FLUSH)
        return false;
    when = limiter_take(&blk->limiter, 1, bytes, loop_now());
    if (!when)
        return false;
    blk->throttled = true;
    add(&blk->n_throttled, 1);
    loop_timer_set(&blk->refilled, when);
    return true;
}

/* 5.2.6.1: 20 bytes, those of a shorter one filled up with zeroes. */
static void answer_id(struct virtio_blk *blk, struct request *req)
{
    iov_write(req->elem->in, req->elem->n_in, 0, blk->serial, sizeof(blk->serial));
    answer(blk, req, S_OK);
}

/* Without clearing the ranges, which are many. */
static void request_init(struct request *req, struct virtio_blk *blk, unsigned queue, struct virtq_elem *elem)
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
static bool begin(struct virtio_blk *blk, struct request *req, unsigned queue, struct virtq_elem *elem)
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

static void serve(struct virtio_blk *blk, unsigned n)
{
    struct virtq *q = blk->virtio.queues[n];

    do {
        virtq_disable_notify(q);
        for (;;) {
            struct request *req = request_get(blk);
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

static void notify(struct virtio *v, unsigned n)
{
    struct virtio_blk *blk = blk_of(v);

    if (!blk->throttled)
        serve(blk, n);
}

static void on_refilled(void *opaque)
{
    struct virtio_blk *blk = opaque;

    blk->throttled = false;
    if (blk->stopping || !virtio_running(&blk->virtio))
        return;
    for (unsigned i = 0; i < blk->virtio.n_queues && !blk->throttled; i++)
        if (virtio_queue_enabled(&blk->virtio, i))
            serve(blk, i);
}

/* ---- life ---- */

/* 5.2.5.2: without FLUSH a write is done when it is durable; with CONFIG_WCE the guest chooses. */
static void look_at_cache(struct virtio_blk *blk)
{
    uint8_t writeback = 1;

    if (virtio_has(&blk->virtio, F_CONFIG_WCE))
        virtio_config_get(&blk->virtio, CONFIG_WRITEBACK, &writeback, 1);
    else
        writeback = virtio_has(&blk->virtio, F_FLUSH);
    blk->writeback = writeback & 1;
}

static void start(struct virtio *v)
{
    struct virtio_blk *blk = blk_of(v);

    blk->stopping = blk->asked = blk->throttled = false;
    look_at_cache(blk);
}

static void stop(struct virtio *v)
{
    struct virtio_blk *blk = blk_of(v);

    blk->stopping = true;
    loop_timer_cancel(&blk->refilled);
    finish_stop(blk);
}

static void config_written(struct virtio *v, unsigned off, unsigned len)
{
    look_at_cache(blk_of(v));
}

static void set_cache(struct virtio_blk *blk)
{
    const uint8_t on = 1;
    virtio_config_put(&blk->virtio, CONFIG_WRITEBACK, &on, 1);
}

static void reset(struct virtio *v)
{
    set_cache(blk_of(v));
}

static void put16(struct virtio_blk *blk, unsigned off, uint16_t val)
{
    virtio_config_put(&blk->virtio, off, &val, sizeof(val));
}

static void put32(struct virtio_blk *blk, unsigned off, uint32_t val)
{
    virtio_config_put(&blk->virtio, off, &val, sizeof(val));
}

static void put_capacity(struct virtio_blk *blk)
{
    uint64_t capacity = blk->disk->size / DISK_BLOCK_SIZE;
    virtio_config_put(&blk->virtio, CONFIG_CAPACITY, &capacity, sizeof(capacity));
}

static void set_up(struct virtio_blk *blk)
{
    struct virtio *v = &blk->virtio;
    const uint8_t physical_block_exp = 3, may_unmap = blk->disk->discard, zeroes[CONFIG_LEN] = {0};

    v->features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE;
    v->features |= v->n_queues > 1 ? F_MQ : 0;
    v->features |= blk->disk->read_only ? F_RO : F_WRITE_ZEROES;
    v->features |= blk->disk->read_only || !blk->disk->discard ? 0 : F_DISCARD;
    virtio_config_put(v, 0, zeroes, sizeof(zeroes));
    put_capacity(blk);
    put32(blk, CONFIG_SEG_MAX, QUEUE_SIZE - 2);
    put32(blk, CONFIG_BLK_SIZE, DISK_BLOCK_SIZE);
    virtio_config_put(v, CONFIG_PHYSICAL_BLOCK_EXP, &physical_block_exp, 1);
    put16(blk, CONFIG_MIN_IO_SIZE, 1 << physical_block_exp);
    put16(blk, CONFIG_NUM_QUEUES, (uint16_t)v->n_queues);
    put32(blk, CONFIG_MAX_DISCARD_SECTORS, RANGE_SECTORS);
    put32(blk, CONFIG_MAX_DISCARD_SEG, RANGES_MAX);
    put32(blk, CONFIG_DISCARD_SECTOR_ALIGNMENT, 1 << physical_block_exp);
    put32(blk, CONFIG_MAX_WRITE_ZEROES_SECTORS, RANGE_SECTORS);
    put32(blk, CONFIG_MAX_WRITE_ZEROES_SEG, RANGES_MAX);
    virtio_config_put(v, CONFIG_WRITE_ZEROES_MAY_UNMAP, &may_unmap, 1);
    virtio_config_writable(v, CONFIG_WRITEBACK, 1);
    set_cache(blk);
}

struct call {
    struct virtio_blk *blk;
    uint64_t size;
    struct err *err;
    int result;
};

static void do_open(void *opaque)
{
    struct call *call = opaque;
    struct virtio_blk *blk = call->blk;
    struct disk_conf conf;

    disk_spec_conf(&blk->conf.spec, &conf);
    call->result = disk_open(&blk->disk, &conf, blk->virtio.io->loop, call->err);
}

static int open_blk(struct virtio *v, const void *opaque, struct err *err)
{
    struct virtio_blk *blk = blk_of(v);
    struct call call = {.blk = blk, .err = err};
    const struct disk_spec *spec = &blk->conf.spec;

    blk->conf = *(const struct virtio_blk_conf *)opaque;
    const char *serial = *spec->serial ? spec->serial : v->name;
    memcpy(blk->serial, serial, strnlen(serial, sizeof(blk->serial)));
    iothread_call(v->io, do_open, &call);
    if (call.result < 0)
        return call.result;
    v->n_queues = spec->queues ? (unsigned)spec->queues : 1;
    if (v->n_queues > VIRTIO_MAX_QUEUES)
        v->n_queues = VIRTIO_MAX_QUEUES;
    v->queue_size = QUEUE_SIZE;
    limiter_init(&blk->limiter, spec->iops, spec->iops_burst, spec->bps, spec->bps_burst);
    loop_timer_init(&blk->refilled, v->io->loop, on_refilled, blk);
    loop_event_init(&blk->signal, v->io->loop, signal_queues, blk);
    set_up(blk);
    return 0;
}

static void do_close(void *opaque)
{
    struct virtio_blk *blk = opaque;

    loop_timer_cancel(&blk->refilled);
    loop_event_fini(&blk->signal);
    disk_close(blk->disk);
}

static void close_blk(struct virtio *v)
{
    struct virtio_blk *blk = blk_of(v);

    iothread_call(v->io, do_close, blk);
    release_held(blk);
    while (blk->free) {
        struct request *req = blk->free;
        blk->free = req->next;
        free(req);
    }
}

const struct virtio_type virtio_blk_type = {
    .name = "virtio-blk",
    .id = 2,
    .pci_class = 0x010000,
    .size = sizeof(struct virtio_blk),
    .open = open_blk,
    .start = start,
    .notify = notify,
    .stop = stop,
    .config_written = config_written,
    .reset = reset,
    .close = close_blk,
};

/* ---- from other threads ---- */

void virtio_blk_stats(struct device *dev, struct virtio_blk_stats *stats)
{
    struct virtio_blk *blk = blk_of(virtio_pci_of(dev));

    for (unsigned i = 0; i < VIRTIO_BLK_DIRECTIONS; i++)
        stats->by[i] = (struct virtio_blk_count){
            .operations = blk->counts[i].operations, .bytes = blk->counts[i].bytes, .errors = blk->counts[i].errors};
    stats->throttled = blk->n_throttled;
}

uint64_t virtio_blk_size(struct device *dev)
{
    uint64_t capacity;

    virtio_config_get(virtio_pci_of(dev), CONFIG_CAPACITY, &capacity, sizeof(capacity));
    return capacity * DISK_BLOCK_SIZE;
}

static void do_resize(void *opaque)
{
    struct call *call = opaque;

    call->result = disk_resize(call->blk->disk, call->size, call->err);
    if (call->result == 0)
        put_capacity(call->blk);
}

int virtio_blk_resize(struct device *dev, uint64_t size, struct err *err)
{
    struct virtio_blk *blk = blk_of(virtio_pci_of(dev));
    struct call call = {.blk = blk, .size = size, .err = err};

    virtio_pci_pause(dev);
    iothread_call(blk->virtio.io, do_resize, &call);
    virtio_pci_resume(dev);
    if (call.result == 0)
        virtio_config_changed(&blk->virtio);
    return call.result;
}
