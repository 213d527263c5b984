/*
 * struct x86_state from and to the kernel's structures (arch/x86/include/uapi/asm/kvm.h). The kernel keeps what the CPU itself holds; v->st keeps
 * the MSRs that exit.
 *
 * An interrupt or exception that is about to be delivered stays in the kernel when registers are changed, but not over a reset.
 */
#include "engine/kvm/kvm.h"

#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "x86/msr.h"

/* An XSAVE area in its standard form (SDM Vol. 1 13.4). */
#define XSAVE_XMM    160
#define XSAVE_BV     512
#define XSAVE_YMM    576
#define FCW_INIT     0x37f
#define MXCSR_OFFSET offsetof(struct x86_fxsave, mxcsr)
#define DR6_TRAPS    0xe00fu
#define BV_ALL       (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX)

/* MSRs that the kernel keeps, and where they are in the state. */
static const struct {
    uint32_t msr;
    size_t field;
} kept[] = {
#define KEPT(msr, name)                       \
    {                                         \
        msr, offsetof(struct x86_state, name) \
    }
    KEPT(0xc0000081, star),
    KEPT(0xc0000082, lstar),
    KEPT(0xc0000083, cstar),
    KEPT(0xc0000084, sfmask),
    KEPT(0xc0000102, kernel_gs_base),
    KEPT(0x174, sysenter_cs),
    KEPT(0x175, sysenter_esp),
    KEPT(0x176, sysenter_eip),
    KEPT(0x277, pat),
    KEPT(0xc0000103, tsc_aux),
    KEPT(0x3b, tsc_adjust),
    KEPT(0x48, spec_ctrl),
    KEPT(MSR_KVM_WALL_CLOCK_NEW, kvm_wall_clock),
    KEPT(MSR_KVM_SYSTEM_TIME_NEW, kvm_system_time),
#undef KEPT
};

/* One MSR for KVM_GET_MSRS and KVM_SET_MSRS. */
union one_msr {
    struct kvm_msrs msrs;
    uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

/* These calls fail for a bug of ours or of KVM's, or where the host cannot do what a state asks for. Such a state is not run. */
static void call(struct engine_vcpu *v, unsigned long request, const char *name, void *arg)
{
    struct err err;

    if (kvm_vm_ioctl(v->fd, request, name, arg, &err) == 0)
        return;
    log_error("CPU %u: %s", v->conf.index, err.msg);
    v->refused = true;
}

/* ---- segments ---- */

static struct kvm_segment to_kvm_segment(const struct x86_seg *s)
{
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = s->attr & X86_SEG_TYPE,
        .s = (s->attr & X86_SEG_S) != 0,
        .dpl = (s->attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT,
        .present = (s->attr & X86_SEG_P) != 0,
        .avl = (s->attr & X86_SEG_AVL) != 0,
        .l = (s->attr & X86_SEG_L) != 0,
        .db = (s->attr & X86_SEG_DB) != 0,
        .g = (s->attr & X86_SEG_G) != 0,
        .unusable = !(s->attr & X86_SEG_P),
    };
}

static struct x86_seg from_kvm_segment(const struct kvm_segment *s)
{
    unsigned attr = s->type | (s->s ? X86_SEG_S : 0u) | (unsigned)s->dpl << X86_SEG_DPL_SHIFT |
                    (s->present && !s->unusable ? X86_SEG_P : 0u) | (s->avl ? X86_SEG_AVL : 0u) |
                    (s->l ? X86_SEG_L : 0u) | (s->db ? X86_SEG_DB : 0u) | (s->g ? X86_SEG_G : 0u);

