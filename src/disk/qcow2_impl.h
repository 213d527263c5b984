/*
 * What the files of the qcow2 format share.
 *
 *   qcow2.c           the disk_type: requests come in, are done, and wait for one another
 *   qcow2_header.c    the header and the tables read at open, checked
 *   qcow2_create.c    an empty image; qcow2_repair.c: refcounts made anew
 *   qcow2_set.c       which clusters hold metadata
 *   qcow2_page.c      the cache of L2 tables and refcount blocks, in pages of 4 KiB
 *   qcow2_l2.c        from a guest offset to an L2 entry, and what the entry says
 *   qcow2_refcount.c  refcounts and the allocator; qcow2_grow.c: new refcount blocks and bigger refcount tables
 *   qcow2_free.c      clusters on their way back
 *   qcow2_commit.c    metadata on its way to the file, in order
 *   qcow2_snapshot*.c internal snapshots, which change all metadata at once, with nothing under way (qcow2_snapshot.h)
 *   qcow2_read.c, qcow2_write.c, qcow2_unmap.c (discard and write-zeroes), qcow2_unpack.c, qcow2_pack.c (compressed clusters)
 *   qcow2_bitmap*.c   which parts were written since someone asked (qcow2_bitmap.h)
 *   qcow2_map.c       what a range is made of
 *   qcow2_check*.c    whether all of that is sound, and repairs (qcow2_check.h)
 *   qcow2_resize.c    more and fewer guest bytes; qcow2_backing.c: which backing file the image has
 *
 * All of it runs on the loop's thread. Steps that need metadata ask the cache; what is not there yet makes them return -EAGAIN, with their waiter
 * parked, and they start anew when it is woken. So every change of metadata is one uninterrupted piece of code, in memory.
 *
 * Crash safety. A refcount in the file is never below the number of references in the file. Metadata reaches the file only in a commit, which
 * writes a consistent cut of it as of the commit's start:
 *   1. refcount blocks and, where it moved, the whole refcount table;  (sync, if there are new blocks or a new table)
 *   2. changed entries of the refcount table, or the header that points to the new one;  sync: this also covers the guest's data
 *   3. L2 pages and L1 entries;  sync
 * An L2 entry is set in memory when the data it points to has been written, an L1 entry when the new table is all zeroes or a full copy.
 * A cluster that lost its reference is given back only when the commit with that change has ended, and no request is under way that may still
 * read or write it. A page that changes while a commit writes it gets a new buffer; the commit keeps the old one. A failed commit leaves all that it
 * held dirty, and the next one tries again.
 */
#ifndef DISK_QCOW2_IMPL_H
#define DISK_QCOW2_IMPL_H

#include <stdbool.h>

#include "disk/file.h"

#define QCOW2_MAGIC          0x514649fbu
#define QCOW2_MAX_L1_BYTES   (16 * MIB)
#define QCOW2_MAX_TABLE      (4 * MIB) /* of the refcount table */
#define QCOW2_MAX_OFFSET     (UINT64_C(1) << 56)
#define QCOW2_HEADER_SECTOR  512 /* what is rewritten of the header: one sector, which is written whole or not at all */
#define QCOW2_CACHE_BYTES    (10 * MIB)
#define QCOW2_PAGE_SIZE      4096 /* or a cluster, where that is smaller */
#define QCOW2_ZEROES         (64 * KIB)
#define QCOW2_MAX_SNAPSHOTS  65536
#define QCOW2_SECTOR_ENTRIES 64 /* of an L1 or refcount table, in 512 bytes */

#define QCOW2_COPIED      (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED  (UINT64_C(1) << 62)
#define QCOW2_READS_ZERO  UINT64_C(1)
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_SUBS_ZERO   (UINT64_C(0xffffffff) << 32) /* the bitmap of an extended entry that reads as zeroes */

#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_BITMAPS        0x23852875u
#define QCOW2_EXT_BITMAPS_BYTES  24

#define QCOW2_AUTOCLEAR_BITMAPS UINT64_C(1) /* of autoclear_features: the extension tells the truth */

