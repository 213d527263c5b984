/*
 * The KVM engine against whatever /dev/kvm there is: short pieces of ring 0, which every KVM can run, if slowly. Without one all is skipped.
 * Code is of real mode, at CODE_AT, with interrupt vectors at 0.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/pvclock.h"
#include "unit.h"

#define RAM_SIZE   (1 * MIB)
#define CODE_AT    0x1000
#define STACK_AT   0x8000
#define HANDLER_AT 0x2000
#define DATA_AT    0x3000
#define MMIO_AT    0xd0000000u
#define VECTOR     0x40
#define PORT       0x80

extern const struct engine_type kvm_engine;

struct fixture {
    struct ram ram;
    struct bus pio, mmio;
    struct loop *loop;
    struct clock clock;
    struct vcpu_port port;
    struct x86_cpuid cpuid;
    struct engine_stats stats;
    struct engine *engine;
    struct engine_vcpu *vcpu;
    uint8_t written[16]; /* to the device, in order */
    unsigned n_written;
    uint64_t offset; /* of the last access */
    uint8_t cr8;
    int vector; /* what ack() gives, once; -1: none */
    char failure[8192];
};

/* ---- a device, a local APIC, and who listens to failures ---- */

static uint64_t device_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct fixture *f = opaque;

    f->offset = off;
    return UINT64_C(0x8877665544332211);
}

static void device_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct fixture *f = opaque;

    f->offset = off;
    for (unsigned i = 0; i < len && f->n_written < sizeof(f->written); i++)
        f->written[f->n_written++] = (uint8_t)(val >> (8 * i));
}

static int ack(void *apic)
{
    struct fixture *f = apic;
    int vector = f->vector;

    f->vector = -1;
    vcpu_port_lower(&f->port, PIN_INTR);
    return vector;
}

static int apic_msr_read(void *apic, uint32_t msr, uint64_t *val)
{
    *val = UINT64_C(0x123400000000) | msr;
    return msr == 0x802 ? 0 : -EPERM;
}

static int apic_msr_write(void *apic, uint32_t msr, uint64_t val)
{
    struct fixture *f = apic;

    f->offset = val;
    return msr == 0x808 ? 0 : -EPERM;
}

static uint8_t cr8_get(void *apic)
{
    return ((struct fixture *)apic)->cr8;
}

static void cr8_set(void *apic, uint8_t tpr)
{
    ((struct fixture *)apic)->cr8 = tpr;
}

static const struct vcpu_apic_ops apic_ops = {
    .ack = ack, .msr_read = apic_msr_read, .msr_write = apic_msr_write, .cr8_get = cr8_get, .cr8_set = cr8_set};

static void failed(void *opaque, const char *lines)
{
    struct fixture *f = opaque;
    snprintf(f->failure, sizeof(f->failure), "%s", lines);
}

static void kick(void *opaque)
{
    struct fixture *f = opaque;
    kvm_engine.kick(f->vcpu);
}

/* ---- the vCPU ---- */

static void add_devices(struct fixture *f)
{
    const struct bus_region pio = {.base = PORT, .size = 4, .read = device_read, .write = device_write, .opaque = f};
    const struct bus_region mmio = {
        .base = MMIO_AT, .size = 16, .read = device_read, .write = device_write, .opaque = f};

    assert_int_equal(bus_add(&f->pio, &pio), 0);
    assert_int_equal(bus_add(&f->mmio, &mmio), 0);
}

