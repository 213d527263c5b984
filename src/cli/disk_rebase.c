/* `vireo disk rebase`: another backing file, or none, for what the image holds now; with --unsafe, only the name. */
#include <errno.h>
#include <stdio.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_chain.h"
#include "image/chain.h"

struct onto {
    const char *format;
    char name[4096]; /* as the image is to have it; "": none */
};

static int find_name(const struct disk_rebase_options *options, struct onto *onto, struct err *err)
{
    const char *given = options->onto;

    if (strcmp(given, "none") == 0)
        return 0;
    onto->format = disk_format(&(struct disk_conf){.path = given, .format = options->onto_format}, err);
    if (!onto->format)
        return -EINVAL;
    int r = disk_chain_name(options->words.items[0], given, onto->name, err);
    if (r == -ENOENT && options->unsafe) { /* it need not be there */
        snprintf(onto->name, sizeof(onto->name), "%s", given);
        return 0;
    }
    return r;
}

static int rebase(const struct disk_conf *conf, const struct onto *to, const struct disk_rebase_options *options,
                  struct loop *loop, struct err *err)
{
    struct progress *progress = NULL;
    const char *name = *to->name ? to->name : NULL;
    struct disk *image, *onto = NULL;
    int r = disk_open(&image, conf, loop, err);

    if (r)
        return r;
    if (options->unsafe) {
        r = disk_backing_set(image, name, to->format, err);
    } else {
        if (name)
            r = disk_chain_open(&onto, name, to->format, conf, loop, err);
        if (r == 0)
            r = progress_open(&progress, "rebase", options->quiet, loop, err);
        if (r == 0)
            r = image_chain_rebase(image, onto, name, to->format, progress_job(progress), err);
        progress_close(progress);
    }
    disk_close(image);
    disk_close(onto);
    return r;
}

int command_disk_rebase(int argc, char **argv)
{
    struct disk_rebase_options options = {0};
    struct disk_allow *allow = NULL;
    struct loop *loop = NULL;
    struct onto onto = {0};
    struct err err;
    int status;

    if (!disk_command_parse("rebase", argc, argv, &options, 1, 1, &status))
        return status;
    int r = options.onto ? find_name(&options, &onto, &err)
                         : err_set(&err, -EINVAL, "disk rebase: --onto is missing; accepted are a file and none");
    if (r == 0) /* who names it permits it */
        r = disk_command_allow(&options.backing, *onto.name && !options.unsafe ? options.onto : NULL, &allow, &err);
    const struct disk_conf conf = {.path = options.words.items[0],
                                   .format = options.format,
                                   .discard = true,
                                   .no_backing = options.unsafe,
                                   .allow = allow};
    if (r == 0)
        r = loop_open(&loop, &err);
    if (r == 0)
        r = rebase(&conf, &onto, &options, loop, &err);
    loop_close(loop);
    disk_allow_close(allow);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
