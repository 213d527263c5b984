#include "image/backup_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "disk/disk_allow.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_chain.h"
#include "disk/disk_create.h"
#include "image/copy.h"
#include "image/delta.h"
#include "image/target.h"
#include "image/zero.h"

#define GRANULARITY_BITS 16 /* that of the bitmaps, and the clusters of the files */
#define GRANULE          (UINT64_C(1) << GRANULARITY_BITS)
#define PIECE            MIB
#define ROOM             65536 /* chunks of what has changed: 256 MiB, of 128 TiB of disk in the worst case */

/* ---- points as disks ---- */

int backup_open_point(struct disk **disk, const struct backup_repo *repo, const struct backup_point *point,
                      struct loop *loop, struct err *err)
{
    char path[4096];

    backup_repo_file(repo, point, path);
    return disk_open(
        disk, &(struct disk_conf){.path = path, .format = "qcow2", .read_only = true, .allow = repo->allow}, loop, err);
}

/* ---- what has changed ---- */

void backup_prefix(const struct backup_repo *repo, char prefix[64])
{
    snprintf(prefix, 64, "vireo-backup-%s-", repo->id);
}

/* The last point that the image has a bitmap for; *why: what is wrong with those that it has. */
static int find_bitmap(struct make *m)
{
    const struct backup_conf *conf = &m->conf;
    struct disk_bitmaps list;
    char prefix[64];

    backup_prefix(m->repo, prefix);
    if (!conf->disk->type->bitmaps) {
        snprintf(m->result->why, sizeof(m->result->why), "the format %s keeps no bitmaps", conf->disk->type->name);
        return 0;
    }
    int r = disk_bitmap_list(conf->disk, &list, m->err);
    if (r)
        return r;
    snprintf(m->result->why, sizeof(m->result->why), "the image has no bitmap of an earlier point");
    for (size_t i = 0; i < list.n; i++) {
        struct disk_bitmap *b = &list.items[i];
        if (strncmp(b->name, prefix, strlen(prefix)) != 0)
            continue;
        struct backup_point *p = backup_repo_find(m->repo, b->name + strlen(prefix));
        if (!p)
            snprintf(m->result->why, sizeof(m->result->why),
                     "the point that the image's bitmap begins at is not there");
        else if (!b->consistent || !b->recording || b->granularity != GRANULE)
            snprintf(m->result->why, sizeof(m->result->why),
                     "the image's bitmap is inconsistent: whoever wrote to it did not close it");
        else if (!m->parent || p > m->parent) {
            m->parent = p;
            snprintf(m->old_bitmap, sizeof(m->old_bitmap), "%s", b->name);
        }
    }
    free(list.items);
    return 0;
}

int backup_read_bitmap(struct make *m)
{
    struct disk *disk = m->conf.disk;
    uint64_t offset = 0, len = 0;
    int r = 0;

    if (!m->parent || m->compare)
        return 0;
    while ((r = disk_bitmap_next(disk, m->old_bitmap, offset + len, &offset, &len, m->err)) == 0 && len) {
        uint64_t first = offset >> GRANULARITY_BITS;
        dirty_set(&m->changed, first, ((offset + len + GRANULE - 1) >> GRANULARITY_BITS) - first);
    }
    return r;
}

static int read_piece(struct disk *disk, uint64_t offset, void *buf, size_t len, struct err *err)
{
    size_t n = offset >= disk->size ? 0 : disk->size - offset < len ? (size_t)(disk->size - offset) : len;
    struct iovec iov = {buf, n};
    struct disk_request req = {.op = DISK_READ, .offset = offset, .len = n, .iov = &iov, .n_iov = 1};

    memset((uint8_t *)buf + n, 0, len - n);
    int r = n ? disk_call(disk, &req) : 0;
    return r ? err_set(err, r, "reading '%.200s' at offset %llu: %s", disk->path, (unsigned long long)offset,
                       strerror(-r))
             : 0;
}

static int compare_all(struct make *m, struct disk *point, uint8_t *a, uint8_t *b)
{
    struct disk *disk = m->from;
    int r = 0;

    for (uint64_t at = 0; r == 0 && at < disk->size; at += PIECE) {
        size_t len = disk->size - at < PIECE ? (size_t)(disk->size - at) : PIECE;
        r = read_piece(disk, at, a, len, m->err);
        if (r == 0)
            r = read_piece(point, at, b, len, m->err);
        for (size_t i = 0; r == 0 && i < len; i += GRANULE) {
            size_t n = len - i < GRANULE ? len - i : GRANULE;
            if (memcmp(a + i, b + i, n) != 0)
                dirty_set(&m->changed, (at + i) >> GRANULARITY_BITS, 1);
        }
        if (r == 0)
            r = image_job_report(m->conf.job, at, disk->size * 2, m->err);
    }
    return r;
}