static int setup(void **state)
{
    static struct engine_trace trace = {.failure = failed};
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = {0};

    *state = NULL;
    if (!f || access(KVM_PROBE_DEVICE, R_OK | W_OK) < 0) {
        free(f);
        return 0;
    }
    trace.opaque = f;
    f->vector = -1;
    assert_int_equal(ram_open(&f->ram, RAM_SIZE, RAM_SIZE, &err), 0);
    bus_init(&f->pio, NULL);
    bus_init(&f->mmio, NULL);
    add_devices(f);
    assert_int_equal(loop_open(&f->loop, &err), 0);
    clock_init(&f->clock, f->loop, NS_PER_SEC);
    int r = kvm_engine.open(&f->engine, &(struct engine_conf){.ram = &f->ram, .n_vcpus = 1, .trace = &trace}, &err);
    if (r < 0)
        print_message("# %s\n", err.msg);
    assert_int_equal(r, 0);
    f->clock.tsc_hz = kvm_engine.tsc_hz(f->engine);
    clock_start(&f->clock);
    x86_cpuid_init(&f->cpuid, &(struct x86_cpuid_conf){.n_cpus = 1, .tsc_hz = f->clock.tsc_hz, .phys_bits = 40});
    f->port.apic_ops = &apic_ops;
    f->port.apic = f;
    const struct engine_vcpu_conf conf = {.ram = &f->ram,
                                          .pio = &f->pio,
                                          .mmio = &f->mmio,
                                          .port = &f->port,
                                          .clock = &f->clock,
                                          .cpuid = &f->cpuid,
                                          .stats = &f->stats};
    assert_int_equal(kvm_engine.vcpu_open(f->engine, &conf, &f->vcpu, &err), 0);
    f->port.kick = kick;
    f->port.vcpu = f;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (!f)
        return 0;
    kvm_engine.vcpu_close(f->vcpu);
    kvm_engine.close(f->engine);
    clock_fini(&f->clock);
    loop_close(f->loop);
    bus_fini(&f->mmio);
    bus_fini(&f->pio);
    ram_close(&f->ram);
    free(f);
    return 0;
}

static struct fixture *fixture(void **state)
{
    if (!*state)
        skip();
    return *state;
}

static void poke(struct fixture *f, uint64_t gpa, const void *bytes, size_t len)
{
    assert_int_equal(ram_write(&f->ram, gpa, bytes, len), 0);
}

static void start_at(struct fixture *f, struct x86_state *st)
{
    x86_state_reset(st, true);
    st->seg[X86_CS].sel = 0;
    st->seg[X86_CS].base = 0;
    st->rip = CODE_AT;
    st->gpr[X86_RSP] = STACK_AT;
    kvm_engine.set(f->vcpu, st);
}

/* Handlers of `vector`: real mode's table. */
static void set_handler(struct fixture *f, unsigned vector, const void *code, size_t len)
{
    const uint16_t entry[2] = {HANDLER_AT, 0};

    poke(f, vector * 4, entry, sizeof(entry));
    poke(f, HANDLER_AT, code, len);
}

#define RUN(f, st, ...)                                              \
    do {                                                             \
        static const uint8_t code[] = {__VA_ARGS__};                 \
        poke(f, CODE_AT, code, sizeof(code));                        \
        start_at(f, st);                                             \
        assert_int_equal(kvm_engine.run((f)->vcpu, 0), ENGINE_HALT); \
        kvm_engine.get((f)->vcpu, st);                               \
    } while (0)

/* ---- registers ---- */

static void fill(struct x86_state *st)
{
    x86_state_reset(st, true);
    for (unsigned i = 0; i < X86_N_GPR; i++)
        st->gpr[i] = UINT64_C(0x0101010101010101) * (i + 1);
    st->rip = 0xffffffff81000000;
    st->rflags = X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_AC | X86_FLAG_CF;
    st->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    st->cr2 = 0xdeadbeef000;
    st->cr3 = 0x5000;
    st->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    st->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NX;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){.sel = 0x10, .limit = UINT32_MAX, .attr = 0xc093};
    st->seg[X86_CS] = (struct x86_seg){.sel = 0x08, .limit = UINT32_MAX, .attr = 0xa09b};
    st->seg[X86_FS].base = 0x7f0012345678;
    st->seg[X86_GS].base = 0xffff888012345678;
    st->tr = (struct x86_seg){.sel = 0x40, .base = 0x7000, .limit = 0x67, .attr = 0x8b};
    st->gdtr = (struct x86_table){.base = 0xfffffe0000001000, .limit = 0x7f};
    st->idtr = (struct x86_table){.base = 0xfffffe0000000000, .limit = 0xfff};
    st->star = UINT64_C(0x23001000000000);
    st->lstar = 0xffffffff81a00000;
    st->sfmask = 0x47700;
    st->kernel_gs_base = 0x7fff1000;
    st->sysenter_cs = 0x10;
    st->sysenter_eip = 0xffffffff81a01000;
    st->pat = UINT64_C(0x0407050600070106);
    st->tsc_aux = 5;
    st->mtrr_var[2].base = 0x80000006;
    st->misc_enable = 1;
    st->dr[1] = 0x1234;
    st->fx.fcw = 0x37f;
    st->fx.mxcsr = 0x1fa0;
    st->fx.st[3][4] = 0x77;
    for (unsigned i = 0; i < sizeof(st->ymm); i++)
        ((uint8_t *)st->ymm)[i] = (uint8_t)(i * 7);
    st->nmi_blocked = true;
}

