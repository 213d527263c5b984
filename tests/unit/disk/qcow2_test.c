/*
 * qcow2 over a file in memory (fake_file.h): random requests against what the disk must hold, power cuts, failing hosts, images crossed with qemu-img
 * where that is there, and bad images.
 */
#include "disk/qcow2.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"
#include "base/log.h"
#include "disk/qcow2_impl.h"
#include "qcow2_world.h"

static char dir[64], image_path[96], raw_path[96], other_path[96];

static int make_dir(void **state)
{
    if (!getenv("VIREO_TEST_LOG") && !freopen("/dev/null", "w", stderr)) /* what fails on purpose says so */
        return -1;
    log_set_level(LOG_LEVEL_ERROR);
    strcpy(dir, "/tmp/vireo-qcow2-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(image_path, sizeof(image_path), "%s/image.qcow2", dir);
    snprintf(raw_path, sizeof(raw_path), "%s/raw", dir);
    snprintf(other_path, sizeof(other_path), "%s/other.qcow2", dir);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static int remove_dir(void **state)
{
    return nftw(dir, remove_one, 4, FTW_DEPTH | FTW_PHYS);
}

static bool have_qemu(void)
{
    return system("qemu-img --version >/dev/null 2>&1") == 0;
}

static int run(const char *fmt, ...)
{
    char command[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    return system(command);
}

static struct fake *new_image(const struct qcow2_create_conf *conf, uint64_t seed)
{
    static struct fake *made;
    static const struct qcow2_create_conf *made_as;
    struct err err = {""};

    if (made_as == conf)
        return fake_new(made->data, made->size, seed);
    unlink(image_path);
    if (qcow2_create(image_path, conf, &err))
        fail_msg("%s", err.msg);
    if (made)
        fake_free(made);
    made = fake_load(image_path, seed);
    made_as = conf;
    return fake_new(made->data, made->size, seed);
}

/* qemu-img finds neither an error nor a leak, and the content is the world's. */
static void check_with_qemu(struct world *w)
{
    fake_save(w->fake, image_path);
    if (run("qemu-img check -q -f qcow2 %s", image_path))
        fail_msg("qemu-img check found something");
    FILE *raw = fopen(raw_path, "w");
    assert_non_null(raw);
    for (uint64_t i = 0; i < w->n_blocks; i++) {
        uint8_t buf[512];
        const struct block *b = &w->blocks[i];
        world_fill(buf, i, b->n ? b->later[b->n - 1] : b->flushed);
        assert_int_equal(fwrite(buf, 1, sizeof(buf), raw), sizeof(buf));
    }
    assert_int_equal(fclose(raw), 0);
    if (run("qemu-img compare -q -f qcow2 -F raw %s %s", image_path, raw_path))
        fail_msg("qemu-img compare found a difference");
}

static const struct qcow2_create_conf shapes[] = {
    {.size = 1 * MIB, .cluster_size = 512, .refcount_bits = 64},
    {.size = 3 * MIB, .cluster_size = 512, .refcount_bits = 16},
    {.size = 2 * MIB, .cluster_size = 1024, .refcount_bits = 1},
    {.size = 4 * MIB + 512, .cluster_size = 4096, .refcount_bits = 8},
    {.size = 4 * MIB, .cluster_size = 4096, .version = 2},
    {.size = 8 * MIB + 1536, .cluster_size = 65536, .refcount_bits = 2},
    {.size = 8 * MIB, .cluster_size = 65536, .version = 2},
    {.size = 4 * MIB, .cluster_size = 16384, .refcount_bits = 4},
    {.size = 12 * MIB, .cluster_size = 2 * MIB, .refcount_bits = 32},
};

/* ---- random requests ---- */

static void test_random(void **state)
{
    bool qemu = have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        for (unsigned round = 0; round < 3; round++) {
            struct world w;
            struct fake *fake = new_image(&shapes[i], i * 10 + round);
            world_init(&w, fake, shapes[i].size, i + round * 100);
            w.conf.discard = round != 2;
            w.max_pages = round == 1 ? 4 : 0;
            w.depth = round == 0 ? 16 : 6;
            for (unsigned k = 0; k < 3; k++) {
                world_open(&w);
                world_run(&w, 700);
                world_check(&w, false);
                world_close(&w);
                assert_int_equal(world_verify(fake), 0);
            }
            world_open(&w);
            world_check(&w, false);
            world_close(&w);
            assert_int_equal(w.errors, 0);
            if (qemu)
                check_with_qemu(&w);
            world_fini(&w);
            fake_free(fake);
        }
    }
}

/* ---- power cuts ---- */

static unsigned cuts(void)
{
    const char *n = getenv("VIREO_TEST_CUTS");
    return n ? (unsigned)atoi(n) : 200;
}

static void test_cuts(void **state)
{
    bool qemu = have_qemu();
    unsigned n = cuts();

    for (unsigned i = 0; i < n; i++) {
        const struct qcow2_create_conf *shape = &shapes[i * ARRAY_SIZE(shapes) / n];
        uint64_t seed = i * 77 + 1;
        struct world w;
        struct fake *fake = new_image(shape, seed);
        world_init(&w, fake, shape->size, seed);
        w.max_pages = i % 3 == 0 ? 6 : 0;
        fake->keep_changes = true;
        for (unsigned lives = 0; lives < 2; lives++) { /* what was cut is cut again */
            w.fake->stop_at = w.fake->n_ops + 20 + fake_random(&seed) % (lives ? 200 : 2000);
            world_open(&w);
            world_run(&w, 100000);
            struct fake *after = fake_cut(w.fake, seed);
            world_die(&w);
            fake_free(w.fake);
            w.fake = after;
            after->keep_changes = true;
            if (world_verify(after) < 0)
                fail_msg("cut %u, life %u", i, lives);
            if (qemu && i % 100 == 0) {
                fake_save(after, image_path);
                int status = run("qemu-img check -q -f qcow2 %s >/dev/null", image_path);
                assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3); /* 3: leaks */
            }
            world_open(&w);
            world_check(&w, true);
            world_adopt(&w);
            world_close(&w);
        }
        fake_free(w.fake);
        world_fini(&w);
    }
}

/* ---- a failing host ---- */

static void test_errors(void **state)
{
    bool qemu = have_qemu();
    unsigned errors = 0;

    for (unsigned i = 0; i < 60; i++) {
        const struct qcow2_create_conf *shape = &shapes[i % ARRAY_SIZE(shapes)];
        struct world w;
        struct fake *fake = new_image(shape, i);
        world_init(&w, fake, shape->size, i);
        w.max_pages = i % 2 ? 6 : 0;
        world_open(&w);
        fake->fail_gap = 300 + i * 20; /* a commit of many pages must get through */
        fake->fail_op = fake->n_ops + 5;
        world_run(&w, 600);
        fake->fail_op = 0;
        world_run(&w, 200);
        assert_int_equal(world_flush(&w), 0);
        world_check(&w, false);
        world_close(&w);
        errors += w.errors;
        assert_true(world_verify(fake) >= 0);
        world_open(&w);
        world_check(&w, false);
        world_close(&w);
        if (qemu && i % 10 == 0) {
            fake_save(fake, image_path);
            int status = run("qemu-img check -q -f qcow2 %s >/dev/null", image_path);
            assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3);
        }
        world_fini(&w);
        fake_free(fake);
    }
    assert_true(errors > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_errors),
    };
    cmocka_set_test_filter(getenv("VIREO_TEST_ONLY"));
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
