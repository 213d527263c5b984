/* `vireo disk compare`: whether two images hold the same. */
#include <errno.h>
#include <inttypes.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_allow.h"
#include "image/compare.h"

static const char *const kinds[] = {
    [IMAGE_SAME] = "none",
    [IMAGE_OTHER_CONTENT] = "content",
    [IMAGE_OTHER_SIZE] = "size",
    [IMAGE_OTHER_ALLOCATION] = "allocation",
};

static int tell(const struct disk_compare_options *options, const struct image_compare_result *result)
{
    bool same = result->difference == IMAGE_SAME;

    if (options->json)
        return disk_command_print(same ? json_pack("{s:b}", "same", true)
                                       : json_pack("{s:b, s:s, s:I}", "same", false, "difference",
                                                   kinds[result->difference], "offset", (json_int_t)result->offset));
    if (options->quiet)
        return 0;
    if (same)
        puts("the same");
    else if (result->difference == IMAGE_OTHER_SIZE)
        printf("the sizes differ; one ends at offset %" PRIu64 "\n", result->offset);
    else
        printf("%s differs at offset %" PRIu64 "\n", kinds[result->difference], result->offset);
    return 0;
}

static int compare(const struct disk_compare_options *options, struct loop *loop, struct disk *disks[2],
                   struct image_compare_result *result, struct err *err)
{
    struct progress *progress;
    int r = progress_open(&progress, "compare", options->quiet || options->json, loop, err);

    if (r < 0)
        return r;
    const struct image_compare_conf conf = {.a = disks[0],
                                            .b = disks[1],
                                            .strict = options->strict,
                                            .depth = (unsigned)options->depth,
                                            .job = progress_job(progress)};
    r = image_compare(&conf, result, err);
    progress_close(progress);
    return r;
}

int command_disk_compare(int argc, char **argv)
{
    struct disk_compare_options options = {0};
    struct image_compare_result result = {0};
    struct disk_allow *allow = NULL;
    struct disk *disks[2] = {NULL, NULL};
    struct loop *loop = NULL;
    struct err err;
    int status;

    if (!disk_command_parse("compare", argc, argv, &options, 2, 2, &status))
        return status;
    int r = options.depth >= 1 && options.depth <= 256
                ? 0
                : err_set(&err, -EINVAL, "--depth %" PRIu64 ": accepted are 1 to 256", options.depth);
    if (r == 0)
        r = disk_allow_open(&allow, options.backing.items, options.backing.n, &err);
    if (r == 0)
        r = loop_open(&loop, &err);
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        const struct disk_conf conf = {.path = options.words.items[i],
                                       .format = i ? options.other_format : options.format,
                                       .read_only = true,
                                       .allow = allow};
        r = disk_open(&disks[i], &conf, loop, &err);
    }
    if (r == 0)
        r = compare(&options, loop, disks, &result, &err);
    if (r == 0 && tell(&options, &result) < 0)
        r = err_set(&err, -ENOMEM, "out of memory");
    disk_close(disks[1]);
    disk_close(disks[0]);
    loop_close(loop);
    disk_allow_close(allow);
    if (r < 0)
        return command_fail(r, &err);
    return result.difference == IMAGE_SAME ? STATUS_OK : STATUS_DIFFERENT;
}
