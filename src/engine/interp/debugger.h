/*
 * What a debugger outside the guest wants of a vCPU (struct engine_debug): its breakpoints are looked up by linear address, pages it
 * watches stay out of the TLB, and interp_attend() leaves run() between two instructions. Nothing is left in guest memory or in the
 * guest's debug registers; without a debugger, it costs a test where ATTN_STEP is derived and in the slow path of memory accesses.
 *
 * That is done in ATTN_STEP mode, in which interp_step() runs what lies between breakpoints at once. An engine that embeds a struct interp may
 * do without (interp_hooks.breaks): it runs no stretch of code across a breakpoint, calls interp_attend() at each, and leaves accesses that miss
 * the TLB to the interpreter.
 *
 * Threads: the vCPU's own; debugger_set() while it is not in run().
 */
#ifndef ENGINE_INTERP_DEBUGGER_H
#define ENGINE_INTERP_DEBUGGER_H

#include "engine/interp/interp.h"

/* See engine_type.debug. The caller flushes the TLB and derives ATTN_STEP anew. */
void debugger_set(struct interp *c, struct engine_debug *want);

/* It may want to stop somewhere: instructions run one at a time. */
static inline bool debugger_active(const struct interp *c)
{
    return UNLIKELY(c->debugger.want != NULL) && (c->debugger.want->step || c->debugger.want->n_breakpoints);
}

/* It wants ATTN_STEP mode. */
static inline bool debugger_slows(const struct interp *c)
{
    return UNLIKELY(c->debugger.want != NULL) && c->debugger.slows;
}

/* It wants one instruction only: interrupts wait. */
static inline bool debugger_steps(const struct interp *c)
{
    return UNLIKELY(c->debugger.want != NULL) && c->debugger.want->step;
}

/* The step is made, or a watched address was accessed. */
static inline bool debugger_done(const struct interp *c)
{
    return UNLIKELY(c->debugger.want != NULL) && (c->debugger.met || (c->debugger.want->step && c->debugger.moved));
}

/* There is a breakpoint at c->st.rip to stop at. */
bool debugger_breaks(struct interp *c);

/* There is one at an address in [lin, lin + len), whether an instruction begins there or not. */
bool debugger_breaks_in(const struct interp *c, uint64_t lin, uint64_t len);

/* How many instructions of the block at c->st.rip come before a breakpoint behind its first: at least one. */
uint64_t debugger_room(const struct interp *c, const struct code_block *block);

/* Something in [lin, lin + len) is watched. */
bool debugger_watches(const struct interp *c, uint64_t lin, uint64_t len);

/* The current instruction has read or written there. */
void debugger_access(struct interp *c, uint64_t lin, unsigned len, bool write);

/* Tells in struct engine_debug what was met, and begins anew. */
void debugger_report(struct interp *c);

#endif
