/*
 * Backing chains over files in memory (fake_file.h): images upon images under random requests against what the uppermost must hold, power cuts, a failing host,
 * maps held against the files, sizes that change, the other backing file, and qemu-img's opinion of all that.
 */
#include "disk/disk_chain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"
#include "disk/disk_allow.h"
#include "disk/format.h"
#include "disk/qcow2_impl.h"
#include "image/chain.h"
#include "qcow2_dir.h"
#include "qcow2_world.h"

#define LEVELS 3

static char dir[] = "/tmp/vireo-chain-XXXXXX", raw_path[96];
static struct disk_allow *allow;

static int make_dir(void **state)
{
    const char *paths[] = {dir};

    if (qcow2_dir_make(dir))
        return -1;
    snprintf(raw_path, sizeof(raw_path), "%s/raw", dir);
    return disk_allow_open(&allow, paths, 1, NULL);
}

static int remove_dir(void **state)
{
    disk_allow_close(allow);
    return qcow2_dir_remove(dir);
}

/* ---- chains ---- */

/* The lowest first; cluster_size 0: raw, the lowest alone. */
struct shape {
    struct disk_create_conf levels[LEVELS];
    unsigned n;
};

static const struct shape shapes[] = {
    {{{.size = 3 * MIB}, {.size = 3 * MIB, .cluster_size = 512}}, 2},
    {{{.size = 2 * MIB + 512}, {.size = 4 * MIB, .cluster_size = 65536}}, 2},
    {{{.size = 4 * MIB, .cluster_size = 4096}, {.size = 3 * MIB + 512, .cluster_size = 65536}}, 2},
    {{{.size = 4 * MIB, .cluster_size = 65536}, {.size = 4 * MIB, .cluster_size = 1024, .version = 2}}, 2},
    {{{.size = 3 * MIB, .cluster_size = 512, .version = 2},
      {.size = 4 * MIB, .cluster_size = 65536, .version = 2},
      {.size = 5 * MIB, .cluster_size = 4096, .version = 2}},
     3},
    {{{.size = 2 * MIB + 1536}, {.size = 4 * MIB, .cluster_size = 16384, .extended_l2 = true}}, 2},
    {{{.size = 6 * MIB, .cluster_size = 65536, .extended_l2 = true},
      {.size = 4 * MIB, .cluster_size = 65536, .extended_l2 = true, .refcount_bits = 1},
      {.size = 6 * MIB + 512, .cluster_size = 2 * MIB, .extended_l2 = true}},
     3},
    {{{.size = 4 * MIB}, {.size = 3 * MIB, .cluster_size = 2 * MIB}, {.size = 4 * MIB, .cluster_size = 512}}, 3},
};

struct chain {
    unsigned n;
    struct world worlds[LEVELS]; /* of which the last is open, or may be */
    char paths[LEVELS][96];
};

static struct world *top_of(struct chain *c)
{
    return &c->worlds[c->n - 1];
}

static struct fake *make_raw(struct world *w, uint64_t seed)
{
    uint8_t *data = calloc(w->n_blocks, 512);

    assert_non_null(data);
    for (uint64_t i = 0; i < w->n_blocks; i++) {
        w->blocks[i].flushed = i / 20 % 3 == 1 ? 0 : ++w->next_value;
        world_fill(data + i * 512, i, w->blocks[i].flushed);
    }
    struct fake *fake = fake_new(data, w->n_blocks * 512, seed);
    free(data);
    return fake;
}

static struct fake *make_qcow2(const struct chain *c, const struct disk_create_conf *shape, uint64_t seed)
{
    struct disk_create_conf conf = *shape;
    struct err err = {""};

    conf.path = c->paths[c->n];
    conf.format = "qcow2";
    if (c->n) {
        conf.backing = c->paths[c->n - 1];
        conf.backing_format = c->n == 1 && !strcmp(c->worlds[0].conf.format, "raw") ? "raw" : "qcow2";
    }
    unlink(conf.path);
    if (disk_create(&conf, &err))
        fail_msg("%s", err.msg);
    return fake_load(conf.path, seed);
}

