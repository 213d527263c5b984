/* `vireo disk resize`: an image gets another size. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/number.h"
#include "cli/disk.h"
#include "cli/disk_options.h"
#include "disk/disk_thin.h"

/* "10G", "+1G" or "-512M", in view of the size it has. */
static int new_size(const struct disk *disk, const char *word, bool shrink, uint64_t *size, struct err *err)
{
    bool more = *word == '+', less = *word == '-';

    if (!number_size(word + (more || less), size) || (more && *size > INT64_MAX - disk->size) ||
        (less && *size >= disk->size))
        return err_set(
            err, -EINVAL,
            "disk resize: size '%.60s' for %" PRIu64
            " bytes: accepted is a size in bytes or with a suffix K, M, G or T, with + or - before it where it is "
            "a difference",
            word, disk->size);
    if (more || less)
        *size = more ? disk->size + *size : disk->size - *size;
    if (*size < disk->size && !shrink)
        return err_set(err, -EINVAL,
                       "disk resize: %" PRIu64 " bytes are less than the %" PRIu64
                       " that '%.200s' has: what lies behind is lost; --shrink does it all the same",
                       *size, disk->size, disk->path);
    return 0;
}

static int run(const struct disk_resize_options *o, const struct disk_conf *conf, uint64_t *before, uint64_t *after,
               struct err *err)
{
    struct loop *loop = NULL;
    struct disk *disk = NULL;
    uint64_t size = 0;
    int r = loop_open(&loop, err);

    if (r == 0)
        r = disk_open(&disk, conf, loop, err);
    if (r == 0) {
        *before = disk->size;
        r = new_size(disk, o->words.items[1], o->shrink, &size, err);
    }
    if (r == 0)
        r = disk_resize(disk, size, err);
    if (r == 0)
        *after = disk->size;
    disk_close(disk);
    loop_close(loop);
    return r == -ENOSPC ? -EIO : r; /* the host's failure, and no wrong use */
}

int command_disk_resize(int argc, char **argv)
{
    struct disk_resize_options options = {0};
    struct disk_allow *allow = NULL;
    uint64_t before = 0, after = 0;
    struct err err;
    int status;

    if (!disk_command_parse("resize", argc, argv, &options, 2, 2, &status))
        return status;
    int r = disk_command_allow(&options.backing, NULL, &allow, &err);
    const struct disk_conf conf = {
        .path = options.words.items[0], .format = options.format, .discard = true, .allow = allow};
    if (r == 0)
        r = run(&options, &conf, &before, &after, &err);
    disk_allow_close(allow);
    const char *format = r == 0 ? disk_format(&conf, &err) : NULL;
    if (format) {
        disk_thin_note(conf.path, format);
        disk_thin_warn(conf.path, format);
    }
    if (r == 0 && options.json &&
        disk_command_print(json_pack("{s:s, s:I, s:I}", "path", conf.path, "before", (json_int_t)before, "size",
                                     (json_int_t)after)) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
