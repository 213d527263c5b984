/*
 * Direct jumps between blocks. A jump leads straight to its target where the two stand and fall together: on the same page; or on
 * pages of kernel code whose mappings are global, and then until such a mapping is flushed. All others go through the jump cache, and so
 * does every jump to an instruction that crosses into another page, whose mapping is one more that may change.
 */
#include "engine/bt/cache.h"

struct bt_link *cache_new_link(struct bt *bt, struct bt_block *block, uint32_t *number)
{
    struct bt_link *link = segment_alloc(bt, sizeof(*link));

    if (!link)
        return NULL;
    *link = (struct bt_link){.from = block};
    *number = (uint32_t)(((uint8_t *)link - bt->cache->meta) / 8);
    if (!block->n_links++)
        block->links = link;
    return link;
}

struct bt_link *cache_link(struct bt *bt, uint32_t number)
{
    return (struct bt_link *)(bt->cache->meta + (size_t)number * 8);
}

/* Points the jump to code at `target`. */
static void aim(const struct bt *bt, const struct bt_link *link, const uint8_t *target)
{
    const uint8_t *at = link->from->code + link->at;
    store_le32(bt->arena.write + (at - bt->arena.exec), (uint32_t)(target - (at + 4)));
}

static const uint8_t *stub(const struct bt_link *link)
{
    return link->from->code + link->stub;
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
    if (to->crosses || (!link->same_page && !(link->from_global && may_cross(bt, to)))) {
        if (link->through)
            aim(bt, link, link->from->code + link->through);
        return;
    }
    link->to = to;
    link->next = to->incoming;
    link->prev = &to->incoming;
    if (link->next)
        link->next->prev = &link->next;
    to->incoming = link;
    if (!link->same_page && !link->in_cross) {
        link->in_cross = true;
        link->cross_next = bt->cache->cross;
        bt->cache->cross = link;
    }
    aim(bt, link, way_in(link, to));
}

static void part(struct bt *bt, struct bt_link *link)
{
    if (!link->to)
        return;
    *link->prev = link->next;
    if (link->next)
        link->next->prev = link->prev;
    link->to = NULL;
    aim(bt, link, stub(link));
}

void link_reset(struct bt *bt, struct bt_link *link)
{
    link->to = NULL;
    aim(bt, link, stub(link));
}

void cache_unlink_cross(struct bt *bt)
{
    for (struct bt_link *link = bt->cache->cross; link; link = link->cross_next) {
        link->in_cross = false;
        part(bt, link);
    }
    bt->cache->cross = NULL;
}

void link_detach(struct bt *bt, struct bt_block *block)
{
    while (block->incoming)
        part(bt, block->incoming);
    for (unsigned i = 0; i < block->n_links; i++)
        part(bt, &block->links[i]);
}

void link_forget_cross(struct bt *bt, const uint8_t *meta, size_t len)
{
    struct bt_link **at = &bt->cache->cross;

    while (*at) {
        if ((size_t)((uint8_t *)*at - meta) < len)
            *at = (*at)->cross_next;
        else
            at = &(*at)->cross_next;
    }
}

void cache_unhook(struct bt *bt, struct bt_block *block)
{
    for (unsigned i = 0; i < block->n_links; i++)
        aim(bt, &block->links[i], stub(&block->links[i]));
    block->unhooked = true;
}

void cache_rehook(struct bt *bt, struct bt_block *block)
{
    struct bt_link *link = block->links;

    for (unsigned i = 0; i < block->n_links; i++)
        if (link[i].to)
            aim(bt, &link[i], way_in(&link[i], link[i].to));
    block->unhooked = false;
}
