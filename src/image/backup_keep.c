/* A repository's points over time: whether they are whole, and how some of them go. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk_chain.h"
#include "disk/disk_create.h"
#include "image/backup.h"
#include "image/copy.h"
#include "image/target.h"

/* ---- checksums ---- */

/* 1 and a text where the file is not what it was; 0, or an error that is nobody's damage. */
static int check_file(const struct backup_repo *repo, const struct backup_point *p, const struct image_job *job,
                      uint64_t *done, uint64_t total, char what[300], struct err *err)
{
    char path[4096], hex[DIGEST_HEX];
    struct stat st;

    backup_repo_file(repo, p, path);
    if (stat(path, &st) < 0) {
        snprintf(what, 300, "its file is not there: %s", strerror(errno));
        return 1;
    }
    if ((uint64_t)st.st_size != p->file_size) {
        snprintf(what, 300, "its file has %llu bytes, and had %llu", (unsigned long long)st.st_size,
                 (unsigned long long)p->file_size);
        return 1;
    }
    struct err why;
    int r = digest_file(path, hex, job, done, total, &why);
    if (r == -EINTR || r == -ENOMEM) {
        *err = why;
        return r;
    }
    if (r)
        snprintf(what, 300, "%.299s", why.msg);
    else if (strcmp(hex, p->sha256) != 0)
        snprintf(what, 300, "its file's SHA-256 is another than it was");
    return r || strcmp(hex, p->sha256) != 0;
}

int backup_verify(const struct backup_repo *repo, const struct image_job *job,
                  void (*bad)(void *opaque, const struct backup_point *point, const char *what), void *opaque,
                  size_t *n_bad, struct err *err)
{
    bool *damaged = calloc(repo->n + 1, sizeof(*damaged));
    uint64_t done = 0, total = 0;
    int r = 0;

    *n_bad = 0;
    if (!damaged)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < repo->n; i++)
        total += repo->points[i].file_size;
    for (size_t i = 0; r >= 0 && i < repo->n; i++) {
        const struct backup_point *p = &repo->points[i];
        const struct backup_point *parent = *p->parent ? backup_repo_find(repo, p->parent) : NULL;
        char what[300];
        r = check_file(repo, p, job, &done, total, what, err);
        damaged[i] = r > 0 || (parent && damaged[parent - repo->points]);
        if (r == 0 && damaged[i])
            snprintf(what, sizeof(what), "it is based on %s", parent->id);
        if (r >= 0 && damaged[i]) {
            ++*n_bad;
            bad(opaque, p, what);
        }
    }
    free(damaged);
    return r < 0 ? r : 0;
}

int backup_verify_chain(const struct backup_repo *repo, const struct backup_point *point, const struct image_job *job,
                        struct err *err)
{
    uint64_t done = 0, total = 0;
    char what[300];

    for (const struct backup_point *p = point; p; p = *p->parent ? backup_repo_find(repo, p->parent) : NULL)
        total += p->file_size;
    for (const struct backup_point *p = point; p; p = *p->parent ? backup_repo_find(repo, p->parent) : NULL) {
        int r = check_file(repo, p, job, &done, total, what, err);
        if (r > 0)
            return err_set(err, -EIO, "backup '%.150s': point %s: %.200s", repo->path, p->id, what);
        if (r)
            return r;
    }
    return 0;
}

/* ---- deleting ---- */

struct deletion {
    struct backup_repo *repo;
    const bool *doomed;
    struct loop *loop;
    const struct image_job *job;
    struct err *err;
};

static struct backup_point *parent_of(const struct deletion *d, const struct backup_point *p)
{
    return *p->parent ? backup_repo_find(d->repo, p->parent) : NULL;
}

/* What the point holds beyond `base`, or all of it, into a file that stands on that alone. */
static int merge_file(const struct deletion *d, const struct backup_point *p, const struct backup_point *base,
                      unsigned layers, const char *path)
{
    struct disk *from = NULL, *to = NULL;
    char backing[BACKUP_ID + 16];
    int r = backup_open_point(&from, d->repo, p, d->loop, d->err);

    if (base)
        snprintf(backing, sizeof(backing), "%s.qcow2", base->id);
    if (r == 0)
        r = disk_create(&(struct disk_create_conf){.path = path,
                                                   .format = "qcow2",
                                                   .size = from->size,
                                                   .compression = "zstd",
                                                   .backing = base ? backing : NULL,
                                                   .backing_format = base ? "qcow2" : NULL},
                        d->err);
    if (r == 0)
        r = disk_open(&to, &(struct disk_conf){.path = path, .format = "qcow2", .discard = true, .no_backing = true},
                      d->loop, d->err);
    if (r == 0 && base)
        disk_backing_expect(to, base->size);
    if (r == 0)
        r = image_copy(&(struct image_copy_conf){.from = from,
                                                 .to = to,
                                                 .to_is_zero = !base,
                                                 .skip_holes = base,
                                                 .compress = true,
                                                 .layers = base ? layers : 0,
                                                 .job = d->job},
                       d->err);
    disk_close(to);
    disk_close(from);
    return r;
}

static int digest_new(const struct deletion *d, struct backup_point *p, const char *path)
{
    struct stat st;
    uint64_t done = 0;

    if (stat(path, &st) < 0)
        return err_set(d->err, -errno, "'%.200s': %s", path, strerror(errno));
    p->file_size = (uint64_t)st.st_size;
    return digest_file(path, p->sha256, d->job, &done, p->file_size, d->err);
}

/* A point whose parent goes gets a file without it, beside the old one. */
static int rebase_point(const struct deletion *d, struct backup_point *p)
{
    struct backup_point *base = parent_of(d, p);
    struct image_target *target = NULL;
    unsigned layers = 1;
    char path[4096];

    while (base && d->doomed[base - d->repo->points]) {
        base = parent_of(d, base);
        layers++;
    }
    int r = backup_verify_chain(d->repo, p, d->job, d->err); /* damage is not copied */
    struct backup_point changed = *p;
    changed.replacing = true;
    snprintf(changed.parent, sizeof(changed.parent), "%s", base ? base->id : "");
    snprintf(path, sizeof(path), "%s/%s.qcow2.new", d->repo->path, p->id);
    if (r == 0)
        r = image_target_open(&target, path, true, d->err);
    if (r == 0)
        r = merge_file(d, p, base, layers, image_target_path(target));
    if (r == 0)
        r = digest_new(d, &changed, image_target_path(target));
    if (r == 0)
        r = image_target_commit(target, d->err);
    image_target_close(target);
    if (r == 0)
        *p = changed;
    return r;
}

int backup_delete(struct backup_repo *repo, const bool *doomed, struct loop *loop, const struct image_job *job,
                  struct err *err)
{
    struct backup_repo before = *repo, after = *repo;
    struct deletion d = {.repo = &before, .doomed = doomed, .loop = loop, .job = job, .err = err};
    int r = 0;

    after.points = malloc((repo->n + 1) * sizeof(*after.points));
    after.n = 0;
    if (!after.points)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; r == 0 && i < repo->n; i++) {
        struct backup_point p = repo->points[i];
        if (doomed[i])
            continue;
        const struct backup_point *parent = parent_of(&d, &p);
        if (parent && doomed[parent - repo->points])
            r = rebase_point(&d, &p);
        after.points[after.n++] = p;
    }
    if (r == 0)
        r = backup_repo_save(&after, err);
    if (r) {
        free(after.points);
        return r;
    }
    free(repo->points);
    *repo = after;
    return backup_repo_tidy(repo, err);
}
