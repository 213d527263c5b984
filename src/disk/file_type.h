/*
 * What stands behind file.h: the host's files, or a protocol by which a server has them (protocols.def). A type embeds struct file.
 */
#ifndef DISK_FILE_TYPE_H
#define DISK_FILE_TYPE_H

#include <stdatomic.h>

#include "disk/file.h"

/* As the functions of file.h that are called so. */
struct file_type {
    void (*submit)(struct file *file, struct disk_request *req);
    void (*wait)(struct file *file);
    int (*call)(struct file *file, const struct disk_request *req); /* READ, WRITE, FLUSH; done when it returns */
    int (*truncate)(struct file *file, uint64_t size);
    void (*close)(struct file *file);
};

struct file {
    const struct file_type *type;
    struct loop *loop;
    _Atomic uint64_t size; /* bytes; any thread moves it */
};

/* Moves the end to `end`, if it lies before. Any thread. */
static inline void file_grew(struct file *file, uint64_t end)
{
    uint64_t size = file->size;

    while (end > size && !atomic_compare_exchange_weak(&file->size, &size, end))
        ;
}

int file_host_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err) MUST_CHECK;

#define PROTOCOL(scheme, name, help)                                                                             \
    int file_##name##_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err) \
        MUST_CHECK;
#include "disk/protocols.def"
#undef PROTOCOL

#endif
