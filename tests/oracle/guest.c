#include "guest.h"

#include "guest_kernel.h"

#define RAM_SIZE (2 * MIB)
#define MAX_MS   20000 /* a run takes milliseconds, of which a loaded host gives few */

/* Guest-physical. The kernel sees all of it at KERNEL + address. */
#define KERNEL    UINT64_C(0xffffffff80000000)
#define ROOT      0x1000
#define TABLES    0x2000
#define GDT       0x20000
#define TSS       0x20100
#define IDT       0x21000
#define IMAGE     0x22000
#define STACK_TOP 0x28000
#define CODE      0x30000
#define DATA      0x40000
#define POOL      0x50000
#define STACK     0x60000
#define VARS      0x70000

#define DR6_BS (UINT64_C(1) << 14) /* single step */

/* Linux's selectors, so that reading them natively gives the same. */
#define SEL_KERNEL_CS 0x10
#define SEL_USER_CS32 0x23
#define SEL_USER_DS   0x2b
#define SEL_USER_CS   0x33
#define SEL_TSS       0x40

static void poke64(struct guest *guest, uint64_t gpa, uint64_t val)
{
    box_poke(&guest->box, gpa, &val, sizeof(val));
}

static void map(struct guest *guest, uint64_t *next, uint64_t lin, uint64_t gpa, uint64_t size, uint64_t flags)
{
    for (uint64_t at = 0; at < size; at += RAM_PAGE_SIZE)
        box_map(&guest->box, ROOT, next, lin + at, gpa + at, flags | BOX_PTE_P);
}

static void make_memory(struct guest *guest)
{
    uint64_t next = TABLES;
    uint8_t pool[SEQ_POOL_SIZE];

    map(guest, &next, KERNEL, 0, 0x30000, BOX_PTE_W);
    map(guest, &next, SEQ_CODE, CODE, SEQ_CODE_SIZE, BOX_PTE_U | BOX_PTE_W);
    map(guest, &next, SEQ_DATA, DATA, SEQ_DATA_SIZE, BOX_PTE_U | BOX_PTE_W | BOX_PTE_NX);
    map(guest, &next, SEQ_POOL, POOL, SEQ_POOL_SIZE, BOX_PTE_U | BOX_PTE_NX);
    map(guest, &next, SEQ_STACK, STACK, SEQ_STACK_SIZE, BOX_PTE_U | BOX_PTE_W | BOX_PTE_NX);
    map(guest, &next, SEQ_VARS, VARS, RAM_PAGE_SIZE, BOX_PTE_U | BOX_PTE_W | BOX_PTE_NX);
    box_poke(&guest->box, IMAGE, guest_kernel, GUEST_IMAGE);
    seq_pool(pool);
    box_poke(&guest->box, POOL, pool, sizeof(pool));
}

static void make_tables(struct guest *guest)
{
    uint64_t tss = KERNEL + TSS;

    poke64(guest, GDT + 0x10, UINT64_C(0x00af9b000000ffff)); /* kernel code, 64-bit */
    poke64(guest, GDT + 0x18, UINT64_C(0x00cf93000000ffff)); /* kernel data */
    poke64(guest, GDT + 0x20, UINT64_C(0x00cffb000000ffff)); /* user code, 32-bit */
    poke64(guest, GDT + 0x28, UINT64_C(0x00cff3000000ffff)); /* user data */
    poke64(guest, GDT + 0x30, UINT64_C(0x00affb000000ffff)); /* user code, 64-bit */
    poke64(guest, GDT + SEL_TSS, 0x67 | (tss & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | (tss >> 24 & 0xff) << 56);
    poke64(guest, GDT + SEL_TSS + 8, tss >> 32);
    poke64(guest, TSS + 4, KERNEL + STACK_TOP);                /* RSP0 */
    store_le16(ram_host(&guest->box.ram, TSS + 102, 2), 0x68); /* no I/O bitmap */

    for (unsigned v = 0; v < 256; v++) {
        uint64_t at = KERNEL + IMAGE + GUEST_STUB_SIZE * v;
        uint64_t type = v == X86_BP || v == X86_OF ? 0xee : 0x8e;
        poke64(guest, IDT + 16 * v, (at & 0xffff) | SEL_KERNEL_CS << 16 | type << 40 | (at >> 16 & 0xffff) << 48);
        poke64(guest, IDT + 16 * v + 8, at >> 32);
    }
}

static struct x86_seg segment(uint16_t sel, uint16_t attr)
{
    return (struct x86_seg){.sel = sel, .limit = UINT32_MAX, .attr = attr};
}

/* As Linux has it: FPU and AVX on, no alignment checks for lack of AC. In the kernel, which then enters the sequence. */
static void make_state(struct guest *guest)
{
    struct x86_state *st = &guest->start;

    x86_state_reset(st, true);
    st->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    st->cr3 = ROOT;
    st->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_DE;
    st->xcr0 = 7;
    st->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NX;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){0};
    st->seg[X86_CS] = segment(SEL_KERNEL_CS, X86_SEG_P | X86_SEG_S | X86_SEG_L | X86_SEG_G | 0xb);
    st->seg[X86_FS].base = SEQ_FS_BASE;
    st->seg[X86_GS].base = SEQ_GS_BASE;
    st->tr = (struct x86_seg){.base = KERNEL + TSS, .limit = 0x67, .sel = SEL_TSS, .attr = X86_SEG_P | 0xb};
    st->ldtr = (struct x86_seg){0};
    st->gdtr = (struct x86_table){.base = KERNEL + GDT, .limit = 0x4f};
    st->idtr = (struct x86_table){.base = KERNEL + IDT, .limit = 0xfff};
    st->rip = KERNEL + IMAGE + (uint64_t)(guest_kernel_start - guest_kernel);
}

