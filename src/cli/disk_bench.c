/* `vireo disk bench`: how fast an image is, by the requests that `qemu-img bench` would make. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_allow.h"
#include "image/bench.h"

enum { SEQUENTIAL, RANDOM };

static int check(const struct disk_bench_options *o, struct err *err)
{
    if (o->write && o->discard)
        return err_set(err, -EINVAL, "--write and --discard: accepted is one of them");
    if (o->depth < 1 || o->depth > 1024)
        return err_set(err, -EINVAL, "--depth %" PRIu64 ": accepted are 1 to 1024", o->depth);
    if (!o->count)
        return err_set(err, -EINVAL, "--count 0: accepted are 1 and more");
    if (o->block > 64 * MIB && !o->discard)
        return err_set(err, -EINVAL, "--block %" PRIu64 ": accepted are 64M at most", o->block);
    if (o->step && o->pattern == RANDOM)
        return err_set(err, -EINVAL, "--step: accepted is a sequential pattern");
    return 0;
}

/* KiB: the most that the process had; getrusage() would count what was before exec, too. */
static long peak_memory(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[128];
    long kib = 0;

    while (status && !kib && fgets(line, sizeof(line), status))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    if (status)
        fclose(status);
    return kib;
}

static int tell(const struct disk_bench_options *o, const struct image_bench_result *result)
{
    double seconds = (double)result->ns / NS_PER_SEC, rate = seconds > 0 ? (double)o->count / seconds : 0;
    double bytes = rate * (double)o->block;

    if (o->json)
        return disk_command_print(json_pack(
            "{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:I}", "requests", (json_int_t)o->count, "block", (json_int_t)o->block,
            "depth", (json_int_t)o->depth, "flushes", (json_int_t)result->flushes, "seconds", seconds, "per-second",
            rate, "bytes-per-second", bytes, "peak-memory", (json_int_t)peak_memory() * 1024));
    printf("%" PRIu64 " requests of %" PRIu64 " bytes, %" PRIu64 " at once, in %.3f s: %.0f a second, %.1f MiB/s\n",
           o->count, o->block, o->depth, seconds, rate, bytes / MIB);
    return 0;
}

static int bench(const struct disk_bench_options *o, struct loop *loop, struct disk *disk,
                 struct image_bench_result *result, struct err *err)
{
    struct progress *progress;
    int r = progress_open(&progress, "bench", o->quiet || o->json, loop, err);

    if (r < 0)
        return r;
    const struct image_bench_conf conf = {.disk = disk,
                                          .op = o->write     ? DISK_WRITE
                                                : o->discard ? DISK_DISCARD
                                                             : DISK_READ,
                                          .count = o->count,
                                          .depth = (unsigned)o->depth,
                                          .block = o->block,
                                          .step = o->pattern == RANDOM ? 0
                                                  : o->step            ? o->step
                                                                       : o->block,
                                          .flush_every = o->flush_every,
                                          .job = progress_job(progress)};
    r = image_bench(&conf, result, err);
    progress_close(progress);
    return r;
}

int command_disk_bench(int argc, char **argv)
{
    struct disk_bench_options options = {0};
    struct image_bench_result result = {0};
    struct disk_allow *allow = NULL;
    struct loop *loop = NULL;
    struct disk *disk = NULL;
    struct err err;
    int status;

    if (!disk_command_parse("bench", argc, argv, &options, 1, 1, &status))
        return status;
    int r = check(&options, &err);
    if (r == 0)
        r = disk_allow_open(&allow, options.backing.items, options.backing.n, &err);
    if (r == 0)
        r = loop_open(&loop, &err);
    const struct disk_conf conf = {.path = options.words.items[0],
                                   .format = options.format,
                                   .read_only = !options.write && !options.discard,
                                   .discard = true,
                                   .direct = options.direct,
                                   .threads = options.threads,
                                   .allow = allow};
    if (r == 0)
        r = disk_open(&disk, &conf, loop, &err);
    if (r == 0)
        r = bench(&options, loop, disk, &result, &err);
    if (r == 0 && tell(&options, &result) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    disk_close(disk);
    loop_close(loop);
    disk_allow_close(allow);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
