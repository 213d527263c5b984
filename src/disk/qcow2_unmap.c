/*
 * Discard and write-zeroes. Whole clusters lose their place, or keep it behind the zero flag where room is to be kept; they are given back after the next
 * commit (qcow2_free.c). Parts of clusters are written with zeroes, where they are not zeroes yet; whole subclusters get a flag of their own.
 *
 * What is below a backing file's end keeps a zero flag, so that the backing file does not show. Version 2 has no such flag: there zeroes are
 * written, and a discard leaves all as it is.
 */
#include <errno.h>

#include "disk/qcow2_impl.h"

/* What becomes of a cluster. */
enum change { KEEP, UNMAP, HIDE, OVERWRITE };

static uint32_t all_subs(const struct qcow2 *q)
{
    return (uint32_t)((UINT64_C(1) << q->n_subs) - 1);
}

/* Whether the subclusters read as zeroes, and say so where that is needed. */
static bool are_zeroes(const struct qcow2 *q, const struct qcow2_mapping *m, uint32_t subs, bool backed)
{
    return m->kind != QCOW2_PACKED && !(m->data & subs) && (!backed || (m->zero & subs) == subs);
}

static enum change change_of(const struct qcow2_req *r, uint64_t i, const struct qcow2_mapping *m)
{
    const struct qcow2 *q = r->q;
    bool give_back = q->disk.discard && (r->req->op == DISK_DISCARD || r->req->unmap);
    bool backed = r->pos + i * q->cluster_size < q->backed_below;

    if (r->forget)
        return m->entry || m->zero ? UNMAP : KEEP;
    if (are_zeroes(q, m, all_subs(q), backed))
        return m->n_first && give_back ? UNMAP : KEEP;
    if (backed && q->version < 3)
        return r->req->op == DISK_DISCARD ? KEEP : OVERWRITE;
    if (m->kind == QCOW2_PACKED || !m->host || give_back || !m->copied)
        return UNMAP;
    return q->version >= 3 ? HIDE : OVERWRITE;
}

/* How many of the next clusters of the page change alike; l2 may be read only yet. */
static int find_run(struct qcow2_req *r, const struct qcow2_l2 *l2, uint64_t most, enum change *change, uint64_t *n)
{
    struct qcow2_mapping m;

    for (*n = 0; *n < most; ++*n) {
        int result = qcow2_l2_entry(r->q, l2, r->pos, *n, &m);
        if (result)
            return result;
        enum change this = change_of(r, *n, &m);
        if (*n && this != *change)
            break;
        *change = this;
    }
    return 0;
}

static void set_zero(const struct qcow2_l2 *l2, uint64_t i, uint64_t entry)
{
    bool subs = l2->page->q->n_subs > 1;

    qcow2_l2_set(l2->page, l2->index + (unsigned)i, subs ? entry : entry | QCOW2_READS_ZERO, QCOW2_SUBS_ZERO);
}

/* *n: clusters; fewer afterwards where the page ends. */
static int apply(struct qcow2_req *r, uint64_t *n, enum change change)
{
    struct qcow2 *q = r->q;
    struct qcow2_mapping m;
    struct qcow2_l2 l2;
    int result = qcow2_alloc_conflict(q, r->pos >> q->cluster_bits, *n, &r->waiter);

    if (result == 0)
        result = qcow2_commit_room(q, &r->waiter);
    if (result == 0)
        result = qcow2_l2_get_writable(q, r->pos, &r->waiter, &l2);
    if (result == 0)
        result = qcow2_page_modify(l2.page);
    if (result)
        return result;
    *n = *n < l2.n ? *n : l2.n;
    for (uint64_t i = 0; i < *n; i++) {
        result = qcow2_l2_entry(q, &l2, r->pos, i, &m);
        if (result)
            return result;
        if (change == HIDE) {
            set_zero(&l2, i, m.entry);
            continue;
        }
        if (m.n_first)
            qcow2_free_later(q, m.first, m.n_first);
        if (!r->forget && r->pos + i * q->cluster_size < q->backed_below)
            set_zero(&l2, i, 0);
        else
            qcow2_l2_set(l2.page, l2.index + (unsigned)i, 0, 0);
    }
    return 0;
}

#define MOST_ZEROES (32 * MIB) /* written in one request */

/* What write_step() makes of the next bytes, `len` at most: zeroes. */
static int write_zeroes(struct qcow2_req *r, uint64_t len)
{
    uint64_t end = r->end;

    len = len < MOST_ZEROES ? len : MOST_ZEROES;
    r->end = len < end - r->pos ? r->pos + len : end;
    int result = qcow2_write_step(r);
    r->end = end;
    return result;
}

/* Whole clusters from r->pos on. */
static int unmap(struct qcow2_req *r, uint64_t n)
{
    struct qcow2 *q = r->q;
    struct qcow2_l2 l2;
    enum change change = KEEP;
    int result = q->broken ? -EIO : qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result)
        return result;
    if (n > l2.n)
        n = l2.n;
    if (l2.page || (r->pos < q->backed_below && !r->forget)) {
        result = find_run(r, &l2, n, &change, &n);
        if (result)
            return result;
        if (change == OVERWRITE)
            return write_zeroes(r, n << q->cluster_bits);
        if (change != KEEP)
            result = apply(r, &n, change);
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

/* Flags for the subclusters of [r->pos, r->pos + len), which are whole and of one cluster. */
static int flag_zero(struct qcow2_req *r, uint64_t len)
{
    struct qcow2 *q = r->q;
    uint64_t in_cluster = r->pos & (q->cluster_size - 1);
    uint32_t subs = qcow2_subs(q, in_cluster, in_cluster + len);
    struct qcow2_mapping m;
    struct qcow2_l2 l2;
    int result = qcow2_commit_room(q, &r->waiter);

    if (result == 0)
        result = qcow2_l2_get_writable(q, r->pos, &r->waiter, &l2);
    if (result == 0)
        result = qcow2_page_modify(l2.page);
    if (result == 0)
        result = qcow2_l2_entry(q, &l2, r->pos, 0, &m);
    if (result)
        return result;
    qcow2_l2_set(l2.page, l2.index, m.entry, (uint64_t)(m.zero | subs) << 32 | (m.data & ~subs));
    r->pos += len;
    return 0;
}

/* A part of one cluster: of a subcluster, or whole ones. */
static int zero_part(struct qcow2_req *r, uint64_t len)
{
    struct qcow2 *q = r->q;
    uint64_t in_cluster = r->pos & (q->cluster_size - 1), sub = UINT64_C(1) << q->sub_bits;
    bool whole = q->n_subs > 1 && in_cluster % sub == 0 && len >= sub;
    struct qcow2_mapping m;
    struct qcow2_l2 l2;
    int result = q->broken ? -EIO : qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    len = whole ? align_down(len, sub) : len < sub - in_cluster % sub ? len : sub - in_cluster % sub;
    if (result == 0)
        result = qcow2_l2_entry(q, &l2, r->pos, 0, &m);
    if (result)
        return result;
    bool zeroes = are_zeroes(q, &m, qcow2_subs(q, in_cluster, in_cluster + len), r->pos < q->backed_below);
    if (!zeroes && (!whole || m.kind == QCOW2_PACKED))
        return write_zeroes(r, len);
    result = qcow2_alloc_conflict(q, r->pos >> q->cluster_bits, 1, &r->waiter);
    if (result)
        return result;
    if (!zeroes)
        return flag_zero(r, len);
    r->pos += len;
    return 0;
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
