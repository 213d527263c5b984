/* `vireo disk info`: what an image is, also while somebody writes to it. */
#include "disk/disk_info.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_snapshot.h"
#include "disk/disk_thin.h"

typedef unsigned long long ull;

struct report {
    const struct disk *disk;
    struct disk_info info;
    struct disk_snapshots snapshots;
    struct disk_bitmaps bitmaps;
    struct disk_promises promises; /* of its directory; none where it is no file */
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

static void lines(const struct report *r)
{
    const struct disk_info *i = &r->info;

    printf("format     %s\nsize       %llu\nallocated  %llu\n", r->disk->type->name, (ull)i->size, (ull)i->allocated);
    if (i->cluster_size)
        printf("version    %u\nclusters   %u bytes, refcounts of %u bits, compressed by %s%s%s\n", i->version,
               i->cluster_size, i->refcount_bits, i->compression, i->extended_l2 ? ", extended L2 entries" : "",
               i->lazy_refcounts ? ", lazy refcounts" : "");
    if (*i->backing)
        printf("backing    %s, %s\n", i->backing, *i->backing_format ? i->backing_format : "of no stated format");
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

static json_t *as_json(const struct report *r)
{
    const struct disk_info *i = &r->info;
    json_t *all =
        json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", r->disk->path, "format", r->disk->type->name, "size",
                  (json_int_t)i->size, "allocated", (json_int_t)i->allocated, "file_size", (json_int_t)i->file_size);
    json_t *more = lists(r);

    if (all && i->cluster_size)
        json_object_update_new(all, json_pack("{s:i, s:I, s:i, s:s, s:b, s:b, s:b, s:b}", "version", (int)i->version,
                                              "cluster_size", (json_int_t)i->cluster_size, "refcount_bits",
                                              (int)i->refcount_bits, "compression", i->compression, "extended_l2",
                                              (int)i->extended_l2, "lazy_refcounts", (int)i->lazy_refcounts, "dirty",
                                              (int)i->dirty, "corrupt", (int)i->corrupt));
    if (all && *i->backing)
        json_object_update_new(all,
                               json_pack("{s:s, s:s}", "backing", i->backing, "backing_format", i->backing_format));
    if (all && more)
        json_object_update(all, more);
    json_decref(more);
    return all;
}

int command_disk_info(int argc, char **argv)
{
    struct disk_info_options options = {0};
    struct report report = {0};
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
    int r = loop_open(&loop, &err);
    if (r == 0)
        r = disk_open(&disk, &conf, loop, &err);
    if (r == 0)
        r = gather(&report, disk, &err);
    if (r == 0 && !options.json)
        lines(&report);
    else if (r == 0 && disk_command_print(as_json(&report)) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    if (r == 0)
        disk_thin_warn(conf.path, disk->type->name);
    free(report.snapshots.items);
    free(report.bitmaps.items);
    disk_close(disk);
    loop_close(loop);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
