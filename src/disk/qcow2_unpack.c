/* Compressed clusters: read, and inflated by zlib or zstd. The last one is kept: small reads come one after the other. */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/log.h"
#include "disk/qcow2_impl.h"

struct unpack {
    struct qcow2 *q;
    uint64_t entry;
    void (*done)(void *opaque, const uint8_t *cluster, int result);
    void *opaque;
    struct disk_request io;
    struct iovec iov;
};

/* Raw deflate with a window of 4 KiB (spec, "Compressed Clusters Descriptor"); what is behind the stream, up to the next sector, is anything. */
static bool inflate_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    z_stream z = {
        .next_in = (Bytef *)in, .avail_in = (unsigned)in_len, .next_out = out, .avail_out = (unsigned)out_len};

    if (inflateInit2(&z, -12) != Z_OK)
        return false;
    int r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (r == Z_STREAM_END || r == Z_BUF_ERROR) && z.avail_out == 0;
}

static bool inflate_zstd(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    ZSTD_inBuffer from = {in, in_len, 0};
    ZSTD_outBuffer to = {out, out_len, 0};
    ZSTD_DCtx *ctx = ZSTD_createDCtx();

    while (ctx && to.pos < to.size) {
        size_t before = from.pos + to.pos;
        if (ZSTD_isError(ZSTD_decompressStream(ctx, &to, &from)) || from.pos + to.pos == before)
            break;
    }
    ZSTD_freeDCtx(ctx);
    return to.pos == to.size;
}

static int inflate_cluster(struct qcow2 *q, const struct unpack *u)
{
    bool ok =
        (q->compression ? inflate_zstd : inflate_zlib)(u->iov.iov_base, u->iov.iov_len, q->unpacked, q->cluster_size);

    q->unpacked_entry = ok ? u->entry : 0;
    if (!ok && !q->unpack_failed) {
        q->unpack_failed = true;
        log_error("disk '%.200s': the compressed cluster at offset 0x%llx cannot be unpacked", q->disk.path,
                  (unsigned long long)u->io.offset);
    }
    return ok ? 0 : -EIO;
}

static void packed_read(struct disk_request *io, int result)
{
    struct unpack *u = CONTAINER_OF(io, struct unpack, io);
    struct qcow2 *q = u->q;

    if (result == 0)
        result = inflate_cluster(q, u);
    u->done(u->opaque, q->unpacked, result);
    free(u->iov.iov_base);
    free(u);
    qcow2_run(q);
}

int qcow2_unpack(struct qcow2 *q, const struct qcow2_mapping *m,
                 void (*done)(void *opaque, const uint8_t *cluster, int result), void *opaque)
{
    if (m->entry == q->unpacked_entry) {
        done(opaque, q->unpacked, 0);
        return 0;
    }
    struct unpack *u = malloc(sizeof(*u));
    if (!u)
        return -ENOMEM;
    *u = (struct unpack){.q = q, .entry = m->entry, .done = done, .opaque = opaque, .iov = {malloc(m->len), m->len}};
    if (!u->iov.iov_base) {
        free(u);
        return -ENOMEM;
    }
    u->io = (struct disk_request){
        .op = DISK_READ, .offset = m->host, .len = m->len, .iov = &u->iov, .n_iov = 1, .done = packed_read};
    file_submit(q->file, &u->io);
    return 0;
}
