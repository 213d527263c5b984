/*
 * Power cuts, over and over: an image lives through requests, flushes, snapshots, returns, resizes and bitmaps until the host dies at some operation, and what is
 * found then goes on living. Nothing that was flushed is lost, disk_check_image() finds no error ever, and repairs what leaked, also when it is
 * cut itself. VIREO_TEST_CUTS: how many; 10,000 otherwise, and fewer where VIREO_TEST_SLOW says that all is slow.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"
#include "qcow2_dir.h"
#include "qcow2_model.h"

#define USUAL 10000
#define LIVES 50 /* of one image */

static char path[64];

static int set_up(void **state)
{
    qcow2_dir_quiet();
    mallopt(M_MMAP_THRESHOLD, 1 << 28); /* images come and go */
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    snprintf(path, sizeof(path), "/tmp/vireo-cuts-%d.qcow2", (int)getpid());
    return 0;
}

static const struct disk_create_conf shapes[] = {
    {.size = 96 * KIB, .cluster_size = 512, .refcount_bits = 64},
    {.size = 96 * KIB + 512, .cluster_size = 512, .refcount_bits = 16},
    {.size = 128 * KIB, .cluster_size = 1024, .refcount_bits = 16},
    {.size = 128 * KIB, .cluster_size = 4096, .refcount_bits = 8},
    {.size = 192 * KIB, .cluster_size = 4096, .version = 2},
    {.size = 192 * KIB, .cluster_size = 16384, .refcount_bits = 4},
    {.size = 192 * KIB, .cluster_size = 16384, .extended_l2 = true},
    {.size = 300 * KIB, .cluster_size = 65536, .refcount_bits = 32},
};

static void check_with_qemu(const struct fake *fake)
{
    char command[200];

    fake_save(fake, path);
    snprintf(command, sizeof(command), "qemu-img check -q -f qcow2 %s >/dev/null 2>&1", path);
    int status = system(command);
    unlink(path);
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3); /* 3: leaks */
}

/* What the host found is sound; and repaired every now and then, through cuts of its own. */
static void inspect(struct model *m, unsigned i, bool qemu, uint64_t leaks[2])
{
    uint64_t found = model_sound(m->w.fake, false);

    leaks[0] += found;
    if (qemu && i % 500 == 0)
        check_with_qemu(m->w.fake);
    if (!found || (i % 4 && found < 300))
        return;
    if (i % 2) {
        m->w.fake->die_at = m->w.fake->n_ops + 1 + fake_random(&m->w.seed) % 20;
        model_sound(m->w.fake, true);
        model_cut(m); /* a refcount of 1 whose flag does not say so yet is an error, and harmless */
    }
    leaks[1] += model_sound(m->w.fake, true);
    assert_int_equal(model_sound(m->w.fake, false), 0);
}

static void test_cuts(void **state)
{
    const char *text = getenv("VIREO_TEST_CUTS"), *slow = getenv("VIREO_TEST_SLOW");
    unsigned n = text ? (unsigned)atoi(text) : slow ? USUAL / (unsigned)(atoi(slow) + 1) : USUAL;
    bool qemu = qcow2_dir_have_qemu();
    uint64_t leaks[2] = {0};
    unsigned long moves = 0;
    static struct model m;

    for (unsigned i = 0; i < n; i++) {
        if (i % LIVES == 0) {
            const struct disk_create_conf *shape = &shapes[i / LIVES % ARRAY_SIZE(shapes)];
            model_init(&m, shape, path, i + 1);
            m.w.fake->keep_changes = true;
            m.w.max_pages = i / LIVES % 3 == 1 ? 6 : 0;
            /*
             * Deflating takes longer than all the rest. What shares a cluster of 16 KiB may have more references, over all snapshots, than 4 bits can
             * tell: a snapshot is refused then, and rightly so.
             */
            m.w.pack = i / LIVES % 15 == 2 && shape->refcount_bits != 4;
        }
        world_open(&m.w);
        model_check(&m, true);
        m.w.fake->die_at = m.w.fake->n_ops + 1 + fake_random(&m.w.seed) % (i % 8 ? 120 : 1000);
        while (model_move(&m))
            continue;
        model_cut(&m);
        inspect(&m, i, qemu, leaks);
        if (i % LIVES == LIVES - 1 || i == n - 1) {
            moves += m.moves;
            model_fini(&m);
        }
    }
    print_message("# %u cuts in %lu moves; %llu clusters leaked, of which %llu were repaired\n", n, moves,
                  (unsigned long long)leaks[0], (unsigned long long)leaks[1]);
    assert_true(moves > n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
