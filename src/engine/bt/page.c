/*
 * Blocks whose bytes change. Stores to pages with translated code miss the TLB and move the page's code_version on (ram.h, interp/code.h);
 * the engine's hook then tells every vCPU that holds blocks of that page, and each compares their bytes when it is between two of them.
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
    uint32_t version = atomic_load_explicit(&ram->code_version[number], memory_order_acquire);
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

/* The bytes of the block that lie on the page, as they are now, are those it was made from. */
static bool is_fresh(const struct bt_page *page, const struct bt_block *block, unsigned list)
{
    uint64_t offset = block->gpa & (RAM_PAGE_SIZE - 1);
    size_t first = block->crosses ? (size_t)(RAM_PAGE_SIZE - offset) : block->source_len;

    if (list == 0)
        return memcmp(page->host + offset, block->source, first) == 0;
    return memcmp(page->host, block->source + first, block->source_len - first) == 0;
}

/* The page may have been written: which of its blocks are no longer what the guest's memory says? */
static void check(struct bt *bt, struct bt_page *page)
{
    struct ram *ram = bt->c.conf.ram;
    uint32_t version = atomic_load_explicit(&ram->code_version[page->number], memory_order_acquire);
    struct bt_block *const heads[] = {page->blocks, page->crossers};

    if (version == page->version_seen)
        return;
    code_mark(&bt->c, page->host, page->gpa);
    page->version_seen = version;
    page->busy = true;
    for (unsigned list = 0; list < ARRAY_SIZE(heads); list++)
        for (struct bt_block *block = heads[list], *next; block; block = next) {
            next = block->page_next[list];
            if (is_fresh(page, block, list))
                continue;
            cache_drop(bt, block);
            bt->stats.count[ENGINE_TRANSLATOR_INVALIDATED]++;
        }
    page->busy = false;
    let_go(bt, page);
}

void cache_page_written(struct bt *bt, uint64_t number)
{
    struct cache_written *written = &bt->cache->written;
    unsigned i = 0;

    pthread_mutex_lock(&written->lock);
    while (i < written->n && i < ARRAY_SIZE(written->page) && written->page[i] != number)
        i++;
    if (i == written->n) {
        if (i < ARRAY_SIZE(written->page))
            written->page[i] = number;
        written->n++;
    }
    atomic_store(&bt->pages_written, true);
    pthread_mutex_unlock(&written->lock);
}

static void check_all(struct bt *bt)
{
    for (unsigned i = 0; i < CACHE_N_PAGES; i++)
        for (struct bt_page *page = bt->cache->pages[i], *next; page; page = next) {
            next = page->next;
            check(bt, page);
        }
}

void cache_check_pages(struct bt *bt)
{
    struct cache_written *written = &bt->cache->written;
    uint64_t number[ARRAY_SIZE(written->page)];

    if (LIKELY(!atomic_load(&bt->pages_written)))
        return;
    pthread_mutex_lock(&written->lock);
    unsigned n = written->n;
    memcpy(number, written->page, sizeof(number));
    written->n = 0;
    atomic_store(&bt->pages_written, false);
    pthread_mutex_unlock(&written->lock);
    if (n > ARRAY_SIZE(number)) {
        check_all(bt);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        struct bt_page *page = find(bt->cache, number[i]);
        if (page)
            check(bt, page);
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
