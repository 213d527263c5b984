/*
 * Translated blocks of one vCPU: found by linear and physical address and mode. Code goes into the arena, what C knows about it into a second
 * one; when either is full both are emptied.
 *
 * A block stays valid while its page's bytes do. Stores to pages with translated code miss the TLB and move the page's code_version on
 * (ram.h, interp/code.h); the engine's hook tells every vCPU that holds blocks of that page, which then compares their bytes.
 *
 * A direct jump leads straight to its target where the two stand and fall together: on the same page; or on pages of kernel
 * code whose mappings are global, and then until such a mapping is flushed. All other jumps go through the jump cache.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/bt/translate.h"
#include "engine/interp/code.h"
#include "engine/interp/mmu.h"

#define N_BUCKETS  32768
#define N_PAGES    4096       /* buckets of the pages' table */
#define BLOCK_ROOM (64 * KIB) /* more than any block takes */
#define META_ROOM  (16 * KIB)
#define CODE_ALIGN 64
#define MAX_BLOCKS (1u << 20)
#define N_WRITTEN  16

/* A physical page that blocks were made from. */
struct page {
    struct page *next;
    struct bt_block *blocks;
    uint64_t number;
    const uint8_t *host;
    uint32_t version_seen;
};

struct bt_cache {
    struct bt_block **order; /* by their code's address, which is the order they were made in */
    size_t n_order;
    uint8_t *meta; /* blocks, links, pages, source bytes */
    size_t meta_size, meta_used;
    size_t code_first;     /* arena.used behind the thunks */
    struct bt_link *cross; /* not through `next`: joined links between pages */
    struct bt_block *buckets[N_BUCKETS];
    struct page *pages[N_PAGES];
    pthread_mutex_t written_lock;
    uint64_t written[N_WRITTEN]; /* pages by number whose versions moved since the last check */
    unsigned n_written;          /* of these; more than N_WRITTEN: any page's may have */
};

/* ---- room ---- */

static void *meta_alloc(struct bt_cache *cache, size_t len)
{
    size_t at = align_up(cache->meta_used, 8);

    if (cache->meta_size - at < len)
        return NULL;
    cache->meta_used = at + len;
    return cache->meta + at;
}

int cache_open(struct bt *bt, uint64_t size, struct err *err)
{
    struct bt_cache *cache = calloc(1, sizeof(*cache));

    if (!cache)
        return err_set(err, -ENOMEM, "code cache: out of memory");
    cache->meta_size = size;
    cache->meta = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->meta == MAP_FAILED) {
        free(cache);
        return err_set(err, -ENOMEM, "code cache: out of memory");
    }
    cache->order = mmap(NULL, MAX_BLOCKS * sizeof(*cache->order), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->order == MAP_FAILED) {
        munmap(cache->meta, size);
        free(cache);
        return err_set(err, -ENOMEM, "code cache: out of memory");
    }
    cache->code_first = bt->arena.used;
    pthread_mutex_init(&cache->written_lock, NULL);
    bt->cache = cache;
    return 0;
}

void cache_close(struct bt *bt)
{
    pthread_mutex_destroy(&bt->cache->written_lock);
    munmap(bt->cache->order, MAX_BLOCKS * sizeof(*bt->cache->order));
    munmap(bt->cache->meta, bt->cache->meta_size);
    free(bt->cache);
}

void cache_flush(struct bt *bt)
{
    struct bt_cache *cache = bt->cache;

    memset(cache->buckets, 0, sizeof(cache->buckets));
    memset(cache->pages, 0, sizeof(cache->pages));
    cache->cross = NULL;
    cache->n_order = 0;
    cache->meta_used = 0;
    bt->arena.used = cache->code_first;
    jump_flush(bt);
    bt->dropped = true;
    bt->stats.flushes++;
}

/* ---- links ---- */

struct bt_link *cache_new_link(struct bt *bt, struct bt_block *block, uint32_t *number)
{
    struct bt_link *link = meta_alloc(bt->cache, sizeof(*link));

    if (!link)
        return NULL;
    *link = (struct bt_link){.from = block};
    *number = (uint32_t)(((uint8_t *)link - bt->cache->meta) / 8);
    if (!block->n_links++)
        block->first_link = *number;
    return link;
}

struct bt_link *cache_link(struct bt *bt, uint32_t number)
{
    return (struct bt_link *)(bt->cache->meta + (size_t)number * 8);
}

/* Points the jump at `at`, a writable address in the arena, to code at `target`. */
static void aim(const struct bt *bt, uint8_t *at, const uint8_t *target)
{
    store_le32(at, (uint32_t)(target - (jit_arena_exec(&bt->arena, at) + 4)));
}

static const uint8_t *way_in(const struct bt_link *link, const struct bt_block *to)
{
    return link->live ? to->body_live : to->body_saved;
}

