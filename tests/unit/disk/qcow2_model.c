#include "qcow2_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_check.h"
#include "disk/disk_snapshot.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"

#define TRIES 100

void model_init(struct model *m, const struct disk_create_conf *conf, const char *path, uint64_t seed)
{
    struct disk_create_conf at_path = *conf;
    struct err err = {""};

    *m = (struct model){.least = align_down(conf->size / 2, DISK_BLOCK_SIZE), .most = conf->size * 2, .requests = 40};
    unlink(path);
    at_path.path = path;
    if (qcow2_create(&at_path, &err))
        fail_msg("%s", err.msg);
    world_init(&m->w, fake_load(path, seed), conf->size, seed);
    unlink(path);
    m->w.room_after = 10;
}

static void forget(struct model *m, unsigned i)
{
    free(m->shots[i].saved.values);
    memmove(&m->shots[i], &m->shots[i + 1], (--m->n_shots - i) * sizeof(m->shots[0]));
}

void model_fini(struct model *m)
{
    while (m->n_shots)
        forget(m, 0);
    fake_free(m->w.fake);
    world_fini(&m->w);
}

/* ---- soundness ---- */

static void on_finding(void *opaque, const char *line)
{
    print_message("# %s\n", line);
}

uint64_t model_sound(struct fake *fake, bool repair)
{
    const struct disk_conf conf = {.path = "fake.qcow2", .check = true, .read_only = !repair, .no_backing = true};
    struct disk_check check;
    struct err err = {""};
    struct disk *disk;
    struct loop *loop;

    assert_int_equal(loop_open(&loop, NULL), 0);
    fake_next = fake;
    uint64_t failed = fake->n_failed;
    int r;
    do { /* again where the host failed on the way */
        failed = fake->n_failed;
        check = (struct disk_check){.repair = repair};
        r = disk_open(&disk, &conf, loop, &err);
        if (r == 0) {
            r = disk_check_image(disk, &check, &err);
            disk_close(disk);
        }
        if (r)
            fake_mend(fake);
    } while (r && !fake->dead && fake->n_failed != failed);
    if (r && !fake->dead)
        fail_msg("%s", err.msg);
    if (r == 0 && check.errors > check.errors_repaired) {
        struct disk_check again = {.finding = on_finding};
        assert_int_equal(disk_open(&disk, &conf, loop, &err), 0);
        (void)!disk_check_image(disk, &again, &err);
        fail_msg("%llu errors", (unsigned long long)check.errors);
    }
    if (r == 0 && repair)
        assert_int_equal(check.leaks_repaired, check.leaks);
    loop_close(loop);
    return r ? 0 : check.leaks;
}

/* ---- moves: 0, or an error where the host is dead ---- */

static int requests(struct model *m)
{
    world_run(&m->w, 1 + fake_random(&m->w.seed) % m->requests);
    return m->w.fake->dead ? -EIO : 0;
}

static int flush(struct model *m)
{
    int r = world_flush(&m->w);

    for (unsigned i = 0; r && !m->w.fake->dead && i < TRIES; i++) {
        fake_mend(m->w.fake);
        r = world_flush(&m->w);
    }
    return r;
}

/* 1: it is there; 0: it is not; -1: the host died. */
static int listed(struct model *m, const char *name)
{
    struct disk_snapshots list;
    struct err err = {""};
    int found = 0;

    uint64_t failed = m->w.fake->n_failed;
    while (disk_snapshot_list(m->w.disk, &list, &err)) {
        if (m->w.fake->dead)
            return -1;
        if (m->w.fake->n_failed == failed)
            fail_msg("%s", err.msg);
        failed = m->w.fake->n_failed;
        fake_mend(m->w.fake);
    }
    for (unsigned i = 0; i < list.n; i++)
        found |= strcmp(list.items[i].name, name) == 0;
    free(list.items);
    return found;
}

static bool give_up(struct model *m, unsigned tries, int r, const struct err *err)
{
    if (m->w.fake->dead)
        return true;
    m->failures++;
    if (tries == TRIES)
        fail_msg("%s (%d)", err->msg, r);
    fake_mend(m->w.fake);
    return false;
}

