/*
 * qcow2 over a file in memory (fake_file.h): random requests against what the disk must hold, power cuts, failing hosts, images crossed with qemu-img
 * where that is there, and bad images.
 */
#include "disk/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "qcow2_dir.h"
#include "qcow2_world.h"

static char dir[] = "/tmp/vireo-qcow2-XXXXXX", image_path[96], raw_path[96], other_path[96];

static int make_dir(void **state)
{
    if (qcow2_dir_make(dir))
        return -1;
    snprintf(image_path, sizeof(image_path), "%s/image.qcow2", dir);
    snprintf(raw_path, sizeof(raw_path), "%s/raw", dir);
    snprintf(other_path, sizeof(other_path), "%s/other.qcow2", dir);
    return 0;
}

static int remove_dir(void **state)
{
    return qcow2_dir_remove(dir);
}

static struct fake *new_image(const struct disk_create_conf *conf, uint64_t seed)
{
    static struct fake *made;
    static const struct disk_create_conf *made_as;
    struct err err = {""};

    if (made_as == conf)
        return fake_new(made->data, made->size, seed);
    unlink(image_path);
    struct disk_create_conf at_path = *conf;
    at_path.path = image_path;
    if (qcow2_create(&at_path, &err))
        fail_msg("%s", err.msg);
    if (made)
        fake_free(made);
    made = fake_load(image_path, seed);
    made_as = conf;
    return fake_new(made->data, made->size, seed);
}

static void save_raw(const struct world *w, const char *path)
{
    FILE *raw = fopen(path, "w");

    assert_non_null(raw);
    for (uint64_t i = 0; i < w->n_blocks; i++) {
        uint8_t buf[512];
        const struct block *b = &w->blocks[i];
        world_fill(buf, i, b->n ? b->later[b->n - 1] : b->flushed);
        assert_int_equal(fwrite(buf, 1, sizeof(buf), raw), sizeof(buf));
    }
    assert_int_equal(fclose(raw), 0);
}

/* qemu-img finds neither an error nor a leak, and the content is the world's. */
static void check_with_qemu(struct world *w)
{
    fake_save(w->fake, image_path);
    if (qcow2_dir_run("qemu-img check -q -f qcow2 %s", image_path))
        fail_msg("qemu-img check found something");
    save_raw(w, raw_path);
    if (qcow2_dir_run("qemu-img compare -q -f qcow2 -F raw %s %s", image_path, raw_path))
        fail_msg("qemu-img compare found a difference");
}

static const struct disk_create_conf shapes[] = {
    {.size = 3 * MIB, .cluster_size = 512, .refcount_bits = 64},
    {.size = 3 * MIB, .cluster_size = 512, .refcount_bits = 16},
    {.size = 2 * MIB, .cluster_size = 1024, .refcount_bits = 1},
    {.size = 4 * MIB + 512, .cluster_size = 4096, .refcount_bits = 8},
    {.size = 4 * MIB, .cluster_size = 4096, .version = 2},
    {.size = 8 * MIB + 1536, .cluster_size = 65536, .refcount_bits = 2},
    {.size = 8 * MIB, .cluster_size = 65536, .version = 2},
    {.size = 4 * MIB, .cluster_size = 16384, .refcount_bits = 4},
    {.size = 12 * MIB, .cluster_size = 2 * MIB, .refcount_bits = 32},
    {.size = 3 * MIB + 512, .cluster_size = 16384, .refcount_bits = 1, .extended_l2 = true},
    {.size = 8 * MIB + 1536, .cluster_size = 65536, .extended_l2 = true},
    {.size = 12 * MIB, .cluster_size = 2 * MIB, .extended_l2 = true},
};

/* ---- random requests ---- */

static void test_random(void **state)
{
    bool qemu = qcow2_dir_have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        for (unsigned round = 0; round < 3; round++) {
            struct world w;
            struct fake *fake = new_image(&shapes[i], i * 10 + round);
            world_init(&w, fake, shapes[i].size, i + round * 100);
            w.conf.discard = round != 2;
            w.max_pages = round == 1 ? 4 : 0;
            w.depth = round == 0 ? 16 : 6;
            fake->lag = round == 0 ? 300 : 0;
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
    return n ? (unsigned)atoi(n) : 90;
}

static void test_cuts(void **state)
{
    bool qemu = qcow2_dir_have_qemu();
    unsigned n = cuts();

    for (unsigned i = 0; i < n; i++) {
        const struct disk_create_conf *shape = &shapes[i * ARRAY_SIZE(shapes) / n];
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
                int status = qcow2_dir_run("qemu-img check -q -f qcow2 %s >/dev/null", image_path);
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
    bool qemu = qcow2_dir_have_qemu();
    unsigned errors = 0;

    for (unsigned i = 0; i < 60; i++) {
        const struct disk_create_conf *shape = &shapes[i % ARRAY_SIZE(shapes)];
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
            int status = qcow2_dir_run("qemu-img check -q -f qcow2 %s >/dev/null", image_path);
            assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3);
        }
        world_fini(&w);
        fake_free(fake);
    }
    assert_true(errors > 60);
}