#define QCOW2_LAZY_REFCOUNTS \
    1 /* compatible_features: the image may be marked dirty in place of careful; we never need it */

enum { /* incompatible_features */
       QCOW2_DIRTY = 1 << 0,
       QCOW2_CORRUPT = 1 << 1,
       QCOW2_DATA_FILE = 1 << 2,
       QCOW2_COMPRESSION = 1 << 3,
       QCOW2_EXTENDED_L2 = 1 << 4,
};

struct qcow2;

/* ---- who waits for what ---- */

struct qcow2_waiter {
    struct qcow2_waiter *next;
    void (*wake)(struct qcow2_waiter *w, int result);
    int result;
};

struct qcow2_waitlist {
    struct qcow2_waiter *first, **tail; /* tail: NULL while the list was never used */
};

/* ---- the set of clusters that hold metadata ---- */

struct qcow2_set {
    uint64_t *slots; /* cluster + 1; 0: free */
    size_t mask, n;
    uint64_t key;
};

int qcow2_set_reserve(struct qcow2_set *set, size_t more) MUST_CHECK;
int qcow2_set_add(struct qcow2_set *set, uint64_t cluster) MUST_CHECK; /* -EEXIST, -ENOMEM */
void qcow2_set_remove(struct qcow2_set *set, uint64_t cluster);
bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster);
void qcow2_set_fini(struct qcow2_set *set);

/* ---- the cache ---- */

enum qcow2_page_kind { QCOW2_PAGE_REFCOUNT, QCOW2_PAGE_L2 };

struct qcow2_page {
    struct qcow2 *q;
    struct qcow2_page *hash_next, *lru_prev, *lru_next;
    uint64_t offset;
    uint8_t *data; /* q->page_size */
    uint8_t
        *frozen; /* what the commit under way writes: `data` until that changes; NULL: the commit has nothing of it */
    enum qcow2_page_kind kind;
    bool loading, dirty;
    bool used;     /* since its place among the others was looked at */
    unsigned pins; /* changes are about to come */
    struct qcow2_waitlist waiters;
    struct disk_request io;
    struct iovec iov;
};

int qcow2_page_init(struct qcow2 *q) MUST_CHECK;
void qcow2_page_fini(struct qcow2 *q);
/* 0; -EAGAIN: w is parked until it has been read; or an error. The page stays as it is until the caller returns to the loop, or unpins it. */
int qcow2_page_get(struct qcow2 *q, uint64_t offset, enum qcow2_page_kind kind, struct qcow2_waiter *w,
                   struct qcow2_page **page) MUST_CHECK;
/* A page of zeroes that need not be read, in place of what the cache has at `offset`. */
int qcow2_page_new(struct qcow2 *q, uint64_t offset, enum qcow2_page_kind kind, struct qcow2_page **page) MUST_CHECK;
/* Before page->data changes: marks it dirty. -ENOMEM. */
int qcow2_page_modify(struct qcow2_page *page) MUST_CHECK;
/* With nothing under way and nothing dirty: the cache is empty. */
void qcow2_page_drop(struct qcow2 *q);
/* A buffer that a commit has written, and the page has no longer. */
void qcow2_page_release(struct qcow2 *q, uint8_t *buffer);
/* The cluster is no longer metadata. */
void qcow2_page_forget(struct qcow2 *q, uint64_t cluster);

/* ---- tables that are wholly in memory: L1 and the refcount table ---- */

struct qcow2_table {
    uint64_t *entries; /* in the host's order */
    uint64_t offset;   /* in the file */
    size_t n;
    uint8_t *dirty; /* a byte for each sector of 64 entries */
    bool any_dirty;
};

void qcow2_table_set(struct qcow2_table *table, size_t i, uint64_t entry);
void qcow2_table_fini(struct qcow2_table *table);

/* ---- clusters on their way back ---- */

struct qcow2_extent {
    uint64_t first, n; /* clusters */
    uint64_t seq;      /* free when no request is older */
};

struct qcow2_extents {
    struct qcow2_extent *items;
    size_t head, n, capacity; /* items[head .. n) */
};

