/*
 * Requests, cut to what a server takes: whole blocks. What is not is read, patched and written back, with nothing else under way; that is rare, as disks have
 * blocks of 512 bytes and few servers larger ones.
 *
 * On the file's thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/file_net_impl.h"

/* ---- lists ---- */

void file_net_op_append(struct file_net_list *list, struct file_net_op *op)
{
    op->next = NULL;
    *list->tail = op;
    list->tail = &op->next;
}

void file_net_op_prepend(struct file_net_list *list, struct file_net_op *op)
{
    op->next = list->first;
    list->first = op;
    if (!op->next)
        list->tail = &op->next;
}

void file_net_op_remove(struct file_net_list *list, struct file_net_op *op)
{
    for (struct file_net_op **p = &list->first; *p; p = &(*p)->next)
        if (*p == op) {
            *p = op->next;
            if (!*p)
                list->tail = p;
            return;
        }
}

/* ---- memory of requests ---- */

/* The pieces of a request's memory that its bytes [from, from + len) lie in, one after the other. */
struct walk {
    const struct disk_request *req;
    uint64_t from, len;
    unsigned i;
};

/* The next piece, its length in *n; NULL: there is no more. */
static char *next_piece(struct walk *w, uint64_t *n)
{
    for (; w->i < w->req->n_iov && w->len; w->i++) {
        const struct iovec *iov = &w->req->iov[w->i];
        if (w->from >= iov->iov_len) {
            w->from -= iov->iov_len;
            continue;
        }
        char *piece = (char *)iov->iov_base + w->from;
        *n = iov->iov_len - w->from < w->len ? iov->iov_len - w->from : w->len;
        w->from += *n;
        w->len -= *n;
        return piece;
    }
    return NULL;
}

static void copy_in(const struct disk_request *req, uint64_t from, uint8_t *buf, uint64_t len)
{
    struct walk w = {.req = req, .from = from, .len = len};
    uint64_t n;

    for (const char *piece; (piece = next_piece(&w, &n)); buf += n)
        memcpy(buf, piece, n);
}

/* buf NULL: zeroes. */
static void copy_out(const struct disk_request *req, uint64_t from, const uint8_t *buf, uint64_t len)
{
    struct walk w = {.req = req, .from = from, .len = len};
    uint64_t n;

    for (char *piece; (piece = next_piece(&w, &n)); buf = buf ? buf + n : NULL) {
        if (buf)
            memcpy(piece, buf, n);
        else
            memset(piece, 0, n);
    }
}

/* ---- operations ---- */

void file_net_op_free(struct file_net_op *op)
{
    free(op->buf);
    free(op->extents);
    free(op);
}

static void finish_map(struct file_net_op *op)
{
    const struct disk_request *what = op->job->what;
    struct disk_request *req = op->job->req;

    if (!req)
        return;
    if (!op->n_extents) {
        op->n_extents = 1;
        op->extents[0] = (struct disk_extent){.kind = DISK_EXTENT_DATA, .offset = what->offset, .len = what->len};
    }
    for (unsigned i = 0; i < op->n_extents; i++) {
        struct disk_extent *e = &op->extents[i];
        e->has_host = e->kind == DISK_EXTENT_DATA;
        e->host_offset = e->has_host ? e->offset : 0;
        req->extents[i] = *e;
    }
    req->n_extents = op->n_extents;
}

/* A read's bytes to where they were wanted; zeroes for those that lie behind the end. */
static void finish_read(struct file_net_op *op)
{
    const struct disk_request *what = op->job->what;
    uint64_t skip = op->job_offset - op->offset, have = op->len > skip ? op->len - skip : 0;

    have = have < op->job_len ? have : op->job_len;
    copy_out(what, 0, op->buf + skip, have);
    copy_out(what, have, NULL, what->len - have);
}

void file_net_op_patch(struct file_net_op *op)
{
    uint64_t from = op->job_offset - op->offset, to = from + op->job_len;
    uint8_t *block = op->buf + op->len;

    memcpy(op->buf, block, from);
    memcpy(op->buf + to, block + to, op->len - to);
    op->patched = true;
}