/* Everything that happens on the way fails once, alone; then the host is well again. */
static void test_each_step_fails(void **state)
{
    static const struct disk_create_conf shape = {.size = 3 * MIB, .cluster_size = 512, .refcount_bits = 64};
    unsigned n = getenv("VIREO_TEST_CUTS") ? 2000 : 300;

    for (unsigned i = 0; i < n; i++) {
        struct world w;
        struct fake *fake = new_image(&shape, 1);
        world_init(&w, fake, shape.size, 1);
        world_open(&w);
        fake->fail_op = fake->n_ops + 1 + i * 7;
        world_run(&w, 150);
        fake->fail_op = 0;
        assert_int_equal(world_flush(&w), 0);
        world_check(&w, false);
        world_close(&w);
        assert_true(world_verify(fake) >= 0);
        world_open(&w);
        world_check(&w, false);
        world_close(&w);
        world_fini(&w);
        fake_free(fake);
    }
}

/* The host's disk is full for a while: what fails has no effect but that, and goes on when there is room. */
static void test_full_host(void **state)
{
    static const struct disk_create_conf shape = {.size = 3 * MIB, .cluster_size = 4096};
    uint8_t buf[4096];

    for (unsigned i = 0; i < 30; i++) {
        struct world w;
        struct fake *fake = new_image(&shape, i);
        world_init(&w, fake, shape.size, i);
        world_open(&w);
        world_run(&w, 50);
        fake->max_size = fake->size;
        memset(buf, 1, sizeof(buf));
        int r = 0;
        for (uint64_t at = 0; r == 0 && at < shape.size; at += sizeof(buf)) {
            r = world_single(&w, DISK_WRITE, at, buf, sizeof(buf));
        }
        assert_int_equal(r, -ENOSPC);
        assert_int_equal(world_flush(&w), 0);
        fake->max_size = 0;
        assert_int_equal(world_single(&w, DISK_ZERO, 0, NULL, shape.size), 0);
        world_reset(&w);
        world_run(&w, 100);
        world_check(&w, false);
        world_close(&w);
        assert_int_equal(world_verify(fake), 0);
        world_fini(&w);
        fake_free(fake);
    }
}

/* ---- images of qemu-img's ---- */

/* Three quarters of the blocks, in runs, hold something. */
static void fill_world(struct world *w)
{
    for (uint64_t i = 0; i < w->n_blocks; i++)
        w->blocks[i].flushed = i / 200 % 4 == 1 ? 0 : ++w->next_value;
}

struct foreign {
    const char *convert; /* options of qemu-img convert */
    bool snapshot;
};

static const struct foreign foreigns[] = {
    {"-o cluster_size=512", false},
    {"-c", false},
    {"-c -o cluster_size=512", false},
    {"-c -o cluster_size=4k,refcount_bits=8", false},
    {"-c -o compression_type=zstd", false},
    {"-c -o compression_type=zstd,cluster_size=2M", false},
    {"-c -o compat=0.10", false},
    {"-o compat=0.10", false},
    {"-o refcount_bits=1", false},
    {"-o refcount_bits=2,cluster_size=1k", false},
    {"-o refcount_bits=64,cluster_size=2M", false},
    {"-o lazy_refcounts=on", false},
    {"-o preallocation=metadata,cluster_size=4k", false},
    {"-o preallocation=full", false},
    {"-o cluster_size=512", true},
    {"-c -o cluster_size=8k", true},
    {"-c -o compression_type=zstd", true},
    {"-o compat=0.10,cluster_size=1k", true},
};

