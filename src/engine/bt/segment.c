/*
 * Room for blocks. Generated code has a fixed amount, in up to sixteen segments; they are filled in turn, and when the last is full the first is
 * emptied, so that a working set larger than the cache loses a sixteenth of it at a time and not all.
 *
 * What C keeps for the blocks of a segment lies in a segment of its own, and goes with it. Nothing is touched before it is used.
 */
#include <errno.h>
#include <sys/mman.h>

#include "engine/bt/cache.h"

#define META_PER_CODE 2 /* address space, not memory: small blocks need more than their code */

static void *map_lazy(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

int segment_open(struct bt *bt, struct err *err)
{
    struct bt_cache *cache = bt->cache;
    struct jit_arena *arena = &bt->arena;

    arena->used = align_up(arena->used, CACHE_CODE_ALIGN);
    size_t room = arena->size - arena->used;
    cache->n_segments = (unsigned)(room / CACHE_SEGMENT_LEAST);
    if (cache->n_segments > CACHE_SEGMENTS)
        cache->n_segments = CACHE_SEGMENTS;
    if (cache->n_segments < 1)
        return err_set(err, -ENOSPC, "code cache of %zu bytes: too small", arena->size);
    cache->code_size = align_down(room / cache->n_segments, CACHE_CODE_ALIGN);
    cache->meta_size = cache->code_size * META_PER_CODE;
    cache->order_size = cache->code_size / CACHE_CODE_ALIGN;
    cache->code = jit_arena_alloc(arena, cache->n_segments * cache->code_size);
    cache->meta = map_lazy(cache->n_segments * cache->meta_size);
    cache->order = map_lazy(cache->n_segments * cache->order_size * sizeof(*cache->order));
    if (!cache->code || !cache->meta || !cache->order) {
        segment_close(bt);
        return err_set(err, -ENOMEM, "code cache: out of memory");
    }
    for (unsigned i = 0; i < cache->n_segments; i++)
        cache->segment[i].order = cache->order + i * cache->order_size;
    return 0;
}

void segment_close(struct bt *bt)
{
    struct bt_cache *cache = bt->cache;

    unmap(cache->order, cache->n_segments * cache->order_size * sizeof(*cache->order));
    unmap(cache->meta, cache->n_segments * cache->meta_size);
}

static struct cache_segment *current(struct bt_cache *cache)
{
    return &cache->segment[cache->now];
}

uint8_t *segment_code(struct bt *bt, size_t *len)
{
    struct bt_cache *cache = bt->cache;
    size_t used = current(cache)->code_used;

    *len = cache->code_size - used;
    return *len ? cache->code + cache->now * cache->code_size + used : NULL;
}

void *segment_alloc(struct bt *bt, size_t len)
{
    struct bt_cache *cache = bt->cache;
    size_t at = align_up(current(cache)->meta_used, 8);

    if (at > cache->meta_size || cache->meta_size - at < len)
        return NULL;
    current(cache)->meta_used = at + len;
    return cache->meta + cache->now * cache->meta_size + at;
}

size_t segment_mark(const struct bt *bt)
{
    return bt->cache->segment[bt->cache->now].meta_used;
}

void segment_rewind(struct bt *bt, size_t mark)
{
    current(bt->cache)->meta_used = mark;
}

void segment_commit(struct bt *bt, struct bt_block *block)
{
    struct cache_segment *s = current(bt->cache);

    s->code_used += align_up((uint64_t)(block->code_end - block->code), CACHE_CODE_ALIGN);
    s->order[s->n++] = block;
}

bool segment_is_empty(const struct bt *bt)
{
    return bt->cache->segment[bt->cache->now].n == 0;
}

void segment_next(struct bt *bt)
{
    struct bt_cache *cache = bt->cache;

    cache->now = (cache->now + 1) % cache->n_segments;
    struct cache_segment *s = current(cache);
    if (!s->n)
        return;
    for (uint32_t i = 0; i < s->n; i++)
        if (!s->order[i]->dead)
            cache_drop(bt, s->order[i]);
    link_forget_cross(bt, cache->meta + cache->now * cache->meta_size, cache->meta_size);
    s->n = 0;
    s->code_used = s->meta_used = 0;
    bt->dropped = true;
    bt->stats.count[ENGINE_TRANSLATOR_EVICTED]++;
    heat_evicted(bt);
}

/* Async-signal-safe while generated code runs: nothing here is written then. */
struct bt_block *cache_at(struct bt *bt, uintptr_t pc)
{
    const struct bt_cache *cache = bt->cache;
    uintptr_t at = pc - (uintptr_t)jit_arena_exec(&bt->arena, cache->code);

    if (at >= cache->n_segments * cache->code_size)
        return NULL;
    const struct cache_segment *s = &cache->segment[at / cache->code_size];
    uint32_t low = 0, high = s->n;
    while (low < high) { /* the first block whose code ends behind pc */
        uint32_t mid = low + (high - low) / 2;
        if ((uintptr_t)s->order[mid]->code_end <= pc)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->n && (uintptr_t)s->order[low]->code <= pc ? s->order[low] : NULL;
}

const struct bt_block *cache_newest(const struct bt *bt, uint64_t rip)
{
    const struct bt_cache *cache = bt->cache;

    for (unsigned i = 0; i < cache->n_segments; i++) { /* from the current segment back to the oldest */
        const struct cache_segment *s = &cache->segment[(cache->now + cache->n_segments - i) % cache->n_segments];
        for (uint32_t j = s->n; j-- > 0;)
            if (s->order[j]->rip == rip)
                return s->order[j];
    }
    return NULL;
}
