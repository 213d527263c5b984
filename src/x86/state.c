#include "x86/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define ATTR_DATA16   (X86_SEG_P | X86_SEG_S | X86_SEG_WRITE | X86_SEG_ACCESSED)
#define ATTR_CODE16   (ATTR_DATA16 | X86_SEG_CODE)
#define ATTR_LDT      (X86_SEG_P | 2)
/* Busy, of the 32-bit kind: with a 16-bit TSS in TR, setting CR0.PG could not enter long mode (SDM Vol. 2B MOV CR). */
#define ATTR_TSS_BUSY (X86_SEG_P | 11)

/* Processor signature in EDX after reset: family 6, as CPUID leaf 1 says in full. */
#define RESET_EDX 0x600

#define PAT_RESET                UINT64_C(0x0007040600070406) /* SDM Vol. 3A 11.12.4 */
#define MTRR_ENABLED_WB          0x0c06 /* as firmware leaves them: on, fixed ranges on, default write-back */
#define MTRR_WB_EIGHT            UINT64_C(0x0606060606060606)
#define MISC_ENABLE_FAST_STRINGS 1u

/* What both reset and INIT set (SDM Vol. 3A table 9-1). */
static void init_common(struct x86_state *st, bool bsp)
{
    memset(st->gpr, 0, sizeof(st->gpr));
    st->gpr[X86_RDX] = RESET_EDX;
    st->rip = 0xfff0;
    st->rflags = X86_FLAG_FIXED;
    for (int i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){.limit = 0xffff, .attr = ATTR_DATA16};
    st->seg[X86_CS] = (struct x86_seg){.sel = 0xf000, .base = 0xffff0000, .limit = 0xffff, .attr = ATTR_CODE16};
    st->ldtr = (struct x86_seg){.limit = 0xffff, .attr = ATTR_LDT};
    st->tr = (struct x86_seg){.limit = 0xffff, .attr = ATTR_TSS_BUSY};
    st->gdtr = st->idtr = (struct x86_table){.limit = 0xffff};
    st->cr2 = st->cr3 = st->cr4 = 0;
    memset(st->pdpte, 0, sizeof(st->pdpte));
    memset(st->dr, 0, sizeof(st->dr));
    st->dr6 = 0xffff0ff0;
    st->dr7 = 0x400;
    st->pending_debug = 0;
    st->taken = 0;
    st->efer = 0;
    st->kvm_system_time = st->kvm_wall_clock = 0; /* KVM's INIT ends its clock too */
    st->sti_shadow = st->movss_shadow = st->nmi_blocked = false;
    st->activity = bsp ? X86_RUNNING : X86_WAIT_SIPI;
}

void x86_state_reset(struct x86_state *st, bool bsp)
{
    memset(st, 0, sizeof(*st));
    init_common(st, bsp);
    st->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    st->xcr0 = 1;
    st->pat = PAT_RESET;
    st->misc_enable = MISC_ENABLE_FAST_STRINGS;
    st->mtrr_def_type = MTRR_ENABLED_WB;
    for (size_t i = 0; i < ARRAY_SIZE(st->mtrr_fixed); i++)
        st->mtrr_fixed[i] = MTRR_WB_EIGHT;
    st->fx.fcw = 0x40; /* power-on, not FNINIT: FCW 0x40, all tags valid and zero */
    st->fx.ftw = 0xff;
    st->fx.mxcsr = 0x1f80;
    st->fx.mxcsr_mask = 0xffff;
}

void x86_state_init(struct x86_state *st, bool bsp)
{
    /* CD and NW keep their value; the rest of CR0 is as after reset. */
    uint64_t cache = st->cr0 & (X86_CR0_CD | X86_CR0_NW);

    init_common(st, bsp);
    st->cr0 = cache | X86_CR0_ET;
}

void x86_state_sipi(struct x86_state *st, uint8_t vector)
{
    st->seg[X86_CS].sel = (uint16_t)(vector << 8);
    st->seg[X86_CS].base = (uint64_t)vector << 12;
    st->rip = 0;
    st->activity = X86_RUNNING;
}

static void stream_seg(struct stream *s, struct x86_seg *seg)
{
    stream_u64(s, &seg->base);
    stream_u32(s, &seg->limit);
    stream_u16(s, &seg->sel);
    stream_u16(s, &seg->attr);
}

static void stream_table(struct stream *s, struct x86_table *table)
{
    stream_u64(s, &table->base);
    stream_u16(s, &table->limit);
}

