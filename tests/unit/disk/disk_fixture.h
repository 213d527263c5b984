/* A directory of its own, a loop, and requests that are waited for. */
#ifndef TESTS_UNIT_DISK_DISK_FIXTURE_H
#define TESTS_UNIT_DISK_DISK_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit.h"
#include "base/log.h"
#include "disk/disk.h"

struct disk_fixture {
    char dir[64];
    char path[128]; /* an image in it */
    struct loop *loop;
    struct disk_conf conf; /* of path, raw */
    unsigned left;         /* requests under way */
};

static inline int fixture_setup(void **state)
{
    struct disk_fixture *f = calloc(1, sizeof(*f));

    log_set_level(LOG_LEVEL_ERROR);
    strcpy(f->dir, "/tmp/vireo-disk-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/image", f->dir);
    assert_int_equal(loop_open(&f->loop, NULL), 0);
    f->conf = (struct disk_conf){.path = f->path, .format = "raw", .discard = true};
    *state = f;
    return 0;
}

static inline int fixture_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static inline int fixture_teardown(void **state)
{
    struct disk_fixture *f = *state;

    loop_close(f->loop);
    nftw(f->dir, fixture_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* A file of `size` bytes, byte i of it fixture_byte(i). */
static inline uint8_t fixture_byte(uint64_t i)
{
    return (uint8_t)(i * 7 + i / 251 + 1);
}

static inline void fixture_make(const char *path, size_t size)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    for (size_t i = 0; i < size; i++)
        putc(fixture_byte(i), file);
    assert_int_equal(fclose(file), 0);
}

/* The host's room for it, in bytes. */
static inline uint64_t fixture_room(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static inline uint64_t fixture_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static inline void fixture_done(struct disk_request *req, int result)
{
    struct disk_fixture *f = req->opaque;

    if (--f->left == 0)
        loop_stop(f->loop);
}

/* Runs the loop until all that was submitted is done. */
static inline void fixture_wait(struct disk_fixture *f)
{
    if (f->left)
        loop_run(f->loop);
    assert_int_equal(f->left, 0);
}

static inline void fixture_submit(struct disk_fixture *f, struct disk *disk, struct disk_request *req)
{
    unsigned left = ++f->left;

    req->done = fixture_done;
    req->opaque = f;
    disk_submit(disk, req);
    assert_int_equal(f->left, left); /* never from within submit */
}

/* One request, waited for. */
static inline int fixture_do(struct disk_fixture *f, struct disk *disk, enum disk_op op, uint64_t offset, void *buf,
                             size_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct disk_request req = {.op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1, .unmap = true};

    fixture_submit(f, disk, &req);
    fixture_wait(f);
    return req.result;
}

#endif
