#include "image/chain.h"

#include <errno.h>
#include <stdlib.h>

#include "disk/disk_chain.h"
#include "disk/disk_snapshot.h"
#include "image/copy.h"

#define CHUNK     (2 * MIB)   /* read at once */
#define PIECE     (256 * KIB) /* by one request */
#define GRANULE   (4 * KIB)   /* compared, and copied, as one */
#define N_EXTENTS 64

/* What a disk is made of, around the place last asked for. */
struct view {
    struct disk *disk; /* NULL: a hole */
    struct disk_extent extents[N_EXTENTS];
    unsigned n, at;
};

struct rebase {
    struct disk *image;
    const char *snapshot; /* whose content `old` is: nothing of it may change; NULL: the image's */
    struct view old, new;
    uint8_t *was, *is;
    struct reads *reads;
};

static int fail(const struct disk *disk, const char *what, uint64_t offset, int r, struct err *err)
{
    return err_set(err, r, "disk '%.200s': offset %llu: %s: %s", disk->path, (unsigned long long)offset, what,
                   strerror(-r));
}

/* The extent at `pos`, and behind it to its end. */
static int look(struct view *v, uint64_t pos, struct disk_extent *e, struct err *err)
{
    if (!v->disk || pos >= v->disk->size) {
        *e = (struct disk_extent){.kind = DISK_EXTENT_HOLE, .offset = pos, .len = UINT64_MAX - pos};
        return 0;
    }
    while (v->at < v->n && pos >= v->extents[v->at].offset + v->extents[v->at].len)
        v->at++;
    if (v->at == v->n) {
        struct disk_request req = {
            .op = DISK_MAP, .offset = pos, .len = v->disk->size - pos, .extents = v->extents, .n_extents = N_EXTENTS};
        int r = disk_call(v->disk, &req);
        if (r == -ENOTSUP) { /* it cannot tell */
            v->extents[0] = (struct disk_extent){.offset = pos, .len = v->disk->size - pos};
            req.n_extents = 1;
        } else if (r || !req.n_extents) {
            return fail(v->disk, "what it is made of cannot be read", pos, r ? r : -EIO, err);
        }
        v->n = req.n_extents;
        v->at = 0;
    }
    *e = v->extents[v->at];
    e->len -= pos - e->offset;
    e->offset = pos;
    return 0;
}

static int call(struct disk *disk, enum disk_op op, uint64_t offset, uint8_t *buf, uint64_t len, struct err *err)
{
    struct iovec iov = {buf, len};
    struct disk_request req = {
        .op = op, .unmap = true, .offset = offset, .len = len, .iov = &iov, .n_iov = buf ? 1 : 0};
    int r = disk_call(disk, &req);

    return r ? fail(disk, op == DISK_READ ? "cannot be read" : "cannot be written", offset, r, err) : 0;
}

/* Reads under way, all at once, of both views. */
struct reads {
    struct loop *loop;
    unsigned left;
    struct disk_request requests[2 * CHUNK / PIECE];
    struct iovec iov[2 * CHUNK / PIECE];
    struct disk *disks[2 * CHUNK / PIECE];
    int results[2 * CHUNK / PIECE];
    unsigned n;
};

static void read_done(struct disk_request *req, int result)
{
    struct reads *reads = req->opaque;

    reads->results[req - reads->requests] = result;
    if (--reads->left == 0)
        loop_stop(reads->loop);
}

static void add_reads(struct reads *reads, const struct view *v, uint64_t pos, uint8_t *buf, uint64_t len)
{
    uint64_t have = !v->disk || pos >= v->disk->size ? 0 : v->disk->size - pos;

    if (have > len)
        have = len;
    memset(buf + have, 0, len - have);
    for (uint64_t at = 0; at < have; at += PIECE, reads->n++) {
        uint64_t here = have - at < PIECE ? have - at : PIECE;
        reads->iov[reads->n] = (struct iovec){buf + at, here};
        reads->requests[reads->n] = (struct disk_request){.op = DISK_READ,
                                                          .offset = pos + at,
                                                          .len = here,
                                                          .iov = &reads->iov[reads->n],
                                                          .n_iov = 1,
                                                          .done = read_done,
                                                          .opaque = reads};
        reads->disks[reads->n] = v->disk;
    }
}

