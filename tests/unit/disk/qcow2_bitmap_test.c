/* Dirty bitmaps in images, crossed with qemu-img where that is there. */
#include "disk/disk_bitmap.h"

#include "disk/disk_create.h"
#include "disk/disk_snapshot.h"
#include "disk_fixture.h"
#include "qcow2_dir.h"

#define SIZE (UINT64_C(64) << 20)

static void make(struct disk_fixture *f, uint32_t cluster_size)
{
    f->conf.format = "qcow2";
    assert_int_equal(
        disk_create(
            &(struct disk_create_conf){.path = f->path, .format = "qcow2", .size = SIZE, .cluster_size = cluster_size},
            NULL),
        0);
}

static struct disk *open_it(struct disk_fixture *f)
{
    struct disk *disk;
    struct err err;

    if (disk_open(&disk, &f->conf, f->loop, &err))
        fail_msg("%s", err.msg);
    return disk;
}

static int shell(struct disk_fixture *f, const char *before, const char *after)
{
    char line[512];

    snprintf(line, sizeof(line), "%s %s %s >/dev/null 2>&1", before, f->path, after);
    return system(line);
}

static void sound(struct disk_fixture *f)
{
    if (qcow2_dir_have_qemu())
        assert_int_equal(shell(f, "qemu-img check -f qcow2", ""), 0);
}

static void write_at(struct disk_fixture *f, struct disk *disk, uint64_t offset, size_t len)
{
    void *buf = calloc(1, len);

    memset(buf, 7, len);
    assert_int_equal(fixture_do(f, disk, DISK_WRITE, offset, buf, len), 0);
    free(buf);
}

static struct disk_bitmap look(struct disk *disk, const char *name)
{
    struct disk_bitmaps list;
    struct disk_bitmap b = {0};

    assert_int_equal(disk_bitmap_list(disk, &list, NULL), 0);
    for (size_t i = 0; i < list.n; i++)
        if (strcmp(list.items[i].name, name) == 0)
            b = list.items[i];
    free(list.items);
    return b;
}

static void next_is(struct disk *disk, const char *name, uint64_t from, uint64_t offset, uint64_t len)
{
    uint64_t o, n;

    assert_int_equal(disk_bitmap_next(disk, name, from, &o, &n, NULL), 0);
    assert_int_equal(n, len);
    if (n)
        assert_int_equal(o, offset);
}

static void life(void **state)
{
    struct disk_fixture *f = *state;
    const uint32_t clusters[] = {512, 4096, 65536, 2 << 20};

    for (unsigned i = 0; i < ARRAY_SIZE(clusters); i++) {
        make(f, clusters[i]);
        struct disk *disk = open_it(f);
        assert_int_equal(disk_bitmap_create(disk, "a", 0, NULL), 0);
        assert_int_equal(disk_bitmap_create(disk, "a", 0, NULL), -EEXIST);
        assert_int_equal(disk_bitmap_create(disk, "fine", 512, NULL), 0);
        next_is(disk, "a", 0, 0, 0);
        write_at(f, disk, 5 << 16, 512);
        write_at(f, disk, SIZE - 512, 512);
        next_is(disk, "a", 0, 5 << 16, 65536);
        next_is(disk, "a", 6 << 16, SIZE - 65536, 65536);
        next_is(disk, "fine", 0, 5 << 16, 512);
        assert_int_equal(disk_bitmap_create(disk, "late", 4096, NULL), 0);
        disk_close(disk);
        sound(f);
        disk = open_it(f);
        assert_int_equal(look(disk, "a").dirty, 2 * 65536);
        assert_int_equal(look(disk, "fine").dirty, 1024);
        assert_int_equal(look(disk, "late").dirty, 0);
        assert_true(look(disk, "late").consistent);
        assert_int_equal(disk_bitmap_clear(disk, "a", NULL), 0);
        write_at(f, disk, 0, 65536 * 3);
        next_is(disk, "a", 0, 0, 3 * 65536);
        assert_int_equal(disk_bitmap_remove(disk, "fine", NULL), 0);
        assert_int_equal(disk_bitmap_remove(disk, "fine", NULL), -ENOENT);
        disk_close(disk);
        sound(f);
        f->conf.read_only = true;
        disk = open_it(f);
        assert_int_equal(look(disk, "a").dirty, 3 * 65536);
        assert_int_equal(disk_bitmap_clear(disk, "a", NULL), -EROFS);
        disk_close(disk);
        f->conf.read_only = false;
        disk = open_it(f);
        assert_int_equal(disk_bitmap_remove(disk, "a", NULL), 0);
        assert_int_equal(disk_bitmap_remove(disk, "late", NULL), 0);
        disk_close(disk);
        sound(f);
        remove(f->path);
    }
}

