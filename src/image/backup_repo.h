/*
 * A backup repository: a directory with one qcow2 file for each point in time, ID.qcow2, and manifest.json, which says which points there are. A full point stands
 * alone; an incremental one has what changed, and its parent's file for its backing file: `qemu-img convert REPO/ID.qcow2 ...` restores it without vireo.
 *
 *     {"vireo_backup": 1, "id": "5f0c2a...", "points": [
 *         {"id": "20261128-063455-1f3a", "name": "before the upgrade", "time": 1795847695, "kind": "full", "parent": null, "size": 68719476736,
 *          "file_size": 1073741824, "sha256": "...", "source": "/var/vm/disk.qcow2", "bitmap": "vireo-backup-5f0c2a...-20261128-063455-1f3a"}],
 *      "replacing": []}
 *
 * The manifest is replaced as a whole, synced, after the files that it names are there and synced: a point is in it, and whole, or it is absent. A file that
 * it does not name is the rest of what was interrupted, and is removed by the next one that writes. When points are deleted, the files of those that
 * were based on them are made anew as ID.qcow2.new; a manifest that lists them in "replacing" decides, and they are renamed then, by whoever comes next if need be.
 *
 * A lock on the file "lock" keeps writers alone. Blocks; belongs to one thread.
 */
#ifndef IMAGE_BACKUP_REPO_H
#define IMAGE_BACKUP_REPO_H

#include "disk/disk_allow.h"
#include "image/digest.h"

#define BACKUP_ID   40
#define BACKUP_NAME 128

struct backup_point {
    char id[BACKUP_ID];
    char name[BACKUP_NAME];
    char parent[BACKUP_ID]; /* "": it is full */
    int64_t time;           /* seconds since the epoch */
    uint64_t size;          /* bytes of the guest's */
    uint64_t file_size;
    char sha256[DIGEST_HEX]; /* of the file */
    char source[4096];
    char bitmap[256]; /* which records what was written since; "" */
    bool replacing;   /* its file is ID.qcow2.new yet */
};

struct backup_repo {
    char path[3072];
    char id[33];
    struct backup_point *points; /* oldest first */
    size_t n;
    int lock;
    struct disk_allow *allow; /* what is in the directory may be a backing file */
    bool fresh;               /* no manifest yet */
};

/* write: makes the directory where it is missing, and finishes what was interrupted. */
int backup_repo_open(struct backup_repo *repo, const char *path, bool write, struct err *err) MUST_CHECK;
void backup_repo_close(struct backup_repo *repo);
/* Writes the manifest: durable, or as it was. */
int backup_repo_save(struct backup_repo *repo, struct err *err) MUST_CHECK;
/* Renames what is to replace something, and removes files that nobody names. */
int backup_repo_tidy(struct backup_repo *repo, struct err *err) MUST_CHECK;
int backup_repo_add(struct backup_repo *repo, const struct backup_point *point) MUST_CHECK; /* -ENOMEM */
struct backup_point *backup_repo_find(const struct backup_repo *repo, const char *id);
/* By id, name, or as the last one at a time "YYYY-MM-DD[ HH:MM[:SS]]", local; NULL is the last of all. -ENOENT. */
int backup_repo_choose(const struct backup_repo *repo, const char *what, struct backup_point **point,
                       struct err *err) MUST_CHECK;
/* How many points must be there for this one, itself included. */
unsigned backup_repo_depth(const struct backup_repo *repo, const struct backup_point *point);
void backup_repo_file(const struct backup_repo *repo, const struct backup_point *point, char path[4096]);
/* A name that no point has. */
void backup_repo_new_id(const struct backup_repo *repo, int64_t time, char id[BACKUP_ID]);

#endif
