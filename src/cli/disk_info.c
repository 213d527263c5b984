/* `vireo disk info`: what an image is, also while somebody writes to it. */
#include <errno.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "disk/disk_info.h"

static int show(const struct disk *disk, bool json)
{
    struct disk_info info;

    disk_info_get(disk, &info);
    if (json)
        return disk_command_print(json_pack("{s:s, s:s, s:I, s:I}", "path", disk->path, "format", disk->type->name,
                                            "size", (json_int_t)info.size, "allocated", (json_int_t)info.allocated));
    printf("format     %s\nsize       %llu\nallocated  %llu\n", disk->type->name, (unsigned long long)info.size,
           (unsigned long long)info.allocated);
    return 0;
}

int command_disk_info(int argc, char **argv)
{
    struct disk_info_options options = {0};
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
    if (r == 0 && show(disk, options.json) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    disk_close(disk);
    loop_close(loop);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
