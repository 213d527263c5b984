/* `vireo disk commit`: what an image holds goes into its backing file. */
#include <errno.h>

#include "cli/disk.h"
#include "cli/disk_options.h"
#include "cli/progress.h"
#include "disk/disk_chain.h"
#include "image/chain.h"

/* The image without its backing file, and that one, for writing. */
static int commit(const struct disk_conf *conf, bool quiet, struct loop *loop, struct err *err)
{
    struct progress *progress = NULL;
    struct disk *image = NULL, *backing = NULL;
    const char *format;
    int r = disk_open(&image, conf, loop, err);

    if (r)
        return r;
    const char *name = disk_backing_name(image, &format);
    if (name)
        r = disk_chain_open_writable(&backing, name, format, conf, loop, err);
    else
        r = err_set(err, -EINVAL, "disk '%.200s' has no backing file", image->path);
    if (r == 0)
        r = progress_open(&progress, "commit", quiet, loop, err);
    if (r == 0)
        r = image_chain_commit(image, backing, progress_job(progress), err);
    progress_close(progress);
    disk_close(image);
    disk_close(backing);
    return r;
}

int command_disk_commit(int argc, char **argv)
{
    struct disk_commit_options options = {0};
    struct disk_allow *allow = NULL;
    struct loop *loop = NULL;
    struct err err;
    int status;

    if (!disk_command_parse("commit", argc, argv, &options, 1, 1, &status))
        return status;
    int r = disk_command_allow(&options.backing, NULL, &allow, &err);
    const struct disk_conf conf = {
        .path = options.words.items[0], .format = options.format, .discard = true, .no_backing = true, .allow = allow};
    if (r == 0)
        r = loop_open(&loop, &err);
    if (r == 0)
        r = commit(&conf, options.quiet, loop, &err);
    loop_close(loop);
    disk_allow_close(allow);
    return r < 0 ? command_fail(r, &err) : STATUS_OK;
}
