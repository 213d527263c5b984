#include "image/delta.h"

#include <errno.h>
#include <stdlib.h>

struct delta {
    struct disk disk;
    struct disk *below;
    const struct dirty *bits;
    unsigned granularity_bits;
};

struct forwarded {
    struct disk_request req, *for_whom;
};

static void done(struct disk_request *req, int result)
{
    struct forwarded *f = CONTAINER_OF(req, struct forwarded, req);
    struct disk_request *for_whom = f->for_whom;

    free(f);
    disk_complete(for_whom, result);
}

static void map(struct delta *d, struct disk_request *req)
{
    uint64_t at = req->offset, end = req->offset + req->len, first, n;
    unsigned room = req->n_extents, used = 0;

    while (at < end && used < room) {
        dirty_next(d->bits, at >> d->granularity_bits, &first, &n);
        uint64_t start = n ? first << d->granularity_bits : end;
        uint64_t stop = start > at ? start : (first + n) << d->granularity_bits;
        stop = stop < end ? stop : end;
        req->extents[used++] = (struct disk_extent){
            .kind = start > at ? DISK_EXTENT_HOLE : DISK_EXTENT_DATA, .offset = at, .len = stop - at};
        at = stop;
    }
    req->n_extents = used;
    disk_complete_later(&d->disk, req, 0);
}

static void submit(struct disk *disk, struct disk_request *req)
{
    struct delta *d = (struct delta *)disk;

    if (req->op == DISK_MAP) {
        map(d, req);
        return;
    }
    struct forwarded *f = calloc(1, sizeof(*f));
    if (!f) {
        disk_complete_later(disk, req, -ENOMEM);
        return;
    }
    f->for_whom = req;
    f->req = (struct disk_request){
        .op = req->op, .offset = req->offset, .len = req->len, .iov = req->iov, .n_iov = req->n_iov, .done = done};
    disk_submit(d->below, &f->req);
}

static void wait_for(struct disk *disk)
{
    disk_wait(((struct delta *)disk)->below);
}

static void close_delta(struct disk *disk)
{
    free(disk);
}

static const struct disk_type delta_type = {.name = "delta", .submit = submit, .wait = wait_for, .close = close_delta};

int delta_open(struct disk **disk, struct disk *below, const struct dirty *bits, unsigned granularity_bits)
{
    const struct disk_conf conf = {.path = below->path, .read_only = true};
    struct delta *d = calloc(1, sizeof(*d));

    *disk = NULL;
    if (!d)
        return -ENOMEM;
    d->below = below;
    d->bits = bits;
    d->granularity_bits = granularity_bits;
    disk_init(&d->disk, &delta_type, &conf, below->loop);
    d->disk.size = below->size;
    *disk = &d->disk;
    return 0;
}
