/*
 * Power cuts of an image with a dirty bitmap, while it is written to and while it is closed: afterwards the bitmap says that it is inconsistent, or has all that has
 * changed. VIREO_TEST_ROUNDS: how many cuts.
 */
#include "disk/disk_bitmap.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/disk_create.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "qcow2_dir.h"
#include "qcow2_world.h"

#define SIZE  (2 * MIB)
#define BLOCK 512

static char path[] = "/tmp/vireo-bitmap-cut-XXXXXX";

static int make_path(void **state)
{
    int fd = mkstemp(path);

    qcow2_dir_quiet();
    return fd < 0 || close(fd) < 0;
}

static int remove_path(void **state)
{
    return unlink(path);
}

static void prepare(struct world *w, uint64_t seed, uint32_t cluster_size)
{
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(
        qcow2_create(&(struct disk_create_conf){.path = path, .size = SIZE, .cluster_size = cluster_size}, NULL), 0);
    world_init(w, fake_load(path, seed), SIZE, seed);
    w->fake->keep_changes = true;
    world_open(w);
    assert_int_equal(disk_bitmap_create(w->disk, "b", 4096, NULL), 0);
    world_run(w, 60);
    assert_int_equal(world_flush(w), 0);
    assert_int_equal(disk_bitmap_clear(w->disk, "b", NULL), 0);
    if (seed % 3) {
        world_close(w);
        world_open(w);
    }
}

/* Every other one sets bits or not at the next open. */
static bool check(struct world *w, const struct world_saved *then)
{
    struct disk_bitmaps list;
    uint64_t offset, len;

    assert_int_equal(disk_bitmap_list(w->disk, &list, NULL), 0);
    assert_int_equal(list.n, 1);
    bool consistent = list.items[0].consistent;
    free(list.items);
    for (uint64_t i = 0; consistent && i < w->n_blocks; i++) {
        if (w->blocks[i].flushed == then->values[i])
            continue;
        assert_int_equal(disk_bitmap_next(w->disk, "b", i * BLOCK, &offset, &len, NULL), 0);
        assert_true(len && offset == i * BLOCK);
    }
    return consistent;
}

static void cuts(void **state)
{
    static const uint32_t clusters[] = {512, 4096, 65536};
    const char *text = getenv("VIREO_TEST_ROUNDS");
    unsigned n = text ? (unsigned)atoi(text) : 150, seen[2] = {0};

    for (unsigned i = 0; i < n; i++) {
        struct world w;
        struct world_saved then;
        uint64_t seed = i * 37 + 5;

        prepare(&w, seed, clusters[i % 3]);
        world_save(&w, &then);
        if (i % 2) { /* while it is written to */
            w.fake->stop_at = w.fake->n_ops + 1 + fake_random(&seed) % 60;
            world_run(&w, 60);
        } else { /* while it is closed */
            if (i % 4)
                world_run(&w, 40);
            w.fake->die_at = w.fake->n_ops + 1 + fake_random(&seed) % 40;
            world_close(&w);
        }
        struct fake *after = fake_cut(w.fake, seed);
        if (w.disk)
            world_die(&w);
        fake_free(w.fake);
        w.fake = after;
        world_open(&w);
        world_check(&w, true);
        world_adopt(&w);
        seen[check(&w, &then)]++;
        world_run(&w, 10);
        world_close(&w);
        world_open(&w);
        world_check(&w, false);
        world_close(&w);
        assert_true(world_verify(w.fake) >= 0);
        free(then.values);
        fake_free(w.fake);
        world_fini(&w);
    }
    print_message("# %u inconsistent, %u not\n", seen[0], seen[1]);
    assert_true(seen[0] > n / 10 && seen[1] > n / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts),
    };

    return cmocka_run_group_tests(tests, make_path, remove_path);
}
