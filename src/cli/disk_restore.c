/* `vireo disk restore`: an image out of a point of a backup. The new one is there when all of it is, or not at all (image/target.h). */
#include <errno.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_create.h"
#include "disk/disk_thin.h"
#include "image/backup.h"
#include "image/copy.h"
#include "image/target.h"

struct restore {
    const struct disk_restore_options *options;
    const char *to_path, *to_format;
    struct loop *loop;
    struct progress *progress;
    struct backup_repo repo;
    struct backup_point *point;
    struct image_target *target;
    struct disk *from, *to;
};

static int make(struct restore *s, struct err *err)
{
    bool in_place = image_target_in_place(s->target);
    const char *path = image_target_path(s->target);

    if (!in_place)
        return disk_create(&(struct disk_create_conf){.path = path, .format = s->to_format, .size = s->from->size},
                           err);
    return strcmp(s->to_format, "raw") == 0
               ? 0
               : err_set(err, -ENOTSUP, "'%.200s' is written in place; accepted is --to-format raw", s->to_path);
}

static int copy(struct restore *s, struct err *err)
{
    const struct image_job *job = progress_job(s->progress);
    int r = backup_verify_chain(&s->repo, s->point, job, err);

    if (r == 0)
        r = backup_open_point(&s->from, &s->repo, s->point, s->loop, err);
    if (r == 0)
        r = make(s, err);
    if (r == 0)
        r = disk_open(
            &s->to, &(struct disk_conf){.path = image_target_path(s->target), .format = s->to_format, .discard = true},
            s->loop, err);
    if (r == 0)
        r = image_copy(
            &(struct image_copy_conf){
                .from = s->from, .to = s->to, .to_is_zero = !image_target_in_place(s->target), .job = job},
            err);
    disk_close(s->from);
    disk_close(s->to);
    s->from = s->to = NULL;
    return r;
}

static int run(struct restore *s, struct err *err)
{
    const struct disk_restore_options *o = s->options;
    int r = backup_repo_open(&s->repo, o->words.items[0], false, err);

    if (r == 0)
        r = backup_repo_choose(&s->repo, o->point, &s->point, err);
    if (r == 0)
        r = image_target_open(&s->target, s->to_path, o->replace, err);
    if (r == 0)
        r = progress_open(&s->progress, "restore", o->quiet || o->json, s->loop, err);
    if (r == 0)
        r = copy(s, err);
    progress_close(s->progress);
    if (r == 0)
        r = image_target_commit(s->target, err);
    image_target_close(s->target);
    if (r == 0)
        disk_thin_note(s->to_path, s->to_format);
    if (r == 0 && o->json &&
        disk_command_print(json_pack("{s:s, s:s, s:s, s:I}", "point", s->point->id, "to", s->to_path, "format",
                                     s->to_format, "size", (json_int_t)s->point->size)) < 0)
        r = err_set(err, -ENOMEM, "out of memory");
    backup_repo_close(&s->repo);
    return r == -ENOSPC ? -EIO : r;
}

int command_disk_restore(int argc, char **argv)
{
    struct disk_restore_options options = {0};
    struct restore s = {.options = &options, .repo.lock = -1};
    struct err err;
    int status;

    if (!disk_command_parse("restore", argc, argv, &options, 2, 2, &status))
        return status;
    s.to_path = options.words.items[1];
    s.to_format = disk_format(&(struct disk_conf){.path = s.to_path, .format = options.to_format}, &err);
    int r = s.to_format ? loop_open(&s.loop, &err) : -EINVAL;
    if (r == 0)
        r = run(&s, &err);
    loop_close(s.loop);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
