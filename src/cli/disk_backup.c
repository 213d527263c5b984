/* `vireo disk backup`: points in time of an image that no VM has open, in a repository (image/backup.h). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <time.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/file_protocol.h"
#include "image/backup.h"

struct work {
    const struct disk_backup_options *options;
    const char *file, *path; /* file: NULL where the repository alone is meant */
    struct loop *loop;
    struct disk_allow *allow;
    struct progress *progress;
    struct backup_repo repo;
    struct disk *disk;
};

static void show_time(int64_t time, char text[32])
{
    time_t seconds = (time_t)time;
    struct tm tm;

    if (!localtime_r(&seconds, &tm) || !strftime(text, 32, "%Y-%m-%d %H:%M:%S", &tm))
        snprintf(text, 32, "-");
}

static json_t *point_json(const struct backup_point *p)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:I, s:I, s:s, s:s}", "id", p->id, "name", p->name, "time",
                     (json_int_t)p->time, "kind", *p->parent ? "incremental" : "full", "parent",
                     *p->parent ? json_string(p->parent) : json_null(), "size", (json_int_t)p->size, "file_size",
                     (json_int_t)p->file_size, "sha256", p->sha256, "source", p->source);
}

static int no_memory(struct err *err)
{
    return err_set(err, -ENOMEM, "out of memory");
}

/* ---- the repository alone ---- */

static int list(const struct work *c, struct err *err)
{
    json_t *array = json_array();
    char when[32];

    if (!c->options->json)
        printf("%-22s  %-19s  %-11s  %14s  %14s  %s\n", "id", "time", "kind", "size", "file", "name");
    for (size_t i = 0; i < c->repo.n; i++) {
        const struct backup_point *p = &c->repo.points[i];
        show_time(p->time, when);
        if (c->options->json)
            json_array_append_new(array, point_json(p));
        else
            printf("%-22s  %-19s  %-11s  %14llu  %14llu  %s\n", p->id, when, *p->parent ? "incremental" : "full",
                   (unsigned long long)p->size, (unsigned long long)p->file_size, p->name);
    }
    if (c->options->json)
        return disk_command_print(
                   json_pack("{s:s, s:s, s:o}", "path", c->repo.path, "id", c->repo.id, "points", array)) < 0
                   ? no_memory(err)
                   : 0;
    json_decref(array);
    return 0;
}

static void bad_point(void *opaque, const struct backup_point *p, const char *what)
{
    json_t *array = opaque;

    if (array)
        json_array_append_new(array, json_pack("{s:s, s:s}", "id", p->id, "what", what));
    else
        printf("%s: %s\n", p->id, what);
}

static int verify(const struct work *c, struct err *err)
{
    json_t *array = c->options->json ? json_array() : NULL;
    size_t n_bad;
    int r = backup_verify(&c->repo, progress_job(c->progress), bad_point, array, &n_bad, err);

    if (r == 0 && array &&
        disk_command_print(json_pack("{s:I, s:O}", "points", (json_int_t)c->repo.n, "damaged", array)) < 0)
        r = no_memory(err);
    json_decref(array);
    if (r == 0 && n_bad)
        return err_set(err, -EIO, "backup '%.200s': %zu of %zu points are damaged", c->path, n_bad, c->repo.n);
    if (r == 0 && !c->options->json)
        printf("%zu points, all of them whole\n", c->repo.n);
    return r;
}

static int delete_points(struct work *c, struct err *err)
{
    const struct option_list *words = &c->options->delete;
    bool *doomed = calloc(c->repo.n + 1, sizeof(*doomed));
    size_t before = c->repo.n;
    struct backup_point *p;
    int r = doomed ? 0 : no_memory(err);

    for (unsigned i = 0; r == 0 && i < words->n; i++) {
        r = backup_repo_choose(&c->repo, words->items[i], &p, err);
        if (r == 0)
            doomed[p - c->repo.points] = true;
    }
    for (size_t i = 0; r == 0 && !words->n && i + c->options->prune < before; i++)
        doomed[i] = true;
    if (r == 0)
        r = backup_delete(&c->repo, doomed, c->loop, progress_job(c->progress), err);
    if (r == 0 && c->options->json)
        r = disk_command_print(json_pack("{s:I, s:I}", "deleted", (json_int_t)(before - c->repo.n), "points",
                                         (json_int_t)c->repo.n)) < 0
                ? no_memory(err)
                : 0;
    else if (r == 0)
        printf("%zu points deleted, %zu are there\n", before - c->repo.n, c->repo.n);
    free(doomed);
    return r;
}

/* ---- a new point ---- */

