/*
 * Dirty bitmaps: which parts of a disk were written since someone asked; what incremental backups are made of. Kept in the image (qcow2's bitmaps
 * extension), so that they outlive whoever has it open; one whose user died with the image open is inconsistent, and says so instead of lying.
 *
 * All of this runs on the disk's loop's thread.
 */
#ifndef DISK_DISK_BITMAP_H
#define DISK_DISK_BITMAP_H

#include "disk/disk.h"

#define DISK_BITMAP_NAME_MAX \
    256 /* with its end; qcow2 has up to 1023 bytes, longer ones than this are kept and not listed */

struct disk_bitmap {
    char name[DISK_BITMAP_NAME_MAX];
    uint32_t granularity; /* bytes a bit stands for, a power of two */
    bool recording;       /* writes set bits */
    bool consistent;      /* false: bits may be missing; it can be removed, and no more */
    uint64_t dirty;       /* bytes */
};

struct disk_bitmaps {
    size_t n;
    struct disk_bitmap *items;
};

struct disk_bitmap_ops {
    int (*create)(struct disk *disk, const char *name, uint32_t granularity, struct err *err);
    int (*remove)(struct disk *disk, const char *name, struct err *err);
    int (*clear)(struct disk *disk, const char *name, struct err *err);
    int (*list)(struct disk *disk, struct disk_bitmaps *list, struct err *err);
    int (*next)(struct disk *disk, const char *name, uint64_t from, uint64_t *offset, uint64_t *len, struct err *err);
    int (*record)(struct disk *disk, uint64_t offset, uint64_t len); /* before the disk's own submit */
};

/* granularity: 0 is 64 KiB. Empty at first. -EEXIST. From the next write on, whatever is submitted sets bits. */
int disk_bitmap_create(struct disk *disk, const char *name, uint32_t granularity, struct err *err) MUST_CHECK;
int disk_bitmap_remove(struct disk *disk, const char *name, struct err *err) MUST_CHECK;
/* No bit is set from now on, but by writes that come later. */
int disk_bitmap_clear(struct disk *disk, const char *name, struct err *err) MUST_CHECK;
/* The caller frees list->items. */
int disk_bitmap_list(struct disk *disk, struct disk_bitmaps *list, struct err *err) MUST_CHECK;
/* The first dirty range at or behind `from`; *len is 0 where there is none. -EUCLEAN where the bitmap is inconsistent. */
int disk_bitmap_next(struct disk *disk, const char *name, uint64_t from, uint64_t *offset, uint64_t *len,
                     struct err *err) MUST_CHECK;

#endif