static void registers_come_back(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state in, out;

    fill(&in);
    if (!f->cpuid.feat.avx)
        for (unsigned i = 0; i < 16; i++)
            memset(in.ymm[i] + 16, 0, 16);
    kvm_engine.set(f->vcpu, &in);
    kvm_engine.get(f->vcpu, &out);
    assert_memory_equal(out.gpr, in.gpr, sizeof(in.gpr));
    assert_true(out.rip == in.rip && out.rflags == in.rflags);
    for (unsigned i = 0; i < X86_N_SEG; i++) {
        assert_true(out.seg[i].base == in.seg[i].base && out.seg[i].limit == in.seg[i].limit);
        assert_true(out.seg[i].sel == in.seg[i].sel && out.seg[i].attr == in.seg[i].attr);
    }
    assert_true(out.tr.base == in.tr.base && out.tr.attr == in.tr.attr && out.tr.limit == in.tr.limit);
    assert_true(out.gdtr.base == in.gdtr.base && out.gdtr.limit == in.gdtr.limit);
    assert_true(out.idtr.base == in.idtr.base && out.idtr.limit == in.idtr.limit);
    assert_true(out.cr0 == in.cr0 && out.cr2 == in.cr2 && out.cr3 == in.cr3 && out.cr4 == in.cr4);
    assert_true(out.efer == in.efer && out.xcr0 == in.xcr0);
    assert_true(out.star == in.star && out.lstar == in.lstar && out.sfmask == in.sfmask);
    assert_true(out.kernel_gs_base == in.kernel_gs_base && out.pat == in.pat && out.tsc_aux == in.tsc_aux);
    assert_true(out.sysenter_cs == in.sysenter_cs && out.sysenter_eip == in.sysenter_eip);
    assert_memory_equal(out.mtrr_var, in.mtrr_var, sizeof(in.mtrr_var));
    assert_true(out.misc_enable == in.misc_enable && out.mtrr_def_type == in.mtrr_def_type);
    assert_memory_equal(out.dr, in.dr, sizeof(in.dr));
    assert_true(out.fx.fcw == in.fx.fcw && out.fx.mxcsr == in.fx.mxcsr);
    assert_memory_equal(out.fx.st, in.fx.st, sizeof(in.fx.st));
    assert_memory_equal(out.ymm, in.ymm, sizeof(in.ymm));
    assert_true(out.nmi_blocked && !out.sti_shadow && !out.movss_shadow);
}

/* ---- exits ---- */

static void ports(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    /* mov al,0x5a; out 0x81,al; in eax,0x80; hlt */
    RUN(f, &st, 0xb0, 0x5a, 0xe6, 0x81, 0x66, 0xe5, 0x80, 0xf4);
    assert_int_equal(f->n_written, 1);
    assert_int_equal(f->written[0], 0x5a);
    assert_int_equal(st.gpr[X86_RAX], 0x44332211);
    assert_int_equal(st.rip, CODE_AT + 8); /* behind HLT */
    assert_true(f->stats.exits[ENGINE_EXIT_PIO_OUT] >= 1 && f->stats.exits[ENGINE_EXIT_PIO_IN] >= 1);
    assert_true(f->stats.exits[ENGINE_EXIT_HLT] >= 1);
}

static void string_to_port(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    poke(f, DATA_AT, "vireo", 5);
    /* mov si,DATA_AT; mov cx,5; mov dx,0x80; rep outsb; hlt */
    RUN(f, &st, 0xbe, 0x00, 0x30, 0xb9, 0x05, 0x00, 0xba, 0x80, 0x00, 0xf3, 0x6e, 0xf4);
    assert_int_equal(f->n_written, 5);
    assert_memory_equal(f->written, "vireo", 5);
    assert_int_equal(st.gpr[X86_RCX], 0);
}