static int make(struct model *m)
{
    struct err err = {""};
    int r = 0;

    if (m->n_shots == MODEL_SNAPSHOTS)
        return 0;
    struct model_shot *s = &m->shots[m->n_shots++];
    *s = (struct model_shot){.pending = true};
    snprintf(s->name, sizeof(s->name), "shot %u", m->next_shot++);
    world_save(&m->w, &s->saved);
    for (unsigned tries = 0; listed(m, s->name) != 1; tries++) {
        r = disk_snapshot_create(m->w.disk, s->name, 1, &err);
        if (r == 0)
            break;
        if (give_up(m, tries, r, &err))
            return r;
    }
    s->pending = false;
    return 0;
}

static int remove_shot(struct model *m)
{
    struct err err = {""};

    if (!m->n_shots)
        return 0;
    unsigned i = fake_random(&m->w.seed) % m->n_shots;
    m->shots[i].pending = true;
    for (unsigned tries = 0; listed(m, m->shots[i].name) != 0; tries++) {
        int r = disk_snapshot_remove(m->w.disk, m->shots[i].name, &err);
        if (r == 0)
            break;
        if (give_up(m, tries, r, &err))
            return r;
    }
    forget(m, i);
    return 0;
}

static int revert(struct model *m)
{
    struct err err = {""};

    if (!m->n_shots)
        return 0;
    const struct model_shot *s = &m->shots[fake_random(&m->w.seed) % m->n_shots];
    m->other_size = s->saved.n_blocks * DISK_BLOCK_SIZE;
    if (m->other_size > m->w.disk->size) {
        m->other_size = m->w.disk->size;
        world_grow(&m->w, s->saved.n_blocks * DISK_BLOCK_SIZE);
    }
    world_may_become(&m->w, &s->saved);
    for (unsigned tries = 0;; tries++) {
        int r = disk_snapshot_revert(m->w.disk, s->name, &err);
        if (r == 0)
            break;
        if (give_up(m, tries, r, &err))
            return r;
    }
    world_restore(&m->w, &s->saved);
    m->other_size = 0;
    return 0;
}

static int resize(struct model *m)
{
    uint64_t before = m->w.disk->size, blocks = (m->most - m->least) / DISK_BLOCK_SIZE;
    uint64_t size = m->least + fake_random(&m->w.seed) % blocks * DISK_BLOCK_SIZE;
    struct err err = {""};

    if (m->n_shots && ((struct qcow2 *)m->w.disk)->version < 3)
        return 0; /* they would not know their size */
    m->other_size = size;
    if (size > before) {
        m->other_size = before;
        world_grow(&m->w, size);
    } else {
        struct world_saved none = {.values = calloc(m->w.n_blocks, sizeof(*none.values)), .n_blocks = m->w.n_blocks};
        assert_non_null(none.values);
        for (uint64_t i = 0; i < size / DISK_BLOCK_SIZE; i++)
            none.values[i] = WORLD_SAME;
        world_may_become(&m->w, &none);
        free(none.values);
    }
    for (unsigned tries = 0;; tries++) {
        int r = disk_resize(m->w.disk, size, &err);
        if (r == 0)
            break;
        if (give_up(m, tries, r, &err))
            return r;
    }
    m->other_size = 0;
    if (size < before)
        world_shrink(&m->w, size);
    return 0;
}

/* What bitmaps say has tests of its own: here they are more metadata. */
static int bitmap(struct model *m)
{
    char name[16];

    snprintf(name, sizeof(name), "map %u", fake_random(&m->w.seed) % 3);
    switch (fake_random(&m->w.seed) % 4) {
    case 0:
        (void)!disk_bitmap_remove(m->w.disk, name, NULL);
        break;
    case 1:
        (void)!disk_bitmap_clear(m->w.disk, name, NULL);
        break;
    default:
        (void)!disk_bitmap_create(m->w.disk, name, 4096, NULL);
        break;
    }
    return m->w.fake->dead ? -EIO : 0;
}

