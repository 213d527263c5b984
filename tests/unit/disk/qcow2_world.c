#include "qcow2_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit.h"
#include "disk/qcow2_impl.h"

#define BLOCK      DISK_BLOCK_SIZE
#define MAX_ERRORS 1000000

void world_fill(uint8_t *buf, uint64_t block, uint32_t value)
{
    for (unsigned i = 0; i < BLOCK / 8; i++)
        store_le64(buf + i * 8, value ? (uint64_t)value << 32 | (block & 0xffffff) << 8 | i : 0);
}

static uint32_t last_value(const struct block *b)
{
    return b->n ? b->later[b->n - 1] : b->flushed;
}

void world_init(struct world *w, struct fake *fake, uint64_t size, uint64_t seed)
{
    *w = (struct world){.fake = fake,
                        .conf = {.path = "fake.qcow2", .format = "qcow2", .discard = true},
                        .n_blocks = size / BLOCK,
                        .seed = seed,
                        .depth = 8};
    assert_int_equal(loop_open(&w->loop, NULL), 0);
    w->blocks = calloc(w->n_blocks, sizeof(*w->blocks));
    assert_non_null(w->blocks);
}

void world_cover(struct world *w, const struct world *below)
{
    for (uint64_t i = 0; i < w->n_blocks && i < below->n_blocks; i++)
        w->blocks[i].flushed = last_value(&below->blocks[i]);
    w->next_value = below->next_value;
}

void world_shrink(struct world *w, uint64_t size)
{
    for (uint64_t i = size / BLOCK; i < w->n_blocks; i++)
        free(w->blocks[i].later);
    w->n_blocks = size / BLOCK;
}

void world_fini(struct world *w)
{
    for (uint64_t i = 0; i < w->n_blocks; i++)
        free(w->blocks[i].later);
    free(w->blocks);
    loop_close(w->loop);
}

void world_open(struct world *w)
{
    struct err err = {""};

    fake_next = w->fake;
    uint64_t failed = w->fake->n_failed;
    while (disk_open(&w->disk, &w->conf, w->loop, &err)) {
        if (w->fake->die_at && w->fake->dead)
            return;
        if (w->fake->n_failed == failed)
            fail_msg("%s", err.msg);
        failed = w->fake->n_failed;
        fake_mend(w->fake);
    }
    if (w->max_pages) {
        struct qcow2 *q = (struct qcow2 *)w->disk;
        q->max_pages = w->max_pages;
        q->max_dirty = w->max_pages / 2;
    }
}

void world_close(struct world *w)
{
    disk_close(w->disk);
    w->disk = NULL;
}

/* ---- values ---- */

static void push(struct block *b, uint32_t value)
{
    if (b->n == b->capacity) {
        b->capacity = b->capacity * 2 + 4;
        b->later = realloc(b->later, b->capacity * sizeof(*b->later));
        assert_non_null(b->later);
    }
    b->later[b->n++] = value;
}

static void settle(struct block *b, uint64_t upto)
{
    unsigned n = upto > b->dropped ? (unsigned)(upto - b->dropped) : 0;

    if (!n)
        return;
    b->flushed = b->later[n - 1];
    b->n -= n;
    b->n_done -= n;
    b->dropped = upto;
    memmove(b->later, b->later + n, b->n * sizeof(*b->later));
}

/* ---- requests ---- */

static void begin(struct world *w);

static void check_read(const struct op *op)
{
    uint8_t want[BLOCK];

    for (uint64_t i = 0; i < op->n; i++) {
        world_fill(want, op->first + i, op->want[i]);
        if (memcmp(op->buf + i * BLOCK, want, BLOCK))
            fail_msg("block %llu: read %016llx, wanted value %x", (unsigned long long)(op->first + i),
                     (unsigned long long)load_le64(op->buf + i * BLOCK), op->want[i]);
    }
}

static void end_op(struct op *op)
{
    struct world *w = op->w;

    for (uint64_t i = 0; i < op->n; i++) {
        struct block *b = &w->blocks[op->first + i];
        b->busy = false;
        if (op->req.op != DISK_READ)
            b->n_done = b->n;
    }
    if (op->snapshot) {
        for (uint64_t i = 0; i < w->n_blocks; i++)
            settle(&w->blocks[i], op->snapshot[i]);
        free(op->snapshot);
        op->snapshot = NULL;
    }
    free(op->buf);
    free(op->want);
    op->buf = NULL;
    op->want = NULL;
    op->active = false;
    w->n_active--;
}

