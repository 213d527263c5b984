/*
 * Backups of a disk, to a repository (backup_repo.h), and back from there.
 *
 * What has changed since a point is known by a dirty bitmap in the image, which is named after the repository and the point. It is made when the point is
 * durable, and only then the older one goes: so an interruption at any moment loses nothing, and what comes next starts from the point whose bitmap there is.
 * Where there is none that can be relied on, what the image holds is compared with the last point of the same image; without such a point all of it is copied.
 *
 * Blocks; the caller has the loop to itself.
 */
#ifndef IMAGE_BACKUP_H
#define IMAGE_BACKUP_H

#include "disk/disk.h"
#include "image/backup_repo.h"

#define BACKUP_DEPTH_MAX 32 /* points that a point stands on, before a full one is made */

enum backup_kind { BACKUP_AUTO, BACKUP_FULL, BACKUP_INCREMENTAL };

struct backup_conf {
    struct disk
        *disk; /* what is copied: nobody writes to it meanwhile; its bitmaps are used where it can be written to */
    const char *source; /* its path, absolute, to tell it from others */
    const char *name;   /* or NULL */
    enum backup_kind kind;
    int64_t time; /* seconds since the epoch */
    const struct image_job *job;
};

struct backup_result {
    struct backup_point point;
    uint64_t changed; /* bytes that were looked at as changed */
    char why[256];    /* a sentence: why all was compared or copied; "" */
    char bitmap[256]; /* why there is no bitmap from now on; "" */
};

/* One line and -EPERM where an image at `path` and the repository share a file system, or a disk. */
int backup_same_place(const char *path, const char *repo, struct err *err) MUST_CHECK;

/* A new point: durable, or absent. */
int backup_make(struct backup_repo *repo, const struct backup_conf *conf, struct backup_result *result,
                struct err *err) MUST_CHECK;

/* Every checksum. `bad` is called for each point that is damaged, or based on one that is; *n_bad: how many. */
int backup_verify(const struct backup_repo *repo, const struct image_job *job,
                  void (*bad)(void *opaque, const struct backup_point *point, const char *what), void *opaque,
                  size_t *n_bad, struct err *err) MUST_CHECK;
/* The point's file and those it is based on. -EIO where one is damaged. */
int backup_verify_chain(const struct backup_repo *repo, const struct backup_point *point, const struct image_job *job,
                        struct err *err) MUST_CHECK;

/* Removes the points that `doomed` says (one for each of repo->points), and keeps the others as good as they are. */
int backup_delete(struct backup_repo *repo, const bool *doomed, struct loop *loop, const struct image_job *job,
                  struct err *err) MUST_CHECK;

/* The point as a disk, which is only read; needs the repository to stay open. */
int backup_open_point(struct disk **disk, const struct backup_repo *repo, const struct backup_point *point,
                      struct loop *loop, struct err *err) MUST_CHECK;

#endif
