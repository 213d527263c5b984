/*
 * Backing chains: an image that holds what differs from its backing file, which is an image too. A format opens the one below itself with
 * disk_chain_open(); what works on whole images asks with the other calls.
 *
 * A backing file is only read, under a shared lock, by whoever has the image above it open. Threads: the loop's.
 */
#ifndef DISK_DISK_CHAIN_H
#define DISK_DISK_CHAIN_H

#include <sys/types.h>

#include "disk/disk.h"

/* An image, and those whose backing file it is, directly or not: on the stack of who opens them. */
struct disk_link {
    const struct disk_link *above;
    bool known; /* it is a file: dev and ino are its */
    dev_t dev;
    ino_t ino;
};

struct disk_backing_ops {
    struct disk *(*get)(struct disk *disk);
    const char *(*name)(const struct disk *disk, const char **format);
    void (*expect)(struct disk *disk, uint64_t size);
    int (*set)(struct disk *disk, const char *name, const char *format, struct err *err);
    int (*empty)(struct disk *disk, struct err *err);
};

/*
 * Opens the backing file that the image of `conf` has: `name` as it stands there, relative to the image, in the format that it names ("" or NULL: none, which is
 * refused). -EPERM where conf->allow does not permit it, -ELOOP where it is one of those above, or the chain is longer than DISK_CHAIN_MAX.
 */
int disk_chain_open(struct disk **backing, const char *name, const char *format, const struct disk_conf *conf,
                    struct loop *loop, struct err *err) MUST_CHECK;

/* The same, to be written to, for `conf` without its backing file. */
int disk_chain_open_writable(struct disk **backing, const char *name, const char *format, const struct disk_conf *conf,
                             struct loop *loop, struct err *err) MUST_CHECK;

/* The place of `name` as the image at `path` means it, with symbolic links followed: to `out` of 4096 bytes. */
int disk_chain_path(const char *path, const char *name, char *out, struct err *err) MUST_CHECK;

/* How the image at `path` is to name the file `given`, which is relative to the working directory: to `out` of 4096 bytes. */
int disk_chain_name(const char *path, const char *given, char *out, struct err *err) MUST_CHECK;

/* What the image says it has; NULL: nothing. *format: "" where it does not say. Both are the disk's. */
const char *disk_backing_name(const struct disk *disk, const char **format);

/* The disk below, or NULL. */
struct disk *disk_backing(struct disk *disk);

/* Before what lies over a file of `size` bytes changes: zeroes that are written are kept as such there, though there may be nothing below them now. */
void disk_backing_expect(struct disk *disk, uint64_t size);

/*
 * Writes another backing file into the image; NULL: none. With no request under way. Nothing else changes, nothing is opened; the disk is good for closing
 * afterwards. It has changed, or it has not, wherever that ends.
 */
int disk_backing_set(struct disk *disk, const char *name, const char *format, struct err *err) MUST_CHECK;

/* With no request under way: the image has nothing of its own any more, neither data nor zeroes. */
int disk_backing_empty(struct disk *disk, struct err *err) MUST_CHECK;

#endif
