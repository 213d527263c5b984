/*
 * What a range is made of. What the image does not have, its backing file is asked for, one question at a time, straight into the room that is left for
 * extents; then it is made to look as seen from here.
 */
#include <errno.h>

#include "disk/qcow2_impl.h"

static bool joins(const struct disk_extent *a, const struct disk_extent *b)
{
    if (a->kind != b->kind || a->depth != b->depth || a->compressed != b->compressed || a->has_host != b->has_host ||
        a->offset + a->len != b->offset)
        return false;
    return !a->has_host || a->host_offset + a->len == b->host_offset;
}

/* False: there is no room. */
static bool add(struct qcow2_req *r, struct disk_extent e)
{
    struct disk_request *req = r->req;
    struct disk_extent *last = req->n_extents ? &req->extents[req->n_extents - 1] : NULL;

    if (last && joins(last, &e)) {
        last->len += e.len;
        return true;
    }
    if (req->n_extents == r->room)
        return false;
    req->extents[req->n_extents++] = e;
    return true;
}

/* All that was to be found, or all that there is room for. */
static void add_or_end(struct qcow2_req *r, struct disk_extent e)
{
    if (add(r, e))
        r->pos = e.offset + e.len;
    else
        r->end = r->pos;
}

static void below_mapped(struct disk_request *below, int result)
{
    struct qcow2_req *r = CONTAINER_OF(below, struct qcow2_req, below);
    struct qcow2 *q = r->q;

    if (result == 0 && !below->n_extents)
        result = -EIO;
    for (unsigned i = 0; result == 0 && i < below->n_extents && r->pos < r->end; i++) {
        struct disk_extent e = below->extents[i]; /* what is added lies at or before its place */
        e.depth++;
        add_or_end(r, e);
    }
    r->waiter.result = result;
    qcow2_park(&q->runnable, &r->waiter);
    qcow2_run(q);
}

static int ask_below(struct qcow2_req *r, uint64_t len)
{
    struct disk *backing = r->q->backing;
    struct disk_request *req = r->req;

    if (req->n_extents == r->room) { /* it may go on with the last one: that is told next time */
        r->end = r->pos;
        return 0;
    }
    r->below = (struct disk_request){.op = DISK_MAP,
                                     .offset = r->pos,
                                     .len = len < backing->size - r->pos ? len : backing->size - r->pos,
                                     .extents = req->extents + req->n_extents,
                                     .n_extents = r->room - req->n_extents,
                                     .done = below_mapped};
    disk_submit(backing, &r->below);
    return -EAGAIN;
}

int qcow2_map_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_run run;
    struct qcow2_l2 l2;
    int result = qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result == 0)
        result = qcow2_l2_run(q, &l2, r->pos, r->end - r->pos, false, &run);
    if (result)
        return result;
    struct disk_extent e = {.kind = DISK_EXTENT_HOLE, .offset = r->pos, .len = run.len};
    switch (run.kind) {
    case QCOW2_NONE:
        if (q->backing && r->pos < q->backing->size)
            return ask_below(r, run.len);
        break;
    case QCOW2_ZERO:
        e.kind = DISK_EXTENT_ZERO;
        break;
    case QCOW2_DATA:
        e.kind = DISK_EXTENT_DATA;
        e.has_host = true;
        e.host_offset = run.host;
        break;
    case QCOW2_PACKED:
        e.kind = DISK_EXTENT_DATA;
        e.compressed = true;
        break;
    }
    add_or_end(r, e);
    return 0;
}
