/* Dirty bitmaps of an image that is open: create, remove, clear, list; and what is written sets bits. */
#include "disk/qcow2_bitmap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define GRANULARITY (64 * KIB)

static bool records(const struct qcow2_bitmap *b)
{
    return b->consistent && !b->foreign && b->flags & QCOW2_BITMAP_AUTO;
}

static void update_recording(struct qcow2 *q)
{
    q->disk.recording = false;
    for (size_t i = 0; !q->disk.read_only && i < q->bitmaps->n; i++)
        q->disk.recording = q->disk.recording || records(&q->bitmaps->items[i]);
}

int qcow2_bitmap_start(struct qcow2 *q, struct err *err)
{
    struct qcow2_bitmaps *bitmaps = q->bitmaps;

    if (q->disk.read_only)
        return 0;
    for (size_t i = 0; i < bitmaps->n; i++) {
        struct qcow2_bitmap *b = &bitmaps->items[i];
        if (!b->consistent)
            log_warn("disk '%.200s': the bitmap '%.60s' is inconsistent: it was in use when the image was left",
                     q->disk.path, b->name);
        int r = b->consistent && !b->foreign ? qcow2_bitmap_load(q, b, err) : 0;
        if (r)
            return r;
    }
    update_recording(q);
    return 0;
}

int qcow2_bitmap_close(struct qcow2 *q)
{
    for (size_t i = 0; i < q->bitmaps->n; i++)
        q->bitmaps->changed = q->bitmaps->changed || q->bitmaps->items[i].changed;
    return q->broken ? 0 : qcow2_bitmap_store(q, true);
}

unsigned qcow2_bitmap_number(const struct qcow2 *q)
{
    return q->bitmaps ? (unsigned)q->bitmaps->n : 0;
}

/* ---- recording ---- */

/* The flags in the directory; a sector that is torn has some of them, which is no harm before the first write. */
static int mark(struct qcow2 *q)
{
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    int r = 0;

    if (bitmaps->marked)
        return 0;
    for (size_t i = 0; r == 0 && q->bitmaps_there && i < bitmaps->n; i++) {
        struct qcow2_bitmap *b = &bitmaps->items[i];
        uint8_t flags[4];
        if (b->table && !b->foreign && !(b->flags & QCOW2_BITMAP_IN_USE)) {
            qcow2_put_be32(flags, b->flags | QCOW2_BITMAP_IN_USE);
            r = file_write(q->file, b->entry + 12, flags, sizeof(flags));
        }
    }
    if (r == 0 && q->bitmaps_there)
        r = file_sync(q->file);
    if (r == 0)
        bitmaps->marked = true;
    return r;
}

static int record(struct disk *disk, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    int r = mark(q);

    for (size_t i = 0; r == 0 && i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *b = &q->bitmaps->items[i];
        if (!records(b))
            continue;
        uint64_t first = offset >> b->granularity_bits, last = (offset + len - 1) >> b->granularity_bits;
        dirty_set(&b->bits, first, last - first + 1);
        b->changed = true;
    }
    return r;
}

int qcow2_bitmap_will_change(struct qcow2 *q)
{
    return q->bitmaps->n ? mark(q) : 0;
}

void qcow2_bitmap_changed(struct qcow2 *q)
{
    for (size_t i = 0; i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *b = &q->bitmaps->items[i];
        if (!b->loaded)
            continue;
        bool all = records(b), fits = dirty_resize(&b->bits, qcow2_bitmap_bits(q, b)) == 0;
        if (all && fits)
            dirty_set(&b->bits, 0, b->bits.bits);
        b->consistent = b->consistent && fits;
        b->changed = true;
    }
    q->bitmaps->changed = q->bitmaps->changed || q->bitmaps->n;
}

void qcow2_bitmap_resized(struct qcow2 *q)
{
    for (size_t i = 0; i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *b = &q->bitmaps->items[i];
        if (!b->loaded)
            continue;
        if (dirty_resize(&b->bits, qcow2_bitmap_bits(q, b)))
            b->consistent = false;
        b->changed = true;
    }
    q->bitmaps->changed = q->bitmaps->changed || q->bitmaps->n;
}

/* ---- by name ---- */

static struct qcow2_bitmap *find(struct qcow2 *q, const char *name, struct err *err)
{
    char list[200] = "there are none";
    size_t at = 0;

    for (size_t i = 0; i < q->bitmaps->n; i++)
        if (strcmp(q->bitmaps->items[i].name, name) == 0)
            return &q->bitmaps->items[i];
    for (size_t i = 0; i < q->bitmaps->n && at < sizeof(list); i++)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%.60s", i ? ", " : "accepted are ",
                               q->bitmaps->items[i].name);
    err_set(err, -ENOENT, "disk '%.120s': no bitmap is called '%.60s'; %s", q->disk.path, name, list);
    return NULL;
}

/* Changes what the file has of them, also with requests under way. */
static int stored(struct qcow2 *q, struct err *err)
{
    int r = qcow2_hold(q);

    if (r)
        return err_set(err, r, "disk '%.200s': its bitmaps cannot be written: %s", q->disk.path, strerror(-r));
    q->bitmaps->changed = true;
    r = qcow2_bitmap_store(q, false);
    qcow2_unhold(q);
    return r ? err_set(err, r, "disk '%.200s': its bitmaps cannot be written: %s", q->disk.path, strerror(-r)) : 0;
}

