/*
 * Compressed writes: a whole cluster is deflated on a thread, then put behind the last one, at the next sector: several share a cluster of the file, which
 * counts a reference for each, and one may go on in the adjacent cluster. What does not get smaller is written as any other cluster.
 *
 * The cluster at hand (q->pack_at) is given up when it loses its last reference, or is about to be punched: so nothing is ever put into a cluster that is on
 * its way back.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/workers.h"
#include "disk/qcow2_impl.h"

#define SECTOR 512

struct qcow2_pack {
    struct qcow2_req *r;
    struct workers_job job;
    struct qcow2_alloc *claim; /* on the guest's cluster */
    const uint8_t *in;         /* a cluster */
    uint8_t *copy;             /* `in`, where the request has not all of it in one piece; or NULL */
    bool zstd;
    size_t in_len, len; /* len: of what came out, in whole sectors; 0: it got no smaller */
    uint64_t host;      /* bytes */
    struct qcow2_page *page;
    unsigned index;
    struct disk_request io;
    struct iovec iov;
    uint8_t out[];
};

/* ---- on a thread ---- */

/* Raw deflate with a window of 4 KiB (spec, "Compressed Clusters Descriptor"). */
static size_t deflate_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t room)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in, .avail_in = (unsigned)in_len, .next_out = out, .avail_out = (unsigned)room};

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    int r = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return r == Z_STREAM_END ? room - z.avail_out : 0;
}

static void compress_cluster(struct workers_job *job)
{
    struct qcow2_pack *p = CONTAINER_OF(job, struct qcow2_pack, job);
    size_t room = p->in_len - SECTOR, len;

    if (p->zstd) {
        len = ZSTD_compress(p->out, room, p->in, p->in_len, ZSTD_CLEVEL_DEFAULT);
        len = ZSTD_isError(len) ? 0 : len;
    } else {
        len = deflate_zlib(p->in, p->in_len, p->out, room);
    }
    p->len = align_up(len, SECTOR);
    memset(p->out + len, 0, p->len - len);
}

/* ---- on the loop's thread ---- */

static void compressed(struct workers_job *job)
{
    struct qcow2_pack *p = CONTAINER_OF(job, struct qcow2_pack, job);
    struct qcow2 *q = p->r->q;
    struct qcow2_waitlist list = {0};

    qcow2_park(&list, &p->r->waiter);
    qcow2_wake(q, &list, 0);
    qcow2_run(q);
}

void qcow2_pack_drop(struct qcow2_req *r)
{
    struct qcow2_pack *p = r->pack;

    if (!p)
        return;
    r->pack = NULL;
    qcow2_alloc_unclaim(r->q, p->claim);
    free(p->copy);
    free(p);
}

/* The request's bytes in one piece, zeroes behind what the disk's end cuts short. */
static int gather(struct qcow2_pack *p)
{
    struct qcow2_req *r = p->r;
    const struct iovec *iov = r->req->iov;

    if (r->req->n_iov == 1 && iov->iov_len == p->in_len) {
        p->in = iov->iov_base;
        return 0;
    }
    p->copy = calloc(1, p->in_len);
    if (!p->copy)
        return -ENOMEM;
    p->in = p->copy;
    for (size_t i = 0, at = 0; i < r->req->n_iov; at += iov[i++].iov_len)
        memcpy(p->copy + at, iov[i].iov_base, iov[i].iov_len);
    return 0;
}

static int begin(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    int result = qcow2_alloc_conflict(q, r->pos >> q->cluster_bits, 1, &r->waiter);

    if (result)
        return result;
    if (!q->packers)
        result = workers_open(&q->packers, q->disk.loop, "disk-pack", 0);
    if (result)
        return result;
    struct qcow2_pack *p = malloc(sizeof(*p) + q->cluster_size);
    if (!p)
        return -ENOMEM;
    *p = (struct qcow2_pack){.r = r, .zstd = q->compression, .in_len = q->cluster_size};
    p->job = (struct workers_job){.run = compress_cluster, .done = compressed};
    result = gather(p);
    if (result == 0)
        result = qcow2_alloc_claim(q, r->pos >> q->cluster_bits, &p->claim);
    if (result) {
        free(p->copy);
        free(p);
        return result;
    }
    r->pack = p;
    result = workers_submit(q->packers, &p->job);
    return result ? -ENOMEM : -EAGAIN;
}

static uint64_t most_references(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << q->refcount_order)) - 1;
}

/* One reference more to the cluster at hand, which `page` counts, where there can be: 1. */
static int share(struct qcow2 *q, struct qcow2_page *page, unsigned index)
{
    uint64_t count = page ? qcow2_refcount_read(q, page->data, index) : 0;
    int r;

    if (!count || count == most_references(q))
        return 0;
    r = qcow2_page_modify(page);
    if (r)
        return r;
    qcow2_refcount_write(q, page->data, index, count + 1);
    return 1;
}

