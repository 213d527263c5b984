/*
 * A disk, or whatever stands in for one: a flat array of bytes that is read, written, flushed and given back. Formats (raw, qcow2, formats.def) look
 * the same from above, and stand on a file (file.h) below.
 *
 * Requests are asynchronous. Submit from the loop's thread, complete on the loop's thread, in any order, never from within disk_submit():
 * whoever submits needs no lock and no care for recursion. A write is durable when a flush that was submitted after its completion has
 * completed; overlapping requests under way at once happen in an order that nobody promises.
 *
 * Errors: -ENOSPC where the host has no room, -EIO and others as the host says, -EINVAL for a range that is not within the disk or not of
 * whole blocks, -EROFS. An error leaves the image sound; a request that failed may be submitted again.
 */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/loop.h"

#define DISK_BLOCK_SIZE 512 /* offsets and lengths are multiples of it */

enum disk_op {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,
    DISK_DISCARD, /* the range's content is no longer wanted: room is given back where it can be; reads as zeroes or as before */
    DISK_ZERO, /* the range reads as zeroes from now on; with `unmap`, room is given back where it can be */
    DISK_MAP,  /* what the range is made of: fills `extents`, from the range's start on, until they or the range end */
};

enum disk_extent_kind {
    DISK_EXTENT_DATA,
    DISK_EXTENT_ZERO, /* reads as zeroes, and says so itself */
    DISK_EXTENT_HOLE, /* nobody ever wrote it, in the chain either: reads as zeroes */
};

struct disk_extent {
    enum disk_extent_kind kind;
    uint64_t offset, len; /* bytes; extents of one kind may follow one another */
    unsigned depth;       /* 0: of the image itself; n: of the n-th image down its backing chain */
    bool has_host;        /* the bytes lie as they are in that image's file, from host_offset on */
    bool compressed;
    uint64_t host_offset;
};

struct disk;

struct disk_request {
    enum disk_op op;
    bool unmap; /* DISK_ZERO */
    bool
        compress; /* WRITE: one whole cluster, nowhere written before, kept compressed; -ENOTSUP where a format cannot */
    uint64_t offset, len;    /* bytes */
    const struct iovec *iov; /* READ, WRITE: together len bytes; the submitter's until done */
    unsigned n_iov;
    struct disk_extent *extents; /* MAP: the submitter's */
    unsigned n_extents;          /* MAP: room for so many, one at least; when it is done, how many there are */
    void (*done)(struct disk_request *req, int result); /* 0 or -errno */
    void *opaque;                                       /* the submitter's */

    struct disk_request *next; /* the disk's, until done */
    struct disk *disk;         /* the disk's; NULL in a request to a file (file.h) that a format makes up */
    int result;                /* the disk's */
};

struct disk_info;
struct disk_check;
struct disk_snapshot_ops; /* disk_snapshot.h */
struct disk_bitmap_ops;   /* disk_bitmap.h */
struct disk_backing_ops;  /* disk_chain.h */
struct disk_link;         /* disk_chain.h */

/* What a format fills in. */
struct disk_type {
    const char *name;
    void (*submit)(struct disk *disk, struct disk_request *req);      /* a checked request */
    int (*resize)(struct disk *disk, uint64_t size, struct err *err); /* with nothing under way; NULL: it cannot */
    void (*wait)(struct disk *disk);                                  /* disk_wait() */
    void (*close)(struct disk *disk);                                 /* with nothing under way */
    void (*info)(const struct disk *disk, struct disk_info *info);    /* disk_info.h; NULL: nothing to tell */
    int (*check)(struct disk *disk, struct disk_check *check,
                 struct err *err);             /* disk_check.h; NULL: cannot be wrong */
    const struct disk_snapshot_ops *snapshots; /* NULL: it has none */
    const struct disk_bitmap_ops *bitmaps;     /* NULL: it keeps none */
    const struct disk_backing_ops *backing;    /* NULL: it has no backing file */
};

/* Which files an image may name as its backing file: disk_allow.h. */
struct disk_allow;

/* How an image is opened. */
struct disk_conf {
    const char *path;
    const char
        *format; /* a name in formats.def; NULL: as the path's ending says, and never what the content looks like */
    bool read_only;
    bool discard; /* DISK_DISCARD and unmapping reach the file; otherwise they are accepted and do nothing */
    bool direct;  /* past the host's page cache (O_DIRECT) */
    bool threads; /* a thread pool even where io_uring is there */
    bool
        no_lock; /* only with read_only: looked at while somebody writes to it; what is read may be neither old nor new */
    bool check; /* opened to be checked, and for nothing else: what the check counts as an error is let through here */
    bool no_backing; /* the image alone: what it does not have reads as zeroes, and its backing file is not opened */
    unsigned
        timeout; /* seconds that requests to a server wait while it is gone; 0: FILE_NET_TIMEOUT. Then they fail with -ETIMEDOUT */
    const struct disk_allow *allow; /* NULL: no backing file; must outlive the disk */
    const struct disk_link *above;  /* whose backing file this is; NULL: nobody's. Needed until it is open */
};

/* Allocated by the type, which embeds it. */
struct disk {
    const struct disk_type *type;
    struct loop *loop;
    uint64_t size; /* bytes, a multiple of DISK_BLOCK_SIZE */
    bool read_only;
    bool discard;
    bool recording;     /* bitmaps want to know what is written (disk_bitmap.h) */
    char path[4096];    /* for messages */
    unsigned under_way; /* requests submitted and not done */

    /* Requests that are done without work, until the callback at hand has returned: disk_complete_later(). */
    struct disk_request *easy, **easy_tail;
    struct loop_event easy_event;
};

/* Whether `conf` names a format, in so many words or by the path's ending; -EINVAL and a message that lists the formats. */
int disk_check(const struct disk_conf *conf, struct err *err) MUST_CHECK;
/* The format that it names, a constant; NULL and the same message. */
const char *disk_format(const struct disk_conf *conf, struct err *err) MUST_CHECK;

/*
 * Opens an image and locks it: two writers, or a writer and readers, are refused, also between processes. Metadata is checked; err names the field and its
 * offset where it is wrong. loop: where requests complete.
 */
int disk_open(struct disk **disk, const struct disk_conf *conf, struct loop *loop, struct err *err) MUST_CHECK;

/* With no request under way. Flushes what the format still holds in memory; says so in the log where that fails. */
void disk_close(struct disk *disk);

void disk_submit(struct disk *disk, struct disk_request *req);

/*
 * Submits the request and serves the disk's loop until it is done: for whoever has the loop to itself, as commands have. Sets done and opaque. Returns
 * the result.
 */
int disk_call(struct disk *disk, struct disk_request *req) MUST_CHECK;

/* ---- for formats ---- */

/* Sets up what they all share, but for size; before anything is submitted. */
void disk_init(struct disk *disk, const struct disk_type *type, const struct disk_conf *conf, struct loop *loop);

/*
 * With requests under way: waits, on the loop's thread, until something about them has happened, and completes those that are done. For whoever cannot return
 * to the loop.
 */
void disk_wait(struct disk *disk);

/* The request is done, and no longer the disk's. On the loop's thread; never from within submit, where it is disk_complete_later(). */
void disk_complete(struct disk_request *req, int result);
void disk_complete_later(struct disk *disk, struct disk_request *req, int result);

/* With no request under way. Sizes are whole blocks; -ENOTSUP where the format cannot. */
int disk_resize(struct disk *disk, uint64_t size, struct err *err) MUST_CHECK;

#endif
