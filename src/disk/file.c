#include "disk/file.h"

#include "disk/file_protocol.h"
#include "disk/file_type.h"

static const struct {
    const char *scheme;
    int (*open)(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err);
} protocols[] = {
#define PROTOCOL(scheme, name, help) {scheme, file_##name##_open},
#include "disk/protocols.def"
#undef PROTOCOL
    {NULL, NULL},
};

int file_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    char scheme[FILE_SCHEME_MAX];

    *file = NULL;
    if (!file_protocol_scheme(conf->path, scheme))
        return file_host_open(file, conf, loop, err);
    for (size_t i = 0; protocols[i].scheme; i++)
        if (strcmp(scheme, protocols[i].scheme) == 0)
            return protocols[i].open(file, conf, loop, err);
    return file_protocol_check(conf->path, err);
}

void file_close(struct file *file)
{
    if (file)
        file->type->close(file);
}

uint64_t file_size(const struct file *file)
{
    return file->size;
}

void file_submit(struct file *file, struct disk_request *req)
{
    file->type->submit(file, req);
}

void file_wait(struct file *file)
{
    file->type->wait(file);
}

int file_truncate(struct file *file, uint64_t size)
{
    return file->type->truncate(file, size);
}

/* ---- the calling thread waits ---- */

static int transfer(struct file *file, enum disk_op op, uint64_t offset, void *buf, size_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    const struct disk_request req = {.op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1};

    return file->type->call(file, &req);
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
    return file->type->call(file, &req);
}
