/*
 * Metadata on its way to the file: one commit at a time, in the steps that qcow2_impl.h lists. What waits for a commit when one is under way is served by
 * the next, which begins when that has ended. A commit waits while refcount blocks are being made (qcow2_grow.c): what has no block yet
 * is not counted.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

#define MAX_FREES 65536 /* extents that wait for a commit */

enum step { STEP_BLOCKS, STEP_BLOCKS_SYNC, STEP_TABLE, STEP_TABLE_SYNC, STEP_L2, STEP_L2_SYNC, STEP_END };

static void advance(struct qcow2 *q);

/* ---- the cut ---- */

static int by_kind_and_place(const void *a, const void *b)
{
    const struct qcow2_page *x = *(struct qcow2_page *const *)a, *y = *(struct qcow2_page *const *)b;

    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int collect_pages(struct qcow2 *q, struct qcow2_commit *c)
{
    c->pages = malloc((q->n_dirty + 1) * sizeof(*c->pages));
    if (!c->pages)
        return -ENOMEM;
    for (struct qcow2_page *p = q->lru_first; p; p = p->lru_next) {
        if (!p->dirty)
            continue;
        c->n_refcount_pages += p->kind == QCOW2_PAGE_REFCOUNT;
        c->pages[c->n_pages++] = p;
    }
    qsort(c->pages, c->n_pages, sizeof(*c->pages), by_kind_and_place);
    return 0;
}

static size_t count_runs(const struct qcow2_table *t, size_t n_sectors)
{
    size_t runs = 0;

    for (size_t s = 0; s < n_sectors; s++)
        runs += t->dirty[s] && (s == 0 || !t->dirty[s - 1]);
    return runs;
}

/* Changed sectors of a table, or with `all` the whole table. */
static int collect_table(struct qcow2_commit *c, const struct qcow2_table *t, bool all)
{
    size_t n_sectors = (t->n + QCOW2_SECTOR_ENTRIES - 1) / QCOW2_SECTOR_ENTRIES;
    size_t runs = all ? 1 : t->any_dirty ? count_runs(t, n_sectors) : 0;

    if (!runs)
        return 0;
    struct qcow2_commit_piece *pieces = realloc(c->pieces, (c->n_pieces + runs) * sizeof(*pieces));
    if (!pieces)
        return -ENOMEM;
    c->pieces = pieces;
    for (size_t s = 0; s < n_sectors;) {
        size_t first = s;
        while (s < n_sectors && (all || t->dirty[s]))
            s++;
        if (s++ == first)
            continue;
        first *= QCOW2_SECTOR_ENTRIES;
        size_t last = (s - 1) * QCOW2_SECTOR_ENTRIES < t->n ? (s - 1) * QCOW2_SECTOR_ENTRIES : t->n;
        struct qcow2_commit_piece piece = {.offset = t->offset + first * 8, .len = (last - first) * 8};
        piece.data = malloc(piece.len);
        if (!piece.data)
            return -ENOMEM;
        for (size_t i = first; i < last; i++)
            qcow2_put_be64(piece.data + (i - first) * 8, t->entries[i]);
        c->pieces[c->n_pieces++] = piece;
    }
    return 0;
}

static void clean_table(struct qcow2_table *t)
{
    if (t->any_dirty)
        memset(t->dirty, 0, t->n / QCOW2_SECTOR_ENTRIES + 1);
    t->any_dirty = false;
}

static void drop_cut(struct qcow2_commit *c)
{
    for (size_t i = 0; i < c->n_pieces; i++)
        free(c->pieces[i].data);
    free(c->pieces);
    free(c->pages);
    c->pieces = NULL;
    c->pages = NULL;
    c->n_pieces = c->n_refcount_pieces = c->next_piece = 0;
    c->n_pages = c->n_refcount_pages = c->next = 0;
}

/* All that is dirty now becomes the commit's. */
static int cut(struct qcow2 *q, struct qcow2_commit *c)
{
    int r = collect_pages(q, c);

    if (r == 0)
        r = collect_table(c, &q->refcounts, q->refcounts_moved);
    c->n_refcount_pieces = c->n_pieces;
    if (r == 0)
        r = collect_table(c, &q->l1, false);
    if (r) {
        drop_cut(c);
        return r;
    }
    for (size_t i = 0; i < c->n_pages; i++) {
        c->pages[i]->dirty = false;
        c->pages[i]->frozen = c->pages[i]->data;
    }
    q->n_dirty = 0;
    clean_table(&q->refcounts);
    clean_table(&q->l1);
    c->moved = q->refcounts_moved;
    c->new_blocks = q->new_blocks;
    q->refcounts_moved = q->new_blocks = false;
    if (c->moved) {
        memcpy(c->header, q->header, sizeof(c->header));
        qcow2_put_be64(c->header + 48, q->refcounts.offset);
        qcow2_put_be32(c->header + 56, (uint32_t)q->refcount_clusters);
    }
    c->frees = q->frees;
    q->frees = (struct qcow2_extents){0};
    return 0;
}

/* ---- the end ---- */

static void redirty(struct qcow2_table *t, const struct qcow2_commit_piece *piece)
{
    if (piece->offset < t->offset || piece->offset >= t->offset + t->n * 8)
        return; /* it was of a table that has moved, whose successor is written whole */
    size_t first = (size_t)(piece->offset - t->offset) / 512;
    for (size_t s = first; s < first + (piece->len + 511) / 512; s++)
        t->dirty[s] = 1;
    t->any_dirty = true;
}

static void thaw(struct qcow2 *q, struct qcow2_page *p, int result)
{
    if (p->frozen != p->data)
        qcow2_page_release(q, p->frozen);
    p->frozen = NULL;
    if (result && !p->dirty) {
        p->dirty = true;
        q->n_dirty++;
    }
}

static void end(struct qcow2 *q)
{
    struct qcow2_commit *c = &q->commit;

    for (size_t i = 0; i < c->n_pages; i++)
        thaw(q, c->pages[i], c->result);
    if (c->result) {
        for (size_t i = 0; i < c->n_pieces; i++)
            redirty(i < c->n_refcount_pieces ? &q->refcounts : &q->l1, &c->pieces[i]);
        q->refcounts_moved |= c->moved;
        q->new_blocks |= c->new_blocks;
    }
    drop_cut(c);
    c->running = false;
    qcow2_free_committed(q, &c->frees, c->result);
    qcow2_wake(q, &c->now, c->result);
    qcow2_commit_kick(q);
}

/* ---- the steps ---- */

static void written(struct disk_request *req, int result)
{
    struct qcow2_commit_io *io = CONTAINER_OF(req, struct qcow2_commit_io, req);
    struct qcow2 *q = io->q;
    struct qcow2_commit *c = &q->commit;

    io->q = NULL;
    c->pending--;
    if (result && !c->result)
        c->result = result;
    advance(q);
    qcow2_run(q);
}

static void send(struct qcow2 *q, enum disk_op op, uint64_t offset, void *buf, size_t len)
{
    struct qcow2_commit *c = &q->commit;
    struct qcow2_commit_io *io = c->io;

    while (io->q)
        io++;
    io->q = q;
    io->iov = (struct iovec){buf, len};
    io->req = (struct disk_request){
        .op = op, .offset = offset, .len = len, .iov = &io->iov, .n_iov = op == DISK_WRITE, .done = written};
    c->pending++;
    file_submit(q->file, &io->req);
}

/* Sends up to the given page and piece, as far as there are slots. */
static void send_until(struct qcow2 *q, size_t page, size_t piece)
{
    struct qcow2_commit *c = &q->commit;

    while (c->pending < QCOW2_COMMIT_DEPTH && c->next < page) {
        struct qcow2_page *p = c->pages[c->next++];
        send(q, DISK_WRITE, p->offset, p->frozen, q->page_size);
    }
    while (c->pending < QCOW2_COMMIT_DEPTH && c->next_piece < piece) {
        struct qcow2_commit_piece *p = &c->pieces[c->next_piece++];
        send(q, DISK_WRITE, p->offset, p->data, p->len);
    }
}

/* One step; what it sends must be over before the next. */
static void step(struct qcow2 *q)
{
    struct qcow2_commit *c = &q->commit;
    bool tables = c->n_pages > c->n_refcount_pages || c->n_pieces > c->n_refcount_pieces;

    switch ((enum step)c->step) {
    case STEP_BLOCKS:
        send_until(q, c->n_refcount_pages, c->moved ? c->n_refcount_pieces : 0);
        break;
    case STEP_BLOCKS_SYNC:
        if (c->moved || c->new_blocks)
            send(q, DISK_FLUSH, 0, NULL, 0);
        break;
    case STEP_TABLE:
        send_until(q, c->n_refcount_pages, c->n_refcount_pieces);
        if (c->moved && c->next_piece == c->n_refcount_pieces)
            send(q, DISK_WRITE, 0, c->header, sizeof(c->header));
        break;
    case STEP_TABLE_SYNC:
        send(q, DISK_FLUSH, 0, NULL, 0);
        break;
    case STEP_L2:
        send_until(q, c->n_pages, c->n_pieces);
        break;
    case STEP_L2_SYNC:
        if (tables)
            send(q, DISK_FLUSH, 0, NULL, 0);
        break;
    case STEP_END:
        break;
    }
}

/* Whether the step has more to send. */
static bool more(const struct qcow2_commit *c)
{
    switch ((enum step)c->step) {
    case STEP_BLOCKS:
        return c->next < c->n_refcount_pages || (c->moved && c->next_piece < c->n_refcount_pieces);
    case STEP_TABLE:
        return c->next_piece < c->n_refcount_pieces;
    case STEP_L2:
        return c->next < c->n_pages || c->next_piece < c->n_pieces;
    default:
        return false;
    }
}

static void advance(struct qcow2 *q)
{
    struct qcow2_commit *c = &q->commit;

    for (;;) {
        if (!c->result && more(c)) {
            step(q);
            return;
        }
        if (c->pending)
            return;
        if (c->step == STEP_TABLE && c->moved && !c->result)
            memcpy(q->header + 48, c->header + 48, 12);
        if (c->result || c->step == STEP_END) {
            end(q);
            return;
        }
        c->step++;
        step(q);
    }
}

void qcow2_commit_kick(struct qcow2 *q)
{
    struct qcow2_commit *c = &q->commit;

    if (c->running || q->grow.busy || !(c->wanted || c->next_round.first))
        return;
    c->running = true;
    c->wanted = c->moved = c->new_blocks = false;
    c->now = c->next_round;
    c->next_round.first = NULL;
    c->result = q->header_unsure ? -EIO : cut(q, c);
    c->pending = 0;
    c->step = STEP_BLOCKS;
    if (c->result) {
        end(q);
        return;
    }
    step(q);
    advance(q);
}

void qcow2_commit_wait(struct qcow2 *q, struct qcow2_waiter *w)
{
    qcow2_park(&q->commit.next_round, w);
    qcow2_commit_kick(q);
}

int qcow2_commit_room(struct qcow2 *q, struct qcow2_waiter *w)
{
    size_t n_frees = q->frees.n + q->ripe.n - q->ripe.head;

    if (q->n_dirty >= q->max_dirty || n_frees >= MAX_FREES) {
        qcow2_commit_wait(q, w);
        return -EAGAIN;
    }
    if (q->n_dirty >= q->max_dirty / 2 || n_frees >= MAX_FREES / 2) {
        q->commit.wanted = true;
        qcow2_commit_kick(q);
    }
    return 0;
}

bool qcow2_commit_dirty(const struct qcow2 *q)
{
    return q->n_dirty || q->refcounts.any_dirty || q->l1.any_dirty || q->refcounts_moved || q->frees.n ||
           q->ripe.n > q->ripe.head;
}
