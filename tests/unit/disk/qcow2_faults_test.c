/*
 * A host that fails at every step: a script of all that changes an image is played over and over, and each time another operation of the host's fails - a write, a
 * flush, a hole, a new length - once, or from then on until somebody looks to the host; with EIO, with ENOSPC, or because the file cannot get longer. What fails is
 * done again when it may, then the image holds what it must, disk_check_image() and qemu-img find no error (leaks allowed), and it goes on.
 *
 * VIREO_TEST_FAULTS=all: every operation in every way; otherwise some of them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/disk_allow.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_chain.h"
#include "disk/disk_create.h"
#include "disk/disk_snapshot.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "image/chain.h"
#include "qcow2_dir.h"
#include "qcow2_model.h"

#define USUAL 300 /* faults of a script */

static char dir[] = "/tmp/vireo-faults-XXXXXX", path[96];
static struct disk_allow *allow;

static int make_dir(void **state)
{
    const char *paths[] = {dir};

    if (qcow2_dir_make(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/image.qcow2", dir);
    return disk_allow_open(&allow, paths, 1, NULL);
}

static int remove_dir(void **state)
{
    disk_allow_close(allow);
    return qcow2_dir_remove(dir);
}

/* ---- ways to fail ---- */

static const struct way {
    int error; /* 0: the file gets no longer */
    bool stays;
} ways[] = {{-EIO, false}, {-ENOSPC, false}, {-EIO, true}, {-ENOSPC, true}, {0, true}};

/* Operation `at` from now on; 0: none. */
static void break_host(struct fake *f, const struct way *way, uint64_t at)
{
    if (!at)
        return;
    f->fail_errno = way->error;
    f->fail_stays = way->stays;
    *(way->error ? &f->fail_op : &f->full_at) = f->n_ops + at;
}

static void mend(struct fake *f)
{
    fake_mend(f);
    f->fail_op = 0;
    f->fail_errno = 0;
    f->fail_stays = false;
}

static void check_with_qemu(const struct fake *fake)
{
    fake_save(fake, path);
    int status = qcow2_dir_run("qemu-img check -q -f qcow2 %s >/dev/null 2>&1", path);
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3); /* 3: leaks */
}

/* play(opaque, way, at) plays a script in which operation `at` fails, and returns how many it had: all of them, or some. */
static void sweep(uint64_t (*play)(const void *opaque, const struct way *way, uint64_t at, bool qemu),
                  const void *opaque, unsigned share)
{
    const char *slow = getenv("VIREO_TEST_SLOW"), *all = getenv("VIREO_TEST_FAULTS");
    bool qemu = qcow2_dir_have_qemu();
    uint64_t ops = play(opaque, &ways[0], 0, qemu), n = 0;
    uint64_t most = USUAL / share / (slow ? (unsigned)atoi(slow) + 1 : 1);
    uint64_t step = all ? 1 : 1 + ops * ARRAY_SIZE(ways) / most;

    for (uint64_t i = 0; i < ops * ARRAY_SIZE(ways); i += step, n++)
        (void)play(opaque, &ways[i % ARRAY_SIZE(ways)], 1 + i / ARRAY_SIZE(ways), qemu && n % 40 == 0);
    print_message("# %llu of %llu operations failed\n", (unsigned long long)n,
                  (unsigned long long)(ops * ARRAY_SIZE(ways)));
}

/* ---- one image ---- */

/* Cluster allocation, new refcount blocks and tables, snapshots, bitmaps, resizes with L1, compressed clusters, discards and zeroes. */
static const struct disk_create_conf shapes[] = {{.size = 128 * KIB, .cluster_size = 512, .refcount_bits = 64},
                                                 {.size = 300 * KIB, .cluster_size = 4096},
                                                 {.size = 200 * KIB, .cluster_size = 4096, .version = 2},
                                                 {.size = 300 * KIB, .cluster_size = 16384, .extended_l2 = true}};

static void script(struct model *m)
{
    for (unsigned i = 0; i < model_kinds(); i++) {
        m->requests = 12;
        assert_true(model_make(m, 0));
        assert_true(model_make(m, i));
    }
}

static uint64_t play_image(const void *opaque, const struct way *way, uint64_t at, bool qemu)
{
    const struct disk_create_conf *shape = opaque;
    static struct model m;

    model_init(&m, shape, path, shape->size + at);
    m.w.pack = at % 4 == 3;
    world_open(&m.w);
    uint64_t before = m.w.fake->n_ops;
    break_host(m.w.fake, way, at);
    script(&m);
    mend(m.w.fake);
    uint64_t ops = m.w.fake->n_ops - before;
    assert_int_equal(world_flush(&m.w), 0);
    model_check(&m, false);
    world_close(&m.w);
    model_sound(m.w.fake, false);
    if (qemu)
        check_with_qemu(m.w.fake);
    world_open(&m.w);
    model_check(&m, false);
    world_run(&m.w, 10);
    world_close(&m.w);
    model_sound(m.w.fake, true);
    model_fini(&m);
    return ops;
}

static void test_image(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        sweep(play_image, &shapes[i], ARRAY_SIZE(shapes));
}

/* ---- what one sector of the header switches ---- */

static int snapshot(struct disk *disk)
{
    return disk_snapshot_create(disk, "b", 2, NULL);
}

static int revert(struct disk *disk)
{
    return disk_snapshot_revert(disk, "a", NULL);
}

static int remove_snapshot(struct disk *disk)
{
    return disk_snapshot_remove(disk, "a", NULL);
}

static int grow(struct disk *disk)
{
    return disk_resize(disk, disk->size + 2 * MIB, NULL); /* L1 too */
}

static int shrink(struct disk *disk)
{
    return disk_resize(disk, disk->size - 32 * KIB, NULL);
}

static int add_bitmap(struct disk *disk)
{
    return disk_bitmap_create(disk, "other", 4096, NULL);
}

static int remove_bitmap(struct disk *disk)
{
    return disk_bitmap_remove(disk, "map", NULL);
}

static int (*const changes[])(struct disk *disk) = {snapshot, revert,     remove_snapshot, grow,
                                                    shrink,   add_bitmap, remove_bitmap};

/* What the disk holds after a change that was done. */
static void changed(struct world *w, int (*change)(struct disk *disk), const struct world_saved *then)
{
    if (change == revert)
        world_restore(w, then);
    else if (change == grow)
        world_grow(w, w->disk->size);
    else if (change == shrink)
        world_shrink(w, w->disk->size);
}

static void prepare(struct world *w, const struct disk_create_conf *shape, struct world_saved *then)
{
    struct disk_create_conf conf = *shape;

    conf.path = path;
    unlink(path);
    assert_int_equal(qcow2_create(&conf, NULL), 0);
    world_init(w, fake_load(path, 1), conf.size, 1);
    w->room_after = 3;
    world_open(w);
    world_run(w, 30);
    assert_int_equal(world_flush(w), 0);
    assert_int_equal(disk_bitmap_create(w->disk, "map", 4096, NULL), 0);
    assert_int_equal(disk_snapshot_create(w->disk, "a", 1, NULL), 0);
    world_save(w, then);
    world_run(w, 30);
    assert_int_equal(world_flush(w), 0);
}

/* False: the change has no such operation. */
static bool fail_change(const struct disk_create_conf *shape, int (*change)(struct disk *disk), const struct way *way,
                        uint64_t at, bool qemu)
{
    struct world_saved then;
    struct world w;

    prepare(&w, shape, &then);
    break_host(w.fake, way, at);
    int r = change(w.disk);
    bool hit = w.fake->n_failed > 0;
    if (r == 0)
        changed(&w, change, &then);
    if (r == 0 || change != shrink) /* of which a part is done: what is to go reads as zeroes */
        world_run(&w, 10);          /* until somebody looks to the host, and on */
    mend(w.fake);
    if (r) {
        assert_int_equal(change(w.disk), 0);
        changed(&w, change, &then);
    }
    world_check(&w, false);
    assert_int_equal(world_flush(&w), 0);
    world_close(&w);
    model_sound(w.fake, false);
    if (qemu)
        check_with_qemu(w.fake);
    world_open(&w);
    world_check(&w, false);
    world_close(&w);
    free(then.values);
    fake_free(w.fake);
    world_fini(&w);
    return hit;
}

static void test_changes(void **state)
{
    static const struct disk_create_conf shape = {.size = 128 * KIB, .cluster_size = 512};
    bool qemu = qcow2_dir_have_qemu();
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
        for (size_t k = 0; k < ARRAY_SIZE(ways); k++)
            for (uint64_t at = 1; fail_change(&shape, changes[i], &ways[k], at, qemu && n % 50 == 0); at++)
                n++;
    print_message("# %u operations failed\n", n);
    assert_true(n > 100);
}

/* ---- an image and its backing file ---- */

struct pair_shape {
    uint32_t below, top; /* clusters; 0: raw */
};

struct pair {
    struct world below, top;
    char paths[2][96];
};

static void init_below(struct pair *p, uint32_t cluster_size, uint64_t seed)
{
    const struct disk_create_conf conf = {
        .path = p->paths[0], .format = "qcow2", .size = 192 * KIB, .cluster_size = cluster_size};
    uint8_t *raw = calloc(1, conf.size);
    struct err err = {""};

    assert_non_null(raw);
    if (cluster_size && disk_create(&conf, &err))
        fail_msg("%s", err.msg);
    world_init(&p->below, cluster_size ? fake_load(conf.path, seed) : fake_new(raw, conf.size, seed), conf.size, seed);
    free(raw);
    p->below.conf.path = p->paths[0];
    p->below.conf.format = cluster_size ? "qcow2" : "raw";
    if (!cluster_size) {
        fake_save(p->below.fake, p->paths[0]);
        return;
    }
    world_open(&p->below);
    world_run(&p->below, 40);
    world_close(&p->below);
}

static void init_pair(struct pair *p, const struct pair_shape *shape, uint64_t seed)
{
    const struct disk_create_conf conf = {.path = p->paths[1],
                                          .format = "qcow2",
                                          .size = 256 * KIB,
                                          .cluster_size = shape->top,
                                          .backing = p->paths[0],
                                          .backing_format = shape->below ? "qcow2" : "raw"};
    struct err err = {""};

    for (unsigned i = 0; i < 2; i++) {
        snprintf(p->paths[i], sizeof(p->paths[i]), "%s/%s.img", dir, i ? "top" : "below");
        unlink(p->paths[i]);
    }
    init_below(p, shape->below, seed);
    if (disk_create(&conf, &err))
        fail_msg("%s", err.msg);
    world_init(&p->top, fake_load(p->paths[1], seed), conf.size, seed);
    p->top.conf.path = p->paths[1];
    p->top.conf.discard = true;
    p->top.conf.allow = allow;
    p->top.room_after = 10;
    p->top.below = p->below.fake;
    world_cover(&p->top, &p->below);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(fake_names[i].path, sizeof(fake_names[i].path), "%s", p->paths[i]);
        fake_names[i].fake = i ? p->top.fake : p->below.fake;
    }
}