static void add_level(struct chain *c, const struct disk_create_conf *shape, uint64_t seed)
{
    struct world *w = &c->worlds[c->n];

    snprintf(c->paths[c->n], sizeof(c->paths[0]), "%s/level%u.img", dir, c->n);
    world_init(w, NULL, shape->size, seed);
    w->conf.path = c->paths[c->n];
    w->conf.allow = allow;
    if (!shape->cluster_size) {
        w->conf.format = "raw";
        w->fake = make_raw(w, seed);
        fake_save(w->fake, c->paths[c->n]);
    } else {
        w->fake = make_qcow2(c, shape, seed);
    }
    snprintf(fake_names[c->n].path, sizeof(fake_names[0].path), "%s", c->paths[c->n]);
    fake_names[c->n].fake = w->fake;
    if (c->n)
        world_cover(w, &c->worlds[c->n - 1]);
    c->n++;
}

/* All but the last have been written to. */
static void chain_init(struct chain *c, const struct shape *shape, uint64_t seed)
{
    *c = (struct chain){0};
    for (unsigned i = 0; i < shape->n; i++) {
        add_level(c, &shape->levels[i], seed + i);
        if (i + 1 == shape->n || !shape->levels[i].cluster_size)
            continue;
        world_open(top_of(c));
        world_run(top_of(c), 250);
        world_close(top_of(c));
    }
}

static void chain_fini(struct chain *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        fake_free(c->worlds[i].fake);
        world_fini(&c->worlds[i]);
        fake_names[i].fake = NULL;
    }
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

static void check_with_qemu(struct chain *c)
{
    for (unsigned i = 0; i < c->n; i++)
        fake_save(c->worlds[i].fake, c->paths[i]);
    if (qcow2_dir_run("qemu-img check -q -f qcow2 %s", c->paths[c->n - 1]))
        fail_msg("qemu-img check found something");
    save_raw(top_of(c), raw_path);
    if (qcow2_dir_run("qemu-img compare -q -f qcow2 -F raw %s %s", c->paths[c->n - 1], raw_path))
        fail_msg("qemu-img compare found a difference");
}

/* ---- random requests ---- */

static void test_random(void **state)
{
    bool qemu = qcow2_dir_have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        for (unsigned round = 0; round < 3; round++) {
            struct chain c;
            chain_init(&c, &shapes[i], i * 100 + round);
            struct world *w = top_of(&c);
            w->conf.discard = round != 2;
            w->max_pages = round == 1 ? 4 : 0;
            w->depth = round == 0 ? 16 : 6;
            w->fake->lag = round == 0 ? 300 : 0;
            for (unsigned k = 0; k < 3; k++) {
                world_open(w);
                world_run(w, 400);
                world_check(w, false);
                world_close(w);
                assert_int_equal(world_verify(w->fake), 0);
            }
            world_open(w);
            world_check(w, false);
            world_close(w);
            assert_int_equal(w->errors, 0);
            if (qemu)
                check_with_qemu(&c);
            chain_fini(&c);
        }
    }
}

static unsigned cuts(unsigned few)
{
    return getenv("VIREO_TEST_CUTS") ? (unsigned)atoi(getenv("VIREO_TEST_CUTS")) : few;
}

static void test_cuts(void **state)
{
    unsigned n = cuts(32);

    for (unsigned i = 0; i < n; i++) {
        uint64_t seed = i * 77 + 1;
        struct chain c;
        chain_init(&c, &shapes[i * ARRAY_SIZE(shapes) / n], seed);
        struct world *w = top_of(&c);
        w->max_pages = i % 3 == 0 ? 6 : 0;
        w->fake->keep_changes = true;
        for (unsigned lives = 0; lives < 2; lives++) {
            w->fake->stop_at = w->fake->n_ops + 20 + fake_random(&seed) % (lives ? 200 : 2000);
            world_open(w);
            world_run(w, 100000);
            struct fake *after = fake_cut(w->fake, seed);
            world_die(w);
            fake_free(w->fake);
            fake_names[c.n - 1].fake = w->fake = after;
            after->keep_changes = true;
            if (world_verify(after) < 0)
                fail_msg("cut %u, life %u", i, lives);
            world_open(w);
            world_check(w, true);
            world_adopt(w);
            world_close(w);
        }
        chain_fini(&c);
    }
}