    return (struct x86_seg){.base = s->base, .limit = s->limit, .sel = s->selector, .attr = (uint16_t)attr};
}

static void get_sregs(struct engine_vcpu *v, struct x86_state *st)
{
    struct kvm_sregs2 s = {0};

    call(v, KVM_GET_SREGS2, "KVM_GET_SREGS2", &s);
    const struct kvm_segment *const segments[X86_N_SEG] = {
        [X86_ES] = &s.es, [X86_CS] = &s.cs, [X86_SS] = &s.ss, [X86_DS] = &s.ds, [X86_FS] = &s.fs, [X86_GS] = &s.gs};
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = from_kvm_segment(segments[i]);
    st->ldtr = from_kvm_segment(&s.ldt);
    st->tr = from_kvm_segment(&s.tr);
    st->gdtr = (struct x86_table){.base = s.gdt.base, .limit = s.gdt.limit};
    st->idtr = (struct x86_table){.base = s.idt.base, .limit = s.idt.limit};
    st->cr0 = s.cr0;
    st->cr2 = s.cr2;
    st->cr3 = s.cr3;
    st->cr4 = s.cr4;
    st->efer = s.efer;
    if (s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
        memcpy(st->pdpte, s.pdptrs, sizeof(st->pdpte));
}

static bool uses_pdptrs(const struct x86_state *st)
{
    return (st->cr0 & X86_CR0_PG) && (st->cr4 & X86_CR4_PAE) && !(st->efer & X86_EFER_LMA);
}

/* The local APIC's base and CR8 only matter to a local APIC in the kernel; enabled, since CPUID tells so. */
static void set_sregs(struct engine_vcpu *v, const struct x86_state *st)
{
    struct kvm_sregs2 s = {0};

    call(v, KVM_GET_SREGS2, "KVM_GET_SREGS2", &s);
    s.es = to_kvm_segment(&st->seg[X86_ES]);
    s.cs = to_kvm_segment(&st->seg[X86_CS]);
    s.ss = to_kvm_segment(&st->seg[X86_SS]);
    s.ds = to_kvm_segment(&st->seg[X86_DS]);
    s.fs = to_kvm_segment(&st->seg[X86_FS]);
    s.gs = to_kvm_segment(&st->seg[X86_GS]);
    s.ldt = to_kvm_segment(&st->ldtr);
    s.tr = to_kvm_segment(&st->tr);
    s.gdt.base = st->gdtr.base;
    s.gdt.limit = st->gdtr.limit;
    s.idt.base = st->idtr.base;
    s.idt.limit = st->idtr.limit;
    s.cr0 = st->cr0;
    s.cr2 = st->cr2;
    s.cr3 = st->cr3;
    s.cr4 = st->cr4;
    s.efer = st->efer;
    s.flags = 0;
    if (uses_pdptrs(st)) {
        s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        memcpy(s.pdptrs, st->pdpte, sizeof(s.pdptrs));
    }
    call(v, KVM_SET_SREGS2, "KVM_SET_SREGS2", &s);
}

/* ---- general registers ---- */

static void get_regs(struct engine_vcpu *v, struct x86_state *st)
{
    struct kvm_regs r = {0};

    call(v, KVM_GET_REGS, "KVM_GET_REGS", &r);
    const uint64_t gpr[X86_N_GPR] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
                                     r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
    memcpy(st->gpr, gpr, sizeof(gpr));
    st->rip = r.rip;
    st->rflags = r.rflags;
}

static void set_regs(struct engine_vcpu *v, const struct x86_state *st)
{
    struct kvm_regs r = {
        .rax = st->gpr[X86_RAX],
        .rcx = st->gpr[X86_RCX],
        .rdx = st->gpr[X86_RDX],
        .rbx = st->gpr[X86_RBX],
        .rsp = st->gpr[X86_RSP],
        .rbp = st->gpr[X86_RBP],
        .rsi = st->gpr[X86_RSI],
        .rdi = st->gpr[X86_RDI],
        .r8 = st->gpr[X86_R8],
        .r9 = st->gpr[X86_R9],
        .r10 = st->gpr[X86_R10],
        .r11 = st->gpr[X86_R11],
        .r12 = st->gpr[X86_R12],
        .r13 = st->gpr[X86_R13],
        .r14 = st->gpr[X86_R14],
        .r15 = st->gpr[X86_R15],
        .rip = st->rip,
        .rflags = st->rflags,
    };

    call(v, KVM_SET_REGS, "KVM_SET_REGS", &r);
}

/* ---- x87, SSE, AVX ---- */

static uint8_t *bytes_of(struct kvm_xsave *x)
{
    return (uint8_t *)x->region;
}

static void get_vectors(struct engine_vcpu *v, struct x86_state *st)
{
    struct kvm_xsave x = {0};
    const uint8_t *area = bytes_of(&x);

    call(v, KVM_GET_XSAVE, "KVM_GET_XSAVE", &x);
    uint64_t bv = load_le64(area + XSAVE_BV);
    memset(st->ymm, 0, sizeof(st->ymm));
    for (unsigned i = 0; i < 16; i++) {
        if (bv & X86_XCR0_SSE)
            memcpy(st->ymm[i], area + XSAVE_XMM + (size_t)16 * i, 16);
        if (bv & X86_XCR0_AVX)
            memcpy(st->ymm[i] + 16, area + XSAVE_YMM + (size_t)16 * i, 16);
    }
    if (bv & X86_XCR0_X87) {
        memcpy(&st->fx, area, offsetof(struct x86_fxsave, unused));
        return;
    }
    memset(&st->fx, 0, offsetof(struct x86_fxsave, unused));
    st->fx.fcw = FCW_INIT;
    memcpy(&st->fx.mxcsr, area + MXCSR_OFFSET, 2 * sizeof(uint32_t));
}

/* All components are given: what is not there (AVX, on a host without) the kernel would refuse. */
static void set_vectors(struct engine_vcpu *v, const struct x86_state *st)
{
    struct kvm_xsave x = {0};
    uint8_t *area = bytes_of(&x);
    uint64_t bv = BV_ALL & (x86_cpuid_xcr0(v->conf.cpuid));

    memcpy(area, &st->fx, offsetof(struct x86_fxsave, unused));
    for (unsigned i = 0; i < 16; i++) {
        memcpy(area + XSAVE_XMM + (size_t)16 * i, st->ymm[i], 16);
        memcpy(area + XSAVE_YMM + (size_t)16 * i, st->ymm[i] + 16, 16);
    }
    store_le64(area + XSAVE_BV, bv);
    call(v, KVM_SET_XSAVE, "KVM_SET_XSAVE", &x);
}

static void get_xcr0(struct engine_vcpu *v, struct x86_state *st)
{
    struct kvm_xcrs x = {0};

    call(v, KVM_GET_XCRS, "KVM_GET_XCRS", &x);
    for (unsigned i = 0; i < x.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (x.xcrs[i].xcr == 0)
            st->xcr0 = x.xcrs[i].value;
}

static void set_xcr0(struct engine_vcpu *v, const struct x86_state *st)
{
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.value = st->xcr0}}};