/* The last point of the same image, whole: what differs from it. */
static int compare(struct make *m)
{
    uint8_t *a = aligned_alloc(4096, PIECE), *b = aligned_alloc(4096, PIECE);
    struct disk *point = NULL;
    int r = a && b ? backup_verify_chain(m->repo, m->parent, m->conf.job, m->err)
                   : err_set(m->err, -ENOMEM, "out of memory");

    if (r == 0)
        r = backup_open_point(&point, m->repo, m->parent, m->from->loop, m->err);
    if (r == 0)
        r = compare_all(m, point, a, b);
    disk_close(point);
    free(a);
    free(b);
    return r;
}

static struct backup_point *last_of(const struct make *m)
{
    struct backup_point *last = NULL;

    for (size_t i = 0; i < m->repo->n; i++)
        if (strcmp(m->repo->points[i].source, m->conf.source) == 0)
            last = &m->repo->points[i];
    return last;
}

/* The parent, and how what differs from it is found. */
static int choose(struct make *m)
{
    char *why = m->result->why;
    size_t size = sizeof(m->result->why), n = 0;
    int r = m->conf.kind == BACKUP_FULL ? 0 : find_bitmap(m);

    if (r || m->conf.kind == BACKUP_FULL)
        return r;
    bool known = m->parent;
    n = strlen(why);
    if (!known)
        m->parent = last_of(m);
    else
        *why = '\0';
    if (m->parent && backup_repo_depth(m->repo, m->parent) >=
                         (m->conf.kind == BACKUP_INCREMENTAL ? DISK_CHAIN_MAX - 1 : BACKUP_DEPTH_MAX)) {
        struct backup_point *last = m->parent;
        m->parent = NULL;
        snprintf(why, size, "the last point stands on %u others, as many as there may be",
                 backup_repo_depth(m->repo, last));
        return 0;
    }
    if (!m->parent) {
        if (m->repo->n)
            snprintf(why + n, size - n, ", and there is no point of this image: all of it was copied");
        else
            snprintf(why, size, "it is the first point");
        return 0;
    }
    m->compare = !known;
    if (!known)
        snprintf(why + n, size - n, ": all of the image was compared with the last point");
    return 0;
}

/* Finds what differs, where that is not known. */
static int find_changes(struct make *m)
{
    int r = m->compare ? compare(m) : 0;

    if (r != -EIO)
        return r;
    m->parent = NULL; /* the last point is damaged: it is no ground to build on */
    snprintf(m->result->why, sizeof(m->result->why), "the last point is damaged: all of the image was copied");
    return 0;
}

/* ---- the copy ---- */

static int make_file(struct make *m, const char *path)
{
    struct disk *to = NULL, *from = m->from;
    char backing[BACKUP_ID + 16] = "";
    struct err *err = m->err;

    if (m->parent)
        snprintf(backing, sizeof(backing), "%s.qcow2", m->parent->id);
    int r = disk_create(&(struct disk_create_conf){.path = path,
                                                   .format = "qcow2",
                                                   .size = m->from->size,
                                                   .cluster_size = GRANULE,
                                                   .compression = "zstd",
                                                   .backing = m->parent ? backing : NULL,
                                                   .backing_format = m->parent ? "qcow2" : NULL},
                        err);
    if (r == 0)
        r = disk_open(&to, &(struct disk_conf){.path = path, .format = "qcow2", .discard = true, .no_backing = true},
                      m->from->loop, err);
    if (r)
        return r;
    if (m->parent) {
        disk_backing_expect(to, m->parent->size);
        r = delta_open(&from, m->from, &m->changed, GRANULARITY_BITS);
        if (r)
            err_set(err, r, "out of memory");
    }
    if (r == 0)
        r = image_copy(&(struct image_copy_conf){.from = from,
                                                 .to = to,
                                                 .to_is_zero = !m->parent,
                                                 .skip_holes = m->parent,
                                                 .compress = true,
                                                 .job = m->conf.job},
                       err);
    if (from != m->from)
        disk_close(from);
    disk_close(to);
    return r;
}

static int finish_file(struct backup_point *p, const char *path, const struct image_job *job, struct err *err)
{
    struct stat st;
    uint64_t done = 0;

    if (stat(path, &st) < 0)
        return err_set(err, -errno, "'%.200s': %s", path, strerror(errno));
    p->file_size = (uint64_t)st.st_size;
    return digest_file(path, p->sha256, job, &done, p->file_size, err);
}

