/* What a change of all metadata counts and takes: refcount blocks in memory, and the clusters that are free in the file too. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk/qcow2_snapshot.h"

#define MAX_COUNT (GIB / 2) /* bytes of refcount blocks in memory */

typedef unsigned long long ull;

int qcow2_swap_fail(struct qcow2_swap *s, int r, const char *fmt, ...)
{
    char what[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return err_set(s->err, r, "disk '%.200s': %s", s->q->disk.path, what);
}

static int no_memory(struct qcow2_swap *s)
{
    return qcow2_swap_fail(s, -ENOMEM, "out of memory");
}

int qcow2_swap_note(struct qcow2_swap *s, struct qcow2_swap_runs *runs, uint64_t first, uint64_t n)
{
    struct qcow2_swap_run *last = runs->n ? &runs->items[runs->n - 1] : NULL;

    if (last && last->first + last->n == first) {
        last->n += n;
        return 0;
    }
    if (runs->n == runs->capacity) {
        size_t capacity = runs->capacity ? runs->capacity * 2 : 64;
        struct qcow2_swap_run *items = realloc(runs->items, capacity * sizeof(*items));
        if (!items)
            return no_memory(s);
        runs->items = items;
        runs->capacity = capacity;
    }
    runs->items[runs->n++] = (struct qcow2_swap_run){first, n};
    return 0;
}

/* ---- refcount blocks in memory ---- */

static int make_room(struct qcow2_swap *s, uint64_t block)
{
    size_t n = s->n_blocks + s->n_blocks / 2;

    if (block < s->n_blocks)
        return 0;
    if (block >= QCOW2_MAX_TABLE / 8)
        return qcow2_swap_fail(s, -EFBIG, "its refcount table can get no bigger");
    n = n > block ? n : block + 1;
    uint8_t **blocks = realloc(s->blocks, n * sizeof(*blocks));
    s->blocks = blocks ? blocks : s->blocks;
    bool *changed = realloc(s->changed, n * sizeof(*changed));
    s->changed = changed ? changed : s->changed;
    uint64_t *places = realloc(s->places, n * sizeof(*places));
    s->places = places ? places : s->places;
    if (!blocks || !changed || !places)
        return no_memory(s);
    memset(blocks + s->n_blocks, 0, (n - s->n_blocks) * sizeof(*blocks));
    memset(changed + s->n_blocks, 0, (n - s->n_blocks) * sizeof(*changed));
    memset(places + s->n_blocks, 0, (n - s->n_blocks) * sizeof(*places));
    s->n_blocks = n;
    return 0;
}

/* The block with this index, in memory from now on; of zeroes where the file has none. */
static int load(struct qcow2_swap *s, uint64_t block)
{
    struct qcow2 *q = s->q;
    int r = make_room(s, block);

    if (r || s->blocks[block])
        return r;
    if (s->n_loaded++ >= MAX_COUNT >> q->cluster_bits)
        return qcow2_swap_fail(s, -EFBIG, "its refcounts are more than %llu MiB", (ull)(MAX_COUNT / MIB));
    uint8_t *data = aligned_alloc(512, q->cluster_size);
    if (!data)
        return no_memory(s);
    memset(data, 0, qcow2_swap_entry(s, block) ? 0 : q->cluster_size);
    if (qcow2_swap_entry(s, block)) {
        r = file_read(q->file, qcow2_swap_entry(s, block), data, q->cluster_size);
        if (r)
            qcow2_swap_fail(s, r, "the refcount block at 0x%llx cannot be read: %s", (ull)qcow2_swap_entry(s, block),
                            strerror(-r));
    }
    if (r)
        free(data);
    else
        s->blocks[block] = data;
    return r;
}

int qcow2_swap_counted(struct qcow2_swap *s, uint64_t cluster, uint64_t *count)
{
    uint64_t block = cluster >> s->q->block_bits;

    *count = 0;
    if (block != s->last) {
        if (block >= s->n_blocks || !s->blocks[block]) {
            if (!qcow2_swap_entry(s, block))
                return 0;
            int r = load(s, block);
            if (r)
                return r;
        }
        s->last = block;
    }
    *count = qcow2_refcount_read(s->q, s->blocks[block], qcow2_swap_index(s->q, cluster));
    return 0;
}

static int overflow(struct qcow2_swap *s, uint64_t cluster)
{
    return qcow2_swap_fail(
        s, -EOVERFLOW, "the cluster at 0x%llx has %llu references, the most that refcounts of %u bit%s can tell",
        (ull)(cluster << s->q->cluster_bits), (ull)s->max, 1u << s->q->refcount_order, s->q->refcount_order ? "s" : "");
}

int qcow2_swap_count(struct qcow2_swap *s, uint64_t cluster, int delta, bool data)
{
    struct qcow2 *q = s->q;
    uint64_t count;
    int r = qcow2_swap_counted(s, cluster, &count);

    if (r)
        return r;
    if (UNLIKELY(!count))
        return qcow2_swap_fail(s, -EIO, "the cluster at offset 0x%llx is in use and has a refcount of 0",
                               (ull)(cluster << q->cluster_bits));
    if (UNLIKELY(delta > 0 && count >= s->max))
        return overflow(s, cluster);
    qcow2_refcount_write(q, s->blocks[s->last], qcow2_swap_index(q, cluster), delta > 0 ? count + 1 : count - 1);
    s->changed[s->last] = true;
    if (delta > 0)
        return 0;
    s->lone |= count == 2;
    if (count > 1)
        return 0;
    if (data && qcow2_set_has(&q->meta, cluster))
        return qcow2_swap_fail(s, -EIO, "the cluster at offset 0x%llx holds data and metadata",
                               (ull)(cluster << q->cluster_bits));
    return qcow2_swap_note(s, &s->gone, cluster, 1);
}

/* ---- room ---- */

/* The first count of zero in a block from `index` on, or `end`. */
static unsigned next_zero(const struct qcow2 *q, const uint8_t *block, unsigned index, unsigned end)
{
    const uint64_t ones = UINT64_C(0x0001000100010001);

    while (index < end) {
        uint64_t four = q->refcount_order == 4 && index % 4 == 0 ? load_le64(block + index * 2) : 0;
        if ((four - ones) & ~four & ones << 15 || !four) {
            if (!qcow2_refcount_read(q, block, index))
                return index;
            index++;
        } else {
            index += 4;
        }
    }
    return end;
}

/* In clusters c to last, all of one block; *found grows up to `want`. */
static int find_in_block(struct qcow2_swap *s, uint64_t c, uint64_t last, uint64_t *found, uint64_t want)
{
    struct qcow2 *q = s->q;
    uint64_t block = c >> q->block_bits, first = block << q->block_bits;
    int r = load(s, block);

    while (r == 0 && *found < want) {
        c = first + next_zero(q, s->blocks[block], (unsigned)(c - first), (unsigned)(last - first));
        if (c == last)
            break;
        if (!qcow2_set_has(&q->meta, c)) {
            r = qcow2_swap_note(s, &s->room, c, 1);
            ++*found;
        }
        c++;
    }
    return r;
}

int qcow2_swap_find_room(struct qcow2_swap *s, uint64_t want)
{
    struct qcow2 *q = s->q;
    uint64_t found = 0;
    int r = make_room(s, q->refcounts.n - 1);

    for (uint64_t c = q->hint, last; r == 0 && c < q->end && found < want; c = last) {
        uint64_t block = c >> q->block_bits;
        last = (block + 1) << q->block_bits;
        last = last < q->end ? last : q->end;
        if (qcow2_swap_entry(s, block) && !q->block_full[block])
            r = find_in_block(s, c, last, &found, want);
    }
    return r;
}

static int mark_taken(struct qcow2_swap *s, uint64_t first, uint64_t n)
{
    struct qcow2 *q = s->q;

    for (uint64_t c = first; c < first + n; c++) {
        uint64_t block = c >> q->block_bits;
        int r = load(s, block);
        if (r)
            return r;
        qcow2_refcount_write(q, s->blocks[block], qcow2_swap_index(q, c), 1);
        s->changed[block] = true;
    }
    return qcow2_swap_note(s, &s->enter, first, n);
}

int qcow2_swap_take(struct qcow2_swap *s, uint64_t n, uint64_t *first)
{
    struct qcow2 *q = s->q;
    uint64_t count;
    int r;

    for (size_t i = 0; i < s->room.n; i++) {
        struct qcow2_swap_run *run = &s->room.items[i];
        if (run->n < n)
            continue;
        *first = run->first;
        run->first += n;
        run->n -= n;
        return mark_taken(s, *first, n);
    }
    for (uint64_t c = s->beyond; c < s->beyond + n; c++) {
        r = qcow2_swap_counted(s, c, &count);
        if (r)
            return r;
        if (count || qcow2_set_has(&q->meta, c))
            s->beyond = c + 1;
    }
    *first = s->beyond;
    r = qcow2_grow_file(q, *first + n);
    if (r)
        return qcow2_swap_fail(s, r, "there is no room for its metadata: %s", strerror(-r));
    s->beyond += n;
    return mark_taken(s, *first, n);
}

int qcow2_swap_drop(struct qcow2_swap *s, uint64_t offset, uint64_t bytes)
{
    struct qcow2 *q = s->q;
    uint64_t first = offset >> q->cluster_bits, n = (bytes + q->cluster_size - 1) >> q->cluster_bits;
    int r = 0;

    for (uint64_t c = first; r == 0 && c < first + n; c++)
        r = qcow2_swap_count(s, c, -1, false);
    return r || !n ? r : qcow2_swap_note(s, &s->leave, first, n);
}
