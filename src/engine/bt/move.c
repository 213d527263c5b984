/*
 * The same code at another linear address. Position-independent programs and libraries are mapped somewhere else in each process; their
 * pages are the same physical ones, and so are their blocks but for some constants: return addresses, RIP-relative operands, the RIP that a
 * way out hands over. The translator notes where these are, so that a block is copied, or moved if it is not in use, instead of
 * translated again.
 */
#include "engine/bt/cache.h"
#include "engine/bt/translate.h"
#include "engine/interp/tlb.h"

#define ENTRY_SHIFT 5 /* log2 of sizeof(struct tlb_entry) */

/* RIP-relative operands reach 2 GiB up and down; within these limits each address takes a constant of 64 bits. */
#define LOWEST  (8 * GIB)
#define HIGHEST ((UINT64_C(1) << 47) - 4 * GIB)

bool move_is_place(uint32_t mode, uint64_t rip)
{
    return (mode & BT_MODE_64) && (mode & BT_MODE_CPL) == BT_MODE_CPL && rip >= LOWEST && rip < HIGHEST;
}

/* Adapts the code at `code` (writable), which was that of `from`, and lies `moved` bytes behind it. */
static void relocate(const struct bt_block *from, uint8_t *code, uint64_t delta, ptrdiff_t moved)
{
    uint64_t lin = 0;

    for (unsigned i = 0; i < from->n_relocs; i++) {
        uint8_t *at = code + (from->relocs[i] & ~RELOC_KIND);
        switch (from->relocs[i] & RELOC_KIND) {
        case RELOC_LINEAR:
            lin = load_le64(at) + delta;
            store_le64(at, lin);
            break;
        case RELOC_SLOT:
            store_le32(at, load_le32(at) + ((tlb_slot(lin) - tlb_slot(lin - delta)) << ENTRY_SHIFT));
            break;
        default:
            store_le32(at, load_le32(at) - (uint32_t)moved);
            break;
        }
    }
}

static void *keep(struct bt *bt, const void *from, size_t len)
{
    return cache_keep(bt, from, len);
}

/* Everything that hangs on the block. */
static bool copy_parts(struct bt *bt, struct bt_block *block, const struct bt_block *from, uint8_t *code)
{
    uint64_t delta = block->rip - from->rip;
    uint32_t number;

    for (unsigned i = 0; i < from->n_links; i++) {
        struct bt_link *link = cache_new_link(bt, block, &number);
        if (!link)
            return false;
        *link = from->links[i];
        link->from = block;
        link->in_cross = false;
        link->rip += delta;
        store_le32(code + link->number, number);
        link_reset(bt, link);
    }
    block->source = keep(bt, from->source, from->source_len);
    block->lengths = keep(bt, from->lengths, from->n);
    block->traps = keep(bt, from->traps, from->n_traps * sizeof(*from->traps));
    block->relocs = keep(bt, from->relocs, from->n_relocs * sizeof(*from->relocs));
    return block->source && block->lengths && block->traps && block->relocs;
}

struct bt_block *move_copy(struct bt *bt, const struct bt_block *from, uint64_t rip)
{
    size_t len, size = (size_t)(from->code_end - from->code);
    uint8_t *code = segment_code(bt, &len);

    if (!code || len < size)
        return NULL;
    struct bt_block *block = segment_alloc(bt, sizeof(*block));
    if (!block)
        return NULL;
    ptrdiff_t moved = jit_arena_exec(&bt->arena, code) - from->code;
    memcpy(code, from->code, size);
    *block = *from;
    block->rip = rip;
    block->links = NULL;
    block->incoming = NULL;
    block->n_links = 0;
    block->unhooked = false;
    block->code += moved;
    block->code_end += moved;
    block->landing += moved;
    block->body_saved += moved;
    block->body_live += moved;
    relocate(from, code, rip - from->rip, moved);
    return copy_parts(bt, block, from, code) ? block : NULL;
}

void move_block(struct bt *bt, struct bt_block *block, uint64_t rip)
{
    uint64_t delta = rip - block->rip;

    jump_forget(bt, block);
    link_detach(bt, block);
    relocate(block, bt->arena.write + (block->code - bt->arena.exec), delta, 0);
    for (unsigned i = 0; i < block->n_links; i++) {
        block->links[i].rip += delta;
        link_reset(bt, &block->links[i]); /* from where a kick or the jump cache may have led it */
    }
    block->rip = rip;
    block->unhooked = false;
    bt->dropped = true; /* as what it was */
}
