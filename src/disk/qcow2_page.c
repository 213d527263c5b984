/*
 * The cache. Pages that are dirty, pinned, being read or being written stay; of the others, those not used for longest go first. The limit is soft:
 * how many must stay is bounded by qcow2_commit_room() and by the requests under way.
 */
#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_impl.h"

#define HASH_SIZE    4096
#define SLAB_BUFFERS 63

static struct qcow2_page **bucket(struct qcow2 *q, uint64_t offset)
{
    uint64_t n = offset / q->page_size;

    return &q->page_hash[(n ^ n >> 12) % HASH_SIZE];
}

static struct qcow2_page *find(struct qcow2 *q, uint64_t offset)
{
    struct qcow2_page *p = *bucket(q, offset);

    while (p && p->offset != offset)
        p = p->hash_next;
    return p;
}

static void lru_remove(struct qcow2 *q, struct qcow2_page *p)
{
    *(p->lru_prev ? &p->lru_prev->lru_next : &q->lru_first) = p->lru_next;
    *(p->lru_next ? &p->lru_next->lru_prev : &q->lru_last) = p->lru_prev;
}

static void lru_add(struct qcow2 *q, struct qcow2_page *p)
{
    p->lru_prev = NULL;
    p->lru_next = q->lru_first;
    *(q->lru_first ? &q->lru_first->lru_prev : &q->lru_last) = p;
    q->lru_first = p;
}

static void move_to_front(struct qcow2 *q, struct qcow2_page *p)
{
    if (q->lru_first == p)
        return;
    lru_remove(q, p);
    lru_add(q, p);
}

/*
 * Buffers come in slabs: the C library needs twice the room for one that is aligned. They go back to the list of those that are free, and the slabs at the
 * end.
 */
struct qcow2_slab {
    struct qcow2_slab *next;
};

static void *get_buffer(struct qcow2 *q)
{
    if (!q->free_buffers) {
        struct qcow2_slab *slab = malloc(sizeof(*slab) + q->page_size * (SLAB_BUFFERS + 1));
        if (!slab)
            return NULL;
        slab->next = q->slabs;
        q->slabs = slab;
        uint8_t *first = (uint8_t *)align_up((uintptr_t)(slab + 1), q->page_size);
        for (unsigned i = 0; i < SLAB_BUFFERS; i++) {
            void **buffer = (void **)(first + i * q->page_size);
            *buffer = q->free_buffers;
            q->free_buffers = buffer;
        }
    }
    void **buffer = q->free_buffers;
    q->free_buffers = *buffer;
    return buffer;
}

void qcow2_page_release(struct qcow2 *q, uint8_t *p)
{
    void **buffer = (void **)p;

    if (!p)
        return;
    *buffer = q->free_buffers;
    q->free_buffers = buffer;
}

static void destroy(struct qcow2 *q, struct qcow2_page *p)
{
    struct qcow2_page **link = bucket(q, p->offset);

    while (*link != p)
        link = &(*link)->hash_next;
    *link = p->hash_next;
    lru_remove(q, p);
    q->n_pages--;
    if (p->dirty)
        q->n_dirty--;
    if (p->frozen != p->data)
        qcow2_page_release(q, p->frozen);
    qcow2_page_release(q, p->data);
    free(p);
}

static bool busy(const struct qcow2_page *p)
{
    return p->dirty || p->pins || p->loading || p->frozen;
}

/* Makes room for one, among the oldest few; who was used since it was looked at last has a second chance. */
static void evict(struct qcow2 *q)
{
    struct qcow2_page *p = q->lru_last, *last = q->lru_first;

    for (unsigned tries = 0; p && q->n_pages >= q->max_pages && tries < 128; tries++) {
        struct qcow2_page *next = p == last ? NULL : p->lru_prev; /* and not again those that were moved */
        if (busy(p) || p->used) {
            p->used = false;
            move_to_front(q, p);
        } else {
            destroy(q, p);
        }
        p = next;
    }
}

