/*
 * The shadow model: images under random requests, several at once, and moves between them (qcow2_model.h), against what a flat array of blocks holds; then the
 * same with a host whose operations fail, each of them once, or for want of room. VIREO_TEST_MOVES: how many requests and moves in all; with it,
 * qemu-img looks at what is there now and then.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"
#include "qcow2_dir.h"
#include "qcow2_model.h"

#define USUAL    100000
#define AN_IMAGE 20000 /* requests and moves in the life of one */

static char path[64], raw[64];

static int set_up(void **state)
{
    qcow2_dir_quiet();
    mallopt(M_MMAP_THRESHOLD, 1 << 28); /* images come and go */
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    snprintf(path, sizeof(path), "/tmp/vireo-shadow-%d.qcow2", (int)getpid());
    snprintf(raw, sizeof(raw), "/tmp/vireo-shadow-%d.raw", (int)getpid());
    return 0;
}

static const struct disk_create_conf shapes[] = {
    {.size = 2 * MIB, .cluster_size = 65536},
    {.size = 512 * KIB, .cluster_size = 512, .refcount_bits = 16},
    {.size = 1 * MIB, .cluster_size = 4096, .version = 2},
    {.size = 1 * MIB + 512, .cluster_size = 16384, .extended_l2 = true},
    {.size = 1 * MIB, .cluster_size = 4096, .refcount_bits = 8},
    {.size = 700 * KIB, .cluster_size = 1024, .refcount_bits = 64},
    {.size = 4 * MIB, .cluster_size = 2 * MIB, .refcount_bits = 32},
};

static uint64_t how_many(void)
{
    const char *text = getenv("VIREO_TEST_MOVES"), *slow = getenv("VIREO_TEST_SLOW");

    return text ? strtoull(text, NULL, 10) : slow ? USUAL / (unsigned)(atoi(slow) + 1) : USUAL;
}

/* As another program reads it. */
static void compare_with_qemu(struct model *m)
{
    struct world_saved now;
    uint8_t buf[DISK_BLOCK_SIZE];
    char command[300];
    FILE *file = fopen(raw, "w");

    assert_non_null(file);
    world_save(&m->w, &now);
    for (uint64_t i = 0; i < now.n_blocks; i++) {
        world_fill(buf, i, now.values[i]);
        assert_int_equal(fwrite(buf, 1, sizeof(buf), file), sizeof(buf));
    }
    assert_int_equal(fclose(file), 0);
    free(now.values);
    fake_save(m->w.fake, path);
    snprintf(command, sizeof(command),
             "qemu-img check -q -f qcow2 %s >/dev/null 2>&1 && qemu-img compare -q -f qcow2 -F raw %s %s", path, path,
             raw);
    int status = system(command);
    unlink(path);
    unlink(raw);
    if (status)
        fail_msg("%s: status 0x%x", command, (unsigned)status);
}

static void live(struct model *m, uint64_t most, bool qemu)
{
    world_open(&m->w);
    while (m->moves + m->w.begun < most) {
        assert_true(model_move(m));
        if (fake_random(&m->w.seed) % 50 == 0)
            model_check(m, false);
    }
    assert_int_equal(world_flush(&m->w), 0);
    model_check(m, false);
    world_close(&m->w);
    model_sound(m->w.fake, false);
    if (qemu)
        compare_with_qemu(m);
    world_open(&m->w);
    model_check(m, false);
    world_close(&m->w);
}

static void test_shadow(void **state)
{
    bool qemu = qcow2_dir_have_qemu();
    uint64_t n = how_many(), done = 0;
    unsigned long moves = 0;
    static struct model m;

    for (unsigned i = 0; done < n; i++) {
        uint64_t most = n - done < AN_IMAGE ? n - done : AN_IMAGE;
        model_init(&m, &shapes[i % ARRAY_SIZE(shapes)], path, i + 1);
        m.requests = 400;
        m.w.max_pages = i % 3 == 1 ? 6 : 0;
        m.w.depth = 1 + i % 16;
        m.w.conf.discard = i % 4 != 3;
        m.w.fake->lag = i % 2 ? 100 : 0;
        m.w.pack = i % 40 == 2;
        if (i % 2)
            model_meanwhile(&m);
        live(&m, most, qemu);
        assert_int_equal(m.w.errors, 0);
        assert_int_equal(m.failures, 0);
        moves += m.moves;
        done += m.moves + m.w.begun;
        model_fini(&m);
    }
    print_message("# %llu requests, %lu moves between them\n", (unsigned long long)(done - moves), moves);
}

/* ---- a host that fails ---- */

/* Errors here and there, and no room for a while: what fails is done again, and all is as it must be. */
static void test_failing(void **state)
{
    uint64_t n = how_many() / 4, done = 0, errors = 0;
    unsigned long failures = 0;
    static struct model m;

    for (unsigned i = 0; done < n; i++) {
        model_init(&m, &shapes[i % ARRAY_SIZE(shapes)], path, i + 1000);
        m.w.max_pages = i % 3 == 1 ? 6 : 0;
        world_open(&m.w);
        while (m.moves + m.w.begun < 2000) {
            m.w.fake->fail_gap = 200 + i * 10 % 500; /* many pages must get through at once */
            m.w.fake->fail_op = m.w.fake->n_ops + 1 + fake_random(&m.w.seed) % m.w.fake->fail_gap;
            assert_true(model_move(&m));
            m.w.fake->fail_op = m.w.fake->fail_gap = 0;
            m.w.fake->max_size = 0;
            if (fake_random(&m.w.seed) % 10 == 0)
                model_check(&m, false);
        }
        assert_int_equal(world_flush(&m.w), 0);
        model_check(&m, false);
        world_close(&m.w);
        model_sound(m.w.fake, false);
        errors += m.w.errors;
        failures += m.failures;
        done += m.moves + m.w.begun;
        model_fini(&m);
    }
    print_message("# %llu requests failed, and %lu moves\n", (unsigned long long)errors, failures);
    assert_true(errors > n / 1000 && failures > n / 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shadow),
        cmocka_unit_test(test_failing),
    };
    cmocka_set_test_filter(getenv("VIREO_TEST_ONLY"));
    return cmocka_run_group_tests(tests, set_up, NULL);
}
