/* Whether a backup would be where its source is. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "disk/file_protocol.h"
#include "image/backup.h"

/* The whole disk that a block device is of, as sysfs names it; false where that is not known. */
static bool disk_of(dev_t dev, char name[PATH_MAX])
{
    char path[128], part[160];

    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
    if (!realpath(path, name))
        return false;
    snprintf(part, sizeof(part), "%s/partition", path);
    char *slash = access(part, F_OK) == 0 ? strrchr(name, '/') : NULL;
    if (slash)
        *slash = '\0';
    return true;
}

static bool stat_existing(const char *path, struct stat *st)
{
    char parent[PATH_MAX];

    if (stat(path, st) == 0)
        return true;
    snprintf(parent, sizeof(parent), "%s", path);
    for (size_t n = strlen(parent); n > 1 && parent[n - 1] == '/'; n--)
        parent[n - 1] = '\0';
    char *slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    return stat(slash ? parent : ".", st) == 0;
}

int backup_same_place(const char *path, const char *repo, struct err *err)
{
    char a[PATH_MAX], b[PATH_MAX];
    struct stat image, directory;

    if (file_protocol_is(path) || stat(path, &image) < 0 || !stat_existing(repo, &directory))
        return 0; /* elsewhere, or an error that others find */
    bool device = S_ISBLK(image.st_mode);
    if (device ? disk_of(image.st_rdev, a) && disk_of(directory.st_dev, b) && strcmp(a, b) == 0
               : image.st_dev == directory.st_dev)
        return err_set(
            err, -EPERM,
            "'%.200s' and '%.200s' are on the same %s: what ends one ends the other, and a backup is not one "
            "there; --same-disk-anyway makes it all the same",
            path, repo, device ? "disk" : "file system");
    return 0;
}
