/*
 * Writes. What has a place of its own is written there at once. For the rest, clusters are allocated, adjacent ones for adjacent guest clusters, or those used
 * that the guest's clusters have already, hidden by zero flags or with a part of their subclusters; they get the data in one request with what
 * surrounds it, and L2 entries when that is written. Until then whoever else would allocate for the same guest clusters waits.
 *
 * What surrounds the data is read as any guest would read it, by a request of our own: from the cluster that is left, or the backing file.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

/* What surrounds the data, before or behind it. */
struct side {
    struct qcow2_alloc *alloc;
    size_t len;
    uint8_t *buf; /* NULL: zeroes */
    struct disk_request io;
    struct iovec iov;
};

struct qcow2_alloc {
    struct qcow2_alloc *next;
    struct qcow2_req *r;
    uint64_t guest, n; /* first cluster, clusters */
    uint64_t host;     /* first cluster */
    uint64_t from, to; /* guest bytes that have a place there afterwards, whole subclusters */
    bool kept;         /* they were the guest's before */
    struct qcow2_page *page;
    unsigned index; /* of the first entry */
    struct qcow2_waitlist waiters;
    struct side head, tail;
    unsigned reading;
    int result;
    struct disk_request io;
    unsigned n_iov;
    struct iovec iov[];
};

int qcow2_alloc_conflict(struct qcow2 *q, uint64_t first, uint64_t n, struct qcow2_waiter *w)
{
    for (struct qcow2_alloc *a = q->allocs; a; a = a->next) {
        if (a->guest < first + n && first < a->guest + a->n) {
            qcow2_park(&a->waiters, w);
            return -EAGAIN;
        }
    }
    return 0;
}

int qcow2_alloc_claim(struct qcow2 *q, uint64_t guest, struct qcow2_alloc **claim)
{
    *claim = calloc(1, sizeof(**claim));
    if (!*claim)
        return -ENOMEM;
    (*claim)->guest = guest;
    (*claim)->n = 1;
    (*claim)->next = q->allocs;
    q->allocs = *claim;
    return 0;
}

static void unlink_alloc(struct qcow2 *q, struct qcow2_alloc *a)
{
    struct qcow2_alloc **link = &q->allocs;

    while (*link != a)
        link = &(*link)->next;
    *link = a->next;
}

void qcow2_alloc_unclaim(struct qcow2 *q, struct qcow2_alloc *claim)
{
    unlink_alloc(q, claim);
    qcow2_wake(q, &claim->waiters, 0);
    free(claim);
}

/* ---- the end ---- */

/* The bitmap of the alloc's i-th cluster. */
static uint64_t bitmap_of(const struct qcow2_alloc *a, uint64_t i, const struct qcow2_mapping *old)
{
    const struct qcow2 *q = a->r->q;
    uint64_t start = (a->guest + i) << q->cluster_bits, end = start + q->cluster_size;
    uint32_t mine = qcow2_subs(q, (a->from > start ? a->from : start) - start, (a->to < end ? a->to : end) - start);

    return (uint64_t)(old->zero & ~mine) << 32 | (a->kept ? old->data | mine : mine);
}

static int link_clusters(struct qcow2_alloc *a)
{
    struct qcow2 *q = a->r->q;
    struct qcow2_mapping old;
    int r = qcow2_page_modify(a->page);

    if (r)
        return r;
    for (unsigned i = 0; i < a->n; i++) {
        uint64_t entry, bitmap;
        qcow2_l2_read(q, a->page->data + (a->index + i) * q->entry_size, &entry, &bitmap);
        if (qcow2_l2_decode(q, entry, bitmap, &old) == 0 && !a->kept && old.n_first)
            qcow2_free_later(q, old.first, old.n_first);
        qcow2_l2_set(a->page, a->index + i, (a->host + i) << q->cluster_bits | QCOW2_COPIED, bitmap_of(a, i, &old));
    }
    return 0;
}