/* The reference to n clusters is gone from memory; after the next commit it is gone from the file. */
void qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t n);
/* No metadata in the file ever referred to them. */
void qcow2_free_unused(struct qcow2 *q, uint64_t first, uint64_t n);
/* The commit that held `extents` has ended. */
void qcow2_free_committed(struct qcow2 *q, struct qcow2_extents *extents, int result);
/* Gives back what nobody can reach any more. Called whenever a request ends. */
void qcow2_free_reap(struct qcow2 *q);
void qcow2_free_fini(struct qcow2_extents *extents);

/* ---- commit ---- */

#define QCOW2_COMMIT_DEPTH 32

struct qcow2_commit_io {
    struct disk_request req;
    struct iovec iov;
    struct qcow2 *q;
    void *buf; /* to be freed, or NULL */
};

/* Changed entries, as the file has them. */
struct qcow2_commit_piece {
    uint64_t offset;
    size_t len;
    uint8_t *data;
};

struct qcow2_commit {
    bool running, wanted;
    unsigned step, pending;
    int result;
    struct qcow2_page **pages; /* refcount blocks first */
    size_t n_pages, n_refcount_pages, next;
    struct qcow2_commit_piece *pieces; /* of the refcount table first */
    size_t n_pieces, n_refcount_pieces, next_piece;
    bool moved, new_blocks;
    uint8_t header[QCOW2_HEADER_SECTOR];
    struct qcow2_extents frees;
    struct qcow2_commit_io io[QCOW2_COMMIT_DEPTH];
    struct qcow2_waitlist now, next_round;
};

/* Parks w until all that is in memory now is in the file and synced; starts what is needed for it. */
void qcow2_commit_wait(struct qcow2 *q, struct qcow2_waiter *w);
/* Before metadata changes: 0, or -EAGAIN with w parked because too much of it waits already. */
int qcow2_commit_room(struct qcow2 *q, struct qcow2_waiter *w) MUST_CHECK;
/* Something that held a commit up is over. */
void qcow2_commit_kick(struct qcow2 *q);
bool qcow2_commit_dirty(const struct qcow2 *q);

/* ---- an image ---- */

struct qcow2_grow {
    bool busy;
    uint64_t block, n_blocks;       /* of the refcount table's entries */
    uint64_t first, table_clusters; /* the new table, if any, then the blocks, from this cluster on */
    struct qcow2_table table;
    struct disk_request io;
    struct qcow2_waitlist waiters;
};

struct qcow2_reaper {
    bool busy;
    struct qcow2_waiter waiter;
    struct disk_request io;
    uint64_t punched; /* clusters at the front of the extent that are holes now */
};

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
};

struct qcow2 {
    struct disk disk;
    struct file *file;

    unsigned version, cluster_bits, refcount_order, compression;
    uint64_t cluster_size;
    uint8_t header[QCOW2_HEADER_SECTOR];
    uint64_t incompatible;
    bool broken; /* metadata contradicts itself: no more writes */
    bool
        header_unsure; /* the file may have another header than ours: nothing is written before ours is (qcow2_header_sure()) */
    bool for_check; /* disk_conf.check: it may; nobody reads or writes */

    struct qcow2_table l1;
    size_t l2_entries;  /* of a table */
    size_t entry_size;  /* bytes of an L2 entry: 8, or 16 for an extended one */
    unsigned n_subs;    /* subclusters of a cluster, each with a place or zero flag of its own: 1, or 32 */
    unsigned sub_bits;  /* bytes of a subcluster, as a power of two */
    unsigned l2_bits;   /* guest bytes of a table, as a power of two */
    size_t l1_clusters; /* in the file */
    struct qcow2_snapshot *snapshots;
    uint32_t n_snapshots;
    uint64_t snapshots_offset, snapshots_bytes;
    struct qcow2 *views, *next_view, *viewed; /* snapshots that are open; of a view: the next one, and the disk */

