/*
 * A backup of a disk that somebody writes to. A bitmap for the next point is made first, then a snapshot inside the image; so what is written meanwhile is of the next
 * point, and what the snapshot holds is copied on a thread of its own, from the image opened a second time, only to be read: a snapshot's clusters do not change. When
 * the point is durable the older bitmap goes, otherwise the new one does; the snapshot goes in any case. Where the process ends before, the next backup removes what
 * is left, and compares.
 *
 * Threads: start and finish on the disk's; all else on one that runs conf.loop, or while nobody runs it.
 */
#ifndef IMAGE_BACKUP_LIVE_H
#define IMAGE_BACKUP_LIVE_H

#include "image/backup.h"

struct backup_live;

struct backup_live_conf {
    const char *repo; /* a path */
    const char *name; /* or NULL */
    bool full, same_disk_anyway;
    int64_t time;
    struct loop *loop;
    void (*done)(void *opaque); /* the copy has ended; on the loop's thread. Then comes finish */
    void *opaque;
};

int backup_live_open(struct backup_live **live, const struct backup_live_conf *conf, struct err *err) MUST_CHECK;
/* Ends the copy, if it runs, and waits for that. NULL is fine. */
void backup_live_close(struct backup_live *live);

/* The moment that the point is of. With requests under way. */
int backup_live_start(struct backup_live *live, struct disk *disk, struct err *err) MUST_CHECK;
/* After backup_live_start(). */
int backup_live_run(struct backup_live *live, struct err *err) MUST_CHECK;
/* It ends soon, with -EINTR for a result. */
void backup_live_cancel(struct backup_live *live);
/* The same, and waits for it: done() does not come. */
void backup_live_stop(struct backup_live *live);
void backup_live_progress(const struct backup_live *live, uint64_t *done, uint64_t *total);
/* After done(), or where backup_live_run() failed. The point is durable, or absent and this says why. result: the live's own. */
int backup_live_finish(struct backup_live *live, struct disk *disk, const struct backup_result **result,
                       struct err *err) MUST_CHECK;

#endif
