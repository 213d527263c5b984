#include "image/backup_live.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk/disk_allow.h"
#include "disk/disk_bitmap.h"
#include "disk/disk_chain.h"
#include "disk/disk_snapshot.h"
#include "disk/file_protocol.h"
#include "image/backup_impl.h"

#define GRANULARITY (64 * KIB)
#define TRIES       10 /* to open an image while its header is being written */

struct backup_live {
    struct backup_live_conf conf;
    char *name;
    struct backup_repo repo;
    struct make make;
    struct backup_result result;
    struct image_job job;
    volatile sig_atomic_t stop;
    _Atomic uint64_t done, total;
    char path[4096]; /* of the image */
    struct disk_allow *allow;
    char snapshot[256]; /* in the image; "": none */
    bool bitmap;        /* the new one is in the image */
    pthread_t thread;
    struct loop_event over;
    bool running;
    int code; /* of the copy */
    struct err err;
};

static void progress(void *opaque, uint64_t done, uint64_t total)
{
    struct backup_live *live = opaque;

    live->done = done;
    live->total = total;
}

static void ended(void *opaque);

int backup_live_open(struct backup_live **out, const struct backup_live_conf *conf, struct err *err)
{
    struct backup_live *live = calloc(1, sizeof(*live));

    *out = NULL;
    if (!live)
        return err_set(err, -ENOMEM, "out of memory");
    live->conf = *conf;
    live->name = conf->name ? strdup(conf->name) : NULL;
    live->repo.lock = -1;
    loop_event_init(&live->over, conf->loop, ended, live);
    live->job = (struct image_job){.progress = progress, .opaque = live, .stop = &live->stop};
    int r = conf->name && !live->name ? err_set(err, -ENOMEM, "out of memory")
                                      : backup_repo_open(&live->repo, conf->repo, true, err);
    if (r) {
        backup_live_close(live);
        return r;
    }
    *out = live;
    return 0;
}

void backup_live_close(struct backup_live *live)
{
    if (!live)
        return;
    backup_live_stop(live);
    loop_event_fini(&live->over);
    if (live->make.repo)
        backup_end(&live->make);
    backup_repo_close(&live->repo);
    disk_allow_close(live->allow);
    free(live->name);
    free(live);
}

/* ---- the moment ---- */

/* What the disk's own backing files are, may be opened a second time. */
static int allow_chain(struct backup_live *live, struct disk *disk, struct err *err)
{
    const char *paths[DISK_CHAIN_MAX];
    size_t n = 0;

    while ((disk = disk_backing(disk)) && n < DISK_CHAIN_MAX)
        paths[n++] = disk->path;
    return disk_allow_open(&live->allow, paths, n, err);
}

static int check(struct backup_live *live, struct disk *disk, struct err *err)
{
    if (!disk->type->snapshots || disk->read_only || file_protocol_is(disk->path))
        return err_set(err, -ENOTSUP,
                       "disk '%.200s' cannot be backed up while it is in use: accepted is one that is written to, of "
                       "format qcow2, in a file of the host's",
                       disk->path);
    snprintf(live->path, sizeof(live->path), "%s", disk->path);
    int r = live->conf.same_disk_anyway ? 0 : backup_same_place(disk->path, live->repo.path, err);
    return r ? r : allow_chain(live, disk, err);
}

/* What an earlier one that was cut short has left. */
static void remove_snapshots(struct backup_live *live, struct disk *disk)
{
    struct disk_snapshots list;
    char prefix[64];
    struct err err;

    backup_prefix(&live->repo, prefix);
    if (disk_snapshot_list(disk, &list, &err))
        return;
    for (size_t i = 0; i < list.n; i++)
        if (strncmp(list.items[i].name, prefix, strlen(prefix)) == 0)
            (void)!disk_snapshot_remove(disk, list.items[i].name, &err);
    free(list.items);
}

static void undo(struct backup_live *live, struct disk *disk)
{
    struct err err;

    if (*live->snapshot)
        (void)!disk_snapshot_remove(disk, live->snapshot, &err);
    if (live->bitmap)
        (void)!disk_bitmap_remove(disk, live->result.point.bitmap, &err);
    *live->snapshot = '\0';
    live->bitmap = false;
}

