/*
 * The jump caches: for each mode a table from the low 16 bits of RIP to host code, where indirect and far-off direct jumps go at once. What
 * they find there compares RIP (in T0) with its own and leaves as a miss when it is another; so an entry may be stale
 * but never wrong, as long as blocks under mappings that have changed are taken out.
 *
 * A table is 512 KiB, aligned to as much: its address / 8 has 16 zero bits, into which generated code moves those of RIP without touching
 * flags. Slots in use are noted, so that a flush takes as long as the table has entries.
 */
#include "engine/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/interp/mmu.h"

#define N_TABLES    24
#define SLOTS       65536u
#define TABLE_BYTES (SLOTS * sizeof(const uint8_t *))
#define NOTES       8192u /* slots in use that are remembered; beyond, a flush clears the whole table */
#define PAGE_SLOTS  4096u

struct note {
    uint16_t slot;
    bool global;
};

struct table {
    uint32_t mode;
    unsigned space; /* address space of user code; kernel code's entries are global ones, or of the current space */
    const uint8_t **slots;
    unsigned n_notes;
    unsigned n_local; /* at least so many entries are not global */
    /* For the lower and the upper half of the address space, which must not be taken for one another: */
    uint64_t pages[2][64]; /* a bit for each page number modulo 4096: it may have entries */
    uint64_t gibs[2];      /* the same for GiBs, modulo 64 */
    struct note notes[NOTES];
};

struct bt_jump {
    uint8_t *memory;
    struct table table[N_TABLES];
    unsigned n_tables, next_table;
    struct table *now;
    struct table empty; /* slots alone; NULL until a mode has lost its table */
};

int jump_open(struct bt *bt, struct err *err)
{
    struct bt_jump *jump = calloc(1, sizeof(*jump));

    if (!jump)
        return err_set(err, -ENOMEM, "jump cache: out of memory");
    jump->memory = mmap(NULL, (N_TABLES + 2) * TABLE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (jump->memory == MAP_FAILED) {
        free(jump);
        return err_set(err, -ENOMEM, "jump cache: out of memory");
    }
    bt->jump = jump;
    return 0;
}

void jump_close(struct bt *bt)
{
    munmap(bt->jump->memory, (N_TABLES + 2) * TABLE_BYTES);
    free(bt->jump);
}

static void clear_slots(const struct bt *bt, struct table *t, unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n; i++)
        t->slots[i] = bt->thunks.miss;
}

static void clear_table(const struct bt *bt, struct table *t)
{
    if (t->n_notes > NOTES)
        clear_slots(bt, t, 0, SLOTS);
    else
        for (unsigned i = 0; i < t->n_notes; i++)
            t->slots[t->notes[i].slot] = bt->thunks.miss;
    t->n_notes = t->n_local = 0;
    memset(t->gibs, 0, sizeof(t->gibs));
    memset(t->pages, 0, sizeof(t->pages));
}

/* Global ones stay. What was not noted goes. */
static void clear_local(const struct bt *bt, struct table *t)
{
    unsigned kept = 0;

    if (!t->n_local)
        return;
    if (t->n_notes > NOTES) {
        clear_table(bt, t);
        return;
    }
    for (unsigned i = 0; i < t->n_notes; i++) {
        if (t->notes[i].global)
            t->notes[kept++] = t->notes[i];
        else
            t->slots[t->notes[i].slot] = bt->thunks.miss;
    }
    t->n_notes = kept;
    t->n_local = 0;
}

static const uint8_t **slots_at(const struct bt_jump *jump, unsigned n)
{
    return (const uint8_t **)(align_up((uintptr_t)jump->memory, TABLE_BYTES) + n * TABLE_BYTES);
}

static bool is_user(uint32_t mode)
{
    return (mode & BT_MODE_CPL) == BT_MODE_CPL;
}

static unsigned space_of(const struct bt *bt, uint32_t mode)
{
    return is_user(mode) ? bt->c.space : 0;
}

static uint64_t base8(const struct table *t)
{
    return (uintptr_t)t->slots / 8;
}

/* Takes a mode's table away. Kernel code that goes on in that mode finds one where everything is a miss. */
static void evict(struct bt *bt, struct table *t)
{
    struct bt_jump *jump = bt->jump;

    if (!jump->empty.slots) {
        jump->empty.slots = slots_at(jump, N_TABLES);
        clear_slots(bt, &jump->empty, 0, SLOTS);
    }
    clear_table(bt, t);
    if (!is_user(t->mode))
        bt->jump_bases[t->mode] = base8(&jump->empty);
    else if (t->space == bt->c.space)
        bt->jump_bases[t->mode] = 0;
}

static struct table *add_table(struct bt *bt, uint32_t mode, unsigned space)
{
    struct bt_jump *jump = bt->jump;
    struct table *t;

