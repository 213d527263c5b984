/* Reads: runs of adjacent clusters of a kind, each as one request to the file. */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

/* A part of a compressed cluster that is read. */
struct packed_read {
    struct qcow2_req *r;
    uint64_t skip; /* in the cluster */
    unsigned n_iov;
    struct iovec iov[];
};

static void unpacked(void *opaque, const uint8_t *cluster, int result)
{
    struct packed_read *p = opaque;

    if (result == 0)
        qcow2_iov_copy(p->iov, p->n_iov, cluster + p->skip);
    qcow2_put(p->r, result);
    free(p);
}

static int read_packed(struct qcow2_req *r, const struct qcow2_mapping *m, uint64_t len)
{
    unsigned n = qcow2_iov_count(r, len);
    struct packed_read *p = malloc(sizeof(*p) + n * sizeof(p->iov[0]));

    if (!p)
        return -ENOMEM;
    p->r = r;
    p->skip = r->pos & (r->q->cluster_size - 1);
    p->n_iov = qcow2_iov_take(r, len, p->iov);
    r->pos += len;
    r->pending++;
    int result = qcow2_unpack(r->q, m, unpacked, p);
    if (result) {
        r->pending--;
        free(p);
    }
    return result;
}

static bool continues(const struct qcow2 *q, const struct qcow2_mapping *first, uint64_t i,
                      const struct qcow2_mapping *m)
{
    if (first->kind == QCOW2_DATA)
        return m->kind == QCOW2_DATA && m->host == first->host + i * q->cluster_size;
    return m->kind == QCOW2_NONE || m->kind == QCOW2_ZERO;
}

int qcow2_read_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_mapping first, m;
    struct qcow2_l2 l2;
    uint64_t in_cluster = r->pos & (q->cluster_size - 1), n = 1;
    int result = qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result == 0)
        result = qcow2_l2_entry(q, &l2, r->pos, 0, &first);
    if (result)
        return result;
    uint64_t most = (in_cluster + r->end - r->pos + q->cluster_size - 1) >> q->cluster_bits;
    if (most > l2.n)
        most = l2.n;
    if (!l2.page)
        n = most;
    while (n < most && first.kind != QCOW2_PACKED) {
        result = qcow2_l2_entry(q, &l2, r->pos, n, &m);
        if (result)
            return result;
        if (!continues(q, &first, n, &m))
            break;
        n++;
    }
    uint64_t len = (n << q->cluster_bits) - in_cluster;
    if (len > r->end - r->pos)
        len = r->end - r->pos;
    if (first.kind == QCOW2_DATA)
        return qcow2_transfer(r, DISK_READ, first.host + in_cluster, len);
    if (first.kind == QCOW2_PACKED)
        return read_packed(r, &first, len);
    qcow2_iov_zero(r, len);
    r->pos += len;
    return 0;
}
