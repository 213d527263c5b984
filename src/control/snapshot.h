/*
 * The control socket's `snapshot`: snapshots inside the images of a running machine's disks (device/virtio_blk.h), of one disk, or of all that can have
 * them, which then are of one moment: all get the snapshot, or none does.
 *
 * Where an agent answers in the guest (console/agent.h), its file systems are frozen meanwhile, and the answer comes when they are thawed; otherwise a
 * snapshot is what a power cut would have left, "crash-consistent". A revert resets the machine: its memory belongs to what the disks held before.
 *
 * Threads: the loop's.
 */
#ifndef CONTROL_SNAPSHOT_H
#define CONTROL_SNAPSHOT_H

#include "control/control_command.h"

/* `snapshot create|revert|delete|list [NAME] [ID]`. */
int snapshot_command(struct control_call *call, struct err *err) MUST_CHECK;

/* Nobody waits any more: what is under way ends without an answer. */
void snapshot_abandon(struct machine *machine);

#endif
