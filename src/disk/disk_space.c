#include "disk/disk_space.h"

#include <sys/statvfs.h>

#include "base/log.h"
#include "disk/disk_thin.h"

#define EVERY (10 * NS_PER_SEC)

/* Whether what is free is less than wished for, and less than what the images promise. */
static bool is_scarce(const struct disk_space *space, struct disk_promises *sum)
{
    const char *path = space->disk->path;
    struct statvfs fs;
    uint64_t own;

    if (statvfs(path, &fs) < 0 || (uint64_t)fs.f_bavail * fs.f_frsize >= space->least)
        return false;
    if (disk_thin_promise(path, &own) < 0 || !own)
        return false;
    return disk_thin_promises(path, sum) == 0 && sum->promised > sum->available;
}

static void look(void *opaque)
{
    struct disk_space *space = opaque;
    struct disk_promises sum;
    bool scarce = is_scarce(space, &sum);

    if (scarce && !space->warned)
        log_warn(
            "disk '%.200s': its file system has %llu bytes left, and the thin images of its directory promise %llu",
            space->disk->path, (unsigned long long)sum.available, (unsigned long long)sum.promised);
    space->warned = scarce;
    loop_timer_set(&space->timer, loop_now() + EVERY);
}

void disk_space_init(struct disk_space *space, const struct disk *disk, uint64_t least)
{
    *space = (struct disk_space){.disk = disk, .least = least};
    loop_timer_init(&space->timer, disk->loop, look, space);
    if (least && !disk->read_only && !strstr(disk->path, "://"))
        loop_timer_set(&space->timer, loop_now());
}

void disk_space_fini(struct disk_space *space)
{
    loop_timer_cancel(&space->timer);
}
