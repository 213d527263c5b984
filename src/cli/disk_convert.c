/* `vireo disk convert`: an image in another format. The new one is there when all of it is, or not at all (image/target.h). */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "cli/disk.h"
#include "cli/disk_import.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_allow.h"
#include "disk/disk_create.h"
#include "disk/disk_snapshot.h"
#include "disk/disk_thin.h"
#include "image/copy.h"
#include "image/target.h"

static const char *const compressions[] = {"zlib", "zstd"};
static const char *const preallocations[] = {"off", "metadata", "falloc", "full"};

struct convert {
    const struct disk_convert_options *options;
    const char *from_path, *to_path;
    const char *to_format;
    bool foreign; /* qemu-img reads it */
    struct loop *loop;
    struct disk_allow *allow;
    struct progress *progress;
    struct image_target *target;
    struct disk *image, *from, *to; /* from: of image, or a view of it */
    uint64_t size, allocated;       /* bytes, of what was made; allocated: on the host */
};

static bool is_foreign(const char *format)
{
    static const char *const own[] = {
#define FORMAT(name, endings, help) #name,
#include "disk/formats.def"
#undef FORMAT
    };

    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        if (strcmp(format, own[i]) == 0)
            return false;
    for (const char *p = format; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '-')
            return false;
    return *format;
}

static int check(struct convert *c, struct err *err)
{
    const struct disk_convert_options *o = c->options;

    c->from_path = o->words.items[0];
    c->to_path = o->words.items[1];
    c->foreign = o->format && is_foreign(o->format);
    c->to_format = disk_format(&(struct disk_conf){.path = c->to_path, .format = o->to_format}, err);
    if (!c->to_format)
        return -EINVAL;
    if (o->depth < 1 || o->depth > 256)
        return err_set(err, -EINVAL, "--depth %" PRIu64 ": accepted are 1 to 256", o->depth);
    if (strcmp(c->to_format, "qcow2") != 0 && (o->compress || o->cluster_size))
        return err_set(err, -EINVAL, "--%s: of '%.200s', which is %s; accepted is qcow2",
                       o->compress ? "compress" : "cluster-size", c->to_path, c->to_format);
    if (o->cluster_size > 2 * MIB)
        return err_set(err, -EINVAL, "--cluster-size %" PRIu64 ": accepted are powers of two from 512 to 2M",
                       o->cluster_size);
    if (c->foreign && o->snapshot)
        return err_set(err, -EINVAL, "--snapshot: '%.200s' is %s; accepted is qcow2", c->from_path, o->format);
    return 0;
}

static int open_source(struct convert *c, struct err *err)
{
    const struct disk_conf conf = {
        .path = c->from_path, .format = c->options->format, .read_only = true, .allow = c->allow};
    int r = disk_open(&c->image, &conf, c->loop, err);

    if (r == 0 && c->options->snapshot)
        return disk_snapshot_view(&c->from, c->image, c->options->snapshot, err);
    c->from = c->image;
    return r;
}

static int open_made(struct convert *c, bool read_only, struct err *err)
{
    const struct disk_conf conf = {.path = image_target_path(c->target),
                                   .format = c->to_format,
                                   .read_only = read_only,
                                   .discard = true,
                                   .no_backing = true};

    return disk_open(&c->to, &conf, c->loop, err);
}

static int make(struct convert *c, struct err *err)
{
    const struct disk_convert_options *o = c->options;
    const struct disk_create_conf conf = {.path = image_target_path(c->target),
                                          .name = c->to_path,
                                          .format = c->to_format,
                                          .size = c->from->size,
                                          .preallocation = o->preallocate,
                                          .cluster_size = (uint32_t)o->cluster_size,
                                          .compression =
                                              strcmp(c->to_format, "qcow2") == 0 ? compressions[o->compression] : NULL,
                                          .report = image_job_report_to,
                                          .opaque = progress_job(c->progress)};

    if (!image_target_in_place(c->target))
        return disk_create(&conf, err);
    if (strcmp(c->to_format, "raw") != 0)
        return err_set(err, -ENOTSUP, "'%.200s' is written in place; accepted is --to-format raw", c->to_path);
    return 0;
}

static int copy(struct convert *c, struct err *err)
{
    int r = make(c, err);

    if (r == 0)
        r = open_made(c, false, err);
    if (r < 0)
        return r;
    const struct image_copy_conf conf = {.from = c->from,
                                         .to = c->to,
                                         .to_is_zero = !image_target_in_place(c->target),
                                         .compress = c->options->compress,
                                         .depth = (unsigned)c->options->depth,
                                         .job = progress_job(c->progress)};
    return image_copy(&conf, err);
}

static int import(struct convert *c, struct err *err)
{
    const struct disk_convert_options *o = c->options;
    const struct disk_import_conf conf = {.from = c->from_path,
                                          .format = o->format,
                                          .to = image_target_path(c->target),
                                          .to_format = c->to_format,
                                          .cluster_size = o->cluster_size,
                                          .preallocation = preallocations[o->preallocate],
                                          .compression = compressions[o->compression],
                                          .compress = o->compress};

    if (image_target_in_place(c->target))
        return err_set(err, -ENOTSUP, "'%.200s' is written in place, which import cannot; accepted is a file",
                       c->to_path);
    int r = disk_import(&conf, c->loop, progress_job(c->progress), err);
    return r < 0 ? r : open_made(c, true, err); /* what came out must be an image for us */
}

/* A disk that is full is the host's failure here, and no wrong use. */
static int failure(int r)
{
    return r == -ENOSPC ? -EIO : r;
}

static int run(struct convert *c, struct err *err)
{
    int r = c->foreign ? 0 : open_source(c, err);

    if (r == 0)
        r = image_target_open(&c->target, c->to_path, c->options->replace, err);
    if (r == 0)
        r = progress_open(&c->progress, "convert", c->options->quiet || c->options->json, c->loop, err);
    if (r == 0)
        r = failure(c->foreign ? import(c, err) : copy(c, err));
    if (r == 0)
        c->size = c->to->size;
    if (c->from != c->image)
        disk_close(c->from);
    disk_close(c->image);
    disk_close(c->to);
    progress_close(c->progress);
    if (r == 0)
        r = failure(image_target_commit(c->target, err));
    struct stat st;
    if (r == 0 && stat(c->to_path, &st) == 0)
        c->allocated = (uint64_t)st.st_blocks * 512;
    image_target_close(c->target);
    return r;
}

int command_disk_convert(int argc, char **argv)
{
    struct disk_convert_options options = {0};
    struct convert c = {.options = &options};
    struct err err;
    int status;

    if (!disk_command_parse("convert", argc, argv, &options, 2, 2, &status))
        return status;
    int r = check(&c, &err);
    if (r == 0)
        r = disk_allow_open(&c.allow, options.backing.items, options.backing.n, &err);
    if (r == 0)
        r = loop_open(&c.loop, &err);
    if (r == 0)
        r = run(&c, &err);
    if (r == 0)
        disk_thin_note(c.to_path, c.to_format);
    if (r == 0 && options.json &&
        disk_command_print(json_pack("{s:s, s:s, s:s, s:I, s:I}", "from", c.from_path, "to", c.to_path, "format",
                                     c.to_format, "size", (json_int_t)c.size, "allocated", (json_int_t)c.allocated)) <
            0)
        r = err_set(&err, -ENOMEM, "out of memory");
    loop_close(c.loop);
    disk_allow_close(c.allow);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
