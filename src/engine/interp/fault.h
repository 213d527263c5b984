/*
 * Exceptions and interrupts (SDM Vol. 3A chapter 6, Vol. 3B chapter 17): delivery through IVT and IDT, double and triple
 * faults, single step and breakpoints. Raising is declared in interp.h.
 *
 * How the run loop uses it: interp_raise*() sets c->st.rip to the current instruction's (c->cur; where that is NULL, RIP stands
 * already, as when fetching) and longjmps to c->unwind; there the loop calls fault_deliver(), and goes on at c->st.rip. All here that
 * returns bool returns false for a triple fault: the processor shuts down.
 *
 * Threads: the vCPU's own.
 */
#ifndef ENGINE_INTERP_FAULT_H
#define ENGINE_INTERP_FAULT_H

#include "engine/interp/interp.h"

#define DR6_BS (1u << 14) /* the trap of a single step (SDM Vol. 3B 18.2.3) */

/* Delivers what interp_raise*() left, with whatever faults that leads to. */
bool fault_deliver(struct interp *c) MUST_CHECK;

/* An external interrupt or NMI between instructions: c->st.rip is that of the next one. */
bool fault_interrupt(struct interp *c, uint8_t vector) MUST_CHECK;
bool fault_nmi(struct interp *c) MUST_CHECK;

/* Where an event comes from: decides the error codes' EXT bit, the DPL check and the pushed RF. */
enum fault_source {
    FAULT_EXTERNAL,  /* interrupt or NMI */
    FAULT_EXCEPTION, /* of the processor */
    FAULT_SOFT,      /* INT n, INT3, INTO */
    FAULT_INT1,      /* INT1: as hardware, but a trap */
};

/* INT n, INT3, INTO and INT1 from their handlers: enters the gate; faults of it are raised, with RIP at the instruction. */
void fault_soft(struct interp *c, uint8_t vector, enum fault_source source, uint64_t next_rip);

/*
 * In ATTN_STEP mode the loop calls fault_step_begin() before it fetches an instruction at c->st.rip, and fault_step() when that is
 * complete, c->st.rip being the next one's. They raise #DB (code breakpoints; single step, data and I/O breakpoints), end the
 * shadows of STI and MOV SS, clear RF, and keep ATTN_STEP up to date.
 */
void fault_step_begin(struct interp *c);
void fault_step(struct interp *c);

/*
 * From the handler of a repeated string instruction that has iterations left: RF is set between them, so that a breakpoint at the
 * instruction is not met again (SDM Vol. 3B 17.3.1.1).
 */
void fault_step_repeats(struct interp *c);

/* TF, RF, an enabled breakpoint or a shadow want instructions one at a time. */
bool fault_steps(const struct interp *c);

/* Sets or clears ATTN_STEP: fault_steps(), or a debugger. */
void fault_update_step(struct interp *c);

/* The DR7 R/W types an access can meet, as a set; DEBUG_IO counts with CR4.DE only. */
enum { DEBUG_EXEC = 1 << 0, DEBUG_WRITE = 1 << 1 | 1 << 3, DEBUG_IO = 1 << 2, DEBUG_READ = 1 << 3 };

/* DR6's B bits of the enabled breakpoints of these types that [addr, addr + len) touches. */
uint32_t fault_breakpoints(const struct interp *c, uint64_t addr, unsigned len, unsigned types);

#endif
