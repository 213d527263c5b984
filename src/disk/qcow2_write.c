/*
 * Writes. What has a cluster of its own is written there at once. For the rest, clusters are allocated, adjacent ones for adjacent guest clusters; they
 * get the data in one request with what surrounds it in the first and the last cluster, and L2 entries when that is written. Until then whoever else
 * would allocate for the same guest clusters waits.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

/* What surrounds the data in its first or last cluster. */
struct side {
    struct qcow2_alloc *alloc;
    uint64_t skip; /* in the cluster */
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
    bool kept;         /* they were the guest's before, hidden by a zero flag */
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

static int link_clusters(struct qcow2_alloc *a)
{
    struct qcow2 *q = a->r->q;
    struct qcow2_mapping old;
    int r = qcow2_page_modify(a->page);

    if (r)
        return r;
    for (unsigned i = 0; i < a->n; i++) {
        uint64_t entry = qcow2_be64(a->page->data + (size_t)(a->index + i) * 8);
        if (!a->kept && qcow2_l2_decode(q, entry, &old) == 0 && old.n_first)
            qcow2_free_later(q, old.first, old.n_first);
        qcow2_l2_set(a->page, a->index + i, (a->host + i) << q->cluster_bits | QCOW2_COPIED);
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
    struct qcow2_alloc *a = CONTAINER_OF(io, struct side, io)->alloc;
    struct qcow2 *q = a->r->q;

    side_read(a, result);
    qcow2_run(q);
}

static void side_unpacked(void *opaque, const uint8_t *cluster, int result)
{
    struct side *s = opaque;

    if (result == 0)
        memcpy(s->buf, cluster + s->skip, s->len);
    side_read(s->alloc, result);
}

static int read_side(struct side *s, const struct qcow2_mapping *m)
{
    struct qcow2 *q = s->alloc->r->q;

    if (!s->buf)
        return 0;
    s->alloc->reading++;
    if (m->kind == QCOW2_PACKED) {
        int r = qcow2_unpack(q, m, side_unpacked, s);
        if (r)
            s->alloc->reading--;
        return r;
    }
    s->iov = (struct iovec){s->buf, s->len};
    s->io = (struct disk_request){
        .op = DISK_READ, .offset = m->host + s->skip, .len = s->len, .iov = &s->iov, .n_iov = 1, .done = side_done};
    file_submit(q->file, &s->io);
    return 0;
}

static bool has_content(const struct qcow2_mapping *m)
{
    return m->kind == QCOW2_DATA || m->kind == QCOW2_PACKED;
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
    uint64_t guest, n, host, len;
    bool kept, fresh;
};

static struct qcow2_alloc *make_alloc(struct qcow2_req *r, const struct plan *p)
{
    struct qcow2 *q = r->q;
    uint64_t start = p->guest << q->cluster_bits, end = (p->guest + p->n) << q->cluster_bits;
    uint64_t head = r->pos - start, tail = end - r->pos - p->len;
    bool zero = r->req->op == DISK_ZERO;
    bool head_old = head && has_content(&p->first), tail_old = tail && has_content(&p->last);

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
                              .kept = p->kept,
                              .page = p->l2.page,
                              .index = p->l2.index,
                              .head = {.alloc = a, .len = head},
                              .tail = {.alloc = a, .len = tail, .skip = q->cluster_size - tail}};
    a->head.buf = head_old ? aligned_alloc(512, head) : NULL;
    a->tail.buf = tail_old ? aligned_alloc(512, tail) : NULL;
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

static int start_alloc(struct qcow2_req *r, const struct plan *p)
{
    struct qcow2 *q = r->q;
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
    int result = read_side(&a->head, &p->first);
    if (result == 0)
        result = read_side(&a->tail, &p->last);
    side_read(a, result);
    return 0;
}

/* Whether the i-th guest cluster of the plan can be allocated with those before it. */
static int joins(struct qcow2 *q, struct plan *p, uint64_t i, bool *yes)
{
    struct qcow2_mapping m;
    int r = qcow2_l2_entry(q, &p->l2, p->guest << q->cluster_bits, i, &m);

    if (r)
        return r;
    bool own = m.kind == QCOW2_ZERO && m.copied;
    *yes = !(m.kind == QCOW2_DATA && m.copied) && own == p->kept &&
           (!own || m.host == p->first.host + i * q->cluster_size);
    for (struct qcow2_alloc *a = q->allocs; a && *yes; a = a->next)
        *yes = p->guest + i < a->guest || p->guest + i >= a->guest + a->n;
    if (*yes)
        p->last = m;
    return 0;
}

/* Clusters for what begins at r->pos, which has none of its own. */
static int allocate(struct qcow2_req *r, uint64_t most)
{
    struct qcow2 *q = r->q;
    struct plan p = {.guest = r->pos >> q->cluster_bits, .n = 1};
    bool yes = true;
    int result = qcow2_alloc_conflict(q, p.guest, 1, &r->waiter);

    if (result == 0)
        result = qcow2_commit_room(q, &r->waiter);
    if (result == 0)
        result = qcow2_l2_get_writable(q, r->pos, &r->waiter, &p.l2);
    if (result == 0)
        result = qcow2_l2_entry(q, &p.l2, r->pos, 0, &p.first);
    if (result)
        return result;
    p.last = p.first;
    p.kept = p.first.kind == QCOW2_ZERO && p.first.copied;
    if (most > p.l2.n)
        most = p.l2.n;
    while (p.n < most) {
        result = joins(q, &p, p.n, &yes);
        if (result)
            return result;
        if (!yes)
            break;
        p.n++;
    }
    p.host = p.first.host >> q->cluster_bits;
    if (!p.kept) {
        uint64_t want = p.n;
        p.l2.page->pins++; /* what else is read must not push it out */
        result = qcow2_refcount_alloc(q, 1, want, &r->waiter, &p.host, &p.n, &p.fresh);
        p.l2.page->pins--;
        if (result)
            return result;
        if (p.n < want)
            result = qcow2_l2_entry(q, &p.l2, r->pos, p.n - 1, &p.last);
        if (result)
            return result;
    }
    p.len = ((p.guest + p.n) << q->cluster_bits) - r->pos;
    if (p.len > r->end - r->pos)
        p.len = r->end - r->pos;
    return start_alloc(r, &p);
}

int qcow2_write_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    uint64_t in_cluster = r->pos & (q->cluster_size - 1), n = 1;
    uint64_t most = (in_cluster + r->end - r->pos + q->cluster_size - 1) >> q->cluster_bits;
    struct qcow2_mapping first, m;
    struct qcow2_l2 l2;
    bool zero = r->req->op == DISK_ZERO;
    int result = q->broken ? -EIO : qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result == 0)
        result = qcow2_l2_entry(q, &l2, r->pos, 0, &first);
    if (result)
        return result;
    if (first.kind != QCOW2_DATA || !first.copied)
        return allocate(r, most);
    if (most > l2.n)
        most = l2.n;
    for (; n < most; n++) {
        result = qcow2_l2_entry(q, &l2, r->pos, n, &m);
        if (result)
            return result;
        if (m.kind != QCOW2_DATA || !m.copied || m.host != first.host + n * q->cluster_size)
            break;
    }
    uint64_t len = (n << q->cluster_bits) - in_cluster;
    if (len > r->end - r->pos)
        len = r->end - r->pos;
    return qcow2_transfer(r, zero ? DISK_ZERO : DISK_WRITE, first.host + in_cluster, len);
}
