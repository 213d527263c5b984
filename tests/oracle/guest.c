#include "guest.h"

#define RAM_SIZE (2 * MIB)

/* Guest-physical. The kernel sees all of it at KERNEL + address. */
#define KERNEL    UINT64_C(0xffffffff80000000)
#define ROOT      0x1000
#define TABLES    0x2000
#define GDT       0x20000
#define TSS       0x20100
#define IDT       0x21000
#define HANDLERS  0x22000 /* HLT for vector n at + 16 n */
#define STACK_TOP 0x25000
#define CODE      0x30000
#define DATA      0x40000
#define POOL      0x50000
#define STACK     0x60000

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
        uint64_t at = KERNEL + HANDLERS + 16 * v;
        uint64_t type = v == X86_BP || v == X86_OF ? 0xee : 0x8e;
        poke64(guest, IDT + 16 * v, (at & 0xffff) | SEL_KERNEL_CS << 16 | type << 40 | (at >> 16 & 0xffff) << 48);
        poke64(guest, IDT + 16 * v + 8, at >> 32);
        box_poke(&guest->box, HANDLERS + 16 * v, "\xf4", 1);
    }
}

static struct x86_seg segment(uint16_t sel, uint16_t attr)
{
    return (struct x86_seg){.sel = sel, .limit = UINT32_MAX, .attr = attr};
}

/* As Linux has it for a program: ring 3, 64-bit, FPU and AVX on, no alignment checks for lack of AC. */
static void make_state(struct guest *guest)
{
    struct x86_state *st = &guest->base;

    x86_state_reset(st, true);
    st->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    st->cr3 = ROOT;
    st->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_SMEP | X86_CR4_DE;
    st->xcr0 = 7;
    st->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NX;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){0};
    st->seg[X86_CS] = segment(SEL_USER_CS, X86_SEG_P | X86_SEG_S | X86_SEG_DPL | X86_SEG_L | X86_SEG_G | 0xb);
    st->seg[X86_SS] = segment(SEL_USER_DS, X86_SEG_P | X86_SEG_S | X86_SEG_DPL | X86_SEG_DB | X86_SEG_G | 0x3);
    st->seg[X86_GS].base = SEQ_GS_BASE;
    st->tr = (struct x86_seg){.base = KERNEL + TSS, .limit = 0x67, .sel = SEL_TSS, .attr = X86_SEG_P | 0xb};
    st->ldtr = (struct x86_seg){0};
    st->gdtr = (struct x86_table){.base = KERNEL + GDT, .limit = 0x4f};
    st->idtr = (struct x86_table){.base = KERNEL + IDT, .limit = 0xfff};
}

int guest_open(struct guest *guest, const char *engine, struct err *err)
{
    int r = box_open(&guest->box, engine, RAM_SIZE, err);
    if (r)
        return r;
    make_memory(guest);
    make_tables(guest);
    make_state(guest);
    return 0;
}

void guest_close(struct guest *guest)
{
    box_close(&guest->box);
}

static void load(struct guest *guest, const struct seq_state *in, bool compat)
{
    static struct x86_state st;

    st = guest->base;
    memcpy(st.gpr, in->gpr, sizeof(st.gpr));
    if (compat) {
        st.seg[X86_CS] = segment(SEL_USER_CS32, X86_SEG_P | X86_SEG_S | X86_SEG_DPL | X86_SEG_DB | X86_SEG_G | 0xb);
        st.seg[X86_DS] = st.seg[X86_ES] = st.seg[X86_SS];
    }
    st.rip = in->rip;
    st.rflags = in->rflags;
    st.fx.fcw = in->fcw;
    st.fx.fsw = in->fsw;
    st.fx.ftw = in->ftw;
    st.fx.mxcsr = in->mxcsr;
    for (unsigned i = 0; i < 8; i++)
        memcpy(st.fx.st[i], in->st[i], 10);
    memcpy(st.ymm, in->ymm, sizeof(st.ymm));
    guest->box.type->set(guest->box.vcpu, &st);
}

/* The exception's frame lies on the kernel's stack (SDM Vol. 3A 6.14.2). */
static bool save(struct guest *guest, struct seq_state *out)
{
    static struct x86_state st;
    uint64_t frame[6];
    unsigned at = 0;

    guest->box.type->get(guest->box.vcpu, &st);
    uint64_t handler = st.rip - KERNEL - HANDLERS;
    if (handler >= 16 * 256)
        return false;
    if (ram_read(&guest->box.ram, st.gpr[X86_RSP] - KERNEL, frame,
                 STACK_TOP - (st.gpr[X86_RSP] - KERNEL) < 48 ? 40 : 48))
        return false;
    memcpy(out->gpr, st.gpr, sizeof(out->gpr));
    out->vector = (uint32_t)handler / 16;
    out->error = 0;
    if (KERNEL + STACK_TOP - st.gpr[X86_RSP] == 48)
        out->error = (uint32_t)frame[at++];
    out->rip = frame[at];
    out->rflags = frame[at + 2];
    out->gpr[X86_RSP] = frame[at + 3];
    out->cr2 = out->vector == X86_PF ? st.cr2 : 0;
    out->fcw = st.fx.fcw;
    out->fsw = st.fx.fsw;
    out->ftw = st.fx.ftw;
    out->mxcsr = st.fx.mxcsr;
    for (unsigned i = 0; i < 8; i++)
        memcpy(out->st[i], st.fx.st[i], 10);
    memcpy(out->ymm, st.ymm, sizeof(out->ymm));
    return true;
}

void guest_run(struct guest *guest, struct seq_run *run)
{
    struct ram *ram = &guest->box.ram;

    box_poke(&guest->box, CODE, run->code, run->code_len);
    memcpy(ram_host(ram, DATA, SEQ_DATA_SIZE), run->mem_in, SEQ_DATA_SIZE);
    memcpy(ram_host(ram, STACK, SEQ_STACK_SIZE), run->mem_in + SEQ_DATA_SIZE, SEQ_STACK_SIZE);
    load(guest, &run->in, run->compat);
    enum engine_exit exit = guest->box.type->run(guest->box.vcpu, 100000);
    memcpy(run->mem_out, ram_host(ram, DATA, SEQ_DATA_SIZE), SEQ_DATA_SIZE);
    memcpy(run->mem_out + SEQ_DATA_SIZE, ram_host(ram, STACK, SEQ_STACK_SIZE), SEQ_STACK_SIZE);
    memset(&run->out, 0, sizeof(run->out));
    run->lost = exit != ENGINE_HALT || !save(guest, &run->out);
}
