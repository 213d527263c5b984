/*
 * An event loop on a thread of its own: where a device works while the vCPUs go on. What belongs to the device is touched on that thread
 * alone, so that it needs no locks; others post to its loop or call iothread_call().
 */
#ifndef BASE_IOTHREAD_H
#define BASE_IOTHREAD_H

#include <pthread.h>

#include "base/loop.h"

struct iothread {
    struct loop *loop;
    pthread_t thread;
};

/* name: up to 15 characters, as `top -H` shows it. Every signal is blocked on the thread. */
int iothread_open(struct iothread **io, const char *name, struct err *err) MUST_CHECK;

/* Ends the thread when the callback it is in returns; posts that it has not come to are dropped. Not on the thread itself. */
void iothread_close(struct iothread *io);

/* Runs fn(opaque) on the thread and waits for its return; on the thread itself just runs it. The caller holds no lock that callbacks take. */
void iothread_call(struct iothread *io, void (*fn)(void *opaque), void *opaque);

#endif