    if (jump->n_tables == N_TABLES) {
        t = &jump->table[jump->next_table];
        jump->next_table = (jump->next_table + 1) % N_TABLES;
        evict(bt, t);
    } else {
        t = &jump->table[jump->n_tables];
        t->slots = slots_at(jump, jump->n_tables);
        clear_slots(bt, t, 0, SLOTS);
        jump->n_tables++;
    }
    t->mode = mode;
    t->space = space;
    bt->jump_bases[mode] = base8(t);
    return t;
}

bool jump_reserve(struct bt *bt, uint32_t mode)
{
    if (bt->jump_bases[mode])
        return true;
    if (bt->jump->n_tables == N_TABLES)
        return false;
    add_table(bt, mode, space_of(bt, mode));
    return true;
}

void jump_select(struct bt *bt)
{
    struct bt_jump *jump = bt->jump;
    unsigned space = space_of(bt, bt->mode);
    struct table *t = NULL;

    if (jump->now && jump->now->mode == bt->mode && jump->now->space == space)
        t = jump->now;
    for (unsigned i = 0; i < jump->n_tables && !t; i++)
        if (jump->table[i].mode == bt->mode && jump->table[i].space == space)
            t = &jump->table[i];
    if (!t)
        t = add_table(bt, bt->mode, space);
    jump->now = t;
    bt->jump_base8 = base8(t);
}

static void note_page(struct table *t, uint64_t lin)
{
    t->pages[lin >> 63][(lin >> 12) / 64 % 64] |= UINT64_C(1) << (lin >> 12) % 64;
    t->gibs[lin >> 63] |= UINT64_C(1) << (lin >> 30) % 64;
}

void jump_enter(struct bt *bt, const struct bt_block *block)
{
    struct table *t = bt->jump->now;
    uint16_t slot = (uint16_t)block->rip;

    t->slots[slot] = block->landing;
    note_page(t, block->rip);
    t->n_local += !block->global;
    if (block->crosses)
        note_page(t, block->rip + RAM_PAGE_SIZE);
    if (t->n_notes < NOTES)
        t->notes[t->n_notes] = (struct note){slot, block->global};
    if (t->n_notes <= NOTES)
        t->n_notes++;
}

void jump_forget(struct bt *bt, const struct bt_block *block)
{
    uint16_t slot = (uint16_t)block->rip;

    for (unsigned i = 0; i < bt->jump->n_tables; i++)
        if (bt->jump->table[i].slots[slot] == block->landing)
            bt->jump->table[i].slots[slot] = bt->thunks.miss;
}

void jump_flush(struct bt *bt)
{
    for (unsigned i = 0; i < bt->jump->n_tables; i++)
        clear_table(bt, &bt->jump->table[i]);
    cache_unlink_cross(bt);
}

void jump_flush_space(struct bt *bt, unsigned space)
{
    for (unsigned i = 0; i < bt->jump->n_tables; i++) {
        struct table *t = &bt->jump->table[i];
        if (!is_user(t->mode))
            clear_local(bt, t);
        else if (t->space == space)
            clear_table(bt, t);
    }
}

void jump_switch_space(struct bt *bt)
{
    struct bt_jump *jump = bt->jump;

    for (unsigned i = 0; i < jump->n_tables; i++) {
        struct table *t = &jump->table[i];
        if (is_user(t->mode))
            bt->jump_bases[t->mode] = 0;
        else
            clear_local(bt, t);
    }
    for (unsigned i = 0; i < jump->n_tables; i++)
        if (is_user(jump->table[i].mode) && jump->table[i].space == bt->c.space)
            bt->jump_bases[jump->table[i].mode] = base8(&jump->table[i]);
}

/* What lies on the page, and what crosses into it. */
static void clear_page(const struct bt *bt, struct table *t, uint64_t lin)
{
    uint16_t first = (uint16_t)(lin & 0xf000);

    clear_slots(bt, t, first, PAGE_SLOTS);
    for (unsigned i = 1; i < X86_INSN_MAX; i++)
        t->slots[(uint16_t)(first - i)] = bt->thunks.miss;
}

/* Links between pages are among kernel code in the upper half (cache.c). */
void jump_flush_page(struct bt *bt, uint64_t lin, bool maybe_large)
{
    unsigned half = lin >> 63;
    bool found = false;

    for (unsigned i = 0; i < bt->jump->n_tables; i++) {
        struct table *t = &bt->jump->table[i];
        if (maybe_large && (t->gibs[half] >> (lin >> 30) % 64 & 1)) {
            clear_table(bt, t);
            found = true;
        } else if (t->pages[half][(lin >> 12) / 64 % 64] >> (lin >> 12) % 64 & 1) {
            clear_page(bt, t, lin);
            found = true;
        }
    }
    if (found && half)
        cache_unlink_cross(bt);
}