/* Past 1 MiB by a base that real mode keeps; twice, a read and a write. */
static void device_memory(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    static const uint8_t code[] = {0x66, 0x8b, 0x07, 0x66,
                                   0x89, 0x47, 0x04, 0xf4}; /* mov eax,[bx]; mov [bx+4],eax; hlt */

    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    st.seg[X86_DS].base = MMIO_AT;
    kvm_engine.set(f->vcpu, &st);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.gpr[X86_RAX], 0x44332211);
    assert_int_equal(f->offset, 4);
    assert_int_equal(f->n_written, 4);
    assert_true(f->stats.exits[ENGINE_EXIT_MMIO_READ] && f->stats.exits[ENGINE_EXIT_MMIO_WRITE]);
}

/* IA32_MISC_ENABLE is the machine's, SYSENTER_EIP the kernel's; the x2APIC's go to the local APIC. */
static void msrs(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    /* mov ecx,0x1a0; rdmsr; mov ebx,eax; mov ecx,0x176; mov eax,0x1234; xor edx,edx; wrmsr; hlt */
    RUN(f, &st, 0x66, 0xb9, 0xa0, 0x01, 0, 0, 0x0f, 0x32, 0x66, 0x89, 0xc3, 0x66, 0xb9, 0x76, 0x01, 0, 0, 0x66, 0xb8,
        0x34, 0x12, 0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xf4);
    assert_int_equal(st.gpr[X86_RBX], 0x1801);
    assert_int_equal(st.sysenter_eip, 0x1234);
    assert_int_equal(f->stats.exits[ENGINE_EXIT_MSR_READ], 1);
    assert_int_equal(f->stats.exits[ENGINE_EXIT_MSR_WRITE], 0);
    /* mov ecx,0x802; rdmsr; mov ebx,edx; mov ecx,0x808; mov eax,0x20; wrmsr; hlt */
    RUN(f, &st, 0x66, 0xb9, 0x02, 0x08, 0, 0, 0x0f, 0x32, 0x66, 0x89, 0xd3, 0x66, 0xb9, 0x08, 0x08, 0, 0, 0x66, 0xb8,
        0x20, 0, 0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xf4);
    assert_int_equal(st.gpr[X86_RBX], 0x1234);
    assert_int_equal(f->offset, 0x20);
}

/* An MSR that is nobody's is #GP. */
static void no_such_msr(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    static const uint8_t handler[] = {0xbb, 0x0d, 0x00, 0xf4}; /* mov bx,13; hlt */

    set_handler(f, X86_GP, handler, sizeof(handler));
    RUN(f, &st, 0x66, 0xb9, 0x99, 0x09, 0, 0, 0x0f, 0x32, 0xf4); /* mov ecx,0x999; rdmsr; hlt */
    assert_int_equal(st.gpr[X86_RBX], 13);
}

static void cpuid(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    const struct x86_cpuid_regs ours = x86_cpuid(&f->cpuid, &(struct x86_state){0}, true, 1, 0);

    RUN(f, &st, 0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0xf4); /* mov eax,1; cpuid; hlt */
    assert_int_equal(st.gpr[X86_RAX], ours.eax);
    assert_int_equal(st.gpr[X86_RCX] & ~(uint64_t)ours.ecx, 0); /* no feature that the machine does not have */
    assert_true(st.gpr[X86_RCX] >> 31 & 1);
    RUN(f, &st, 0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0xf4); /* mov eax,0x40000000 */
    assert_int_equal(st.gpr[X86_RBX], load_le32("KVMK"));
}

/* Where a CPU runs the guest: there RDTSC is its own, moved as KVM is told. A KVM that interprets may say so and do otherwise. */
static void need_cpu(const struct fixture *f)
{
    struct err err;
    uint64_t rate;

    if (!f->engine->has_tsc_offset || (kvm_probe(KVM_PROBE_DEVICE, &rate, &err) < 0 && !getenv("VIREO_TEST_KVM")))
        skip();
}

/* The TSC is the VM's clock: two reads around a run bracket it. */
static void tsc(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    need_cpu(f);
    uint64_t before = clock_tsc(&f->clock);
    RUN(f, &st, 0x0f, 0x31, 0xf4); /* rdtsc; hlt */
    uint64_t tsc = st.gpr[X86_RDX] << 32 | st.gpr[X86_RAX], after = clock_tsc(&f->clock);
    uint64_t slack = f->clock.tsc_hz / 1000; /* rates are known to a thousandth or better */
    assert_in_range(tsc, before > slack ? before - slack : 0, after + slack);
}

