#include "guest.h"

static const uint64_t gdt[] = {
    0,
    UINT64_C(0x00cf9b000000ffff), /* code32 */
    UINT64_C(0x00cf93000000ffff), /* data */
    UINT64_C(0x00cffb000000ffff), /* user code32 */
    UINT64_C(0x00cff3000000ffff), /* user data */
    UINT64_C(0x00af9b000000ffff), /* code64 */
    UINT64_C(0x00affb000000ffff), /* user code64 */
    UINT64_C(0x0000890030002fff), /* TSS at 0x3000 */
    0,
    UINT64_C(0x0000890060000067), /* TSS2 at 0x6000 */
    0,
    0,
    UINT64_C(0x00cf9f000000ffff), /* conforming code32 */
    UINT64_C(0x00cf13000000ffff), /* absent data */
    UINT64_C(0x00009b010000ffff), /* code16 at 0x10000 */
    UINT64_C(0x000093000000ffff), /* data16 */
};

static int apic_ack(void *apic)
{
    return -1;
}

static int apic_msr_read(void *apic, uint32_t msr, uint64_t *val)
{
    *val = 0xfee00900;
    return 0;
}

static int apic_msr_write(void *apic, uint32_t msr, uint64_t val)
{
    return 0;
}

static uint8_t apic_cr8_get(void *apic)
{
    return 5;
}

static void apic_cr8_set(void *apic, uint8_t tpr)
{
}

static const struct vcpu_apic_ops apic_ops = {
    .ack = apic_ack,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .cr8_get = apic_cr8_get,
    .cr8_set = apic_cr8_set,
};

uint8_t *guest_at(struct guest *g, uint64_t gpa)
{
    uint8_t *host = ram_host(&g->ram, gpa, 8);
    assert_non_null(host);
    return host;
}

void guest_copy(struct guest *g, uint64_t gpa, const void *data, size_t len)
{
    assert_int_equal(ram_write(&g->ram, gpa, data, len), 0);
}

static void build_handlers(struct guest *g, enum guest_mode mode)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t at = GUEST_STUBS_AT + 16 * v;
        const uint8_t stub[] = {0x6a, (uint8_t)v, 0xf4}; /* push v; hlt */

        guest_copy(g, at, stub, sizeof(stub));
        if (mode == GUEST_REAL) {
            store_le32(guest_at(g, 4 * v), (uint32_t)at);
        } else {
            uint8_t *gate = guest_at(g, GUEST_IDT_AT + (mode == GUEST_LONG ? 16 : 8) * v);
            uint64_t sel = mode == GUEST_LONG ? SEL_CODE64 : SEL_CODE32;
            store_le64(gate, (at & 0xffff) | sel << 16 | UINT64_C(0xee00) << 32);
        }
    }
}

static void build_tables(struct guest *g, enum guest_mode mode)
{
    uint8_t *tss = guest_at(g, GUEST_TSS_AT);

    guest_copy(g, GUEST_GDT_AT, gdt, sizeof(gdt));
    if (mode == GUEST_LONG) {
        store_le64(tss + 4, GUEST_STACK0);
        store_le64(tss + 36, GUEST_IST1);
    } else {
        store_le32(tss + 4, GUEST_STACK0);
        store_le32(tss + 8, SEL_DATA);
    }
    store_le16(tss + 102, 104);
    memset(tss + 104, 0xff, 0x2000);
}

static struct x86_seg segment(uint16_t sel)
{
    uint64_t raw = gdt[sel >> 3];
    return (struct x86_seg){.sel = sel, .attr = (raw >> 40) & 0xf0ff, .limit = 0xffffffff};
}

static void set_flat(struct guest *g, uint16_t cs, uint16_t data)
{
    for (unsigned i = 0; i < X86_N_SEG; i++)
        g->st.seg[i] = segment(i == X86_CS ? cs : data);
}

static void enter_long(struct guest *g)
{
    uint64_t pml4 = GUEST_PAGES_AT, pdpt = pml4 + 0x1000, pd = pdpt + 0x1000, pt = pd + 0x1000;

    store_le64(guest_at(g, pml4), pdpt | 7);
    store_le64(guest_at(g, pdpt), pd | 7);
    store_le64(guest_at(g, pd), pt | 7);
    store_le64(guest_at(g, pd + 8), 0x200000 | 0x87);
    for (unsigned i = 0; i < 512; i++)
        store_le64(guest_at(g, pt + 8 * i), (uint64_t)i << 12 | 7);
    g->st.cr3 = pml4;
    g->st.cr4 = X86_CR4_PAE;
    g->st.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NX | X86_EFER_SCE;
    g->st.cr0 |= X86_CR0_PG | X86_CR0_WP;
    set_flat(g, SEL_CODE64, SEL_DATA);
}