/* In a new cluster, or with its beginning in the one at hand, where that is the adjacent one and has `left` bytes. */
static int find_new_place(struct qcow2 *q, size_t len, uint64_t left, struct qcow2_page *page, unsigned index,
                          struct qcow2_waiter *w, uint64_t *host)
{
    uint64_t first, n;
    bool fresh;

    if (page)
        page->pins++; /* what else is read must not push it out */
    int r = qcow2_refcount_alloc(q, 1, 1, w, &first, &n, &fresh);
    if (page)
        page->pins--;
    if (r)
        return r;
    uint64_t start = first << q->cluster_bits;
    *host = start;
    if (left && q->pack_at + left == start) {
        r = share(q, page, index);
        if (r < 0) {
            qcow2_free_unused(q, first, 1);
            return r;
        }
        *host = r ? q->pack_at : start;
    }
    q->pack_at = *host + len < start + q->cluster_size ? *host + len : 0;
    return 0;
}

/* A place of `len` bytes in whole sectors, with its references. */
static int find_place(struct qcow2 *q, size_t len, struct qcow2_waiter *w, uint64_t *host)
{
    uint64_t left = q->pack_at ? q->cluster_size - (q->pack_at & (q->cluster_size - 1)) : 0;
    struct qcow2_page *page = NULL;
    unsigned index = 0;
    int r = left ? qcow2_refcount_get(q, q->pack_at >> q->cluster_bits, w, &page, &index) : 0;

    if (r)
        return r;
    if (left >= len) {
        r = share(q, page, index);
        if (r < 0)
            return r;
        if (r) {
            *host = q->pack_at;
            q->pack_at = left > len ? q->pack_at + len : 0;
            return 0;
        }
        left = 0;
    }
    return find_new_place(q, len, left, page, index, w, host);
}

void qcow2_pack_avoid(struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t at = q->pack_at >> q->cluster_bits;

    if (q->pack_at && at >= first && at < first + n)
        q->pack_at = 0;
}

static void written(struct disk_request *io, int result)
{
    struct qcow2_pack *p = CONTAINER_OF(io, struct qcow2_pack, io);
    struct qcow2_req *r = p->r;
    struct qcow2 *q = r->q;
    uint64_t first = p->host >> q->cluster_bits, last = (p->host + p->len - 1) >> q->cluster_bits;
    unsigned shift = 62 - (q->cluster_bits - 8);
    struct qcow2_mapping old;

    if (result == 0)
        result = qcow2_page_modify(p->page);
    if (result == 0) {
        uint64_t entry, bitmap;
        qcow2_l2_read(q, p->page->data + p->index * q->entry_size, &entry, &bitmap);
        if (qcow2_l2_decode(q, entry, bitmap, &old) == 0 && old.n_first)
            qcow2_free_later(q, old.first, old.n_first);
        qcow2_l2_set(p->page, p->index, QCOW2_COMPRESSED | (p->len / SECTOR - 1) << shift | p->host, 0);
    }
    p->page->pins--;
    if (result)
        qcow2_free_unused(q, first, last - first + 1);
    qcow2_pack_drop(r);
    qcow2_put(r, result);
    qcow2_run(q);
}

/* What came out gets a place and is written. */
static int place(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_pack *p = r->pack;
    struct qcow2_l2 l2;
    int result = qcow2_commit_room(q, &r->waiter);

    if (result == 0)
        result = qcow2_l2_get_writable(q, r->pos, &r->waiter, &l2);
    if (result)
        return result;
    l2.page->pins++; /* what else is read must not push it out */
    result = find_place(q, p->len, &r->waiter, &p->host);
    if (result) {
        l2.page->pins--;
        return result;
    }
    p->page = l2.page;
    p->index = l2.index;
    p->iov = (struct iovec){p->out, p->len};
    p->io = (struct disk_request){
        .op = DISK_WRITE, .offset = p->host, .len = p->len, .iov = &p->iov, .n_iov = 1, .done = written};
    r->pos = r->end;
    r->pending++;
    file_submit(q->file, &p->io);
    return 0;
}

/* Whether an entry's offset, which has fewer bits than others (same place), reaches the end of the file. */
static bool reaches(const struct qcow2 *q)
{
    return (q->end + 2) << q->cluster_bits <= UINT64_C(1) << (62 - (q->cluster_bits - 8));
}

/* A cluster, or what the disk's end leaves of it, that can get smaller by a sector. */
static bool is_whole(const struct qcow2_req *r)
{
    const struct qcow2 *q = r->q;
    uint64_t len = r->end - r->pos;

    return !(r->pos & (q->cluster_size - 1)) && q->cluster_size > SECTOR &&
           (len == q->cluster_size || (len < q->cluster_size && r->end == q->disk.size));
}

int qcow2_pack_step(struct qcow2_req *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_pack *p = r->pack;
    int result = -EIO;

    if (!q->broken && !(p ? p->len && reaches(q) : is_whole(r))) {
        qcow2_pack_drop(r);
        r->step = qcow2_write_step;
        return qcow2_write_step(r);
    }
    if (!q->broken)
        result = p ? place(r) : begin(r);
    if (result && result != -EAGAIN)
        qcow2_pack_drop(r);
    return result;
}