static void test_foreign(void **state)
{
    if (!qcow2_dir_have_qemu())
        skip();
    for (size_t i = 0; i < ARRAY_SIZE(foreigns); i++) {
        struct world w;
        world_init(&w, NULL, 3 * MIB + 512, i);
        fill_world(&w);
        save_raw(&w, raw_path);
        qcow2_dir_run("rm -f %s", other_path);
        assert_int_equal(
            qcow2_dir_run("qemu-img convert -f raw -O qcow2 %s %s %s", foreigns[i].convert, raw_path, other_path), 0);
        if (foreigns[i].snapshot)
            assert_int_equal(
                qcow2_dir_run("qemu-img snapshot -c one %s && mv %s %s.before", other_path, raw_path, raw_path), 0);
        w.fake = fake_load(other_path, i);
        w.conf.read_only = true;
        world_open(&w);
        world_check(&w, false);
        world_close(&w);
        w.conf.read_only = false;
        w.fake->lag = 300;
        for (unsigned k = 0; k < 3; k++) {
            w.conf.discard = k != 1;
            world_open(&w);
            world_run(&w, 250);
            world_check(&w, false);
            world_close(&w);
            check_with_qemu(&w);
        }
        if (foreigns[i].snapshot)
            assert_int_equal(qcow2_dir_run("qemu-img convert -f qcow2 -l one -O raw %s %s && cmp %s %s.before",
                                           image_path, raw_path, raw_path, raw_path),
                             0);
        assert_int_equal(w.errors, 0);
        fake_free(w.fake);
        world_fini(&w);
    }
}

/* qemu-io dies with lazy refcounts: the image is dirty, and opening it for writing puts it right. */
static void test_dirty(void **state)
{
    if (!qcow2_dir_have_qemu())
        skip();
    for (unsigned i = 0; i < 4; i++) {
        static const char *const options[] = {"", ",cluster_size=512", ",refcount_bits=1,cluster_size=1k",
                                              ",cluster_size=4k,refcount_bits=64"};
        struct world w;
        uint8_t buf[512];
        qcow2_dir_run("rm -f %s; qemu-img create -q -f qcow2 -o lazy_refcounts=on%s %s 3M", other_path, options[i],
                      other_path);
        qcow2_dir_run(
            "qemu-io -f qcow2 -c 'write -P 0x5a 0 300k' -c 'write -P 0x5b 1M 700k' -c 'discard 0 100k' -c flush -c "
            "abort "
            "%s >/dev/null 2>&1",
            other_path);
        world_init(&w, fake_load(other_path, i), 3 * MIB, i);
        assert_true(w.fake->data[79] & QCOW2_DIRTY);
        world_open(&w);
        assert_false(w.fake->data[79] & QCOW2_DIRTY);
        assert_int_equal(world_single(&w, DISK_READ, 200 * KIB, buf, sizeof(buf)), 0);
        assert_int_equal(buf[17], 0x5a);
        world_close(&w);
        assert_int_equal(world_verify(w.fake), 0);
        world_open(&w);
        assert_int_equal(world_single(&w, DISK_READ, 1536 * KIB, buf, sizeof(buf)), 0);
        assert_int_equal(buf[17], 0x5b);
        assert_int_equal(world_single(&w, DISK_ZERO, 0, NULL, 3 * MIB), 0);
        world_run(&w, 300);
        world_close(&w);
        check_with_qemu(&w);
        fake_free(w.fake);
        world_fini(&w);
    }
}

/* ---- more room ---- */

static void test_resize(void **state)
{
    bool qemu = qcow2_dir_have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct world w;
        struct err err = {""};
        struct fake *fake = new_image(&shapes[i], i);
        world_init(&w, fake, shapes[i].size, i);
        world_open(&w);
        world_run(&w, 200);
        for (unsigned k = 1; k < 4; k++) {
            uint64_t size = shapes[i].size + k * 700 * KIB;
            world_grow(&w, size);
            if (disk_resize(w.disk, size, &err))
                fail_msg("%s", err.msg);
            world_run(&w, 200);
            world_check(&w, false);
        }
        for (unsigned k = 0; k < 2; k++) { /* what was there does not come back */
            uint64_t size = k ? shapes[i].size + 900 * KIB : shapes[i].size / 3 / 512 * 512;
            (k ? world_grow : world_shrink)(&w, size);
            if (disk_resize(w.disk, size, &err))
                fail_msg("%s", err.msg);
            world_run(&w, 200);
            world_check(&w, false);
        }
        world_close(&w);
        assert_int_equal(world_verify(fake), 0);
        world_open(&w);
        assert_int_equal(w.disk->size, w.n_blocks * 512);
        world_check(&w, false);
        world_close(&w);
        if (qemu)
            check_with_qemu(&w);
        world_fini(&w);
        fake_free(fake);
    }
}