static void done(struct disk_request *req, int result)
{
    struct op *op = req->opaque;
    struct world *w = op->w;

    if (result) {
        w->errors++;
        if (w->room_after && w->errors % w->room_after == 0) {
            fake_mend(w->fake);
            if (w->below)
                fake_mend(w->below);
        }
        if (w->errors == MAX_ERRORS)
            fail_msg("requests fail for good (%d)", result);
        if (!w->fake->dead && req->op != DISK_FLUSH) {
            disk_submit(w->disk, req); /* until it is done */
            return;
        }
        free(op->snapshot);
        op->snapshot = NULL;
    } else if (req->op == DISK_READ) {
        check_read(op);
    }
    end_op(op);
    if (!w->fake->dead)
        begin(w);
    if (w->hook && !w->in_hook && !w->fake->dead && fake_random(&w->seed) % 40 == 0) {
        w->in_hook = true;
        w->hook(w);
        w->in_hook = false;
    }
    if (!w->n_active)
        loop_stop(w->loop);
}

/* A range in which nothing is under way, of up to `most` blocks; in the same few places often. */
static bool pick(struct world *w, struct op *op)
{
    static const unsigned lengths[] = {1, 1, 2, 8, 8, 16, 40, 130, 300};
    uint64_t n = lengths[fake_random(&w->seed) % 9];

    n = n == 1 ? n : fake_random(&w->seed) % n + 1;
    op->first = fake_random(&w->seed) % w->n_blocks;
    if (fake_random(&w->seed) % 4 == 0)
        op->first &= ~UINT64_C(127);
    if (fake_random(&w->seed) % 3 == 0)
        op->first %= w->n_blocks / 4 + 1;
    op->n = 0;
    while (op->n < n && op->first + op->n < w->n_blocks && !w->blocks[op->first + op->n].busy)
        op->n++;
    return op->n > 0;
}

/* A write of the whole cluster about op->first, compressed, where nothing else is under way. */
static void pack(struct op *op)
{
    struct world *w = op->w;
    uint64_t per = ((struct qcow2 *)w->disk)->cluster_size / BLOCK, first = align_down(op->first, per), n = 0;

    while (n < per && first + n < w->n_blocks && !w->blocks[first + n].busy)
        n++;
    if (n < per && first + n < w->n_blocks)
        return;
    op->first = first;
    op->n = n;
    op->req.compress = true;
}

static void take_snapshot(struct op *op)
{
    struct world *w = op->w;

    op->n = 0;
    op->snapshot = malloc(w->n_blocks * sizeof(*op->snapshot));
    assert_non_null(op->snapshot);
    for (uint64_t i = 0; i < w->n_blocks; i++)
        op->snapshot[i] = w->blocks[i].dropped + w->blocks[i].n_done;
}

static enum disk_op random_op(struct world *w)
{
    unsigned dice = fake_random(&w->seed) % 100;

    return dice < 30   ? DISK_READ
           : dice < 75 ? DISK_WRITE
           : dice < 83 ? DISK_ZERO
           : dice < 92 ? DISK_DISCARD
                       : DISK_FLUSH;
}

static void prepare(struct op *op)
{
    struct world *w = op->w;
    bool has_data = op->req.op == DISK_READ || op->req.op == DISK_WRITE;
    uint64_t len = op->n * BLOCK, cut = len ? fake_random(&w->seed) % op->n * BLOCK : 0;

    op->buf = has_data ? malloc(len) : NULL;
    op->iov[0] = (struct iovec){op->buf, cut};
    op->iov[1] = (struct iovec){op->buf ? op->buf + cut : NULL, len - cut};
    op->req.offset = op->first * BLOCK;
    op->req.len = len;
    op->req.iov = op->iov;
    op->req.n_iov = has_data ? 2 : 0;
    op->req.unmap = fake_random(&w->seed) % 2;
    op->value = op->req.op == DISK_WRITE ? ++w->next_value : 0;
    op->want = op->req.op == DISK_READ ? malloc(op->n * sizeof(*op->want)) : NULL;
    for (uint64_t i = 0; op->want && i < op->n; i++)
        op->want[i] = last_value(&w->blocks[op->first + i]);
    for (uint64_t i = 0; i < op->n; i++) {
        struct block *b = &w->blocks[op->first + i];
        b->busy = true;
        if (op->req.op == DISK_WRITE)
            world_fill(op->buf + i * BLOCK, op->first + i, op->value);
        if (op->req.op == DISK_WRITE || op->req.op == DISK_ZERO)
            push(b, op->value);
    }
}