static void fini_pair(struct pair *p)
{
    fake_names[0].fake = fake_names[1].fake = NULL;
    fake_free(p->below.fake);
    fake_free(p->top.fake);
    world_fini(&p->below);
    world_fini(&p->top);
}

static struct disk *open_of(struct pair *p, bool top, bool alone)
{
    struct disk_conf conf = top ? p->top.conf : p->below.conf;
    struct err err = {""};
    struct disk *disk;

    conf.no_backing = alone;
    if (disk_open(&disk, &conf, p->top.loop, &err))
        fail_msg("%s", err.msg);
    return disk;
}

/* Both are sound, and what is read through the uppermost is the same. */
static void check_pair(struct pair *p, bool qemu)
{
    mend(p->top.fake);
    mend(p->below.fake);
    model_sound(p->top.fake, false);
    if (!strcmp(p->below.conf.format, "qcow2"))
        model_sound(p->below.fake, false);
    if (qemu)
        check_with_qemu(p->top.fake);
    world_open(&p->top);
    world_check(&p->top, false);
    world_close(&p->top);
}

/* Copy-on-write of clusters of the backing file, and what follows from it. */
static uint64_t play_requests(const void *opaque, const struct way *way, uint64_t at, bool qemu)
{
    static struct pair p;

    init_pair(&p, opaque, at);
    struct fake *bad = at % 3 == 2 ? p.below.fake : p.top.fake;
    uint64_t before = bad->n_ops;
    world_open(&p.top);
    break_host(bad, way, at);
    for (unsigned i = 0; i < 3; i++)
        world_run(&p.top, 20);
    mend(bad);
    uint64_t ops = bad->n_ops - before;
    assert_int_equal(world_flush(&p.top), 0);
    world_close(&p.top);
    check_pair(&p, qemu);
    fini_pair(&p);
    return ops;
}