/* To be written to, for its bitmaps, where it may be. */
static int open_source(struct work *c, struct err *err)
{
    struct disk_conf conf = {.path = c->file, .format = c->options->format, .discard = true, .allow = c->allow};
    const char *format = disk_format(&conf, err);

    if (!format)
        return -EINVAL;
    conf.read_only = strcmp(format, "qcow2") != 0;
    int r = disk_open(&c->disk, &conf, c->loop, err);
    if (conf.read_only || (r != -EROFS && r != -EACCES && r != -EPERM))
        return r;
    conf.read_only = true;
    return disk_open(&c->disk, &conf, c->loop, err);
}

static int show_made(const struct work *c, const struct backup_result *result, struct err *err)
{
    const struct backup_point *p = &result->point;

    if (c->options->json) {
        json_t *json = point_json(p);
        if (json) {
            json_object_set_new(json, "changed", json_integer((json_int_t)result->changed));
            json_object_set_new(json, "why", json_string(result->why));
        }
        return disk_command_print(json) < 0 ? no_memory(err) : 0;
    }
    printf("%s: %s, %llu bytes of %llu, in a file of %llu\n", p->id, *p->parent ? "incremental" : "full",
           (unsigned long long)result->changed, (unsigned long long)p->size, (unsigned long long)p->file_size);
    if (*result->why)
        printf("%s\n", result->why);
    return 0;
}

static int make(struct work *c, struct err *err)
{
    char source[PATH_MAX];
    struct backup_result result;

    if (file_protocol_is(c->file) || !realpath(c->file, source))
        snprintf(source, sizeof(source), "%s", c->file);
    const struct backup_conf conf = {.disk = c->disk,
                                     .source = source,
                                     .name = c->options->name,
                                     .kind = c->options->full          ? BACKUP_FULL
                                             : c->options->incremental ? BACKUP_INCREMENTAL
                                                                       : BACKUP_AUTO,
                                     .time = time(NULL),
                                     .job = progress_job(c->progress)};
    int r = backup_make(&c->repo, &conf, &result, err);
    if (r == 0 && *result.bitmap)
        fprintf(stderr, "vireo: the point is made; the next one has to compare: %s\n", result.bitmap);
    return r ? r : show_made(c, &result, err);
}

/* ---- the command ---- */

static int check(struct work *c, struct err *err)
{
    const struct disk_backup_options *o = c->options;
    unsigned n = o->list + o->verify + (o->prune > 0) + (o->delete.n > 0);

    c->path = o->words.items[o->words.n - 1];
    c->file = o->words.n == 2 ? o->words.items[0] : NULL;
    if (o->full && o->incremental)
        return err_set(err, -EINVAL, "disk backup: accepted is one of --full and --incremental");
    if (n > 1)
        return err_set(err, -EINVAL, "disk backup: accepted is one of --list, --verify, --prune and --delete");
    if (n == 1 && c->file)
        return err_set(err, -EINVAL, "disk backup: with --list, --verify, --prune and --delete accepted is REPO alone");
    if (n == 0 && !c->file)
        return err_set(err, -EINVAL,
                       "disk backup: 1 word given; accepted is FILE REPO, or REPO with --list, --verify, "
                       "--prune or --delete");
    return c->file && !o->same_disk_anyway ? backup_same_place(c->file, c->path, err) : 0;
}

static int run(struct work *c, struct err *err)
{
    const struct disk_backup_options *o = c->options;
    bool write = c->file || o->prune || o->delete.n;
    int r = c->file ? open_source(c, err) : 0;

    if (r == 0)
        r = backup_repo_open(&c->repo, c->path, write, err);
    if (r == 0)
        r = progress_open(&c->progress, "backup", o->quiet || o->json, c->loop, err);
    if (r == 0)
        r = c->file ? make(c, err) : o->list ? list(c, err) : o->verify ? verify(c, err) : delete_points(c, err);
    progress_close(c->progress);
    backup_repo_close(&c->repo);
    disk_close(c->disk);
    return r == -ENOSPC ? -EIO : r;
}

int command_disk_backup(int argc, char **argv)
{
    struct disk_backup_options options = {0};
    struct work c = {.options = &options, .repo.lock = -1};
    struct err err;
    int status;

    if (!disk_command_parse("backup", argc, argv, &options, 1, 2, &status))
        return status;
    int r = check(&c, &err);
    if (r == 0)
        r = disk_command_allow(&options.backing, NULL, &c.allow, &err);
    if (r == 0)
        r = loop_open(&c.loop, &err);
    if (r == 0)
        r = run(&c, &err);
    loop_close(c.loop);
    disk_allow_close(c.allow);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
