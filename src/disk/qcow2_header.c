/*
 * The header, and the tables that are read at open: L1, the refcount table, the snapshots' table. All that it says is checked against the file's
 * length and against itself: a cluster holds one piece of metadata at most. An error names the field and its offset.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/qcow2_bitmap.h"

#define MAX_META    (5 * MIB / 2) /* clusters with metadata, of which a set is kept */
#define MAX_BACKING 1023          /* bytes of a backing file's name (spec, "backing_file_size") */
#define MAX_EXTRA   1024          /* bytes of what a snapshot has beyond the fields we know */

#define EXT_FEATURE_NAMES 0x6803f857u

typedef unsigned long long ull;

/* ---- fields ---- */

const uint8_t *qcow2_header_extension(const uint8_t *head, size_t len, size_t at, uint32_t type, uint32_t *n)
{
    uint64_t backing = qcow2_be64(head + 8);

    if (backing && backing < len) /* the name ends them too */
        len = backing;
    while (at + 8 <= len) {
        uint32_t this = qcow2_be32(head + at);
        *n = qcow2_be32(head + at + 4);
        at += 8;
        if (!this || *n > len - at)
            return NULL;
        if (this == type)
            return head + at;
        at += align_up(*n, 8);
    }
    return NULL;
}

/* The name that the image's own table gives to a bit of incompatible_features (spec, "Feature name table"), or "". */
static void feature_name(const uint8_t *head, size_t len, size_t at, unsigned bit, char name[47])
{
    uint32_t n;
    const uint8_t *table = qcow2_header_extension(head, len, at, EXT_FEATURE_NAMES, &n);

    name[0] = '\0';
    for (uint32_t i = 0; table && i + 48 <= n; i += 48) {
        if (table[i] == 0 && table[i + 1] == bit) {
            memcpy(name, table + i + 2, 46);
            name[46] = '\0';
            for (char *c = name; *c; c++)
                *c = *c >= ' ' && *c < 127 ? *c : '?';
            return;
        }
    }
}

static int check_features(struct qcow2 *q, const uint8_t *head, size_t len, uint32_t header_length, struct err *err)
{
    const uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2;
    uint64_t unknown = q->incompatible & ~known;
    char name[47];

    if (unknown & QCOW2_DATA_FILE)
        return err_set(err, -ENOTSUP,
                       "incompatible_features at offset 72: bit 2, external data file, is not supported");
    if (unknown) {
        unsigned bit = (unsigned)__builtin_ctzll(unknown);
        feature_name(head, len, header_length, bit, name);
        return err_set(err, -ENOTSUP, "incompatible_features at offset 72: bit %u%s%s is not known", bit,
                       name[0] ? ", " : "", name);
    }
    if ((q->incompatible & QCOW2_EXTENDED_L2) && q->cluster_bits < 14)
        return err_set(err, -EINVAL,
                       "cluster_bits at offset 20: %u; with extended L2 entries (bit 4 of incompatible_features) "
                       "accepted are 14 to 21",
                       q->cluster_bits);
    q->compression = header_length > 104 ? head[104] : 0;
    if (q->compression > 1 || (q->compression != 0) != !!(q->incompatible & QCOW2_COMPRESSION))
        return err_set(err, -ENOTSUP,
                       "compression_type at offset 104: %u; accepted are 0 (zlib) and, with bit 3 of "
                       "incompatible_features, 1 (zstd)",
                       q->compression);
    if ((q->incompatible & QCOW2_CORRUPT) && !q->disk.read_only && !q->for_check)
        return err_set(err, -EROFS,
                       "incompatible_features at offset 72: the image is marked corrupt; it can only be "
                       "opened readonly");
    return 0;
}

static int check_version_3(struct qcow2 *q, const uint8_t *head, size_t len, struct err *err)
{
    uint32_t header_length = qcow2_be32(head + 100);

    q->refcount_order = qcow2_be32(head + 96);
    q->incompatible = qcow2_be64(head + 72);
    if (header_length < 104 || header_length % 8 || header_length > len)
        return err_set(err, -EINVAL,
                       "header_length at offset 100: %u; accepted are 104 and more, multiples of 8, within "
                       "the first cluster",
                       header_length);
    if (q->refcount_order > 6)
        return err_set(err, -EINVAL, "refcount_order at offset 96: %u; accepted are 0 to 6", q->refcount_order);
    return check_features(q, head, len, header_length, err);
}

