/*
 * As copy.c: items go through slots, and all happens in one event. Items begin in order, so that once a difference is found only those under way can
 * hold an earlier one.
 */
#include "image/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "image/extents.h"
#include "image/zero.h"

#define DEPTH     16
#define CHUNK     (256 * KIB)
#define ALIGNMENT 4096

struct side {
    struct slot *slot;
    bool data;
    uint8_t *buf;
    struct disk_request req;
    struct iovec iov;
};

struct slot {
    struct compare *c;
    uint64_t offset, len;
    unsigned pending;
    bool back;
    int result;
    struct side sides[2];
};

struct compare {
    const struct image_compare_conf *conf;
    struct disk *disks[2];
    struct loop_event work;
    struct image_extents extents[2];
    uint64_t pos, size; /* of the longer */
    uint64_t done, total;
    unsigned under_way, n_slots;
    struct image_compare_result found;
    int result;
    struct err *err;
    struct slot slots[];
};

static void note(struct compare *c, enum image_difference difference, uint64_t offset)
{
    if (c->found.difference == IMAGE_SAME || offset < c->found.offset)
        c->found = (struct image_compare_result){difference, offset};
}

static void fail(struct compare *c, int result, const struct disk *disk, uint64_t offset)
{
    if (!c->result)
        c->result = err_set(c->err, result, "reading '%.200s' at offset %" PRIu64 ": %s", disk->path, offset,
                            strerror(-result));
}

static bool over(const struct compare *c)
{
    return c->result || c->found.difference != IMAGE_SAME;
}

/* ---- items ---- */

/* What one side has at c->pos, until *end at least. */
static int look(struct compare *c, unsigned i, bool *data, uint64_t *end)
{
    enum disk_extent_kind kind;

    if (c->pos >= c->disks[i]->size) {
        *data = false;
        *end = c->size;
        return 0;
    }
    int r = image_extents_at(&c->extents[i], c->pos, &kind, end);
    if (r < 0 && r != -EAGAIN)
        fail(c, r, c->disks[i], c->pos);
    *data = kind == DISK_EXTENT_DATA;
    if (r == 0 && *end > c->disks[i]->size)
        *end = c->disks[i]->size;
    return r;
}

/* The next that has data on a side: 0; 1: there is none; -EAGAIN: later; or an error. */
static int next_item(struct compare *c, struct slot *s)
{
    size_t chunk = c->conf->chunk ? c->conf->chunk : CHUNK;

    while (c->pos < c->size) {
        uint64_t ends[2];
        for (unsigned i = 0; i < 2; i++) {
            int r = look(c, i, &s->sides[i].data, &ends[i]);
            if (r)
                return r;
        }
        uint64_t end = ends[0] < ends[1] ? ends[0] : ends[1];
        bool a = s->sides[0].data, b = s->sides[1].data,
             both = c->pos < c->disks[0]->size && c->pos < c->disks[1]->size;
        if (c->conf->strict && both && a != b) {
            note(c, IMAGE_OTHER_ALLOCATION, c->pos);
            return 1;
        }
        s->offset = c->pos;
        if (a || b) {
            uint64_t limit = align_down(c->pos, chunk) + chunk;
            end = end < limit ? end : limit;
        } else {
            c->total -= end - c->pos;
        }
        s->len = end - c->pos;
        c->pos = end;
        if (a || b)
            return 0;
    }
    return 1;
}

static void back(struct disk_request *req, int result)
{
    struct side *side = req->opaque;
    struct slot *s = side->slot;

    if (result && !s->result)
        s->result = result;
    if (--s->pending)
        return;
    s->back = true;
    loop_event_set(&s->c->work);
}

static int get_buffers(struct slot *s)
{
    size_t chunk = s->c->conf->chunk ? s->c->conf->chunk : CHUNK;

    for (unsigned i = 0; i < 2; i++)
        if (s->sides[i].data && !s->sides[i].buf) {
            s->sides[i].buf = aligned_alloc(ALIGNMENT, align_up(chunk, ALIGNMENT));
            if (!s->sides[i].buf)
                return -ENOMEM;
        }
    return 0;
}