/* While the VM's clock stands still the TSC does. */
static void tsc_stands_still(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    need_cpu(f);
    RUN(f, &st, 0x0f, 0x31, 0xf4);
    clock_stop(&f->clock);
    usleep(200000);
    clock_start(&f->clock);
    RUN(f, &st, 0x0f, 0x31, 0xf4);
    uint64_t tsc = st.gpr[X86_RDX] << 32 | st.gpr[X86_RAX];
    assert_true(tsc < clock_tsc(&f->clock) + f->clock.tsc_hz / 1000);
}

static void triple_fault(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    static const uint8_t code[] = {0xcc};

    need_cpu(f);
    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    st.cr0 |= X86_CR0_PE;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st.seg[i] = (struct x86_seg){.sel = 0x10, .limit = UINT32_MAX, .attr = 0xc093};
    st.seg[X86_CS] = (struct x86_seg){.sel = 0x08, .limit = UINT32_MAX, .attr = 0xc09b};
    st.idtr.limit = 0;
    kvm_engine.set(f->vcpu, &st);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_SHUTDOWN);
    assert_int_equal(f->stats.exits[ENGINE_EXIT_SHUTDOWN], 1);
}

/* ---- interrupts ---- */

static const uint8_t irq_handler[] = {0xbb, 0x77, 0x00, 0xfa, 0xf4}; /* mov bx,0x77; cli; hlt */

static void raise_interrupt(struct fixture *f)
{
    set_handler(f, VECTOR, irq_handler, sizeof(irq_handler));
    f->vector = VECTOR;
    vcpu_port_raise(&f->port, PIN_INTR);
}

static void interrupt_waits_for_sti(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    raise_interrupt(f);
    RUN(f, &st, 0xb8, 1, 0, 0xfb, 0x90, 0xb8, 2, 0, 0xf4); /* mov ax,1; sti; nop; mov ax,2; hlt */
    assert_int_equal(st.gpr[X86_RBX], 0x77);
    assert_in_range(st.gpr[X86_RAX], 1, 2); /* an interpreter may look an instruction later */
    assert_int_equal(f->stats.exits[ENGINE_EXIT_INTERRUPT], 1);
}

static void interrupt_ends_halt(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    RUN(f, &st, 0xfb, 0xf4, 0xb8, 2, 0, 0xf4); /* sti; hlt; mov ax,2; hlt */
    assert_true(st.rflags & X86_FLAG_IF);
    assert_int_equal(st.activity, X86_HALTED);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT); /* and stays there */
    raise_interrupt(f);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.gpr[X86_RBX], 0x77);
    assert_int_equal(st.gpr[X86_RAX], 0);
}

#define COUNT_AT  0x3ff0
#define N_COUNTED 2000

/* Whether the last one has been; an engine that forgets some has the guest wait for ever. */
static bool taken(struct fixture *f)
{
    for (unsigned tries = 0; tries < 100000; tries++) {
        if (!(atomic_load(&f->port.pending) & PIN_INTR))
            return true;
        usleep(20);
    }
    return false;
}

/* Raises one after another has been taken, as soon as that. */
static void *raise_many(void *opaque)
{
    struct fixture *f = opaque;

    for (unsigned i = 0; i < N_COUNTED && taken(f); i++) {
        f->vector = VECTOR;
        vcpu_port_raise(&f->port, PIN_INTR);
        if (i % 16 == 0)
            usleep(200);
    }
    (void)taken(f);
    usleep(50000);
    vcpu_port_raise(&f->port, PIN_KICK);
    return NULL;
}

