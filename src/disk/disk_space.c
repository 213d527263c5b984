#include "disk/disk_space.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "base/number.h"
#include "disk/disk_thin.h"
#include "disk/file_protocol.h"

#define EVERY (10 * NS_PER_SEC)
#define COUNT (60 * NS_PER_SEC) /* promises are not added up more often than that */

bool disk_space_parse(const char *text, struct disk_space_limit *limit)
{
    const char *at = text;
    uint64_t n;

    *limit = (struct disk_space_limit){0};
    if (number_take(&at, &n) && strcmp(at, "%") == 0) {
        limit->percent = (unsigned)n;
        return n <= 100;
    }
    return number_size(text, &limit->bytes) && limit->bytes <= UINT64_C(1) << 60;
}

static bool is_watched(const struct disk_space *space)
{
    return space->limit.bytes || space->limit.percent;
}

/* As many bytes as are to be free. */
static uint64_t wanted(const struct disk_space *space, const struct statvfs *fs)
{
    uint64_t all = (uint64_t)fs->f_blocks * fs->f_frsize;
    return space->limit.percent ? all / 100 * space->limit.percent : space->limit.bytes;
}

/* There is little left, and it is less than what images promise; a thick one does not mind. */
static bool becomes_scarce(struct disk_space *space)
{
    const struct disk *disk = space->disk;
    struct disk_promises sum;
    char available[32], promised[32];

    if (space->counted && loop_now() - space->counted < COUNT)
        return false;
    space->counted = loop_now();
    if (!disk_thin_note(disk->path, disk->type->name) || disk_thin_promises(disk->path, disk->type->name, &sum) < 0 ||
        sum.promised <= sum.available)
        return false;
    log_warn(
        "disk '%.200s': its file system has %s left, and the thin images there that are known (%u) promise %s more",
        disk->path, disk_thin_amount(sum.available, available), sum.images, disk_thin_amount(sum.promised, promised));
    return true;
}

static void look(void *opaque)
{
    struct disk_space *space = opaque;
    struct statvfs fs;

    loop_timer_set(&space->timer, loop_now() + EVERY);
    if (statvfs(space->disk->path, &fs) < 0)
        return;
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize, least = wanted(space, &fs);
    atomic_store(&space->available, available);
    /* What comes and goes around the limit is one time of need. */
    if (atomic_load(&space->scarce))
        atomic_store(&space->scarce, available < least + least / 8);
    else if (available < least)
        atomic_store(&space->scarce, becomes_scarce(space));
}

void disk_space_init(struct disk_space *space, const struct disk *disk, const struct disk_space_limit *limit)
{
    struct stat st;

    *space = (struct disk_space){.disk = disk};
    loop_timer_init(&space->timer, disk->loop, look, space);
    if (disk->read_only || file_protocol_is(disk->path) || stat(disk->path, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    (void)disk_thin_note(disk->path, disk->type->name);
    space->limit = *limit;
    if (is_watched(space))
        look(space);
}

void disk_space_fini(struct disk_space *space)
{
    loop_timer_cancel(&space->timer);
}

bool disk_space_read(const struct disk_space *space, uint64_t *available, bool *scarce)
{
    *available = atomic_load(&space->available);
    *scarce = atomic_load(&space->scarce);
    return is_watched(space);
}
