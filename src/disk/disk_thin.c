#include "disk/disk_thin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"

#define MAX_FILES 10000

#define QCOW2_SIZE_AT 24 /* in the header, big-endian */

static bool named_like(const char *name, const char *endings)
{
    size_t n = strlen(name);

    while (*endings) {
        size_t len = strcspn(endings, " ");
        if (n > len && memcmp(name + n - len, endings, len) == 0)
            return true;
        endings += len + (endings[len] == ' ');
    }
    return false;
}

/* The size that the image tells its guest; 0: it is none. By its name, never by what it holds. */
static uint64_t guest_size(int dir, const char *name, const struct stat *st)
{
    uint8_t size[8] = {0};

    if (named_like(name, ".raw .img"))
        return (uint64_t)st->st_size;
    if (!named_like(name, ".qcow2"))
        return 0;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : pread(fd, size, sizeof(size), QCOW2_SIZE_AT);
    if (fd >= 0)
        close(fd);
    uint64_t bytes = n == sizeof(size) ? __builtin_bswap64(load_le64(size)) : 0;
    return bytes < UINT64_C(1) << 56 ? bytes : 0;
}

/* Of one file of the directory; 0 where it is no image, or holds all that it promises. */
static uint64_t promise(int dir, const char *name)
{
    struct stat st;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return 0;
    uint64_t size = guest_size(dir, name, &st), taken = (uint64_t)st.st_blocks * 512;
    return size > taken ? size - taken : 0;
}

/* The directory that `path` lies in, links followed, and its name there in *name, which is realpath()'s. */
static int open_directory(const char *path, char real[PATH_MAX], const char **name)
{
    if (strstr(path, "://") || !realpath(path, real))
        return -ENOENT;
    char *slash = strrchr(real, '/');
    *name = slash + 1;
    *slash = '\0';
    int fd = open(*real ? real : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int disk_thin_promise(const char *path, uint64_t *bytes)
{
    char real[PATH_MAX];
    const char *name;
    int dir = open_directory(path, real, &name);

    *bytes = 0;
    if (dir < 0)
        return dir;
    *bytes = promise(dir, name);
    close(dir);
    return 0;
}

int disk_thin_promises(const char *path, struct disk_promises *sum)
{
    char real[PATH_MAX];
    const char *name;
    struct statvfs fs;
    unsigned files = 0;

    *sum = (struct disk_promises){0};
    int fd = open_directory(path, real, &name);
    if (fd < 0)
        return fd;
    DIR *dir = fstatvfs(fd, &fs) == 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int r = -errno;
        close(fd);
        return r;
    }
    sum->available = (uint64_t)fs.f_bavail * fs.f_frsize;
    for (struct dirent *e; files++ < MAX_FILES && (e = readdir(dir));) {
        uint64_t bytes = promise(dirfd(dir), e->d_name);
        sum->images += bytes != 0;
        sum->promised += bytes;
    }
    closedir(dir);
    return 0;
}

/* "1.5 GiB" */
static const char *in_words(uint64_t bytes, char buf[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    unsigned unit = 0;

    for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
        value /= 1024;
    snprintf(buf, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buf;
}

void disk_thin_warn(const char *path)
{
    struct disk_promises sum;
    char more[32], promised[32], available[32];

    if (disk_thin_promises(path, &sum) < 0 || sum.promised <= sum.available)
        return;
    log_warn("disk '%.200s': the thin images of its directory (%u) promise %s to their guests that they do not hold "
             "yet; the file "
             "system has %s free: %s are missing",
             path, sum.images, in_words(sum.promised, promised), in_words(sum.available, available),
             in_words(sum.promised - sum.available, more));
}
