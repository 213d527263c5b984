/* `vireo disk create`: an empty image, which is there when all of it is, or not at all (image/target.h). */
#include "disk/disk_create.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/number.h"
#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_chain.h"
#include "disk/disk_thin.h"
#include "image/target.h"

struct create {
    const struct disk_create_options *options;
    const char *path;
    struct disk_create_conf conf;
    char backing[4096];
    uint64_t backing_size;
};

/* Opened for once, as the image will: it is there, of that format, and what it names is permitted. */
static int look_at_backing(struct create *c, struct err *err)
{
    const struct disk_create_options *o = c->options;
    struct disk_conf conf = {.path = o->over, .format = o->over_format, .read_only = true};
    struct disk_allow *allow = NULL;
    struct disk *disk = NULL;
    struct loop *loop = NULL;

    c->conf.backing_format = disk_format(&conf, err);
    if (!c->conf.backing_format)
        return -EINVAL;
    int r = disk_chain_name(c->path, o->over, c->backing, err);
    if (r == 0)
        r = disk_command_allow(&o->backing, NULL, &allow, err);
    if (r == 0)
        r = loop_open(&loop, err);
    conf.allow = allow;
    if (r == 0)
        r = disk_open(&disk, &conf, loop, err);
    if (r == 0)
        c->backing_size = disk->size;
    c->conf.backing = c->backing;
    disk_close(disk);
    loop_close(loop);
    disk_allow_close(allow);
    return r;
}

static int read_size(struct create *c, struct err *err)
{
    const struct option_list *words = &c->options->words;

    if (words->n < 2 && !c->options->over)
        return err_set(err, -EINVAL, "disk create: the size is missing; accepted is FILE SIZE, such as disk.qcow2 10G");
    c->conf.size = c->backing_size;
    if (words->n == 2 && (!number_size(words->items[1], &c->conf.size) || !c->conf.size))
        return err_set(
            err, -EINVAL,
            "disk create: size '%.60s': accepted is a size in bytes or with a suffix K, M, G or T, such as 10G",
            words->items[1]);
    return 0;
}

static int check_numbers(const struct disk_create_options *o, struct err *err)
{
    if (o->cluster_size > 2 * MIB)
        return err_set(err, -EINVAL, "--cluster-size %" PRIu64 ": accepted are powers of two from 512 to 2M",
                       o->cluster_size);
    if (o->version > 3)
        return err_set(err, -EINVAL, "--version %" PRIu64 ": accepted are 2 and 3", o->version);
    if (o->refcount_bits > 64)
        return err_set(err, -EINVAL, "--refcount-bits %" PRIu64 ": accepted are powers of two from 1 to 64",
                       o->refcount_bits);
    return 0;
}

static int make(struct create *c, struct err *err)
{
    struct image_target *target = NULL;
    struct progress *progress = NULL;
    struct loop *loop = NULL;
    int r = image_target_open(&target, c->path, c->options->replace, err);

    if (r == 0 && image_target_in_place(target))
        r = err_set(err, -ENOTSUP, "'%.200s' is there for good; accepted is a file, which is made", c->path);
    if (r == 0)
        r = loop_open(&loop, err);
    if (r == 0)
        r = progress_open(&progress, "create", c->options->quiet || c->options->json, loop, err);
    if (r == 0) {
        c->conf.path = image_target_path(target);
        c->conf.name = c->path;
        c->conf.report = image_job_report_to;
        c->conf.opaque = progress_job(progress);
        r = disk_create(&c->conf, err);
    }
    progress_close(progress);
    loop_close(loop);
    if (r == 0)
        r = image_target_commit(target, err);
    image_target_close(target);
    return r == -ENOSPC ? -EIO : r; /* the host's failure, and no wrong use */
}

int command_disk_create(int argc, char **argv)
{
    struct disk_create_options options = {0};
    struct create c = {.options = &options};
    struct err err;
    int status;

    if (!disk_command_parse("create", argc, argv, &options, 1, 2, &status))
        return status;
    c.path = options.words.items[0];
    c.conf = (struct disk_create_conf){
        .format = disk_format(&(struct disk_conf){.path = c.path, .format = options.format}, &err),
        .preallocation = options.preallocate,
        .version = (unsigned)options.version,
        .cluster_size = (uint32_t)options.cluster_size,
        .refcount_bits = (unsigned)options.refcount_bits,
        .compression = options.compression,
        .extended_l2 = options.extended_l2,
        .lazy_refcounts = options.lazy_refcounts};
    int r = c.conf.format ? check_numbers(&options, &err) : -EINVAL;
    if (r == 0 && options.over)
        r = look_at_backing(&c, &err);
    if (r == 0)
        r = read_size(&c, &err);
    if (r == 0)
        r = make(&c, &err);
    if (r == 0) {
        disk_thin_note(c.path, c.conf.format);
        disk_thin_warn(c.path, c.conf.format);
    }
    if (r == 0 && options.json &&
        disk_command_print(
            json_pack("{s:s, s:s, s:I}", "path", c.path, "format", c.conf.format, "size", (json_int_t)c.conf.size)) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
