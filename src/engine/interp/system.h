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

static inline unsigned system_iopl(const struct x86_state *st)
{
    return (st->rflags & X86_FLAG_IOPL) >> 12;
}

#endif
