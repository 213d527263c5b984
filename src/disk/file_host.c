/* Files and block devices of the host: how they are opened, locked and measured, and who does which request. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/file_impl.h"

#define DIRECT_ALIGN 4096 /* suits every disk there is */

static int complain(const struct disk_conf *conf, int code, struct err *err)
{
    bool hint = !conf->read_only && (code == -EACCES || code == -EROFS || code == -EPERM);
    return err_set(err, code, "disk '%.200s': %s%s", conf->path, strerror(-code),
                   hint ? "; readonly asks only for the right to read" : "");
}

static int open_fd(const struct disk_conf *conf, int flags)
{
    int fd = open(conf->path, (conf->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | flags);
    return fd < 0 ? -errno : fd;
}

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode))
        return "a directory";
    if (S_ISFIFO(mode))
        return "a FIFO";
    if (S_ISCHR(mode))
        return "a character device";
    return "a socket";
}

static int complain_kind(const struct disk_conf *conf, mode_t mode, struct err *err)
{
    return err_set(err, -EINVAL, "disk '%.200s' is %s; accepted are a regular file and a block device", conf->path,
                   kind_of(mode));
}

/* The descriptor through the page cache, of a file that is one: sets fd and block_device. */
static int open_file(struct file_host *file, const struct disk_conf *conf, struct err *err)
{
    struct stat st;

    /* Looked at first: opening does something to some devices, and waits at a FIFO. */
    if (stat(conf->path, &st) < 0)
        return complain(conf, -errno, err);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return complain_kind(conf, st.st_mode, err);
    /* A block device that the host has mounted is not for writers: O_EXCL finds that out. */
    file->buffered_fd = open_fd(conf, O_NONBLOCK | (S_ISBLK(st.st_mode) && !conf->read_only ? O_EXCL : 0));
    if (file->buffered_fd == -EBUSY)
        return err_set(err, -EBUSY, "disk '%.200s': the host uses the device: it is mounted, or part of another",
                       conf->path);
    if (file->buffered_fd < 0)
        return complain(conf, file->buffered_fd, err);
    if (fstat(file->buffered_fd, &st) < 0)
        return complain(conf, -errno, err);
    struct statfs fs;
    file->in_memory = S_ISREG(st.st_mode) && fstatfs(file->buffered_fd, &fs) == 0 &&
                      (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return complain_kind(conf, st.st_mode, err);
    fcntl(file->buffered_fd, F_SETFL, 0);
    file->block_device = S_ISBLK(st.st_mode);
    return 0;
}

/*
 * Open file description locks: a second opening conflicts, also within this process, and QEMU's conflict with them. They end with the
 * descriptor.
 */
static int lock(const struct file_host *file, const struct disk_conf *conf, struct err *err)
{
    struct flock whole = {.l_type = conf->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(file->buffered_fd, F_OFD_SETLK, &whole) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return err_set(err, -EBUSY, "disk '%.200s' is locked: %s", conf->path,
                       conf->read_only ? "somebody else writes to it"
                                       : "somebody else uses it; accepted are one writer, or readers alone (readonly)");
    log_warn("disk '%.200s': the host has no lock for it (%s): see that nobody else writes to it", conf->path,
             strerror(errno));
    return 0;
}

static int measure(struct file_host *file)
{
    struct stat st;
    uint64_t size;

    if (file->block_device) {
        if (ioctl(file->buffered_fd, BLKGETSIZE64, &size) < 0)
            return -errno;
    } else {
        if (fstat(file->buffered_fd, &st) < 0)
            return -errno;
        size = (uint64_t)st.st_size;
    }
    file->base.size = size;
    return 0;
}

static int open_direct(struct file_host *file, const struct disk_conf *conf, struct err *err)
{
    file->fd = file->buffered_fd;
    if (!conf->direct)
        return 0;
    file->fd = open_fd(conf, O_DIRECT);
    if (file->fd == -EINVAL)
        return err_set(err, -EINVAL, "disk '%.200s': direct: its file system has no way past the page cache",
                       conf->path);
    if (file->fd < 0)
        return complain(conf, file->fd, err);
    file->align = DIRECT_ALIGN;
    return 0;
}

static void close_host(struct file *base)
{
    struct file_host *file = CONTAINER_OF(base, struct file_host, base);

    file_ring_close(file->ring);
    file_pool_close(file->pool);
    if (file->fd >= 0 && file->fd != file->buffered_fd)
        close(file->fd);
    if (file->buffered_fd >= 0)
        close(file->buffered_fd);
    free(file);
}

static void submit(struct file *base, struct disk_request *req)
{
    struct file_host *file = CONTAINER_OF(base, struct file_host, base);
    bool work = req->op == DISK_DISCARD || req->op == DISK_ZERO || req->op == DISK_MAP;

    if (work || !file->ring)
        file_pool_submit(file->pool, req, 0);
    else
        file_ring_submit(file->ring, req);
}

static void wait_host(struct file *base)
{
    struct file_host *file = CONTAINER_OF(base, struct file_host, base);

    if (!file->ring || !file_ring_wait(file->ring))
        file_pool_wait(file->pool);
}

static int call(struct file *base, const struct disk_request *req)
{
    return file_plain_do(CONTAINER_OF(base, struct file_host, base), req, 0);
}

static int truncate_host(struct file *base, uint64_t size)
{
    struct file_host *file = CONTAINER_OF(base, struct file_host, base);

    if (file->block_device) {
        int r = measure(file);
        return r < 0 ? r : size <= base->size ? 0 : -ENOTSUP;
    }
    while (ftruncate(file->buffered_fd, (off_t)size) < 0)
        if (errno != EINTR)
            return -errno;
    base->size = size;
    return 0;
}

static const struct file_type type = {
    .submit = submit, .wait = wait_host, .call = call, .truncate = truncate_host, .close = close_host};

int file_host_open(struct file **out, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    struct file_host *file = calloc(1, sizeof(*file));
    int r;

    *out = NULL;
    if (!file)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", conf->path);
    file->base.type = &type;
    file->base.loop = loop;
    file->read_only = conf->read_only;
    file->fd = file->buffered_fd = -1;
    snprintf(file->path, sizeof(file->path), "%s", conf->path);
    r = open_file(file, conf, err);
    if (r == 0)
        r = conf->no_lock && conf->read_only ? 0 : lock(file, conf, err);
    if (r == 0) {
        r = measure(file);
        if (r < 0)
            complain(conf, r, err);
    }
    if (r == 0)
        r = open_direct(file, conf, err);
    if (r == 0)
        r = file_pool_open(&file->pool, file, err);
    if (r < 0) {
        close_host(&file->base);
        return r;
    }
    if (!conf->threads && file_ring_open(&file->ring, file) < 0)
        log_info("disk '%.200s': no io_uring here; threads do its work", conf->path);
    *out = &file->base;
    return 0;
}
