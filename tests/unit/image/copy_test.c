/* The copy engine, between disks in memory that do requests in random order. */
#include "image/copy.h"

#include <errno.h>
#include <stdlib.h>

#include "../unit.h"
#include "image/zero.h"
#include "memory_disk.h"

#define SIZE  (4 * MIB + 37 * DISK_BLOCK_SIZE)
#define CHUNK (64 * KIB)

struct pair {
    struct loop *loop;
    struct memory_disk *from, *to;
    struct image_copy_conf conf;
    struct err err;
};

static void pair_init(struct pair *p, uint64_t seed)
{
    *p = (struct pair){0};
    assert_int_equal(loop_open(&p->loop, NULL), 0);
    p->from = memory_disk_new(p->loop, SIZE, seed);
    p->to = memory_disk_new(p->loop, SIZE + MIB, seed + 1);
    memory_disk_fill(p->from);
    p->conf = (struct image_copy_conf){.from = &p->from->disk, .to = &p->to->disk, .chunk = CHUNK, .depth = 8};
}

static void pair_fini(struct pair *p)
{
    memory_disk_free(p->from);
    memory_disk_free(p->to);
    loop_close(p->loop);
}

static void assert_copied(const struct pair *p)
{
    assert_memory_equal(p->from->data, p->to->data, SIZE);
    assert_true(p->to->n[DISK_FLUSH] > 0);
    assert_true(p->from->most_under_way <= 9 && p->to->most_under_way <= 8); /* a map beside the slots */
}

static uint64_t count(const struct memory_disk *m, enum disk_extent_kind kind)
{
    uint64_t n = 0;

    for (uint64_t b = 0; b < m->disk.size / DISK_BLOCK_SIZE; b++)
        n += m->blocks[b].kind == kind ? DISK_BLOCK_SIZE : 0;
    return n;
}

/* Over what is no zeroes. */
static void copies_all(void **state)
{
    for (uint64_t seed = 1; seed < 6; seed++) {
        struct pair p;
        pair_init(&p, seed);
        memset(p.to->data, 0xaa, p.to->disk.size);
        assert_int_equal(image_copy(&p.conf, &p.err), 0);
        assert_copied(&p);
        assert_int_equal(p.from->bytes[DISK_READ], count(p.from, DISK_EXTENT_DATA));
        for (uint64_t i = SIZE; i < p.to->disk.size; i++)
            assert_int_equal(p.to->data[i], 0xaa);
        pair_fini(&p);
    }
}

static void skips_zeroes(void **state)
{
    struct pair p;

    pair_init(&p, 7);
    p.conf.to_is_zero = true;
    assert_int_equal(image_copy(&p.conf, &p.err), 0);
    assert_copied(&p);
    assert_int_equal(p.to->n[DISK_ZERO], 0);
    assert_true(p.to->bytes[DISK_WRITE] < p.from->bytes[DISK_READ]);
    pair_fini(&p);
}

static void a_disk_that_cannot_tell_is_data(void **state)
{
    struct pair p;

    pair_init(&p, 8);
    p.from->no_map = true;
    p.conf.to_is_zero = true;
    assert_int_equal(image_copy(&p.conf, &p.err), 0);
    assert_copied(&p);
    assert_int_equal(p.from->bytes[DISK_READ], SIZE);
    pair_fini(&p);
}

/* What lies deeper than the first layer comes from the target's backing file. */
static void takes_some_layers(void **state)
{
    struct pair p;

    pair_init(&p, 9);
    p.conf.skip_holes = true;
    p.conf.layers = 1;
    memset(p.to->data, 0xaa, p.to->disk.size);
    assert_int_equal(image_copy(&p.conf, &p.err), 0);
    for (uint64_t b = 0; b < SIZE / DISK_BLOCK_SIZE; b++) {
        const struct memory_block *block = &p.from->blocks[b];
        const uint8_t *to = p.to->data + b * DISK_BLOCK_SIZE;
        if (block->depth == 0 && block->kind != DISK_EXTENT_HOLE)
            assert_memory_equal(to, p.from->data + b * DISK_BLOCK_SIZE, DISK_BLOCK_SIZE);
        else
            assert_int_equal(to[0], 0xaa);
    }
    pair_fini(&p);
}

static void compresses_what_is_not_zeroes(void **state)
{
    struct pair p;

    pair_init(&p, 10);
    p.conf.compress = p.conf.to_is_zero = true;
    assert_int_equal(image_copy(&p.conf, &p.err), 0);
    assert_copied(&p);
    assert_int_equal(p.to->n_compressed, p.to->n[DISK_WRITE]);
    assert_true(p.to->bytes[DISK_WRITE] <= p.to->n[DISK_WRITE] * UINT64_C(4096)); /* one granule each */
    pair_fini(&p);
}

