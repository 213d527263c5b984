/*
 * Internal snapshots over a file in memory (fake_file.h): random requests and snapshots against what they must hold, also while requests are under way;
 * power cuts, failing hosts, images crossed with qemu-img where that is there.
 */
#include "disk/disk_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/disk_bitmap.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "qcow2_dir.h"
#include "qcow2_world.h"

static char dir[] = "/tmp/vireo-snapshot-XXXXXX", image_path[96], raw_path[96], other_path[96];

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
    struct disk_create_conf at_path = *conf;
    struct err err = {""};

    unlink(image_path);
    at_path.path = image_path;
    if (qcow2_create(&at_path, &err))
        fail_msg("%s", err.msg);
    return fake_load(image_path, seed);
}

/* ---- snapshots of the world ---- */

#define MAX_SAVED 6

struct album {
    struct world_saved saved[MAX_SAVED];
    char names[MAX_SAVED][16];
    unsigned n, next;
    unsigned long made, returned, removed;
};

static void save_values(const char *path, const struct world_saved *saved)
{
    FILE *raw = fopen(path, "w");

    assert_non_null(raw);
    for (uint64_t i = 0; i < saved->n_blocks; i++) {
        uint8_t buf[512];
        world_fill(buf, i, saved->values[i]);
        assert_int_equal(fwrite(buf, 1, sizeof(buf), raw), sizeof(buf));
    }
    assert_int_equal(fclose(raw), 0);
}

static int make(struct world *w, struct album *album, struct err *err)
{
    struct world_saved saved;
    char name[16];

    snprintf(name, sizeof(name), "shot %u", album->next);
    world_save(w, &saved);
    int r = disk_snapshot_create(w->disk, name, INT64_C(1700000000123456789) + album->next, err);
    if (r) {
        free(saved.values);
        return r;
    }
    album->saved[album->n] = saved;
    strcpy(album->names[album->n++], name);
    album->next++;
    album->made++;
    return 0;
}

static void forget(struct album *album, unsigned i)
{
    free(album->saved[i].values);
    album->n--;
    memmove(&album->saved[i], &album->saved[i + 1], (album->n - i) * sizeof(album->saved[0]));
    memmove(album->names[i], album->names[i + 1], (album->n - i) * sizeof(album->names[0]));
}

static void album_fini(struct album *album)
{
    while (album->n)
        forget(album, 0);
}

static void must(int r, const struct err *err)
{
    if (r)
        fail_msg("%s", err->msg);
}

/* Makes one, returns to one, or removes one. */
static void change(struct world *w, struct album *album)
{
    unsigned dice = fake_random(&w->seed) % 10, i = album->n ? fake_random(&w->seed) % album->n : 0;
    struct err err = {""};

    if (!album->n || (dice < 5 && album->n < MAX_SAVED)) {
        must(make(w, album, &err), &err);
    } else if (dice < 7 && !(w->n_active && album->saved[i].n_blocks != w->n_blocks)) {
        world_restore(w, &album->saved[i]);
        must(disk_snapshot_revert(w->disk, album->names[i], &err), &err);
        album->returned++;
    } else {
        must(disk_snapshot_remove(w->disk, album->names[i], &err), &err);
        forget(album, i);
        album->removed++;
    }
}

static void hook(struct world *w)
{
    change(w, w->hook_opaque);
}

/* A snapshot opened as a disk holds what it must. */
static void check_view(struct world *w, const struct album *album, unsigned i)
{
    uint8_t want[512], *buf = malloc(album->saved[i].n_blocks * 512);
    struct disk *view, *disk = w->disk;
    struct err err = {""};

    assert_non_null(buf);
    must(disk_snapshot_view(&view, disk, album->names[i], &err), &err);
    assert_int_equal(view->size, album->saved[i].n_blocks * 512);
    w->disk = view;
    assert_int_equal(world_single(w, DISK_READ, 0, buf, view->size), 0);
    assert_int_equal(world_single(w, DISK_WRITE, 0, buf, 512), -EROFS);
    w->disk = disk;
    for (uint64_t k = 0; k < album->saved[i].n_blocks; k++) {
        world_fill(want, k, album->saved[i].values[k]);
        assert_memory_equal(buf + k * 512, want, 512);
    }
    assert_int_equal(disk_snapshot_remove(disk, album->names[i], &err), -EBUSY);
    disk_close(view);
    free(buf);
}