static struct qcow2_page *create(struct qcow2 *q, uint64_t offset, enum qcow2_page_kind kind)
{
    if (q->n_pages >= q->max_pages)
        evict(q);
    struct qcow2_page *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->data = get_buffer(q);
    if (!p->data) {
        free(p);
        return NULL;
    }
    p->q = q;
    p->offset = offset;
    p->kind = kind;
    struct qcow2_page **link = bucket(q, offset);
    p->hash_next = *link;
    *link = p;
    lru_add(q, p);
    q->n_pages++;
    return p;
}

static void loaded(struct disk_request *io, int result)
{
    struct qcow2_page *p = CONTAINER_OF(io, struct qcow2_page, io);
    struct qcow2 *q = p->q;

    p->loading = false;
    qcow2_wake(q, &p->waiters, result);
    if (result)
        destroy(q, p);
    qcow2_run(q);
}

int qcow2_page_get(struct qcow2 *q, uint64_t offset, enum qcow2_page_kind kind, struct qcow2_waiter *w,
                   struct qcow2_page **page)
{
    struct qcow2_page *p = find(q, offset);

    if (p && p->kind != kind)
        return qcow2_broken(q, "the cluster at offset 0x%llx is an L2 table and a refcount block",
                            (unsigned long long)offset);
    if (p && !p->loading) {
        p->used = true;
        *page = p;
        return 0;
    }
    if (!p) {
        p = create(q, offset, kind);
        if (!p)
            return -ENOMEM;
        p->loading = true;
        p->iov = (struct iovec){p->data, q->page_size};
        p->io = (struct disk_request){
            .op = DISK_READ, .offset = offset, .len = q->page_size, .iov = &p->iov, .n_iov = 1, .done = loaded};
        file_submit(q->file, &p->io);
    }
    qcow2_park(&p->waiters, w);
    return -EAGAIN;
}

int qcow2_page_new(struct qcow2 *q, uint64_t offset, enum qcow2_page_kind kind, struct qcow2_page **page)
{
    struct qcow2_page *p = find(q, offset);

    if (p && (p->loading || p->pins || p->frozen || p->dirty))
        return qcow2_broken(q, "the cluster at offset 0x%llx is in use twice", (unsigned long long)offset);
    if (p)
        destroy(q, p);
    p = create(q, offset, kind);
    if (!p)
        return -ENOMEM;
    memset(p->data, 0, q->page_size);
    *page = p;
    return 0;
}

int qcow2_page_modify(struct qcow2_page *p)
{
    if (p->frozen && p->frozen == p->data) {
        uint8_t *copy = get_buffer(p->q);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, p->data, p->q->page_size);
        p->data = copy;
    }
    if (!p->dirty) {
        p->dirty = true;
        p->q->n_dirty++;
    }
    return 0;
}

void qcow2_page_forget(struct qcow2 *q, uint64_t cluster)
{
    uint64_t start = cluster << q->cluster_bits;

    for (uint64_t at = start; at < start + q->cluster_size; at += q->page_size) {
        struct qcow2_page *p = find(q, at);
        if (!p || p->loading || p->pins)
            continue;
        if (!p->frozen)
            destroy(q, p);
    }
}

void qcow2_page_drop(struct qcow2 *q)
{
    while (q->lru_first)
        destroy(q, q->lru_first);
}

int qcow2_page_init(struct qcow2 *q)
{
    q->page_size = q->cluster_size < QCOW2_PAGE_SIZE ? q->cluster_size : QCOW2_PAGE_SIZE;
    q->max_pages = QCOW2_CACHE_BYTES / (q->page_size + sizeof(struct qcow2_page) + 32);
    q->max_dirty = q->max_pages / 3;
    q->page_hash = calloc(HASH_SIZE, sizeof(struct qcow2_page *));
    return q->page_hash ? 0 : -ENOMEM;
}

void qcow2_page_fini(struct qcow2 *q)
{
    qcow2_page_drop(q);
    while (q->slabs) {
        struct qcow2_slab *next = q->slabs->next;
        free(q->slabs);
        q->slabs = next;
    }
    free(q->page_hash);
}
