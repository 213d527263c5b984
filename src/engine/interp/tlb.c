/* See tlb.h. */
#include "engine/interp/tlb.h"

#define PAGE_MASK (~UINT64_C(0xfff))

static void drop(struct tlb *tlb, unsigned slot)
{
    tlb->entry[slot].read = tlb->entry[slot].write = tlb_no_tag(slot);
}

void tlb_init(struct tlb *tlb)
{
    drop(tlb, 0);
    drop(tlb, TLB_SIZE - 1); /* an access from the last page there is that ends on page 0 looks there */
}

static void note(struct tlb *tlb, unsigned slot)
{
    if (tlb->n_notes < TLB_NOTES)
        tlb->notes[tlb->n_notes] = (uint16_t)slot;
    if (tlb->n_notes <= TLB_NOTES)
        tlb->n_notes++;
}

void tlb_enter(struct tlb *tlb, uint64_t lin, const uint8_t *host, uint64_t gpa, bool write)
{
    unsigned slot = tlb_slot(lin);
    struct tlb_entry *e = &tlb->entry[slot];

    if (!(e->gpa & TLB_NOTED))
        note(tlb, slot);
    if (gpa & TLB_LARGE)
        tlb->large |= tlb_gib_bit(lin);
    if (!(gpa & TLB_GLOBAL)) {
        if (tlb->n_local < TLB_LOCAL)
            tlb->local[tlb->n_local] = (uint16_t)slot;
        tlb->n_local++;
    }
    e->read = lin & PAGE_MASK;
    e->write = write ? lin & PAGE_MASK : tlb_no_tag(slot);
    e->addend = (uint64_t)(uintptr_t)host - lin;
    e->gpa = gpa | TLB_NOTED;
}

/* Calls fn for every slot that may be in use. */
static void for_each(struct tlb *tlb, void (*fn)(struct tlb *tlb, unsigned slot, uint64_t arg), uint64_t arg)
{
    if (tlb->n_notes > TLB_NOTES) {
        for (unsigned slot = 0; slot < TLB_SIZE; slot++)
            fn(tlb, slot, arg);
        return;
    }
    for (unsigned i = 0; i < tlb->n_notes; i++)
        fn(tlb, tlb->notes[i], arg);
}

static void clear(struct tlb *tlb, unsigned slot, uint64_t arg)
{
    drop(tlb, slot);
    tlb->entry[slot].gpa = 0;
}

void tlb_clear(struct tlb *tlb)
{
    for_each(tlb, clear, 0);
    tlb->n_notes = 0;
    tlb->n_local = 0;
    tlb->large = 0;
}

static void clear_local(struct tlb *tlb, unsigned slot, uint64_t arg)
{
    if (!(tlb->entry[slot].gpa & TLB_GLOBAL))
        drop(tlb, slot);
}

void tlb_clear_local(struct tlb *tlb)
{
    if (tlb->n_local > TLB_LOCAL)
        for_each(tlb, clear_local, 0);
    else
        for (unsigned i = 0; i < tlb->n_local; i++)
            clear_local(tlb, tlb->local[i], 0);
    tlb->n_local = 0;
}

/* Entries do not tell how large: take the largest page there is. */
static void drop_large(struct tlb *tlb, unsigned slot, uint64_t lin)
{
    const struct tlb_entry *e = &tlb->entry[slot];

    if ((e->gpa & TLB_LARGE) && align_down(e->read, GIB) == align_down(lin, GIB))
        drop(tlb, slot);
}

void tlb_drop_page(struct tlb *tlb, uint64_t lin)
{
    unsigned slot = tlb_slot(lin);

    if (tlb->entry[slot].read == (lin & PAGE_MASK))
        drop(tlb, slot);
    if (tlb->large & tlb_gib_bit(lin))
        for_each(tlb, drop_large, lin);
}

static void drop_write(struct tlb *tlb, unsigned slot, uint64_t gpa)
{
    struct tlb_entry *e = &tlb->entry[slot];

    if (((e->gpa ^ gpa) & PAGE_MASK) || e->write == tlb_no_tag(slot))
        return;
    e->write = tlb_no_tag(slot);
    e->gpa |= TLB_CODE;
}

void tlb_drop_write(struct tlb *tlb, uint64_t gpa)
{
    for_each(tlb, drop_write, gpa);
}
