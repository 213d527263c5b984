/* `vireo disk info`: what an image is, also while somebody writes to it. */
#include "disk/disk_info.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_chain.h"
#include "disk/disk_snapshot.h"
#include "disk/disk_thin.h"

typedef unsigned long long ull;

/* One down the backing chain. */
struct link {
    char path[4096];
    const char *format;
    struct disk_info info;
};

struct report {
    const struct disk *disk;
    char path[4096];
    struct disk_info info;
    struct disk_snapshots snapshots;
    struct disk_bitmaps bitmaps;
    struct disk_promises promises; /* of its file system; none where it is no file */
    struct link *chain;
    size_t n_chain;
    struct err missing; /* why it goes no further; "": it does not */
};

static int gather(struct report *r, struct disk *disk, struct err *err)
{
    int e = 0;

    r->disk = disk;
    disk_info_get(disk, &r->info);
    if (r->info.n_snapshots)
        e = disk_snapshot_list(disk, &r->snapshots, err);
    if (e == 0 && r->info.n_bitmaps)
        e = disk_bitmap_list(disk, &r->bitmaps, err);
    if (disk_thin_promises(disk->path, disk->type->name, &r->promises) < 0)
        r->promises = (struct disk_promises){0};
    return e;
}

/* ---- the backing chain, as far as it is permitted and there ---- */

static int open_link(const struct report *r, const struct disk_allow *allow, struct loop *loop, struct disk **disk,
                     struct err *err)
{
    const struct link *above = r->n_chain ? &r->chain[r->n_chain - 1] : NULL;
    const struct disk_info *info = above ? &above->info : &r->info;
    char path[4096];

    if (r->n_chain == DISK_CHAIN_MAX)
        return err_set(err, -ELOOP, "a chain of more than %d images", DISK_CHAIN_MAX);
    if (!*info->backing_format)
        return err_set(err, -EINVAL, "the format of '%.200s' is not stated", info->backing);
    int e = disk_chain_path(above ? above->path : r->disk->path, info->backing, path, err);
    if (e)
        return e;
    if (!disk_allow_permits(allow, path))
        return err_set(err, -EPERM, "nobody has permitted '%.200s'; --backing PATH does", path);
    const struct disk_conf conf = {
        .path = path, .format = info->backing_format, .read_only = true, .no_lock = true, .no_backing = true};
    return disk_open(disk, &conf, loop, err);
}

static int walk(struct report *r, const struct disk_allow *allow, struct loop *loop, struct err *err)
{
    const struct disk_info *info = &r->info;
    struct disk *disk;

    while (*info->backing) {
        if (open_link(r, allow, loop, &disk, &r->missing))
            return 0;
        struct link *chain = realloc(r->chain, (r->n_chain + 1) * sizeof(*chain));
        if (!chain) {
            disk_close(disk);
            return err_set(err, -ENOMEM, "out of memory");
        }
        r->chain = chain;
        struct link *link = &chain[r->n_chain++];
        snprintf(link->path, sizeof(link->path), "%s", disk->path);
        link->format = disk->type->name;
        disk_info_get(disk, &link->info);
        disk_close(disk);
        info = &link->info;
    }
    return 0;
}

/* ---- what is printed ---- */

/* What names an image has is anybody's doing. */
static void clean(struct report *r)
{
    snprintf(r->path, sizeof(r->path), "%s", r->disk->path);
    disk_command_clean(r->path);
    disk_command_clean(r->info.backing);
    disk_command_clean(r->info.backing_format);
    disk_command_clean(r->missing.msg);
    for (size_t k = 0; k < r->n_chain; k++)
        disk_command_clean(r->chain[k].path);
    for (size_t k = 0; k < r->snapshots.n; k++)
        disk_command_clean(r->snapshots.items[k].name);
    for (size_t k = 0; k < r->bitmaps.n; k++)
        disk_command_clean(r->bitmaps.items[k].name);
}

static void lines(const struct report *r)
{
    const struct disk_info *i = &r->info;
    char size[32], allocated[32];

    printf("format     %s\nsize       %llu (%s)\nallocated  %llu (%s)\n", r->disk->type->name, (ull)i->size,
           disk_thin_amount(i->size, size), (ull)i->allocated, disk_thin_amount(i->allocated, allocated));
    if (i->cluster_size)
        printf("version    %u\nclusters   %u bytes, refcounts of %u bits, compressed by %s%s%s\n", i->version,
               i->cluster_size, i->refcount_bits, i->compression, i->extended_l2 ? ", extended L2 entries" : "",
               i->lazy_refcounts ? ", lazy refcounts" : "");
    if (*i->backing)
        printf("backing    %s, %s\n", i->backing, *i->backing_format ? i->backing_format : "of no stated format");
    for (size_t k = 0; k < r->n_chain; k++)
        printf("chain %-4zu %s, %s, %llu (%s), %llu allocated\n", k + 1, r->chain[k].path, r->chain[k].format,
               (ull)r->chain[k].info.size, disk_thin_amount(r->chain[k].info.size, size),
               (ull)r->chain[k].info.allocated);
    if (*r->missing.msg)
        printf("chain      not looked at further: %s\n", r->missing.msg);
    if (i->dirty || i->corrupt)
        printf("state      %s\n", i->corrupt ? "corrupt" : "not closed: refcounts are counted anew by the next writer");
    for (size_t k = 0; k < r->snapshots.n; k++)
        printf("snapshot   %s\n", r->snapshots.items[k].name);
    for (size_t k = 0; k < r->bitmaps.n; k++)
        printf("bitmap     %s, %llu bytes dirty%s\n", r->bitmaps.items[k].name, (ull)r->bitmaps.items[k].dirty,
               r->bitmaps.items[k].consistent ? "" : ", inconsistent");
    if (r->promises.promised)
        printf("promised   %llu by thin images on its file system (%u); it has %llu free\n", (ull)r->promises.promised,
               r->promises.images, (ull)r->promises.available);
}