static void check_list(struct world *w, const struct album *album)
{
    struct disk_snapshots list;
    struct err err = {""};

    must(disk_snapshot_list(w->disk, &list, &err), &err);
    assert_int_equal(list.n, album->n);
    for (unsigned i = 0; i < list.n; i++) {
        assert_string_equal(list.items[i].name, album->names[i]);
        assert_int_equal(list.items[i].disk_size, album->saved[i].n_blocks * 512);
        assert_int_equal(list.items[i].time_ns / NS_PER_SEC, 1700000000);
    }
    free(list.items);
}

static void check_qemu(struct world *w, const struct album *album)
{
    struct world_saved now;

    fake_save(w->fake, image_path);
    if (qcow2_dir_run("qemu-img check -q -f qcow2 %s", image_path))
        fail_msg("qemu-img check found something");
    world_save(w, &now);
    save_values(raw_path, &now);
    free(now.values);
    if (qcow2_dir_run("qemu-img compare -q -f qcow2 -F raw %s %s", image_path, raw_path))
        fail_msg("qemu-img compare found a difference");
    for (unsigned i = album->n / 2; i < album->n; i++) {
        uint64_t len = album->saved[i].n_blocks < w->n_blocks ? album->saved[i].n_blocks * 512 : w->n_blocks * 512;
        save_values(raw_path, &album->saved[i]); /* qemu-img reads as many bytes as the disk has now */
        if (qcow2_dir_run("qemu-img convert -f qcow2 -l snapshot.name='%s' -O raw %s %s.out && cmp -n %llu %s %s.out",
                          album->names[i], image_path, raw_path, (unsigned long long)len, raw_path, raw_path))
            fail_msg("qemu-img reads something else from a snapshot");
    }
}

static const struct disk_create_conf shapes[] = {
    {.size = 1 * MIB, .cluster_size = 512, .refcount_bits = 64},
    {.size = 1 * MIB, .cluster_size = 512, .refcount_bits = 16},
    {.size = 1 * MIB + 512, .cluster_size = 4096, .refcount_bits = 8},
    {.size = 2 * MIB, .cluster_size = 4096, .version = 2},
    {.size = 2 * MIB, .cluster_size = 65536, .version = 2},
    {.size = 2 * MIB, .cluster_size = 16384, .refcount_bits = 4},
    {.size = 5 * MIB, .cluster_size = 2 * MIB, .refcount_bits = 32},
    {.size = 1 * MIB, .cluster_size = 1024, .refcount_bits = 16},
};

/* ---- random requests and changes ---- */

static void test_random(void **state)
{
    bool qemu = qcow2_dir_have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        for (unsigned round = 0; round < 2; round++) {
            struct album album = {0};
            struct world w;
            struct fake *fake = new_image(&shapes[i], i * 10 + round);
            world_init(&w, fake, shapes[i].size, i + round * 100);
            w.conf.discard = round == 0;
            w.max_pages = round == 1 ? 4 : 0;
            for (unsigned life = 0; life < 2; life++) {
                world_open(&w);
                for (unsigned k = 0; k < 8; k++) {
                    world_run(&w, 60);
                    change(&w, &album);
                    world_check(&w, false);
                }
                check_list(&w, &album);
                for (unsigned k = 0; k < album.n; k++)
                    check_view(&w, &album, k);
                world_close(&w);
                assert_int_equal(world_verify(fake), 0);
                if (qemu && life == round)
                    check_qemu(&w, &album);
            }
            assert_int_equal(w.errors, 0);
            album_fini(&album);
            world_fini(&w);
            fake_free(fake);
        }
    }
}

/* Changes come from within the completion of requests, with others under way. */
static void test_live(void **state)
{
    bool qemu = qcow2_dir_have_qemu();
    unsigned long made = 0, returned = 0, removed = 0;

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct album album = {0};
        struct world w;
        struct fake *fake = new_image(&shapes[i], i);
        world_init(&w, fake, shapes[i].size, i + 1000);
        w.depth = 16;
        w.hook = hook;
        w.hook_opaque = &album;
        fake->lag = 40;
        world_open(&w);
        world_run(&w, 900);
        w.hook = NULL;
        assert_int_equal(world_flush(&w), 0);
        world_check(&w, false);
        for (unsigned k = 0; k < album.n; k++)
            check_view(&w, &album, k);
        world_close(&w);
        made += album.made;
        returned += album.returned;
        removed += album.removed;
        assert_int_equal(world_verify(fake), 0);
        if (qemu)
            check_qemu(&w, &album);
        album_fini(&album);
        world_fini(&w);
        fake_free(fake);
    }
    assert_true(made > 3 * ARRAY_SIZE(shapes) && returned > 3 && removed > 3);
}

