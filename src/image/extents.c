#include "image/extents.h"

#include <errno.h>
#include <stdlib.h>

#define N_ITEMS      256
#define WINDOW_LEAST (256 * MIB)
#define WINDOW_MOST  (64 * GIB)

int image_extents_init(struct image_extents *e, struct disk *disk, unsigned layers, void (*ready)(void *opaque),
                       void *opaque)
{
    *e = (struct image_extents){
        .disk = disk, .layers = layers, .ready = ready, .opaque = opaque, .window = WINDOW_LEAST};
    e->items = calloc(N_ITEMS, sizeof(*e->items));
    return e->items ? 0 : -ENOMEM;
}

void image_extents_fini(struct image_extents *e)
{
    free(e->items);
    e->items = NULL;
}

static void mapped(struct disk_request *req, int result)
{
    struct image_extents *e = req->opaque;

    e->busy = false;
    e->result = result;
    e->n = 0;
    e->end = e->start;
    if (result == -ENOTSUP) {
        e->all_data = true;
        e->result = 0;
    } else if (result == 0) {
        bool data = false;
        e->n = req->n_extents;
        for (unsigned i = 0; i < e->n; i++)
            data = data || e->items[i].kind == DISK_EXTENT_DATA;
        if (e->n)
            e->end = e->items[e->n - 1].offset + e->items[e->n - 1].len;
        if (e->end <= e->start)
            e->result = -EIO; /* it told nothing */
        /* What is empty is told quickly, however long it is; what is not takes reading of tables. */
        e->window = data ? WINDOW_LEAST : e->window * 2 < WINDOW_MOST ? e->window * 2 : WINDOW_MOST;
    }
    e->ready(e->opaque);
}

static void ask(struct image_extents *e, uint64_t pos)
{
    uint64_t left = e->disk->size - pos;

    e->busy = true;
    e->start = pos;
    e->at = 0;
    e->req = (struct disk_request){.op = DISK_MAP,
                                   .offset = pos,
                                   .len = left < e->window ? left : e->window,
                                   .extents = e->items,
                                   .n_extents = N_ITEMS,
                                   .done = mapped,
                                   .opaque = e};
    disk_submit(e->disk, &e->req);
}

static enum disk_extent_kind kind_of(const struct image_extents *e, const struct disk_extent *x)
{
    return e->layers && x->depth >= e->layers ? DISK_EXTENT_HOLE : x->kind;
}

int image_extents_at(struct image_extents *e, uint64_t pos, enum disk_extent_kind *kind, uint64_t *end)
{
    if (e->busy)
        return -EAGAIN;
    if (e->result)
        return e->result;
    if (e->all_data) {
        *kind = DISK_EXTENT_DATA;
        *end = e->disk->size;
        return 0;
    }
    if (pos >= e->end) {
        ask(e, align_down(pos, DISK_BLOCK_SIZE));
        return -EAGAIN;
    }
    while (e->at + 1 < e->n && pos >= e->items[e->at].offset + e->items[e->at].len)
        e->at++;
    *kind = kind_of(e, &e->items[e->at]);
    for (unsigned i = e->at; i < e->n && kind_of(e, &e->items[i]) == *kind; i++)
        *end = e->items[i].offset + e->items[i].len;
    return 0;
}
