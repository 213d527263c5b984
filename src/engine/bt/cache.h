/*
 * The block cache's inside, shared by cache.c (finding and making blocks), segment.c (room, and making room), link.c (direct jumps between
 * blocks) and page.c (blocks whose bytes change).
 *
 * Threads: the vCPU's own, but for `written`.
 */
#ifndef ENGINE_BT_CACHE_H
#define ENGINE_BT_CACHE_H

#include "engine/bt/bt.h"

#define CACHE_SEGMENTS      16         /* at most */
#define CACHE_SEGMENT_LEAST (32 * KIB) /* bytes of code: several times what a block takes */
#define CACHE_CODE_ALIGN    64
#define CACHE_HEAT_BITS     13
#define CACHE_N_PAGES       4096 /* buckets of the pages' table */

/* A physical page that blocks were made from; there while there are any. */
struct bt_page {
    struct bt_page *next;      /* in its hash bucket */
    struct bt_block *blocks;   /* that begin there */
    struct bt_block *crossers; /* that end there: whose one instruction began on another page */
    uint64_t number;           /* as ram_page() */
    uint64_t gpa;
    const uint8_t *host;
    uint32_t version_seen;
    bool busy; /* its lists are being walked: it stays */
};

/* Pages whose code version has moved since the vCPU last looked. */
struct cache_written {
    pthread_mutex_t lock;
    unsigned n; /* more than there is room for: any page may have */
    struct {
        uint64_t page, granules;
    } what[16];
};

/*
 * The room for code is filled segment by segment, and so is that for what C knows about it: blocks, links, copies. When all are full the oldest
 * is emptied and filled anew.
 */
struct cache_segment {
    struct bt_block **order; /* its blocks by their code's address, which is the order they were made in */
    uint32_t n;
    size_t code_used, meta_used;
};

/* While segments are evicted: how often code was met that is not translated yet, and where the vCPU's time goes. */
struct bt_heat {
    uint8_t met[1 << CACHE_HEAT_BITS]; /* times, by RIP */
    unsigned wait;                     /* code is translated when it is met as often */
    /* Since the last eviction. In ns; the first two are the clocks' readings then. */
    int64_t since, translator_ns, interpreted_ns;
};

struct bt_cache {
    uint8_t *code; /* of the first segment, writable; the others follow */
    uint8_t *meta;
    struct bt_block **order;
    size_t code_size, meta_size, order_size; /* of one segment; the last in pointers */
    unsigned n_segments, now;
    struct cache_segment segment[CACHE_SEGMENTS];
    struct bt_link *cross;     /* joined links between pages */
    struct bt_block **buckets; /* of blocks, by physical address and mode */
    unsigned bucket_bits;
    struct bt_page *pages[CACHE_N_PAGES];
    struct cache_written written;
    struct bt_heat heat;
};

/* ---- cache.c ---- */

/* The block is found no more; no jump leads to it or out of it. */
void cache_drop(struct bt *bt, struct bt_block *block);

/* ---- segment.c ---- */

int segment_open(struct bt *bt, struct err *err) MUST_CHECK; /* takes the rest of bt->arena */
void segment_close(struct bt *bt);

/* Room in the current segment, or NULL. What is not followed by segment_commit() is taken back by segment_rewind(). */
uint8_t *segment_code(struct bt *bt, size_t *len);
void *segment_alloc(struct bt *bt, size_t len); /* aligned to 8 bytes */
size_t segment_mark(const struct bt *bt);
void segment_rewind(struct bt *bt, size_t mark);

/* The block's code is at block->code. */
void segment_commit(struct bt *bt, struct bt_block *block);

/* Goes on to the next segment, whose blocks are dropped. Not while translated code is on its way to return. */
void segment_next(struct bt *bt);
bool segment_is_empty(const struct bt *bt);

/* ---- heat.c ---- */

/* Whether the code at `rip`, which is not translated, is rather interpreted this time. */
bool heat_is_cold(struct bt *bt, uint64_t rip);

/* Time that went into interpreting such code. */
void heat_interpreted(struct bt *bt, int64_t ns);

/* A segment was evicted. */
void heat_evicted(struct bt *bt);

/* ---- link.c ---- */

/* Undoes every join of links out of the block and into it. */
void link_detach(struct bt *bt, struct bt_block *block);

/* Takes those of the segment at `meta` off the list of links between pages. */
void link_forget_cross(struct bt *bt, const uint8_t *meta, size_t len);

/* Joins the link to nothing. */
void link_reset(struct bt *bt, struct bt_link *link);

/* ---- move.c ---- */

/* Whether blocks at this address are worth moving, and can be: user code far from where addresses become short. */
bool move_is_place(uint32_t mode, uint64_t rip);

/* A copy of `from` at linear address `rip`, in the current segment, on no list yet; NULL: no room. */
struct bt_block *move_copy(struct bt *bt, const struct bt_block *from, uint64_t rip);

/* Has the block itself at `rip`; it keeps its place on its lists. */
void move_block(struct bt *bt, struct bt_block *block, uint64_t rip);

/* ---- page.c ---- */

/* The record of the page at `host`, which is about to be read: stores to it are noticed from here on. NULL: out of memory. */
struct bt_page *page_hold(struct bt *bt, uint64_t gpa, const uint8_t *host);

/* Claims the bytes of the block, whose pages are held (ram_claim_code()). false: they are no longer those it was made from. */
bool page_claim(struct bt *bt, const struct bt_block *block);

/* Puts the block on the lists of its pages, which are held, and takes it off. */
void page_enlist(struct bt *bt, struct bt_block *block);
void page_remove(struct bt *bt, struct bt_block *block);

void page_open(struct bt *bt);
void page_close(struct bt *bt);

#endif