/* ---- sizes ---- */

static void test_sizes(void **state)
{
    bool qemu = qcow2_dir_have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct album album = {0};
        struct world w;
        struct err err = {""};
        struct fake *fake = new_image(&shapes[i], i);
        if (shapes[i].version == 2) {
            fake_free(fake);
            continue;
        }
        world_init(&w, fake, shapes[i].size, i);
        world_open(&w);
        for (unsigned k = 1; k < 4; k++) {
            uint64_t size = shapes[i].size + k * 900 * KIB;
            world_run(&w, 60);
            must(make(&w, &album, &err), &err);
            world_grow(&w, size);
            must(disk_resize(w.disk, size, &err), &err);
        }
        world_run(&w, 60);
        must(make(&w, &album, &err), &err);
        for (unsigned k = 0; k < 6; k++) {
            unsigned at = (k * 7 + 1) % album.n;
            world_restore(&w, &album.saved[at]);
            must(disk_snapshot_revert(w.disk, album.names[at], &err), &err);
            assert_int_equal(w.disk->size, album.saved[at].n_blocks * 512);
            world_check(&w, false);
            world_run(&w, 40);
            world_grow(&w, w.disk->size + 300 * KIB);
            must(disk_resize(w.disk, w.disk->size + 300 * KIB, &err), &err);
            world_check(&w, false);
        }
        for (unsigned k = 0; k < album.n; k++)
            check_view(&w, &album, k);
        world_close(&w);
        assert_int_equal(world_verify(fake), 0);
        if (qemu)
            check_qemu(&w, &album);
        album_fini(&album);
        world_fini(&w);
        fake_free(fake);
    }
}

/* ---- refcounts that can tell no more ---- */

static void test_overflow(void **state)
{
    static const struct disk_create_conf one = {.size = 1 * MIB, .cluster_size = 4096, .refcount_bits = 1},
                                         two = {.size = 1 * MIB, .cluster_size = 4096, .refcount_bits = 2};
    struct album album = {0};
    struct err err = {""};
    struct world w;
    struct fake *fake = new_image(&one, 1);

    world_init(&w, fake, one.size, 1);
    world_open(&w);
    must(make(&w, &album, &err), &err); /* of nothing */
    world_run(&w, 50);
    assert_int_equal(make(&w, &album, &err), -EOVERFLOW);
    assert_non_null(strstr(err.msg, "refcounts of 1 bit can tell"));
    assert_null(strchr(err.msg, '\n'));
    world_check(&w, false);
    world_close(&w);
    assert_int_equal(world_verify(fake), 0);
    album_fini(&album);
    world_fini(&w);
    fake_free(fake);

    fake = new_image(&two, 1);
    world_init(&w, fake, two.size, 1);
    world_open(&w);
    world_run(&w, 50);
    must(make(&w, &album, &err), &err);
    must(make(&w, &album, &err), &err);
    assert_int_equal(make(&w, &album, &err), -EOVERFLOW);
    for (unsigned i = 0; i < 2; i++) { /* the disk's references go before the snapshot's come */
        world_restore(&w, &album.saved[i]);
        must(disk_snapshot_revert(w.disk, album.names[i], &err), &err);
    }
    world_check(&w, false);
    must(disk_snapshot_remove(w.disk, album.names[0], &err), &err);
    forget(&album, 0);
    must(make(&w, &album, &err), &err);
    world_close(&w);
    assert_int_equal(world_verify(fake), 0);
    album_fini(&album);
    world_fini(&w);
    fake_free(fake);
}

/* ---- names and the tree ---- */

static const struct disk_snapshot *find(const struct disk_snapshots *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    fail_msg("no %s", name);
    return NULL;
}

