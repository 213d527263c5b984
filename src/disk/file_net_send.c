/*
 * What goes to the server and what it answers: operations in pieces, those kept that must be sent again before any other, and flushes, which say what need not be
 * kept any longer.
 *
 * On the file's thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/file_net_impl.h"

#define WINDOW   64 /* pieces under way */
#define REPLAYS  32 /* operations sent again at once */
#define KEEP_MAX (32 * MIB)
#define KEPT_OP  256 /* what an operation takes, beside its data */
#define PATIENCE (100 * NS_PER_MS)

/* ---- pieces ---- */

static struct file_net_piece *take_piece(struct file_net *net, struct file_net_op *op)
{
    struct file_net_piece *piece = net->free_pieces;

    if (piece)
        net->free_pieces = piece->next;
    else
        piece = malloc(sizeof(*piece));
    if (!piece)
        return NULL;
    *piece = (struct file_net_piece){.kind = op->kind, .op = op, .conn = net->conn, .next = net->pieces};
    piece->link = &net->pieces;
    if (net->pieces)
        net->pieces->link = &piece->next;
    net->pieces = piece;
    net->n_pieces++;
    return piece;
}

static void put_piece(struct file_net *net, struct file_net_piece *piece)
{
    *piece->link = piece->next;
    if (piece->next)
        piece->next->link = piece->link;
    net->n_pieces--;
    piece->next = net->free_pieces;
    net->free_pieces = piece;
}

void file_net_done(struct file_net_piece *piece, int result)
{
    piece->finished = true;
    piece->result = result;
    loop_event_set(&piece->conn->net->pump);
}

/* Bytes; those that are no range are one. */
static uint64_t total(const struct file_net_op *op)
{
    bool whole = op->kind == FILE_NET_FLUSH || op->kind == FILE_NET_TRUNCATE || op->kind == FILE_NET_MAP;
    return whole ? 1 : op->len;
}

static bool transfers(const struct file_net_op *op)
{
    return op->kind == FILE_NET_READ || op->kind == FILE_NET_WRITE;
}

static bool writes(const struct file_net_op *op)
{
    return op->kind == FILE_NET_WRITE || op->kind == FILE_NET_ZERO;
}

static void fill_piece(const struct file_net *net, struct file_net_op *op, struct file_net_piece *piece)
{
    const struct file_net_props *props = &net->conn->props;
    uint64_t at = op->started, left = total(op) - at;
    uint64_t most = transfers(op) ? props->max_transfer : props->max_range;

    if (op->zeroes && most > net->props.max_transfer)
        most = net->props.max_transfer;
    piece->unmap = op->unmap;
    piece->offset = op->offset + at;
    piece->len = left < most ? left : most;
    op->started += piece->len;
    if (op->buf)
        piece->buf = op->buf + (op->zeroes ? 0 : at);
    if (op->kind == FILE_NET_MAP) {
        piece->len = op->len;
        piece->extents = op->extents;
        piece->n_extents = op->n_extents;
        op->started = 1;
    }
    if (op->patch && !op->patched) {
        piece->kind = FILE_NET_READ;
        piece->buf = op->buf + op->len;
    }
}

/* Sends as much of it as there is room for: 1 if that is all, 0 if not, -errno if the connection has broken. */
static int advance(struct file_net *net, struct file_net_op *op)
{
    while (op->started < total(op) && !op->error) {
        struct file_net_piece *piece = net->n_pieces < WINDOW ? take_piece(net, op) : NULL;
        if (!piece)
            return 0;
        if (net->n_pieces == 1)
            net->last_progress = loop_now();
        fill_piece(net, op, piece);
        op->under_way++;
        int r = net->conn->type->start(net->conn, piece);
        if (r < 0)
            return r;
    }
    return 1;
}

static void rewind_op(struct file_net_op *op)
{
    op->started = op->finished = 0;
    op->under_way = 0;
    op->error = 0;
    op->durable = true;
    op->epoch = 0;
    op->patched = false;
}

/* ---- what is kept ---- */

bool file_net_send_stale(const struct file_net *net)
{
    for (const struct file_net_op *op = net->kept.first; op; op = op->next)
        if (op->epoch != net->epoch)
            return true;
    return false;
}

static void begin_replay(struct file_net *net)
{
    net->state = FILE_NET_REPLAY;
    for (struct file_net_op *op = net->kept.first; op; op = op->next)
        if (!op->started)
            op->error = 0;
}

static uint64_t weight(const struct file_net_op *op)
{
    return KEPT_OP + (op->kind != FILE_NET_WRITE ? 0 : op->len);
}

static void keep(struct file_net *net, struct file_net_op *op)
{
    op->kept = true;
    op->patch = false;
    op->seq = ++net->seq;
    op->started = op->finished = 0;
    net->kept_bytes += weight(op);
    file_net_op_append(&net->kept, op);
}