void file_net_op_answer(struct file_net *net, struct file_net_op *op, int result)
{
    struct file_net_job *job = op->job;

    if (!job)
        return;
    if (result == 0 && op->kind == FILE_NET_READ)
        finish_read(op);
    else if (result == 0 && op->kind == FILE_NET_MAP)
        finish_map(op);
    job->error = job->error ? job->error : result;
    op->job = NULL;
    if (--job->left == 0)
        file_net_finish(net, job);
}

static void fail(struct file_net *net, struct file_net_job *job, int error)
{
    job->error = error;
    file_net_finish(net, job);
}

static struct file_net_op *new_op(struct file_net *net, struct file_net_job *job, enum file_net_kind kind,
                                  uint64_t offset, uint64_t len, uint64_t buf_len)
{
    struct file_net_op *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->job = job;
    op->kind = kind;
    op->offset = op->job_offset = offset;
    op->len = op->job_len = len;
    op->attempts = net->attempts;
    int64_t now = loop_now();
    op->deadline = net->down_since ? net->down_since + net->timeout : now + net->timeout;
    op->deadline = op->deadline > now ? op->deadline : now;
    if (buf_len) {
        op->buf = kind == FILE_NET_WRITE ? malloc(buf_len) : calloc(1, buf_len);
        if (!op->buf) {
            free(op);
            return NULL;
        }
    }
    return op;
}

/* READ of the blocks that hold the range, as far as there are any. */
static struct file_net_op *cut_read(struct file_net *net, struct file_net_job *job)
{
    const struct disk_request *what = job->what;
    uint64_t size = net->base.size, block = net->props.block;
    uint64_t from = align_down(what->offset, block), to = align_up(what->offset + what->len, block);

    to = to < size ? to : size;
    from = from < to ? from : to;
    struct file_net_op *op = new_op(net, job, FILE_NET_READ, from, to - from, to - from + block);
    if (op) {
        op->job_offset = what->offset;
        op->job_len = what->len;
    }
    return op;
}

struct cut {
    struct file_net_op *ops[3];
    unsigned n;
    bool failed;
};

static void cut_one(struct file_net *net, struct file_net_job *job, struct cut *cut, uint64_t from, uint64_t to,
                    bool patch)
{
    const struct disk_request *what = job->what;
    uint64_t block = net->props.block, at = patch ? align_down(from, block) : from;
    bool zero = what->op == DISK_ZERO, native = zero && net->props.zeroes && !patch;
    uint64_t len = patch ? block : to - from;
    uint64_t buf_len = zero && len > net->props.max_transfer ? net->props.max_transfer : len;
    struct file_net_op *op = new_op(net, job, native ? FILE_NET_ZERO : FILE_NET_WRITE, at, len,
                                    native  ? 0
                                    : patch ? 2 * len
                                            : buf_len);

    if (!op) {
        cut->failed = true;
        return;
    }
    op->unmap = what->unmap;
    op->patch = patch;
    op->zeroes = zero && !native && !patch;
    op->job_offset = from;
    op->job_len = to - from;
    if (patch && !net->props.grows && at + len > net->base.size)
        op->len = net->base.size - at; /* the end need not be a block's */
    uint8_t *to_write = op->buf + (patch ? from - at : 0);
    if (native)
        ;
    else if (zero)
        memset(to_write, 0, patch ? to - from : buf_len);
    else
        copy_in(what, from - what->offset, to_write, to - from);
    cut->ops[cut->n++] = op;
}

