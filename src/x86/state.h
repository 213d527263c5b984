/*
 * The architectural state of one x86-64 logical processor: what every engine takes and gives, what a snapshot holds and a
 * crash prints. Names follow the SDM. The local APIC is a device and keeps its own state (CR8 lives there).
 */
#ifndef X86_STATE_H
#define X86_STATE_H

#include <stdbool.h>

#include "base/util.h"
#include "core/stream.h"

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15,
    X86_N_GPR
};

/* In the encoding's order (SDM Vol. 2A table 2-1, MOV Sreg). */
enum x86_segreg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_N_SEG };

/* RFLAGS (SDM Vol. 1 3.4.3) */
#define X86_FLAG_CF      (1u << 0)
#define X86_FLAG_FIXED   (1u << 1)
#define X86_FLAG_PF      (1u << 2)
#define X86_FLAG_AF      (1u << 4)
#define X86_FLAG_ZF      (1u << 6)
#define X86_FLAG_SF      (1u << 7)
#define X86_FLAG_TF      (1u << 8)
#define X86_FLAG_IF      (1u << 9)
#define X86_FLAG_DF      (1u << 10)
#define X86_FLAG_OF      (1u << 11)
#define X86_FLAG_IOPL    (3u << 12)
#define X86_FLAG_NT      (1u << 14)
#define X86_FLAG_RF      (1u << 16)
#define X86_FLAG_VM      (1u << 17)
#define X86_FLAG_AC      (1u << 18)
#define X86_FLAG_VIF     (1u << 19)
#define X86_FLAG_VIP     (1u << 20)
#define X86_FLAG_ID      (1u << 21)
#define X86_FLAGS_STATUS (X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_OF)

/* Control registers (SDM Vol. 3A 2.5) */
#define X86_CR0_PE (1u << 0)
#define X86_CR0_MP (1u << 1)
#define X86_CR0_EM (1u << 2)
#define X86_CR0_TS (1u << 3)
#define X86_CR0_ET (1u << 4)
#define X86_CR0_NE (1u << 5)
#define X86_CR0_WP (1u << 16)
#define X86_CR0_AM (1u << 18)
#define X86_CR0_NW (1u << 29)
#define X86_CR0_CD (1u << 30)
#define X86_CR0_PG (1u << 31)

#define X86_CR4_VME        (1u << 0)
#define X86_CR4_PVI        (1u << 1)
#define X86_CR4_TSD        (1u << 2)
#define X86_CR4_DE         (1u << 3)
#define X86_CR4_PSE        (1u << 4)
#define X86_CR4_PAE        (1u << 5)
#define X86_CR4_MCE        (1u << 6)
#define X86_CR4_PGE        (1u << 7)
#define X86_CR4_PCE        (1u << 8)
#define X86_CR4_OSFXSR     (1u << 9)
#define X86_CR4_OSXMMEXCPT (1u << 10)
#define X86_CR4_UMIP       (1u << 11)
#define X86_CR4_FSGSBASE   (1u << 16)
#define X86_CR4_PCIDE      (1u << 17)
#define X86_CR4_OSXSAVE    (1u << 18)
#define X86_CR4_SMEP       (1u << 20)
#define X86_CR4_SMAP       (1u << 21)

#define X86_EFER_SCE (1u << 0)
#define X86_EFER_LME (1u << 8)
#define X86_EFER_LMA (1u << 10)
#define X86_EFER_NX  (1u << 11)

/* IA32_MISC_ENABLE (SDM Vol. 4 table 2-2), as far as it changes what CPUID says */
#define X86_MISC_LIMIT_CPUID (UINT64_C(1) << 22)
#define X86_MISC_NO_XD       (UINT64_C(1) << 34)

/* Exception vectors (SDM Vol. 3A 6.3.1) */
enum x86_vector {
    X86_DE = 0,
    X86_DB = 1,
    X86_NMI = 2,
    X86_BP = 3,
    X86_OF = 4,
    X86_BR = 5,
    X86_UD = 6,
    X86_NM = 7,
    X86_DF = 8,
    X86_TS = 10,
    X86_NP = 11,
    X86_SSF = 12,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC = 17,
    X86_MC = 18,
    X86_XM = 19
};

/* Page-fault error code (SDM Vol. 3A 4.7) */
#define X86_PF_P    (1u << 0)
#define X86_PF_W    (1u << 1)
#define X86_PF_U    (1u << 2)
#define X86_PF_RSVD (1u << 3)
#define X86_PF_I    (1u << 4)