/* What is done to a pair with one call. */
struct chain_script {
    struct pair_shape shape;
    bool rebase, upper; /* upper: the overlay's host fails, else the backing file's */
};

static int chain_once(struct pair *p, const struct chain_script *script, struct fake *bad, const struct way *way,
                      uint64_t at)
{
    struct disk *image = open_of(p, true, !script->rebase), *backing = script->rebase ? NULL : open_of(p, false, true);

    if (at)
        break_host(bad, way, at);
    int r = script->rebase ? image_chain_rebase(image, NULL, NULL, NULL, NULL, NULL)
                           : image_chain_commit(image, backing, NULL, NULL);
    disk_close(image);
    disk_close(backing);
    return r;
}

static uint64_t play_chain(const void *opaque, const struct way *way, uint64_t at, bool qemu)
{
    const struct chain_script *script = opaque;
    static struct pair p;

    init_pair(&p, &script->shape, 7);
    world_open(&p.top);
    world_run(&p.top, 50);
    assert_int_equal(world_flush(&p.top), 0);
    world_close(&p.top);
    struct fake *bad = script->upper ? p.top.fake : p.below.fake;
    uint64_t before = bad->n_ops, failed = bad->n_failed;
    int r = chain_once(&p, script, bad, way, at);
    uint64_t ops = bad->n_ops - before;
    assert_true(r == 0 || bad->n_failed > failed);
    check_pair(&p, qemu);
    if (r)
        assert_int_equal(chain_once(&p, script, bad, way, 0), 0);
    check_pair(&p, qemu);
    fini_pair(&p);
    return ops;
}

static const struct pair_shape pairs[] = {{0, 4096}, {65536, 512}, {512, 4096}, {4096, 65536}};

static void test_copy_on_write(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
        sweep(play_requests, &pairs[i], ARRAY_SIZE(pairs));
}

static void test_commit(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(pairs) * 2; i++) {
        const struct chain_script script = {.shape = pairs[i / 2], .upper = i % 2};
        sweep(play_chain, &script, ARRAY_SIZE(pairs) * 2);
    }
}

static void test_rebase(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        const struct chain_script script = {.shape = pairs[i], .rebase = true, .upper = true};
        sweep(play_chain, &script, ARRAY_SIZE(pairs));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image),  cmocka_unit_test(test_changes), cmocka_unit_test(test_copy_on_write),
        cmocka_unit_test(test_commit), cmocka_unit_test(test_rebase),
    };
    cmocka_set_test_filter(getenv("VIREO_TEST_ONLY"));
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
