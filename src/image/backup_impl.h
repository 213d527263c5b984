/*
 * The steps of a backup, which those of a disk in use take on several threads, one after the other:
 *
 *   backup_begin(), backup_read_bitmap()  where the disk is: what to copy, as far as the bitmaps tell
 *   backup_copy()                         compares where they do not, and writes the file
 *   backup_commit()                       the point is there
 *   backup_move_bitmap()                  where the disk is
 */
#ifndef IMAGE_BACKUP_IMPL_H
#define IMAGE_BACKUP_IMPL_H

#include "disk/dirty.h"
#include "image/backup.h"

struct make {
    struct backup_repo *repo;
    struct backup_conf conf;
    struct backup_result *result;
    struct disk *from;           /* what is copied */
    struct backup_point *parent; /* of repo->points; NULL: full */
    bool compare;                /* with the parent */
    char old_bitmap[256];        /* that tells what has changed; "": none */
    size_t room;
    struct dirty changed;
    struct err *err;
};

int backup_begin(struct make *m) MUST_CHECK;
void backup_end(struct make *m);
int backup_read_bitmap(struct make *m) MUST_CHECK;
int backup_copy(struct make *m) MUST_CHECK;
int backup_commit(struct make *m) MUST_CHECK;
/* From now on what is written is known; failing that the next backup compares, which is no harm. */
void backup_move_bitmap(struct make *m);
/* What bitmaps and snapshots of the repository's are called, before a point's id. */
void backup_prefix(const struct backup_repo *repo, char prefix[64]);

#endif
