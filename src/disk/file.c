#include "disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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
static int open_file(struct file *file, const struct disk_conf *conf, struct err *err)
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
static int lock(const struct file *file, const struct disk_conf *conf, struct err *err)
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

static int measure(struct file *file)
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
    file->size = size;
    return 0;
}

static int open_direct(struct file *file, const struct disk_conf *conf, struct err *err)
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

int file_open(struct file **out, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    struct file *file = calloc(1, sizeof(*file));
    int r;

    *out = NULL;
    if (!file)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", conf->path);
    file->loop = loop;
    file->read_only = conf->read_only;
    file->fd = file->buffered_fd = -1;
    snprintf(file->path, sizeof(file->path), "%s", conf->path);
    r = open_file(file, conf, err);
    if (r == 0)
        r = lock(file, conf, err);
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
        file_close(file);
        return r;
    }
    if (!conf->threads && file_ring_open(&file->ring, file) < 0)
        log_info("disk '%.200s': no io_uring here; threads do its work", conf->path);
    *out = file;
    return 0;
}

void file_close(struct file *file)
{
    if (!file)
        return;
    file_ring_close(file->ring);
    file_pool_close(file->pool);
    if (file->fd >= 0 && file->fd != file->buffered_fd)
        close(file->fd);
    if (file->buffered_fd >= 0)
        close(file->buffered_fd);
    free(file);
}

uint64_t file_size(const struct file *file)
{
    return file->size;
}

void file_grew(struct file *file, uint64_t end)
{
    uint64_t size = file->size;

    while (end > size && !atomic_compare_exchange_weak(&file->size, &size, end))
        ;
}

void file_submit(struct file *file, struct disk_request *req)
{
    bool work = req->op == DISK_DISCARD || req->op == DISK_ZERO || req->op == DISK_MAP;

    if (work || !file->ring)
        file_pool_submit(file->pool, req, 0);
    else
        file_ring_submit(file->ring, req);
}

void file_wait(struct file *file)
{
    if (!file->ring || !file_ring_wait(file->ring))
        file_pool_wait(file->pool);
}

/* ---- the calling thread waits ---- */

static int transfer(struct file *file, enum disk_op op, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct disk_request req = {.op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1};

    return file_plain_do(file, &req, 0);
}

int file_read(struct file *file, uint64_t offset, void *buf, size_t len)
{
    return transfer(file, DISK_READ, offset, buf, len);
}

int file_write(struct file *file, uint64_t offset, const void *buf, size_t len)
{
    return transfer(file, DISK_WRITE, offset, (void *)(uintptr_t)buf, len);
}

int file_sync(struct file *file)
{
    const struct disk_request req = {.op = DISK_FLUSH};
    return file_plain_do(file, &req, 0);
}

int file_truncate(struct file *file, uint64_t size)
{
    if (file->block_device) {
        int r = measure(file);
        return r < 0 ? r : size <= file->size ? 0 : -ENOTSUP;
    }
    while (ftruncate(file->buffered_fd, (off_t)size) < 0)
        if (errno != EINTR)
            return -errno;
    file->size = size;
    return 0;
}
