/*
 * What the system instructions' files (op_system.c, op_segment.c, op_flags.c, op_far.c, op_io.c) share.
 */
#ifndef ENGINE_INTERP_SYSTEM_H
#define ENGINE_INTERP_SYSTEM_H

#include "engine/interp/bind.h"
#include "engine/interp/seg.h"

/* An r/m operand of a system instruction: in->rm is the register, and in->vvvv 1 for memory. system_bind_rm() sets them and size. */
void system_bind_rm(const struct x86_insn *xi, struct insn *in);
uint16_t system_read_rm16(struct interp *c, const struct insn *in);
/* A 16-bit value: to memory 16 bits, to a register in->size bytes of it (SLDT, STR, SMSW, MOV from Sreg). */
void system_write_rm(struct interp *c, const struct insn *in, uint64_t v);

/* #GP(0) for SGDT, SIDT, SLDT, STR and SMSW of user code under CR4.UMIP. */
void system_check_umip(struct interp *c);

/*
 * Far RET and IRET: the code segment to return to (#GP, #NP), the stack segment with it (#GP, #SS; null where 64-bit code may have
 * that), and the commitment of both, which cannot fail. RSP keeps the bits that the new stack does not use.
 */
void system_return_check_cs(struct interp *c, uint16_t sel, struct seg_desc *cs);
struct x86_seg system_return_check_ss(struct interp *c, uint16_t sel, unsigned cpl, const struct seg_desc *cs);
void system_return_commit(struct interp *c, const struct seg_desc *cs, uint16_t sel, uint64_t rip,
                          const struct x86_seg *ss, uint64_t rsp);

/* What SYSCALL and its kin load into CS and SS: flat segments, without a look at their descriptors (SDM Vol. 3A 5.8.7, 5.8.8). */
static inline void system_flat_segments(struct x86_state *st, uint16_t cs, uint16_t ss, unsigned cpl, bool long_code)
{
    uint16_t common =
        (uint16_t)(X86_SEG_P | X86_SEG_S | X86_SEG_G | X86_SEG_ACCESSED | X86_SEG_WRITE | cpl << X86_SEG_DPL_SHIFT);

    st->seg[X86_CS] = (struct x86_seg){.sel = cs, .limit = UINT32_MAX};
    st->seg[X86_CS].attr = common | X86_SEG_CODE | (long_code ? X86_SEG_L : X86_SEG_DB);
    st->seg[X86_SS] = (struct x86_seg){.sel = ss, .limit = UINT32_MAX, .attr = common | X86_SEG_DB};
}

/* SYSRET's: R11's bits that reach RFLAGS. */
#define SYSTEM_SYSRET_FLAGS UINT64_C(0x3c7fd7)

/* What IRET takes from the flags' image whatever the level; with an operand of 32 or 64 bits more. */
#define SYSTEM_IRET_ALWAYS (X86_FLAGS_STATUS | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT)
#define SYSTEM_IRET_WIDE   (X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

static inline unsigned system_iopl(const struct x86_state *st)
{
    return (st->rflags & X86_FLAG_IOPL) >> 12;
}

#endif
