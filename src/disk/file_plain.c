/*
 * A request done by calls that wait. Short transfers go on where they stopped, signals do not matter, and what the file system cannot do by itself
 * is done by writing zeroes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "disk/file_impl.h"

#define PART_IOVS 64

int file_plain_fd(const struct file_host *file, const struct disk_request *req)
{
    uint64_t bits = req->offset | req->len;

    if (!file->align)
        return file->fd;
    for (unsigned i = 0; i < req->n_iov; i++)
        bits |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
    return bits % file->align ? file->buffered_fd : file->fd;
}

/* The vectors from `from` bytes on, as many as `part` holds. */
static int slice(const struct disk_request *req, uint64_t from, struct iovec part[PART_IOVS])
{
    unsigned i = 0;
    int n = 0;

    for (; i < req->n_iov && from >= req->iov[i].iov_len; i++)
        from -= req->iov[i].iov_len;
    for (; i < req->n_iov && n < PART_IOVS; i++, from = 0)
        part[n++] =
            (struct iovec){.iov_base = (char *)req->iov[i].iov_base + from, .iov_len = req->iov[i].iov_len - from};
    return n;
}

bool file_plain_pad(struct file_host *file, const struct disk_request *req, uint64_t got)
{
    struct iovec part[PART_IOVS];

    if (req->offset + got < file->base.size)
        return false;
    while (got < req->len) {
        int n = slice(req, got, part);
        for (int i = 0; i < n; i++) {
            memset(part[i].iov_base, 0, part[i].iov_len);
            got += part[i].iov_len;
        }
    }
    return true;
}

/* One vector costs less without the list. */
static ssize_t transfer(int fd, bool write, const struct iovec *iov, int n, off_t at)
{
    if (n == 1)
        return write ? pwrite(fd, iov->iov_base, iov->iov_len, at) : pread(fd, iov->iov_base, iov->iov_len, at);
    return write ? pwritev(fd, iov, n, at) : preadv(fd, iov, n, at);
}

static int move(struct file_host *file, const struct disk_request *req, uint64_t from)
{
    /* What is left of a direct transfer need not be aligned. */
    int fd = from ? file->buffered_fd : file_plain_fd(file, req);
    struct iovec part[PART_IOVS];

    while (from < req->len) {
        int n = slice(req, from, part);
        ssize_t moved = transfer(fd, req->op == DISK_WRITE, part, n, (off_t)(req->offset + from));
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return -errno;
        if (moved == 0)
            /* The end: where it should be, or before that, as somebody else has cut the file off. */
            return req->op == DISK_READ && file_plain_pad(file, req, from) ? 0 : -EIO;
        from += (uint64_t)moved;
        fd = from % DISK_BLOCK_SIZE ? file->buffered_fd : fd;
    }
    if (req->op == DISK_WRITE)
        file_grew(&file->base, req->offset + req->len);
    return 0;
}

bool file_plain_at_hand(struct file_host *file, const struct disk_request *req)
{
    if (req->n_iov > PART_IOVS)
        return false;
    ssize_t n = preadv2(file->buffered_fd, req->iov, (int)req->n_iov, (off_t)req->offset, RWF_NOWAIT);
    if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL))
        file->no_nowait = true;
    return n >= 0 && (uint64_t)n == req->len;
}