/* Both ends are kernel code under global mappings. */
static bool may_cross(const struct bt *bt, const struct bt_block *to)
{
    unsigned cpl = (bt->mode & BT_MODE_CPL) >> BT_MODE_CPL_SHIFT;
    return cpl == 0 && to->global && to->rip >> 63;
}

void cache_join(struct bt *bt, struct bt_link *link, struct bt_block *to)
{
    if (link->to || to->dead)
        return;
    if (!link->same_page && !(link->from_global && may_cross(bt, to))) {
        aim(bt, link->at, link->through);
        return;
    }
    link->to = to;
    link->next = to->incoming;
    to->incoming = link;
    if (!link->same_page && !link->in_cross) {
        link->in_cross = true;
        link->cross_next = bt->cache->cross;
        bt->cache->cross = link;
    }
    aim(bt, link->at, way_in(link, to));
}

void cache_unlink_cross(struct bt *bt)
{
    for (struct bt_link *link = bt->cache->cross; link; link = link->cross_next) {
        link->in_cross = false;
        if (!link->to)
            continue;
        struct bt_link **in = &link->to->incoming;
        while (*in && *in != link)
            in = &(*in)->next;
        if (*in)
            *in = link->next;
        link->to = NULL;
        aim(bt, link->at, link->stub);
    }
    bt->cache->cross = NULL;
}

void cache_unhook(struct bt *bt, struct bt_block *block)
{
    struct bt_link *link = cache_link(bt, block->first_link);

    for (unsigned i = 0; i < block->n_links; i++)
        aim(bt, link[i].at, link[i].stub);
    block->unhooked = true;
}

void cache_rehook(struct bt *bt, struct bt_block *block)
{
    struct bt_link *link = cache_link(bt, block->first_link);

    for (unsigned i = 0; i < block->n_links; i++)
        if (link[i].to)
            aim(bt, link[i].at, way_in(&link[i], link[i].to));
    block->unhooked = false;
}

/* ---- finding ---- */

static struct bt_block **bucket(struct bt_cache *cache, uint64_t rip, uint64_t gpa, uint32_t mode)
{
    uint64_t key = (rip ^ gpa << 20 ^ (uint64_t)mode << 40) * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->buckets[key >> 49];
}

static struct page *find_page(struct bt_cache *cache, uint64_t number)
{
    struct page *page = cache->pages[number % N_PAGES];
    while (page && page->number != number)
        page = page->next;
    return page;
}

/* The page's record, whose version is current: taken before its bytes are looked at. */
static struct page *hold_page(struct bt *bt, uint64_t gpa, const uint8_t *host)
{
    struct bt_cache *cache = bt->cache;
    struct ram *ram = bt->c.conf.ram;
    uint64_t number = ram_page(ram, host);
    struct page *page = find_page(cache, number);

    atomic_fetch_or(&bt->engine->holders[number], (uint16_t)(1u << bt->c.conf.index));
    uint32_t version = atomic_load_explicit(&ram->code_version[number], memory_order_acquire);
    code_mark(&bt->c, host, gpa);
    if (!page) {
        page = meta_alloc(cache, sizeof(*page));
        *page = (struct page){.next = cache->pages[number % N_PAGES],
                              .number = number,
                              .host = host - (gpa & (RAM_PAGE_SIZE - 1)),
                              .version_seen = version};
        cache->pages[number % N_PAGES] = page;
    }
    return page;
}

static struct bt_block *make(struct bt *bt, uint64_t rip, uint64_t gpa, const uint8_t *host, bool global)
{
    struct bt_cache *cache = bt->cache;
    struct bt_block **head = bucket(cache, rip, gpa, bt->mode);

    cache_check_pages(bt);
    if (cache->n_order == MAX_BLOCKS || bt->arena.size - bt->arena.used < BLOCK_ROOM ||
        cache->meta_size - cache->meta_used < META_ROOM)
        cache_flush(bt);
    struct page *page = hold_page(bt, gpa, host);
    struct bt_block *block = meta_alloc(cache, sizeof(*block));
    memset(block, 0, sizeof(*block));
    block->rip = rip;
    block->gpa = gpa;
    block->mode = bt->mode;
    block->global = global;
    bt->arena.used = align_up(bt->arena.used, CODE_ALIGN);
    size_t meta_used = cache->meta_used;
    uint8_t *room = jit_arena_alloc(&bt->arena, BLOCK_ROOM);
    size_t used = translate(bt, block, host, room, BLOCK_ROOM);
    jit_arena_trim(&bt->arena, room, used);
    if (!used) {
        cache->meta_used = meta_used;
        return NULL;
    }
    block->code = jit_arena_exec(&bt->arena, room);
    block->code_end = block->code + used;
    cache->order[cache->n_order++] = block;
    bt->stats.blocks++;
    bt->stats.guest_bytes += block->source_len;
    bt->stats.host_bytes += used;
    block->next = *head;
    *head = block;
    block->page_next = page->blocks;
    page->blocks = block;
    return block;
}