    struct qcow2_table refcounts;
    uint64_t refcount_clusters; /* of the table in the file */
    bool refcounts_moved;       /* the header points to another table yet */
    bool new_blocks;            /* since the last commit began */
    unsigned block_bits;        /* clusters of a refcount block, as a power of two */
    uint8_t *block_full;        /* for each entry of the table: no free cluster there */
    uint64_t hint;              /* every cluster below is taken */
    uint64_t end;               /* clusters: nothing lies there or beyond, and it reads as zeroes */
    bool grown;                 /* the file is longer than `end` by our doing */

    struct qcow2_set meta;
    struct qcow2_bitmaps *bitmaps;
    bool bitmaps_there;      /* the header has their extension, and its bit */
    char *backing_name;      /* as the image has it; NULL: none */
    char backing_format[16]; /* "": the image does not say */
    struct disk *backing;    /* NULL where there is none, or where it was not to be opened */
    uint64_t backed_below;   /* guest bytes: below, what the image does not have is the backing file's */

    size_t page_size;
    struct qcow2_page **page_hash;
    struct qcow2_slab *slabs; /* of the pages' buffers */
    void *free_buffers;
    struct qcow2_page *lru_first, *lru_last;
    size_t n_pages, max_pages, n_dirty, max_dirty;

    uint8_t *zeroes; /* QCOW2_ZEROES of them */
    uint8_t *unpacked;
    uint64_t unpacked_entry; /* what `unpacked` holds, or 0 */
    bool unpack_failed;      /* it was said */
    struct workers *packers; /* from the first compressed write on */
    uint64_t pack_at;        /* bytes, whole sectors: where the next compressed cluster begins; 0: in a new cluster */

    struct qcow2_req *oldest, *youngest;
    struct qcow2_req *spare; /* requests that are over, to be used again; by `younger` */
    unsigned n_spare;
    uint64_t seq;
    struct qcow2_alloc *allocs;      /* clusters being allocated */
    struct qcow2_l2_copy *l2_copies; /* L2 tables being made */
    struct qcow2_grow grow;
    struct qcow2_extents frees, ripe; /* unmapped in memory; in the file too */
    struct qcow2_reaper reaper;
    struct qcow2_commit commit;

    struct qcow2_waitlist runnable; /* woken, to be run */
    struct disk_request *finished, **finished_tail;
    bool running;
    bool holding; /* requests that come wait */
    struct disk_request *held, **held_tail;
};

static inline uint64_t qcow2_be64(const void *p)
{
    return __builtin_bswap64(load_le64(p));
}

static inline uint32_t qcow2_be32(const void *p)
{
    return __builtin_bswap32(load_le32(p));
}

static inline void qcow2_put_be64(void *p, uint64_t v)
{
    store_le64(p, __builtin_bswap64(v));
}

static inline void qcow2_put_be32(void *p, uint32_t v)
{
    store_le32(p, __builtin_bswap32(v));
}

/* ---- requests (qcow2.c) ---- */

/* A request to the file on behalf of one to the disk; vectors of its own lie behind it. */
struct qcow2_io {
    struct disk_request req;
    struct qcow2_req *r;
};

struct qcow2_req {
    struct qcow2 *q;
    struct disk_request *req;
    struct qcow2_waiter waiter;
    struct qcow2_req *older, *younger;
    uint64_t seq;
    uint64_t pos, end;  /* what has no place yet */
    unsigned iov_index; /* where pos is in req->iov */
    size_t iov_skip;
    unsigned pending; /* file requests and allocations under way, and one for the steps themselves */
    int result;
    unsigned room; /* MAP: for so many extents */
    union {
        struct disk_request below; /* MAP: what the backing file is asked */
        struct qcow2_io first_io;  /* else: used while its r is set */
    };
    bool forget;                      /* DISCARD: entries become those of what was never written */
    int (*step)(struct qcow2_req *r); /* does a part, moves pos; 0, -EAGAIN or an error */
    struct qcow2_pack *pack;          /* of a compressed write, while it is made */
};

void qcow2_park(struct qcow2_waitlist *list, struct qcow2_waiter *w);
void qcow2_wake(struct qcow2 *q, struct qcow2_waitlist *list, int result);
/*
 * A request of the format's own: `req` has no disk, its range may reach to the end of the disk's last cluster and beyond. done() comes later, from qcow2_run()
 * or the like, and must not call that.
 */
