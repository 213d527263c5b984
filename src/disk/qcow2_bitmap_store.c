/* Bitmaps on their way to the file: qcow2_bitmap.h tells in which order. Plain calls, with no request under way. */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_bitmap.h"

struct run {
    uint64_t first, n; /* clusters */
};

struct runs {
    struct run *items;
    size_t n, capacity;
};

struct store {
    struct qcow2 *q;
    struct runs made, gone;
    uint8_t *cluster;
    bool all;
};

static int note(struct runs *runs, uint64_t first, uint64_t n)
{
    if (runs->n == runs->capacity) {
        size_t capacity = runs->capacity ? runs->capacity * 2 : 64;
        struct run *items = realloc(runs->items, capacity * sizeof(*items));
        if (!items)
            return -ENOMEM;
        runs->items = items;
        runs->capacity = capacity;
    }
    runs->items[runs->n++] = (struct run){first, n};
    return 0;
}

static int note_gone(void *opaque, const char *what, uint64_t offset, uint64_t bytes)
{
    struct store *s = opaque;
    unsigned bits = s->q->cluster_bits;

    (void)what;
    return note(&s->gone, offset >> bits, (bytes + s->q->cluster_size - 1) >> bits);
}

static int take(struct store *s, uint64_t n, uint64_t *offset)
{
    uint64_t first;
    int r = qcow2_alloc_wait(s->q, n, &first);

    if (r)
        return r;
    *offset = first << s->q->cluster_bits;
    r = note(&s->made, first, n);
    if (r)
        qcow2_free_unused(s->q, first, n);
    return r;
}

/* To a place of its own, filled up with zeroes to whole clusters. */
static int write_new(struct store *s, const void *data, size_t len, uint64_t *offset)
{
    size_t size = align_up(len, s->q->cluster_size);
    uint8_t *buf = calloc(1, size);
    int r = buf ? take(s, size >> s->q->cluster_bits, offset) : -ENOMEM;

    if (r == 0) {
        memcpy(buf, data, len);
        r = file_write(s->q->file, *offset, buf, size);
    }
    free(buf);
    return r;
}

static bool in_use(const struct store *s, const struct qcow2_bitmap *b)
{
    return !b->consistent || (s->q->bitmaps->marked && !s->all && !b->foreign);
}

/* Bits where they can be relied on, and the table. */
static int write_bitmap(struct store *s, struct qcow2_bitmap *b, uint64_t *table, uint32_t *n_table)
{
    struct qcow2 *q = s->q;
    uint64_t per_cluster = q->cluster_size * 8, n = (qcow2_bitmap_bits(q, b) + per_cluster - 1) / per_cluster;
    uint8_t *entries = n <= QCOW2_BITMAP_MAX_TABLES ? calloc(n, 8) : NULL;
    int r = entries ? 0 : -EFBIG;

    for (uint64_t i = 0; r == 0 && i < n && !in_use(s, b); i++) {
        uint64_t offset = 1;
        int kind = dirty_save(&b->bits, i * per_cluster, s->cluster, q->cluster_size);
        if (kind == 0)
            continue;
        if (kind < 0)
            r = write_new(s, s->cluster, q->cluster_size, &offset);
        qcow2_put_be64(entries + i * 8, offset);
    }
    if (r == 0)
        r = write_new(s, entries, n * 8, table);
    *n_table = (uint32_t)n;
    free(entries);
    return r;
}

static size_t put_entry(const struct store *s, const struct qcow2_bitmap *b, uint64_t table, uint32_t n_table,
                        uint8_t *to)
{
    uint32_t flags = (b->flags & ~(uint32_t)QCOW2_BITMAP_IN_USE) | (in_use(s, b) ? QCOW2_BITMAP_IN_USE : 0);

    qcow2_put_be64(to, table);
    qcow2_put_be32(to + 8, n_table);
    qcow2_put_be32(to + 12, flags);
    to[16] = b->type;
    to[17] = b->granularity_bits;
    store_le16(to + 18, __builtin_bswap16(b->n_name));
    qcow2_put_be32(to + 20, b->n_extra);
    memcpy(to + 24, b->extra, b->n_extra);
    memcpy(to + 24 + b->n_extra, b->name, b->n_name);
    return qcow2_bitmap_entry_bytes(b);
}

/* Where the bitmaps are that the file is to have, and what of the old goes. */
struct placed {
    uint64_t table;
    uint32_t n_table;
    bool made;
};

static int write_bitmaps(struct store *s, struct placed *placed, uint8_t *directory)
{
    struct qcow2_bitmaps *bitmaps = s->q->bitmaps;
    size_t at = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < bitmaps->n; i++) {
        struct qcow2_bitmap *b = &bitmaps->items[i];
        placed[i] = (struct placed){.table = b->table, .n_table = b->n_table};
        if (!b->table || (b->changed && !in_use(s, b) && !b->foreign)) {
            placed[i].made = true;
            r = write_bitmap(s, b, &placed[i].table, &placed[i].n_table);
        }
        if (r == 0)
            at += put_entry(s, b, placed[i].table, placed[i].n_table, directory + at);
    }
    return r;
}