static void copy_file(const char *from, const char *to)
{
    char line[300];

    snprintf(line, sizeof(line), "cp %s %s", from, to);
    assert_int_equal(system(line), 0);
}

/* Left open after a write: inconsistent. Without one it is as it was. */
static void crash(void **state)
{
    struct disk_fixture *f = *state;
    char left[160];

    snprintf(left, sizeof(left), "%s.left", f->path);
    make(f, 65536);
    struct disk *disk = open_it(f);
    assert_int_equal(disk_bitmap_create(disk, "a", 0, NULL), 0);
    write_at(f, disk, 0, 512);
    disk_close(disk);
    disk = open_it(f);
    copy_file(f->path, left);
    write_at(f, disk, 1 << 20, 512);
    f->conf.path = left;
    struct disk *other = open_it(f);
    assert_true(look(other, "a").consistent);
    disk_close(other);
    copy_file(f->path, left);
    disk_close(disk);
    disk = open_it(f);
    assert_false(look(disk, "a").consistent);
    uint64_t o, n;
    assert_int_equal(disk_bitmap_next(disk, "a", 0, &o, &n, NULL), -EUCLEAN);
    write_at(f, disk, 1 << 20, 512);
    assert_int_equal(disk_bitmap_clear(disk, "a", NULL), -EUCLEAN);
    disk_close(disk);
    disk = open_it(f);
    assert_false(look(disk, "a").consistent);
    assert_int_equal(disk_bitmap_remove(disk, "a", NULL), 0);
    disk_close(disk);
}

static void sizes(void **state)
{
    struct disk_fixture *f = *state;

    make(f, 512);
    struct disk *disk = open_it(f);
    assert_int_equal(disk_bitmap_create(disk, "a", 512, NULL), 0);
    write_at(f, disk, 0, 512);
    assert_int_equal(disk_snapshot_create(disk, "s", 0, NULL), 0);
    assert_int_equal(disk_resize(disk, SIZE + SIZE / 2, NULL), 0);
    assert_int_equal(look(disk, "a").dirty, 512 + SIZE / 2);
    disk_close(disk);
    sound(f);
    disk = open_it(f);
    assert_int_equal(look(disk, "a").dirty, 512 + SIZE / 2);
    assert_int_equal(disk_resize(disk, SIZE / 2, NULL), 0);
    assert_int_equal(look(disk, "a").dirty, 512);
    disk_close(disk);
    sound(f);
    disk = open_it(f);
    assert_int_equal(disk_snapshot_revert(disk, "s", NULL), 0);
    assert_int_equal(look(disk, "a").dirty, SIZE); /* who knows what it held */
    disk_close(disk);
    sound(f);
}

static void qemu(void **state)
{
    struct disk_fixture *f = *state;

    if (!qcow2_dir_have_qemu())
        skip();
    char line[600];
    snprintf(line, sizeof(line),
             "qemu-img create -q -f qcow2 %1$s 64M && qemu-img bitmap -f qcow2 --add -g 4k %1$s q && "
             "qemu-io -f qcow2 -c 'write 1M 100k' %1$s >/dev/null",
             f->path);
    assert_int_equal(system(line), 0);
    f->conf.format = "qcow2";
    struct disk *disk = open_it(f);
    next_is(disk, "q", 0, 1 << 20, 100 << 10);
    write_at(f, disk, 3 << 20, 4096);
    assert_int_equal(disk_bitmap_create(disk, "ours", 4096, NULL), 0);
    write_at(f, disk, 4 << 20, 4096);
    disk_close(disk);
    sound(f);
    snprintf(line, sizeof(line),
             "qemu-img bitmap -f qcow2 --merge ours %1$s q && qemu-img info %1$s | grep -q 'name: ours' && "
             "qemu-io -f qcow2 -c 'write 8M 4k' %1$s >/dev/null",
             f->path);
    assert_int_equal(system(line), 0);
    disk = open_it(f);
    assert_int_equal(look(disk, "q").dirty, (100 << 10) + 3 * 4096);
    assert_int_equal(look(disk, "ours").dirty, 2 * 4096);
    disk_close(disk);
    sound(f);
}

static int failing_setup(void **state)
{
    int r = fixture_setup(state);
    log_set_level(LOG_LEVEL_NONE); /* what fails on purpose says so */
    return r;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(life, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(crash, failing_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(sizes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(qemu, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