static void expect_parent(struct world *w, const char *name, const char *parent, const char *current)
{
    struct disk_snapshots list;
    struct err err = {""};

    must(disk_snapshot_list(w->disk, &list, &err), &err);
    assert_string_equal(find(&list, name)->parent, *parent ? find(&list, parent)->id : "");
    assert_string_equal(list.current, *current ? find(&list, current)->id : "");
    free(list.items);
}

static void test_tree(void **state)
{
    static const struct disk_create_conf shape = {.size = 1 * MIB};
    struct err err = {""};
    struct world w;
    struct fake *fake = new_image(&shape, 1);

    world_init(&w, fake, shape.size, 1);
    world_open(&w);
    must(disk_snapshot_create(w.disk, "a", 1, &err), &err);
    must(disk_snapshot_create(w.disk, "b", 2, &err), &err);
    expect_parent(&w, "b", "a", "b");
    must(disk_snapshot_revert(w.disk, "a", &err), &err);
    must(disk_snapshot_create(w.disk, "c", 3, &err), &err);
    must(disk_snapshot_create(w.disk, "d", 4, &err), &err);
    expect_parent(&w, "c", "a", "d");
    expect_parent(&w, "d", "c", "d");
    assert_int_equal(disk_snapshot_create(w.disk, "d", 4, &err), -EEXIST);
    assert_int_equal(disk_snapshot_create(w.disk, "", 4, &err), -EINVAL);
    assert_int_equal(disk_snapshot_create(w.disk, "a\nb", 4, &err), -EINVAL);
    assert_int_equal(disk_snapshot_remove(w.disk, "e", &err), -ENOENT);
    assert_string_equal(err.msg, "disk 'fake.qcow2': no snapshot is called 'e'; accepted are a, b, c, d");
    must(disk_snapshot_remove(w.disk, "c", &err), &err);
    expect_parent(&w, "d", "a", "d");
    must(disk_snapshot_remove(w.disk, "4", &err), &err); /* d, by its id */
    expect_parent(&w, "b", "a", "a");
    must(disk_snapshot_create(w.disk, "e", 5, &err), &err);
    expect_parent(&w, "e", "a", "e");
    struct disk_snapshots list;
    must(disk_snapshot_list(w.disk, &list, &err), &err);
    assert_string_equal(find(&list, "e")->id, "5"); /* 4 was there once */
    free(list.items);
    world_close(&w);
    if (qcow2_dir_have_qemu()) { /* keeps what it does not know, and knows nothing of parents */
        fake_save(fake, image_path);
        assert_int_equal(qcow2_dir_run("qemu-img snapshot -c f %s && qemu-img snapshot -d e %s && qemu-img check -q %s",
                                       image_path, image_path, image_path),
                         0);
        w.fake = fake_load(image_path, 1);
        world_open(&w);
        expect_parent(&w, "b", "a", "");
        expect_parent(&w, "f", "", "");
        must(disk_snapshot_revert(w.disk, "f", &err), &err);
        must(disk_snapshot_create(w.disk, "g", 5, &err), &err);
        expect_parent(&w, "g", "f", "g");
        world_close(&w);
        fake_free(w.fake);
    }
    world_fini(&w);
    fake_free(fake);
}

/* A return to a snapshot changes everything, as far as bitmaps know; a snapshot that is made or removed changes nothing. */
static void test_bitmap(void **state)
{
    static const struct disk_create_conf shape = {.size = 1 * MIB, .cluster_size = 4096};
    struct album album = {0};
    struct err err = {""};
    struct world w;
    struct fake *fake = new_image(&shape, 1);
    uint64_t offset, len;

    world_init(&w, fake, shape.size, 1);
    world_open(&w);
    world_run(&w, 40);
    must(make(&w, &album, &err), &err);
    must(disk_bitmap_create(w.disk, "changes", 65536, &err), &err);
    must(make(&w, &album, &err), &err);
    must(disk_bitmap_next(w.disk, "changes", 0, &offset, &len, &err), &err);
    assert_int_equal(len, 0);
    world_close(&w);
    world_open(&w);
    world_restore(&w, &album.saved[0]);
    must(disk_snapshot_revert(w.disk, album.names[0], &err), &err);
    must(disk_bitmap_next(w.disk, "changes", 0, &offset, &len, &err), &err);
    assert_true(offset == 0 && len == shape.size);
    world_close(&w);
    world_open(&w);
    must(disk_bitmap_next(w.disk, "changes", 0, &offset, &len, &err), &err);
    assert_true(offset == 0 && len == shape.size);
    world_check(&w, false);
    world_close(&w);
    if (qcow2_dir_have_qemu())
        check_qemu(&w, &album);
    album_fini(&album);
    world_fini(&w);
    fake_free(fake);
}

