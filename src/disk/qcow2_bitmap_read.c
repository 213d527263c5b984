/* The bitmaps that a file has: directory, tables, bits. Plain calls, at open. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/qcow2_bitmap.h"

#define ENTRY_BYTES 24
#define MAX_NAME    1023

typedef unsigned long long ull;

uint64_t qcow2_bitmap_bits(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
    return (q->disk.size + (UINT64_C(1) << b->granularity_bits) - 1) >> b->granularity_bits;
}

size_t qcow2_bitmap_entry_bytes(const struct qcow2_bitmap *b)
{
    return align_up(ENTRY_BYTES + (size_t)b->n_extra + b->n_name, 8);
}

void qcow2_bitmap_free(struct qcow2_bitmap *b)
{
    free(b->name);
    free(b->extra);
    if (b->loaded)
        dirty_fini(&b->bits);
}

void qcow2_bitmap_fini(struct qcow2 *q)
{
    struct qcow2_bitmaps *bitmaps = q->bitmaps;

    for (size_t i = 0; bitmaps && i < bitmaps->n; i++)
        qcow2_bitmap_free(&bitmaps->items[i]);
    for (size_t i = 0; bitmaps && i < bitmaps->n_removed; i++)
        qcow2_bitmap_free(&bitmaps->removed[i]);
    if (bitmaps) {
        free(bitmaps->items);
        free(bitmaps->removed);
    }
    free(bitmaps);
    q->bitmaps = NULL;
}

/* Whole clusters within the file. */
static bool within(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t clusters = (bytes + q->cluster_size - 1) >> q->cluster_bits, first = offset >> q->cluster_bits;

    return offset && !(offset & (q->cluster_size - 1)) && first < q->end && clusters <= q->end - first;
}

static char *copy_of(const uint8_t *from, size_t n)
{
    char *s = malloc(n + 1);

    if (s) {
        memcpy(s, from, n);
        s[n] = '\0';
    }
    return s;
}

/* One entry of the directory; *at moves on. */
static int read_entry(struct qcow2 *q, const uint8_t *dir, size_t len, size_t *at, struct qcow2_bitmap *b,
                      struct err *err)
{
    const uint8_t *e = dir + *at;
    uint64_t place = q->bitmaps->directory + *at;