/* WRITE or ZERO: what is less than a block at either end, and what is between. */
static int cut_write(struct file_net *net, struct file_net_job *job, struct cut *cut)
{
    const struct disk_request *what = job->what;
    uint64_t block = net->props.block, from = what->offset, to = from + what->len;
    uint64_t first = align_up(from, block), last = align_down(to, block);

    if (!net->props.grows && to > net->base.size)
        return -ENOSPC;
    if (to == net->base.size && !net->props.grows)
        last = to; /* a last block that is none */
    if (first > last) {
        cut_one(net, job, cut, from, to, true);
    } else {
        if (from < first)
            cut_one(net, job, cut, from, first, true);
        if (first < last)
            cut_one(net, job, cut, first, last, false);
        if (last < to)
            cut_one(net, job, cut, last, to, true);
    }
    return cut->failed ? -ENOMEM : 0;
}

static int cut_discard(struct file_net *net, struct file_net_job *job, struct cut *cut)
{
    const struct disk_request *what = job->what;
    uint64_t block = net->props.block, size = net->base.size;
    uint64_t end = what->len < size - (what->offset < size ? what->offset : size) ? what->offset + what->len : size;
    uint64_t from = align_up(what->offset, block), to = align_down(end, block);

    if (!net->props.discards || from >= to)
        return 0;
    cut->ops[0] = new_op(net, job, FILE_NET_DISCARD, from, to - from, 0);
    cut->n = cut->ops[0] ? 1 : 0;
    return cut->n ? 0 : -ENOMEM;
}

static int cut_map(struct file_net *net, struct file_net_job *job, struct cut *cut)
{
    const struct disk_request *what = job->what;
    struct file_net_op *op = new_op(net, job, FILE_NET_MAP, what->offset, what->len, 0);

    if (!op)
        return -ENOMEM;
    op->n_extents = net->props.maps ? what->n_extents : 0;
    op->extents = calloc(what->n_extents ? what->n_extents : 1, sizeof(*op->extents));
    if (op->extents && net->props.maps) {
        cut->ops[cut->n++] = op;
        return 0;
    }
    int r = op->extents ? 0 : -ENOMEM;
    if (r == 0)
        finish_map(op); /* nobody knows: it is data */
    file_net_op_free(op);
    return r;
}

static int cut_simple(struct file_net *net, struct file_net_job *job, struct cut *cut, struct file_net_op *op)
{
    if (op)
        cut->ops[cut->n++] = op;
    return op ? 0 : -ENOMEM;
}

static int cut_job(struct file_net *net, struct file_net_job *job, struct cut *cut)
{
    const struct disk_request *what = job->what;

    if (!what)
        return cut_simple(net, job, cut, new_op(net, job, FILE_NET_TRUNCATE, job->truncate, 0, 0));
    if (what->op != DISK_READ && what->op != DISK_MAP && what->op != DISK_FLUSH && net->read_only)
        return -EROFS;
    if (what->len > INT64_MAX || what->offset > INT64_MAX - what->len)
        return -EINVAL;
    switch (what->op) {
    case DISK_READ:
        if (what->offset < net->base.size && what->len)
            return cut_simple(net, job, cut, cut_read(net, job));
        copy_out(what, 0, NULL, what->len);
        return 0;
    case DISK_WRITE:
    case DISK_ZERO:
        return what->len ? cut_write(net, job, cut) : 0;
    case DISK_FLUSH:
        return net->props.volatile_cache && !net->read_only
                   ? cut_simple(net, job, cut, new_op(net, job, FILE_NET_FLUSH, 0, 0, 0))
                   : 0;
    case DISK_DISCARD:
        return cut_discard(net, job, cut);
    case DISK_MAP:
        return cut_map(net, job, cut);
    }
    return -EINVAL;
}

void file_net_op_begin(struct file_net *net, struct file_net_job *job)
{
    struct cut cut = {.n = 0};
    int r = cut_job(net, job, &cut);

    if (r < 0 || cut.n == 0) {
        for (unsigned i = 0; i < cut.n; i++)
            file_net_op_free(cut.ops[i]);
        fail(net, job, r);
        return;
    }
    job->left = cut.n;
    for (unsigned i = 0; i < cut.n; i++)
        file_net_op_append(&net->todo, cut.ops[i]);
}
