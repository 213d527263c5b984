/*
 * What the files of dirty bitmaps share.
 *
 *   dirty.c               the bits in memory
 *   qcow2_bitmap.c        create, remove, clear, list; recording
 *   qcow2_bitmap_read.c   the directory and the tables that the file has (spec, "Bitmaps extension"), checked
 *   qcow2_bitmap_store.c  from memory to the file
 *
 * Crash safety. The bitmaps are in memory while the image is open. Before the first write since then, each is marked in the file as in use, and that is synced:
 * who finds it so knows that bits are missing. They are stored when the image is closed: bits, tables and directory where nothing lies yet, with their refcounts, and
 * synced; then the header's first sector, which points to the directory, decides. An image that is opened and not written to keeps its bitmaps, however that ends.
 */
#ifndef DISK_QCOW2_BITMAP_H
#define DISK_QCOW2_BITMAP_H

#include "disk/dirty.h"
#include "disk/disk_bitmap.h"
#include "disk/qcow2_impl.h"

#define QCOW2_BITMAP_ROOM       2048 /* chunks of an image's bitmaps in memory: 8 MiB */
#define QCOW2_BITMAP_MAX        65535
#define QCOW2_BITMAP_DIRECTORY  (4 * MIB) /* bytes */
#define QCOW2_BITMAP_MAX_TABLES 1048576   /* entries of all tables */

enum { /* flags of an entry */
       QCOW2_BITMAP_IN_USE = 1 << 0,
       QCOW2_BITMAP_AUTO = 1 << 1,
       QCOW2_BITMAP_EXTRA = 1 << 2,
};

struct qcow2_bitmap {
    char *name; /* with a 0 behind */
    uint16_t n_name;
    uint8_t *extra;
    uint32_t n_extra;
    uint8_t type, granularity_bits;
    uint32_t flags; /* as the file has them */
    uint64_t entry; /* of the directory, in the file */
    uint64_t table; /* in the file; 0: it is not there yet */
    uint32_t n_table;
    bool consistent; /* its bits are known, once they are loaded */
    bool foreign;    /* kept as it is: what it means is not known */
    bool loaded, changed;
    struct dirty bits;
};

struct qcow2_bitmaps {
    struct qcow2_bitmap *items;
    size_t n;
    uint64_t directory, directory_bytes;
    bool marked;                  /* the file says that they are in use */
    bool changed;                 /* in memory: to be stored */
    struct qcow2_bitmap *removed; /* the file has them yet */
    size_t n_removed;
    size_t room;
};

uint64_t qcow2_bitmap_bits(const struct qcow2 *q, const struct qcow2_bitmap *b);
int qcow2_bitmap_load(struct qcow2 *q, struct qcow2_bitmap *b, struct err *err) MUST_CHECK;
/* Calls back for each piece of metadata that the bitmaps have in the file; until one returns an error. */
int qcow2_bitmap_each(struct qcow2 *q, int (*fn)(void *opaque, const char *what, uint64_t offset, uint64_t bytes),
                      void *opaque, struct err *err) MUST_CHECK;
int qcow2_bitmap_each_of(struct qcow2 *q, const struct qcow2_bitmap *b,
                         int (*fn)(void *opaque, const char *what, uint64_t offset, uint64_t bytes), void *opaque,
                         struct err *err) MUST_CHECK;
/* With no request under way. all: nothing is written from now on, so that none of them is in use any more. */
int qcow2_bitmap_store(struct qcow2 *q, bool all) MUST_CHECK;
/* Entry n of a table as the file has it: 0, or where in the file the bits are; *ones: all are set. -EINVAL. */
int qcow2_bitmap_entry(const struct qcow2 *q, uint64_t entry, uint64_t *offset, bool *ones) MUST_CHECK;
size_t qcow2_bitmap_entry_bytes(const struct qcow2_bitmap *b);
void qcow2_bitmap_free(struct qcow2_bitmap *b);

#endif