/* What has been acknowledged comes to the handler, each once, whatever the guest left for meanwhile. */
static void each_interrupt_arrives_once(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    static const uint8_t handler[] = {0x2e, 0xff, 0x06, 0xf0, 0x3f, 0xcf}; /* inc word cs:[COUNT_AT]; iret */
    /* sti; mov cx,0x999; 1: out 0x80,al; rdmsr, which is #GP; jmp 1b */
    static const uint8_t code[] = {0xfb, 0xb9, 0x99, 0x09, 0xe6, 0x80, 0x0f, 0x32, 0xeb, 0xfa};
    /* push bp; mov bp,sp; add word [bp+2],2; pop bp; iret */
    static const uint8_t past_it[] = {0x55, 0x89, 0xe5, 0x83, 0x46, 0x02, 0x02, 0x5d, 0xcf};
    static const uint16_t gp[2] = {HANDLER_AT + 0x100, 0};
    uint16_t count = 0;
    pthread_t thread;

    set_handler(f, VECTOR, handler, sizeof(handler));
    poke(f, X86_GP * 4, gp, sizeof(gp));
    poke(f, gp[0], past_it, sizeof(past_it));
    poke(f, COUNT_AT, &count, sizeof(count));
    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    assert_int_equal(pthread_create(&thread, NULL, raise_many, f), 0);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_KICKED);
    pthread_join(thread, NULL);
    vcpu_port_lower(&f->port, PIN_KICK);
    assert_int_equal(ram_read(&f->ram, COUNT_AT, &count, sizeof(count)), 0);
    assert_int_equal(f->stats.exits[ENGINE_EXIT_INTERRUPT], N_COUNTED);
    assert_int_equal(count, N_COUNTED);
}

static void nmi(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    set_handler(f, X86_NMI, irq_handler, sizeof(irq_handler));
    vcpu_port_raise(&f->port, PIN_NMI);
    RUN(f, &st, 0xb8, 2, 0, 0xf4);
    assert_int_equal(st.gpr[X86_RBX], 0x77);
    assert_true(st.nmi_blocked);
    assert_false(atomic_load(&f->port.pending) & PIN_NMI);
}

/* ---- kicks ---- */

static bool unack(void *apic, uint8_t vector)
{
    struct fixture *f = apic;

    f->vector = vector;
    vcpu_port_raise(&f->port, PIN_INTR);
    return true;
}

/* What KVM has taken and not delivered goes back: the state that is read then holds without it. */
static void interrupt_goes_back(void **state)
{
    static struct vcpu_apic_ops ops;
    struct fixture *f = fixture(state);
    const struct kvm_interrupt interrupt = {.irq = VECTOR};
    static const uint8_t code[] = {0xfb, 0x90, 0xf4};
    struct kvm_vcpu_events events;
    struct x86_state st;

    ops = apic_ops;
    ops.unack = unack;
    f->port.apic_ops = &ops;
    set_handler(f, VECTOR, irq_handler, sizeof(irq_handler));
    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    assert_int_equal(ioctl(f->vcpu->fd, KVM_INTERRUPT, &interrupt), 0);
    vcpu_port_raise(&f->port, PIN_KICK);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_KICKED);
    assert_int_equal(f->vector, VECTOR);
    assert_int_equal(ioctl(f->vcpu->fd, KVM_GET_VCPU_EVENTS, &events), 0);
    assert_false(events.interrupt.injected);
    vcpu_port_lower(&f->port, PIN_KICK);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT); /* and comes again */
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.gpr[X86_RBX], 0x77);
}

static void *kick_later(void *opaque)
{
    struct fixture *f = opaque;

    usleep(50000);
    vcpu_port_raise(&f->port, PIN_KICK);
    return NULL;
}

static void kick_ends_a_loop(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    static const uint8_t code[] = {0xeb, 0xfe};
    pthread_t thread;

    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    assert_int_equal(pthread_create(&thread, NULL, kick_later, f), 0);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_KICKED);
    pthread_join(thread, NULL);
    vcpu_port_lower(&f->port, PIN_KICK);
}

/* What the device does to its own vCPU; the instruction is complete when run() is back. */
static void kicking_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct fixture *f = opaque;
    vcpu_port_raise(&f->port, PIN_KICK);
}

static uint64_t kicking_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    kicking_write(opaque, region, off, len, 0);
    return 0x5a;
}

static void kick_from_a_device(void **state)
{
    struct fixture *f = fixture(state);
    const struct bus_region region = {
        .base = 0x90, .size = 1, .read = kicking_read, .write = kicking_write, .opaque = f};
    struct x86_state st;
    static const uint8_t code[] = {0xe4, 0x90, 0xb3, 0x01, 0xf4}; /* in al,0x90; mov bl,1; hlt */

    assert_int_equal(bus_add(&f->pio, &region), 0);
    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_KICKED);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.rip, CODE_AT + 2);
    assert_int_equal(st.gpr[X86_RAX], 0x5a);
    vcpu_port_lower(&f->port, PIN_KICK);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT);
}

