/*
 * Runs sequences on an engine: at privilege level 3 in 64-bit mode, the sandbox at the same linear addresses as in the native child, and
 * a small kernel above it. Each sequence runs several times from the same start, since an engine that translates does other things the
 * second time.
 */
#ifndef TESTS_ORACLE_GUEST_H
#define TESTS_ORACLE_GUEST_H

#include "box/box.h"
#include "seq.h"

/*
 * The first with nothing translated, the second with code and TLB as the first left them, the third with the TLB emptied. Where the
 * states of pages vary, one more before them has all writable, so that it is translated code that meets the faults.
 */
#define GUEST_PASSES 3

struct guest {
    struct box box;
    struct x86_state start; /* in the kernel */
    const struct seq_run *run;
    unsigned pass;
    bool warming; /* the pass is the one before the first */
    struct seq_result out[GUEST_PASSES];
};

int guest_open(struct guest *guest, const char *engine, struct err *err) MUST_CHECK;
void guest_close(struct guest *guest);

/* Fills guest->out; `lost` from the pass on which ended otherwise than by an exception. */
void guest_run(struct guest *guest, const struct seq_run *run);

#endif
