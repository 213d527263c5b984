/*
 * The work is cut into items, each a run of zeroes or a chunk of data, that go through a fixed number of slots. A slot with data has a buffer: it reads,
 * then writes run by run what the buffer holds, data or zeroes. All that happens is done by the event `work`; requests that are done only note their
 * result and set it, so that nothing is called from within a disk.
 */
#include "image/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "disk/disk_info.h"
#include "image/extents.h"
#include "image/zero.h"

#define DEPTH       16
#define DEPTH_FIRST 4 /* as many at first: what they hold then stays in a CPU's own cache from the read to the write */
#define LATE        (2 * NS_PER_MS) /* a request that took longer was not a copy from memory to memory: more of them help */
#define CHUNK       (256 * KIB)
#define GRANULE     4096       /* what is looked at for zeroes, at least: a block of most file systems */
#define GRANULE_MAX (64 * KIB) /* at most: larger clusters need not be written whole */
#define ZERO_MOST   (256 * MIB)

enum slot_state { SLOT_FREE, SLOT_BUSY, SLOT_BACK };

struct slot {
    struct image_copy *c;
    enum slot_state state;
    int result;
    bool data;
    uint64_t offset, len; /* of the item */
    uint64_t at;          /* before it, in the item, all is written */
    int64_t begun;        /* when the request was submitted */
    struct disk_request req;
    struct iovec iov;
    uint8_t *buf; /* conf.chunk bytes, when it has had data once */
};

struct image_copy {
    struct image_copy_conf conf;
    void (*done)(void *opaque, int result, const struct err *err);
    void *opaque;
    struct loop_event work;
    struct image_extents extents;
    size_t granule;  /* of zeroes, and what data is cut at */
    size_t align;    /* of an item's ends: a cluster, where compressed */
    uint64_t pos;    /* up to here there are items */
    uint64_t copied; /* bytes of items with data that are done */
    uint64_t total;  /* bytes but for those that are known to need no copying */
    unsigned under_way;
    bool flushing;
    int result;
    struct err err;
    struct disk_request flush;
    unsigned n_slots, n_used; /* used: from the first on; grows to n_slots while requests are late */
    struct slot slots[];
};

static void fail(struct image_copy *c, int result, const char *doing, const struct disk *disk, uint64_t offset)
{
    if (!c->result)
        c->result = err_set(&c->err, result, "%s '%.200s' at offset %" PRIu64 ": %s", doing, disk->path, offset,
                            strerror(-result));
}

static void back(struct disk_request *req, int result)
{
    struct slot *s = req->opaque;

    s->state = SLOT_BACK;
    s->result = result;
    if (s->c->n_used < s->c->n_slots && loop_now() - s->begun > LATE)
        s->c->n_used++;
    loop_event_set(&s->c->work);
}

static void submit(struct slot *s, enum disk_op op, uint64_t at, uint64_t len)
{
    struct image_copy *c = s->c;

    s->state = SLOT_BUSY;
    s->begun = loop_now();
    s->iov = (struct iovec){s->buf ? s->buf + at : NULL, len};
    s->req = (struct disk_request){.op = op,
                                   .unmap = op == DISK_ZERO,
                                   .compress = op == DISK_WRITE && c->conf.compress,
                                   .offset = s->offset + at,
                                   .len = len,
                                   .iov = &s->iov,
                                   .n_iov = op != DISK_ZERO,
                                   .done = back,
                                   .opaque = s};
    disk_submit(op == DISK_READ ? c->conf.from : c->conf.to, &s->req);
}

/* ---- items ---- */

/* Nothing is to be done for what is no data. */
static bool is_skipped(const struct image_copy *c, enum disk_extent_kind kind)
{
    return c->conf.to_is_zero || (kind == DISK_EXTENT_HOLE && c->conf.skip_holes);
}