int backup_live_start(struct backup_live *live, struct disk *disk, struct err *err)
{
    struct backup_point *p = &live->result.point;
    char source[PATH_MAX], prefix[64];
    struct err why;
    int r = check(live, disk, err);

    if (r)
        return r;
    if (!realpath(disk->path, source))
        snprintf(source, sizeof(source), "%s", disk->path);
    live->make = (struct make){.repo = &live->repo,
                               .conf = {.disk = disk,
                                        .source = source,
                                        .name = live->name,
                                        .kind = live->conf.full ? BACKUP_FULL : BACKUP_AUTO,
                                        .time = live->conf.time,
                                        .job = &live->job},
                               .result = &live->result,
                               .err = err};
    remove_snapshots(live, disk);
    r = backup_begin(&live->make);
    live->make.conf.source = p->source;
    if (r)
        return r;
    /* Before the snapshot: what is held back while that is made is in both bitmaps. */
    live->bitmap = disk_bitmap_create(disk, p->bitmap, GRANULARITY, &why) == 0;
    if (!live->bitmap) {
        snprintf(live->result.bitmap, sizeof(live->result.bitmap), "%.255s", why.msg);
        *p->bitmap = '\0';
    }
    backup_prefix(&live->repo, prefix);
    snprintf(live->snapshot, sizeof(live->snapshot), "%s%s", prefix, p->id);
    r = disk_snapshot_create(disk, live->snapshot, p->time * NS_PER_SEC, err);
    if (r)
        *live->snapshot = '\0';
    if (r == 0)
        r = backup_read_bitmap(&live->make);
    if (r)
        undo(live, disk);
    return r;
}

/* ---- the copy, on its thread ---- */

static int open_image(struct backup_live *live, struct loop *loop, struct disk **image)
{
    const struct disk_conf conf = {
        .path = live->path, .format = "qcow2", .read_only = true, .no_lock = true, .allow = live->allow};
    int r = -EINVAL;

    for (unsigned i = 0; r && i < TRIES && !live->stop; i++) {
        if (i) {
            const struct timespec pause = {.tv_nsec = 20 * NS_PER_MS};
            nanosleep(&pause, NULL);
        }
        r = disk_open(image, &conf, loop, &live->err);
    }
    return r;
}

static int copy(struct backup_live *live)
{
    struct loop *loop;
    struct disk *image = NULL;
    int r = loop_open(&loop, &live->err);

    if (r)
        return r;
    live->make.err = &live->err;
    r = open_image(live, loop, &image);
    if (r == 0)
        r = disk_snapshot_view(&live->make.from, image, live->snapshot, &live->err);
    if (r == 0)
        r = backup_copy(&live->make);
    disk_close(live->make.from);
    disk_close(image);
    loop_close(loop);
    return r;
}

static void ended(void *opaque)
{
    struct backup_live *live = opaque;

    pthread_join(live->thread, NULL);
    live->running = false;
    live->conf.done(live->conf.opaque);
}

static void *run(void *opaque)
{
    struct backup_live *live = opaque;

    live->code = copy(live);
    loop_event_set(&live->over);
    return NULL;
}

int backup_live_run(struct backup_live *live, struct err *err)
{
    int r = pthread_create(&live->thread, NULL, run, live);

    if (r)
        return err_set(err, -r, "backup: no thread: %s", strerror(r));
    live->running = true;
    return 0;
}

void backup_live_cancel(struct backup_live *live)
{
    live->stop = 1;
}

void backup_live_stop(struct backup_live *live)
{
    live->stop = 1;
    if (live->running)
        pthread_join(live->thread, NULL);
    live->running = false;
    loop_event_fini(&live->over);
    live->over.loop = NULL;
}

void backup_live_progress(const struct backup_live *live, uint64_t *done, uint64_t *total)
{
    *done = live->done;
    *total = live->total;
}

/* ---- the end ---- */

/* What the copy relied on is still there: the disk may have been away meanwhile. */
static int still_there(struct backup_live *live, struct disk *disk, struct err *err)
{
    struct disk_snapshots list;
    bool found = false;
    int r = disk_snapshot_list(disk, &list, err);

    for (size_t i = 0; r == 0 && i < list.n; i++)
        found = found || strcmp(list.items[i].name, live->snapshot) == 0;
    if (r == 0)
        free(list.items);
    return r || found
               ? r
               : err_set(err, -ENOENT, "disk '%.200s': the snapshot that was copied has been deleted", disk->path);
}

int backup_live_finish(struct backup_live *live, struct disk *disk, const struct backup_result **result,
                       struct err *err)
{
    int r = live->stop && !live->code ? -EINTR : live->code;

    *result = &live->result;
    if (r)
        err_set(err, r, "%s", live->code ? live->err.msg : "interrupted");
    live->make.err = err;
    live->make.conf.disk = disk;
    if (r == 0)
        r = still_there(live, disk, err);
    if (r == 0)
        r = backup_commit(&live->make);
    if (r == 0) {
        backup_move_bitmap(&live->make);
        live->bitmap = false; /* it stays */
    }
    undo(live, disk);
    return r;
}
