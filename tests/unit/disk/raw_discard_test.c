/* Discards that are done before the host has done them, over a file in memory (fake_file.h): what is read is what was written, or zeroes, in any order. */
#include "disk/raw_discard.h"

#include <stdlib.h>

#include "../unit.h"
#include "base/log.h"
#include "fake_file.h"

#define SIZE  (UINT64_C(1) << 20)
#define BLOCK DISK_BLOCK_SIZE
#define DEPTH 12
#define MOST  64 /* blocks of a request */

struct world;

struct slot {
    struct world *w;
    struct disk_request req;
    struct iovec iov;
    uint8_t buf[MOST * BLOCK];
    bool used;
};

struct world {
    struct disk disk;
    struct raw_discard d;
    struct file *file;
    struct fake *fake;
    struct loop *loop;
    uint8_t *want;
    struct slot slots[DEPTH];
    uint64_t seed;
    unsigned left, done, most_noted;
    bool fails; /* each request does */
};

static void submit(struct disk *disk, struct disk_request *req)
{
    struct world *w = CONTAINER_OF(disk, struct world, disk);

    raw_discard_submit(&w->d, req);
    w->most_noted = w->d.n > w->most_noted ? w->d.n : w->most_noted;
}

static void wait(struct disk *disk)
{
    file_wait(CONTAINER_OF(disk, struct world, disk)->file);
}

static const struct disk_type type = {.name = "raw", .submit = submit, .wait = wait};

static struct world *open_world(uint64_t seed)
{
    struct world *w = calloc(1, sizeof(*w));
    const struct disk_conf conf = {.path = "fake.raw", .format = "raw", .discard = true};

    assert_non_null(w);
    w->seed = seed;
    w->want = malloc(SIZE);
    assert_non_null(w->want);
    for (uint64_t i = 0; i < SIZE; i++)
        w->want[i] = (uint8_t)fake_random(&w->seed);
    w->fake = fake_next = fake_new(w->want, SIZE, seed);
    w->fake->lag = 6;
    assert_int_equal(loop_open(&w->loop, NULL), 0);
    assert_int_equal(file_open(&w->file, &conf, w->loop, NULL), 0);
    disk_init(&w->disk, &type, &conf, w->loop);
    w->disk.size = SIZE;
    raw_discard_init(&w->d, &w->disk, w->file);
    w->d.piece_most = 16 * BLOCK;
    return w;
}

static void close_world(struct world *w)
{
    assert_int_equal(w->left, 0);
    raw_discard_drain(&w->d);
    assert_int_equal(w->d.n, 0);
    assert_null(w->d.waiting);
    assert_memory_equal(w->fake->data, w->want, SIZE);
    loop_event_fini(&w->disk.easy_event);
    file_close(w->file);
    loop_close(w->loop);
    fake_free(w->fake);
    free(w->want);
    free(w);
}

static void done(struct disk_request *req, int result)
{
    struct slot *s = req->opaque;
    struct world *w = s->w;

    assert_true(w->fails ? result < 0 : result == 0);
    if (req->op == DISK_READ)
        assert_memory_equal(s->buf, w->want + req->offset, req->len);
    else if (req->op == DISK_WRITE)
        memcpy(w->want + req->offset, s->buf, req->len);
    else if (req->op == DISK_ZERO || req->op == DISK_DISCARD)
        memset(w->want + req->offset, 0, req->len);
    s->used = false;
    w->left--;
    w->done++;
    loop_stop(w->loop);
}

static bool is_free(const struct world *w, uint64_t offset, uint64_t len)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        const struct disk_request *r = &w->slots[i].req;
        if (w->slots[i].used && r->offset < offset + len && offset < r->offset + r->len)
            return false;
    }
    return true;
}

static void start(struct slot *s, enum disk_op op, uint64_t offset, uint64_t len)
{
    struct world *w = s->w;

    for (uint64_t i = 0; op == DISK_WRITE && i < len; i++)
        s->buf[i] = (uint8_t)fake_random(&w->seed);
    s->iov = (struct iovec){s->buf, len};
    s->req = (struct disk_request){
        .op = op, .offset = offset, .len = len, .unmap = true, .iov = &s->iov, .n_iov = 1, .done = done, .opaque = s};
    s->used = true;
    w->left++;
    disk_submit(&w->disk, &s->req);
}