static json_t *lists(const struct report *r)
{
    json_t *snapshots = json_array(), *bitmaps = json_array();

    for (size_t k = 0; k < r->snapshots.n; k++)
        json_array_append_new(snapshots, json_string(r->snapshots.items[k].name));
    for (size_t k = 0; k < r->bitmaps.n; k++) {
        const struct disk_bitmap *b = &r->bitmaps.items[k];
        json_array_append_new(bitmaps, json_pack("{s:s, s:I, s:b, s:b, s:I}", "name", b->name, "granularity",
                                                 (json_int_t)b->granularity, "recording", (int)b->recording,
                                                 "consistent", (int)b->consistent, "dirty", (json_int_t)b->dirty));
    }
    return json_pack("{s:o, s:o, s:{s:I, s:I, s:i}}", "snapshots", snapshots, "bitmaps", bitmaps, "thin", "promised",
                     (json_int_t)r->promises.promised, "available", (json_int_t)r->promises.available, "images",
                     (int)r->promises.images);
}

static json_t *chain(const struct report *r)
{
    json_t *array = json_array();

    for (size_t k = 0; k < r->n_chain; k++)
        json_array_append_new(array, json_pack("{s:s, s:s, s:I, s:I}", "path", r->chain[k].path, "format",
                                               r->chain[k].format, "size", (json_int_t)r->chain[k].info.size,
                                               "allocated", (json_int_t)r->chain[k].info.allocated));
    return array;
}

static json_t *as_json(const struct report *r)
{
    const struct disk_info *i = &r->info;
    json_t *all =
        json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", r->path, "format", r->disk->type->name, "size",
                  (json_int_t)i->size, "allocated", (json_int_t)i->allocated, "file_size", (json_int_t)i->file_size);
    json_t *more = lists(r);

    if (all && i->cluster_size)
        json_object_update_new(all, json_pack("{s:i, s:I, s:i, s:s, s:b, s:b, s:b, s:b}", "version", (int)i->version,
                                              "cluster_size", (json_int_t)i->cluster_size, "refcount_bits",
                                              (int)i->refcount_bits, "compression", i->compression, "extended_l2",
                                              (int)i->extended_l2, "lazy_refcounts", (int)i->lazy_refcounts, "dirty",
                                              (int)i->dirty, "corrupt", (int)i->corrupt));
    if (all && *i->backing)
        json_object_update_new(all, json_pack("{s:s, s:s, s:o}", "backing", i->backing, "backing_format",
                                              i->backing_format, "chain", chain(r)));
    if (all && *r->missing.msg)
        json_object_set_new(all, "chain_missing", json_string(r->missing.msg));
    if (all && more)
        json_object_update(all, more);
    json_decref(more);
    return all;
}

int command_disk_info(int argc, char **argv)
{
    struct disk_info_options options = {0};
    struct report report = {0};
    struct disk_allow *allow = NULL;
    struct loop *loop = NULL;
    struct disk *disk = NULL;
    struct err err;
    int status;

    if (!disk_command_parse("info", argc, argv, &options, 1, 1, &status))
        return status;
    const struct disk_conf conf = {.path = options.words.items[0],
                                   .format = options.format,
                                   .read_only = true,
                                   .no_lock = true,
                                   .no_backing = true};
    int r = disk_command_allow(&options.backing, NULL, &allow, &err);
    if (r == 0)
        r = loop_open(&loop, &err);
    if (r == 0)
        r = disk_open(&disk, &conf, loop, &err);
    if (r == 0)
        r = gather(&report, disk, &err);
    if (r == 0)
        r = walk(&report, allow, loop, &err);
    if (r == 0)
        clean(&report);
    if (r == 0 && !options.json)
        lines(&report);
    else if (r == 0 && disk_command_print(as_json(&report)) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    if (r == 0)
        disk_thin_warn(conf.path, disk->type->name);
    free(report.snapshots.items);
    free(report.bitmaps.items);
    free(report.chain);
    disk_allow_close(allow);
    disk_close(disk);
    loop_close(loop);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