/* What is discarded reads as zeroes where the clusters are whole. */
static void push_discarded(struct op *op)
{
    struct world *w = op->w;
    struct qcow2 *q = (struct qcow2 *)w->disk;
    uint64_t per = q->cluster_size / BLOCK, end = op->first + op->n;
    uint64_t first = align_up(op->first, per), last = end == w->n_blocks ? end : align_down(end, per);

    for (uint64_t i = first; i < last; i++)
        if (q->version >= 3 || align_down(i, per) * BLOCK >= q->backed_below) /* version 2 cannot hide what is below */
            push(&w->blocks[i], 0);
}

static void begin(struct world *w)
{
    for (unsigned i = 0; i < w->depth && w->left; i++) {
        struct op *op = &w->ops[i];
        if (op->active)
            continue;
        *op = (struct op){.w = w, .req = {.op = random_op(w), .done = done, .opaque = op}};
        w->left--;
        if (!pick(w, op)) {
            i--;
            continue;
        }
        if (w->pack && op->req.op == DISK_WRITE && fake_random(&w->seed) % 2)
            pack(op);
        op->active = true;
        w->n_active++;
        w->begun++;
        if (op->req.op == DISK_FLUSH)
            take_snapshot(op);
        op->iov[2] = (struct iovec){0};
        prepare(op);
        if (op->req.op == DISK_DISCARD && w->conf.discard)
            push_discarded(op);
        disk_submit(w->disk, &op->req);
    }
}

void world_run(struct world *w, uint64_t n)
{
    w->left = n;
    begin(w);
    if (w->n_active)
        loop_run(w->loop);
}

void world_die(struct world *w)
{
    w->fake->dead = true;
    w->fake->stop_at = 0;
    if (w->n_active)
        loop_run(w->loop);
    assert_int_equal(w->n_active, 0);
    world_close(w);
}

struct single {
    struct loop *loop;
    int result;
};

static void single_done(struct disk_request *req, int result)
{
    struct single *s = req->opaque;

    s->result = result;
    loop_stop(s->loop);
}

int world_single(struct world *w, enum disk_op op, uint64_t offset, void *buf, size_t len)
{
    struct single s = {.loop = w->loop};
    struct iovec iov = {buf, len};
    struct disk_request req = {
        .op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1, .done = single_done, .opaque = &s};

    disk_submit(w->disk, &req);
    loop_run(w->loop);
    return s.result;
}

void world_reset(struct world *w)
{
    for (uint64_t i = 0; i < w->n_blocks; i++) {
        settle(&w->blocks[i], w->blocks[i].dropped + w->blocks[i].n);
        w->blocks[i].flushed = 0;
    }
}

void world_save(const struct world *w, struct world_saved *saved)
{
    saved->n_blocks = w->n_blocks;
    saved->values = malloc(w->n_blocks * sizeof(*saved->values));
    assert_non_null(saved->values);
    for (uint64_t i = 0; i < w->n_blocks; i++)
        saved->values[i] = last_value(&w->blocks[i]);
}

void world_may_become(struct world *w, const struct world_saved *saved)
{
    for (uint64_t i = 0; i < w->n_blocks && i < saved->n_blocks; i++) {
        if (saved->values[i] == WORLD_SAME || saved->values[i] == last_value(&w->blocks[i]))
            continue;
        push(&w->blocks[i], saved->values[i]);
        w->blocks[i].n_done = w->blocks[i].n;
    }
}

void world_restore(struct world *w, const struct world_saved *saved)
{
    if (saved->n_blocks > w->n_blocks)
        world_grow(w, saved->n_blocks * BLOCK);
    else if (saved->n_blocks < w->n_blocks)
        world_shrink(w, saved->n_blocks * BLOCK);
    for (uint64_t i = 0; i < w->n_blocks; i++) {
        struct block *b = &w->blocks[i];
        if (w->n_active) {
            push(b, saved->values[i]);
            b->n_done = b->busy ? b->n_done : b->n;
            continue;
        }
        b->n_done = b->n;
        settle(b, b->dropped + b->n);
        b->flushed = saved->values[i];
    }
}

void world_grow(struct world *w, uint64_t size)
{
    uint64_t n = size / BLOCK;

    w->blocks = realloc(w->blocks, n * sizeof(*w->blocks));
    assert_non_null(w->blocks);
    memset(w->blocks + w->n_blocks, 0, (n - w->n_blocks) * sizeof(*w->blocks));
    w->n_blocks = n;
}

int world_flush(struct world *w)
{
    int r = world_single(w, DISK_FLUSH, 0, NULL, 0);

    for (uint64_t i = 0; r == 0 && i < w->n_blocks; i++)
        settle(&w->blocks[i], w->blocks[i].dropped + w->blocks[i].n_done);
    return r;
}

