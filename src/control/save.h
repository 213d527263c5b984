/*
 * A running machine's state into a file (machine/machine_state.h), whole or not at all, and the machine's end: a guest that went on would change its disks
 * under the state that was saved. Where it fails the guest goes on as if nothing had been.
 *
 * Threads: the loop's.
 */
#ifndef CONTROL_SAVE_H
#define CONTROL_SAVE_H

#include "control/control_command.h"

/* Whether a state could be put there; -errno and one line. What there is stays as it is. */
int save_check(const char *path, struct err *err) MUST_CHECK;

/*
 * Pauses the machine, makes its disks durable, writes the file, which takes the place of one that is there, and ends the machine (VM_END_SAVED). -EBUSY while
 * something is under way that would be lost; -ECANCELED when a signal that ends vireo came meanwhile.
 */
int save_machine(struct machine *m, const char *path, struct err *err) MUST_CHECK;

/* `save FILE`. */
int save_command(struct control_call *call, struct err *err) MUST_CHECK;

#endif
