/* Comparing disks in memory that do requests in random order. */
#include "image/compare.h"

#include <errno.h>
#include <stdlib.h>

#include "../unit.h"
#include "memory_disk.h"

#define SIZE (3 * MIB)

struct pair {
    struct loop *loop;
    struct memory_disk *a, *b;
    struct image_compare_conf conf;
    struct image_compare_result result;
    struct err err;
};

/* b holds what a does, in other runs; and is longer. */
static void pair_init(struct pair *p, uint64_t seed)
{
    *p = (struct pair){0};
    assert_int_equal(loop_open(&p->loop, NULL), 0);
    p->a = memory_disk_new(p->loop, SIZE, seed);
    p->b = memory_disk_new(p->loop, SIZE + MIB, seed + 1);
    memory_disk_fill(p->a);
    memory_disk_fill(p->b);
    memset(p->b->data, 0, SIZE + MIB);
    memcpy(p->b->data, p->a->data, SIZE);
    for (uint64_t block = 0; block < SIZE / DISK_BLOCK_SIZE; block++)
        if (p->a->blocks[block].kind == DISK_EXTENT_DATA)
            p->b->blocks[block].kind = DISK_EXTENT_DATA;
    p->conf = (struct image_compare_conf){.a = &p->a->disk, .b = &p->b->disk, .chunk = 64 * KIB};
}

static void pair_fini(struct pair *p)
{
    memory_disk_free(p->a);
    memory_disk_free(p->b);
    loop_close(p->loop);
}

static void run(struct pair *p)
{
    assert_int_equal(image_compare(&p->conf, &p->result, &p->err), 0);
}

static uint64_t data_of(const struct memory_disk *m)
{
    uint64_t n = 0;

    for (uint64_t b = 0; b < m->disk.size / DISK_BLOCK_SIZE; b++)
        n += m->blocks[b].kind == DISK_EXTENT_DATA ? DISK_BLOCK_SIZE : 0;
    return n;
}

static void the_same(void **state)
{
    for (uint64_t seed = 1; seed < 5; seed++) {
        struct pair p;
        pair_init(&p, seed);
        run(&p);
        assert_int_equal(p.result.difference, IMAGE_SAME);
        assert_int_equal(p.a->bytes[DISK_READ], data_of(p.a)); /* and no holes */
        assert_int_equal(p.b->bytes[DISK_READ], data_of(p.b));
        pair_fini(&p);
    }
}

static void the_first_difference(void **state)
{
    uint64_t seed = 99;
    struct pair p;

    pair_init(&p, 5);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t at[3], first = UINT64_MAX;
        for (unsigned k = 0; k < 3; k++) {
            do
                at[k] = memory_disk_random(&seed) % (SIZE + MIB);
            while (p.b->blocks[at[k] / DISK_BLOCK_SIZE].kind != DISK_EXTENT_DATA);
            first = at[k] < first ? at[k] : first;
            p.b->data[at[k]] ^= (uint8_t)(1u << k);
        }
        run(&p);
        assert_int_equal(p.result.difference, IMAGE_OTHER_CONTENT);
        assert_int_equal(p.result.offset, first);
        for (unsigned k = 0; k < 3; k++)
            p.b->data[at[k]] ^= (uint8_t)(1u << k);
    }
    pair_fini(&p);
}

static void strictly(void **state)
{
    struct pair p;

    pair_init(&p, 6);
    p.conf.strict = true;
    run(&p);
    assert_int_equal(p.result.difference, IMAGE_OTHER_SIZE);
    assert_int_equal(p.result.offset, SIZE);
    p.b->disk.size = SIZE;
    memcpy(p.b->blocks, p.a->blocks, SIZE / DISK_BLOCK_SIZE * sizeof(*p.a->blocks));
    run(&p);
    assert_int_equal(p.result.difference, IMAGE_SAME);
    memset(p.a->data + MIB, 0, DISK_BLOCK_SIZE);
    memset(p.b->data + MIB, 0, DISK_BLOCK_SIZE);
    p.a->blocks[MIB / DISK_BLOCK_SIZE].kind = DISK_EXTENT_DATA;
    p.b->blocks[MIB / DISK_BLOCK_SIZE].kind = DISK_EXTENT_HOLE;
    run(&p);
    assert_int_equal(p.result.difference, IMAGE_OTHER_ALLOCATION);
    assert_int_equal(p.result.offset, MIB);
    p.conf.strict = false;
    run(&p);
    assert_int_equal(p.result.difference, IMAGE_SAME);
    pair_fini(&p);
}

static void errors(void **state)
{
    struct pair p;

    pair_init(&p, 7);
    p.b->no_map = true;
    p.b->fail_at = 2 * MIB;
    assert_int_equal(image_compare(&p.conf, &p.result, &p.err), -EIO);
    assert_non_null(strstr(p.err.msg, "reading 'memory' at offset "));
    pair_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same),
        cmocka_unit_test(the_first_difference),
        cmocka_unit_test(strictly),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