/* Of the uppermost image's file, and the one below. */
static void test_errors(void **state)
{
    unsigned errors = 0;

    for (unsigned i = 0; i < 40; i++) {
        struct chain c;
        chain_init(&c, &shapes[i % ARRAY_SIZE(shapes)], i);
        struct world *w = top_of(&c);
        struct fake *bad = c.worlds[c.n - 1 - i / 8 % 2].fake;
        w->max_pages = i % 2 ? 6 : 0;
        world_open(w);
        bad->fail_gap = 100 + i * 20;
        bad->fail_op = bad->n_ops + 5;
        world_run(w, 400);
        bad->fail_op = 0;
        world_run(w, 100);
        assert_int_equal(world_flush(w), 0);
        world_check(w, false);
        world_close(w);
        errors += w->errors;
        assert_true(world_verify(w->fake) >= 0);
        world_open(w);
        world_check(w, false);
        world_close(w);
        chain_fini(&c);
    }
    assert_true(errors > 40);
}

/* ---- maps ---- */

struct single {
    struct loop *loop;
    int result;
};

static void single_done(struct disk_request *req, int result)
{
    struct single *s = req->opaque;

    s->result = result;
    loop_stop(s->loop);
}

/* What the extent says of itself is true. */
static void check_extent(const struct chain *c, const struct world *w, const struct disk_extent *e)
{
    uint8_t want[512];

    assert_true(e->len && e->len % 512 == 0 && e->depth < c->n);
    for (uint64_t at = e->offset; at < e->offset + e->len; at += 512) {
        const struct block *b = &w->blocks[at / 512];
        world_fill(want, at / 512, b->n ? b->later[b->n - 1] : b->flushed);
        if (e->kind != DISK_EXTENT_DATA) {
            assert_int_equal(load_le64(want + 8), 0);
        } else if (e->has_host) {
            const struct fake *f = c->worlds[c->n - 1 - e->depth].fake;
            uint64_t host = e->host_offset + at - e->offset;
            assert_true(host + 512 <= f->size);
            assert_memory_equal(f->data + host, want, 512);
        }
    }
}

static void test_map(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes) * 2; i++) {
        struct disk_extent extents[7];
        struct chain c;
        unsigned total = 0, deep = 0;
        chain_init(&c, &shapes[i / 2], i);
        struct world *w = top_of(&c);
        world_open(w);
        world_run(w, 150);
        assert_int_equal(world_flush(w), 0);
        for (uint64_t pos = 0, end = w->n_blocks * 512; pos < end;) {
            struct single s = {.loop = w->loop};
            struct disk_request req = {.op = DISK_MAP,
                                       .offset = pos,
                                       .len = i % 2 && end - pos > 700 * KIB ? 700 * KIB : end - pos,
                                       .extents = extents,
                                       .n_extents = i % 2 ? 7 : 1,
                                       .done = single_done,
                                       .opaque = &s};
            disk_submit(w->disk, &req);
            loop_run(w->loop);
            assert_int_equal(s.result, 0);
            assert_in_range(req.n_extents, 1, i % 2 ? 7 : 1);
            for (unsigned k = 0; k < req.n_extents; k++, total++) {
                assert_int_equal(extents[k].offset, pos);
                check_extent(&c, w, &extents[k]);
                pos += extents[k].len;
                deep += extents[k].depth > 0;
            }
        }
        assert_true(total > 20 && deep > 2);
        world_close(w);
        chain_fini(&c);
    }
}

/* ---- sizes ---- */

/* What lies below the end, and what did, does not come out when the end moves. */
static void test_resize(void **state)
{
    bool qemu = qcow2_dir_have_qemu();

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        static const uint64_t sizes[] = {3 * MIB / 2 + 512, 3 * MIB, 1 * MIB, 9 * MIB + 512};
        struct chain c;
        struct err err = {""};
        chain_init(&c, &shapes[i], i);
        struct world *w = top_of(&c);
        world_open(w);
        for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
            world_run(w, 100);
            (sizes[k] / 512 < w->n_blocks ? world_shrink : world_grow)(w, sizes[k]);
            if (disk_resize(w->disk, sizes[k], &err))
                fail_msg("%s", err.msg);
            world_check(w, false);
        }
        world_close(w);
        assert_int_equal(world_verify(w->fake), 0);
        world_open(w);
        world_check(w, false);
        world_close(w);
        if (qemu)
            check_with_qemu(&c);
        chain_fini(&c);
    }
}