static void tells_of_errors(void **state)
{
    struct pair p;

    pair_init(&p, 11);
    p.from->no_map = true;
    p.from->fail_at = 1 * MIB;
    assert_int_equal(image_copy(&p.conf, &p.err), -EIO);
    assert_non_null(strstr(p.err.msg, "reading 'memory' at offset 1048576: "));
    p.from->fail_at = 0;
    p.to->fail_at = 2 * MIB;
    p.from->data[2 * MIB] = 1;
    assert_int_equal(image_copy(&p.conf, &p.err), -EIO);
    assert_non_null(strstr(p.err.msg, "writing 'memory'"));
    pair_fini(&p);
}

static void wants_room(void **state)
{
    struct pair p;

    pair_init(&p, 12);
    p.to->disk.size = SIZE - DISK_BLOCK_SIZE;
    assert_int_equal(image_copy(&p.conf, &p.err), -ENOSPC);
    assert_int_equal(p.to->n[DISK_WRITE], 0);
    pair_fini(&p);
}

struct watch {
    struct image_job job;
    volatile sig_atomic_t stop;
    uint64_t done, total, stop_at;
};

static void watch_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct watch *w = opaque;

    assert_true(done >= w->done && done <= total && total <= SIZE);
    w->done = done;
    w->total = total;
    if (w->stop_at && done >= w->stop_at)
        w->stop = 1;
}

static void tells_how_far_it_is(void **state)
{
    struct watch w = {.job = {.progress = watch_progress}};
    struct pair p;

    w.job.opaque = &w;
    w.job.stop = &w.stop;
    pair_init(&p, 13);
    p.conf.job = &w.job;
    assert_int_equal(image_copy(&p.conf, &p.err), 0);
    assert_int_equal(w.done, count(p.from, DISK_EXTENT_DATA));
    assert_int_equal(w.total, w.done);
    w.done = 0;
    w.stop_at = CHUNK;
    p.conf.depth = 2;
    p.to->bytes[DISK_WRITE] = 0;
    assert_int_equal(image_copy(&p.conf, &p.err), -EINTR);
    assert_true(p.to->bytes[DISK_WRITE] <= 4 * CHUNK);
    pair_fini(&p);
}

struct end {
    struct loop *loop;
    unsigned n;
    int result;
};

static void ended(void *opaque, int result, const struct err *err)
{
    struct end *e = opaque;

    e->n++;
    e->result = result;
    loop_stop(e->loop);
}

static void is_cancelled(void **state)
{
    struct image_copy *copy;
    struct pair p;

    pair_init(&p, 14);
    struct end e = {.loop = p.loop};
    assert_int_equal(image_copy_start(&copy, &p.conf, ended, &e), 0);
    assert_int_equal(e.n, 0);
    image_copy_cancel(copy);
    loop_run(p.loop);
    assert_int_equal(e.n, 1);
    assert_int_equal(e.result, -EINTR);
    assert_int_equal(p.to->n[DISK_WRITE], 0);
    pair_fini(&p);
}

static void finds_zeroes(void **state)
{
    static uint8_t buf[1024];

    for (size_t len = 16; len <= sizeof(buf); len += 16) {
        assert_true(zero_all(buf, len));
        for (size_t i = 0; i < len; i++) {
            buf[i] = 0x80;
            assert_false(zero_all(buf, len));
            buf[i] = 0;
        }
    }
    bool zero;
    buf[200] = buf[400] = 1;
    assert_int_equal(zero_run(buf, sizeof(buf), 128, &zero), 128);
    assert_true(zero);
    assert_int_equal(zero_run(buf + 128, sizeof(buf) - 128, 128, &zero), 128);
    assert_false(zero);
    buf[300] = 1;
    assert_int_equal(zero_run(buf + 128, sizeof(buf) - 128, 128, &zero), 384);
    assert_false(zero);
    assert_int_equal(zero_run(buf + 512, sizeof(buf) - 512, 128, &zero), 512);
    assert_true(zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_all),
        cmocka_unit_test(skips_zeroes),
        cmocka_unit_test(a_disk_that_cannot_tell_is_data),
        cmocka_unit_test(takes_some_layers),
        cmocka_unit_test(compresses_what_is_not_zeroes),
        cmocka_unit_test(tells_of_errors),
        cmocka_unit_test(wants_room),
        cmocka_unit_test(tells_how_far_it_is),
        cmocka_unit_test(is_cancelled),
        cmocka_unit_test(finds_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
