/*
 * A disk under random requests, and what it must hold. Each block that is written holds a number nobody else writes; requests under way at once do not
 * overlap, but share clusters as they like. A request that fails is tried again until it is done.
 */
#ifndef TESTS_UNIT_DISK_QCOW2_WORLD_H
#define TESTS_UNIT_DISK_QCOW2_WORLD_H

#include "disk/disk.h"
#include "fake_file.h"

/* What a block may hold: `flushed`, or one of the later values. The last value is what a read finds. */
struct block {
    uint32_t flushed;
    uint32_t *later;
    unsigned n, capacity, n_done; /* of later; the last may be under way */
    uint64_t dropped;             /* how many have become `flushed` */
    bool busy;
};

struct op {
    struct world *w;
    struct disk_request req;
    struct iovec iov[3];
    uint8_t *buf;
    uint64_t first, n; /* blocks */
    uint32_t value;
    uint32_t *want;     /* READ: the blocks' values when it was begun */
    uint64_t *snapshot; /* FLUSH: for each block, dropped + n_done */
    bool active;
};

/* What a snapshot of the disk holds. */
struct world_saved {
    uint32_t *values;
    uint64_t n_blocks;
};

struct world {
    struct loop *loop;
    struct fake *fake, *below; /* below: NULL, or what else is mended by room_after */
    struct disk *disk;
    struct disk_conf conf;
    struct block *blocks;
    uint64_t n_blocks, seed;
    uint32_t next_value;
    struct op ops[16];
    unsigned n_active, depth, errors;
    uint64_t left, begun; /* to be begun; so far */
    bool done;
    unsigned room_after; /* so many errors, the host has room again; 0: never */
    unsigned max_pages;  /* of the cache; 0: as it is */
    void (*hook)(
        struct world *w); /* NULL, or called now and then while requests are under way; not from within itself */
    void *hook_opaque;
    bool in_hook;
    bool pack; /* some writes are of whole clusters, compressed; by threads, so that no two runs are alike */
};

/* Blocks of zeroes. */
void world_init(struct world *w, struct fake *fake, uint64_t size, uint64_t seed);
/* The blocks of `below`, as far as there are, of which w's image is a new overlay. */
void world_cover(struct world *w, const struct world *below);
void world_fini(struct world *w);
void world_open(struct world *w); /* w->disk is NULL where the host has died on the way */
void world_close(struct world *w);
/* n random requests, `depth` at once; returns with some under way where fake->stop_at came first. */
void world_run(struct world *w, uint64_t n);
/* The host dies: what is under way fails, and the disk is closed. */
void world_die(struct world *w);
int world_flush(struct world *w);
/* One request, which the world takes no notice of. */
int world_single(struct world *w, enum disk_op op, uint64_t offset, void *buf, size_t len);
/* All is zeroes now, and was flushed. */
void world_reset(struct world *w);
/* From now on the disk has `size` bytes; what is new is zeroes. Before disk_resize(), which does the rest. */
void world_shrink(struct world *w, uint64_t size);
void world_grow(struct world *w, uint64_t size);
/* The last values: what a snapshot holds that is made now, also with requests under way. */
void world_save(const struct world *w, struct world_saved *saved);
/* Before a return to it: all holds that, and was flushed; with requests under way, only of the same size, and what is durable is not known any more. */
void world_restore(struct world *w, const struct world_saved *saved);
#define WORLD_SAME UINT32_MAX
/* With nothing under way: from now on each block may hold what it holds, or saved's value (but for WORLD_SAME), until it is known which. */
void world_may_become(struct world *w, const struct world_saved *saved);
/* Reads all and compares with the last values; `cut`: with what may be there. */
void world_check(struct world *w, bool cut);
/* After a cut: what the disk holds now, of what it may, is what it must hold, and flushed. */
void world_adopt(struct world *w);
/* A block of the value. */
void world_fill(uint8_t *buf, uint64_t block, uint32_t value);

/*
 * Counts the references in an image (v2 or v3) and compares with its refcounts: refcounts that are too low, flags that say "nobody
 * else's" of what others have too, or places beyond the file are errors; more than needed is a leak. Returns the leaks; -1 and a message for errors.
 */
int world_verify(const struct fake *fake);

#endif