/* A flush that was sent when net->seq was `seq` has completed. Whether it has left any out. */
static bool release_kept(struct file_net *net, uint64_t seq, uint64_t epoch)
{
    struct file_net_op **p = &net->kept.first;
    bool left_out = false;

    while (*p && (*p)->seq <= seq) {
        struct file_net_op *op = *p;
        if (op->epoch != epoch) {
            left_out = true;
            p = &op->next;
            continue;
        }
        *p = op->next;
        net->kept_bytes -= weight(op);
        file_net_op_free(op);
    }
    if (!*p)
        net->kept.tail = p;
    return left_out;
}

static void flush_for_room(struct file_net *net)
{
    struct file_net_op *op = net->flush_sent ? NULL : calloc(1, sizeof(*op));

    if (!op)
        return;
    op->kind = FILE_NET_FLUSH;
    op->deadline = loop_now() + net->timeout;
    net->flush_sent = true;
    file_net_op_prepend(&net->todo, op);
}

static void drop(struct file_net *net, struct file_net_op *op, int result)
{
    if (op->kind == FILE_NET_FLUSH && !op->job) {
        net->flush_sent = false;
        net->hold_until = result ? loop_now() + PATIENCE : net->hold_until;
    }
    file_net_op_answer(net, op, result);
    file_net_op_free(op);
}

/* ---- what is answered ---- */

static void flush_done(struct file_net *net, struct file_net_op *op)
{
    uint64_t epoch = op->epoch ? op->epoch : net->epoch;

    net->safe_size = op->job_offset;
    if (!release_kept(net, op->seq, epoch) || !op->job) {
        drop(net, op, 0);
        return;
    }
    /* Some of what it was for is on its way again; this flush then comes after it. */
    rewind_op(op);
    file_net_op_prepend(&net->todo, op);
    begin_replay(net);
}

static void write_done(struct file_net *net, struct file_net_op *op)
{
    if (net->props.grows)
        file_grew(&net->base, op->offset + op->len);
    file_net_op_answer(net, op, 0);
    if (net->props.volatile_cache && !op->durable)
        keep(net, op);
    else
        file_net_op_free(op);
}

static void replay_done(struct file_net *net, struct file_net_op *op)
{
    int error = op->error;

    if (!error) {
        net->sent_again++;
        op->started = op->finished = 0;
        return;
    }
    rewind_op(op);
    op->epoch = FILE_NET_STALE;
    if (error == -EAGAIN) {
        net->hold_until = loop_now() + PATIENCE;
        return;
    }
    op->error = error; /* not again before the next round */
    net->replay_error = error;
    log_error("disk '%.200s': a write of %llu bytes at %llu that was not flushed is lost, and cannot be made again: %s",
              net->shown, (unsigned long long)op->len, (unsigned long long)op->offset, strerror(-error));
}

static void op_done(struct file_net *net, struct file_net_op *op)
{
    if (op->kept) {
        replay_done(net, op);
        return;
    }
    file_net_op_remove(&net->busy, op);
    net->busy_bytes -= writes(op) ? op->len : 0;
    if (op->patch && !op->patched && !op->error) {
        file_net_op_patch(op);
        op->started = op->finished = 0;
        file_net_op_prepend(&net->todo, op);
        return;
    }
    net->patching = net->patching && !op->patch;
    if (op->error == -EAGAIN) {
        rewind_op(op);
        file_net_op_prepend(&net->todo, op);
        net->hold_until = loop_now() + PATIENCE;
    } else if (op->error) {
        drop(net, op, op->error);
    } else if (op->kind == FILE_NET_FLUSH) {
        flush_done(net, op);
    } else if (writes(op)) {
        write_done(net, op);
    } else {
        if (op->kind == FILE_NET_TRUNCATE)
            net->base.size = net->safe_size = op->offset;
        drop(net, op, 0);
    }
}

/* The server may have been another one in between. */
static void note_epoch(struct file_net *net, struct file_net_op *op, const struct file_net_piece *piece)
{
    uint64_t epoch = piece->epoch ? piece->epoch : net->epoch;

    if (epoch != net->epoch) {
        log_warn("disk '%.200s': the server has lost what was not flushed, which is sent again", net->shown);
        net->epoch = epoch;
        begin_replay(net);
    }
    op->durable = op->durable && piece->durable;
    op->epoch = !op->epoch || op->epoch == epoch ? epoch : FILE_NET_STALE;
}

/* False: the connection is of no use. */
static bool piece_done(struct file_net *net, struct file_net_piece *piece)
{
    struct file_net_op *op = piece->op;
    int result = piece->result;

    if (result == -ENOTCONN)
        return false;
    net->last_progress = loop_now();
    net->backoff = 0;
    if (result == 0 && piece->kind != FILE_NET_READ && (writes(op) || op->kind == FILE_NET_FLUSH))
        note_epoch(net, op, piece);
    if (result < 0)
        op->error = op->error && op->error != -EAGAIN ? op->error : result;
    if (op->kind == FILE_NET_MAP)
        op->n_extents = piece->n_extents;
    op->finished += op->kind == FILE_NET_MAP ? 1 : piece->len;
    op->under_way--;
    put_piece(net, piece);
    if (!op->under_way && (op->error || op->finished == total(op)))
        op_done(net, op);
    return true;
}