/* discards: of 100 requests. most: blocks. */
static void start_random(struct slot *s, unsigned discards, unsigned most)
{
    struct world *w = s->w;
    static const enum disk_op others[] = {DISK_READ, DISK_WRITE, DISK_WRITE, DISK_ZERO, DISK_FLUSH};
    enum disk_op op = fake_random(&w->seed) % 100 < discards ? DISK_DISCARD : others[fake_random(&w->seed) % 5];
    uint64_t n = fake_random(&w->seed) % most + 1, at = fake_random(&w->seed) % (SIZE / BLOCK - n + 1);

    if (op == DISK_FLUSH)
        start(s, op, 0, 0);
    else if (is_free(w, at * BLOCK, n * BLOCK))
        start(s, op, at * BLOCK, n * BLOCK);
}

static void run(struct world *w, unsigned requests, unsigned discards, unsigned most)
{
    unsigned end = w->done + requests;

    while (w->done < end) {
        for (unsigned i = 0; i < DEPTH; i++) {
            w->slots[i].w = w;
            if (!w->slots[i].used)
                start_random(&w->slots[i], discards, most);
        }
        if (w->left)
            loop_run(w->loop);
    }
    while (w->left)
        loop_run(w->loop);
}

static void test_random(void **state)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct world *w = open_world(seed);
        run(w, 4000, 30, MOST);
        run(w, 6000, 95, 2); /* more than can be noted */
        run(w, 4000, 10, MOST);
        run(w, 4000, 60, MOST);
        assert_int_equal(w->most_noted, RAW_DISCARD_RANGES);
        close_world(w);
    }
}

/* One request at a time, waited for. */
static void ask(struct world *w, enum disk_op op, uint64_t block, uint64_t blocks)
{
    w->slots[0].w = w;
    start(&w->slots[0], op, block * BLOCK, blocks * BLOCK);
    while (w->left)
        loop_run(w->loop);
}

/* Who reads what was noted last does not wait for all that was noted before. */
static void test_read_first(void **state)
{
    struct world *w = open_world(1);

    w->fake->lag = 0;
    for (unsigned i = 0; i < DEPTH - 1; i++) {
        w->slots[i].w = w;
        start(&w->slots[i], DISK_DISCARD, i * 20 * BLOCK, 10 * BLOCK);
    }
    w->slots[DEPTH - 1].w = w;
    start(&w->slots[DEPTH - 1], DISK_READ, (DEPTH - 2) * 20 * BLOCK, 10 * BLOCK);
    while (w->d.waiting)
        file_wait(w->file);
    assert_true(w->d.n >= DEPTH - 4); /* without: the first, its own, and the next */
    while (w->left)
        loop_run(w->loop);
    close_world(w);
}

/* A host that fails is told of once; from then on the guest hears of it. */
static void test_failure(void **state)
{
    struct world *w = open_world(1);
    uint8_t kept[20 * BLOCK];

    log_set_level(LOG_LEVEL_NONE);
    memcpy(kept, w->want, sizeof(kept));
    w->fake->fail_op = w->fake->n_ops + 1;
    ask(w, DISK_DISCARD, 0, 10); /* fails, behind its back */
    raw_discard_drain(&w->d);
    assert_true(w->d.failed);
    memcpy(w->want, kept, 10 * BLOCK);
    ask(w, DISK_READ, 0, 10);
    w->fails = true;
    w->fake->fail_op = w->fake->n_ops + 1;
    ask(w, DISK_DISCARD, 10, 10);
    w->fails = false;
    memcpy(w->want, kept, sizeof(kept));
    ask(w, DISK_DISCARD, 30, 10);
    close_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_read_first),
        cmocka_unit_test(test_failure),
    };
    return cmocka_run_group_tests_name("raw_discard", tests, NULL, NULL);
}
