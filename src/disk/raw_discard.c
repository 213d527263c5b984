#include "disk/raw_discard.h"

#include <errno.h>

#include "base/log.h"

static struct raw_range range_of(const struct disk_request *req)
{
    return (struct raw_range){req->offset, req->offset + req->len};
}

static bool overlap(const struct raw_range *a, const struct raw_range *b)
{
    return a->offset < b->end && b->offset < a->end;
}

static bool is_noted(const struct raw_discard *d, const struct raw_range *range)
{
    for (unsigned i = 0; i < d->n; i++)
        if (overlap(&d->ranges[i], range))
            return true;
    return false;
}

/* Beside the last one, which is where most belong. False where there is no room. */
static bool note(struct raw_discard *d, struct raw_range range)
{
    struct raw_range *last = d->n ? &d->ranges[d->n - 1] : NULL;

    if (last && range.offset <= last->end && last->offset <= range.end) {
        last->offset = range.offset < last->offset ? range.offset : last->offset;
        last->end = range.end > last->end ? range.end : last->end;
        return true;
    }
    if (d->n == RAW_DISCARD_RANGES)
        return false;
    d->ranges[d->n++] = range;
    return true;
}

/* Leaves it out of all that is noted. False where that needs more room than there is; then some of it may still be. */
static bool forget(struct raw_discard *d, struct raw_range range)
{
    for (unsigned i = 0; i < d->n;) {
        struct raw_range *r = &d->ranges[i];
        if (!overlap(r, &range)) {
            i++;
        } else if (r->offset < range.offset && range.end < r->end) {
            if (d->n == RAW_DISCARD_RANGES)
                return false;
            d->ranges[d->n++] = (struct raw_range){range.end, r->end};
            d->ranges[i++].end = range.offset;
        } else if (r->offset < range.offset) {
            r->end = range.offset;
            i++;
        } else if (range.end < r->end) {
            r->offset = range.end;
            i++;
        } else {
            *r = d->ranges[--d->n];
        }
    }
    return true;
}

/* Whether it may go to the file now. */
static bool has_way(struct raw_discard *d, const struct disk_request *req)
{
    struct raw_range range = range_of(req), piece = range_of(&d->piece);

    if (d->busy && overlap(&piece, &range))
        return false;
    return req->op == DISK_READ || req->op == DISK_MAP ? !is_noted(d, &range) : forget(d, range);
}

/* What somebody waits for, or else what was noted first. */
static struct raw_range choose(const struct raw_discard *d)
{
    for (const struct disk_request *req = d->waiting; req; req = req->next) {
        struct raw_range range = range_of(req);
        for (unsigned i = 0; i < d->n; i++) {
            struct raw_range r = d->ranges[i];
            if (!overlap(&r, &range))
                continue;
            if (r.offset < range.offset && d->n < RAW_DISCARD_RANGES) /* otherwise from its beginning */
                r.offset = range.offset;
            return r;
        }
    }
    return d->ranges[0];
}

static void piece_done(struct disk_request *piece, int result);

static void next_piece(struct raw_discard *d)
{
    if (d->busy || !d->n)
        return;
    struct raw_range r = choose(d);
    if (r.end - r.offset > d->piece_most)
        r.end = r.offset + d->piece_most - r.offset % d->piece_most;
    (void)!forget(d, r); /* with its beginning, or with room for one more */
    d->busy = true;
    d->piece = (struct disk_request){
        .op = DISK_DISCARD, .offset = r.offset, .len = r.end - r.offset, .done = piece_done, .opaque = d};
    file_submit(d->file, &d->piece);
}

/* Those that wait, once more. */
static void try_waiting(struct raw_discard *d)
{
    struct disk_request *req = d->waiting;

    d->waiting = NULL;
    d->waiting_tail = &d->waiting;
    while (req) {
        struct disk_request *next = req->next;
        raw_discard_submit(d, req);
        req = next;
    }
}

static void piece_done(struct disk_request *piece, int result)
{
    struct raw_discard *d = piece->opaque;

    d->busy = false;
    if (result) {
        if (!d->failed)
            log_warn("disk '%.200s': the host does not take back what the guest has discarded: %s", d->disk->path,
                     strerror(-result));
        d->failed = true;
        d->n = 0; /* it may be long before each has failed */
    }
    try_waiting(d);
    next_piece(d);
}

void raw_discard_init(struct raw_discard *d, struct disk *disk, struct file *file)
{
    *d = (struct raw_discard){.disk = disk, .file = file, .piece_most = RAW_DISCARD_PIECE};
    d->waiting_tail = &d->waiting;
}

void raw_discard_submit(struct raw_discard *d, struct disk_request *req)
{
    if (req->op == DISK_DISCARD && !d->failed && note(d, range_of(req))) {
        disk_complete_later(d->disk, req, 0);
        next_piece(d);
    } else if ((!d->busy && !d->n) || req->op == DISK_FLUSH || req->op == DISK_DISCARD || has_way(d, req)) {
        file_submit(d->file, req);
    } else {
        req->next = NULL;
        *d->waiting_tail = req;
        d->waiting_tail = &req->next;
        next_piece(d);
    }
}

void raw_discard_drain(struct raw_discard *d)
{
    while (d->busy)
        file_wait(d->file);
}