/* Each thing on the way to more room fails once: the disk has either size, and works. */
static void test_resize_fails(void **state)
{
    static const struct disk_create_conf shape = {.size = 1 * MIB, .cluster_size = 512};

    for (unsigned i = 1; i < 60; i++) {
        struct world w;
        struct fake *fake = new_image(&shape, 1);
        world_init(&w, fake, shape.size, 1);
        world_open(&w);
        world_run(&w, 30);
        fake->fail_op = fake->n_ops + i;
        (void)!disk_resize(w.disk, 9 * MIB, NULL);
        fake->fail_op = 0;
        world_run(&w, 30);
        assert_int_equal(world_flush(&w), 0);
        world_check(&w, false);
        world_close(&w);
        assert_true(world_verify(fake) >= 0);
        world_open(&w);
        assert_true(w.disk->size == 1 * MIB || w.disk->size == 9 * MIB);
        world_check(&w, false);
        world_close(&w);
        world_fini(&w);
        fake_free(fake);
    }
}

/* ---- bad images ---- */

struct bad {
    const char *what; /* of the message */
    unsigned at, len; /* bytes of the image, set to */
    uint64_t value;
    bool writers_only;
};

/* With clusters of 64 KiB: the refcount table is at 0x10000, its block at 0x20000, L1 at 0x30000. */
static const struct bad bads[] = {
    {"magic at offset 0", 0, 4, 0x514649fa, false},
    {"version at offset 4", 4, 4, 1, false},
    {"version at offset 4", 4, 4, 4, false},
    {"backing_file_size at offset 16", 8, 8, 0x200, false},
    {"backing_file_offset at offset 8", 8, 8, 0x10000, false},
    {"backing_file_offset at offset 8", 8, 8, 0x40, false},
    {"cluster_bits at offset 20", 20, 4, 8, false},
    {"cluster_bits at offset 20", 20, 4, 22, false},
    {"size at offset 24", 24, 8, 0, false},
    {"size at offset 24", 24, 8, UINT64_MAX, false},
    {"l1_size at offset 36", 24, 8, UINT64_C(1) << 40, false},
    {"crypt_method at offset 32: 1", 32, 4, 1, false},
    {"crypt_method at offset 32: 2", 32, 4, 2, false},
    {"l1_size at offset 36", 36, 4, 0, false},
    {"l1_size at offset 36", 36, 4, UINT32_MAX, false},
    {"l1_table_offset at offset 40", 40, 8, 0x30200, false},
    {"l1_table_offset at offset 40", 40, 8, 0, false},
    {"l1_table_offset at offset 40", 40, 8, UINT64_C(1) << 50, false},
    {"its cluster at 0x10000 holds other metadata", 40, 8, 0x10000, false},
    {"refcount_table_offset at offset 48", 48, 8, 0x10001, false},
    {"refcount_table_offset at offset 48", 48, 8, UINT64_MAX << 16, false},
    {"refcount_table_clusters at offset 56", 56, 4, 0, false},
    {"refcount_table_clusters at offset 56", 56, 4, UINT32_MAX, false},
    {"nb_snapshots at offset 60", 60, 4, UINT32_MAX, false},
    {"snapshots_offset at offset 64", 60, 4, 1, false},
    {"incompatible_features at offset 72: bit 2, external data file", 72, 8, 4, false},
    {"incompatible_features at offset 72: bit 63", 72, 8, UINT64_C(1) << 63, false},
    {"compression_type at offset 104", 72, 8, 8, false},
    {"incompatible_features at offset 72: the image is marked corrupt", 72, 8, 2, true},
    {"refcount_order at offset 96", 96, 4, 7, false},
    {"header_length at offset 100", 100, 4, 96, false},
    {"header_length at offset 100", 100, 4, 0x10008, false},
    {"refcount table entry 0 at offset 0x10000", 0x10000, 8, 0x20200, false},
    {"refcount table entry 0 at offset 0x10000", 0x10000, 8, UINT64_C(1) << 55, false},
    {"refcount table entry 1: its cluster at 0x20000 holds other metadata", 0x10008, 8, 0x20000, false},
    {"L1 entry 0 at offset 0x30000", 0x30000, 8, 0x50200, false},
    {"L1 entry 0 at offset 0x30000", 0x30000, 8, 0x70000000, false},
    {"L1 entry 0 at offset 0x30000", 0x30000, 8, UINT64_C(1) << 63, false},
    {"L1 entry 0 at offset 0x30000", 0x30000, 8, UINT64_C(1) << 62, false},
    {"L1 entry 0: its cluster at 0x30000 holds", 0x30000, 8, UINT64_C(1) << 63 | 0x30000, false},
};

