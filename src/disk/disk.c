#include "disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk_bitmap.h"
#include "disk/file_protocol.h"
#include "disk/format.h"

struct format {
    const char *name;
    const char *endings;
    int (*open)(struct disk **disk, const struct disk_conf *conf, struct loop *loop, struct err *err);
    int (*create)(const struct disk_create_conf *conf, struct err *err);
};

static const struct format formats[] = {
#define FORMAT(name, endings, help) {#name, endings, name##_open, name##_create},
#include "disk/formats.def"
#undef FORMAT
};

static bool ends_with(const char *path, const char *ending, size_t len)
{
    size_t n = file_protocol_length(path);
    return n > len && memcmp(path + n - len, ending, len) == 0;
}

/* endings: ".raw .img" */
static bool ends_with_any(const char *path, const char *endings)
{
    while (*endings) {
        size_t len = strcspn(endings, " ");
        if (ends_with(path, endings, len))
            return true;
        endings += len + (endings[len] == ' ');
    }
    return false;
}

/* "raw (.raw .img), qcow2 (.qcow2)" */
static void list_formats(char *buf, size_t size)
{
    size_t at = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(formats) && at < size; i++)
        at += (size_t)snprintf(buf + at, size - at, "%s%s (%s)", i ? ", " : "", formats[i].name, formats[i].endings);
}

static const struct format *find(const struct disk_conf *conf, struct err *err)
{
    char list[160];

    if (file_protocol_check(conf->path, err) < 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (conf->format ? strcmp(conf->format, formats[i].name) == 0 : ends_with_any(conf->path, formats[i].endings))
            return &formats[i];
    list_formats(list, sizeof(list));
    if (conf->format)
        err_set(err, -EINVAL, "disk '%.200s': format '%.60s' is none of %s", conf->path, conf->format, list);
    else
        err_set(err, -EINVAL, "disk '%.200s': the name's ending tells no format; accepted is format= with one of %s",
                conf->path, list);
    return NULL;
}

int disk_check(const struct disk_conf *conf, struct err *err)
{
    return find(conf, err) ? 0 : -EINVAL;
}

const char *disk_format(const struct disk_conf *conf, struct err *err)
{
    const struct format *format = find(conf, err);
    return format ? format->name : NULL;
}

int disk_open(struct disk **disk, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    const struct format *format = find(conf, err);

    *disk = NULL;
    if (!format)
        return -EINVAL;
    if (strlen(conf->path) >= sizeof((*disk)->path))
        return err_set(err, -ENAMETOOLONG, "disk '%.60s...': accepted are names up to %zu characters", conf->path,
                       sizeof((*disk)->path) - 1);
    return format->open(disk, conf, loop, err);
}

/* Writes zeroes over what nobody has written yet; what there is stays as it is. */
static int write_full(int fd, const struct disk_create_conf *conf, uint64_t size, struct err *err)
{
    uint8_t *zeroes = calloc(1, MIB);
    uint64_t at = 0;
    int r = zeroes ? 0 : -ENOMEM;

    while (r == 0 && at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        uint64_t end = data < 0 || (uint64_t)data > size ? size : (uint64_t)data;
        while (r == 0 && at < end) {
            ssize_t n = pwrite(fd, zeroes, end - at < MIB ? end - at : MIB, (off_t)at);
            if (n > 0)
                at += (uint64_t)n;
            else if (n == 0 || errno != EINTR)
                r = n < 0 ? -errno : -EIO;
            if (r == 0 && conf->report && conf->report(conf->opaque, at, size, err))
                r = -EINTR;
        }
        off_t hole = r == 0 && at < size ? lseek(fd, (off_t)at, SEEK_HOLE) : (off_t)at;
        r = hole < 0 ? -errno : r;
        at = r == 0 ? (uint64_t)hole : at;
    }
    free(zeroes);
    return r;
}

int format_preallocate(int fd, const struct disk_create_conf *conf, uint64_t size, struct err *err)
{
    int r = 0;

    if (conf->preallocation == DISK_PREALLOCATE_FULL)
        return write_full(fd, conf, size, err);
    if (conf->preallocation == DISK_PREALLOCATE_FALLOC)
        while ((r = fallocate(fd, 0, 0, (off_t)size) < 0 ? -errno : 0) == -EINTR)
            ;
    return r;
}

int format_cannot_make(const struct disk_create_conf *conf, int code, struct err *err)
{
    if (code == -EINTR && conf->report)
        return code;
    return err_set(err, code, "disk '%.200s': cannot be made: %s", conf->name ? conf->name : conf->path,
                   strerror(-code));
}

int format_new_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    struct stat st;

    if (fd >= 0 || errno != EEXIST)
        return fd < 0 ? -errno : fd;
    fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
        return fd;
    close(fd);
    return -EEXIST;
}