/* Both views of [pos, pos + len), of a chunk at most. */
static int read_both(struct rebase *b, uint64_t pos, uint64_t len, struct err *err)
{
    struct reads *reads = b->reads;
    int r = 0;

    reads->n = 0;
    add_reads(reads, &b->old, pos, b->was, len);
    add_reads(reads, &b->new, pos, b->is, len);
    reads->left = reads->n;
    for (unsigned i = 0; i < reads->n; i++)
        disk_submit(reads->disks[i], &reads->requests[i]);
    if (reads->n)
        loop_run(reads->loop);
    for (unsigned i = 0; r == 0 && i < reads->n; i++)
        if (reads->results[i])
            r = fail(reads->disks[i], "cannot be read", reads->requests[i].offset, reads->results[i], err);
    return r;
}

static bool is_zero(const uint8_t *buf, uint64_t len)
{
    return buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0;
}

static uint64_t granule(uint64_t at, uint64_t len)
{
    return len - at < GRANULE ? len - at : GRANULE;
}

/* Snapshots have the image's backing file. They cannot be written to, so what they read from it must stay. */
static int would_change(const struct disk *image, const char *snapshot, uint64_t offset, struct err *err)
{
    return err_set(
        err, -EBUSY,
        "disk '%.200s': offset %llu: the snapshot '%.60s' has what the backing file has there, and would lose "
        "it; remove it, or convert it into an image of its own before",
        image->path, (unsigned long long)offset, snapshot);
}

/* Runs of granules that differ become the image's own, as what they were. */
static int copy_differences(struct rebase *b, uint64_t pos, uint64_t len, struct err *err)
{
    int r = read_both(b, pos, len, err);

    for (uint64_t at = 0; r == 0 && at < len;) {
        uint64_t first = at;
        bool zero = is_zero(b->was + at, granule(at, len));
        while (at < len && memcmp(b->was + at, b->is + at, granule(at, len)) &&
               is_zero(b->was + at, granule(at, len)) == zero)
            at += granule(at, len);
        if (at == first)
            at += granule(at, len);
        else if (b->snapshot)
            r = would_change(b->image, b->snapshot, pos + first, err);
        else if (zero)
            r = call(b->image, DISK_ZERO, pos + first, NULL, at - first, err);
        else
            r = call(b->image, DISK_WRITE, pos + first, b->was + first, at - first, err);
    }
    return r;
}

/* The next bytes from pos on: what there is to do about them is done. */
static int rebase_some(struct rebase *b, uint64_t pos, uint64_t *len, struct err *err)
{
    struct disk_extent old, new;
    int r = look(&b->old, pos, &old, err);

    if (r == 0)
        r = look(&b->new, pos, &new, err);
    if (r)
        return r;
    *len = old.len;
    if (old.depth == 0 && old.kind != DISK_EXTENT_HOLE)
        return 0; /* the image's own */
    *len = old.len < new.len ? old.len : new.len;
    if (old.kind != DISK_EXTENT_DATA && new.kind != DISK_EXTENT_DATA)
        return 0;
    if (*len > CHUNK)
        *len = CHUNK;
    return copy_differences(b, pos, *len, err);
}

/* All of what b->old shows. */
static int rebase_all(struct rebase *b, const struct image_job *job, struct err *err)
{
    uint64_t size = b->old.disk->size, len = 0;
    int r = 0;

    for (uint64_t pos = 0; r == 0 && pos < size; pos += len) {
        r = image_job_report(job, pos, size, err);
        if (r == 0)
            r = rebase_some(b, pos, &len, err);
    }
    return r;
}