/*
 * Segment attributes: bits 8-15 and 20-23 of a descriptor's high dword, shifted right by 8, as in a VMCS's access rights
 * (SDM Vol. 3C 24.4.1). A null segment has P clear.
 */
#define X86_SEG_TYPE      0x000fu
#define X86_SEG_ACCESSED  0x0001u
#define X86_SEG_WRITE     0x0002u /* data: writable; code: readable */
#define X86_SEG_DC        0x0004u /* data: expand down; code: conforming */
#define X86_SEG_CODE      0x0008u
#define X86_SEG_S         0x0010u
#define X86_SEG_DPL_SHIFT 5
#define X86_SEG_DPL       (3u << X86_SEG_DPL_SHIFT)
#define X86_SEG_P         0x0080u
#define X86_SEG_AVL       0x1000u
#define X86_SEG_L         0x2000u
#define X86_SEG_DB        0x4000u
#define X86_SEG_G         0x8000u

struct x86_seg {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint16_t sel;
    uint16_t attr;
};

struct x86_table {
    uint64_t base;
    uint16_t limit;
};

/* The legacy region of an XSAVE area (SDM Vol. 1 10.5.1, 64-bit layout), whose SSE part is not used: vectors live in `ymm`. */
struct x86_fxsave {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged: one bit a register, 1 = in use */
    uint8_t reserved0;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16]; /* 80-bit, by stack position */
    uint8_t unused[16 * 16 + 96];
} __attribute__((aligned(64)));

enum x86_activity { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI };

#define X86_N_MTRR_VAR 8
#define X86_TAKEN      0x100u

struct x86_state {
    uint64_t gpr[X86_N_GPR];
    uint64_t rip;
    uint64_t rflags;

    struct x86_seg seg[X86_N_SEG];
    struct x86_seg ldtr, tr;
    struct x86_table gdtr, idtr;

    uint64_t cr0, cr2, cr3, cr4, xcr0;
    uint64_t pdpte[4]; /* PAE paging's registers (SDM Vol. 3A 4.4.1) */
    uint64_t dr[4], dr6, dr7;
    uint32_t pending_debug; /* DR6 bits of debug traps that are due before the next instruction */

    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, misc_enable, spec_ctrl;
    uint64_t mtrr_def_type, mtrr_fixed[11];
    struct {
        uint64_t base, mask;
    } mtrr_var[X86_N_MTRR_VAR];
    uint64_t mcg_status;
    uint64_t kvm_system_time,
        kvm_wall_clock; /* as the guest wrote them: addresses, the first with an enable bit (x86/msr.h) */

    struct x86_fxsave fx;                             /* x87 and MXCSR */
    uint8_t ymm[16][32] __attribute__((aligned(32))); /* XMM in the low halves */

    enum x86_activity activity;
    uint16_t
        taken; /* X86_TAKEN and a vector: an interrupt that was acknowledged, and is yet to go to its handler; or 0 */
    bool sti_shadow;   /* interrupts held off for one instruction after STI */
    bool movss_shadow; /* interrupts and debug traps held off after MOV SS, POP SS */
    bool nmi_blocked;  /* until IRET */
};

/* As after power-on (SDM Vol. 3A table 9-1), the bootstrap processor running, others waiting for SIPI. */
void x86_state_reset(struct x86_state *st, bool bsp);

/* As after INIT: what INIT leaves alone (x87, SSE, MTRRs, TSC, most MSRs) stays. */
void x86_state_init(struct x86_state *st, bool bsp);

/* Start-up IPI (SDM Vol. 3A 8.4.3): real mode at vector << 12, running. */
void x86_state_sipi(struct x86_state *st, uint8_t vector);

void x86_state_stream(struct x86_state *st, struct stream *s);

/* The registers as text for a person, several lines without a final newline; returns the length, as snprintf. */
int x86_state_print(const struct x86_state *st, char *buf, size_t len);

static inline unsigned x86_cpl(const struct x86_state *st)
{
    return (st->seg[X86_SS].attr & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
}

static inline bool x86_long_mode(const struct x86_state *st)
{
    return st->efer & X86_EFER_LMA;
}

/* 64-bit mode proper, not compatibility mode. */
static inline bool x86_code64(const struct x86_state *st)
{
    return x86_long_mode(st) && (st->seg[X86_CS].attr & X86_SEG_L);
}

#endif
