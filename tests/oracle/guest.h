/*
 * Runs sequences on an engine: at privilege level 3 in 64-bit mode, the sandbox at the same linear addresses as in the native child, and
 * a kernel of HLT instructions above it, one for each exception.
 */
#ifndef TESTS_ORACLE_GUEST_H
#define TESTS_ORACLE_GUEST_H

#include "box/box.h"
#include "seq.h"

struct guest {
    struct box box;
    struct x86_state base; /* everything but what a sequence starts from */
};

int guest_open(struct guest *guest, const char *engine, struct err *err) MUST_CHECK;
void guest_close(struct guest *guest);

/* Fills run->out and mem_out; `lost` when the engine ended otherwise than by an exception. */
void guest_run(struct guest *guest, struct seq_run *run);

#endif