    call(v, KVM_SET_XCRS, "KVM_SET_XCRS", &x);
}

/* ---- debug registers, events ---- */

static void get_debugregs(struct engine_vcpu *v, struct x86_state *st)
{
    struct kvm_debugregs d = {0};

    call(v, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &d);
    memcpy(st->dr, d.db, sizeof(st->dr));
    st->dr6 = d.dr6;
    st->dr7 = d.dr7;
}

static void set_debugregs(struct engine_vcpu *v, const struct x86_state *st)
{
    struct kvm_debugregs d = {.dr6 = st->dr6 | st->pending_debug, .dr7 = st->dr7};

    memcpy(d.db, st->dr, sizeof(d.db));
    call(v, KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &d);
}

/* NMIs that the kernel has, and the guest has not yet, go back to the vCPU's pins, where they are saved, and come from again. */
static void take_back_nmis(struct engine_vcpu *v, struct kvm_vcpu_events *e)
{
    for (unsigned n = e->nmi.injected + e->nmi.pending; n; n--)
        vcpu_port_raise(v->conf.port, PIN_NMI);
    if (e->nmi.injected)
        e->nmi.masked = 0;
    e->nmi.injected = e->nmi.pending = 0;
    e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    call(v, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", e);
}

/*
 * What is on its way: an interrupt, whose vector the local APIC has given away; a debug trap. All other exceptions, and INT n, come anew when the instruction at
 * RIP runs again.
 */
static void get_events(struct engine_vcpu *v, struct x86_state *st)
{
    struct kvm_vcpu_events e = {0};

    call(v, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &e);
    if (e.nmi.injected || e.nmi.pending)
        take_back_nmis(v, &e);
    st->taken = e.interrupt.injected && !e.interrupt.soft ? (uint16_t)(X86_TAKEN | e.interrupt.nr) : 0;
    st->pending_debug =
        (e.exception.injected || e.exception.pending) && e.exception.nr == X86_DB ? (uint32_t)st->dr6 & DR6_TRAPS : 0;
    st->sti_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_STI;
    st->movss_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
    st->nmi_blocked = e.nmi.masked;
}

/* At the reset vector, or waiting for a start-up IPI: nothing from before is to be delivered. */
static bool is_fresh(const struct x86_state *st)
{
    return st->activity == X86_WAIT_SIPI || (st->rip == 0xfff0 && st->seg[X86_CS].base == 0xffff0000);
}

static void set_events(struct engine_vcpu *v, const struct x86_state *st)
{
    struct kvm_vcpu_events e = {0};

    if (!is_fresh(st))
        call(v, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &e);
    e.interrupt.injected = st->taken != 0;
    e.interrupt.nr = (uint8_t)st->taken;
    e.interrupt.soft = 0;
    if (st->pending_debug && !e.exception.injected && !e.exception.pending) {
        e.exception.injected = 1;
        e.exception.nr = X86_DB;
        e.exception.has_error_code = 0;
    }
    e.interrupt.shadow =
        (uint8_t)((st->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) | (st->movss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0));
    e.nmi.masked = st->nmi_blocked;
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    call(v, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &e);
}

static bool unack(struct engine_vcpu *v, uint8_t vector)
{
    const struct vcpu_port *port = v->conf.port;

    if (v->engine->has_lapics)
        return kvm_irq_unack(v, vector);
    return port->apic_ops && port->apic_ops->unack && port->apic_ops->unack(port->apic, vector);
}

void kvm_state_settle(struct engine_vcpu *v)
{
    struct kvm_vcpu_events e = {0};
    bool nmi, interrupt;

    call(v, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &e);
    nmi = e.nmi.injected || e.nmi.pending;
    interrupt = e.interrupt.injected && !e.interrupt.soft && unack(v, e.interrupt.nr);
    if (!nmi && !interrupt)
        return;
    if (interrupt)
        e.interrupt.injected = 0;
    if (e.nmi.injected) /* it has begun to block others */
        e.nmi.masked = 0;
    e.nmi.injected = e.nmi.pending = 0;
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
    call(v, KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &e);
    if (nmi)
        vcpu_port_raise(v->conf.port, PIN_NMI);
}

/* ---- what it does: the kernel's affair where it has the local APIC ---- */

static enum x86_activity get_activity(struct engine_vcpu *v)
{
    struct kvm_mp_state mp = {0};

    if (!v->engine->has_lapics)
        return v->halted ? X86_HALTED : X86_RUNNING;
    call(v, KVM_GET_MP_STATE, "KVM_GET_MP_STATE", &mp);
    return mp.mp_state == KVM_MP_STATE_RUNNABLE ? X86_RUNNING
           : mp.mp_state == KVM_MP_STATE_HALTED ? X86_HALTED
                                                : X86_WAIT_SIPI;
}

static void set_activity(struct engine_vcpu *v, enum x86_activity activity)
{
    struct kvm_mp_state mp = {.mp_state = activity == X86_RUNNING  ? KVM_MP_STATE_RUNNABLE
                                          : activity == X86_HALTED ? KVM_MP_STATE_HALTED
                                                                   : KVM_MP_STATE_INIT_RECEIVED};

    if (v->engine->has_lapics)
        call(v, KVM_SET_MP_STATE, "KVM_SET_MP_STATE", &mp);
}

/* ---- MSRs ---- */

static uint64_t *field(const struct x86_state *st, size_t i)
{
    return (uint64_t *)((char *)st + kept[i].field);
}

/* One by one, as a host may lack some: what cannot be read is as it was, and what cannot be set is not there for the guest either. */
static void get_msrs(struct engine_vcpu *v, struct x86_state *st)
{
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        union one_msr m = {.msrs.nmsrs = 1};
        m.msrs.entries[0].index = kept[i].msr;
        if (ioctl(v->fd, KVM_GET_MSRS, &m) == 1)
            *field(st, i) = m.msrs.entries[0].data;
    }
}