static bool take_answers(struct file_net *net)
{
    bool any = true;

    while (any) {
        any = false;
        for (struct file_net_piece *p = net->pieces, *next; p; p = next) {
            next = p->next;
            if (!p->finished)
                continue;
            if (!piece_done(net, p))
                return false;
            any = true;
        }
    }
    return true;
}

/* ---- what is sent ---- */

static bool overlap(const struct file_net_op *a, const struct file_net_op *b)
{
    return a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

/* After a round of sending again that has failed, so do the flushes that were waiting for it; the next one begins another round. */
static void end_replay(struct file_net *net)
{
    net->state = FILE_NET_UP;
    if (!net->replay_error)
        return;
    for (struct file_net_op *op = net->todo.first, *next; op; op = next) {
        next = op->next;
        if (op->kind != FILE_NET_FLUSH)
            continue;
        file_net_op_remove(&net->todo, op);
        drop(net, op, net->replay_error);
    }
    net->replay_error = 0;
}

/* In order where they overlap. -errno: the connection has broken. */
static int send_again(struct file_net *net)
{
    const struct file_net_op *at_once[REPLAYS];
    unsigned n = 0;

    for (struct file_net_op *op = net->kept.first; op && n < REPLAYS; op = op->next) {
        if (!op->started) {
            if (op->epoch == net->epoch || op->error)
                continue;
            for (unsigned i = 0; i < n; i++)
                if (overlap(at_once[i], op))
                    return 0;
            rewind_op(op);
        }
        at_once[n++] = op;
        int r = advance(net, op);
        if (r <= 0)
            return r;
    }
    if (n == 0)
        end_replay(net);
    return 0;
}

/* Whether the operation may be sent now. */
static bool may_start(struct file_net *net, struct file_net_op *op)
{
    if (net->patching && !op->patched)
        return false;
    if (op->patch && !op->patched && net->busy.first)
        return false;
    if (op->kind == FILE_NET_FLUSH) {
        if (file_net_send_stale(net)) {
            begin_replay(net);
            return false;
        }
        op->seq = net->seq;
        op->job_offset = net->base.size;
    }
    if (writes(op) && net->props.volatile_cache && net->kept_bytes &&
        net->kept_bytes + net->busy_bytes + weight(op) > KEEP_MAX) {
        flush_for_room(net);
        return !net->flush_sent;
    }
    return true;
}

static int send_new(struct file_net *net)
{
    for (struct file_net_op *op = net->busy.first; op; op = op->next) {
        int r = advance(net, op);
        if (r <= 0)
            return r;
    }
    if (net->kept_bytes > KEEP_MAX / 2)
        flush_for_room(net);
    while (net->todo.first && net->n_pieces < WINDOW && net->state == FILE_NET_UP) {
        struct file_net_op *op = net->todo.first;
        if (!may_start(net, op)) {
            if (net->todo.first == op)
                return 0;
            continue;
        }
        file_net_op_remove(&net->todo, op);
        file_net_op_append(&net->busy, op);
        op->durable = true;
        net->busy_bytes += writes(op) ? op->len : 0;
        net->patching = net->patching || op->patch;
        int r = advance(net, op);
        if (r < 0)
            return r;
    }
    return 0;
}

bool file_net_send(struct file_net *net)
{
    int r = 0;

    if (!take_answers(net))
        return false;
    if (loop_now() < net->hold_until)
        return true;
    if (net->state == FILE_NET_REPLAY)
        r = send_again(net);
    if (r == 0 && net->state == FILE_NET_UP)
        r = send_new(net);
    return r >= 0;
}

void file_net_send_reset(struct file_net *net)
{
    struct file_net_list back = {.tail = &back.first};

    while (net->pieces)
        put_piece(net, net->pieces);
    for (struct file_net_op *op = net->kept.first; op; op = op->next)
        if (op->started) {
            rewind_op(op);
            op->epoch = FILE_NET_STALE;
        }
    for (struct file_net_op *op = net->todo.first; op; op = op->next)
        op->patched = false;
    while (net->busy.first) {
        struct file_net_op *op = net->busy.first;
        file_net_op_remove(&net->busy, op);
        rewind_op(op);
        file_net_op_append(&back, op);
    }
    net->busy_bytes = 0;
    net->patching = false;
    if (!back.first)
        return;
    *back.tail = net->todo.first;
    if (net->todo.first)
        back.tail = net->todo.tail;
    net->todo = back;
}
