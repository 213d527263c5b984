/*
 * An image from anywhere, and what is done to disks besides requests. 16 bytes: a seed, flags; the rest is the image. It is checked, repaired where that
 * is asked for, opened, or refused with a line; then requests, snapshots, returns, views, bitmaps, resizes, closing and opening again, on a host that may fail.
 * An image that the check calls sound is sound afterwards too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_check.h"
#include "disk/disk_snapshot.h"
#include "disk/qcow2_impl.h"
#include "fuzz.h"
#include "unit/disk/fake_file.h"

#define N_MOVES   14
#define MAX_BYTES (16 * KIB)
#define MAX_SIZE  (GIB) /* of the disk: what is bigger takes its time in every L1 entry */

enum { REPAIR = 1, DISCARD = 2, FAILING = 4 };

struct user {
    struct loop *loop;
    struct fake *fake;
    struct disk *disk;
    struct disk_conf conf;
    uint64_t seed;
    unsigned failed; /* moves */
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_set_level(LOG_LEVEL_NONE); /* broken images are complained about */
    return 0;
}

static uint64_t random_64(struct user *u)
{
    return (uint64_t)fake_random(&u->seed) << 31 ^ fake_random(&u->seed);
}

/* One line that says why. */
static void must_tell(int r, const struct err *err)
{
    if (r && (!err->msg[0] || strchr(err->msg, '\n')))
        abort();
}

/* Whether it is sound: 1, 0, or -1 where it cannot be told. */
static int sound(struct user *u, bool repair)
{
    struct disk_check check = {.repair = repair};
    struct disk_conf conf = u->conf;
    struct err err = {""};
    struct disk *disk;

    conf.check = true;
    conf.read_only = !repair;
    int r = disk_open(&disk, &conf, u->loop, &err);
    must_tell(r, &err);
    if (r)
        return -1;
    r = disk_check_image(disk, &check, &err);
    must_tell(r, &err);
    disk_close(disk);
    if (check.errors < check.errors_repaired || check.leaks < check.leaks_repaired)
        abort();
    return r ? -1 : check.errors == check.errors_repaired;
}

static bool open_again(struct user *u)
{
    struct err err = {""};
    int r = disk_open(&u->disk, &u->conf, u->loop, &err);

    must_tell(r, &err);
    return r == 0;
}

static int request(struct user *u, struct disk *disk)
{
    static const enum disk_op kinds[] = {DISK_READ, DISK_WRITE, DISK_WRITE, DISK_ZERO, DISK_DISCARD, DISK_FLUSH};
    static uint8_t buf[MAX_BYTES];
    struct iovec iov = {buf, 0};
    uint64_t blocks = disk->size / DISK_BLOCK_SIZE,
             first = random_64(u) % (random_64(u) % 2 ? blocks : blocks % 64 + 1);
    uint64_t n = 1 + random_64(u) % (MAX_BYTES / DISK_BLOCK_SIZE);

    first = first < blocks ? first : 0;
    n = n < blocks - first ? n : blocks - first;
    iov.iov_len = n * DISK_BLOCK_SIZE;
    struct disk_request req = {.op = disk->read_only ? DISK_READ : kinds[random_64(u) % ARRAY_SIZE(kinds)],
                               .unmap = random_64(u) % 2,
                               .offset = first * DISK_BLOCK_SIZE,
                               .len = n * DISK_BLOCK_SIZE,
                               .iov = &iov,
                               .n_iov = 1};
    return disk_call(disk, &req);
}

static const char *some_snapshot(struct user *u, char name[DISK_SNAPSHOT_NAME_MAX])
{
    struct disk_snapshots list = {0};

    strcpy(name, "none");
    if (disk_snapshot_list(u->disk, &list, NULL) == 0 && list.n)
        snprintf(name, DISK_SNAPSHOT_NAME_MAX, "%s", list.items[random_64(u) % list.n].name);
    free(list.items);
    return name;
}

static int view(struct user *u, const char *name, struct err *err)
{
    struct disk *view;
    int r = disk_snapshot_view(&view, u->disk, name, err);

    if (r)
        return r;
    for (unsigned i = 0; i < 3; i++)
        (void)!request(u, view);
    disk_close(view);
    return 0;
}

static int bitmaps(struct user *u, struct err *err)
{
    struct disk_bitmaps list = {0};
    uint64_t offset, len;
    int r = disk_bitmap_list(u->disk, &list, err);
    const char *name = r == 0 && list.n ? list.items[random_64(u) % list.n].name : "map";

    switch (random_64(u) % 4) {
    case 0:
        r = disk_bitmap_create(u->disk, "map", 512u << random_64(u) % 12, err);
        break;
    case 1:
        r = disk_bitmap_remove(u->disk, name, err);
        break;
    case 2:
        r = disk_bitmap_clear(u->disk, name, err);
        break;
    default:
        r = disk_bitmap_next(u->disk, name, random_64(u) % u->disk->size, &offset, &len, err);
        break;
    }
    free(list.items);
    return r;
}

static int move(struct user *u, struct err *err)
{
    char name[DISK_SNAPSHOT_NAME_MAX];
    uint64_t size;

    switch (random_64(u) % 9) {
    case 0:
        return disk_snapshot_create(u->disk, random_64(u) % 3 ? "new" : "other", 1, err);
    case 1:
        return disk_snapshot_revert(u->disk, some_snapshot(u, name), err);
    case 2:
        return disk_snapshot_remove(u->disk, some_snapshot(u, name), err);
    case 3:
        return view(u, some_snapshot(u, name), err);
    case 4:
        return bitmaps(u, err);
    case 5:
        size = random_64(u) % 2 ? random_64(u) % u->disk->size : u->disk->size + random_64(u) % (4 * MIB);
        return disk_resize(u->disk, align_up(size + 1, DISK_BLOCK_SIZE), err);
    default:
        for (unsigned i = 0; i < 4; i++)
            (void)!request(u, u->disk);
        return 0;
    }
}

static void use(struct user *u, unsigned flags)
{
    for (unsigned i = 0; i < N_MOVES && u->disk->size <= MAX_SIZE; i++) {
        struct err err = {""};
        if ((flags & FAILING) && i == 2) {
            u->fake->fail_gap = 60;
            u->fake->fail_op = u->fake->n_ops + 5;
        }
        int r = move(u, &err);
        must_tell(r, &err);
        if (random_64(u) % 5)
            continue;
        disk_close(u->disk);
        u->disk = NULL;
        if (!open_again(u))
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct user u = {.conf = {.path = "fuzz.qcow2", .format = "qcow2", .no_backing = true}};

    if (size < 16 || loop_open(&u.loop, NULL))
        return 0;
    u.seed = load_le64(data);
    unsigned flags = data[8];
    u.fake = fake_new(data + 16, size - 16, u.seed);
    u.fake->max_size = 16 * MIB;
    u.conf.discard = flags & DISCARD;
    fake_next = u.fake;
    int before = sound(&u, flags & REPAIR);
    if (open_again(&u))
        use(&u, flags);
    if (u.disk)
        disk_close(u.disk);
    u.fake->fail_op = 0;
    if (before == 1 && !(flags & FAILING) && sound(&u, false) == 0)
        abort();
    fake_free(u.fake);
    loop_close(u.loop);
    return 0;
}