static uint8_t *host(struct guest *guest, uint64_t gpa)
{
    return ram_host(&guest->box.ram, gpa, 1);
}

/* Gives the pages their states in the page tables, not accessed and not dirty; all writable again when states is NULL. */
static void set_pages(struct guest *guest, const uint8_t *states)
{
    static const uint32_t gpa[SEQ_N_PAGES] = {DATA, DATA + RAM_PAGE_SIZE, STACK, CODE + RAM_PAGE_SIZE};
    uint64_t no_table = 0; /* there are tables for all of them */

    for (unsigned i = 0; i < SEQ_N_PAGES; i++) {
        unsigned state = states ? states[i] : SEQ_PAGE_RW;
        uint64_t flags = BOX_PTE_P | BOX_PTE_U | BOX_PTE_W;
        if (i != SEQ_PAGE_CODE1 || state == SEQ_PAGE_RO)
            flags |= BOX_PTE_NX;
        if (state == SEQ_PAGE_RO)
            flags &= ~BOX_PTE_W;
        if (state == SEQ_PAGE_ABSENT)
            flags &= ~BOX_PTE_P;
        box_map(&guest->box, ROOT, &no_table, seq_page_address(i), gpa[i], flags);
    }
}

/* Memory as the sequence finds it. Its code is written only where it has changed, so that what the engine made of it stays. */
static void restore_memory(struct guest *guest)
{
    const struct seq_run *run = guest->run;

    if (memcmp(host(guest, CODE), run->code, SEQ_CODE_SIZE))
        box_poke(&guest->box, CODE, run->code, SEQ_CODE_SIZE);
    memcpy(host(guest, DATA), run->mem_in, SEQ_DATA_SIZE);
    memcpy(host(guest, STACK), run->mem_in + SEQ_DATA_SIZE, SEQ_STACK_SIZE);
    memcpy(host(guest, VARS), run->mem_in + SEQ_DATA_SIZE + SEQ_STACK_SIZE, SEQ_VARS_SIZE);
}

static void load_state(struct guest *guest)
{
    const struct seq_run *run = guest->run;
    const struct seq_state *in = &run->in;
    struct seq_result *out = &guest->out[guest->pass];
    uint8_t *image = host(guest, IMAGE), *fx = image + GUEST_IN_XSAVE;
    uint64_t rflags = in->rflags | (run->single_step ? X86_FLAG_TF : 0);

    memcpy(image + GUEST_IN, in->gpr, sizeof(in->gpr));
    store_le64(image + GUEST_IN_RIP, in->rip);
    store_le64(image + GUEST_IN_RIP + 8, run->compat ? SEL_USER_CS32 : SEL_USER_CS);
    store_le64(image + GUEST_IN_RIP + 16, rflags);
    store_le64(image + GUEST_IN_RIP + 24, in->gpr[X86_RSP]);
    store_le64(image + GUEST_IN_RIP + 32, SEL_USER_DS);
    store_le64(image + GUEST_IN_DS, run->compat ? SEL_USER_DS : 0);
    seq_to_xsave(in, fx);
    out->n_steps = 1;
    out->step[0] = (struct seq_step){.rip = in->rip, .rflags = rflags};
    memcpy(out->step[0].gpr, in->gpr, sizeof(in->gpr));
}

