/* `vireo disk map`: what an image is made of. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/disk.h"
#include "cli/disk_options.h"

#define N_EXTENTS 256

static const char *const kinds[] = {
    [DISK_EXTENT_DATA] = "data", [DISK_EXTENT_ZERO] = "zero", [DISK_EXTENT_HOLE] = "hole"};

struct map {
    json_t *json; /* NULL: lines */
    struct disk_extent last;
};

static int print_last(struct map *map)
{
    const struct disk_extent *e = &map->last;

    if (!e->len)
        return 0;
    if (map->json) {
        json_t *host = e->has_host ? json_integer((json_int_t)e->host_offset) : json_null();
        return json_array_append_new(map->json,
                                     json_pack("{s:I, s:I, s:i, s:s, s:b, s:o}", "offset", (json_int_t)e->offset,
                                               "length", (json_int_t)e->len, "depth", (int)e->depth, "kind",
                                               kinds[e->kind], "compressed", (int)e->compressed, "host_offset", host));
    }
    printf("%#14llx  %#14llx  %5u  %s%s", (unsigned long long)e->offset, (unsigned long long)e->len, e->depth,
           kinds[e->kind], e->compressed ? ", compressed" : "");
    if (e->has_host)
        printf(" at %#llx", (unsigned long long)e->host_offset);
    putchar('\n');
    return 0;
}

/* One that goes on with the last is told with it. */
static int add(struct map *map, const struct disk_extent *e)
{
    struct disk_extent *last = &map->last;

    if (last->len && last->kind == e->kind && last->depth == e->depth && last->compressed == e->compressed &&
        last->has_host == e->has_host && (!e->has_host || last->host_offset + last->len == e->host_offset)) {
        last->len += e->len;
        return 0;
    }
    int r = print_last(map);
    *last = *e;
    return r;
}

static int show(struct disk *disk, struct map *map, struct err *err)
{
    struct disk_extent *extents = calloc(N_EXTENTS, sizeof(*extents));
    int r = extents ? 0 : err_set(err, -ENOMEM, "out of memory");

    for (uint64_t pos = 0; r == 0 && pos < disk->size;) {
        struct disk_request req = {
            .op = DISK_MAP, .offset = pos, .len = disk->size - pos, .extents = extents, .n_extents = N_EXTENTS};
        r = disk_call(disk, &req);
        if (r || !req.n_extents) {
            r = r ? r : -EIO;
            err_set(err, r, "disk '%.200s': what it is made of at offset %llu cannot be read: %s", disk->path,
                    (unsigned long long)pos, strerror(-r));
        }
        for (unsigned i = 0; r == 0 && i < req.n_extents; i++) {
            if (add(map, &extents[i]) < 0)
                r = err_set(err, -ENOMEM, "out of memory");
            pos = extents[i].offset + extents[i].len;
        }
    }
    if (r == 0 && print_last(map) < 0)
        r = err_set(err, -ENOMEM, "out of memory");
    free(extents);
    return r;
}

static int run(struct disk *disk, bool json, struct err *err)
{
    struct map map = {.json = json ? json_array() : NULL};

    if (json && !map.json)
        return err_set(err, -ENOMEM, "out of memory");
    if (!json)
        printf("%14s  %14s  %5s  kind\n", "offset", "length", "depth");
    int r = show(disk, &map, err);
    if (r == 0 && json)
        return disk_command_print(map.json) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
    json_decref(map.json);
    return r;
}

int command_disk_map(int argc, char **argv)
{
    struct disk_map_options options = {0};
    struct disk_allow *allow = NULL;
    struct loop *loop = NULL;
    struct disk *disk = NULL;
    struct err err;
    int status;

    if (!disk_command_parse("map", argc, argv, &options, 1, 1, &status))
        return status;
    int r = disk_command_allow(&options.backing, NULL, &allow, &err);
    const struct disk_conf conf = {
        .path = options.words.items[0], .format = options.format, .read_only = true, .allow = allow};
    if (r == 0)
        r = loop_open(&loop, &err);
    if (r == 0)
        r = disk_open(&disk, &conf, loop, &err);
    if (r == 0)
        r = run(disk, options.json, &err);
    disk_close(disk);
    loop_close(loop);
    disk_allow_close(allow);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