void backup_move_bitmap(struct make *m)
{
    struct disk *disk = m->conf.disk;
    struct disk_bitmaps list;
    char prefix[64];
    struct err err;

    backup_prefix(m->repo, prefix);
    if (!*m->result->point.bitmap)
        return;
    int r = disk_bitmap_create(disk, m->result->point.bitmap, GRANULE, &err);
    if (r && r != -EEXIST) { /* a disk in use has it already */
        snprintf(m->result->bitmap, sizeof(m->result->bitmap), "%.255s", err.msg);
        return;
    }
    if (disk_bitmap_list(disk, &list, &err))
        return;
    for (size_t i = 0; i < list.n; i++)
        if (strncmp(list.items[i].name, prefix, strlen(prefix)) == 0 &&
            strcmp(list.items[i].name, m->result->point.bitmap) != 0 &&
            disk_bitmap_remove(disk, list.items[i].name, &err))
            snprintf(m->result->bitmap, sizeof(m->result->bitmap), "%.255s", err.msg);
    free(list.items);
}

static bool has_name(const struct backup_repo *repo, const char *name)
{
    for (size_t i = 0; i < repo->n; i++)
        if (strcmp(repo->points[i].name, name) == 0)
            return true;
    return false;
}

static int fill_point(struct make *m)
{
    const struct backup_conf *conf = &m->conf;
    struct backup_point *p = &m->result->point;
    char prefix[64];

    *p = (struct backup_point){.time = conf->time, .size = conf->disk->size};
    if (conf->name && (strlen(conf->name) >= sizeof(p->name) || has_name(m->repo, conf->name)))
        return err_set(m->err, -EINVAL, "backup '%.200s': name '%.60s': accepted are up to %zu bytes that no point has",
                       m->repo->path, conf->name, sizeof(p->name) - 1);
    backup_repo_new_id(m->repo, conf->time, p->id);
    snprintf(p->name, sizeof(p->name), "%s", conf->name ? conf->name : "");
    snprintf(p->source, sizeof(p->source), "%s", conf->source);
    backup_prefix(m->repo, prefix);
    if (conf->disk->type->bitmaps && !conf->disk->read_only)
        snprintf(p->bitmap, sizeof(p->bitmap), "%s%s", prefix, p->id);
    return 0;
}

static int write_file(struct make *m)
{
    struct backup_point *p = &m->result->point;
    struct image_target *target = NULL;
    char path[4096];

    if (m->parent)
        strcpy(p->parent, m->parent->id);
    backup_repo_file(m->repo, p, path);
    int r = image_target_open(&target, path, false, m->err);
    if (r == 0)
        r = make_file(m, image_target_path(target));
    if (r == 0)
        r = finish_file(p, image_target_path(target), m->conf.job, m->err);
    if (r == 0)
        r = image_target_commit(target, m->err);
    image_target_close(target);
    return r;
}

/* ---- the steps ---- */

int backup_begin(struct make *m)
{
    m->room = ROOM;
    *m->result = (struct backup_result){0};
    if (dirty_init(&m->changed, (m->conf.disk->size + GRANULE - 1) >> GRANULARITY_BITS, &m->room))
        return err_set(m->err, -ENOMEM, "out of memory");
    int r = fill_point(m);
    return r ? r : choose(m);
}

void backup_end(struct make *m)
{
    dirty_fini(&m->changed);
}

int backup_copy(struct make *m)
{
    int r = find_changes(m);
    uint64_t changed = dirty_count(&m->changed) << GRANULARITY_BITS;

    m->result->changed = m->parent && changed < m->from->size ? changed : m->from->size;
    return r ? r : write_file(m);
}

int backup_commit(struct make *m)
{
    if (backup_repo_add(m->repo, &m->result->point))
        return err_set(m->err, -ENOMEM, "out of memory");
    int r = backup_repo_save(m->repo, m->err);
    if (r)
        m->repo->n--;
    return r;
}

int backup_make(struct backup_repo *repo, const struct backup_conf *conf, struct backup_result *result, struct err *err)
{
    struct make m = {.repo = repo, .conf = *conf, .result = result, .from = conf->disk, .err = err};
    int r = backup_begin(&m);

    if (r == 0)
        r = backup_read_bitmap(&m);
    if (r == 0)
        r = backup_copy(&m);
    if (r == 0)
        r = backup_commit(&m);
    if (r == 0)
        backup_move_bitmap(&m);
    backup_end(&m);
    return r;
}