void x86_state_stream(struct x86_state *st, struct stream *s)
{
    uint8_t activity = (uint8_t)st->activity;

    stream_section(s, "x86-state", 1);
    for (int i = 0; i < X86_N_GPR; i++)
        stream_u64(s, &st->gpr[i]);
    stream_u64(s, &st->rip);
    stream_u64(s, &st->rflags);
    for (int i = 0; i < X86_N_SEG; i++)
        stream_seg(s, &st->seg[i]);
    stream_seg(s, &st->ldtr);
    stream_seg(s, &st->tr);
    stream_table(s, &st->gdtr);
    stream_table(s, &st->idtr);

    uint64_t *const words[] = {
        &st->cr0,
        &st->cr2,
        &st->cr3,
        &st->cr4,
        &st->pdpte[0],
        &st->pdpte[1],
        &st->pdpte[2],
        &st->pdpte[3],
        &st->xcr0,
        &st->dr[0],
        &st->dr[1],
        &st->dr[2],
        &st->dr[3],
        &st->dr6,
        &st->dr7,
        &st->efer,
        &st->star,
        &st->lstar,
        &st->cstar,
        &st->sfmask,
        &st->kernel_gs_base,
        &st->sysenter_cs,
        &st->sysenter_esp,
        &st->sysenter_eip,
        &st->pat,
        &st->tsc_aux,
        &st->tsc_adjust,
        &st->misc_enable,
        &st->mtrr_def_type,
        &st->mcg_status,
        &st->spec_ctrl,
        &st->kvm_system_time,
        &st->kvm_wall_clock,
    };
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        stream_u64(s, words[i]);
    for (size_t i = 0; i < ARRAY_SIZE(st->mtrr_fixed); i++)
        stream_u64(s, &st->mtrr_fixed[i]);
    for (size_t i = 0; i < X86_N_MTRR_VAR; i++) {
        stream_u64(s, &st->mtrr_var[i].base);
        stream_u64(s, &st->mtrr_var[i].mask);
    }
    stream_bytes(s, &st->fx, offsetof(struct x86_fxsave, unused));
    stream_bytes(s, st->ymm, sizeof(st->ymm));
    stream_u32(s, &st->pending_debug);
    stream_u8(s, &activity);
    stream_u16(s, &st->taken);
    stream_bool(s, &st->sti_shadow);
    stream_bool(s, &st->movss_shadow);
    stream_bool(s, &st->nmi_blocked);
    if (s->loading && !s->error) {
        if (activity > X86_WAIT_SIPI)
            s->error = -EPROTO;
        else
            st->activity = (enum x86_activity)activity;
    }
}

struct text {
    char *buf;
    size_t len;
    int n;
};

static void PRINTF_LIKE(2, 3) put(struct text *t, const char *fmt, ...)
{
    size_t at = (size_t)t->n < t->len ? (size_t)t->n : t->len;
    va_list ap;

    va_start(ap, fmt);
    t->n += vsnprintf(t->buf ? t->buf + at : NULL, t->len - at, fmt, ap);
    va_end(ap);
}

static void put_seg(struct text *t, const char *name, const struct x86_seg *seg)
{
    put(t, "%-4s %04x base %016" PRIx64 " limit %08x attr %04x\n", name, seg->sel, seg->base, seg->limit, seg->attr);
}

int x86_state_print(const struct x86_state *st, char *buf, size_t len)
{
    static const char *const gpr[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const seg[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    struct text t = {.buf = buf, .len = len};

    put(&t, "rip  %016" PRIx64 "  rflags %016" PRIx64 "  cpl %u\n", st->rip, st->rflags, x86_cpl(st));
    for (int i = 0; i < X86_N_GPR; i++)
        put(&t, "%-4s %016" PRIx64 "%s", gpr[i], st->gpr[i], i % 4 == 3 ? "\n" : "  ");
    for (int i = 0; i < X86_N_SEG; i++)
        put_seg(&t, seg[i], &st->seg[i]);
    put_seg(&t, "ldtr", &st->ldtr);
    put_seg(&t, "tr", &st->tr);
    put(&t, "gdtr base %016" PRIx64 " limit %04x   idtr base %016" PRIx64 " limit %04x\n", st->gdtr.base,
        st->gdtr.limit, st->idtr.base, st->idtr.limit);
    put(&t, "cr0  %016" PRIx64 "  cr2  %016" PRIx64 "  cr3  %016" PRIx64 "  cr4  %016" PRIx64 "\n", st->cr0, st->cr2,
        st->cr3, st->cr4);
    put(&t, "efer %016" PRIx64 "  xcr0 %016" PRIx64 "  dr6  %016" PRIx64 "  dr7  %016" PRIx64, st->efer, st->xcr0,
        st->dr6, st->dr7);
    return t.n;
}
