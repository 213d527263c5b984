/*
 * Compressed writes among others, over a file in memory: what the disk holds, references to clusters that several share, power cuts and a failing host.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "qcow2_dir.h"
#include "qcow2_world.h"

static char path[64];

static const struct disk_create_conf shapes[] = {
    {.size = 2 * MIB, .cluster_size = 512},
    {.size = 2 * MIB, .cluster_size = 1024, .refcount_bits = 1}, /* nothing can be shared */
    {.size = 4 * MIB + 512, .cluster_size = 4096, .refcount_bits = 2},
    {.size = 4 * MIB, .cluster_size = 4096, .version = 2},
    {.size = 8 * MIB + 1536, .cluster_size = 65536},
    {.size = 8 * MIB, .cluster_size = 16384, .refcount_bits = 64},
    {.size = 12 * MIB, .cluster_size = 256 * KIB, .refcount_bits = 8},
};

static struct fake *new_image(const struct disk_create_conf *shape, uint64_t seed)
{
    struct disk_create_conf conf = *shape;
    struct err err = {""};

    unlink(path);
    conf.path = path;
    if (qcow2_create(&conf, &err))
        fail_msg("%s", err.msg);
    return fake_load(path, seed);
}

static void check_with_qemu(const struct fake *fake, int worst)
{
    char command[128];

    if (!qcow2_dir_have_qemu())
        return;
    fake_save(fake, path);
    snprintf(command, sizeof(command), "qemu-img check -q -f qcow2 %s >/dev/null", path);
    int status = WEXITSTATUS(system(command));
    assert_true(status == 0 || status == worst);
}

static void test_random(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct world w;
        struct fake *fake = new_image(&shapes[i], i + 1);
        world_init(&w, fake, shapes[i].size, i);
        w.conf.discard = i % 3;
        w.max_pages = i % 2 ? 6 : 0;
        w.pack = true;
        for (unsigned k = 0; k < 2; k++) {
            world_open(&w);
            world_run(&w, 500);
            world_check(&w, false);
            world_close(&w);
            assert_int_equal(world_verify(fake), 0);
        }
        world_open(&w);
        world_check(&w, false);
        world_close(&w);
        check_with_qemu(fake, 0);
        world_fini(&w);
        fake_free(fake);
    }
}

static unsigned n_rounds(void)
{
    const char *n = getenv("VIREO_TEST_CUTS");
    return n ? (unsigned)atoi(n) : 7;
}

static void test_cuts(void **state)
{
    for (unsigned i = 0; i < n_rounds(); i++) {
        const struct disk_create_conf *shape = &shapes[i % ARRAY_SIZE(shapes)];
        uint64_t seed = i * 77 + 1;
        struct world w;
        struct fake *fake = new_image(shape, seed);
        world_init(&w, fake, shape->size, seed);
        w.pack = true;
        fake->keep_changes = true;
        fake->stop_at = 20 + fake_random(&seed) % 1000;
        world_open(&w);
        world_run(&w, 5000);
        struct fake *after = fake_cut(w.fake, seed);
        world_die(&w);
        fake_free(w.fake);
        w.fake = after;
        if (world_verify(after) < 0)
            fail_msg("cut %u", i);
        check_with_qemu(after, 3); /* leaks */
        world_open(&w);
        world_check(&w, true);
        world_close(&w);
        fake_free(w.fake);
        world_fini(&w);
    }
}

static void test_errors(void **state)
{
    unsigned errors = 0;

    for (unsigned i = 0; i < n_rounds(); i++) {
        const struct disk_create_conf *shape = &shapes[i % ARRAY_SIZE(shapes)];
        struct world w;
        struct fake *fake = new_image(shape, i + 1);
        world_init(&w, fake, shape->size, i);
        w.pack = true;
        world_open(&w);
        fake->fail_gap = 300 + i * 20;
        fake->fail_op = fake->n_ops + 5;
        world_run(&w, 600);
        fake->fail_op = fake->fail_gap = 0;
        world_run(&w, 200);
        assert_int_equal(world_flush(&w), 0);
        world_check(&w, false);
        world_close(&w);
        errors += w.errors;
        assert_true(world_verify(fake) >= 0);
        check_with_qemu(fake, 3);
        world_fini(&w);
        fake_free(fake);
    }
    assert_true(errors > n_rounds());
}

struct batch {
    struct loop *loop;
    unsigned left;
};

static void batch_done(struct disk_request *req, int result)
{
    struct batch *b = req->opaque;

    assert_int_equal(result, 0);
    if (--b->left == 0)
        loop_stop(b->loop);
}

