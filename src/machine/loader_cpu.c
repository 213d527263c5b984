/* The CPU states that boot protocols ask for: flat segments, protected mode or long mode. */
#include "machine/loader_plan.h"

#define CODE_ATTR (X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITE | X86_SEG_ACCESSED | X86_SEG_G)
#define DATA_ATTR (X86_SEG_P | X86_SEG_S | X86_SEG_WRITE | X86_SEG_ACCESSED | X86_SEG_G | X86_SEG_DB)
#define TSS_BUSY  0xb /* 32-bit and 64-bit alike: SDM Vol. 3A table 3-2 */

#define PTE_PRESENT  UINT64_C(0x1)
#define PTE_WRITE    UINT64_C(0x2)
#define PTE_ACCESSED UINT64_C(0x20)
#define PTE_DIRTY    UINT64_C(0x40)
#define PTE_LARGE    UINT64_C(0x80)

/* A flat descriptor (SDM Vol. 3A figure 3-8): base 0, limit 4 GiB. */
static uint64_t flat_descriptor(uint16_t attr)
{
    return UINT64_C(0x000f00000000ffff) | (uint64_t)attr << 40;
}

static int set_flat(struct ram *ram, struct x86_state *st, uint16_t code_size)
{
    const struct x86_seg code = {.limit = UINT32_MAX, .sel = LOADER_CS, .attr = CODE_ATTR | code_size};
    const struct x86_seg data = {.limit = UINT32_MAX, .sel = LOADER_DS, .attr = DATA_ATTR};
    uint64_t gdt[4] = {0};

    gdt[LOADER_CS / 8] = flat_descriptor(code.attr);
    gdt[LOADER_DS / 8] = flat_descriptor(data.attr);
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = i == X86_CS ? code : data;
    st->ldtr = (struct x86_seg){0};
    st->tr = (struct x86_seg){.limit = 0x67, .attr = X86_SEG_P | TSS_BUSY};
    st->gdtr = (struct x86_table){.base = LOADER_GDT, .limit = sizeof(gdt) - 1};
    st->idtr = (struct x86_table){0};
    st->rflags = X86_FLAG_FIXED;
    return ram_write(ram, LOADER_GDT, gdt, sizeof(gdt));
}

int loader_enter_protected(const struct loader_board *board, const struct loader_plan *plan, struct x86_state *st)
{
    st->cr0 = X86_CR0_PE | X86_CR0_ET;
    st->cr4 = 0;
    st->efer = 0;
    st->rip = plan->entry;
    return set_flat(board->ram, st, X86_SEG_DB);
}

int loader_enter_long(const struct loader_board *board, const struct loader_plan *plan, struct x86_state *st)
{
    uint64_t table[512];
    const uint64_t pdpt = LOADER_PAGE_TABLES + RAM_PAGE_SIZE, pd = pdpt + RAM_PAGE_SIZE;

    memset(table, 0, sizeof(table));
    table[0] = pdpt | PTE_PRESENT | PTE_WRITE;
    int r = ram_write(board->ram, LOADER_PAGE_TABLES, table, sizeof(table));
    if (r < 0)
        return r;
    for (unsigned i = 0; i < 4; i++)
        table[i] = (pd + i * RAM_PAGE_SIZE) | PTE_PRESENT | PTE_WRITE;
    r = ram_write(board->ram, pdpt, table, sizeof(table));
    for (unsigned i = 0; i < 4 && r == 0; i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(table); j++)
            table[j] =
                (i * ARRAY_SIZE(table) + j) * 2 * MIB | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_LARGE;
        r = ram_write(board->ram, pd + i * RAM_PAGE_SIZE, table, sizeof(table));
    }
    if (r < 0)
        return r;
    st->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    st->cr3 = LOADER_PAGE_TABLES;
    st->cr4 = X86_CR4_PAE;
    st->efer = X86_EFER_LME | X86_EFER_LMA;
    st->rip = plan->entry;
    return set_flat(board->ram, st, X86_SEG_L);
}