static int sync_data(const struct file_host *file)
{
    while (fdatasync(file->buffered_fd) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int write_zeroes(struct file_host *file, uint64_t offset, uint64_t len)
{
    static const char zeroes[64 * KIB];

    while (len) {
        uint64_t n = len < sizeof(zeroes) ? len : sizeof(zeroes);
        ssize_t written = pwrite(file->buffered_fd, zeroes, n, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        offset += (uint64_t)written;
        len -= (uint64_t)written;
        file_grew(&file->base, offset);
    }
    return 0;
}

/* Whether the file system cannot, which is no error: it has other ways. */
static bool cannot(int r)
{
    return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENODEV || r == -EINVAL || r == -ENOTTY;
}

static int allocate(const struct file_host *file, int mode, uint64_t offset, uint64_t len)
{
    while (fallocate(file->buffered_fd, mode, (off_t)offset, (off_t)len) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int on_device(const struct file_host *file, unsigned long command, uint64_t offset, uint64_t len)
{
    uint64_t range[2] = {offset, len};

    while (ioctl(file->buffered_fd, command, range) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* Gives the range's room back, and it reads as zeroes; -EOPNOTSUPP where that is not to be had. */
static int punch(struct file_host *file, uint64_t offset, uint64_t len)
{
    if (file->no_punch)
        return -EOPNOTSUPP;
    int r = allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (!cannot(r))
        return r;
    file->no_punch = r != -EINVAL;
    return -EOPNOTSUPP;
}

static int discard(struct file_host *file, uint64_t offset, uint64_t len)
{
    int r = file->block_device ? on_device(file, BLKDISCARD, offset, len) : punch(file, offset, len);
    return cannot(r) ? 0 : r;
}

static int zero(struct file_host *file, const struct disk_request *req)
{
    int r = req->unmap ? punch(file, req->offset, req->len) : -EOPNOTSUPP;

    if (!cannot(r))
        return r;
    if (file->block_device)
        r = on_device(file, BLKZEROOUT, req->offset, req->len);
    else if (!file->no_zero_range)
        r = allocate(file, FALLOC_FL_ZERO_RANGE, req->offset, req->len);
    if (r == 0)
        file_grew(&file->base, req->offset + req->len);
    if (!cannot(r))
        return r;
    file->no_zero_range = r != -EINVAL;
    return write_zeroes(file, req->offset, req->len);
}

/* What lseek() finds from `at` on, within the range's end; the end where there is nothing. -errno where the file system cannot tell. */
static int64_t seek(const struct file_host *file, uint64_t at, int what, uint64_t end)
{
    off_t found = lseek(file->buffered_fd, (off_t)at, what);

    if (found < 0)
        return errno == ENXIO ? (int64_t)end : -errno;
    return (uint64_t)found < end ? found : (int64_t)end;
}

/* One more, whole blocks; true where that was the last there is room for. */
static bool add_extent(struct disk_request *req, unsigned room, enum disk_extent_kind kind, uint64_t at, uint64_t to)
{
    if (at < to)
        req->extents[req->n_extents++] = (struct disk_extent){.kind = kind,
                                                              .offset = at,
                                                              .len = to - at,
                                                              .has_host = kind == DISK_EXTENT_DATA,
                                                              .host_offset = kind == DISK_EXTENT_DATA ? at : 0};
    return req->n_extents == room;
}

int file_plain_map(struct file_host *file, struct disk_request *req)
{
    uint64_t at = req->offset, end = req->offset + req->len;
    unsigned room = req->n_extents;

    req->n_extents = 0;
    while (at < end) {
        int64_t data = file->block_device ? (int64_t)at : seek(file, at, SEEK_DATA, end);
        int64_t hole = file->block_device || data < 0 ? (int64_t)end : seek(file, (uint64_t)data, SEEK_HOLE, end);
        if (data < 0 || hole < 0) {
            data = (int64_t)at;
            hole = (int64_t)end;
        }
        uint64_t from = align_down((uint64_t)data, DISK_BLOCK_SIZE), to = align_up((uint64_t)hole, DISK_BLOCK_SIZE);
        if (to > end)
            to = end;
        if (from < at)
            from = at;
        if (to <= at && from <= at) /* no progress: somebody cuts the file off as we look */
            from = to = end;
        if (add_extent(req, room, DISK_EXTENT_HOLE, at, from) || add_extent(req, room, DISK_EXTENT_DATA, from, to))
            break;
        at = to;
    }
    return 0;
}

int file_plain_do(struct file_host *file, const struct disk_request *req, uint64_t from)
{
    switch (req->op) {
    case DISK_READ:
    case DISK_WRITE:
        return move(file, req, from);
    case DISK_FLUSH:
        return sync_data(file);
    case DISK_DISCARD:
        return req->len ? discard(file, req->offset, req->len) : 0;
    case DISK_ZERO:
        return req->len ? zero(file, req) : 0;
    case DISK_MAP:
        return -ENOTSUP;
    }
    return -EINVAL;
}