    if (len - *at < ENTRY_BYTES)
        return err_set(err, -EINVAL, "bitmap entry at 0x%llx: the directory ends within it", (ull)place);
    b->entry = place;
    b->table = qcow2_be64(e);
    b->n_table = qcow2_be32(e + 8);
    b->flags = qcow2_be32(e + 12);
    b->type = e[16];
    b->granularity_bits = e[17];
    b->n_name = __builtin_bswap16(load_le16(e + 18));
    b->n_extra = qcow2_be32(e + 20);
    if (!b->n_name || b->n_name > MAX_NAME || b->n_extra > len || qcow2_bitmap_entry_bytes(b) > len - *at)
        return err_set(err, -EINVAL,
                       "bitmap entry at 0x%llx: a name of %u bytes and %u of extra data; accepted are names of 1 to "
                       "%u bytes, within the directory",
                       (ull)place, b->n_name, b->n_extra, MAX_NAME);
    if (b->granularity_bits < 9 || b->granularity_bits > 31 || b->type != 1)
        return err_set(err, -EINVAL,
                       "bitmap entry at 0x%llx: type %u, granularity_bits %u; accepted are type 1 and 9 to 31 bits",
                       (ull)place, b->type, b->granularity_bits);
    if (!b->n_table || b->n_table > QCOW2_BITMAP_MAX_TABLES || !within(q, b->table, b->n_table * UINT64_C(8)))
        return err_set(err, -EINVAL, "bitmap entry at 0x%llx: a table of %u entries at 0x%llx, in a file of 0x%llx",
                       (ull)place, b->n_table, (ull)b->table, (ull)file_size(q->file));
    uint64_t bits = (uint64_t)b->n_table << q->cluster_bits << 3;
    if (!(b->flags & QCOW2_BITMAP_IN_USE) && bits < qcow2_bitmap_bits(q, b))
        return err_set(err, -EINVAL, "bitmap entry at 0x%llx: a table of %u entries is too small for the disk",
                       (ull)place, b->n_table);
    b->extra = (uint8_t *)copy_of(e + ENTRY_BYTES, b->n_extra);
    b->name = copy_of(e + ENTRY_BYTES + b->n_extra, b->n_name);
    b->consistent = !(b->flags & QCOW2_BITMAP_IN_USE);
    b->foreign = b->flags & ~(uint32_t)(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO | QCOW2_BITMAP_EXTRA) ||
                 (b->n_extra && !(b->flags & QCOW2_BITMAP_EXTRA));
    *at += qcow2_bitmap_entry_bytes(b);
    return b->extra && b->name ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int read_directory(struct qcow2 *q, uint32_t n, struct err *err)
{
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    size_t len = bitmaps->directory_bytes, at = 0;
    uint64_t tables = 0;

    if (!n || n > QCOW2_BITMAP_MAX || len > QCOW2_BITMAP_DIRECTORY || len < n * (uint64_t)ENTRY_BYTES ||
        !within(q, bitmaps->directory, len))
        return err_set(err, -EINVAL,
                       "header extension of bitmaps: %u of them in %llu bytes at 0x%llx; accepted are 1 to %u in up to "
                       "%llu bytes, in a file of 0x%llx",
                       n, (ull)len, (ull)bitmaps->directory, QCOW2_BITMAP_MAX, (ull)QCOW2_BITMAP_DIRECTORY,
                       (ull)file_size(q->file));
    uint8_t *dir = malloc(len);
    bitmaps->items = calloc(n, sizeof(*bitmaps->items));
    int r = dir && bitmaps->items ? file_read(q->file, bitmaps->directory, dir, len) : -ENOMEM;
    if (r)
        err_set(err, r, "the directory of bitmaps at 0x%llx cannot be read: %s", (ull)bitmaps->directory, strerror(-r));
    while (r == 0 && bitmaps->n < n) {
        struct qcow2_bitmap *b = &bitmaps->items[bitmaps->n++];
        r = read_entry(q, dir, len, &at, b, err);
        tables += b->n_table;
        if (r == 0 && tables > QCOW2_BITMAP_MAX_TABLES)
            r = err_set(err, -EFBIG, "bitmaps with tables of more than %u entries are not supported",
                        QCOW2_BITMAP_MAX_TABLES);
    }
    free(dir);
    return r;
}

int qcow2_bitmap_open(struct qcow2 *q, const uint8_t *head, size_t len, struct err *err)
{
    uint32_t n;

    q->bitmaps = calloc(1, sizeof(*q->bitmaps));
    if (!q->bitmaps)
        return err_set(err, -ENOMEM, "out of memory");
    q->bitmaps->room = QCOW2_BITMAP_ROOM;
    const uint8_t *extension =
        q->version < 3 ? NULL : qcow2_header_extension(head, len, qcow2_be32(head + 100), QCOW2_EXT_BITMAPS, &n);
    if (!extension)
        return 0;
    if (!(qcow2_be64(head + 88) & QCOW2_AUTOCLEAR_BITMAPS)) {
        if (!q->disk.read_only)
            log_warn("disk '%.200s': a program that knows no bitmaps wrote to it: those that it had are no more",
                     q->disk.path);
        return 0;
    }
    if (n < QCOW2_EXT_BITMAPS_BYTES)
        return err_set(err, -EINVAL, "header extension of bitmaps: %u bytes; accepted are %u", n,
                       QCOW2_EXT_BITMAPS_BYTES);
    q->bitmaps_there = true;
    q->bitmaps->directory_bytes = qcow2_be64(extension + 8);
    q->bitmaps->directory = qcow2_be64(extension + 16);
    return read_directory(q, qcow2_be32(extension), err);
}

int qcow2_bitmap_entry(const struct qcow2 *q, uint64_t entry, uint64_t *offset, bool *ones)
{
    *offset = entry & QCOW2_OFFSET_MASK;
    *ones = !*offset && entry & 1;
    if (entry & ~(QCOW2_OFFSET_MASK | 1) || (*offset && (entry & 1 || !within(q, *offset, q->cluster_size))))
        return -EINVAL;
    return 0;
}

/* A table's entries as the file has them; the caller's to free. NULL: *r and a message. */
static uint64_t *read_table(struct qcow2 *q, const struct qcow2_bitmap *b, int *r, struct err *err)
{
    uint64_t *table = malloc(b->n_table * UINT64_C(8));

    *r = table ? file_read(q->file, b->table, table, b->n_table * UINT64_C(8)) : -ENOMEM;
    if (*r == 0)
        return table;
    err_set(err, *r, "the table of a bitmap at 0x%llx cannot be read: %s", (ull)b->table, strerror(-*r));
    free(table);
    return NULL;
}

static int bad_entry(const struct qcow2 *q, const struct qcow2_bitmap *b, uint32_t i, uint64_t entry, struct err *err)
{
    return err_set(err, -EINVAL, "the entry at offset 0x%llx of a bitmap's table is 0x%llx, in a file of 0x%llx",
                   (ull)(b->table + i * UINT64_C(8)), (ull)entry, (ull)file_size(q->file));
}

int qcow2_bitmap_each_of(struct qcow2 *q, const struct qcow2_bitmap *b,
                         int (*fn)(void *opaque, const char *what, uint64_t offset, uint64_t bytes), void *opaque,
                         struct err *err)
{
    int r;
    uint64_t *table = read_table(q, b, &r, err);