struct bt_block *cache_find(struct bt *bt, uint64_t rip)
{
    struct interp *c = &bt->c;
    uint64_t gpa;
    bool global;

    c->st.rip = rip;
    const uint8_t *host = mmu_fetch(c, rip, &gpa);
    if (!host)
        return NULL;
    global = mmu_fetch_global(c, rip);
    for (struct bt_block *block = *bucket(bt->cache, rip, gpa, bt->mode); block; block = block->next)
        if (block->rip == rip && block->gpa == gpa && block->mode == bt->mode) {
            block->global = global;
            return block;
        }
    return make(bt, rip, gpa, host, global);
}

struct bt_block *cache_at(struct bt *bt, uintptr_t pc)
{
    struct bt_cache *cache = bt->cache;
    size_t low = 0, high = cache->n_order;

    while (low < high) { /* the first block whose code ends behind pc */
        size_t mid = (low + high) / 2;
        if ((uintptr_t)cache->order[mid]->code_end <= pc)
            low = mid + 1;
        else
            high = mid;
    }
    return low < cache->n_order && (uintptr_t)cache->order[low]->code <= pc ? cache->order[low] : NULL;
}

const struct bt_block *cache_newest(const struct bt *bt, uint64_t rip)
{
    const struct bt_cache *cache = bt->cache;

    for (size_t i = cache->n_order; i-- > 0;)
        if (cache->order[i]->rip == rip)
            return cache->order[i];
    return NULL;
}

uint8_t *cache_keep(struct bt *bt, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = meta_alloc(bt->cache, len);
    if (copy)
        memcpy(copy, bytes, len);
    return copy;
}

/* ---- invalidation ---- */

static void drop(struct bt *bt, struct bt_block *block)
{
    struct bt_block **at = bucket(bt->cache, block->rip, block->gpa, block->mode);

    while (*at && *at != block)
        at = &(*at)->next;
    if (*at)
        *at = block->next;
    for (struct bt_link *link = block->incoming; link; link = link->next) {
        link->to = NULL;
        aim(bt, link->at, link->stub);
    }
    block->incoming = NULL;
    block->dead = true;
    jump_forget(bt, block);
    bt->dropped = true;
    bt->stats.invalidated++;
}

/* The page may have been written: which of its blocks are no longer what the guest's memory says? */
static void check_page(struct bt *bt, struct page *page)
{
    struct ram *ram = bt->c.conf.ram;
    uint32_t version = atomic_load_explicit(&ram->code_version[page->number], memory_order_acquire);
    struct bt_block **at = &page->blocks;

    if (version == page->version_seen)
        return;
    if (page->blocks)
        code_mark(&bt->c, page->host, page->blocks->gpa);
    page->version_seen = version;
    while (*at) {
        struct bt_block *block = *at;
        const uint8_t *bytes = page->host + (block->gpa & (RAM_PAGE_SIZE - 1));
        if (memcmp(bytes, block->source, block->source_len) == 0) {
            at = &block->page_next;
            continue;
        }
        *at = block->page_next;
        drop(bt, block);
    }
}

void cache_page_written(struct bt *bt, uint64_t number)
{
    struct bt_cache *cache = bt->cache;
    unsigned i = 0;

    pthread_mutex_lock(&cache->written_lock);
    while (i < cache->n_written && i < N_WRITTEN && cache->written[i] != number)
        i++;
    if (i == cache->n_written) {
        if (i < N_WRITTEN)
            cache->written[i] = number;
        cache->n_written++;
    }
    atomic_store(&bt->pages_written, true);
    pthread_mutex_unlock(&cache->written_lock);
}

void cache_check_pages(struct bt *bt)
{
    struct bt_cache *cache = bt->cache;
    uint64_t written[N_WRITTEN];

    if (LIKELY(!atomic_load(&bt->pages_written)))
        return;
    pthread_mutex_lock(&cache->written_lock);
    unsigned n = cache->n_written;
    memcpy(written, cache->written, sizeof(written));
    cache->n_written = 0;
    atomic_store(&bt->pages_written, false);
    pthread_mutex_unlock(&cache->written_lock);
    for (unsigned i = 0; n <= N_WRITTEN && i < n; i++) {
        struct page *page = find_page(cache, written[i]);
        if (page)
            check_page(bt, page);
    }
    for (size_t i = 0; n > N_WRITTEN && i < N_PAGES; i++)
        for (struct page *page = cache->pages[i]; page; page = page->next)
            check_page(bt, page);
}
