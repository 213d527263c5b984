/*
 * An empty image: header, refcount table, refcount blocks, L1, in this order, and no more. A preallocated one goes on with an L2 table for each L1 entry and
 * the guest's clusters, one behind the other.
 */
#include "disk/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "disk/format.h"
#include "disk/qcow2_impl.h"

typedef unsigned long long ull;

#define HEADER_LENGTH 112 /* with a compression type that is none of zlib */
#define BACKING_AT    136 /* bytes before a backing file's name, but for that of its format */

struct shape {
    struct qcow2 q; /* of which sizes are used, not files */
    uint64_t l1_entries, l1_clusters, table_clusters, n_blocks, end;
    uint64_t first_l2, l2_clusters, data_clusters; /* of a preallocated image; 0 of others */
};

static int check(const struct disk_create_conf *conf, const char *path, struct err *err)
{
    if (!conf->size || conf->size % DISK_BLOCK_SIZE || conf->size >= QCOW2_MAX_OFFSET)
        return err_set(err, -EINVAL, "disk '%.200s': size %llu; accepted are multiples of %u below 2^56", path,
                       (ull)conf->size, DISK_BLOCK_SIZE);
    if (conf->version != 2 && conf->version != 3)
        return err_set(err, -EINVAL, "disk '%.200s': version %u; accepted are 2 and 3", path, conf->version);
    if (conf->cluster_size < 512 || conf->cluster_size > 2 * MIB || conf->cluster_size & (conf->cluster_size - 1))
        return err_set(err, -EINVAL, "disk '%.200s': clusters of %u bytes; accepted are powers of two from 512 to 2M",
                       path, conf->cluster_size);
    if (conf->refcount_bits > 64 || conf->refcount_bits & (conf->refcount_bits - 1) ||
        (conf->version == 2 && conf->refcount_bits != 16))
        return err_set(err, -EINVAL,
                       "disk '%.200s': refcounts of %u bits; accepted are 1 to 64, powers of two, and 16 "
                       "alone in version 2",
                       path, conf->refcount_bits);
    if (conf->extended_l2 && (conf->version == 2 || conf->cluster_size < 16 * KIB))
        return err_set(
            err, -EINVAL,
            "disk '%.200s': extended L2 entries in version %u with clusters of %u bytes; accepted is version 3 "
            "with 16K at least",
            path, conf->version, conf->cluster_size);
    if (conf->compression && strcmp(conf->compression, "zlib") != 0 &&
        (strcmp(conf->compression, "zstd") != 0 || conf->version == 2))
        return err_set(err, -EINVAL,
                       "disk '%.200s': compression '%.60s' in version %u; accepted are zlib and, in version 3, zstd",
                       path, conf->compression, conf->version);
    if (conf->lazy_refcounts && conf->version == 2)
        return err_set(err, -EINVAL, "disk '%.200s': lazy refcounts in version 2; accepted is version 3", path);
    if (conf->preallocation && conf->backing)
        return err_set(
            err, -EINVAL,
            "disk '%.200s': preallocated with a backing file, which would be hidden; accepted is one of both", path);
    size_t room = conf->cluster_size - BACKING_AT - (conf->backing ? strlen(conf->backing_format) : 0);
    if (conf->backing && (!*conf->backing_format || strlen(conf->backing_format) > 15))
        return err_set(err, -EINVAL, "disk '%.200s': backing file '%.200s': format '%.60s'; accepted are raw and qcow2",
                       path, conf->backing, conf->backing_format);
    if (conf->backing && (!*conf->backing || strlen(conf->backing) > (room < 1023 ? room : 1023)))
        return err_set(err, -ENAMETOOLONG, "disk '%.200s': backing file '%.60s': accepted are names of 1 to %zu bytes",
                       path, conf->backing, room < 1023 ? room : 1023);
    return 0;
}