static void test_resize_fails(void **state)
{
    for (unsigned i = 1; i < 120; i += 2) {
        struct chain c;
        chain_init(&c, &shapes[i / 2 % ARRAY_SIZE(shapes)], 1);
        struct world *w = top_of(&c);
        uint64_t before = w->n_blocks * 512, size = before + (i % 4 == 1 ? 1 : -1) * MIB;
        world_open(w);
        world_run(w, 30);
        w->fake->fail_op = w->fake->n_ops + i / 4;
        int r = disk_resize(w->disk, size, NULL);
        w->fake->fail_op = 0;
        assert_true(w->disk->size == (r ? before : size));
        if (r && size < before)
            r = disk_resize(w->disk, size, NULL);
        assert_true(w->disk->size == (r ? before : size));
        if (w->disk->size != before)
            (size < before ? world_shrink : world_grow)(w, size);
        world_check(w, false);
        world_close(w);
        assert_true(world_verify(w->fake) >= 0);
        chain_fini(&c);
    }
}

/* All that was written until now is durable. */
static void keep(struct fake *f)
{
    memcpy(f->durable, f->data, f->size);
    f->durable_size = f->size;
    f->keep_changes = true;
}

/* ---- another backing file ---- */

/* The header has it, whatever was there before, and the image is as good as it was. */
static void test_set(void **state)
{
    char name[900];

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct chain c;
        struct err err = {""};
        chain_init(&c, &shapes[i], i);
        struct world *w = top_of(&c);
        struct world *below = &c.worlds[c.n - 2];
        const char *format = below->conf.format;
        bool small = shapes[i].levels[c.n - 1].cluster_size < 2048;
        w->conf.no_backing = true;
        /* Long names lie behind the first sector, in turns. */
        for (unsigned k = 0; k < 6; k++) {
            memset(name, 'a' + (int)k, sizeof(name));
            name[0] = '/';
            name[k % 2 ? 10 : 880] = '\0';
            world_open(w);
            int r = disk_backing_set(w->disk, name, "raw", &err);
            assert_int_equal(r, small && !(k % 2) ? -ENOSPC : 0);
            world_close(w);
            world_open(w);
            if (r == 0)
                assert_string_equal(((struct qcow2 *)w->disk)->backing_name, name);
            world_close(w);
        }
        world_open(w);
        assert_int_equal(disk_backing_set(w->disk, NULL, NULL, &err), 0);
        world_close(w);
        world_open(w);
        assert_null(((struct qcow2 *)w->disk)->backing_name);
        assert_int_equal(disk_backing_set(w->disk, c.paths[c.n - 2], format, &err), 0);
        world_close(w);
        w->conf.no_backing = false;
        world_open(w);
        world_check(w, false);
        assert_int_equal(disk_backing_empty(w->disk, &err), 0);
        world_close(w);
        assert_int_equal(world_verify(w->fake), 0);
        if (qcow2_dir_have_qemu())
            check_with_qemu(&c);
        chain_fini(&c);
    }
}