/* ---- images of QEMU's ---- */

static const char *const foreigns[] = {"cluster_size=512",
                                       "cluster_size=64k",
                                       "compat=0.10,cluster_size=4k",
                                       "refcount_bits=8,cluster_size=4k",
                                       "refcount_bits=64",
                                       "extended_l2=on,cluster_size=16k",
                                       "cluster_size=2M"};

/* Each makes snapshots of an image by turns, returns to the other's, and deletes them. */
static void test_foreign(void **state)
{
    if (!qcow2_dir_have_qemu())
        skip();
    for (size_t i = 0; i < ARRAY_SIZE(foreigns); i++) {
        struct err err = {""};
        struct album album = {0};
        struct world w;
        struct world_saved first, second;
        qcow2_dir_run("rm -f %s", image_path);
        assert_int_equal(qcow2_dir_run("qemu-img create -q -f qcow2 -o %s %s 2M", foreigns[i], image_path), 0);
        world_init(&w, fake_load(image_path, i), 2 * MIB, i);
        world_open(&w);
        world_run(&w, 100);
        world_save(&w, &first);
        world_close(&w);
        fake_save(w.fake, image_path);
        assert_int_equal(qcow2_dir_run("qemu-img snapshot -c theirs %s", image_path), 0);
        fake_free(w.fake);
        w.fake = fake_load(image_path, i);
        world_open(&w);
        world_run(&w, 100);
        must(disk_snapshot_create(w.disk, "ours", 1, &err), &err);
        world_save(&w, &second);
        world_run(&w, 100);
        world_restore(&w, &first);
        must(disk_snapshot_revert(w.disk, "theirs", &err), &err);
        world_check(&w, false);
        world_run(&w, 50);
        world_close(&w);
        check_qemu(&w, &album);
        assert_int_equal(qcow2_dir_run("qemu-img snapshot -a ours %s && qemu-img check -q %s", image_path, image_path),
                         0);
        fake_free(w.fake);
        w.fake = fake_load(image_path, i);
        world_open(&w);
        world_restore(&w, &second);
        world_check(&w, false);
        must(disk_snapshot_remove(w.disk, "theirs", &err), &err);
        world_run(&w, 50);
        world_close(&w);
        check_qemu(&w, &album);
        assert_int_equal(qcow2_dir_run("qemu-img snapshot -d ours %s && qemu-img check -q %s", image_path, image_path),
                         0);
        free(first.values);
        free(second.values);
        fake_free(w.fake);
        world_fini(&w);
    }
}

/* ---- power cuts ---- */

static unsigned rounds(unsigned usual)
{
    const char *n = getenv("VIREO_TEST_CUTS");
    return n ? (unsigned)atoi(n) : usual;
}

enum { MAKE, RETURN, REMOVE, N_CHANGES };

/* A disk with a past: two snapshots, and what came since. */
static void prepare(struct world *w, struct album *album, const struct disk_create_conf *shape, uint64_t seed)
{
    struct err err = {""};

    world_init(w, new_image(shape, seed), shape->size, seed);
    w->conf.discard = seed % 2;
    world_open(w);
    for (unsigned k = 0; k < 2; k++) {
        world_run(w, 30);
        must(make(w, album, &err), &err);
    }
    world_run(w, 30);
    assert_int_equal(world_flush(w), 0);
}

static int change_one(struct world *w, struct album *album, unsigned what)
{
    struct err err = {""};

    if (what == MAKE)
        return disk_snapshot_create(w->disk, "new", 1, &err);
    if (what == RETURN)
        return disk_snapshot_revert(w->disk, album->names[0], &err);
    return disk_snapshot_remove(w->disk, album->names[1], &err);
}