static int lay_out(struct shape *s, const struct disk_create_conf *conf, const char *path, struct err *err)
{
    struct qcow2 *q = &s->q;

    q->version = conf->version;
    q->cluster_size = conf->cluster_size;
    q->cluster_bits = (unsigned)__builtin_ctz(conf->cluster_size);
    q->refcount_order = (unsigned)__builtin_ctz(conf->refcount_bits);
    q->block_bits = q->cluster_bits + 3 - q->refcount_order;
    q->compression = conf->compression && strcmp(conf->compression, "zstd") == 0;
    q->incompatible = (conf->extended_l2 ? QCOW2_EXTENDED_L2 : 0) | (q->compression ? QCOW2_COMPRESSION : 0);
    qcow2_l2_shape(q);
    s->l1_entries = (conf->size + (UINT64_C(1) << q->l2_bits) - 1) >> q->l2_bits;
    if (s->l1_entries > QCOW2_MAX_L1_BYTES / 8)
        return err_set(err, -EFBIG, "disk '%.200s': size %llu; with clusters of %u bytes, %llu are accepted at most",
                       path, (ull)conf->size, conf->cluster_size, (ull)((QCOW2_MAX_L1_BYTES / 8) << q->l2_bits));
    s->l1_clusters = (s->l1_entries * 8 + q->cluster_size - 1) >> q->cluster_bits;
    if (conf->preallocation) {
        s->l2_clusters = s->l1_entries;
        s->data_clusters = (conf->size + q->cluster_size - 1) >> q->cluster_bits;
    }
    s->table_clusters = s->n_blocks = 1;
    for (;;) {
        s->first_l2 = 1 + s->table_clusters + s->n_blocks + s->l1_clusters;
        s->end = s->first_l2 + s->l2_clusters + s->data_clusters;
        if (s->table_clusters << q->cluster_bits > QCOW2_MAX_TABLE)
            return err_set(
                err, -EFBIG,
                "disk '%.200s': size %llu: too large to be preallocated with clusters of %u bytes; accepted are "
                "larger ones",
                path, (ull)conf->size, conf->cluster_size);
        uint64_t blocks = ((s->end - 1) >> q->block_bits) + 1;
        uint64_t clusters = (blocks * 8 + q->cluster_size - 1) >> q->cluster_bits;
        if (blocks <= s->n_blocks && clusters <= s->table_clusters)
            return 0;
        s->n_blocks = blocks;
        s->table_clusters = clusters;
    }
}

/* The format, as a header extension at `at`, the extensions' end, and the name. */
static void fill_backing(const struct disk_create_conf *conf, size_t at, uint8_t *h)
{
    size_t n = strlen(conf->backing_format);

    qcow2_put_be32(h + at, QCOW2_EXT_BACKING_FORMAT);
    qcow2_put_be32(h + at + 4, (uint32_t)n);
    memcpy(h + at + 8, conf->backing_format, n);
    at += 8 + align_up(n, 8) + 8;
    qcow2_put_be64(h + 8, at);
    qcow2_put_be32(h + 16, (uint32_t)strlen(conf->backing));
    memcpy(h + at, conf->backing, strlen(conf->backing));
}

static void fill_header(const struct shape *s, const struct disk_create_conf *conf, uint8_t *h)
{
    const struct qcow2 *q = &s->q;

    qcow2_put_be32(h, QCOW2_MAGIC);
    qcow2_put_be32(h + 4, q->version);
    qcow2_put_be32(h + 20, q->cluster_bits);
    qcow2_put_be64(h + 24, conf->size);
    qcow2_put_be32(h + 36, (uint32_t)s->l1_entries);
    qcow2_put_be64(h + 40, (1 + s->table_clusters + s->n_blocks) << q->cluster_bits);
    qcow2_put_be64(h + 48, q->cluster_size);
    qcow2_put_be32(h + 56, (uint32_t)s->table_clusters);
    if (q->version >= 3) {
        qcow2_put_be64(h + 72, q->incompatible);
        qcow2_put_be64(h + 80, conf->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0);
        qcow2_put_be32(h + 96, q->refcount_order);
        qcow2_put_be32(h + 100, q->compression ? HEADER_LENGTH : 104);
        h[104] = (uint8_t)q->compression;
    }
    if (conf->backing)
        fill_backing(conf, q->version < 3 ? 72 : q->compression ? HEADER_LENGTH : 104, h);
}

