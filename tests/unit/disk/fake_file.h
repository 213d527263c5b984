/*
 * file.h over memory, in place of src/disk/file.c: requests are done in random order, fail where that is asked for, and at a power cut what was
 * not synced is there, is not there, or is torn into sectors.
 *
 * A sync makes durable what was complete when it was submitted, and no more.
 */
#ifndef TESTS_UNIT_DISK_FAKE_FILE_H
#define TESTS_UNIT_DISK_FAKE_FILE_H

#include "disk/file.h"

struct fake_change {
    bool truncate;
    uint64_t offset, len;
    uint8_t *data; /* NULL: zeroes */
};

struct fake {
    uint8_t *data, *durable;
    uint64_t size, durable_size, capacity; /* of both */
    struct fake_change *changes;           /* since what is durable, in order */
    size_t n_changes, changes_capacity;
    bool keep_changes; /* somebody wants to cut */

    uint64_t seed;
    uint64_t n_ops;   /* done so far */
    uint64_t stop_at; /* n_ops at which the loop is stopped; 0: never */
    unsigned lag;     /* some requests wait while up to so many others are done */
    uint64_t fail_op; /* this one fails, whatever it is; 0: none */
    int fail_errno; /* with that; 0: -EIO or -ENOSPC. Only what may find no room fails with -ENOSPC, or else the next that may */
    bool fail_stays;   /* and so do all that follow, until fake_mend(); with -ENOSPC, all that may need room */
    unsigned fail_gap; /* after one that failed, one of the next so many fails; 0: none */
    uint64_t n_failed; /* because of these two, or for want of room */
    uint64_t max_size; /* -ENOSPC beyond; 0: no limit */
    uint64_t full_at;  /* n_ops at which max_size becomes the size there is; 0: never */
    uint64_t die_at;   /* n_ops from which on it is dead; 0: never */
    bool dead;         /* all fails */
    struct fake *twin; /* dies with it */
    bool open;
};

/* The next file_open() opens it, unless its path is one of these. */
extern struct fake *fake_next;

struct fake_name {
    char path[96];
    struct fake *fake;
};
extern struct fake_name fake_names[8];

struct fake *fake_new(const uint8_t *image, uint64_t size, uint64_t seed);
struct fake *fake_load(const char *path, uint64_t seed);
void fake_save(const struct fake *fake, const char *path);
void fake_free(struct fake *fake);
uint32_t fake_random(uint64_t *seed);

/* There is room again, and what failed for good does not any more. */
void fake_mend(struct fake *fake);
/* What a host finds that lost its power now. */
struct fake *fake_cut(struct fake *fake, uint64_t seed);
/* The same, and the file is that from now on; nobody has it open. */
void fake_revive(struct fake *fake, uint64_t seed);

#endif
