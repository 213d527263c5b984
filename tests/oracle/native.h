/*
 * Runs sequences on the host's own CPU, in a child process that has the sandbox mapped: what a sequence destroys is the child, which is
 * started anew.
 *
 * Threads: one. The jobs lie in memory shared with the child.
 */
#ifndef TESTS_ORACLE_NATIVE_H
#define TESTS_ORACLE_NATIVE_H

#include <sys/types.h>

#include "seq.h"

#define NATIVE_BATCH 64

struct native {
    struct seq_run *runs; /* NATIVE_BATCH of them, shared */
    pid_t child;
    int to_child, from_child;
};

/* 0 or -errno; -ENOSYS where programs may not set their FS and GS bases (Linux before 5.9). */
int native_open(struct native *native);
void native_close(struct native *native);

/* Begins to run the first n; native_wait() ends when all have their `out`, or `lost` where the child died. */
int native_start(struct native *native, unsigned n);
int native_wait(struct native *native, unsigned n);

#endif