/* A cut anywhere leaves one name or the other. */
static void test_set_cut(void **state)
{
    for (unsigned i = 0; i < 80; i++) {
        struct chain c;
        char long_name[600], before[600];
        chain_init(&c, &shapes[1 + i % 2], i);
        struct world *w = top_of(&c);
        memset(long_name, 'x', sizeof(long_name));
        long_name[0] = '/';
        long_name[599] = '\0';
        snprintf(before, sizeof(before), "%s", c.paths[c.n - 2]);
        w->conf.no_backing = true;
        world_open(w);
        if (i / 2 % 2) {
            memset(before, 'y', sizeof(before) - 1);
            before[599] = '\0';
            assert_int_equal(disk_backing_set(w->disk, before, "qcow2", NULL), 0);
            world_close(w);
            world_open(w);
        }
        keep(w->fake);
        w->fake->die_at = w->fake->n_ops + 1 + i / 4 % 9;
        (void)!disk_backing_set(w->disk, i % 2 ? long_name : "/short", "raw", NULL);
        struct fake *after = fake_cut(w->fake, i);
        w->fake->dead = true;
        world_close(w);
        fake_free(w->fake);
        fake_names[c.n - 1].fake = w->fake = after;
        world_open(w);
        const char *name = ((struct qcow2 *)w->disk)->backing_name;
        const char *format = ((struct qcow2 *)w->disk)->backing_format;
        if (strcmp(name, before)) {
            assert_string_equal(name, i % 2 ? long_name : "/short");
            assert_string_equal(format, "raw");
        } else {
            assert_string_equal(format, i / 2 % 2 || c.worlds[0].conf.format[0] == 'q' ? "qcow2" : "raw");
        }
        world_close(w);
        chain_fini(&c);
    }
}

/* ---- commit and rebase ---- */

static struct disk *open_level(struct chain *c, unsigned level, bool alone)
{
    struct disk_conf conf = c->worlds[level].conf;
    struct err err = {""};
    struct disk *disk;

    conf.no_backing = alone;
    if (disk_open(&disk, &conf, top_of(c)->loop, &err))
        fail_msg("%s", err.msg);
    return disk;
}

/* A level's file as it is after a power cut. */
static void cut_level(struct chain *c, unsigned level, uint64_t seed)
{
    struct world *w = &c->worlds[level];
    struct fake *after = fake_cut(w->fake, seed);

    fake_free(w->fake);
    fake_names[level].fake = w->fake = after;
    if (!strcmp(w->conf.format, "qcow2") && world_verify(after) < 0)
        fail_msg("level %u", level);
}

/* Both files lose their power together, after so many requests of one of them. */
static void prepare_cut(struct chain *c, unsigned other, uint64_t ops)
{
    struct fake *top = top_of(c)->fake, *below = c->worlds[other].fake;
    struct fake *first = fake_random(&top->seed) % 2 ? top : below;

    keep(top);
    keep(below);
    top->twin = below;
    below->twin = top;
    first->die_at = first->n_ops + 1 + ops;
}

static void work_on_top(struct chain *c)
{
    world_open(top_of(c));
    world_run(top_of(c), 150);
    assert_int_equal(world_flush(top_of(c)), 0);
    world_close(top_of(c));
}

/* What is read through the uppermost is the same, wherever that ends. */
static void test_commit(void **state)
{
    unsigned ended = 0, n = cuts(32);
    bool qemu = qcow2_dir_have_qemu();

    for (unsigned i = 0; i < n; i++) {
        struct chain c;
        uint64_t seed = i + 1;
        chain_init(&c, &shapes[i % ARRAY_SIZE(shapes)], i);
        unsigned other = c.n - 2;
        bool cut = i / ARRAY_SIZE(shapes) % 8;
        work_on_top(&c);
        struct world *w = top_of(&c);
        struct disk *image = open_level(&c, c.n - 1, true), *backing = open_level(&c, other, false);
        if (cut)
            prepare_cut(&c, other, fake_random(&seed) % 700);
        int r = image_chain_commit(image, backing, NULL, NULL);
        ended += r == 0;
        assert_true(r == 0 || cut);
        disk_close(image);
        disk_close(backing);
        if (cut) {
            cut_level(&c, c.n - 1, seed);
            cut_level(&c, other, seed + 1);
        }
        world_open(w);
        world_check(w, false);
        if (!cut)
            assert_int_equal(disk_backing_empty(w->disk, NULL), 0); /* there is nothing more */
        world_check(w, false);
        world_close(w);
        if (qemu && !cut)
            check_with_qemu(&c);
        chain_fini(&c);
    }
    assert_true(ended >= ARRAY_SIZE(shapes));
}

