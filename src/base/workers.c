#include "base/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#define MAX_THREADS 8

struct workers {
    struct loop_event event; /* something is done */
    const char *name;
    unsigned max_threads;

    pthread_mutex_t lock;       /* guards what follows */
    pthread_cond_t more, fewer; /* of what is to do */
    struct workers_job *todo, **todo_tail, *done;
    unsigned n_todo, n_under_way, n_idle, n_threads; /* under way: to do, being done, and done() not yet called */
    bool closing;
    pthread_t threads[MAX_THREADS];
};

static void *work(void *opaque)
{
    struct workers *w = opaque;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        w->n_idle++;
        while (!w->todo && !w->closing)
            pthread_cond_wait(&w->more, &w->lock);
        w->n_idle--;
        struct workers_job *job = w->todo;
        if (!job)
            break;
        w->todo = job->next;
        w->n_todo--;
        if (!w->todo)
            w->todo_tail = &w->todo;
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
        job->next = w->done;
        w->done = job;
        loop_event_set(&w->event);
        pthread_cond_signal(&w->fewer);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void complete(void *opaque)
{
    struct workers *w = opaque;

    pthread_mutex_lock(&w->lock);
    struct workers_job *job = w->done;
    w->done = NULL;
    for (struct workers_job *j = job; j; j = j->next)
        w->n_under_way--;
    pthread_mutex_unlock(&w->lock);
    while (job) {
        struct workers_job *next = job->next;
        job->done(job);
        job = next;
    }
}

/* The thread inherits the mask. */
static int start_thread(struct workers *w)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&w->threads[w->n_threads], NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        pthread_setname_np(w->threads[w->n_threads++], w->name);
    return -r;
}

int workers_submit(struct workers *w, struct workers_job *job)
{
    int r = 0;

    job->next = NULL;
    pthread_mutex_lock(&w->lock);
    if (w->n_idle <= w->n_todo && w->n_threads < w->max_threads && start_thread(w) < 0 && !w->n_threads) {
        r = -EAGAIN;
    } else {
        *w->todo_tail = job;
        w->todo_tail = &job->next;
        w->n_todo++;
        w->n_under_way++;
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

bool workers_wait(struct workers *w)
{
    pthread_mutex_lock(&w->lock);
    bool any = w->n_under_way;
    while (any && !w->done)
        pthread_cond_wait(&w->fewer, &w->lock);
    pthread_mutex_unlock(&w->lock);
    if (any)
        complete(w);
    return any;
}

static unsigned n_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);
}

int workers_open(struct workers **out, struct loop *loop, const char *name, unsigned max_threads)
{
    struct workers *w = calloc(1, sizeof(*w));

    *out = NULL;
    if (!w)
        return -ENOMEM;
    w->name = name;
    w->max_threads = max_threads ? max_threads : n_cpus();
    w->max_threads = w->max_threads < MAX_THREADS ? w->max_threads : MAX_THREADS;
    w->todo_tail = &w->todo;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    pthread_cond_init(&w->fewer, NULL);
    loop_event_init(&w->event, loop, complete, w);
    *out = w;
    return 0;
}

void workers_close(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);
    loop_event_fini(&w->event);
    pthread_cond_destroy(&w->more);
    pthread_cond_destroy(&w->fewer);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