/* What the bitmaps have in the file but what stays. */
static int note_old(struct store *s, const struct placed *placed)
{
    struct qcow2_bitmaps *bitmaps = s->q->bitmaps;
    int r = 0;

    if (s->q->bitmaps_there)
        r = note_gone(s, NULL, bitmaps->directory, bitmaps->directory_bytes);
    for (size_t i = 0; r == 0 && i < bitmaps->n; i++)
        if (placed[i].made && bitmaps->items[i].table)
            r = qcow2_bitmap_each_of(s->q, &bitmaps->items[i], note_gone, s, NULL);
    for (size_t i = 0; r == 0 && i < bitmaps->n_removed; i++)
        if (bitmaps->removed[i].table)
            r = qcow2_bitmap_each_of(s->q, &bitmaps->removed[i], note_gone, s, NULL);
    return r;
}

static void free_all(struct qcow2 *q, const struct runs *runs, bool used)
{
    for (size_t i = 0; i < runs->n; i++)
        if (used)
            qcow2_free_later(q, runs->items[i].first, runs->items[i].n);
        else
            qcow2_free_unused(q, runs->items[i].first, runs->items[i].n);
}

static void install(struct store *s, const struct placed *placed, uint64_t directory, size_t bytes)
{
    struct qcow2 *q = s->q;
    struct qcow2_bitmaps *bitmaps = q->bitmaps;

    for (size_t i = 0; i < s->made.n; i++)
        for (uint64_t c = 0; c < s->made.items[i].n; c++)
            (void)!qcow2_set_add(&q->meta, s->made.items[i].first + c); /* there is room */
    for (size_t i = 0, at = 0; i < bitmaps->n; i++) {
        struct qcow2_bitmap *b = &bitmaps->items[i];
        b->entry = directory + at;
        at += qcow2_bitmap_entry_bytes(b);
        b->table = placed[i].table;
        b->n_table = placed[i].n_table;
        b->flags = (b->flags & ~(uint32_t)QCOW2_BITMAP_IN_USE) | (in_use(s, b) ? QCOW2_BITMAP_IN_USE : 0);
        b->changed = b->changed && in_use(s, b);
    }
    for (size_t i = 0; i < bitmaps->n_removed; i++)
        qcow2_bitmap_free(&bitmaps->removed[i]);
    bitmaps->n_removed = 0;
    bitmaps->directory = directory;
    bitmaps->directory_bytes = bytes;
    bitmaps->changed = false;
    bitmaps->marked = bitmaps->marked && !s->all;
}

static uint64_t total(const struct runs *runs)
{
    uint64_t n = 0;

    for (size_t i = 0; i < runs->n; i++)
        n += runs->items[i].n;
    return n;
}

static int store(struct store *s, struct placed *placed, uint8_t *directory, size_t bytes)
{
    struct qcow2 *q = s->q;
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    uint64_t place = 0;
    int r = write_bitmaps(s, placed, directory);

    if (r == 0 && bytes)
        r = write_new(s, directory, bytes, &place);
    if (r == 0)
        r = note_old(s, placed);
    if (r == 0)
        r = qcow2_set_reserve(&q->meta, total(&s->made));
    if (r == 0)
        r = qcow2_settle(q);
    if (r == 0)
        r = file_sync(q->file);
    if (r == 0)
        r = qcow2_header_bitmaps(q, (uint32_t)bitmaps->n, bytes, place);
    if (r)
        return r;
    install(s, placed, place, bytes);
    return 0;
}

int qcow2_bitmap_store(struct qcow2 *q, bool all)
{
    struct qcow2_bitmaps *bitmaps = q->bitmaps;
    struct store s = {.q = q, .all = all};
    size_t bytes = 0;

    if (!bitmaps->changed && !(bitmaps->marked && all))
        return 0;
    for (size_t i = 0; i < bitmaps->n; i++)
        bytes += qcow2_bitmap_entry_bytes(&bitmaps->items[i]);
    if (bytes > QCOW2_BITMAP_DIRECTORY || bitmaps->n > QCOW2_BITMAP_MAX)
        return -EFBIG;
    struct placed *placed = calloc(bitmaps->n + 1, sizeof(*placed));
    uint8_t *directory = calloc(1, bytes + 1);
    s.cluster = malloc(q->cluster_size);
    int r = placed && directory && s.cluster ? qcow2_settle(q) : -ENOMEM;
    if (r == 0) {
        r = store(&s, placed, directory, bytes);
        free_all(q, r ? &s.made : &s.gone, r == 0);
        (void)!qcow2_settle(q); /* only gives back room */
    }
    free(placed);
    free(directory);
    free(s.cluster);
    free(s.made.items);
    free(s.gone.items);
    return r;
}
