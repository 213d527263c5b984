/*
 * Two engines in lockstep: an engine that runs its guest on two others and stops at the first difference between them.
 *
 * The leader is joined to the machine and runs a few blocks. All that it learns from outside on the way is recorded: what it reads from
 * devices, which vectors it acknowledges, what its local APIC answers, what devices write to RAM. The follower, with a copy of RAM of its
 * own, then runs as many instructions on what was recorded, must ask the same of the machine, and must end in the same state. Time
 * stands still in between, and interrupts come only at the beginning, so both sides see them before the same instruction.
 *
 * What both sides do wrong in the same way is not seen, nor what only happens between blocks that are not counted (the translator's direct jumps).
 * One vCPU. Of devices that write to RAM from threads of their own, the writes reach the follower at the next step.
 */
#ifndef ENGINE_LOCKSTEP_LOCKSTEP_H
#define ENGINE_LOCKSTEP_LOCKSTEP_H

#include "engine/engine.h"

#define LOCKSTEP_REPORT 16384 /* bytes of text at most */

/* What to compare, and what came of it; struct engine_conf.lockstep, written by the vCPU's thread. */
struct lockstep {
    const struct engine_type *leader, *follower;
    unsigned every;        /* blocks of the leader's between two comparisons of registers, from 1 up */
    uint64_t memory_every; /* instructions between two comparisons of all RAM; 0: only at the end */
    int64_t from_ns;       /* VM time until which the leader runs alone, at its full speed */

    uint64_t instructions, blocks, events, memory_compares; /* in step so far */
    char report[LOCKSTEP_REPORT];                           /* the first difference as text, or "" */
};

extern const struct engine_type lockstep_engine;

#endif
