/*
 * Whether a state is one that a CPU can be in, as far as engines rely on that. What a guest does to its registers is checked where it does so; this is for
 * states that come from outside, whole.
 */
#ifndef X86_STATE_CHECK_H
#define X86_STATE_CHECK_H

#include "x86/cpuid.h"
#include "x86/state.h"

/* NULL, or what is wrong, for people. */
const char *state_check(const struct x86_state *st, const struct x86_cpuid *cpuid);

#endif