    if (r == 0)
        r = fn(opaque, "table of a bitmap", b->table, b->n_table * UINT64_C(8));
    for (uint32_t i = 0; r == 0 && i < b->n_table; i++) {
        uint64_t entry = qcow2_be64(&table[i]), offset;
        bool ones;
        if (qcow2_bitmap_entry(q, entry, &offset, &ones))
            r = bad_entry(q, b, i, entry, err);
        else if (offset)
            r = fn(opaque, "bits of a bitmap", offset, q->cluster_size);
    }
    free(table);
    return r;
}

int qcow2_bitmap_each(struct qcow2 *q, int (*fn)(void *opaque, const char *what, uint64_t offset, uint64_t bytes),
                      void *opaque, struct err *err)
{
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    int r = 0;

    if (!bitmaps || !q->bitmaps_there)
        return 0;
    r = fn(opaque, "directory of bitmaps", bitmaps->directory, bitmaps->directory_bytes);
    for (size_t i = 0; r == 0 && i < bitmaps->n; i++)
        if (bitmaps->items[i].table)
            r = qcow2_bitmap_each_of(q, &bitmaps->items[i], fn, opaque, err);
    return r;
}

int qcow2_bitmap_load(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err)
{
    uint64_t per_cluster = q->cluster_size * 8, bits = qcow2_bitmap_bits(q, b);
    uint8_t *cluster = malloc(q->cluster_size);
    int r = -ENOMEM;
    uint64_t *table = NULL;

    if (b->loaded || !cluster || dirty_init(&b->bits, bits, &q->bitmaps->room)) {
        free(cluster);
        return b->loaded ? 0 : err_set(err, -ENOMEM, "out of memory");
    }
    b->loaded = true;
    table = read_table(q, b, &r, err);
    for (uint32_t i = 0; r == 0 && i < b->n_table && i * per_cluster < bits; i++) {
        uint64_t entry = qcow2_be64(&table[i]), offset, first = i * per_cluster;
        bool ones;
        if (qcow2_bitmap_entry(q, entry, &offset, &ones)) {
            r = bad_entry(q, b, i, entry, err);
        } else if (ones) {
            dirty_set(&b->bits, first, bits - first < per_cluster ? bits - first : per_cluster);
        } else if (offset) {
            r = file_read(q->file, offset, cluster, q->cluster_size);
            if (r)
                err_set(err, r, "a bitmap at 0x%llx cannot be read: %s", (ull)offset, strerror(-r));
            else
                dirty_load(&b->bits, first, cluster, q->cluster_size);
        }
    }
    free(table);
    free(cluster);
    if (r) {
        dirty_fini(&b->bits);
        b->loaded = false;
    }
    return r;
}
