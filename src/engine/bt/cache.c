/*
 * Translated blocks of one vCPU: found by linear and physical address and mode, made where there is none. A block stays valid while the
 * bytes of its pages do (page.c), or until its room is wanted (segment.c).
 *
 * Blocks lie within a page, but for those of a single instruction that ends on the next one. Such a block counts on two mappings: it is
 * found only under both, reached only through the jump cache, and that forgets it when either is flushed.
 */
#include "engine/bt/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/loop.h"
#include "engine/bt/translate.h"
#include "engine/interp/debugger.h"
#include "engine/interp/mmu.h"

#define CODE_PER_BUCKET 512 /* bytes: about a block's */
#define BUCKET_BITS_MIN 10
#define BUCKET_BITS_MAX 20
#define MAX_TWINS \
    4 /* blocks of the same code under different linear addresses; then the one found longest ago is moved */

/* What a block is found by, and where its bytes are. */
struct place {
    uint64_t rip, gpa, gpa2;
    const uint8_t *host, *host2; /* host2: NULL within a page */
    bool global;
};

int cache_open(struct bt *bt, struct err *err)
{
    struct bt_cache *cache = calloc(1, sizeof(*cache));

    if (!cache)
        return err_set(err, -ENOMEM, "code cache: out of memory");
    cache->bucket_bits = BUCKET_BITS_MIN;
    while (cache->bucket_bits < BUCKET_BITS_MAX && (size_t)CODE_PER_BUCKET << cache->bucket_bits < bt->arena.size)
        cache->bucket_bits++;
    cache->buckets = calloc((size_t)1 << cache->bucket_bits, sizeof(*cache->buckets));
    if (!cache->buckets) {
        free(cache);
        return err_set(err, -ENOMEM, "code cache: out of memory");
    }
    bt->cache = cache;
    int ret = segment_open(bt, err);
    if (ret < 0) {
        free(cache->buckets);
        free(cache);
        return ret;
    }
    page_open(bt);
    return 0;
}

void cache_close(struct bt *bt)
{
    page_close(bt);
    segment_close(bt);
    free(bt->cache->buckets);
    free(bt->cache);
}

uint8_t *cache_keep(struct bt *bt, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = segment_alloc(bt, len);
    if (copy)
        memcpy(copy, bytes, len);
    return copy;
}

/* ---- finding ---- */

/* By physical address, so that the same code under other linear ones is found beside it. */
static struct bt_block **bucket(struct bt_cache *cache, uint64_t gpa, uint32_t mode)
{
    uint64_t key = (gpa ^ (uint64_t)mode << 40) * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->buckets[key >> (64 - cache->bucket_bits)];
}

/* The second page's mapping. Raises what fetching raises; false: not RAM. */
static bool fetch_second(struct bt *bt, struct place *at)
{
    struct interp *c = &bt->c;
    uint64_t rip2 = align_down(at->rip, RAM_PAGE_SIZE) + RAM_PAGE_SIZE;

    if (at->host2)
        return true;
    rip2 = c->code_size == 8 ? rip2 : (uint32_t)rip2;
    at->host2 = mmu_fetch(c, rip2, &at->gpa2);
    at->global &= mmu_fetch_global(c, rip2);
    return at->host2 != NULL;
}

static struct bt_block *look_up(struct bt *bt, struct place *at)
{
    for (struct bt_block *block = *bucket(bt->cache, at->gpa, bt->mode); block; block = block->next) {
        if (block->gpa != at->gpa || block->rip != at->rip || block->mode != bt->mode)
            continue;
        if (!block->crosses)
            return block;
        if (fetch_second(bt, at) && block->gpa2 == at->gpa2)
            return block;
    }
    return NULL;
}

/* So that the last of a bucket is the one found longest ago. */
static void to_front(struct bt *bt, struct bt_block *block)
{
    struct bt_block **head = bucket(bt->cache, block->gpa, block->mode), **at = head;

    while (*at != block)
        at = &(*at)->next;
    *at = block->next;
    block->next = *head;
    *head = block;
}

/* ---- making ---- */

/*
 * The block's bytes as they are now, at most `max` of them, while its pages are held; with `claim`, stores to any of them are noticed from
 * before they are read. Returns how many; 0: out of memory.
 */