static void set_msrs(struct engine_vcpu *v, const struct x86_state *st)
{
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        union one_msr m = {.msrs.nmsrs = 1};
        m.msrs.entries[0].index = kept[i].msr;
        m.msrs.entries[0].data = *field(st, i);
        if (ioctl(v->fd, KVM_SET_MSRS, &m) != 1 && *field(st, i))
            log_warn("CPU %u: this host's KVM does not take %#llx for MSR %#x", v->conf.index,
                     (unsigned long long)*field(st, i), kept[i].msr);
    }
}

/* ---- */

void kvm_state_get(struct engine_vcpu *v, struct x86_state *st)
{
    *st = v->st;
    st->activity = get_activity(v); /* first: the kernel takes INIT and start-up IPIs now */
    get_regs(v, st);
    get_sregs(v, st);
    get_xcr0(v, st);
    get_vectors(v, st);
    get_debugregs(v, st);
    get_msrs(v, st);
    get_events(v, st);
    kvm_time_get(v);
}

void kvm_state_set(struct engine_vcpu *v, const struct x86_state *st)
{
    v->st = *st;
    (void)get_activity(v); /* what comes from before does not come after */
    v->halted = !v->engine->has_lapics && st->activity == X86_HALTED;
    v->ready =
        !v->engine->has_lapics && (st->rflags & X86_FLAG_IF) && !st->sti_shadow && !st->movss_shadow && !st->taken;
    v->unfinished = false;
    v->refused = false;
    set_sregs(v, st);
    set_xcr0(v, st);
    set_vectors(v, st);
    set_msrs(v, st);
    set_debugregs(v, st);
    set_regs(v, st);
    set_events(v, st);
    set_activity(v, st->activity);
    kvm_time_set(v);
}