static void end_alloc(struct qcow2_alloc *a, int result)
{
    struct qcow2_req *r = a->r;
    struct qcow2 *q = r->q;

    unlink_alloc(q, a);
    if (result == 0)
        result = link_clusters(a);
    a->page->pins--;
    if (result && !a->kept)
        qcow2_free_unused(q, a->host, a->n);
    qcow2_wake(q, &a->waiters, 0); /* they try for themselves */
    free(a->head.buf);
    free(a->tail.buf);
    free(a);
    qcow2_put(r, result);
}

static void written(struct disk_request *io, int result)
{
    struct qcow2_alloc *a = CONTAINER_OF(io, struct qcow2_alloc, io);
    struct qcow2 *q = a->r->q;

    end_alloc(a, result);
    qcow2_run(q);
}

/* ---- what surrounds the data ---- */

static void side_read(struct qcow2_alloc *a, int result)
{
    if (result && !a->result)
        a->result = result;
    if (--a->reading)
        return;
    if (a->result)
        end_alloc(a, a->result);
    else
        file_submit(a->r->q->file, &a->io);
}

static void side_done(struct disk_request *io, int result)
{
    side_read(CONTAINER_OF(io, struct side, io)->alloc, result);
}

static int read_side(struct side *s, uint64_t guest)
{
    if (!s->buf)
        return 0;
    s->iov = (struct iovec){s->buf, s->len};
    s->io = (struct disk_request){
        .op = DISK_READ, .offset = guest, .len = s->len, .iov = &s->iov, .n_iov = 1, .done = side_done};
    int r = qcow2_inner(s->alloc->r->q, &s->io, false);
    s->alloc->reading += r == 0;
    return r;
}

/* Whether bytes [from, to) of the guest, which are in the cluster that m tells of, may hold anything but zeroes. */
static bool has_content(const struct qcow2 *q, const struct qcow2_mapping *m, uint64_t from, uint64_t to)
{
    uint64_t start = align_down(from, q->cluster_size);
    uint32_t subs = from < to ? qcow2_subs(q, from - start, to - start) : 0;
    bool backed = q->backing && from < q->backing->size;

    return subs && (m->kind == QCOW2_PACKED || m->data & subs || (backed && ~m->zero & subs));
}

static unsigned zero_pieces(uint64_t len)
{
    return (unsigned)((len + QCOW2_ZEROES - 1) / QCOW2_ZEROES);
}

static void add_zeroes(struct qcow2_alloc *a, uint64_t len)
{
    while (len) {
        size_t here = len < QCOW2_ZEROES ? len : QCOW2_ZEROES;
        a->iov[a->n_iov++] = (struct iovec){a->r->q->zeroes, here};
        len -= here;
    }
}

static void add_side(struct qcow2_alloc *a, const struct side *s)
{
    if (s->buf)
        a->iov[a->n_iov++] = (struct iovec){s->buf, s->len};
    else
        add_zeroes(a, s->len);
}

/* ---- the beginning ---- */

/* What is decided about an allocation before it is made. */
struct plan {
    struct qcow2_l2 l2;
    struct qcow2_mapping first, last; /* of the guest's clusters */
    uint64_t guest, n, host;
    uint64_t from, to; /* as in the alloc */
    uint64_t len;      /* of the data, from r->pos on */
    bool kept, fresh;
};

static struct qcow2_alloc *make_alloc(struct qcow2_req *r, const struct plan *p)
{
    struct qcow2 *q = r->q;
    uint64_t start = p->guest << q->cluster_bits, end = r->pos + p->len;
    uint64_t head = r->pos - p->from, tail = p->to - end;
    bool zero = r->req->op == DISK_ZERO;
    bool head_old = has_content(q, &p->first, p->from, r->pos), tail_old = has_content(q, &p->last, end, p->to);

