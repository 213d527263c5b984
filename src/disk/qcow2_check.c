/* The check as a whole: for each window of clusters, refcounts as they are, references as they are, and the one held against the other. */
#include "disk/qcow2_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TOLD   100
#define MAX_ROUNDS 2

typedef unsigned long long ull;

static void tell(struct qcow2_check *c, const char *line)
{
    if (!c->quiet && c->told->finding && c->n_told++ < MAX_TOLD)
        c->told->finding(c->told->opaque, line);
}

void qcow2_check_error(struct qcow2_check *c, const char *fmt, ...)
{
    char line[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    c->errors++;
    tell(c, line);
}

int qcow2_check_read(struct qcow2_check *c, uint64_t offset, void *buf, size_t len, const char *what)
{
    int r = file_read(c->q->file, offset, buf, len);
    return r ? err_set(c->err, r, "%s at 0x%llx cannot be read: %s", what, (ull)offset, strerror(-r)) : 0;
}

uint64_t qcow2_check_block_at(const struct qcow2_check *c, uint64_t i)
{
    const struct qcow2 *q = c->q;
    uint64_t at = i < q->refcounts.n ? q->refcounts.entries[i] & QCOW2_OFFSET_MASK : 0;

    return at & (q->cluster_size - 1) ? 1 : at >= c->bytes ? 0 : at;
}

int qcow2_check_block(struct qcow2_check *c, uint64_t i)
{
    struct qcow2 *q = c->q;
    uint64_t at = qcow2_check_block_at(c, i);

    if (at < 2)
        return at ? 2 : 1;
    return qcow2_check_read(c, at, c->block, q->cluster_size, "the refcount block");
}

/* Which clusters of the window have a refcount of 1. */
static int load(struct qcow2_check *c, uint64_t end)
{
    struct qcow2 *q = c->q;
    uint64_t per_block = UINT64_C(1) << q->block_bits;

    for (uint64_t first = c->counts.first; first < end; first += per_block) {
        int r = qcow2_check_block(c, first >> q->block_bits);
        if (r < 0)
            return r;
        for (uint64_t i = 0; r == 0 && i < per_block && first + i < end; i++)
            if (qcow2_refcount_read(q, c->block, (unsigned)i) == 1 &&
                qcow2_counts_add(&c->counts, first + i, 0, QCOW2_CHECK_ONE))
                return err_set(c->err, -ENOMEM, "out of memory");
    }
    return 0;
}

int qcow2_check_windows(struct qcow2_check *c, enum qcow2_check_mode mode,
                        int (*each)(struct qcow2_check *c, void *opaque), void *opaque)
{
    c->mode = mode;
    for (uint64_t first = 0; first < c->n; first += QCOW2_CHECK_WINDOW) {
        uint64_t end = c->n - first < QCOW2_CHECK_WINDOW ? c->n : first + QCOW2_CHECK_WINDOW;
        qcow2_counts_clear(&c->counts, first);
        int r = load(c, end);
        if (r == 0)
            r = qcow2_check_walk(c);
        if (r == 0 && each)
            r = each(c, opaque);
        if (r)
            return r;
    }
    return 0;
}

/* ---- refcounts and references ---- */

/* One cluster; `stored`: its refcount. */
static void compare_one(struct qcow2_check *c, uint64_t cluster, uint64_t stored)
{
    unsigned flags, kinds;
    uint64_t counted = qcow2_counts_get(&c->counts, cluster, &flags);
    ull offset = (ull)cluster << c->q->cluster_bits;

    if (!counted && offset >= c->bytes)
        return; /* not there */
    if (stored || counted)
        c->told->end = offset + c->q->cluster_size;
    kinds = !!(flags & QCOW2_CHECK_META) + !!(flags & QCOW2_CHECK_L2) + !!(flags & QCOW2_CHECK_DATA);
    if (stored < counted) {
        c->rebuild |= !stored;
        qcow2_check_error(c, "offset 0x%llx: refcount %llu, references %llu", offset, (ull)stored, (ull)counted);
    } else if ((kinds > 1 || (counted > 1 && flags & QCOW2_CHECK_META)) && !(flags & QCOW2_CHECK_TOLD)) {
        qcow2_check_error(c, "offset 0x%llx: metadata, and something else refers to it too", offset);
    }
    if (stored > counted) {
        char line[96];
        snprintf(line, sizeof(line), "offset 0x%llx: refcount %llu, references %llu", offset, (ull)stored,
                 (ull)counted);
        c->leaks++;
        tell(c, line);
    }
}

static int compare(struct qcow2_check *c, void *opaque)
{
    struct qcow2 *q = c->q;
    uint64_t per_block = UINT64_C(1) << q->block_bits, first = c->counts.first;
    uint64_t end = c->n - first < QCOW2_CHECK_WINDOW ? c->n : first + QCOW2_CHECK_WINDOW;

    for (; first < end; first += per_block) {
        int r = qcow2_check_block(c, first >> q->block_bits);
        if (r < 0)
            return r;
        if (r == 2) { /* told where the table was walked; nobody knows what the block would say */
            c->rebuild = true;
            continue;
        }
        for (uint64_t i = 0; i < per_block && first + i < end; i++)
            compare_one(c, first + i, r ? 0 : qcow2_refcount_read(q, c->block, (unsigned)i));
    }
    return 0;
}

int qcow2_check_look(struct qcow2_check *c)
{
    c->errors = c->leaks = 0;
    c->rebuild = c->dangling = false;
    c->told->allocated = c->told->compressed = 0;
    return qcow2_check_windows(c, QCOW2_CHECK_LOOK, compare, NULL);
}

/* ---- all of it ---- */

static int check_and_repair(struct qcow2_check *c)
{
    struct disk_check *told = c->told;
    int r = qcow2_check_look(c);

    if (r)
        return r;
    told->errors = c->errors;
    told->leaks = c->leaks;
    if (!told->repair)
        return 0;
    c->quiet = true;
    /* Again: an entry that was put right may leave a leak. */
    for (unsigned rounds = 0; rounds < MAX_ROUNDS && (c->errors || c->leaks); rounds++) {
        r = qcow2_check_repair(c);
        if (r == 0)
            r = qcow2_check_look(c);
        if (r)
            return r;
    }
    told->errors = c->errors < told->errors ? told->errors : c->errors;
    told->leaks = c->leaks < told->leaks ? told->leaks : c->leaks;
    told->errors_repaired = told->errors - c->errors;
    told->leaks_repaired = told->leaks - c->leaks;
    return c->errors ? 0 : qcow2_check_mark_sound(c);
}

/* How much there is to walk, in the guest's bytes. */
static uint64_t work(const struct qcow2_check *c)
{
    const struct qcow2 *q = c->q;
    uint64_t entries = q->l1.n;

    for (uint32_t i = 0; i < q->n_snapshots; i++)
        entries += q->snapshots[i].l1_size;
    return (entries << q->l2_bits) * ((c->n - 1) / QCOW2_CHECK_WINDOW + 1);
}

int qcow2_check_image(struct disk *disk, struct disk_check *told, struct err *err)
{
    struct qcow2 *q = (struct qcow2 *)disk;
    unsigned bits = 1u << q->refcount_order;
    int r = disk->read_only || q->for_check ? 0 : qcow2_settle(q);

    if (r)
        return err_set(err, r, "disk '%.200s': its metadata cannot be written: %s", disk->path, strerror(-r));
    if (told->repair && !q->for_check)
        return err_set(err, -EBUSY, "disk '%.200s': it is in use, and can be checked but not repaired", disk->path);
    told->errors = told->leaks = told->errors_repaired = told->leaks_repaired = told->end = 0;
    told->total = (disk->size + q->cluster_size - 1) >> q->cluster_bits;
    struct qcow2_check c = {.q = q, .told = told, .err = err, .bytes = file_size(q->file)};
    c.n = ((c.bytes + q->cluster_size - 1) >> q->cluster_bits) + 1;
    c.max = bits < 32 ? (UINT64_C(1) << bits) - 1 : UINT32_MAX;
    c.total = work(&c);
    c.l2 = malloc(q->cluster_size);
    c.block = malloc(q->cluster_size);
    r = qcow2_counts_init(&c.counts);
    if (r || !c.l2 || !c.block)
        r = err_set(err, -ENOMEM, "out of memory");
    if (r == 0)
        r = check_and_repair(&c);
    qcow2_counts_fini(&c.counts);
    free(c.l2);
    free(c.block);
    if (r)
        err_prefix(err, "disk '%.200s'", disk->path);
    return r;
}
