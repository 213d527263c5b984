/*
 * What the parts of a file of the host's share: file_host.c opens and hands requests out, file_plain.c does one with calls that wait, file_pool.c has
 * threads for that, file_ring.c is io_uring.
 */
#ifndef DISK_FILE_IMPL_H
#define DISK_FILE_IMPL_H

#include <stdatomic.h>

#include "disk/file_type.h"

struct file_host {
    struct file base;
    int fd;          /* with O_DIRECT, where that was asked for */
    int buffered_fd; /* the same without: for what is not aligned; otherwise fd */
    unsigned align;  /* 0, or what offsets, lengths and memory must be multiples of on fd */
    bool block_device;
    bool read_only;
    bool in_memory;         /* the file system has no other place: what is read or written need not wait for one */
    _Atomic bool no_nowait; /* RWF_NOWAIT is not to be had: seen once */
    _Atomic bool no_punch, no_zero_range; /* the file system cannot: seen once, not asked again */
    char path[4096];

    struct file_ring *ring; /* NULL: the pool does all */
    struct file_pool *pool; /* its threads start when they are first needed */
};

/* ---- file_plain.c: the calling thread waits ---- */

/* The descriptor for a request: fd where the request suits it. */
int file_plain_fd(const struct file_host *file, const struct disk_request *req);
/* All of a request, of which READ and WRITE have moved `from` bytes already: 0 or -errno. Any thread. */
int file_plain_do(struct file_host *file, const struct disk_request *req, uint64_t from);
/* A READ on buffered_fd, if it need not wait: whether it was done, wholly. */
bool file_plain_at_hand(struct file_host *file, const struct disk_request *req) MUST_CHECK;
/* MAP: by SEEK_DATA and SEEK_HOLE; what cannot tell is all data. Any thread. */
int file_plain_map(struct file_host *file, struct disk_request *req);
/* Whether a read that has `got` bytes was cut short by the end: then the rest is zeroes now. */
bool file_plain_pad(struct file_host *file, const struct disk_request *req, uint64_t got);

/* ---- file_pool.c ---- */

int file_pool_open(struct file_pool **pool, struct file_host *file, struct err *err) MUST_CHECK;
void file_pool_close(struct file_pool *pool); /* with nothing under way */
/* Does file_plain_do(req, from) on a thread, and disk_complete() on the loop's. */
void file_pool_submit(struct file_pool *pool, struct disk_request *req, unsigned from);
bool file_pool_wait(struct file_pool *pool); /* false: nothing is under way */

/* ---- file_ring.c ---- */

/* -ENOSYS and the like where the host has no io_uring, or refuses it; says nothing. */
int file_ring_open(struct file_ring **ring, struct file_host *file) MUST_CHECK;
void file_ring_close(struct file_ring *ring); /* with nothing under way */
/* READ, WRITE or FLUSH. */
void file_ring_submit(struct file_ring *ring, struct disk_request *req);
bool file_ring_wait(struct file_ring *ring); /* false: nothing is under way */

#endif