static int open_bad(struct fake *fake, bool read_only, struct err *err)
{
    const struct disk_conf conf = {.path = "bad.qcow2", .read_only = read_only};
    struct disk *disk;
    struct loop *loop;

    assert_int_equal(loop_open(&loop, NULL), 0);
    *err = (struct err){""};
    fake_next = fake;
    int r = disk_open(&disk, &conf, loop, err);
    if (r == 0)
        disk_close(disk);
    else
        assert_true(err->msg[0] && !strchr(err->msg, '\n'));
    loop_close(loop);
    return r;
}

static void test_bad(void **state)
{
    static const struct disk_create_conf shape = {.size = 1 * GIB};
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(bads); i++) {
        const struct bad *b = &bads[i];
        struct fake *fake = new_image(&shape, 1);
        for (unsigned k = 0; k < b->len; k++)
            fake->data[b->at + k] = (uint8_t)(b->value >> (8 * (b->len - 1 - k)));
        assert_int_not_equal(open_bad(fake, false, &err), 0);
        if (!strstr(err.msg, b->what))
            fail_msg("%s, and not: %s", err.msg, b->what);
        assert_int_equal(open_bad(fake, true, &err) == 0, b->writers_only);
        fake_free(fake);
    }
}

/* Cut off anywhere: what is missing is seen at open, and nothing was there yet but metadata. */
static void test_truncated(void **state)
{
    static const struct disk_create_conf shape = {.size = 1 * GIB, .cluster_size = 4096};
    struct err err;

    struct fake *whole = new_image(&shape, 1);
    for (uint64_t size = 0; size < whole->size - 4096; size += 257) {
        struct fake *fake = fake_new(whole->data, size, 1);
        assert_int_not_equal(open_bad(fake, false, &err), 0);
        fake_free(fake);
    }
    fake_free(whole);
}

/* L2 entries that point to metadata, beyond the end, or between clusters: an I/O error, and the image stays as it is. */
static void test_bad_l2(void **state)
{
    static const struct disk_create_conf shape = {.size = 2 * MIB, .cluster_size = 4096};
    static const uint64_t entries[] = {
        QCOW2_COPIED | 0x1000, QCOW2_COPIED | 0x2000,     QCOW2_COPIED | 0x3000,     QCOW2_COPIED | 0x4000,
        QCOW2_COPIED | 0x5200, QCOW2_COPIED | 0x40000000, QCOW2_COMPRESSED | 0x1000, QCOW2_COMPRESSED | 0x40000000};

    for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
        struct world w;
        uint8_t buf[512] = {1};
        struct fake *fake = new_image(&shape, 1);
        world_init(&w, fake, shape.size, 1);
        world_open(&w);
        assert_int_equal(world_single(&w, DISK_WRITE, 0, buf, sizeof(buf)), 0);
        assert_int_equal(world_single(&w, DISK_WRITE, 8192, buf, sizeof(buf)), 0);
        world_close(&w);
        uint64_t l2 = qcow2_be64(fake->data + 0x3000) & QCOW2_OFFSET_MASK;
        assert_int_equal(l2, 0x4000);
        qcow2_put_be64(fake->data + l2, entries[i]);
        uint8_t *before = malloc(fake->size);
        assert_non_null(before);
        memcpy(before, fake->data, fake->size);
        world_open(&w);
        assert_int_equal(world_single(&w, DISK_READ, 8192, buf, sizeof(buf)), 0);
        assert_int_equal(world_single(&w, DISK_WRITE, 0, buf, sizeof(buf)), -EIO);
        assert_int_equal(world_single(&w, DISK_READ, 0, buf, sizeof(buf)), -EIO);
        assert_int_equal(world_single(&w, DISK_WRITE, 4096, buf, sizeof(buf)), -EIO); /* no more writes at all */
        assert_int_equal(world_single(&w, DISK_READ, 8192, buf, sizeof(buf)), 0);
        world_close(&w);
        assert_int_equal(fake->data[79], QCOW2_CORRUPT);
        fake->data[79] = 0;
        assert_memory_equal(before, fake->data, fake->size);
        free(before);
        world_fini(&w);
        fake_free(fake);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),       cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_errors),       cmocka_unit_test(test_each_step_fails),
        cmocka_unit_test(test_full_host),    cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_dirty),        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_resize_fails), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_truncated),    cmocka_unit_test(test_bad_l2),
    };
    cmocka_set_test_filter(getenv("VIREO_TEST_ONLY"));
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
