/*
 * The control socket of a running machine (`vireo run --control unix:PATH`): JSON, one object a line.
 *
 *     {"command": "attach", "arguments": ["disk", "data.qcow2"], "id": 7}
 *     {"id": 7, "ok": true, "result": {"id": "disk1", "slot": 4}}
 *     {"command": "detach", "arguments": ["disk9"]}
 *     {"ok": false, "error": "'disk9' is not attached; attached: disk0, rng0"}
 *
 * "arguments", strings, and "id", which comes back, may be left out. A line that is none of this gets an error and the connection goes on; one beyond
 * CONTROL_LINE_MAX ends it. A client's commands are answered in order. Whoever reaches the socket controls the VM: its file is the owner's alone.
 *
 * Threads: the loop's, or while it does not run.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "machine/machine.h"

#define CONTROL_LINE_MAX    65536
#define CONTROL_MAX_CLIENTS 16

struct control;

/* Whether `spec` is "unix:PATH": 0, or -EINVAL and a message. Opens nothing. */
int control_check(const char *spec, struct err *err) MUST_CHECK;

/* Listens at `spec`; takes the machine's hooks. -errno and a message. */
int control_open(struct control **control, struct machine *machine, const char *spec, struct err *err) MUST_CHECK;

/* Before its machine is closed. */
void control_close(struct control *control);

#endif