/* The next item: 0; 1: there are no more; -EAGAIN: later; or an error. */
static int next_item(struct image_copy *c, bool *data, uint64_t *offset, uint64_t *len)
{
    uint64_t size = c->conf.from->size, end;
    enum disk_extent_kind kind;

    while (c->pos < size) {
        int r = image_extents_at(&c->extents, c->pos, &kind, &end);
        if (r)
            return r;
        *data = kind == DISK_EXTENT_DATA;
        if (end > size)
            end = size;
        if (!*data && end < size)
            end = align_down(end, c->align);
        if (!*data && end <= c->pos) { /* a cluster that is partly data */
            *data = true;
            end = c->pos + c->align;
        }
        if (*data) {
            uint64_t limit = align_down(c->pos, c->conf.chunk) + c->conf.chunk;
            end = align_up(end, c->align);
            end = end < limit ? end : limit;
            end = end < size ? end : size;
        } else if (!is_skipped(c, kind) && end - c->pos > ZERO_MOST) {
            end = c->pos + ZERO_MOST;
        }
        *offset = c->pos;
        *len = end - c->pos;
        c->pos = end;
        if (*data)
            return 0;
        c->total -= *len;
        if (!is_skipped(c, kind))
            return 0;
    }
    return 1;
}

static bool start_item(struct image_copy *c, struct slot *s)
{
    int r = next_item(c, &s->data, &s->offset, &s->len);

    if (r == 0 && s->data && !s->buf) {
        s->buf = aligned_alloc(GRANULE, align_up(c->conf.chunk, GRANULE));
        if (!s->buf)
            r = -ENOMEM;
    }
    if (r < 0 && r != -EAGAIN)
        fail(c, r, "reading", c->conf.from, c->pos);
    if (r)
        return false;
    c->under_way++;
    s->at = 0;
    submit(s, s->data ? DISK_READ : DISK_ZERO, 0, s->len);
    return true;
}

/* ---- slots ---- */

/* The next run of what was read; false: all of it is written. */
static bool write_run(struct slot *s)
{
    struct image_copy *c = s->c;
    bool zero;

    while (s->at < s->len) {
        uint64_t at = s->at, offset = s->offset + at;
        /* Runs end where granules of the disk do. */
        size_t first = (size_t)(align_down(offset, c->granule) + c->granule - offset);
        first = first < s->len - at ? first : (size_t)(s->len - at);
        size_t n = first;
        zero = zero_all(s->buf + at, first);
        if (at + n < s->len && !(c->conf.compress && !zero)) { /* compressed is one cluster at a time */
            bool rest_zero;
            size_t rest = zero_run(s->buf + at + n, s->len - at - n, c->granule, &rest_zero);
            n += rest_zero == zero ? rest : 0;
        }
        s->at += n;
        if (zero && c->conf.to_is_zero)
            continue;
        submit(s, zero ? DISK_ZERO : DISK_WRITE, at, n);
        return true;
    }
    return false;
}

static void go_on(struct slot *s)
{
    struct image_copy *c = s->c;

    if (s->result)
        fail(c, s->result, s->req.op == DISK_READ ? "reading" : "writing",
             s->req.op == DISK_READ ? c->conf.from : c->conf.to, s->req.offset);
    if (!c->result && s->data && write_run(s))
        return;
    s->state = SLOT_FREE;
    c->under_way--;
    if (c->result)
        return;
    c->copied += s->data ? s->len : 0;
    c->result = image_job_report(c->conf.job, c->copied, c->total, &c->err);
}

static void flushed(struct disk_request *req, int result)
{
    struct image_copy *c = req->opaque;

    if (result && !c->result)
        c->result = err_set(&c->err, result, "writing '%.200s': %s", c->conf.to->path, strerror(-result));
    loop_event_set(&c->work);
}

static void destroy(struct image_copy *c)
{
    loop_event_fini(&c->work);
    image_extents_fini(&c->extents);
    for (unsigned i = 0; i < c->n_slots; i++)
        free(c->slots[i].buf);
    free(c);
}