static size_t take_bytes(struct bt *bt, struct bt_block *block, const struct place *at, bool claim, uint8_t *bytes,
                         size_t max)
{
    struct ram *ram = bt->c.conf.ram;
    size_t left = RAM_PAGE_SIZE - (at->gpa & (RAM_PAGE_SIZE - 1));

    block->page = ram_page(ram, at->host);
    if (!page_hold(bt, at->gpa, at->host))
        return 0;
    if (!block->crosses) {
        left = left < max ? left : max;
        if (claim)
            ram_claim_code(ram, at->host, left);
        memcpy(bytes, at->host, left);
        return left;
    }
    block->page2 = ram_page(ram, at->host2);
    if (!page_hold(bt, at->gpa2, at->host2))
        return 0;
    if (claim) {
        ram_claim_code(ram, at->host, left);
        ram_claim_code(ram, at->host2, X86_INSN_MAX);
    }
    memcpy(bytes, at->host, left);
    memcpy(bytes + left, at->host2, X86_INSN_MAX);
    return X86_INSN_MAX;
}

static void trace_block(const struct bt *bt, const struct bt_block *block)
{
    const struct engine_code code = {
        .vcpu = bt->c.conf.index,
        .lin = block->rip,
        .size = block->mode & BT_MODE_64 ? 8 : 4,
        .cpl = (block->mode & BT_MODE_CPL) >> BT_MODE_CPL_SHIFT,
        .guest = block->source,
        .guest_len = block->source_len,
        .host = block->code,
        .host_len = (size_t)(block->code_end - block->code),
    };
    interp_trace_code(&bt->c, &code);
}

static void enlist(struct bt *bt, struct bt_block *block)
{
    struct bt_block **head = bucket(bt->cache, block->gpa, block->mode);

    block->next = *head;
    *head = block;
    page_enlist(bt, block);
    segment_commit(bt, block);
    bt->stats.count[ENGINE_TRANSLATOR_BLOCKS]++;
    bt->stats.count[ENGINE_TRANSLATOR_GUEST_BYTES] += block->source_len;
    bt->stats.count[ENGINE_TRANSLATOR_HOST_BYTES] += (uint64_t)(block->code_end - block->code);
    trace_block(bt, block);
}

/* What came of trying to make a block. */
enum made { MADE, NO_ROOM, NO_MEMORY, CROSSES, CHANGED };

/*
 * In the current segment. Where the block ends shows when it is made, and then its bytes are claimed; CHANGED: they were written before that.
 * With `claim`, as much as it may be is claimed first, and a store since then is noticed as any later one.
 */
static enum made try(struct bt *bt, const struct place *at, unsigned max, bool claim, struct bt_block **blockp)
{
    /* From a copy: another CPU may be writing, and what is remembered must be what was translated. */
    uint8_t bytes[TRANSLATE_INSNS * X86_INSN_MAX];
    size_t len, mark = segment_mark(bt);
    uint8_t *room = segment_code(bt, &len);
    struct bt_block *block = segment_alloc(bt, sizeof(*block));
    enum made made = NO_ROOM;

    if (!room || !block)
        goto undo;
    *block = (struct bt_block){.rip = at->rip,
                               .gpa = at->gpa,
                               .gpa2 = at->gpa2,
                               .mode = bt->mode,
                               .global = at->global,
                               .crosses = at->host2 != NULL};
    size_t avail = take_bytes(bt, block, at, claim, bytes, sizeof(bytes));
    made = NO_MEMORY;
    if (!avail)
        goto undo;
    if (translate(bt, block, bytes, avail, max, room, len)) {
        made = CHANGED;
        if (!page_claim(bt, block) && !claim)
            goto undo;
        enlist(bt, block);
        *blockp = block;
        return MADE;
    }
    made = block->source_len ? NO_ROOM : CROSSES;

undo:
    segment_rewind(bt, mark);
    return made;
}

/* Whether more of its instructions are not to share their checks than when it was translated: then its code is another. */
static bool is_stale(const struct bt *bt, const struct bt_block *block)
{
    uint64_t rip = block->rip;
    unsigned n = 0;

    for (unsigned i = 0; i < block->n; rip += block->lengths[i++])
        n += bt->solo[group_solo_slot(block, rip)];
    return n > block->n_solo;
}

/*
 * The same code at other linear addresses: how many blocks, and the one found longest ago; NULL: none that can be moved and
 * is as it would be translated now.
 */
