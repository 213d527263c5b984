/*
 * SIMD and x87 on the host's own unit: how its files hang together.
 *
 *   vector.c        what a SIMD instruction asks of the mode, memory operands, unmasked SIMD exceptions
 *   vector_stub.c   generated stubs: guest registers in, the same instruction, registers out
 *   vector_mask.c   masked moves, gathers, MXCSR: what touches memory by element
 *   vector_x87.c    x87: exceptions, pointers, environment
 *   vector_xsave.c  FXSAVE, XSAVE and their kin
 *   vector.def      the mnemonics that run as they stand
 *
 * A stub is keyed by the instruction's normalised encoding: 64-bit mode, memory operand at [RSI], general register RAX. It lives in
 * the vCPU's arena; when that is full all stubs go, and a generation number tells the instructions that held one.
 *
 * Of struct insn, an instruction with a stub uses: imm, its key; extra, the stub; rm and vvvv, the stub's generation; reg, VECTOR_ bits;
 * size, bytes of the memory operand. `extra`, `rm` and `vvvv` are set when it first runs.
 *
 * Threads: a unit belongs to its vCPU's thread.
 */
#ifndef ENGINE_INTERP_VECTOR_H
#define ENGINE_INTERP_VECTOR_H

#include <signal.h>

#include "engine/interp/bind.h"
#include "engine/interp/interp.h"

struct vector_unit;

/* vCPU open and close; struct interp's `vector` holds the unit. Also installs the handler of SIGFPE, which is the process's. */
int vector_open(struct vector_unit **unit, struct err *err) MUST_CHECK;
void vector_close(struct vector_unit *unit);

enum {
    VECTOR_SSE = 1 << 0,     /* uses XMM registers: needs CR4.OSFXSR */
    VECTOR_AVX = 1 << 1,     /* VEX: needs XCR0 */
    VECTOR_X87 = 1 << 2,     /* an x87 instruction proper */
    VECTOR_MMX = 1 << 3,     /* MMX registers, which are x87's */
    VECTOR_MXCSR = 1 << 4,   /* reads MXCSR, may set its flags and raise #XM */
    VECTOR_ALIGNED = 1 << 5, /* #GP(0) unless the memory operand is aligned to its size */
    VECTOR_STORE = 1 << 6,   /* the memory operand is written, else read */
    VECTOR_WIDE = 1 << 7,    /* 256 bits */
    VECTOR_FOP_SHIFT = 8,    /* x87: the ModRM byte, for FOP */
};

#define VECTOR_MXCSR_DEFAULT 0x1f80u
#define VECTOR_MXCSR_MASKS   0x1f80u
#define VECTOR_MXCSR_VALID   0xffffu

/* Reads and writes guest state through c (RDI) and mem (RSI); 0, or 1 when an unmasked SIMD exception stopped it. */
typedef int (*vector_stub_fn)(struct interp *c, void *mem);

/* ---- vector_stub.c ---- */

/* The normalised encoding of *xi, or 0 if it has none. */
uint64_t vector_stub_key(const struct x86_insn *xi);

/* The stub of in->imm, built if it has to be. */
vector_stub_fn vector_stub(struct interp *c, const struct insn *in);

/* VMOVD, VPINSRD, VCVTSI2SD ...: outside 64-bit mode VEX.W means nothing to them (SDM Vol. 2, each). */
bool vector_vex_w_is_gpr_size(const ZydisDecodedInstruction *insn);

/*
 * Another generator's word on a SIGFPE that no stub caused, called in the handler: true when it has led the thread elsewhere. One for the
 * process, set before any vCPU runs.
 */
void vector_on_trap(bool (*hook)(int sig, siginfo_t *info, void *context));

/* Runs the stub with SIMD exceptions unmasked; true if one came up. MXCSR then has its flags, and nothing else changed. */
bool vector_stub_trapped(struct interp *c, const struct insn *in, void *mem);

/* ---- vector.c ---- */

/* Raise what the mode forbids (SDM Vol. 2A 2.4, Vol. 3A tables 2-2 and 13-1). */
void vector_check_sse(struct interp *c);
void vector_check_avx(struct interp *c);
void vector_check_mmx(struct interp *c, unsigned flags); /* VECTOR_SSE: uses XMM registers too */

/* Runs `in` on operand mem, raising #XM when it comes to that. */
void vector_exec(struct interp *c, const struct insn *in, void *mem);

/* Runs `in` on its memory operand at linear address lin. */
void vector_exec_mem(struct interp *c, const struct insn *in, uint64_t lin);

/* ---- vector_x87.c ---- */

/* To be called before the x87 part of c->st.fx is looked at or, with `change`, may be changed. */
static inline void vector_x87_fetch(struct interp *c, bool change)
{
    if (UNLIKELY(c->x87_away))
        c->hooks->x87_wanted(c, change);
}

/* Raises #MF if an unmasked exception is pending. */
void vector_x87_check_pending(struct interp *c);

/* Recomputes FSW.ES and B from flags and masks. */
void vector_x87_summary(struct x86_fxsave *fx);

/* After a store: false when an unmasked exception kept it from its operand. */
bool vector_x87_stored(const struct x86_fxsave *fx);

/* FCW as the register holds it: reserved bits are fixed. */
static inline uint16_t vector_x87_fcw(uint16_t v)
{
    return (v & 0x1f3f) | 0x40;
}

/* What any MMX instruction but EMMS does to TOP and tags (SDM Vol. 1 9.5). */
void vector_x87_enter_mmx(struct x86_fxsave *fx);

/* As FNINIT: the registers keep their contents, but are empty. */
void vector_x87_init(struct x86_fxsave *fx);

#endif
