/* The packets of the remote protocol (GDB manual, appendices E.2 to E.7), each answered. Threads: the loop's. */
#ifndef GDB_GDB_COMMAND_H
#define GDB_GDB_COMMAND_H

#include "gdb/gdb_session.h"

/* Carries out the packet in s->in while the VM stands, and sends the reply, if there is one now. */
void gdb_command_run(struct gdb_session *s);

/* Ends the VM, and the session. */
void gdb_command_kill(struct gdb_session *s);

/* ---- replies: text; OK or an error number for 0 or -errno; bytes in hexadecimal ---- */

void gdb_command_reply(struct gdb_session *s, const char *text);
void gdb_command_reply_status(struct gdb_session *s, int r);
void gdb_command_reply_hex(struct gdb_session *s, const void *data, size_t len);

/* ---- what packets are made of: each is read from *text, which then stands behind it; false where it is not there ---- */

bool gdb_command_take(const char **text, const char *what) MUST_CHECK;

/* A thread: "-1" for all, "0" for any, or a number. *vcpu is VM_MAX_VCPUS for all of them. */
bool gdb_command_take_thread(const struct gdb_session *s, const char **text, unsigned *vcpu) MUST_CHECK;

/* "ADDR,LENGTH" */
bool gdb_command_take_range(const char **text, uint64_t *addr, uint64_t *len) MUST_CHECK;

#endif
