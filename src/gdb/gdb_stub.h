/*
 * The way of a debugger into a VM: the GDB Remote Serial Protocol on a listening socket. gdb connects with `target remote HOST:PORT`, or with
 * the path of a Unix socket. One debugger at a time; the next waits until the first has gone.
 *
 * Threads: all on the loop's thread, or while it does not run.
 */
#ifndef GDB_GDB_STUB_H
#define GDB_GDB_STUB_H

#include "vm/vm.h"

struct gdb_stub;

#define GDB_STUB_ARGUMENT "tcp:HOST:PORT|unix:PATH[,nowait]"

/* Whether `spec` is well-formed: 0, or -EINVAL and a message. Opens nothing. */
int gdb_stub_check(const char *spec, struct err *err) MUST_CHECK;

/*
 * Listens at `spec`, GDB_STUB_ARGUMENT, for debuggers of `vm`, which does not run yet, and, without ",nowait", stands at its first
 * instruction until one lets it go. -errno and a message.
 */
int gdb_stub_open(struct gdb_stub **stub, struct vm *vm, const char *spec, struct err *err) MUST_CHECK;

/* Where it listens, as one gives it to gdb. Valid until gdb_stub_close(). */
const char *gdb_stub_address(const struct gdb_stub *stub);

/* The VM has ended, and a debugger that waits for it hears how: vireo's exit status, or the signal that ended it, or 0. */
void gdb_stub_end(struct gdb_stub *stub, int status, int signal);

/* Before its VM is closed. */
void gdb_stub_close(struct gdb_stub *stub);

#endif