/* The image is as it was before or after the change, and sound. */
static void check_either(struct world *w, struct album *album, unsigned what, bool over)
{
    struct disk_snapshots list;
    struct err err = {""};
    uint8_t buf[512], want[512];
    bool changed = over;

    int leaks = world_verify(w->fake);
    assert_true(leaks >= 0);
    world_open(w);
    must(disk_snapshot_list(w->disk, &list, &err), &err);
    if (what == MAKE) {
        assert_true(list.n == 3 || (list.n == 2 && !over));
    } else if (what == REMOVE) {
        assert_true(list.n == 1 || (list.n == 2 && !over));
    } else if (!over) {
        changed = strcmp(list.current, list.items[0].id) == 0;
    } else {
        assert_string_equal(list.current, list.items[0].id);
    }
    free(list.items);
    if (what == RETURN && changed)
        world_restore(w, &album->saved[0]);
    world_check(w, false);
    check_view(w, album, 0);
    for (uint64_t k = 0; k < w->n_blocks; k += 97) {
        world_fill(want, k, w->blocks[k].flushed);
        assert_int_equal(world_single(w, DISK_READ, k * 512, buf, 512), 0);
        assert_memory_equal(buf, want, 512);
    }
    world_run(w, 20);
    world_close(w);
    assert_true(world_verify(w->fake) >= 0);
}

static void test_cuts(void **state)
{
    bool qemu = qcow2_dir_have_qemu();
    unsigned n = rounds(150);

    for (unsigned i = 0; i < n; i++) {
        struct album album = {0};
        struct world w;
        uint64_t seed = i * 31 + 7;
        unsigned what = i % N_CHANGES;
        prepare(&w, &album, &shapes[i / N_CHANGES % ARRAY_SIZE(shapes)], seed);
        w.fake->keep_changes = true;
        uint64_t before = w.fake->n_ops;
        struct fake *whole = fake_new(w.fake->data, w.fake->size, seed);
        assert_int_equal(change_one(&w, &album, what), 0);
        uint64_t ops = w.fake->n_ops - before;
        world_close(&w);
        fake_free(w.fake);

        w.fake = whole; /* once more, until some point on the way */
        whole->keep_changes = true;
        world_open(&w);
        whole->die_at = whole->n_ops + 1 + fake_random(&seed) % (ops + 3);
        int r = change_one(&w, &album, what);
        struct fake *after = fake_cut(whole, seed);
        world_die(&w);
        fake_free(whole);
        w.fake = after;
        if (qemu && i % 15 == 0) {
            fake_save(after, image_path);
            int status = qcow2_dir_run("qemu-img check -q -f qcow2 %s >/dev/null", image_path);
            assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3); /* 3: leaks */
        }
        check_either(&w, &album, what, r == 0);
        album_fini(&album);
        fake_free(w.fake);
        world_fini(&w);
    }
}

/* ---- a failing host ---- */

/* Everything on the way fails once: the image is in the old state and goes on, and the next try does it. */
static void test_each_step_fails(void **state)
{
    static const struct disk_create_conf shape = {.size = 1 * MIB, .cluster_size = 4096};

    for (unsigned what = 0; what < N_CHANGES; what++) {
        int r = -1;
        for (unsigned i = 1; r; i++) {
            struct album album = {0};
            struct world w;
            prepare(&w, &album, &shape, 5);
            w.fake->fail_op = w.fake->n_ops + i;
            r = change_one(&w, &album, what);
            w.fake->fail_op = 0;
            if (r == 0 && what == RETURN)
                world_restore(&w, &album.saved[0]);
            world_check(&w, false);
            world_run(&w, 20);
            assert_int_equal(world_flush(&w), 0);
            world_close(&w);
            assert_true(world_verify(w.fake) >= 0);
            world_open(&w);
            world_check(&w, false);
            if (r) {
                assert_int_equal(change_one(&w, &album, what), 0);
                if (what == RETURN)
                    world_restore(&w, &album.saved[0]);
                world_check(&w, false);
            }
            check_view(&w, &album, 0);
            world_close(&w);
            assert_true(world_verify(w.fake) >= 0);
            album_fini(&album);
            fake_free(w.fake);
            world_fini(&w);
            assert_true(i < 2000);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_live),    cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_tree),   cmocka_unit_test(test_foreign), cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_bitmap), cmocka_unit_test(test_cuts),    cmocka_unit_test(test_each_step_fails),
    };
    cmocka_set_test_filter(getenv("VIREO_TEST_ONLY"));
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
