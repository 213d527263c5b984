/*
 * A VM under a debugger: what the debugger has set, who stands, and why. Bytes from the debugger go in, bytes for it come out; gdb_stub.c
 * has the socket, gdb_command.c answers the packets.
 *
 * All-stop: when one vCPU stops, all do, and the VM's clock. While they stand, the session holds one vm_pause(). vCPU n is thread n + 1.
 * Breakpoints are the engine's (struct engine_debug), software and hardware ones the same: nothing is written to guest memory.
 *
 * Threads: the loop's.
 */
#ifndef GDB_GDB_SESSION_H
#define GDB_GDB_SESSION_H

#include "gdb/gdb_packet.h"
#include "gdb/gdb_regs.h"
#include "vm/vm.h"

#define GDB_SESSION_BREAKPOINTS 1024

/* Breakpoint types by their number in Z packets. */
enum gdb_type {
    GDB_TYPE_SOFTWARE,
    GDB_TYPE_HARDWARE,
    GDB_TYPE_WRITE,
    GDB_TYPE_READ,
    GDB_TYPE_ACCESS,
    GDB_TYPE_N,
    GDB_TYPE_NONE = GDB_TYPE_N,
};

/* Signals by gdb's numbers. */
enum { GDB_SIGINT = 2, GDB_SIGTRAP = 5, GDB_SIGSEGV = 11 };

/* Why a vCPU stands. */
struct gdb_stop {
    unsigned vcpu;
    int signal;
    enum gdb_type type; /* of the breakpoint met */
    uint64_t addr;      /* its address */
};

/* What a vCPU is to do when the VM goes on. */
enum gdb_action { GDB_STAND, GDB_CONTINUE, GDB_STEP };

struct gdb_session {
    struct vm *vm;
    void (*send)(void *opaque, const void *data, size_t len);
    void *opaque;

    bool attached; /* somebody is connected */
    bool paused;   /* the session holds a vm_pause() */
    bool over;     /* the debugger has detached, or killed the VM: to be disconnected */
    bool no_ack;
    bool tells_breakpoints; /* the debugger knows swbreak and hwbreak in a stop reply */
    unsigned selected;      /* vCPU that registers and memory are of (Hg) */
    unsigned stepped;       /* vCPU that c and s are for (Hc), or VM_MAX_VCPUS for all */
    struct gdb_stop stop;   /* told last */

    /* Of vCPUs that met a watchpoint while another's stop was told; type NONE: nothing. */
    struct gdb_stop pending[VM_MAX_VCPUS];

    struct engine_breakpoint breakpoints[GDB_SESSION_BREAKPOINTS];
    uint8_t types[GDB_SESSION_BREAKPOINTS]; /* enum gdb_type */
    unsigned n_breakpoints;

    struct gdb_packet_reader in;
    struct gdb_packet out; /* the last one sent, to be sent again on demand */
};

/* send: takes all of it. With `hold` the VM, which does not run yet, stands at its first instruction until a debugger lets it go. */
void gdb_session_init(struct gdb_session *s, struct vm *vm, bool hold,
                      void (*send)(void *opaque, const void *data, size_t len), void *opaque);

/* A debugger has connected: the VM stops. */
void gdb_session_attach(struct gdb_session *s);

/* Bytes that came from it. */
void gdb_session_input(struct gdb_session *s, const uint8_t *data, size_t len);

/* It has gone, in whatever way: its breakpoints too, and the VM goes on. */
void gdb_session_detach(struct gdb_session *s);

/* vm_debugger.stopped. */
void gdb_session_stopped(void *session);

/* The VM has ended: vireo's exit status, or the signal that ended it. */
void gdb_session_end(struct gdb_session *s, int status, int signal);

/* ---- for gdb_command.c; while the session has the VM paused ---- */

/* Sets or clears a breakpoint. 0; -ENOSPC. Clearing one that is not there is no error. */
int gdb_session_set_breakpoint(struct gdb_session *s, enum gdb_type type, uint64_t addr, uint64_t len) MUST_CHECK;
void gdb_session_clear_breakpoint(struct gdb_session *s, enum gdb_type type, uint64_t addr);

/* Lets the VM go on, each vCPU by its action; or tells at once of a stop that is still to be told. */
void gdb_session_resume(struct gdb_session *s, const enum gdb_action action[VM_MAX_VCPUS]);

/* Sends the reply that tells s->stop. */
void gdb_session_tell_stop(struct gdb_session *s);

void gdb_session_get_regs(struct gdb_session *s, unsigned vcpu, struct gdb_regs *regs);
void gdb_session_set_regs(struct gdb_session *s, unsigned vcpu, const struct gdb_regs *regs);

/* Ends s->out, which holds a reply, and sends it. */
void gdb_session_send(struct gdb_session *s);

#endif
