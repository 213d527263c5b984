/*
 * Task management (SDM Vol. 3A chapter 7): task switches between 16- and 32-bit TSSs, and the stacks a TSS holds for inner levels.
 * What raises does not return; a switch commits the new task before it checks the new task's segments, as the processor does.
 *
 * Threads: the vCPU's own.
 */
#ifndef ENGINE_INTERP_TASK_H
#define ENGINE_INTERP_TASK_H

#include "engine/interp/seg.h"

/* Descriptor types of TSSs (SDM Vol. 3A table 3-2); 64-bit TSSs have the 32-bit one's. */
enum { TASK_TSS16 = 1, TASK_TSS16_BUSY = 3, TASK_TSS32 = 9, TASK_TSS32_BUSY = 11 };

/* A stack to push a frame to before anything is committed. */
struct task_stack {
    bool switched; /* not the current one */
    unsigned cpl;  /* whose rights the pushes have */
    struct x86_seg ss;
    uint64_t rsp;
    uint64_t mask; /* bits of RSP in use */
};

/* The stack of inner level `cpl` from the current TSS, outside IA-32e mode, checked (#TS, #SS). */
void task_stack_inner(struct interp *c, unsigned cpl, struct task_stack *ns);

/* Stack number n of a 64-bit TSS, by quadwords from RSP0 (SDM Vol. 3A figure 7-11): levels are 0 to 2, IST1 to IST7 are 4 to 10. */
uint64_t task_rsp(struct interp *c, unsigned n);

/* Pushes up to TASK_FRAME_MAX values of `size` bytes, all or none; ns->rsp moves. #SS names the new stack's selector. */
#define TASK_FRAME_MAX 36
void task_stack_push(struct interp *c, struct task_stack *ns, unsigned size, const uint64_t *val, unsigned n);

enum task_cause { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };

/*
 * Switches to the task of descriptor d, whose type and privilege the caller has checked. rip: where the old task goes on; flags: its
 * EFLAGS to save.
 */
void task_switch(struct interp *c, uint16_t sel, struct seg_desc *d, enum task_cause cause, uint64_t rip,
                 uint64_t flags);

/* Through a task gate in the IDT; the error code, if any, is pushed in the new task. */
void task_gate_event(struct interp *c, uint16_t sel, uint64_t rip, bool set_rf, bool has_error, uint32_t error);

/* IRET with NT set: back to the task the current TSS links to. */
void task_return(struct interp *c, uint64_t next_rip);

#endif
