#include "disk/disk_thin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/disk.h"
#include "disk/disk_known.h"
#include "disk/file_protocol.h"

#define MAX_FILES 10000

#define QCOW2_SIZE_AT 24 /* in the header, big-endian */

/* What an image promises, told from others by its inode: a list may have it twice. */
struct item {
    ino_t ino;
    unsigned order;
    uint64_t bytes;
};

struct gathering {
    struct item *items;
    unsigned n, room;
    dev_t dev;             /* of the file system */
    int root;              /* its directory nearest to the root; -1: not known */
    char prefix[PATH_MAX]; /* that directory's name, with a slash at the end */
    bool failed;           /* out of memory */
};

/* ---- one image ---- */

static uint64_t qcow2_size(int fd)
{
    char name[40];
    uint8_t size[8];

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    int readable = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = readable < 0 ? -1 : pread(readable, size, sizeof(size), QCOW2_SIZE_AT);
    if (readable >= 0)
        close(readable);
    uint64_t bytes = n == sizeof(size) ? __builtin_bswap64(load_le64(size)) : 0;
    return bytes < UINT64_C(1) << 56 ? bytes : 0;
}

/* By its format, never by what it holds. fd: O_PATH will do. 0 where it is no file, or holds all that it promises. */
static uint64_t promise_of(int fd, const char *format, struct stat *st)
{
    if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode))
        return 0;
    uint64_t size = strcmp(format, "qcow2") == 0 ? qcow2_size(fd) : (uint64_t)st->st_size;
    uint64_t taken = (uint64_t)st->st_blocks * 512;
    return size > taken ? size - taken : 0;
}

/* Takes fd, which may be an error. */
static void add(struct gathering *g, int fd, const char *format)
{
    struct stat st;

    if (fd < 0)
        return;
    uint64_t bytes = promise_of(fd, format, &st);
    close(fd);
    if (!bytes || st.st_dev != g->dev)
        return;
    if (g->n == g->room) {
        unsigned room = g->room ? g->room * 2 : 64;
        struct item *items = realloc(g->items, room * sizeof(*items));
        if (!items) {
            g->failed = true;
            return;
        }
        g->items = items;
        g->room = room;
    }
    g->items[g->n] = (struct item){st.st_ino, g->n, bytes};
    g->n++;
}

/* ---- its directory ---- */

/* The directory that `path` lies in, links followed, whose name is in `real`, and the file's name there in *name, which is in `real` too. */
static int open_directory(const char *path, char real[PATH_MAX], const char **name)
{
    if (file_protocol_is(path) || !realpath(path, real))
        return -ENOENT;
    char *slash = strrchr(real, '/');
    *name = slash + 1;
    *slash = '\0';
    int fd = open(*real ? real : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int open_in(int dir, const char *name)
{
    return openat(dir, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
}

static void add_directory(struct gathering *g, DIR *dir)
{
    struct err err;
    unsigned files = 0;

    for (struct dirent *e; files++ < MAX_FILES && (e = readdir(dir));) {
        const char *format = disk_format(&(struct disk_conf){.path = e->d_name}, &err);
        if (format)
            add(g, open_in(dirfd(dir), e->d_name), format);
    }
}

/* ---- its file system ---- */

/* Up from the directory called `real`, "" for the root, as far as the file system goes. */
static void find_root(struct gathering *g, const char *real)
{
    char name[PATH_MAX];
    size_t len = strlen(real);
    struct stat st;

    memcpy(name, real, len + 1);
    for (char *slash; (slash = strrchr(name, '/')); len = (size_t)(slash - name)) {
        *slash = '\0';
        if (stat(*name ? name : "/", &st) < 0 || st.st_dev != g->dev)
            break;
    }
    if (len + 1 >= sizeof(g->prefix))
        return;
    memcpy(g->prefix, real, len);
    memcpy(g->prefix + len, "/", 2);
    g->root = open(g->prefix, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Does not so much as look at other file systems: they may be on a server that is gone. */
static void add_known(void *opaque, const char *format, const char *path)
{
    struct gathering *g = opaque;
    size_t n = strlen(g->prefix);
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW, .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};

    if (strncmp(path, g->prefix, n) == 0)
        add(g, (int)syscall(SYS_openat2, g->root, path + n, &how, sizeof(how)), format);
}

/* ---- all of them ---- */

static int by_inode(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->ino != y->ino)
        return x->ino < y->ino ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static int gather(struct gathering *g, const char *path, const char *format, struct disk_promises *sum)
{
    char real[PATH_MAX];
    const char *name;
    struct statvfs fs;
    struct stat st;
    int fd = open_directory(path, real, &name);

    if (fd < 0)
        return fd;
    DIR *dir = fstat(fd, &st) == 0 && fstatvfs(fd, &fs) == 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int r = -errno;
        close(fd);
        return r;
    }
    sum->available = (uint64_t)fs.f_bavail * fs.f_frsize;
    g->dev = st.st_dev;
    add(g, open_in(fd, name), format);
    find_root(g, real);
    if (g->root >= 0)
        disk_known_each(add_known, g);
    add_directory(g, dir);
    closedir(dir);
    return g->failed ? -ENOMEM : 0;
}

int disk_thin_promises(const char *path, const char *format, struct disk_promises *sum)
{
    struct gathering g = {.root = -1};

    *sum = (struct disk_promises){0};
    int r = gather(&g, path, format, sum);
    if (g.n)
        qsort(g.items, g.n, sizeof(*g.items), by_inode);
    for (unsigned i = 0; i < g.n; i++)
        if (i == 0 || g.items[i].ino != g.items[i - 1].ino) {
            sum->images++;
            sum->promised += g.items[i].bytes;
        }
    free(g.items);
    if (g.root >= 0)
        close(g.root);
    return r;
}

uint64_t disk_thin_note(const char *path, const char *format)
{
    char real[PATH_MAX];
    const char *name;
    struct stat st;
    int dir = open_directory(path, real, &name);

    if (dir < 0)
        return 0;
    int fd = open_in(dir, name);
    uint64_t bytes = fd < 0 ? 0 : promise_of(fd, format, &st);
    if (fd >= 0)
        close(fd);
    close(dir);
    if (bytes && realpath(path, real))
        disk_known_add(format, real);
    return bytes;
}

const char *disk_thin_amount(uint64_t bytes, char buf[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    unsigned unit = 0;

    for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
        value /= 1024;
    snprintf(buf, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buf;
}

void disk_thin_warn(const char *path, const char *format)
{
    struct disk_promises sum;
    char more[32], promised[32], available[32];

    if (disk_thin_promises(path, format, &sum) < 0 || sum.promised <= sum.available)
        return;
    log_warn(
        "disk '%.200s': the thin images on its file system that are known (%u) promise %s to their guests that they "
        "do not hold yet; it has %s free: %s are missing",
        path, sum.images, disk_thin_amount(sum.promised, promised), disk_thin_amount(sum.available, available),
        disk_thin_amount(sum.promised - sum.available, more));
}
