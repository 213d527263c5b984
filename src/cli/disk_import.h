/*
 * Images of other programs, read by qemu-img, which is a process of its own that writes the new image. Only the format that was named is tried; no
 * backing file or parent is opened.
 */
#ifndef CLI_DISK_IMPORT_H
#define CLI_DISK_IMPORT_H

#include "base/loop.h"
#include "image/job.h"

struct disk_import_conf {
    const char *from, *format; /* format: letters, digits and dashes */
    const char *to, *to_format;
    uint64_t cluster_size; /* 0: the format's default */
    const char *preallocation, *compression;
    bool compress;
};

/* Serves the loop until it is over. -ENOENT where there is no qemu-img; what it complains of is the message. */
int disk_import(const struct disk_import_conf *conf, struct loop *loop, const struct image_job *job,
                struct err *err) MUST_CHECK;

#endif
