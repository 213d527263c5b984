/*
 * What thin images promise: each tells its guest of room that it does not take yet. When the images of a file system promise more than it has free, one of them
 * will meet the end of it.
 *
 * Counted are the image itself, those in its directory whose names end as images do (disk/formats.def), up to 10,000 files, and those anywhere on its
 * file system that vireo knows (disk_known.h). Of each, only size, room and header are looked at, and other file systems not at all: it takes milliseconds.
 */
#ifndef DISK_DISK_THIN_H
#define DISK_DISK_THIN_H

#include "base/err.h"

struct disk_promises {
    uint64_t promised;  /* bytes that guests may still write, and that are not taken yet */
    uint64_t available; /* bytes, on the file system, for whoever asks */
    unsigned images;    /* that promise some */
};

/* Adds up. format: the image's, as in disk_conf. -errno where its directory cannot be read; -ENOENT for a disk that is no file. */
int disk_thin_promises(const char *path, const char *format, struct disk_promises *sum) MUST_CHECK;

/* What the image at `path` promises by itself, 0 for one that is no file. From now on vireo knows it, if it promises anything. */
uint64_t disk_thin_note(const char *path, const char *format);

/* Warns in the log where they promise more than there is, and says by how much. */
void disk_thin_warn(const char *path, const char *format);

/* "1.5 GiB" */
const char *disk_thin_amount(uint64_t bytes, char buf[32]);

#endif