/* Text gets smaller, and many clusters share one; noise does not, and is stored as it is. */
static void test_room(void **state)
{
    static uint8_t data[64 * 65536];
    static struct disk_request reqs[64];
    static struct iovec iovs[64];
    uint64_t used[2], seed = 1;

    for (unsigned noise = 0; noise < 2; noise++) {
        struct world w;
        struct fake *fake = new_image(&shapes[4], 3);
        world_init(&w, fake, shapes[4].size, 1);
        world_open(&w);
        for (size_t i = 0; i < sizeof(data); i++)
            data[i] = noise ? (uint8_t)(fake_random(&seed) >> 8) : "some text, over and over; "[i % 26];
        struct batch batch = {.loop = w.loop, .left = 64};
        uint64_t before = ((struct qcow2 *)w.disk)->end;
        for (unsigned i = 0; i < 64; i++) {
            iovs[i] = (struct iovec){data + i * 65536, 65536};
            reqs[i] = (struct disk_request){.op = DISK_WRITE,
                                            .compress = true,
                                            .offset = i * 65536,
                                            .len = 65536,
                                            .iov = &iovs[i],
                                            .n_iov = 1,
                                            .done = batch_done,
                                            .opaque = &batch};
            disk_submit(w.disk, &reqs[i]);
        }
        loop_run(w.loop);
        used[noise] = ((struct qcow2 *)w.disk)->end - before;
        static uint8_t back[sizeof(data)];
        assert_int_equal(world_single(&w, DISK_READ, 0, back, sizeof(back)), 0);
        assert_memory_equal(back, data, sizeof(data));
        world_close(&w);
        assert_int_equal(world_verify(fake), 0);
        check_with_qemu(fake, 0);
        world_fini(&w);
        fake_free(fake);
    }
    assert_in_range(used[0], 1, 2); /* and an L2 table */
    assert_in_range(used[1], 64, 65);
}

static int write_packed(struct world *w, uint64_t cluster, uint8_t *data)
{
    struct batch batch = {.loop = w->loop, .left = 1};
    struct iovec iov = {data, 65536};
    struct disk_request req = {.op = DISK_WRITE,
                               .compress = true,
                               .offset = cluster * 65536,
                               .len = 65536,
                               .iov = &iov,
                               .n_iov = 1,
                               .done = batch_done,
                               .opaque = &batch};

    disk_submit(w->disk, &req);
    loop_run(w->loop);
    return req.result;
}

/* A cluster on its way back, or somebody else's already, gets no more compressed ones. */
static void test_given_back(void **state)
{
    static uint8_t data[65536], back[65536];

    for (unsigned i = 0; i < 60; i++) {
        struct world w;
        struct fake *fake = new_image(&shapes[4], i + 1);
        world_init(&w, fake, shapes[4].size, 1);
        w.conf.discard = i % 2;
        fake->lag = i;
        world_open(&w);
        memset(data, 'a', sizeof(data));
        assert_int_equal(write_packed(&w, 0, data), 0);
        assert_int_equal(world_single(&w, DISK_ZERO, 0, NULL, 65536), 0);
        assert_int_equal(world_single(&w, DISK_FLUSH, 0, NULL, 0), 0); /* now it goes back, with `discard` by and by */
        if (!w.conf.discard) {
            memset(data, 'b', sizeof(data));
            assert_int_equal(world_single(&w, DISK_WRITE, 65536, data, 65536), 0);
        }
        memset(data, 'c', sizeof(data));
        assert_int_equal(write_packed(&w, 2, data), 0);
        assert_int_equal(world_single(&w, DISK_FLUSH, 0, NULL, 0), 0);
        assert_int_equal(world_single(&w, DISK_READ, 2 * 65536, back, 65536), 0);
        assert_memory_equal(back, data, sizeof(data));
        if (!w.conf.discard) {
            memset(data, 'b', sizeof(data));
            assert_int_equal(world_single(&w, DISK_READ, 65536, back, 65536), 0);
            assert_memory_equal(back, data, sizeof(data));
        }
        world_close(&w);
        assert_int_equal(world_verify(fake), 0);
        world_fini(&w);
        fake_free(fake);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_cuts),       cmocka_unit_test(test_errors),
        cmocka_unit_test(test_room),   cmocka_unit_test(test_given_back),
    };
    qcow2_dir_quiet();
    strcpy(path, "/tmp/vireo-pack-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return r;
}