static int write_at(int fd, const uint8_t *buf, size_t len, uint64_t offset)
{
    while (len) {
        ssize_t n = pwrite(fd, buf, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        buf += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* Both tables of a preallocated image: all that the guest can write has its place. */
static int write_l2(int fd, const struct shape *s, uint8_t *cluster)
{
    const struct qcow2 *q = &s->q;
    uint64_t data = s->first_l2 + s->l2_clusters, left = s->data_clusters;
    uint8_t *l1 = calloc(s->l1_clusters, q->cluster_size);
    int r = l1 ? 0 : -ENOMEM;

    for (uint64_t t = 0; r == 0 && t < s->l2_clusters; t++) {
        memset(cluster, 0, q->cluster_size);
        for (size_t i = 0; i < q->l2_entries && left; i++, data++, left--) {
            qcow2_put_be64(cluster + i * q->entry_size, data << q->cluster_bits | QCOW2_COPIED);
            if (q->n_subs > 1)
                qcow2_put_be64(cluster + i * q->entry_size + 8, UINT32_MAX); /* all subclusters are there */
        }
        qcow2_put_be64(l1 + t * 8, (s->first_l2 + t) << q->cluster_bits | QCOW2_COPIED);
        r = write_at(fd, cluster, q->cluster_size, (s->first_l2 + t) << q->cluster_bits);
    }
    if (r == 0)
        r = write_at(fd, l1, s->l1_clusters << q->cluster_bits, (s->first_l2 - s->l1_clusters) << q->cluster_bits);
    free(l1);
    return r;
}

/* What is zero is left out: a new file has zeroes. */
static int write_image(int fd, const struct shape *s, const struct disk_create_conf *conf, struct err *err)
{
    const struct qcow2 *q = &s->q;
    uint64_t blocks = 1 + s->table_clusters, per_block = UINT64_C(1) << q->block_bits;
    uint8_t *table = calloc(s->table_clusters, q->cluster_size), *cluster = calloc(1, q->cluster_size);
    int r = table && cluster ? 0 : -ENOMEM;

    if (r == 0 && ftruncate(fd, (off_t)(s->end << q->cluster_bits)) < 0)
        r = -errno;
    for (uint64_t b = 0; r == 0 && b < s->n_blocks; b++) {
        memset(cluster, 0, q->cluster_size);
        for (uint64_t i = 0; i < per_block && b * per_block + i < s->end; i++)
            qcow2_refcount_write(q, cluster, (unsigned)i, 1);
        qcow2_put_be64(table + b * 8, (blocks + b) << q->cluster_bits);
        r = write_at(fd, cluster, q->cluster_size, (blocks + b) << q->cluster_bits);
    }
    if (r == 0)
        r = write_at(fd, table, s->table_clusters << q->cluster_bits, q->cluster_size);
    if (r == 0 && s->l2_clusters)
        r = write_l2(fd, s, cluster);
    if (r == 0)
        r = format_preallocate(fd, conf, s->end << q->cluster_bits, err);
    if (r == 0) {
        memset(cluster, 0, q->cluster_size);
        fill_header(s, conf, cluster);
        r = write_at(fd, cluster, q->cluster_size < 4096 ? q->cluster_size : 4096, 0);
    }
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    free(table);
    free(cluster);
    return r;
}

int qcow2_create(const struct disk_create_conf *given, struct err *err)
{
    const char *path = given->name ? given->name : given->path;
    struct disk_create_conf conf = *given;
    struct shape *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", path);
    conf.version = conf.version ? conf.version : 3;
    conf.backing_format = conf.backing_format ? conf.backing_format : "";
    conf.cluster_size = conf.cluster_size ? conf.cluster_size : 64 * KIB;
    conf.refcount_bits = conf.refcount_bits ? conf.refcount_bits : 16;
    int r = check(&conf, path, err);
    if (r == 0)
        r = lay_out(s, &conf, path, err);
    if (r == 0) {
        int fd = format_new_file(given->path);
        r = fd < 0 ? fd : write_image(fd, s, &conf, err);
        if (fd >= 0 && close(fd) < 0 && r == 0)
            r = -errno;
        if (r)
            format_cannot_make(&conf, r, err);
        if (fd >= 0 && r)
            unlink(given->path);
    }
    free(s);
    return r;
}