/* Nothing: 0 is a value too. */
#define NO_VALUE UINT32_MAX

static uint32_t held(const struct block *b, uint64_t block, const uint8_t *data)
{
    uint8_t want[BLOCK];

    for (unsigned i = 0; i <= b->n; i++) {
        uint32_t value = i ? b->later[i - 1] : b->flushed;
        world_fill(want, block, value);
        if (memcmp(data, want, BLOCK) == 0)
            return value;
    }
    return NO_VALUE;
}

void world_adopt(struct world *w)
{
    uint8_t buf[BLOCK];

    for (uint64_t i = 0; i < w->n_blocks; i++) {
        struct block *b = &w->blocks[i];
        if (!b->n)
            continue;
        assert_int_equal(world_single(w, DISK_READ, i * BLOCK, buf, BLOCK), 0);
        b->flushed = held(b, i, buf);
        b->dropped += b->n;
        b->n = b->n_done = 0;
        b->busy = false;
    }
}

void world_check(struct world *w, bool cut)
{
    uint8_t want[BLOCK];
    uint64_t chunk = 256;
    uint8_t *buf = malloc(chunk * BLOCK);

    assert_non_null(buf);
    for (uint64_t at = 0; at < w->n_blocks; at += chunk) {
        uint64_t n = w->n_blocks - at < chunk ? w->n_blocks - at : chunk;
        assert_int_equal(world_single(w, DISK_READ, at * BLOCK, buf, n * BLOCK), 0);
        for (uint64_t i = 0; i < n; i++) {
            const struct block *b = &w->blocks[at + i];
            world_fill(want, at + i, last_value(b));
            if (cut ? held(b, at + i, buf + i * BLOCK) == NO_VALUE : memcmp(buf + i * BLOCK, want, BLOCK))
                fail_msg("block %llu holds %016llx; flushed %x, last %x of %u later", (unsigned long long)(at + i),
                         (unsigned long long)load_le64(buf + i * BLOCK), b->flushed, last_value(b), b->n);
        }
    }
    free(buf);
}

/* ---- refcounts ---- */

struct verify {
    const struct fake *f;
    struct qcow2 q;
    uint32_t *refs;
    uint64_t n;
    bool bad;
};

static void refer(struct verify *v, uint64_t first, uint64_t n, const char *what)
{
    for (uint64_t c = first; c < first + n; c++) {
        if (c >= v->n) {
            print_message("%s: cluster %llu lies beyond the end\n", what, (unsigned long long)c);
            v->bad = true;
            return;
        }
        v->refs[c]++;
    }
}

static uint64_t entry_at(const struct verify *v, uint64_t offset)
{
    return offset + 8 <= v->f->size ? qcow2_be64(v->f->data + offset) : 0;
}

static uint64_t refcount_of(const struct verify *v, uint64_t cluster)
{
    uint64_t table = qcow2_be64(v->f->data + 48), block = cluster >> v->q.block_bits;

    if (block * 8 >= (uint64_t)qcow2_be32(v->f->data + 56) << v->q.cluster_bits)
        return 0;
    uint64_t at = entry_at(v, table + block * 8);
    if (!at || at + v->q.cluster_size > align_up(v->f->size, v->q.cluster_size))
        return 0;
    return qcow2_refcount_read(&v->q, v->f->data + at, (unsigned)(cluster & ((UINT64_C(1) << v->q.block_bits) - 1)));
}

static void check_flag(struct verify *v, uint64_t entry, const char *what, uint64_t i)
{
    uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> v->q.cluster_bits;

    if (cluster && !!(entry & QCOW2_COPIED) != (refcount_of(v, cluster) == 1)) {
        print_message("%s %llu is %llx, its refcount %llu\n", what, (unsigned long long)i, (unsigned long long)entry,
                      (unsigned long long)refcount_of(v, cluster));
        v->bad = true;
    }
}

static void verify_l2(struct verify *v, uint64_t offset, bool active)
{
    for (uint64_t i = 0; i < v->q.l2_entries; i++) {
        uint64_t entry = entry_at(v, offset + i * v->q.entry_size);
        uint64_t bitmap = v->q.n_subs > 1 ? entry_at(v, offset + i * 16 + 8) : 0;
        if ((uint32_t)bitmap & bitmap >> 32 || ((uint32_t)bitmap && !(entry & QCOW2_OFFSET_MASK))) {
            print_message("L2 entry %llu is %llx, its bitmap %llx\n", (unsigned long long)i, (unsigned long long)entry,
                          (unsigned long long)bitmap);
            v->bad = true;
        }
        if (entry & QCOW2_COMPRESSED) {
            struct qcow2_mapping m;
            v->q.end = v->n;
            if (qcow2_l2_decode(&v->q, entry, 0, &m))
                v->bad = true;
            else
                refer(v, m.first, m.n_first, "compressed");
            continue;
        }
        if (entry & QCOW2_OFFSET_MASK)
            refer(v, (entry & QCOW2_OFFSET_MASK) >> v->q.cluster_bits, 1, "L2 entry");
        if (active)
            check_flag(v, entry, "L2 entry", i);
    }
}

