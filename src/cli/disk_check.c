/* `vireo disk check`: whether an image is sound, and repairs. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_check.h"

struct check {
    const struct disk_check_options *options;
    const struct image_job *job;
    json_t *findings;
};

static void on_finding(void *opaque, const char *line)
{
    const struct check *c = opaque;

    if (c->findings)
        json_array_append_new(c->findings, json_string(line));
    else if (!c->options->quiet)
        puts(line);
}

/* Signals wait to be asked for: nobody serves the loop meanwhile. */
static int on_progress(void *opaque, uint64_t done, uint64_t of)
{
    const struct check *c = opaque;
    sigset_t set;

    c->job->progress(c->job->opaque, done, of);
    if (sigpending(&set))
        return 0;
    return sigismember(&set, SIGINT) || sigismember(&set, SIGTERM) || sigismember(&set, SIGHUP) ? -EINTR : 0;
}

static const char *plural(uint64_t n, const char *one, const char *many)
{
    return n == 1 ? one : many;
}

static int tell(const struct check *c, const struct disk_check *result)
{
    uint64_t errors = result->errors - result->errors_repaired, leaks = result->leaks - result->leaks_repaired;

    if (c->options->json)
        return disk_command_print(
            json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "sound", !errors && !leaks, "errors",
                      (json_int_t)result->errors, "leaks", (json_int_t)result->leaks, "errors_repaired",
                      (json_int_t)result->errors_repaired, "leaks_repaired", (json_int_t)result->leaks_repaired,
                      "allocated", (json_int_t)result->allocated, "compressed", (json_int_t)result->compressed, "total",
                      (json_int_t)result->total, "end", (json_int_t)result->end, "findings", c->findings));
    if (c->options->quiet)
        return 0;
    if (!result->errors && !result->leaks) {
        puts("sound");
        return 0;
    }
    printf("%" PRIu64 " %s, %" PRIu64 " %s", result->errors, plural(result->errors, "error", "errors"), result->leaks,
           plural(result->leaks, "leaked cluster", "leaked clusters"));
    if (c->options->repair)
        printf("; repaired: %" PRIu64 " and %" PRIu64, result->errors_repaired, result->leaks_repaired);
    puts("");
    return 0;
}

static int check(struct check *c, struct loop *loop, struct disk *disk, struct disk_check *result, struct err *err)
{
    struct progress *progress;
    int r = progress_open(&progress, "check", c->options->quiet || c->options->json, loop, err);

    if (r < 0)
        return r;
    c->job = progress_job(progress);
    *result =
        (struct disk_check){.repair = c->options->repair, .finding = on_finding, .progress = on_progress, .opaque = c};
    r = disk_check_image(disk, result, err);
    progress_close(progress);
    return r;
}

int command_disk_check(int argc, char **argv)
{
    struct disk_check_options options = {0};
    struct disk_check result = {0};
    struct check c = {.options = &options};
    struct loop *loop = NULL;
    struct disk *disk = NULL;
    struct err err;
    int status;

    if (!disk_command_parse("check", argc, argv, &options, 1, 1, &status))
        return status;
    const struct disk_conf conf = {.path = options.words.items[0],
                                   .format = options.format,
                                   .read_only = !options.repair,
                                   .check = true,
                                   .no_backing = true};
    c.findings = options.json ? json_array() : NULL;
    int r = loop_open(&loop, &err);
    if (r == 0)
        r = disk_open(&disk, &conf, loop, &err);
    if (r == 0)
        r = check(&c, loop, disk, &result, &err);
    if (r == 0 && tell(&c, &result) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    json_decref(c.findings);
    disk_close(disk);
    loop_close(loop);
    if (r < 0)
        return command_fail(r, &err);
    return result.errors == result.errors_repaired && result.leaks == result.leaks_repaired ? STATUS_OK
                                                                                            : STATUS_DIFFERENT;
}
