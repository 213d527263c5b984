/*
 * Threads for what takes a CPU for a while: compressing, checksums. Jobs are given and come back on the loop's thread, in any order; threads start when they
 * are first needed, and stay until the end.
 */
#ifndef BASE_WORKERS_H
#define BASE_WORKERS_H

#include "base/loop.h"

struct workers;

struct workers_job {
    void (*run)(struct workers_job *job);  /* on a thread */
    void (*done)(struct workers_job *job); /* on the loop's thread; the job is the caller's again */
    struct workers_job *next;              /* the workers', until done */
};

/* name: up to 15 characters. max_threads: 0: as many as the process has CPUs, 8 at most. */
int workers_open(struct workers **workers, struct loop *loop, const char *name, unsigned max_threads) MUST_CHECK;
/* With no job under way. NULL is fine. */
void workers_close(struct workers *workers);

/* done() never comes from within it. -EAGAIN where not one thread can be had. */
int workers_submit(struct workers *workers, struct workers_job *job) MUST_CHECK;

/* For whoever does not return to the loop: waits until jobs are done, and calls their done(). False: nothing is under way. */
bool workers_wait(struct workers *workers);

#endif