static void test_rebase(void **state)
{
    unsigned ended = 0, n = cuts(32);
    bool qemu = qcow2_dir_have_qemu();

    for (unsigned i = 0; i < n; i++) {
        struct chain c;
        struct disk *onto = NULL;
        uint64_t seed = i + 1;
        chain_init(&c, &shapes[i % ARRAY_SIZE(shapes)], i);
        bool cut = i / ARRAY_SIZE(shapes) > 1, none = c.n == 2 || i / ARRAY_SIZE(shapes) % 2;
        work_on_top(&c);
        struct world *w = top_of(&c);
        struct disk *image = open_level(&c, c.n - 1, false);
        if (!none) { /* a copy of the lowest, which the chain has open */
            snprintf(fake_names[7].path, sizeof(fake_names[7].path), "%s/onto.img", dir);
            fake_names[7].fake = fake_new(c.worlds[0].fake->data, c.worlds[0].fake->size, seed);
            fake_save(fake_names[7].fake, fake_names[7].path);
            struct disk_conf conf = c.worlds[0].conf;
            conf.path = fake_names[7].path;
            conf.read_only = true;
            assert_int_equal(disk_open(&onto, &conf, w->loop, NULL), 0);
        }
        if (cut) {
            keep(w->fake);
            w->fake->die_at = w->fake->n_ops + 1 + fake_random(&seed) % 400;
        }
        int r = image_chain_rebase(image, onto, none ? NULL : fake_names[7].path, c.worlds[0].conf.format, NULL, NULL);
        ended += r == 0;
        assert_true(r == 0 || cut);
        disk_close(image);
        disk_close(onto);
        if (cut)
            cut_level(&c, c.n - 1, seed);
        assert_true(world_verify(w->fake) >= 0);
        world_open(w);
        world_check(w, false);
        world_run(w, 100);
        world_check(w, false);
        world_close(w);
        if (qemu && !cut)
            check_with_qemu(&c);
        if (onto)
            fake_free(fake_names[7].fake);
        fake_names[7].fake = NULL;
        chain_fini(&c);
    }
    assert_true(ended >= ARRAY_SIZE(shapes));
}

/* ---- what is refused ---- */

static void refuse(struct chain *c, int r, const char *what)
{
    struct world *w = top_of(c);
    struct disk *disk;
    struct err err = {""};

    assert_int_equal(disk_open(&disk, &w->conf, w->loop, &err), r);
    if (!strstr(err.msg, what))
        fail_msg("%s, and not: %s", err.msg, what);
}

static void test_refused(void **state)
{
    struct chain c;

    chain_init(&c, &shapes[2], 1);
    struct world *w = top_of(&c);
    w->conf.allow = NULL;
    refuse(&c, -EPERM, "level0.img");
    w->conf.allow = allow;
    uint8_t format[8];
    memcpy(format, w->fake->data + 112, 8);
    memset(w->fake->data + 104, 0, 16); /* the extension with the format */
    refuse(&c, -EINVAL, "--onto-format");
    qcow2_put_be32(w->fake->data + 104, QCOW2_EXT_BACKING_FORMAT);
    qcow2_put_be32(w->fake->data + 108, 5);
    memcpy(w->fake->data + 112, "vmdk4", 5);
    refuse(&c, -EINVAL, "vmdk4");
    memcpy(w->fake->data + 112, "qcow2", 5);
    unlink(c.paths[0]);
    refuse(&c, -ENOENT, "level0.img");
    assert_int_equal(symlink("level1.img", c.paths[0]), 0);
    refuse(&c, -ELOOP, "loop");
    unlink(c.paths[0]);
    assert_int_equal(symlink("/etc/passwd", c.paths[0]), 0);
    refuse(&c, -EPERM, "/etc/passwd");
    unlink(c.paths[0]);
    chain_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_cuts),    cmocka_unit_test(test_errors),
        cmocka_unit_test(test_map),    cmocka_unit_test(test_resize),  cmocka_unit_test(test_resize_fails),
        cmocka_unit_test(test_set),    cmocka_unit_test(test_set_cut), cmocka_unit_test(test_commit),
        cmocka_unit_test(test_rebase), cmocka_unit_test(test_refused),
    };
    cmocka_set_test_filter(getenv("VIREO_TEST_ONLY"));
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