    if (p->fresh) { /* reads as zeroes anyway */
        head = head_old ? head : 0;
        tail = tail_old ? tail : 0;
    }
    unsigned n_iov = zero_pieces(head) + zero_pieces(tail) + (zero ? zero_pieces(p->len) : qcow2_iov_count(r, p->len));
    struct qcow2_alloc *a = calloc(1, sizeof(*a) + n_iov * sizeof(a->iov[0]));
    if (!a)
        return NULL;
    *a = (struct qcow2_alloc){.r = r,
                              .guest = p->guest,
                              .n = p->n,
                              .host = p->host,
                              .from = p->from,
                              .to = p->to,
                              .kept = p->kept,
                              .page = p->l2.page,
                              .index = p->l2.index,
                              .head = {a, head, head_old ? malloc(head) : NULL, {0}, {0}},
                              .tail = {a, tail, tail_old ? malloc(tail) : NULL, {0}, {0}}};
    if ((head_old && !a->head.buf) || (tail_old && !a->tail.buf)) {
        free(a->head.buf);
        free(a->tail.buf);
        free(a);
        return NULL;
    }
    add_side(a, &a->head);
    if (zero)
        add_zeroes(a, p->len);
    else
        a->n_iov += qcow2_iov_take(r, p->len, a->iov + a->n_iov);
    add_side(a, &a->tail);
    a->io = (struct disk_request){.op = DISK_WRITE,
                                  .offset = (p->host << q->cluster_bits) + (r->pos - start) - head,
                                  .len = head + p->len + tail,
                                  .iov = a->iov,
                                  .n_iov = a->n_iov,
                                  .done = written};
    return a;
}

/* Whether a side holds what only the backing file has, which was not opened. */
static bool lacks_backing(const struct qcow2_req *r, const struct plan *p)
{
    const struct qcow2 *q = r->q;
    uint64_t start = p->guest << q->cluster_bits, last = start + ((p->n - 1) << q->cluster_bits), end = r->pos + p->len;

    if (!q->backing_name || q->backing)
        return false;
    return (p->from < r->pos && p->first.kind != QCOW2_PACKED &&
            ~(p->first.zero | p->first.data) & qcow2_subs(q, p->from - start, r->pos - start)) ||
           (end < p->to && p->last.kind != QCOW2_PACKED &&
            ~(p->last.zero | p->last.data) & qcow2_subs(q, end - last, p->to - last));
}

static int start_alloc(struct qcow2_req *r, const struct plan *p)
{
    struct qcow2 *q = r->q;

    if (lacks_backing(r, p)) {
        if (!p->kept)
            qcow2_free_unused(q, p->host, p->n);
        return -ENXIO;
    }
    struct qcow2_alloc *a = make_alloc(r, p);

    if (!a) {
        if (!p->kept)
            qcow2_free_unused(q, p->host, p->n);
        return -ENOMEM;
    }
    a->next = q->allocs;
    q->allocs = a;
    a->page->pins++;
    r->pos += p->len;
    r->pending++;
    a->reading = 1;
    int result = read_side(&a->head, p->from);
    if (result == 0)
        result = read_side(&a->tail, r->pos);
    side_read(a, result);
    return 0;
}

/* The guest's cluster has a place that nobody else has. */
static bool is_own(const struct qcow2_mapping *m)
{
    return m->kind != QCOW2_PACKED && m->host && m->copied;
}

static bool being_allocated(const struct qcow2 *q, uint64_t guest)
{
    for (const struct qcow2_alloc *a = q->allocs; a; a = a->next)
        if (guest >= a->guest && guest < a->guest + a->n)
            return true;
    return false;
}