static struct bt_block *find_twin(struct bt *bt, struct place *at, unsigned *n)
{
    struct bt_block *twin = NULL;

    *n = 0;
    if (!move_is_place(bt->mode, at->rip))
        return NULL;
    for (struct bt_block *block = *bucket(bt->cache, at->gpa, bt->mode); block; block = block->next) {
        if (block->gpa != at->gpa || block->mode != bt->mode || !block->relocs || is_stale(bt, block))
            continue;
        if (block->crosses && !(fetch_second(bt, at) && block->gpa2 == at->gpa2))
            continue;
        twin = block;
        ++*n;
    }
    return twin;
}

/* From the same code at another linear address. NULL: there is none, or no room. */
static struct bt_block *make_from_twin(struct bt *bt, struct place *at)
{
    unsigned n;
    struct bt_block *twin = find_twin(bt, at, &n);

    if (!twin || debugger_breaks_in(&bt->c, at->rip, twin->source_len))
        return NULL;
    if (n >= MAX_TWINS) {
        move_block(bt, twin, at->rip);
        bt->stats.count[ENGINE_TRANSLATOR_MOVED]++;
        return twin;
    }
    size_t mark = segment_mark(bt);
    struct bt_block *block = move_copy(bt, twin, at->rip);
    if (!block) {
        segment_rewind(bt, mark);
        return NULL;
    }
    enlist(bt, block);
    bt->stats.count[ENGINE_TRANSLATOR_COPIED]++;
    return block;
}

static struct bt_block *make_block(struct bt *bt, struct place *at)
{
    unsigned max = TRANSLATE_INSNS;
    struct bt_block *block;
    bool claim = false;

    cache_check_pages(bt);
    block = make_from_twin(bt, at);
    if (block)
        return block;
    at->host2 =
        NULL; /* whether its first instruction crosses is for its bytes to say, not for other blocks of that address */
    for (;;) {
        switch (try(bt, at, max, claim, &block)) {
        case MADE:
            return block;
        case NO_ROOM:
            if (!segment_is_empty(bt))
                segment_next(bt);
            else if (!(max /= 2))
                return NULL;
            break;
        case CROSSES:
            if (at->host2 || !fetch_second(bt, at))
                return NULL;
            max = 1;
            break;
        case CHANGED:
            claim = true;
            break;
        case NO_MEMORY:
            return NULL;
        }
    }
}

static struct bt_block *make(struct bt *bt, struct place *at)
{
    int64_t before = loop_now();
    struct bt_block *block = make_block(bt, at);

    bt->stats.count[ENGINE_TRANSLATOR_TRANSLATOR_NS] += (uint64_t)(loop_now() - before);
    return block;
}

struct bt_block *cache_find(struct bt *bt, uint64_t rip)
{
    struct interp *c = &bt->c;
    struct place at = {.rip = rip};

    c->st.rip = rip;
    if (debugger_breaks_in(c, rip, 1)) /* nothing leads there but through the run loop */
        return NULL;
    at.host = mmu_fetch(c, rip, &at.gpa);
    if (!at.host)
        return NULL;
    at.global = mmu_fetch_global(c, rip);
    struct bt_block *block = look_up(bt, &at);
    if (!block && !heat_is_cold(bt, rip))
        block = make(bt, &at);
    if (!block)
        return NULL;
    to_front(bt, block);
    block->global = at.global;
    return block;
}

void cache_break(struct bt *bt)
{
    const struct bt_cache *cache = bt->cache;

    for (unsigned i = 0; bt->c.debugger.want && i < cache->n_segments; i++)
        for (uint32_t j = 0; j < cache->segment[i].n; j++) {
            struct bt_block *block = cache->segment[i].order[j];
            if (debugger_breaks_in(&bt->c, block->rip, block->source_len))
                cache_drop(bt, block);
        }
}

void cache_drop(struct bt *bt, struct bt_block *block)
{
    struct bt_block **at = bucket(bt->cache, block->gpa, block->mode);

    if (block->dead)
        return;
    while (*at && *at != block)
        at = &(*at)->next;
    if (*at)
        *at = block->next;
    page_remove(bt, block);
    link_detach(bt, block);
    block->dead = true;
    jump_forget(bt, block);
    bt->dropped = true;
}
