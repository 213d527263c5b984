/* What not every format has: snapshots, bitmaps, a check, something to tell. Says so where it is missing. */
#include <errno.h>
#include <sys/stat.h>

#include "disk/disk_bitmap.h"
#include "disk/disk_check.h"
#include "disk/disk_info.h"
#include "disk/disk_snapshot.h"
#include "disk/file_protocol.h"

static int lacks(const struct disk *disk, const char *what, struct err *err)
{
    return err_set(err, -ENOTSUP, "disk '%.200s': its format '%s' has no %s; accepted is qcow2", disk->path,
                   disk->type->name, what);
}

static int writable(const struct disk *disk, struct err *err)
{
    return disk->read_only ? err_set(err, -EROFS, "disk '%.200s' is read-only", disk->path) : 0;
}

/* ---- snapshots ---- */

/* 0 when the disk has snapshots, and may be changed where that is asked for. */
static int snapshots(const struct disk *disk, bool change, struct err *err)
{
    if (!disk->type->snapshots)
        return lacks(disk, "snapshots", err);
    return change ? writable(disk, err) : 0;
}

int disk_snapshot_create(struct disk *disk, const char *name, int64_t time_ns, struct err *err)
{
    size_t len = strlen(name);
    int r = snapshots(disk, true, err);

    if (r < 0)
        return r;
    if (len == 0 || len >= DISK_SNAPSHOT_NAME_MAX)
        return err_set(err, -EINVAL, "disk '%.200s': a snapshot's name of %zu bytes; accepted are 1 to %d", disk->path,
                       len, DISK_SNAPSHOT_NAME_MAX - 1);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return err_set(err, -EINVAL, "disk '%.200s': a snapshot's name with the control character 0x%02x in it",
                           disk->path, (unsigned char)*c);
    return disk->type->snapshots->create(disk, name, time_ns, err);
}

int disk_snapshot_revert(struct disk *disk, const char *name, struct err *err)
{
    int r = snapshots(disk, true, err);
    return r < 0 ? r : disk->type->snapshots->revert(disk, name, err);
}

int disk_snapshot_remove(struct disk *disk, const char *name, struct err *err)
{
    int r = snapshots(disk, true, err);
    return r < 0 ? r : disk->type->snapshots->remove(disk, name, err);
}

int disk_snapshot_list(struct disk *disk, struct disk_snapshots *list, struct err *err)
{
    int r = snapshots(disk, false, err);

    *list = (struct disk_snapshots){0};
    return r < 0 ? r : disk->type->snapshots->list(disk, list, err);
}

int disk_snapshot_view(struct disk **view, struct disk *disk, const char *name, struct err *err)
{
    int r = snapshots(disk, false, err);

    *view = NULL;
    return r < 0 ? r : disk->type->snapshots->view(view, disk, name, err);
}

/* ---- bitmaps ---- */

static int bitmaps(const struct disk *disk, bool change, struct err *err)
{
    if (!disk->type->bitmaps)
        return lacks(disk, "bitmaps", err);
    return change ? writable(disk, err) : 0;
}

int disk_bitmap_create(struct disk *disk, const char *name, uint32_t granularity, struct err *err)
{
    size_t len = strlen(name);
    int r = bitmaps(disk, true, err);

    if (r < 0)
        return r;
    if (len == 0 || len >= DISK_BITMAP_NAME_MAX)
        return err_set(err, -EINVAL, "disk '%.200s': a bitmap's name of %zu bytes; accepted are 1 to %d", disk->path,
                       len, DISK_BITMAP_NAME_MAX - 1);
    return disk->type->bitmaps->create(disk, name, granularity, err);
}

int disk_bitmap_remove(struct disk *disk, const char *name, struct err *err)
{
    int r = bitmaps(disk, true, err);
    return r < 0 ? r : disk->type->bitmaps->remove(disk, name, err);
}

int disk_bitmap_clear(struct disk *disk, const char *name, struct err *err)
{
    int r = bitmaps(disk, true, err);
    return r < 0 ? r : disk->type->bitmaps->clear(disk, name, err);
}

int disk_bitmap_list(struct disk *disk, struct disk_bitmaps *list, struct err *err)
{
    int r = bitmaps(disk, false, err);

    *list = (struct disk_bitmaps){0};
    return r < 0 ? r : disk->type->bitmaps->list(disk, list, err);
}

int disk_bitmap_next(struct disk *disk, const char *name, uint64_t from, uint64_t *offset, uint64_t *len,
                     struct err *err)
{
    int r = bitmaps(disk, false, err);
    return r < 0 ? r : disk->type->bitmaps->next(disk, name, from, offset, len, err);
}

/* ---- the image as a whole ---- */

int disk_check_image(struct disk *disk, struct disk_check *check, struct err *err)
{
    if (!disk->type->check)
        return lacks(disk, "metadata to check", err);
    if (check->repair && disk->read_only)
        return writable(disk, err);
    return disk->type->check(disk, check, err);
}

void disk_info_get(const struct disk *disk, struct disk_info *info)
{
    struct stat st;

    *info = (struct disk_info){.size = disk->size};
    /* A server's files are not in a directory of ours. */
    if (!file_protocol_is(disk->path) && stat(disk->path, &st) == 0 && S_ISREG(st.st_mode)) {
        info->file_size = (uint64_t)st.st_size;
        info->allocated = (uint64_t)st.st_blocks * 512;
    }
    if (disk->type->info)
        disk->type->info(disk, info);
}