/* ---- a debugger, a limit ---- */

static void limit(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    static const uint8_t code[] = {0x40, 0x40, 0x40, 0x40, 0xf4}; /* inc ax, four times */

    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    assert_int_equal(kvm_engine.run(f->vcpu, 2), ENGINE_DEBUG);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.gpr[X86_RAX], 2);
    assert_int_equal(st.rip, CODE_AT + 2);
    assert_false(st.rflags & X86_FLAG_TF);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.gpr[X86_RAX], 4);
}

static void code_breakpoint(void **state)
{
    struct fixture *f = fixture(state);
    if (getenv("VIREO_TEST_KVM")) /* QEMU's VMRUN does not arm debug registers */
        skip();
    const struct engine_breakpoint at = {.addr = CODE_AT + 3, .kinds = ENGINE_BREAK_EXEC};
    struct engine_debug debug = {.breakpoints = &at, .n_breakpoints = 1};
    struct x86_state st;
    static const uint8_t code[] = {0x40, 0x40, 0x40, 0x40, 0xf4};

    poke(f, CODE_AT, code, sizeof(code));
    start_at(f, &st);
    kvm_engine.debug(f->vcpu, &debug);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_DEBUG);
    assert_ptr_equal(debug.hit, &at);
    kvm_engine.get(f->vcpu, &st);
    assert_int_equal(st.rip, CODE_AT + 3);
    kvm_engine.debug(f->vcpu, NULL);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_HALT);
}

/* ---- what goes wrong ---- */

/* Code where no memory is: KVM cannot run it, and the report says where. */
static void code_outside_memory(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;

    start_at(f, &st);
    st.seg[X86_CS].base = 0xe0000000;
    kvm_engine.set(f->vcpu, &st);
    assert_int_equal(kvm_engine.run(f->vcpu, 0), ENGINE_FAIL);
    assert_non_null(strstr(f->failure, "vireo: CPU 0: KVM: "));
    assert_non_null(strstr(f->failure, "rip  0000000000001000"));
    assert_non_null(strstr(f->failure, "the guest's memory at e0001000 cannot be read"));
}

static void too_many_vcpus(void **state)
{
    struct fixture *f = fixture(state);
    struct engine *engine;
    struct err err = {0};

    assert_int_equal(kvm_engine.open(&engine, &(struct engine_conf){.ram = &f->ram, .n_vcpus = 1u << 20}, &err),
                     -EINVAL);
    assert_non_null(strstr(err.msg, "1048576 vCPUs"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void put_exits(void *opaque, const char *name, uint64_t value)
{
    if (strcmp(name, "exits") == 0)
        *(uint64_t *)opaque = value;
}

/* The kernel's own count, where it has one, is of no fewer exits than come here. */
static void figures(void **state)
{
    struct fixture *f = fixture(state);
    struct x86_state st;
    uint64_t exits = UINT64_MAX;

    RUN(f, &st, 0xe6, PORT, 0xe6, PORT, 0xf4); /* out PORT, al, twice; hlt */
    kvm_engine.figures(f->vcpu, &(struct engine_figures){.put = put_exits, .opaque = &exits});
    if (f->vcpu->stats_fd < 0)
        skip();
    assert_in_range(exits, 2, UINT64_MAX - 1);
    assert_true(f->stats.exit_ns[ENGINE_EXIT_PIO_OUT] > 0);
    assert_int_equal(f->stats.exit_ns[ENGINE_EXIT_PIO_OUT], f->stats.device_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_come_back),
        TEST(ports),
        TEST(string_to_port),
        TEST(device_memory),
        TEST(msrs),
        TEST(no_such_msr),
        TEST(cpuid),
        TEST(tsc),
        TEST(tsc_stands_still),
        TEST(triple_fault),
        TEST(interrupt_waits_for_sti),
        TEST(interrupt_ends_halt),
        TEST(each_interrupt_arrives_once),
        TEST(nmi),
        TEST(interrupt_goes_back),
        TEST(kick_ends_a_loop),
        TEST(kick_from_a_device),
        TEST(figures),
        TEST(limit),
        TEST(code_breakpoint),
        TEST(code_outside_memory),
        TEST(too_many_vcpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