/* False: none is started now. */
static bool start_item(struct slot *s)
{
    struct compare *c = s->c;

    if (next_item(c, s))
        return false;
    if (get_buffers(s)) {
        fail(c, -ENOMEM, c->disks[0], s->offset);
        return false;
    }
    c->under_way++;
    s->pending = s->sides[0].data + s->sides[1].data;
    for (unsigned i = 0; i < 2; i++) {
        struct side *side = &s->sides[i];
        if (!side->data)
            continue;
        side->iov = (struct iovec){side->buf, s->len};
        side->req = (struct disk_request){.op = DISK_READ,
                                          .offset = s->offset,
                                          .len = s->len,
                                          .iov = &side->iov,
                                          .n_iov = 1,
                                          .done = back,
                                          .opaque = side};
        disk_submit(c->disks[i], &side->req);
    }
    return true;
}

/* ---- what was read ---- */

static void look_closely(struct slot *s)
{
    const uint8_t *a = s->sides[0].data ? s->sides[0].buf : NULL, *b = s->sides[1].data ? s->sides[1].buf : NULL;

    if (a && b ? memcmp(a, b, s->len) == 0 : zero_all(a ? a : b, s->len))
        return;
    for (uint64_t i = 0; i < s->len; i++)
        if ((a ? a[i] : 0) != (b ? b[i] : 0)) {
            note(s->c, IMAGE_OTHER_CONTENT, s->offset + i);
            return;
        }
}

static void end_item(struct slot *s)
{
    struct compare *c = s->c;

    s->back = false;
    c->under_way--;
    if (s->result) {
        fail(c, s->result, c->disks[s->sides[0].data && s->sides[0].req.result ? 0 : 1], s->offset);
        return;
    }
    look_closely(s);
    c->done += s->len;
    if (!c->result)
        c->result = image_job_report(c->conf->job, c->done, c->total, c->err);
}

static void work(void *opaque)
{
    struct compare *c = opaque;
    bool more = true;

    for (unsigned i = 0; i < c->n_slots; i++) {
        struct slot *s = &c->slots[i];
        if (s->back)
            end_item(s);
        if (!s->pending && more && !over(c))
            more = start_item(s);
    }
    if (!c->under_way && !c->extents[0].busy && !c->extents[1].busy && (over(c) || c->pos >= c->size))
        loop_stop(c->disks[0]->loop);
}

static void map_ready(void *opaque)
{
    struct compare *c = opaque;
    loop_event_set(&c->work);
}

int image_compare(const struct image_compare_conf *conf, struct image_compare_result *result, struct err *err)
{
    unsigned depth = conf->depth ? conf->depth : DEPTH;
    struct compare *c = calloc(1, sizeof(*c) + depth * sizeof(c->slots[0]));

    if (!c)
        return err_set(err, -ENOMEM, "out of memory");
    c->conf = conf;
    c->err = err;
    c->disks[0] = conf->a;
    c->disks[1] = conf->b;
    c->size = c->total = conf->a->size > conf->b->size ? conf->a->size : conf->b->size;
    c->n_slots = depth;
    for (unsigned i = 0; i < depth; i++) {
        c->slots[i].c = c;
        c->slots[i].sides[0].slot = c->slots[i].sides[1].slot = &c->slots[i];
    }
    if (image_extents_init(&c->extents[0], conf->a, 0, map_ready, c) < 0 ||
        image_extents_init(&c->extents[1], conf->b, 0, map_ready, c) < 0)
        c->result = err_set(err, -ENOMEM, "out of memory");
    if (conf->strict && conf->a->size != conf->b->size)
        note(c, IMAGE_OTHER_SIZE, conf->a->size < conf->b->size ? conf->a->size : conf->b->size);
    loop_event_init(&c->work, conf->a->loop, work, c);
    loop_event_set(&c->work);
    loop_run(conf->a->loop);
    loop_event_fini(&c->work);
    *result = c->found;
    int r = c->result;
    image_extents_fini(&c->extents[0]);
    image_extents_fini(&c->extents[1]);
    for (unsigned i = 0; i < depth; i++) {
        free(c->slots[i].sides[0].buf);
        free(c->slots[i].sides[1].buf);
    }
    free(c);
    return r;
}
