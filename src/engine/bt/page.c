/*
 * Blocks whose bytes change. Stores to pages with translated code miss the TLB (interp/code.h). Those to granules of 64 bytes that code was
 * made from move the page's code version on (ram.h), and the engine's hook then tells every vCPU that holds blocks of that page, with the
 * granules; each compares the bytes of its blocks there when it is between two of them. Other stores concern nobody, and those of general
 * registers are light calls (light.c).
 *
 * No store is missed, whoever makes it:
 *
 *     who translates                        who stores
 *     is among the page's holders           stores
 *     takes the code version                barrier
 *     marks the page: no TLB has a          are these granules claimed?
 *     write tag for it any more             moves the code version on
 *     claims the granules, barrier          tells the page's holders
 *     reads the bytes
 *
 * If the store comes too late to be read, its maker finds the claim; and since the holder was one before it claimed, the maker tells it. If
 * another vCPU claimed the granule before, the maker may not find this one among the holders yet: but then the bytes were read later than
 * that, and after the store. Where a block ends is known only when it is made, so the bytes are read twice, and compared after the claim.
 *
 * Claims are forgotten where the page is unmarked, which the stores to it decide, and here where blocks are dropped and nobody else holds any.
 * Either moves the code version on afterwards and tells the holders: all granules are meant then, and who hears of it marks and claims for
 * what it holds, and then compares. A claim that was made just before, and is lost, comes from one who was a holder by then.
 */
#include <stdlib.h>

#include "engine/bt/cache.h"
#include "engine/interp/code.h"

static struct bt_page **bucket(struct bt_cache *cache, uint64_t number)
{
    return &cache->pages[number % CACHE_N_PAGES];
}

static struct bt_page *find(struct bt_cache *cache, uint64_t number)
{
    struct bt_page *page = *bucket(cache, number);

    while (page && page->number != number)
        page = page->next;
    return page;
}

struct bt_page *page_hold(struct bt *bt, uint64_t gpa, const uint8_t *host)
{
    struct ram *ram = bt->c.conf.ram;
    uint64_t number = ram_page(ram, host), offset = gpa & (RAM_PAGE_SIZE - 1);
    struct bt_page *page = find(bt->cache, number);

    atomic_fetch_or(&bt->engine->holders[number], (uint16_t)(1u << bt->c.conf.index));
    uint32_t version = atomic_load_explicit(&ram->code[number].version, memory_order_acquire);
    code_mark(&bt->c, host, gpa);
    if (page)
        return page;
    page = malloc(sizeof(*page));
    if (!page)
        return NULL;
    *page = (struct bt_page){.next = *bucket(bt->cache, number),
                             .number = number,
                             .gpa = gpa - offset,
                             .host = host - offset,
                             .version_seen = version};
    *bucket(bt->cache, number) = page;
    return page;
}

static void let_go(struct bt *bt, struct bt_page *page)
{
    struct bt_page **at = bucket(bt->cache, page->number);

    if (page->busy || page->blocks || page->crossers)
        return;
    while (*at != page)
        at = &(*at)->next;
    *at = page->next;
    atomic_fetch_and(&bt->engine->holders[page->number], (uint16_t) ~(1u << bt->c.conf.index));
    free(page);
}

static void put_on(struct bt_block **head, struct bt_block *block, unsigned list)
{
    block->page_next[list] = *head;
    block->page_prev[list] = head;
    if (*head)
        (*head)->page_prev[list] = &block->page_next[list];
    *head = block;
}

void page_enlist(struct bt *bt, struct bt_block *block)
{
    put_on(&find(bt->cache, block->page)->blocks, block, 0);
    if (block->crosses)
        put_on(&find(bt->cache, block->page2)->crossers, block, 1);
}

static void take_off(struct bt_block *block, unsigned list)
{
    *block->page_prev[list] = block->page_next[list];
    if (block->page_next[list])
        block->page_next[list]->page_prev[list] = block->page_prev[list];
}

void page_remove(struct bt *bt, struct bt_block *block)
{
    struct bt_page *page = find(bt->cache, block->page);

    take_off(block, 0);
    let_go(bt, page);
    if (!block->crosses)
        return;
    page = find(bt->cache, block->page2);
    take_off(block, 1);
    let_go(bt, page);
}

/* The part of a block that lies on one of its pages. */
struct extent {
    uint64_t offset, len; /* in the page */
    const uint8_t *source;
};

static struct extent extent_of(const struct bt_block *block, unsigned list)
{
    uint64_t offset = block->gpa & (RAM_PAGE_SIZE - 1);
    uint64_t first = block->crosses ? RAM_PAGE_SIZE - offset : block->source_len;

    if (list == 0)
        return (struct extent){offset, first, block->source};
    return (struct extent){0, block->source_len - first, block->source + first};
}

/* Its bytes, as they are now, are those the block was made from. */
static bool is_fresh(const struct bt_page *page, const struct extent *extent)
{
    return memcmp(page->host + extent->offset, extent->source, extent->len) == 0;
}