int disk_create(const struct disk_create_conf *conf, struct err *err)
{
    const struct format *format = find(&(struct disk_conf){.path = conf->path, .format = conf->format}, err);

    if (!format)
        return -EINVAL;
    if (file_protocol_is(conf->path))
        return err_set(err, -ENOTSUP, "disk '%.200s': what a server has is made there; accepted are files of the host",
                       conf->path);
    if (!conf->size || conf->size % DISK_BLOCK_SIZE || conf->size > INT64_MAX)
        return err_set(err, -EINVAL, "disk '%.200s': size %" PRIu64 ": accepted are multiples of %d",
                       conf->name ? conf->name : conf->path, conf->size, DISK_BLOCK_SIZE);
    return format->create(conf, err);
}

/* ---- requests ---- */

void disk_complete(struct disk_request *req, int result)
{
    if (req->disk)
        req->disk->under_way--;
    req->result = result;
    req->done(req, result);
}

void disk_complete_later(struct disk *disk, struct disk_request *req, int result)
{
    req->next = NULL;
    req->result = result;
    *disk->easy_tail = req;
    disk->easy_tail = &req->next;
    loop_event_set(&disk->easy_event);
}

static void complete_easy(void *opaque)
{
    struct disk *disk = opaque;
    struct disk_request *req = disk->easy;

    disk->easy = NULL;
    disk->easy_tail = &disk->easy;
    while (req) {
        struct disk_request *next = req->next;
        disk_complete(req, req->result);
        req = next;
    }
}

void disk_wait(struct disk *disk)
{
    if (disk->easy)
        complete_easy(disk);
    else
        disk->type->wait(disk);
}

void disk_init(struct disk *disk, const struct disk_type *type, const struct disk_conf *conf, struct loop *loop)
{
    disk->type = type;
    disk->loop = loop;
    disk->read_only = conf->read_only;
    disk->discard = conf->discard;
    file_protocol_show(conf->path, disk->path, sizeof(disk->path));
    disk->easy_tail = &disk->easy;
    loop_event_init(&disk->easy_event, loop, complete_easy, disk);
}

void disk_close(struct disk *disk)
{
    if (!disk)
        return;
    loop_event_fini(&disk->easy_event);
    disk->type->close(disk);
}

/* 0: to be done; 1: done already; or -errno. */
static int check(const struct disk *disk, const struct disk_request *req)
{
    if (req->op == DISK_FLUSH)
        return disk->read_only;
    if (req->op != DISK_READ && req->op != DISK_MAP && disk->read_only)
        return -EROFS;
    if ((req->offset | req->len) % DISK_BLOCK_SIZE || req->offset > disk->size || req->len > disk->size - req->offset)
        return -EINVAL;
    if (req->op == DISK_MAP && !req->n_extents)
        return -EINVAL;
    return req->len == 0 || (req->op == DISK_DISCARD && !disk->discard);
}

void disk_submit(struct disk *disk, struct disk_request *req)
{
    int r = check(disk, req);

    if (r == 0 && UNLIKELY(disk->recording) && req->op != DISK_READ && req->op != DISK_FLUSH && req->op != DISK_MAP)
        r = disk->type->bitmaps->record(disk, req->offset, req->len);
    req->disk = disk;
    disk->under_way++;
    if (r != 0) {
        if (req->op == DISK_MAP)
            req->n_extents = 0;
        disk_complete_later(disk, req, r < 0 ? r : 0);
        return;
    }
    if (req->op == DISK_ZERO && !disk->discard)
        req->unmap = false;
    disk->type->submit(disk, req);
}

static void call_done(struct disk_request *req, int result)
{
    (void)result;
    loop_stop(req->opaque);
}

int disk_call(struct disk *disk, struct disk_request *req)
{
    req->done = call_done;
    req->opaque = disk->loop;
    disk_submit(disk, req);
    loop_run(disk->loop);
    return req->result;
}

int disk_resize(struct disk *disk, uint64_t size, struct err *err)
{
    if (disk->read_only)
        return err_set(err, -EROFS, "disk '%.200s' is read-only", disk->path);
    if (size == 0 || size % DISK_BLOCK_SIZE || size > INT64_MAX)
        return err_set(err, -EINVAL, "disk '%.200s': size %" PRIu64 ": accepted are multiples of %d", disk->path, size,
                       DISK_BLOCK_SIZE);
    if (!disk->type->resize)
        return err_set(err, -ENOTSUP, "disk '%.200s': its format '%s' has one size for good", disk->path,
                       disk->type->name);
    return disk->type->resize(disk, size, err);
}