int qcow2_inner(struct qcow2 *q, struct disk_request *req, bool forget) MUST_CHECK;
/* The same, waited for. */
int qcow2_inner_wait(struct qcow2 *q, enum disk_op op, uint64_t offset, uint64_t len, bool forget) MUST_CHECK;
/* With no request under way: all in the file, and what was to be given back is. */
int qcow2_settle(struct qcow2 *q) MUST_CHECK;
/* qcow2_refcount_alloc() of exactly n, waited for. */
int qcow2_alloc_wait(struct qcow2 *q, uint64_t n, uint64_t *first) MUST_CHECK;
/* Lets finish what is under way, and settles; what comes from now on waits until qcow2_unhold(). -EBUSY: it holds already. */
int qcow2_hold(struct qcow2 *q) MUST_CHECK;
void qcow2_unhold(struct qcow2 *q);
void qcow2_submit(struct disk *disk, struct disk_request *req);
/* Serves the file. From within a request's done() too. */
void qcow2_serve(struct disk *disk);
/* Runs what was woken, then tells of finished requests. At the end of each callback of the file's. */
void qcow2_run(struct qcow2 *q);
/* With no request under way. */
void qcow2_free_spare(struct qcow2 *q);
/* One of `pending` is over. */
void qcow2_put(struct qcow2_req *r, int result);
/* Says once what is wrong with the image, and stops writes to it. Returns -EIO. */
int qcow2_broken(struct qcow2 *q, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The pieces of the request's buffers that its next `len` bytes are in; the second moves on. */
unsigned qcow2_iov_count(const struct qcow2_req *r, uint64_t len);
unsigned qcow2_iov_take(struct qcow2_req *r, uint64_t len, struct iovec *out);
/* The next len bytes read as zeroes. Moves on. */
void qcow2_iov_zero(struct qcow2_req *r, uint64_t len);
/* Copies to the pieces of `iov`. */
void qcow2_iov_copy(const struct iovec *iov, unsigned n, const uint8_t *from);
/* Reads or writes the next len bytes at `host`, or zeroes them there (DISK_ZERO). Moves pos on. */
int qcow2_transfer(struct qcow2_req *r, enum disk_op op, uint64_t host, uint64_t len) MUST_CHECK;
/* Reads the next len bytes, which the backing file has. Moves pos on. */
int qcow2_transfer_backing(struct qcow2_req *r, uint64_t len) MUST_CHECK;
/* Parks w until the requests under way that allocate clusters of the range are done; -EAGAIN, or 0 where there is none. */
int qcow2_alloc_conflict(struct qcow2 *q, uint64_t first, uint64_t n, struct qcow2_waiter *w) MUST_CHECK;
/* One cluster that is nobody's is about to be allocated, in a way of the caller's. */
int qcow2_alloc_claim(struct qcow2 *q, uint64_t guest, struct qcow2_alloc **claim) MUST_CHECK;
void qcow2_alloc_unclaim(struct qcow2 *q, struct qcow2_alloc *claim);

int qcow2_read_step(struct qcow2_req *r) MUST_CHECK;
int qcow2_write_step(struct qcow2_req *r) MUST_CHECK;
int qcow2_pack_step(struct qcow2_req *r) MUST_CHECK;
int qcow2_discard_step(struct qcow2_req *r) MUST_CHECK;
int qcow2_zero_step(struct qcow2_req *r) MUST_CHECK;
int qcow2_map_step(struct qcow2_req *r) MUST_CHECK;

/* ---- L2 ---- */

/* Of a cluster: DATA where any of its subclusters is, ZERO where all of them are. */
enum qcow2_kind { QCOW2_NONE, QCOW2_ZERO, QCOW2_DATA, QCOW2_PACKED };

struct qcow2_mapping {
    enum qcow2_kind kind;
    uint32_t data, zero; /* a bit for each subcluster; no bit: it is the backing file's, or zeroes */
    bool copied;         /* nobody else refers to the cluster */
    uint64_t host;       /* bytes; 0 where it has no cluster */
    uint64_t len;        /* PACKED: bytes to read, at most */
    uint64_t entry;      /* as it is */
    uint64_t first;      /* clusters it refers to */
    uint64_t n_first;    /* 0: none */
};

/* An entry and those behind it in its page. */
struct qcow2_l2 {
    struct qcow2_page *page; /* NULL: there is no table, all is unallocated */
    unsigned index;
    uint64_t n; /* clusters from here to the end of the page, or of the missing table */
};

/* From incompatible features and clusters: how entries and tables look. */
void qcow2_l2_shape(struct qcow2 *q);
int qcow2_l2_get(struct qcow2 *q, uint64_t guest, struct qcow2_waiter *w, struct qcow2_l2 *l2) MUST_CHECK;
/* The same, in a table that may be changed: makes one, or copies it, where needed. */
int qcow2_l2_get_writable(struct qcow2 *q, uint64_t guest, struct qcow2_waiter *w, struct qcow2_l2 *l2) MUST_CHECK;
/* The i-th entry from l2 on; -EIO where it cannot be. */
int qcow2_l2_entry(struct qcow2 *q, const struct qcow2_l2 *l2, uint64_t guest, uint64_t i,
                   struct qcow2_mapping *m) MUST_CHECK;
/* After qcow2_page_modify(). The clusters that the old entry referred to are the caller's. bitmap: of an extended entry. */
void qcow2_l2_set(struct qcow2_page *page, unsigned index, uint64_t entry, uint64_t bitmap);
/* What is at `at` in a table: the entry, and the bitmap behind it where entries are extended. */
void qcow2_l2_read(const struct qcow2 *q, const uint8_t *at, uint64_t *entry, uint64_t *bitmap);
int qcow2_l2_decode(const struct qcow2 *q, uint64_t entry, uint64_t bitmap, struct qcow2_mapping *m) MUST_CHECK;

/* Bytes of one kind. */
struct qcow2_run {
    enum qcow2_kind kind;
    uint64_t host;              /* DATA: of the first byte */
    uint64_t len;               /* bytes; PACKED: to the cluster's end */
    struct qcow2_mapping first; /* of the cluster they begin in */
};

/* What begins at `guest`, up to `most` bytes; `own`: clusters that are the image's alone and others do not go together. */
int qcow2_l2_run(struct qcow2 *q, const struct qcow2_l2 *l2, uint64_t guest, uint64_t most, bool own,
                 struct qcow2_run *run) MUST_CHECK;
/* Of the i-th subcluster. */
static inline enum qcow2_kind qcow2_kind_of(const struct qcow2_mapping *m, unsigned i)
{
    return m->kind == QCOW2_PACKED ? QCOW2_PACKED
           : m->data >> i & 1      ? QCOW2_DATA
           : m->zero >> i & 1      ? QCOW2_ZERO
                                   : QCOW2_NONE;
}
/* The bits of the subclusters that bytes [from, to) of a cluster touch. */
static inline uint32_t qcow2_subs(const struct qcow2 *q, uint64_t from, uint64_t to)
{
    unsigned first = (unsigned)(from >> q->sub_bits), end = (unsigned)((to - 1) >> q->sub_bits) + 1;
    return (uint32_t)((UINT64_C(1) << end) - (UINT64_C(1) << first));
}

/* ---- refcounts ---- */

uint64_t qcow2_refcount_read(const struct qcow2 *q, const uint8_t *page, unsigned index);
void qcow2_refcount_write(const struct qcow2 *q, uint8_t *page, unsigned index, uint64_t count);
/* *page is NULL where the cluster has no refcount block, which means zero. */
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, struct qcow2_waiter *w, struct qcow2_page **page,
                       unsigned *index) MUST_CHECK;