static bool claim(struct bt *bt, const struct bt_page *page, const struct extent *extent)
{
    ram_claim_code(bt->c.conf.ram, page->host + extent->offset, extent->len);
    return is_fresh(page, extent);
}

bool page_claim(struct bt *bt, const struct bt_block *block)
{
    struct extent first = extent_of(block, 0), second = extent_of(block, 1);

    return claim(bt, find(bt->cache, block->page), &first) &&
           (!block->crosses || claim(bt, find(bt->cache, block->page2), &second));
}

/* Blocks were dropped: their granules are forgotten unless others are made from them. Other vCPUs' claims are not known here. */
static void forget_granules(struct bt *bt, const struct bt_page *page, uint64_t used)
{
    struct ram *ram = bt->c.conf.ram;

    if (atomic_load(&bt->engine->holders[page->number]) != 1u << bt->c.conf.index)
        return;
    uint64_t now = atomic_load(&ram->code[page->number].granules);
    if (now & ~used)
        ram_keep_code(ram, page->number, now, used);
}

/* Drops the block if its part on the page has changed. `all`: it must be claimed anew before it is looked at. */
static bool check_block(struct bt *bt, const struct bt_page *page, struct bt_block *block, const struct extent *extent,
                        bool all)
{
    if (all ? claim(bt, page, extent) : is_fresh(page, extent))
        return true;
    cache_drop(bt, block);
    bt->stats.count[ENGINE_TRANSLATOR_INVALIDATED]++;
    return false;
}

/*
 * Granules of the page may have been written: which of its blocks are no longer what the guest's memory says? When there are none left, neither is
 * the record of the page.
 */
static void check(struct bt *bt, struct bt_page *page, uint64_t granules)
{
    struct ram *ram = bt->c.conf.ram;
    bool all = granules == RAM_GRANULES_ALL, dropped = false;
    struct bt_block *const heads[] = {page->blocks, page->crossers};
    uint64_t used = 0;

    if (all) {
        uint32_t version = atomic_load_explicit(&ram->code[page->number].version, memory_order_acquire);
        if (version == page->version_seen)
            goto out;
        code_mark(&bt->c, page->host, page->gpa);
        page->version_seen = version;
    }
    page->busy = true;
    for (unsigned list = 0; list < ARRAY_SIZE(heads); list++)
        for (struct bt_block *block = heads[list], *next; block; block = next) {
            next = block->page_next[list];
            struct extent extent = extent_of(block, list);
            uint64_t own = ram_granules(extent.offset, extent.len);
            if (!(own & granules) || check_block(bt, page, block, &extent, all))
                used |= own;
            else
                dropped = true;
        }
    if (dropped && !all)
        forget_granules(bt, page, used);

out:
    page->busy = false;
    let_go(bt, page);
}

void cache_page_written(struct bt *bt, uint64_t number, uint64_t granules)
{
    struct cache_written *written = &bt->cache->written;
    unsigned i = 0;

    pthread_mutex_lock(&written->lock);
    while (i < written->n && i < ARRAY_SIZE(written->what) && written->what[i].page != number)
        i++;
    if (i == written->n) {
        if (i < ARRAY_SIZE(written->what)) {
            written->what[i].page = number;
            written->what[i].granules = 0;
        }
        written->n++;
    }
    if (i < ARRAY_SIZE(written->what))
        written->what[i].granules |= granules;
    atomic_store(&bt->pages_written, true);
    pthread_mutex_unlock(&written->lock);
}

static void check_all(struct bt *bt)
{
    for (unsigned i = 0; i < CACHE_N_PAGES; i++)
        for (struct bt_page *page = bt->cache->pages[i], *next; page; page = next) {
            next = page->next;
            if (next)
                next->busy = true; /* a block that is dropped may be the last one of its second page, too */
            check(bt, page, RAM_GRANULES_ALL);
        }
}

void cache_check_pages(struct bt *bt)
{
    struct cache_written written = {.n = 0};

    if (LIKELY(!atomic_load(&bt->pages_written)))
        return;
    pthread_mutex_lock(&bt->cache->written.lock);
    written.n = bt->cache->written.n;
    memcpy(written.what, bt->cache->written.what, sizeof(written.what));
    bt->cache->written.n = 0;
    atomic_store(&bt->pages_written, false);
    pthread_mutex_unlock(&bt->cache->written.lock);
    if (written.n > ARRAY_SIZE(written.what)) {
        check_all(bt);
        return;
    }
    for (unsigned i = 0; i < written.n; i++) {
        struct bt_page *page = find(bt->cache, written.what[i].page);
        if (page)
            check(bt, page, written.what[i].granules);
    }
}

void page_open(struct bt *bt)
{
    pthread_mutex_init(&bt->cache->written.lock, NULL);
}

void page_close(struct bt *bt)
{
    for (unsigned i = 0; i < CACHE_N_PAGES; i++)
        for (struct bt_page *page = bt->cache->pages[i], *next; page; page = next) {
            next = page->next;
            free(page);
        }
    pthread_mutex_destroy(&bt->cache->written.lock);
}