static void finish(struct image_copy *c)
{
    if (!c->flushing && !c->result) {
        c->flushing = true;
        c->flush = (struct disk_request){.op = DISK_FLUSH, .done = flushed, .opaque = c};
        disk_submit(c->conf.to, &c->flush);
        return;
    }
    void (*done)(void *opaque, int result, const struct err *err) = c->done;
    void *opaque = c->opaque;
    struct err err = c->err;
    int result = c->result;
    destroy(c);
    done(opaque, result, &err);
}

static void work(void *opaque)
{
    struct image_copy *c = opaque;
    bool more = true;

    if (c->flushing) {
        finish(c);
        return;
    }
    for (unsigned i = 0; i < c->n_used; i++) {
        struct slot *s = &c->slots[i];
        if (s->state == SLOT_BACK)
            go_on(s);
        if (s->state == SLOT_FREE && more && !c->result)
            more = start_item(c, s);
    }
    if (!c->under_way && !c->extents.busy && (c->result || c->pos >= c->conf.from->size))
        finish(c);
}

/* ---- from outside ---- */

static void map_ready(void *opaque)
{
    struct image_copy *c = opaque;
    loop_event_set(&c->work);
}

static int check(const struct image_copy *c, struct err *err)
{
    const struct image_copy_conf *conf = &c->conf;

    if (conf->to->size < conf->from->size)
        return err_set(err, -ENOSPC, "disk '%.200s' has %" PRIu64 " bytes, fewer than the %" PRIu64 " of '%.200s'",
                       conf->to->path, conf->to->size, conf->from->size, conf->from->path);
    if (conf->chunk % c->align)
        return err_set(err, -EINVAL, "disk '%.200s': chunks of %zu bytes; accepted are multiples of %zu",
                       conf->to->path, conf->chunk, c->align);
    return 0;
}

int image_copy_start(struct image_copy **out, const struct image_copy_conf *conf,
                     void (*done)(void *opaque, int result, const struct err *err), void *opaque)
{
    unsigned depth = conf->depth ? conf->depth : DEPTH;
    struct image_copy *c = calloc(1, sizeof(*c) + depth * sizeof(c->slots[0]));
    struct disk_info info;

    *out = NULL;
    if (!c)
        return -ENOMEM;
    if (image_extents_init(&c->extents, conf->from, conf->layers, map_ready, c) < 0) {
        free(c);
        return -ENOMEM;
    }
    disk_info_get(conf->to, &info);
    c->conf = *conf;
    c->conf.chunk = conf->chunk ? conf->chunk : conf->compress && info.cluster_size > CHUNK ? info.cluster_size : CHUNK;
    c->done = done;
    c->opaque = opaque;
    c->granule = info.cluster_size < GRANULE ? GRANULE : info.cluster_size;
    c->granule = c->granule > GRANULE_MAX ? GRANULE_MAX : c->granule;
    c->align = DISK_BLOCK_SIZE;
    if (conf->compress)
        c->align = c->granule = info.cluster_size ? info.cluster_size : GRANULE;
    c->total = conf->from->size;
    c->n_slots = depth;
    c->n_used = depth < DEPTH_FIRST || conf->compress ? depth : DEPTH_FIRST;
    for (unsigned i = 0; i < depth; i++)
        c->slots[i].c = c;
    loop_event_init(&c->work, conf->from->loop, work, c);
    c->result = check(c, &c->err);
    loop_event_set(&c->work);
    *out = c;
    return 0;
}

void image_copy_cancel(struct image_copy *c)
{
    if (!c->result)
        c->result = err_set(&c->err, -EINTR, "interrupted");
    loop_event_set(&c->work);
}

struct call {
    struct loop *loop;
    int result;
    struct err *err;
};

static void call_done(void *opaque, int result, const struct err *err)
{
    struct call *call = opaque;

    call->result = result;
    if (result && call->err)
        *call->err = *err;
    loop_stop(call->loop);
}

int image_copy(const struct image_copy_conf *conf, struct err *err)
{
    struct call call = {.loop = conf->from->loop, .err = err};
    struct image_copy *copy;

    if (image_copy_start(&copy, conf, call_done, &call) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    loop_run(call.loop);
    return call.result;
}