/* min to want adjacent clusters, with a refcount of one from now on. *fresh: they read as zeroes. */
int qcow2_refcount_alloc(struct qcow2 *q, uint64_t min, uint64_t want, struct qcow2_waiter *w, uint64_t *first,
                         uint64_t *n, bool *fresh) MUST_CHECK;
/* Makes the refcount block that the table lacks, and more of the table where it is too small. -EAGAIN, 0 or an error. */
int qcow2_grow_refcounts(struct qcow2 *q, uint64_t block, struct qcow2_waiter *w) MUST_CHECK;
/* Clusters below `end` are in use: makes the file as long. */
int qcow2_grow_file(struct qcow2 *q, uint64_t end) MUST_CHECK;

/* ---- compressed clusters ---- */

/* Reads and inflates the cluster; done() may come before the call returns, and gets the bytes for as long as it runs. */
int qcow2_unpack(struct qcow2 *q, const struct qcow2_mapping *m,
                 void (*done)(void *opaque, const uint8_t *cluster, int result), void *opaque) MUST_CHECK;
/* The request is over: what its step had begun is gone. */
void qcow2_pack_drop(struct qcow2_req *r);
/* These clusters get no more compressed ones. */
void qcow2_pack_avoid(struct qcow2 *q, uint64_t first, uint64_t n);

