#include "image/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define ALIGNMENT    4096
#define FILL         0xa5
#define REPORT_EVERY 1024 /* requests */

struct slot {
    struct bench *b;
    struct disk_request req;
    struct iovec iov;
    bool busy;
};

struct bench {
    const struct image_bench_conf *conf;
    uint64_t begun, done, next, seed;
    unsigned under_way;
    uint64_t to_flush; /* requests that began since the last flush */
    bool flushing;
    struct disk_request flush;
    uint64_t flushes;
    int result;
    struct err *err;
    struct slot slots[];
};

static void fail(struct bench *b, int result, uint64_t offset)
{
    if (!b->result)
        b->result = err_set(b->err, result, "disk '%.200s', at offset %" PRIu64 ": %s", b->conf->disk->path, offset,
                            strerror(-result));
}

/* Where the next request goes. */
static uint64_t advance(struct bench *b)
{
    const struct image_bench_conf *conf = b->conf;
    uint64_t at = b->next, size = conf->disk->size;

    if (conf->step) {
        b->next = (b->next + conf->step) % size;
        return at > size - conf->block ? size - conf->block : at;
    }
    b->seed = b->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (b->seed >> 24) % (size / conf->block) * conf->block;
}

static void start(struct slot *s);

static void go_on(struct bench *b)
{
    for (unsigned i = 0; i < b->conf->depth; i++)
        if (!b->slots[i].busy)
            start(&b->slots[i]);
    if (!b->under_way && !b->flushing)
        loop_stop(b->conf->disk->loop);
}

static void flushed(struct disk_request *req, int result)
{
    struct bench *b = req->opaque;

    b->flushing = false;
    b->flushes++;
    if (result)
        fail(b, result, 0);
    go_on(b);
}

static void submit_flush(struct bench *b)
{
    b->to_flush = 0;
    b->flushing = true;
    b->flush = (struct disk_request){.op = DISK_FLUSH, .done = flushed, .opaque = b};
    disk_submit(b->conf->disk, &b->flush);
}

static void done(struct disk_request *req, int result)
{
    struct slot *s = req->opaque;
    struct bench *b = s->b;

    s->busy = false;
    b->under_way--;
    b->done++;
    if (result)
        fail(b, result, req->offset);
    if (b->done % REPORT_EVERY == 0 && !b->result)
        b->result = image_job_report(b->conf->job, b->done * b->conf->block, b->conf->count * b->conf->block, b->err);
    start(s);
    if (b->under_way || b->flushing)
        return;
    if (b->conf->flush_every && b->to_flush >= b->conf->flush_every && !b->result)
        submit_flush(b);
    else
        loop_stop(b->conf->disk->loop);
}

static void start(struct slot *s)
{
    struct bench *b = s->b;
    const struct image_bench_conf *conf = b->conf;

    if (b->result || b->flushing || b->begun == conf->count || (conf->flush_every && b->to_flush >= conf->flush_every))
        return;
    b->begun++;
    b->to_flush++;
    b->under_way++;
    s->busy = true;
    s->req = (struct disk_request){.op = conf->op,
                                   .offset = advance(b),
                                   .len = conf->block,
                                   .iov = &s->iov,
                                   .n_iov = conf->op != DISK_DISCARD,
                                   .done = done,
                                   .opaque = s};
    disk_submit(conf->disk, &s->req);
}

static int check(const struct image_bench_conf *conf, struct err *err)
{
    if (!conf->block || conf->block % DISK_BLOCK_SIZE || conf->block > conf->disk->size)
        return err_set(err, -EINVAL,
                       "blocks of %" PRIu64 " bytes: accepted are multiples of %d up to the disk's %" PRIu64,
                       conf->block, DISK_BLOCK_SIZE, conf->disk->size);
    if (conf->step % DISK_BLOCK_SIZE || conf->offset % DISK_BLOCK_SIZE || conf->offset > conf->disk->size - conf->block)
        return err_set(err, -EINVAL,
                       "offset %" PRIu64 ", step %" PRIu64 ": accepted are multiples of %d within the disk",
                       conf->offset, conf->step, DISK_BLOCK_SIZE);
    return 0;
}

int image_bench(const struct image_bench_conf *conf, struct image_bench_result *result, struct err *err)
{
    int r = check(conf, err);
    struct bench *b = calloc(1, sizeof(*b) + conf->depth * sizeof(b->slots[0]));
    size_t room = conf->op == DISK_DISCARD ? 0 : align_up(conf->block, ALIGNMENT);
    uint8_t *buf = r == 0 && room ? aligned_alloc(ALIGNMENT, room * conf->depth) : NULL;

    if (r == 0 && (!b || (room && !buf)))
        r = err_set(err, -ENOMEM, "out of memory: %u requests of %" PRIu64 " bytes at once", conf->depth, conf->block);
    if (r < 0) {
        free(b);
        return r;
    }
    b->conf = conf;
    b->err = err;
    b->next = conf->offset;
    b->seed = 1;
    for (unsigned i = 0; i < conf->depth; i++) {
        b->slots[i].b = b;
        b->slots[i].iov = (struct iovec){buf + i * room, conf->block};
    }
    if (buf)
        memset(buf, FILL, room * conf->depth);
    int64_t begin = loop_now();
    go_on(b);
    loop_run(conf->disk->loop);
    *result = (struct image_bench_result){.ns = loop_now() - begin, .flushes = b->flushes};
    r = b->result;
    free(buf);
    free(b);
    return r;
}