static int create(struct disk *disk, const char *name, uint32_t granularity, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    uint32_t bytes = granularity ? granularity : GRANULARITY;

    if (q->version < 3)
        return err_set(err, -ENOTSUP, "disk '%.200s': an image of version %u has no bitmaps; accepted is version 3",
                       disk->path, q->version);
    if (q->broken)
        return err_set(err, -EIO, "disk '%.200s': the image is corrupt", disk->path);
    if (bytes < 512 || bytes & (bytes - 1) || bytes > UINT32_C(1) << 31)
        return err_set(err, -EINVAL,
                       "disk '%.200s': a bitmap of granularity %u; accepted are powers of two from 512 to 2G",
                       disk->path, bytes);
    for (size_t i = 0; i < bitmaps->n; i++)
        if (strcmp(bitmaps->items[i].name, name) == 0)
            return err_set(err, -EEXIST, "disk '%.200s': it has a bitmap called '%.60s'", disk->path, name);
    struct qcow2_bitmap b = {.name = strdup(name),
                             .n_name = (uint16_t)strlen(name),
                             .extra = calloc(1, 1),
                             .type = 1,
                             .granularity_bits = (uint8_t)__builtin_ctz(bytes),
                             .flags = QCOW2_BITMAP_AUTO,
                             .consistent = true,
                             .changed = true};
    struct qcow2_bitmap *items = realloc(bitmaps->items, (bitmaps->n + 1) * sizeof(*items));
    if (items)
        bitmaps->items = items;
    uint64_t bits = qcow2_bitmap_bits(q, &b);
    b.loaded = b.name && b.extra && items && bits <= (uint64_t)QCOW2_BITMAP_MAX_TABLES * q->cluster_size * 8 &&
               dirty_init(&b.bits, bits, &bitmaps->room) == 0;
    if (!b.loaded) {
        qcow2_bitmap_free(&b);
        return err_set(err, -ENOMEM, "disk '%.200s': a bitmap of %llu bits: out of memory", disk->path,
                       (unsigned long long)bits);
    }
    items[bitmaps->n++] = b;
    int r = stored(q, err);
    if (r)
        qcow2_bitmap_free(&items[--bitmaps->n]);
    update_recording(q);
    return r;
}

static int remove_bitmap(struct disk *disk, const char *name, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    struct qcow2_bitmap *b = find(q, name, err);

    if (!b)
        return -ENOENT;
    struct qcow2_bitmap *removed = realloc(bitmaps->removed, (bitmaps->n_removed + 1) * sizeof(*removed));
    if (!removed)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    bitmaps->removed = removed;
    removed[bitmaps->n_removed++] = *b;
    size_t i = (size_t)(b - bitmaps->items);
    memmove(b, b + 1, (--bitmaps->n - i) * sizeof(*b));
    int r = stored(q, err);
    if (r && bitmaps->n_removed) { /* it stays */
        memmove(b + 1, b, (bitmaps->n++ - i) * sizeof(*b));
        *b = removed[--bitmaps->n_removed];
    }
    update_recording(q);
    return r;
}

static int consistent(const struct qcow2 *q, const struct qcow2_bitmap *b, struct err *err)
{
    if (b->consistent && !b->foreign)
        return 0;
    return err_set(err, -EUCLEAN, "disk '%.200s': the bitmap '%.60s' is inconsistent: it can be removed, and no more",
                   q->disk.path, b->name);
}

static int clear(struct disk *disk, const char *name, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_bitmap *b = find(q, name, err);
    int r = b ? consistent(q, b, err) : -ENOENT;

    if (r)
        return r;
    dirty_clear(&b->bits);
    b->changed = true;
    return stored(q, err);
}

static int next(struct disk *disk, const char *name, uint64_t from, uint64_t *offset, uint64_t *len, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    struct qcow2_bitmap *b = find(q, name, err);
    uint64_t first, n;
    int r = b ? consistent(q, b, err) : -ENOENT;

    *offset = *len = 0;
    if (r == 0)
        r = qcow2_bitmap_load(q, b, err);
    if (r)
        return r;
    dirty_next(&b->bits, from >> b->granularity_bits, &first, &n);
    if (!n)
        return 0;
    uint64_t end = (first + n) << b->granularity_bits;
    *offset = first << b->granularity_bits > from ? first << b->granularity_bits : from;
    *len = (end < disk->size ? end : disk->size) - *offset;
    return 0;
}

static int list_bitmaps(struct disk *disk, struct disk_bitmaps *list, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    int r = 0;

    list->items = calloc(q->bitmaps->n + 1, sizeof(*list->items));
    if (!list->items)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", disk->path);
    for (size_t i = 0; r == 0 && i < q->bitmaps->n; i++) {
        struct qcow2_bitmap *b = &q->bitmaps->items[i];
        if (b->n_name >= DISK_BITMAP_NAME_MAX || memchr(b->name, 0, b->n_name))
            continue;
        struct disk_bitmap *to = &list->items[list->n++];
        *to = (struct disk_bitmap){.granularity = UINT32_C(1) << b->granularity_bits,
                                   .recording = records(b),
                                   .consistent = b->consistent && !b->foreign};
        memcpy(to->name, b->name, b->n_name);
        if (!to->consistent)
            continue;
        r = qcow2_bitmap_load(q, b, err);
        if (r == 0)
            to->dirty = dirty_count(&b->bits) << b->granularity_bits;
        to->dirty = to->dirty < disk->size ? to->dirty : disk->size;
    }
    if (r) {
        free(list->items);
        *list = (struct disk_bitmaps){0};
    }
    return r;
}

const struct disk_bitmap_ops qcow2_bitmap_ops = {
    .create = create,
    .remove = remove_bitmap,
    .clear = clear,
    .list = list_bitmaps,
    .next = next,
    .record = record,
};