/* Which backing file it has; none is opened yet. */
static int read_backing(struct qcow2 *q, const uint8_t *head, size_t len, struct err *err)
{
    uint64_t offset = qcow2_be64(head + 8), n = qcow2_be32(head + 16);
    size_t header_length = q->version >= 3 ? qcow2_be32(head + 100) : 72;
    uint32_t format_len;

    if (!offset)
        return 0;
    if (offset < header_length || offset >= len)
        return err_set(err, -EINVAL,
                       "backing_file_offset at offset 8: 0x%llx; accepted is what is within the first cluster, behind "
                       "the header",
                       (ull)offset);
    if (!n || n > MAX_BACKING || n > len - offset || memchr(head + offset, 0, n))
        return err_set(err, -EINVAL,
                       "backing_file_size at offset 16: %llu; accepted is a name of 1 to %u bytes, none of them "
                       "zero, within the first cluster",
                       (ull)n, MAX_BACKING);
    q->backing_name = strndup((const char *)head + offset, n);
    if (!q->backing_name)
        return err_set(err, -ENOMEM, "out of memory");
    const uint8_t *format = qcow2_header_extension(head, len, header_length, QCOW2_EXT_BACKING_FORMAT, &format_len);
    if (format && format_len < sizeof(q->backing_format) && !memchr(format, 0, format_len))
        memcpy(q->backing_format, format, format_len);
    return 0;
}

static int check_fields(struct qcow2 *q, const uint8_t *head, size_t len, struct err *err)
{
    uint64_t size = qcow2_be64(head + 24);

    if (q->version >= 3) {
        int r = check_version_3(q, head, len, err);
        if (r)
            return r;
    } else {
        q->refcount_order = 4;
    }
    if (qcow2_be32(head + 32))
        return err_set(err, -ENOTSUP, "crypt_method at offset 32: %u; encryption is not supported",
                       qcow2_be32(head + 32));
    if (!size || size >= QCOW2_MAX_OFFSET)
        return err_set(err, -EINVAL, "size at offset 24: %llu; accepted are 1 to 2^56 - 1", (ull)size);
    q->disk.size = align_up(size, DISK_BLOCK_SIZE);
    qcow2_l2_shape(q);
    q->block_bits = q->cluster_bits + 3 - q->refcount_order;
    int r = read_backing(q, head, len, err);
    return r ? r : qcow2_bitmap_open(q, head, len, err);
}

static int read_fields(struct qcow2 *q, struct err *err)
{
    uint64_t size = file_size(q->file);
    size_t len = QCOW2_HEADER_SECTOR;

    if (size < 72)
        return err_set(err, -EINVAL, "%llu bytes are no qcow2 image; its header has 72 at least", (ull)size);
    int r = file_read(q->file, 0, q->header, len);
    if (r)
        return err_set(err, r, "its header cannot be read: %s", strerror(-r));
    if (qcow2_be32(q->header) != QCOW2_MAGIC)
        return err_set(err, -EINVAL, "magic at offset 0: 0x%08x; a qcow2 image begins with 0x514649fb",
                       qcow2_be32(q->header));
    q->version = qcow2_be32(q->header + 4);
    if (q->version != 2 && q->version != 3)
        return err_set(err, -ENOTSUP, "version at offset 4: %u; accepted are 2 and 3", q->version);
    q->cluster_bits = qcow2_be32(q->header + 20);
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return err_set(err, -EINVAL, "cluster_bits at offset 20: %u; accepted are 9 to 21", q->cluster_bits);
    q->cluster_size = UINT64_C(1) << q->cluster_bits;
    q->end = (size + q->cluster_size - 1) >> q->cluster_bits;
    len = q->cluster_size;
    uint8_t *head = malloc(len);
    if (!head)
        return err_set(err, -ENOMEM, "out of memory");
    r = file_read(q->file, 0, head, len);
    if (r)
        err_set(err, r, "its header cannot be read: %s", strerror(-r));
    else
        r = check_fields(q, head, len, err);
    free(head);
    return r;
}

