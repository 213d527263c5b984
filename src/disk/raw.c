/*
 * The raw format: the bytes as they are. A file whose end is within a block reads as zeroes from there to the block's end, and grows with the first write to
 * that block.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/file.h"
#include "disk/format.h"
#include "disk/raw_discard.h"

struct raw {
    struct disk disk;
    struct file *file;
    struct raw_discard discard;
};

static void submit(struct disk *disk, struct disk_request *req)
{
    struct raw *raw = CONTAINER_OF(disk, struct raw, disk);

    if (req->compress)
        disk_complete_later(disk, req, -ENOTSUP);
    else
        raw_discard_submit(&raw->discard, req);
}

static int resize(struct disk *disk, uint64_t size, struct err *err)
{
    struct raw *raw = CONTAINER_OF(disk, struct raw, disk);
    raw_discard_drain(&raw->discard);
    int r = file_truncate(raw->file, size);

    if (r == -ENOTSUP)
        return err_set(err, r, "disk '%.200s': a block device of %" PRIu64 " bytes, which only the host can change",
                       disk->path, file_size(raw->file));
    if (r < 0)
        return err_set(err, r, "disk '%.200s': size %" PRIu64 ": %s", disk->path, size, strerror(-r));
    disk->size = size;
    return 0;
}

static void close_raw(struct disk *disk)
{
    struct raw *raw = CONTAINER_OF(disk, struct raw, disk);

    raw_discard_drain(&raw->discard);
    file_close(raw->file);
    free(raw);
}

static void wait_raw(struct disk *disk)
{
    file_wait(CONTAINER_OF(disk, struct raw, disk)->file);
}

static const struct disk_type type = {
    .name = "raw", .submit = submit, .resize = resize, .wait = wait_raw, .close = close_raw};

int raw_open(struct disk **disk, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    struct raw *raw = calloc(1, sizeof(*raw));
    int r;

    *disk = NULL;
    if (!raw)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", conf->path);
    r = file_open(&raw->file, conf, loop, err);
    if (r < 0)
        goto free_raw;
    disk_init(&raw->disk, &type, conf, loop);
    raw_discard_init(&raw->discard, &raw->disk, raw->file);
    uint64_t size = file_size(raw->file);
    if (size == 0) {
        r = err_set(err, -EINVAL, "disk '%.200s' is empty; accepted is a file of at least one block of %d bytes",
                    conf->path, DISK_BLOCK_SIZE);
        goto close_file;
    }
    raw->disk.size = align_up(size, DISK_BLOCK_SIZE);
    if (size != raw->disk.size)
        log_warn("disk '%.200s': %" PRIu64 " bytes are no whole number of %d-byte blocks; the guest sees %" PRIu64,
                 conf->path, size, DISK_BLOCK_SIZE, raw->disk.size);
    *disk = &raw->disk;
    return 0;

close_file:
    loop_event_fini(&raw->disk.easy_event);
    file_close(raw->file);
free_raw:
    free(raw);
    return r;
}

/* What only qcow2 has. */
static const char *foreign_wish(const struct disk_create_conf *conf)
{
    return conf->version          ? "version"
           : conf->cluster_size   ? "cluster-size"
           : conf->refcount_bits  ? "refcount-bits"
           : conf->compression    ? "compression"
           : conf->extended_l2    ? "extended-l2"
           : conf->lazy_refcounts ? "lazy-refcounts"
           : conf->backing        ? "backing"
                                  : NULL;
}

int raw_create(const struct disk_create_conf *conf, struct err *err)
{
    const char *name = conf->name ? conf->name : conf->path;
    const char *wish = foreign_wish(conf);
    if (wish)
        return err_set(err, -EINVAL, "disk '%.200s': %s, which raw has not; accepted is format qcow2", name, wish);
    if (conf->preallocation == DISK_PREALLOCATE_METADATA)
        return err_set(
            err, -EINVAL,
            "disk '%.200s': preallocation of metadata, of which raw has none; accepted are off, falloc and full", name);
    int fd = format_new_file(conf->path), r;

    if (fd < 0)
        return format_cannot_make(conf, fd, err);
    r = ftruncate(fd, (off_t)conf->size) < 0 ? -errno : 0;
    if (r == 0)
        r = format_preallocate(fd, conf, conf->size, err);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    close(fd);
    if (r == 0)
        return 0;
    unlink(conf->path);
    return format_cannot_make(conf, r, err);
}
