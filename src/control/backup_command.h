/*
 * The control socket's `backup`: of one disk of a running machine (image/backup_live.h), one at a time. The answer comes when its moment has passed, in which the
 * guest's file systems are frozen where an agent answers; the copy goes on, and `backup status` tells how far it is, and how the last one ended.
 *
 * Threads: the loop's.
 */
#ifndef CONTROL_BACKUP_COMMAND_H
#define CONTROL_BACKUP_COMMAND_H

#include "control/control_command.h"

int backup_command(struct control_call *call, struct err *err) MUST_CHECK;
/* The last one, or the one under way; machine->backup_job is set. */
json_t *backup_command_status(const struct machine *machine);
bool backup_command_runs(const struct machine *machine);
/* Ends what is under way, without a point, and forgets it all. */
void backup_command_abandon(struct machine *machine);

#endif
