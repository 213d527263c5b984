/*
 * Discard and write-zeroes. Whole clusters lose their place, or keep it behind the zero flag where room is to be kept; they are given back after the next
 * commit (qcow2_free.c). Parts of clusters are written with zeroes, where they are not zeroes yet.
 */
#include <errno.h>

#include "disk/qcow2_impl.h"

/* What becomes of a cluster. */
enum change { KEEP, UNMAP, HIDE, OVERWRITE };

static enum change change_of(const struct qcow2_req *r, const struct qcow2_mapping *m)
{
    const struct qcow2 *q = r->q;
    bool give_back = q->disk.discard && (r->req->op == DISK_DISCARD || r->req->unmap);

    switch (m->kind) {
    case QCOW2_NONE:
        return KEEP;
    case QCOW2_ZERO:
        return m->n_first && give_back ? UNMAP : KEEP;
    case QCOW2_PACKED:
        return UNMAP;
    default:
        if (give_back || !m->copied)
            return UNMAP;
        return q->version >= 3 ? HIDE : OVERWRITE;
    }
}

/* The next clusters of the page that change alike; l2 may be read only yet. */
static int find_run(struct qcow2_req *r, const struct qcow2_l2 *l2, uint64_t most, enum change *change,
                    struct qcow2_mapping *first, uint64_t *n)
{
    struct qcow2 *q = r->q;
    struct qcow2_mapping m;

    for (*n = 0; *n < most; ++*n) {
        int result = qcow2_l2_entry(q, l2, r->pos, *n, &m);
        if (result)
            return result;
        if (*n == 0) {
            *change = change_of(r, &m);
            *first = m;
        } else if (change_of(r, &m) != *change ||
                   (*change == OVERWRITE && m.host != first->host + *n * q->cluster_size)) {
            break;
        }
    }
    return 0;
}

static int apply(struct qcow2_req *r, uint64_t n, enum change change)
{
    struct qcow2 *q = r->q;
    struct qcow2_mapping m;
    struct qcow2_l2 l2;
    int result = qcow2_alloc_conflict(q, r->pos >> q->cluster_bits, n, &r->waiter);

    if (result == 0)
        result = qcow2_commit_room(q, &r->waiter);
    if (result == 0)
        result = qcow2_l2_get_writable(q, r->pos, &r->waiter, &l2);
    if (result == 0)
        result = qcow2_page_modify(l2.page);
    for (uint64_t i = 0; result == 0 && i < n; i++) {
        result = qcow2_l2_entry(q, &l2, r->pos, i, &m);
        if (result)
            break;
        if (change == HIDE) {
            qcow2_l2_set(l2.page, l2.index + (unsigned)i, m.entry | QCOW2_READS_ZERO);
            continue;
        }
        qcow2_free_later(q, m.first, m.n_first);
        qcow2_l2_set(l2.page, l2.index + (unsigned)i, 0);
    }
    return result;
}

/* Whole clusters from r->pos on. */
static int unmap(struct qcow2_req *r, uint64_t n)
{
    struct qcow2 *q = r->q;
    struct qcow2_mapping first = {0};
    struct qcow2_l2 l2;
    enum change change = KEEP;
    int result = q->broken ? -EIO : qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result)
        return result;
    if (n > l2.n)
        n = l2.n;
    if (l2.page) {
        result = find_run(r, &l2, n, &change, &first, &n);
        if (result)
            return result;
        if (change == OVERWRITE) {
            uint64_t len = n << q->cluster_bits;
            return qcow2_transfer(r, DISK_ZERO, first.host, len < r->end - r->pos ? len : r->end - r->pos);
        }
        if (change != KEEP)
            result = apply(r, n, change);
        if (result)
            return result;
    }
    r->pos += n << q->cluster_bits;
    return 0;
}

int qcow2_discard_step(struct qcow2_req *r)
{
    return unmap(r, (r->end - r->pos) >> r->q->cluster_bits);
}

/* A part of one cluster. */
static int zero_part(struct qcow2_req *r, uint64_t len)
{
    struct qcow2 *q = r->q;
    struct qcow2_mapping m;
    struct qcow2_l2 l2;
    uint64_t end = r->end;
    int result = qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result == 0)
        result = qcow2_l2_entry(q, &l2, r->pos, 0, &m);
    if (result)
        return result;
    if (m.kind == QCOW2_NONE || m.kind == QCOW2_ZERO) {
        result = qcow2_alloc_conflict(q, r->pos >> q->cluster_bits, 1, &r->waiter);
        r->pos += result ? 0 : len;
        return result;
    }
    r->end = r->pos + len;
    result = qcow2_write_step(r);
    r->end = end;
    return result;
}

int qcow2_zero_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    uint64_t in_cluster = r->pos & (q->cluster_size - 1), left = r->end - r->pos;
    uint64_t whole = left >> q->cluster_bits;

    if (r->end == q->disk.size) /* the last may be cut short by the disk's end */
        whole = (left + q->cluster_size - 1) >> q->cluster_bits;
    if (in_cluster)
        return zero_part(r, left < q->cluster_size - in_cluster ? left : q->cluster_size - in_cluster);
    return whole ? unmap(r, whole) : zero_part(r, left);
}
