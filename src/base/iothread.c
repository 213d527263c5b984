#include "base/iothread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>

static void *serve(void *opaque)
{
    struct iothread *io = opaque;

    loop_run(io->loop);
    return NULL;
}

/* The thread inherits the mask. */
static int start(struct iothread *io)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&io->thread, NULL, serve, io);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

int iothread_open(struct iothread **out, const char *name, struct err *err)
{
    struct iothread *io = calloc(1, sizeof(*io));
    int r;

    *out = NULL;
    if (!io)
        return err_set(err, -ENOMEM, "%s: out of memory", name);
    r = loop_open(&io->loop, err);
    if (r < 0)
        goto free_io;
    r = start(io);
    if (r < 0) {
        err_set(err, r, "%s: thread: %s", name, strerror(-r));
        goto close_loop;
    }
    pthread_setname_np(io->thread, name);
    *out = io;
    return 0;

close_loop:
    loop_close(io->loop);
free_io:
    free(io);
    return r;
}

void iothread_close(struct iothread *io)
{
    if (!io)
        return;
    loop_stop(io->loop);
    pthread_join(io->thread, NULL);
    loop_close(io->loop);
    free(io);
}

struct call {
    void (*fn)(void *opaque);
    void *opaque;
    sem_t returned;
};

static void run_call(void *opaque)
{
    struct call *call = opaque;

    call->fn(call->opaque);
    sem_post(&call->returned);
}

void iothread_call(struct iothread *io, void (*fn)(void *opaque), void *opaque)
{
    struct call call = {.fn = fn, .opaque = opaque};

    if (pthread_equal(pthread_self(), io->thread)) {
        fn(opaque);
        return;
    }
    sem_init(&call.returned, 0, 0);
    while (loop_post(io->loop, run_call, &call) < 0)
        sched_yield(); /* out of memory: what is waited for has to happen */
    while (sem_wait(&call.returned) < 0)
        ;
    sem_destroy(&call.returned);
}