/* ---- tables ---- */

/* Whether n entries of 8 bytes at `offset` are clusters of the file. */
static int check_table(const struct qcow2 *q, const char *field, unsigned at, uint64_t offset, uint64_t len,
                       struct err *err)
{
    uint64_t clusters = (len + q->cluster_size - 1) >> q->cluster_bits, first = offset >> q->cluster_bits;

    if (!offset || offset & (q->cluster_size - 1))
        return err_set(err, -EINVAL, "%s at offset %u: 0x%llx; accepted are multiples of the cluster size of %llu",
                       field, at, (ull)offset, (ull)q->cluster_size);
    if (first >= q->end || clusters > q->end - first)
        return err_set(err, -EINVAL, "%s at offset %u: 0x%llx and %llu bytes from there; the file ends at 0x%llx",
                       field, at, (ull)offset, (ull)len, (ull)file_size(q->file));
    return 0;
}

static int read_table(struct qcow2 *q, const char *what, struct qcow2_table *t, struct err *err)
{
    t->entries = malloc(t->n * 8);
    t->dirty = calloc(t->n / QCOW2_SECTOR_ENTRIES + 1, 1);
    if (!t->entries || !t->dirty)
        return err_set(err, -ENOMEM, "%s of %zu entries: out of memory", what, t->n);
    int r = file_read(q->file, t->offset, t->entries, t->n * 8);
    if (r)
        return err_set(err, r, "%s at 0x%llx cannot be read: %s", what, (ull)t->offset, strerror(-r));
    for (size_t i = 0; i < t->n; i++)
        t->entries[i] = qcow2_be64(&t->entries[i]);
    return 0;
}

static int read_l1(struct qcow2 *q, struct err *err)
{
    uint64_t n = qcow2_be32(q->header + 36);
    uint64_t needed = (q->disk.size + (UINT64_C(1) << q->l2_bits) - 1) >> q->l2_bits;

    if (n < needed || n > QCOW2_MAX_L1_BYTES / 8)
        return err_set(err, -EINVAL,
                       "l1_size at offset 36: %llu entries; accepted are %llu, as the disk's size asks for, "
                       "to %llu",
                       (ull)n, (ull)needed, (ull)(QCOW2_MAX_L1_BYTES / 8));
    q->l1.n = n;
    q->l1.offset = qcow2_be64(q->header + 40);
    q->l1_clusters = (n * 8 + q->cluster_size - 1) >> q->cluster_bits;
    int r = check_table(q, "l1_table_offset", 40, q->l1.offset, n * 8, err);
    return r ? r : read_table(q, "the L1 table", &q->l1, err);
}