static int reopen(struct model *m)
{
    int r = flush(m); /* what a close cannot write is lost */

    if (r)
        return r;
    world_close(&m->w);
    if (m->w.fake->dead)
        return -EIO;
    model_sound(m->w.fake, false);
    if (m->w.fake->dead)
        return -EIO;
    world_open(&m->w);
    return m->w.fake->dead ? -EIO : 0;
}

/* The host has no room for the next move; the request or the move that fails is done again when there is. */
static int no_room(struct model *m)
{
    if (m->w.fake->fail_gap)
        m->w.fake->max_size = m->w.fake->size;
    return 0;
}

static const struct {
    unsigned weight;
    int (*make)(struct model *m);
} moves[] = {
    {60, requests}, {10, flush}, {7, make},   {5, remove_shot}, {5, revert},
    {4, resize},    {3, bitmap}, {3, reopen}, {2, no_room},
};

static void meanwhile(struct world *w)
{
    struct model *m = w->hook_opaque;

    m->moves++;
    (void)(fake_random(&w->seed) % 2 ? make(m) : remove_shot(m));
}

void model_meanwhile(struct model *m)
{
    m->w.hook = meanwhile;
    m->w.hook_opaque = m;
}

bool model_move(struct model *m)
{
    unsigned total = 0, i = 0;

    for (size_t k = 0; k < ARRAY_SIZE(moves); k++)
        total += moves[k].weight;
    unsigned dice = fake_random(&m->w.seed) % total;
    for (; dice >= moves[i].weight; i++)
        dice -= moves[i].weight;
    return model_make(m, i);
}

unsigned model_kinds(void)
{
    return ARRAY_SIZE(moves);
}

bool model_make(struct model *m, unsigned kind)
{
    m->moves++;
    return moves[kind].make(m) == 0;
}

/* ---- what it holds ---- */

static void check_shot(struct model *m, const struct model_shot *s)
{
    uint8_t want[DISK_BLOCK_SIZE], *buf = malloc(s->saved.n_blocks * DISK_BLOCK_SIZE);
    struct disk *view, *disk = m->w.disk;
    struct err err = {""};

    assert_non_null(buf);
    if (disk_snapshot_view(&view, disk, s->name, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(view->size, s->saved.n_blocks * DISK_BLOCK_SIZE);
    m->w.disk = view;
    assert_int_equal(world_single(&m->w, DISK_READ, 0, buf, view->size), 0);
    m->w.disk = disk;
    disk_close(view);
    for (uint64_t k = 0; k < s->saved.n_blocks; k++) {
        world_fill(want, k, s->saved.values[k]);
        if (memcmp(buf + k * DISK_BLOCK_SIZE, want, DISK_BLOCK_SIZE))
            fail_msg("%s: block %llu holds %016llx, not %x", s->name, (unsigned long long)k,
                     (unsigned long long)load_le64(buf + k * DISK_BLOCK_SIZE), s->saved.values[k]);
    }
    free(buf);
}

/* What was cut short has happened, or not. */
static void settle(struct model *m)
{
    uint64_t is = m->w.disk->size, was = m->w.n_blocks * DISK_BLOCK_SIZE;

    if (is != was) {
        assert_int_equal(is, m->other_size);
        assert_true(is < was);
        world_shrink(&m->w, is);
    }
    m->other_size = 0;
    for (unsigned i = 0; i < m->n_shots;) {
        bool there = listed(m, m->shots[i].name) == 1;
        if (!m->shots[i].pending && !there)
            fail_msg("snapshot '%s' is gone", m->shots[i].name);
        m->shots[i].pending = false;
        if (there)
            i++;
        else
            forget(m, i);
    }
}

void model_check(struct model *m, bool cut)
{
    if (cut)
        settle(m);
    world_check(&m->w, cut);
    if (cut)
        world_adopt(&m->w);
    if (m->n_shots)
        check_shot(m, &m->shots[fake_random(&m->w.seed) % m->n_shots]);
}

void model_cut(struct model *m)
{
    if (m->w.disk)
        world_die(&m->w);
    fake_revive(m->w.fake, m->w.seed);
}
