/* Reads: runs of a kind, each as one request to the file, or to the backing file. */
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

/* What the image does not have: the backing file's, and zeroes where that has ended. */
static int read_backing(struct qcow2_req *r, uint64_t len)
{
    const struct disk *backing = r->q->backing;

    if (backing && r->pos < backing->size)
        return qcow2_transfer_backing(r, len < backing->size - r->pos ? len : backing->size - r->pos);
    qcow2_iov_zero(r, len);
    r->pos += len;
    return 0;
}

int qcow2_read_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_run run;
    struct qcow2_l2 l2;
    int result = qcow2_l2_get(q, r->pos, &r->waiter, &l2);

    if (result == 0)
        result = qcow2_l2_run(q, &l2, r->pos, r->end - r->pos, false, &run);
    if (result)
        return result;
    switch (run.kind) {
    case QCOW2_DATA:
        return qcow2_transfer(r, DISK_READ, run.host, run.len);
    case QCOW2_PACKED:
        return read_packed(r, &run.first, run.len);
    case QCOW2_NONE:
        return read_backing(r, run.len);
    case QCOW2_ZERO:
        break;
    }
    qcow2_iov_zero(r, run.len);
    r->pos += run.len;
    return 0;
}