static int read_refcount_table(struct qcow2 *q, struct err *err)
{
    uint64_t clusters = qcow2_be32(q->header + 56), len = clusters << q->cluster_bits;

    if (!clusters || len > QCOW2_MAX_TABLE)
        return err_set(err, -EINVAL, "refcount_table_clusters at offset 56: %llu; accepted are 1 to %llu",
                       (ull)clusters, (ull)(QCOW2_MAX_TABLE >> q->cluster_bits));
    q->refcount_clusters = clusters;
    q->refcounts.n = len / 8;
    q->refcounts.offset = qcow2_be64(q->header + 48);
    int r = check_table(q, "refcount_table_offset", 48, q->refcounts.offset, len, err);
    if (r == 0)
        r = read_table(q, "the refcount table", &q->refcounts, err);
    if (r)
        return r;
    q->block_full = calloc(q->refcounts.n, 1);
    return q->block_full ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* Each as the spec's "Snapshots" has it; of what is in the entries, only where the L1 tables are is of interest here. */
static int read_snapshots(struct qcow2 *q, struct err *err)
{
    uint32_t n = qcow2_be32(q->header + 60);
    uint64_t start = qcow2_be64(q->header + 64), at = start;

    if (!n)
        return 0;
    if (n > QCOW2_MAX_SNAPSHOTS)
        return err_set(err, -EINVAL, "nb_snapshots at offset 60: %u; accepted are up to %u", n, QCOW2_MAX_SNAPSHOTS);
    int r = check_table(q, "snapshots_offset", 64, start, n * UINT64_C(40), err);
    if (r)
        return r;
    q->snapshots = calloc(n, sizeof(*q->snapshots));
    if (!q->snapshots)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        uint8_t entry[40];
        r = file_read(q->file, at, entry, sizeof(entry));
        if (r)
            return err_set(err, r, "snapshot %u at 0x%llx cannot be read: %s", i, (ull)at, strerror(-r));
        struct qcow2_snapshot *s = &q->snapshots[i];
        s->l1_offset = qcow2_be64(entry);
        s->l1_size = qcow2_be32(entry + 8);
        uint64_t first = s->l1_offset >> q->cluster_bits;
        uint64_t clusters = (s->l1_size * UINT64_C(8) + q->cluster_size - 1) >> q->cluster_bits;
        if (s->l1_offset & (q->cluster_size - 1) || s->l1_size > QCOW2_MAX_L1_BYTES / 8 || first >= q->end ||
            clusters > q->end - first || !first)
            return err_set(err, -EINVAL,
                           "snapshot %u at 0x%llx: an L1 table of %u entries at 0x%llx, in a file of 0x%llx", i,
                           (ull)at, s->l1_size, (ull)s->l1_offset, (ull)file_size(q->file));
        uint32_t extra = qcow2_be32(entry + 36);
        if (extra > MAX_EXTRA)
            return err_set(err, -EINVAL, "snapshot %u at 0x%llx: %u bytes of extra data; accepted are up to %u", i,
                           (ull)at, extra, MAX_EXTRA);
        uint16_t id = __builtin_bswap16(load_le16(entry + 12)), name = __builtin_bswap16(load_le16(entry + 14));
        at = align_up(at + sizeof(entry) + extra + id + name, 8);
        if (at > q->end << q->cluster_bits)
            return err_set(err, -EINVAL, "snapshot %u ends at 0x%llx, the file at 0x%llx", i, (ull)at,
                           (ull)file_size(q->file));
    }
    q->n_snapshots = n;
    q->snapshots_offset = start;
    q->snapshots_bytes = at - start;
    return 0;
}

/* ---- who is where ---- */

static int claim(struct qcow2 *q, const char *what, uint64_t i, uint64_t offset, uint64_t len, struct err *err)
{
    uint64_t first = offset >> q->cluster_bits, last = (offset + len + q->cluster_size - 1) >> q->cluster_bits;

    if (q->meta.n + (last - first) > MAX_META)
        return err_set(err, -EFBIG, "more than %llu clusters of metadata are not supported", (ull)MAX_META);
    for (uint64_t c = first; c < last; c++) {
        int r = qcow2_set_add(&q->meta, c);
        if (r == -EEXIST)
            return err_set(err, -EINVAL, "%s %llu: its cluster at 0x%llx holds other metadata", what, (ull)i,
                           (ull)(c << q->cluster_bits));
        if (r)
            return err_set(err, r, "out of memory");
    }
    return 0;
}

static int claim_entries(struct qcow2 *q, const char *what, struct qcow2_table *t, uint64_t mask, struct err *err)
{
    size_t used = 0;

    for (size_t i = 0; i < t->n; i++)
        used += t->entries[i] != 0;
    if (used > MAX_META)
        return err_set(err, -EFBIG, "more than %llu clusters of metadata are not supported", (ull)MAX_META);
    if (qcow2_set_reserve(&q->meta, used))
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < t->n; i++) {
        uint64_t entry = t->entries[i], offset = entry & QCOW2_OFFSET_MASK;
        if (entry & ~mask || (entry && !offset) || offset & (q->cluster_size - 1) ||
            offset >= q->end << q->cluster_bits)
            return err_set(err, -EINVAL,
                           "%s %zu at offset 0x%llx: 0x%llx; accepted are clusters of a file that ends at "
                           "0x%llx",
                           what, i, (ull)(t->offset + i * 8), (ull)entry, (ull)file_size(q->file));
        int r = offset ? claim(q, what, i, offset, q->cluster_size, err) : 0;
        if (r)
            return r;
    }
    return 0;
}

struct claims {
    struct qcow2 *q;
    struct err *err;
};