/* Clusters that are there, up to the next subcluster that has data, which others may be writing to. */
static int plan_kept(struct qcow2_req *r, struct plan *p)
{
    struct qcow2 *q = r->q;
    uint64_t start = p->guest << q->cluster_bits;
    unsigned sub = (unsigned)((r->pos - start) >> q->sub_bits);
    struct qcow2_mapping m = p->first;

    p->host = p->first.host >> q->cluster_bits;
    p->from = align_down(r->pos, UINT64_C(1) << q->sub_bits);
    for (;;) {
        p->last = m;
        while (sub < q->n_subs && qcow2_kind_of(&m, sub) != QCOW2_DATA)
            sub++;
        p->to = start + ((p->n - 1) << q->cluster_bits) + ((uint64_t)sub << q->sub_bits);
        if (sub < q->n_subs || p->to >= r->end || p->n == p->l2.n || being_allocated(q, p->guest + p->n))
            break;
        int result = qcow2_l2_entry(q, &p->l2, r->pos, p->n, &m);
        if (result)
            return result;
        if (!is_own(&m) || m.host != p->first.host + p->n * q->cluster_size || qcow2_kind_of(&m, 0) == QCOW2_DATA)
            break;
        sub = 0;
        p->n++;
    }
    if (p->to > align_up(r->end, UINT64_C(1) << q->sub_bits))
        p->to = align_up(r->end, UINT64_C(1) << q->sub_bits);
    p->len = (p->to < r->end ? p->to : r->end) - r->pos;
    return 0;
}

/* What the guest's clusters share with others, or what is packed, moves as a whole; of the rest, the subclusters that are touched. */
static bool moves_whole(const struct qcow2_mapping *m)
{
    return m->kind == QCOW2_PACKED || m->data;
}

static int plan_new(struct qcow2_req *r, struct plan *p)
{
    struct qcow2 *q = r->q;
    uint64_t start = p->guest << q->cluster_bits, sub = UINT64_C(1) << q->sub_bits;
    uint64_t most = (r->end - start + q->cluster_size - 1) >> q->cluster_bits, want;
    struct qcow2_mapping m;
    int result = 0;

    for (most = most < p->l2.n ? most : p->l2.n; p->n < most && !being_allocated(q, p->guest + p->n); p->n++) {
        result = qcow2_l2_entry(q, &p->l2, r->pos, p->n, &m);
        if (result)
            return result;
        if (is_own(&m))
            break;
    }
    want = p->n;
    p->l2.page->pins++; /* what else is read must not push it out */
    result = qcow2_refcount_alloc(q, 1, want, &r->waiter, &p->host, &p->n, &p->fresh);
    p->l2.page->pins--;
    if (result)
        return result;
    result = qcow2_l2_entry(q, &p->l2, r->pos, p->n - 1, &p->last);
    if (result)
        return result;
    uint64_t end = start + (p->n << q->cluster_bits);
    p->len = (end < r->end ? end : r->end) - r->pos;
    p->from = moves_whole(&p->first) ? start : align_down(r->pos, sub);
    p->to = moves_whole(&p->last) ? end : align_up(r->pos + p->len, sub);
    return 0;
}

/* Places for what begins at r->pos, which has none of its own. */
static int allocate(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct plan p = {.guest = r->pos >> q->cluster_bits, .n = 1};
    int result = qcow2_alloc_conflict(q, p.guest, 1, &r->waiter);

    if (result == 0)
        result = qcow2_commit_room(q, &r->waiter);
    if (result == 0)
        result = qcow2_l2_get_writable(q, r->pos, &r->waiter, &p.l2);
    if (result == 0)
        result = qcow2_l2_entry(q, &p.l2, r->pos, 0, &p.first);
    if (result)
        return result;
    p.kept = is_own(&p.first);
    result = p.kept ? plan_kept(r, &p) : plan_new(r, &p);
    return result ? result : start_alloc(r, &p);
}

int qcow2_write_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_run run;
    struct qcow2_l2 l2;
    int result = q->broken ? -EIO : qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result == 0)
        result = qcow2_l2_run(q, &l2, r->pos, r->end - r->pos, true, &run);
    if (result)
        return result;
    if (run.kind != QCOW2_DATA || !run.first.copied)
        return allocate(r);
    return qcow2_transfer(r, r->req->op == DISK_ZERO ? DISK_ZERO : DISK_WRITE, run.host, run.len);
}