/* ---- snapshots ---- */

/* each(opaque, snapshot's disk, its name) for each that the image has, until one is not 0. */
static int each_snapshot(struct disk *image,
                         int (*each)(void *opaque, struct disk *view, const char *name, struct err *err), void *opaque,
                         struct err *err)
{
    struct disk_snapshots list = {0};
    int r = image->type->snapshots ? disk_snapshot_list(image, &list, err) : 0;

    for (size_t i = 0; r == 0 && i < list.n; i++) {
        struct disk *view;
        r = disk_snapshot_view(&view, image, list.items[i].id, err);
        if (r)
            break;
        r = each(opaque, view, list.items[i].name, err);
        disk_close(view);
    }
    free(list.items);
    return r;
}

/* Where the image has something of its own, which changes the backing file, each snapshot has, too. */
static int keeps_commit(void *opaque, struct disk *disk, const char *name, struct err *err)
{
    struct disk *image = opaque;
    struct view *own = calloc(2, sizeof(*own)), *theirs = own ? own + 1 : NULL;
    uint64_t end = image->size < disk->size ? image->size : disk->size;
    struct disk_extent a, b;
    int r = own ? 0 : err_set(err, -ENOMEM, "disk '%.200s': out of memory", image->path);

    if (own) {
        own->disk = image;
        theirs->disk = disk;
    }
    for (uint64_t pos = 0; r == 0 && pos < end; pos += a.len < b.len ? a.len : b.len) {
        r = look(own, pos, &a, err);
        if (r == 0)
            r = look(theirs, pos, &b, err);
        if (r == 0 && a.kind != DISK_EXTENT_HOLE && b.kind == DISK_EXTENT_HOLE)
            r = would_change(image, name, pos, err);
    }
    free(own);
    return r;
}

static int keeps_rebase(void *opaque, struct disk *disk, const char *name, struct err *err)
{
    struct rebase *b = opaque;
    struct disk *onto = b->new.disk;

    b->snapshot = name;
    b->old = (struct view){.disk = disk};
    b->new = (struct view){.disk = onto};
    return rebase_all(b, NULL, err);
}

/* ---- what is done ---- */

int image_chain_commit(struct disk *image, struct disk *backing, const struct image_job *job, struct err *err)
{
    const struct image_copy_conf conf = {.from = image, .to = backing, .skip_holes = true, .job = job};
    int r = each_snapshot(image, keeps_commit, image, err);

    if (r == 0 && image->size > backing->size)
        r = disk_resize(backing, image->size, err);
    if (r == 0)
        r = image_copy(&conf, err);
    return r ? r : disk_backing_empty(image, err);
}

int image_chain_rebase(struct disk *image, struct disk *onto, const char *name, const char *format,
                       const struct image_job *job, struct err *err)
{
    struct rebase *b = calloc(1, sizeof(*b));

    if (b) {
        *b = (struct rebase){.image = image, .new.disk = onto};
        b->was = aligned_alloc(4096, CHUNK);
        b->is = aligned_alloc(4096, CHUNK);
        b->reads = calloc(1, sizeof(*b->reads));
    }
    if (b && b->reads)
        b->reads->loop = image->loop;
    int r = b && b->was && b->is && b->reads ? each_snapshot(image, keeps_rebase, b, err)
                                             : err_set(err, -ENOMEM, "disk '%.200s': out of memory", image->path);
    if (onto)
        disk_backing_expect(image, onto->size);
    if (r == 0) {
        b->snapshot = NULL;
        b->old = (struct view){.disk = image};
        b->new = (struct view){.disk = onto};
        r = rebase_all(b, job, err);
    }
    if (r == 0)
        r = call(image, DISK_FLUSH, 0, NULL, 0, err);
    if (r == 0)
        r = disk_backing_set(image, name, format, err);
    if (b) {
        free(b->was);
        free(b->is);
        free(b->reads);
    }
    free(b);
    return r;
}