static int claim_bitmap(void *opaque, const char *what, uint64_t offset, uint64_t bytes)
{
    struct claims *claims = opaque;
    return claim(claims->q, what, 0, offset, bytes, claims->err);
}

static int claim_all(struct qcow2 *q, struct err *err)
{
    int r = claim(q, "header", 0, 0, 1, err);

    if (r == 0)
        r = claim(q, "L1 table", 0, q->l1.offset, q->l1.n * 8, err);
    if (r == 0)
        r = claim(q, "refcount table", 0, q->refcounts.offset, q->refcounts.n * 8, err);
    if (r == 0)
        r = claim(q, "snapshot table", 0, q->snapshots_offset, q->snapshots_bytes, err);
    for (uint32_t i = 0; r == 0 && i < q->n_snapshots; i++)
        r = claim(q, "L1 table of snapshot", i, q->snapshots[i].l1_offset, q->snapshots[i].l1_size * UINT64_C(8), err);
    if (r == 0)
        r = qcow2_bitmap_each(q, claim_bitmap, &(struct claims){q, err}, err);
    if (r == 0)
        r = claim_entries(q, "refcount table entry", &q->refcounts, QCOW2_OFFSET_MASK, err);
    if (r == 0)
        r = claim_entries(q, "L1 entry", &q->l1, QCOW2_OFFSET_MASK | QCOW2_COPIED, err);
    return r;
}

int qcow2_header_write(struct qcow2 *q)
{
    uint8_t header[QCOW2_HEADER_SECTOR];

    memcpy(header, q->header, sizeof(header));
    if (align_up(qcow2_be64(header + 24), DISK_BLOCK_SIZE) != q->disk.size)
        qcow2_put_be64(header + 24, q->disk.size);
    qcow2_put_be32(header + 36, (uint32_t)q->l1.n);
    qcow2_put_be64(header + 40, q->l1.offset);
    if (q->version >= 3) {
        qcow2_put_be64(header + 72, q->incompatible);
        qcow2_put_be64(header + 88, q->bitmaps_there ? QCOW2_AUTOCLEAR_BITMAPS : 0); /* autoclear_features */
    }
    int r = file_write(q->file, 0, header, sizeof(header));
    if (r == 0)
        memcpy(q->header, header, sizeof(header));
    return r;
}

int qcow2_header_restore(struct qcow2 *q)
{
    int r = qcow2_header_write(q);

    if (r == 0)
        r = file_sync(q->file);
    if (r && !q->header_unsure)
        log_error("disk '%.200s': its header cannot be written: %s; nothing is, until it can be", q->disk.path,
                  strerror(-r));
    q->header_unsure = r != 0;
    return r;
}

int qcow2_header_sure(struct qcow2 *q)
{
    return q->header_unsure ? qcow2_header_restore(q) : 0;
}

int qcow2_header_read(struct qcow2 *q, struct err *err)
{
    int r = read_fields(q, err);

    if (r == 0)
        r = qcow2_page_init(q) ? err_set(err, -ENOMEM, "out of memory") : 0;
    if (r == 0)
        r = read_l1(q, err);
    if (r == 0)
        r = read_snapshots(q, err);
    if (r == 0 && (q->incompatible & QCOW2_DIRTY) && !q->disk.read_only && !q->for_check)
        r = qcow2_repair_refcounts(q, err);
    if (r == 0)
        r = read_refcount_table(q, err);
    if (r == 0 && !q->for_check)
        r = claim_all(q, err);
    if (r || q->for_check)
        return r;
    q->zeroes = aligned_alloc(4096, QCOW2_ZEROES);
    q->unpacked = malloc(q->cluster_size);
    if (!q->zeroes || !q->unpacked)
        return err_set(err, -ENOMEM, "out of memory");
    memset(q->zeroes, 0, QCOW2_ZEROES);
    if (!q->disk.read_only && q->version >= 3 &&
        qcow2_be64(q->header + 88) != (q->bitmaps_there ? QCOW2_AUTOCLEAR_BITMAPS : 0)) {
        r = qcow2_header_write(q);
        if (r)
            return err_set(err, r, "its header cannot be written: %s", strerror(-r));
    }
    return 0;
}