/* ---- what it is (disk_info.h) ---- */

struct disk_info;
void qcow2_info(const struct disk *disk, struct disk_info *info);

extern const struct disk_snapshot_ops qcow2_snapshot_ops;

/* ---- dirty bitmaps (qcow2_bitmap.h) ---- */

extern const struct disk_bitmap_ops qcow2_bitmap_ops;
/* Reads the directory, where the header's cluster names one. */
int qcow2_bitmap_open(struct qcow2 *q, const uint8_t *head, size_t len, struct err *err) MUST_CHECK;
/* The image is open: bits are read, where it is written to. */
int qcow2_bitmap_start(struct qcow2 *q, struct err *err) MUST_CHECK;
void qcow2_bitmap_fini(struct qcow2 *q);
/* Before what the disk holds changes in a way that is no request. */
int qcow2_bitmap_will_change(struct qcow2 *q) MUST_CHECK;
void qcow2_bitmap_changed(struct qcow2 *q); /* all of it, and maybe its size */
void qcow2_bitmap_resized(struct qcow2 *q);
/* With no request under way, before the image is closed. */
int qcow2_bitmap_close(struct qcow2 *q) MUST_CHECK;
unsigned qcow2_bitmap_number(const struct qcow2 *q);
/* Names a directory of n bitmaps in the header's first sector, or none: synced, or as it was. */
int qcow2_header_bitmaps(struct qcow2 *q, uint32_t n, uint64_t bytes, uint64_t offset) MUST_CHECK;

/* ---- opening ---- */

int qcow2_header_read(struct qcow2 *q, struct err *err) MUST_CHECK;
/* The header's first sector, with what has changed in q->header; not synced. */
int qcow2_header_write(struct qcow2 *q) MUST_CHECK;
/*
 * After a try to write another one that failed: writes ours again, and syncs it. Where that fails too, nobody knows which one the file has: what the other one
 * refers to stays as it is, and writing to the image fails, until qcow2_header_sure() could write ours.
 */
int qcow2_header_restore(struct qcow2 *q);
int qcow2_header_sure(struct qcow2 *q) MUST_CHECK;
/* The header extension of a type in the header's cluster, or NULL (spec, "Header extension"); at: where they begin. */
const uint8_t *qcow2_header_extension(const uint8_t *head, size_t len, size_t at, uint32_t type, uint32_t *n);
/* Opens the backing file that the header names, if any. */
int qcow2_backing_open(struct qcow2 *q, const struct disk_conf *conf, struct err *err) MUST_CHECK;
int qcow2_resize(struct disk *disk, uint64_t size, struct err *err) MUST_CHECK;
extern const struct disk_backing_ops qcow2_backing_ops; /* disk_chain.h */
/* Counts all references anew, and writes a new refcount table and its blocks. Blocks. */
int qcow2_repair_refcounts(struct qcow2 *q, struct err *err) MUST_CHECK;

/* ---- checking ---- */

struct disk_check;
int qcow2_check_image(struct disk *disk, struct disk_check *check, struct err *err) MUST_CHECK;

#endif