/* Flags in what only snapshots refer to mean nothing. */
static void verify_snapshots(struct verify *v)
{
    const uint8_t *h = v->f->data;
    uint64_t start = qcow2_be64(h + 64), at = start;

    for (uint32_t i = 0; i < qcow2_be32(h + 60) && !v->bad; i++) {
        uint64_t l1 = entry_at(v, at), l1_size = entry_at(v, at + 8) >> 32;
        uint32_t names = (uint32_t)entry_at(v, at + 8), extra = (uint32_t)entry_at(v, at + 32);
        at = align_up(at + 40 + extra + (names >> 16) + (names & 0xffff), 8);
        refer(v, l1 >> v->q.cluster_bits, (l1_size * 8 + v->q.cluster_size - 1) >> v->q.cluster_bits, "snapshot's L1");
        for (uint64_t k = 0; k < l1_size && !v->bad; k++) {
            uint64_t table = entry_at(v, l1 + k * 8) & QCOW2_OFFSET_MASK;
            if (!table)
                continue;
            refer(v, table >> v->q.cluster_bits, 1, "snapshot's L1 entry");
            verify_l2(v, table, false);
        }
    }
    refer(v, start >> v->q.cluster_bits, (at - start + v->q.cluster_size - 1) >> v->q.cluster_bits, "snapshots");
}

int world_verify(const struct fake *f)
{
    struct verify *v = calloc(1, sizeof(*v));
    const uint8_t *h = f->data;
    int leaks = 0;

    assert_non_null(v);
    v->f = f;
    v->q.version = qcow2_be32(h + 4);
    v->q.cluster_bits = qcow2_be32(h + 20);
    v->q.cluster_size = UINT64_C(1) << v->q.cluster_bits;
    v->q.refcount_order = v->q.version >= 3 ? qcow2_be32(h + 96) : 4;
    v->q.block_bits = v->q.cluster_bits + 3 - v->q.refcount_order;
    v->q.incompatible = v->q.version >= 3 ? qcow2_be64(h + 72) : 0;
    qcow2_l2_shape(&v->q);
    v->n = (f->size + v->q.cluster_size - 1) >> v->q.cluster_bits;
    v->refs = calloc(v->n + 1, sizeof(*v->refs));
    assert_non_null(v->refs);
    uint64_t l1 = qcow2_be64(h + 40), l1_size = qcow2_be32(h + 36), table = qcow2_be64(h + 48);
    uint64_t table_clusters = qcow2_be32(h + 56);
    refer(v, 0, 1, "header");
    refer(v, l1 >> v->q.cluster_bits, (l1_size * 8 + v->q.cluster_size - 1) >> v->q.cluster_bits, "L1");
    refer(v, table >> v->q.cluster_bits, table_clusters, "refcount table");
    for (uint64_t i = 0; i < (table_clusters << v->q.cluster_bits) / 8; i++)
        if (entry_at(v, table + i * 8))
            refer(v, entry_at(v, table + i * 8) >> v->q.cluster_bits, 1, "refcount block");
    for (uint64_t i = 0; i < l1_size && !v->bad; i++) {
        uint64_t entry = entry_at(v, l1 + i * 8), at = entry & QCOW2_OFFSET_MASK;
        if (!at)
            continue;
        refer(v, at >> v->q.cluster_bits, 1, "L1 entry");
        check_flag(v, entry, "L1 entry", i);
        verify_l2(v, at, true);
    }
    if (!v->bad && qcow2_be32(h + 60))
        verify_snapshots(v);
    for (uint64_t c = 0; c < v->n && !v->bad; c++) {
        uint64_t count = refcount_of(v, c);
        if (count < v->refs[c]) {
            print_message("cluster %llu: refcount %llu, %u references\n", (unsigned long long)c,
                          (unsigned long long)count, v->refs[c]);
            v->bad = true;
        }
        leaks += count > v->refs[c];
    }
    if (v->bad)
        leaks = -1;
    free(v->refs);
    free(v);
    return leaks;
}