void guest_open(struct guest *g, enum guest_mode mode)
{
    guest_open_on(g, mode, &interp_engine);
}

void guest_open_on(struct guest *g, enum guest_mode mode, const struct engine_type *type)
{
    struct err err;
    const struct x86_cpuid_conf cpuid = {.n_cpus = 1, .tsc_hz = 1000000000, .crystal_hz = 25000000, .phys_bits = 39};
    const struct engine_vcpu_conf conf = {.ram = &g->ram,
                                          .pio = &g->pio,
                                          .mmio = &g->mmio,
                                          .port = &g->port,
                                          .clock = &g->clock,
                                          .cpuid = &g->cpuid,
                                          .stats = &g->stats};

    memset(g, 0, sizeof(*g));
    g->type = type;
    assert_int_equal(ram_open(&g->ram, GUEST_RAM, GUEST_RAM, &err), 0);
    bus_init(&g->pio, NULL);
    bus_init(&g->mmio, NULL);
    clock_init(&g->clock, NULL, 1000000000);
    x86_cpuid_init(&g->cpuid, &cpuid);
    g->port.apic_ops = &apic_ops;
    assert_int_equal(type->open(&g->engine, &(struct engine_conf){.ram = &g->ram, .n_vcpus = 1}, &err), 0);
    assert_int_equal(type->vcpu_open(g->engine, &conf, &g->vcpu, &err), 0);

    x86_state_reset(&g->st, true);
    build_handlers(g, mode);
    g->st.rip = GUEST_CODE_AT;
    g->st.gpr[X86_RSP] = GUEST_STACK;
    if (mode == GUEST_REAL) {
        g->st.seg[X86_CS].base = GUEST_CODE_AT;
        g->st.seg[X86_CS].sel = GUEST_CODE_AT >> 4;
        g->st.rip = 0;
        g->st.gpr[X86_RSP] = 0x7000;
        return;
    }
    build_tables(g, mode);
    g->st.gdtr = (struct x86_table){GUEST_GDT_AT, GUEST_GDT_LIMIT};
    g->st.idtr = (struct x86_table){GUEST_IDT_AT, 0xfff};
    g->st.tr = (struct x86_seg){.base = GUEST_TSS_AT, .limit = 0x2fff, .sel = SEL_TSS, .attr = 0x8b};
    guest_at(g, GUEST_GDT_AT + SEL_TSS)[5] |= 2;
    g->st.ldtr = (struct x86_seg){0};
    g->st.cr0 |= X86_CR0_PE;
    set_flat(g, SEL_CODE32, SEL_DATA);
    if (mode == GUEST_LONG)
        enter_long(g);
}

void guest_close(struct guest *g)
{
    g->type->vcpu_close(g->vcpu);
    g->type->close(g->engine);
    clock_fini(&g->clock);
    bus_fini(&g->mmio);
    bus_fini(&g->pio);
    ram_close(&g->ram);
}

void guest_user(struct guest *g)
{
    set_flat(g, x86_long_mode(&g->st) ? SEL_USER_CODE64 : SEL_USER_CODE32, SEL_USER_DATA);
}

void guest_paging32(struct guest *g)
{
    store_le32(guest_at(g, GUEST_PAGES_AT), 0x87);
    g->st.cr3 = GUEST_PAGES_AT;
    g->st.cr4 |= X86_CR4_PSE;
    g->st.cr0 |= X86_CR0_PG;
}

enum engine_exit guest_run(struct guest *g)
{
    enum engine_exit exit;

    g->type->set(g->vcpu, &g->st);
    exit = g->type->run(g->vcpu, 10000);
    g->type->get(g->vcpu, &g->st);
    return exit;
}

uint64_t guest_frame(struct guest *g, unsigned n)
{
    unsigned size = x86_long_mode(&g->st) ? 8 : g->st.cr0 & X86_CR0_PE ? 4 : 2;
    const uint8_t *at = guest_at(g, g->st.seg[X86_SS].base + g->st.gpr[X86_RSP] + (uint64_t)n * size);

    return size == 8 ? load_le64(at) : size == 4 ? load_le32(at) : load_le16(at);
}

void guest_expect(struct guest *g, unsigned vector)
{
    assert_int_equal(guest_run(g), ENGINE_HALT);
    assert_int_equal(g->st.rip + g->st.seg[X86_CS].base, GUEST_STUBS_AT + 16 * vector + 3);
    assert_int_equal(guest_frame(g, 0) & 0xff, vector);
}

void guest_expect_error(struct guest *g, unsigned vector, uint64_t error)
{
    guest_expect(g, vector);
    assert_int_equal(guest_frame(g, 1), error);
}