/* What the kernel has saved (the frame: SDM Vol. 3A 6.14.2). */
static void save(struct guest *guest, struct seq_result *out)
{
    const uint8_t *image = host(guest, IMAGE), *frame = image + GUEST_OUT_FRAME;
    struct seq_state *st = &out->state;

    memcpy(st->gpr, image + GUEST_OUT, sizeof(st->gpr));
    st->vector = (uint32_t)load_le64(frame);
    st->error = (uint32_t)load_le64(frame + 8);
    st->rip = load_le64(frame + 16);
    st->rflags = load_le64(frame + 32);
    st->gpr[X86_RSP] = load_le64(frame + 40);
    st->cr2 = st->vector == X86_PF ? load_le64(image + GUEST_OUT_CR2) : 0;
    seq_from_xsave(st, image + GUEST_OUT_XSAVE);
    memcpy(out->mem, host(guest, DATA), SEQ_DATA_SIZE);
    memcpy(out->mem + SEQ_DATA_SIZE, host(guest, STACK), SEQ_STACK_SIZE);
    memcpy(out->mem + SEQ_DATA_SIZE + SEQ_STACK_SIZE, host(guest, VARS), SEQ_VARS_SIZE);
    out->lost = false;
}

/* Whether what the kernel has saved is the trap of a single step behind which the sequence goes on; if so it begins there. */
static bool is_step(struct guest *guest)
{
    uint8_t *image = host(guest, IMAGE), *frame = image + GUEST_OUT_FRAME;

    if (!guest->run->single_step || guest->pass == GUEST_PASSES || load_le64(frame) != X86_DB ||
        !(load_le64(image + GUEST_OUT_DR6) & DR6_BS))
        return false;
    struct seq_result *out = &guest->out[guest->pass];
    if (out->n_steps == SEQ_MAX_STEPS)
        return false;
    struct seq_step *step = &out->step[out->n_steps++];
    step->rip = load_le64(frame + 16);
    step->rflags = load_le64(frame + 32);
    memcpy(step->gpr, image + GUEST_OUT, sizeof(step->gpr));
    step->gpr[X86_RSP] = load_le64(frame + 40);

    memcpy(image + GUEST_IN, step->gpr, sizeof(step->gpr));
    store_le64(image + GUEST_IN_RIP, step->rip);
    store_le64(image + GUEST_IN_RIP + 16, step->rflags | X86_FLAG_TF);
    store_le64(image + GUEST_IN_RIP + 24, step->gpr[X86_RSP]);
    memcpy(image + GUEST_IN_XSAVE, image + GUEST_OUT_XSAVE, GUEST_XSAVE_SIZE);
    return true;
}

/* The kernel's port: a pass has ended, or a step of it. */
static uint64_t pass_ended(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct guest *guest = opaque;
    bool by_cr3 = guest->run->in.gpr[X86_RAX] & 1;

    if (is_step(guest))
        return GUEST_AGAIN;
    if (guest->warming) {
        guest->warming = false;
        restore_memory(guest);
        load_state(guest);
        set_pages(guest, guest->run->pages);
        return by_cr3 ? GUEST_MOV_CR3 : GUEST_INVLPG;
    }
    if (guest->pass == GUEST_PASSES)
        return GUEST_END;
    save(guest, &guest->out[guest->pass++]);
    if (guest->pass == GUEST_PASSES)
        return GUEST_END;
    restore_memory(guest);
    load_state(guest);
    /* The last one finds its code translated, but not its data. */
    if (guest->pass + 1 < GUEST_PASSES)
        return GUEST_AGAIN;
    set_pages(guest, guest->run->pages);
    return by_cr3 ? GUEST_INVLPG : GUEST_MOV_CR3;
}

int guest_open(struct guest *guest, const char *engine, struct err *err)
{
    const struct bus_region port = {.base = GUEST_PORT, .size = 1, .read = pass_ended, .opaque = guest};

    int r = box_open(&guest->box, engine, RAM_SIZE, err);
    if (r)
        return r;
    r = bus_add(&guest->box.pio, &port);
    if (r) {
        box_close(&guest->box);
        return err_set(err, r, "no room for a port");
    }
    make_memory(guest);
    make_tables(guest);
    make_state(guest);
    return 0;
}

void guest_close(struct guest *guest)
{
    box_close(&guest->box);
}

void guest_run(struct guest *guest, const struct seq_run *run)
{
    static const uint8_t all_writable[SEQ_N_PAGES];

    guest->run = run;
    guest->pass = 0;
    guest->warming = memcmp(run->pages, all_writable, SEQ_N_PAGES);
    for (unsigned i = 0; i < GUEST_PASSES; i++)
        guest->out[i].lost = true;
    restore_memory(guest);
    set_pages(guest, NULL);
    load_state(guest);
    guest->box.type->set(guest->box.vcpu, &guest->start);
    (void)box_run(&guest->box, 0, MAX_MS);
}
