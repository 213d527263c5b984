/*
 * Threads that do requests by calls that wait: what io_uring cannot do, and all where the host has none. They start when there is more to do than
 * threads wait for, and stay until the file is closed.
 *
 * The queue and the list of what is done have one lock; the loop learns of the latter by an event.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "disk/file_impl.h"

#define MAX_THREADS 8

struct file_pool {
    struct file_host *file;
    struct loop_event event; /* something is done */

    pthread_mutex_t lock;       /* guards what follows */
    pthread_cond_t more, fewer; /* of what is to do */
    struct disk_request *todo, **todo_tail, *done, **done_tail;
    unsigned n_todo, n_under_way, n_idle, n_threads; /* under way: to do, being done, and not complete */
    bool closing;
    pthread_t threads[MAX_THREADS];
};

static void complete_done(void *opaque)
{
    struct file_pool *pool = opaque;

    pthread_mutex_lock(&pool->lock);
    struct disk_request *req = pool->done;
    pool->done = NULL;
    pool->done_tail = &pool->done;
    for (struct disk_request *r = req; r; r = r->next)
        pool->n_under_way--;
    pthread_mutex_unlock(&pool->lock);
    while (req) {
        struct disk_request *next = req->next;
        disk_complete(req, req->result);
        req = next;
    }
}

static struct disk_request *take_locked(struct file_pool *pool)
{
    pool->n_idle++;
    while (!pool->todo && !pool->closing)
        pthread_cond_wait(&pool->more, &pool->lock);
    pool->n_idle--;
    struct disk_request *req = pool->todo;
    if (!req)
        return NULL;
    pool->todo = req->next;
    pool->n_todo--;
    if (!pool->todo)
        pool->todo_tail = &pool->todo;
    return req;
}

static void *work(void *opaque)
{
    struct file_pool *pool = opaque;
    struct disk_request *req;

    pthread_mutex_lock(&pool->lock);
    while ((req = take_locked(pool))) {
        pthread_mutex_unlock(&pool->lock);
        req->result = req->op == DISK_MAP ? file_plain_map(pool->file, req)
                                          : file_plain_do(pool->file, req, (unsigned)req->result);
        req->next = NULL;
        pthread_mutex_lock(&pool->lock);
        *pool->done_tail = req;
        pool->done_tail = &req->next;
        loop_event_set(&pool->event);
        pthread_cond_signal(&pool->fewer);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* The thread inherits the mask. */
static int start_thread(struct file_pool *pool)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&pool->threads[pool->n_threads], NULL, work, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        pthread_setname_np(pool->threads[pool->n_threads++], "disk-work");
    return -r;
}

void file_pool_submit(struct file_pool *pool, struct disk_request *req, unsigned from)
{
    req->next = NULL;
    req->result = (int)from;
    pthread_mutex_lock(&pool->lock);
    pool->n_under_way++;
    if (pool->n_idle <= pool->n_todo && pool->n_threads < MAX_THREADS && start_thread(pool) < 0 && !pool->n_threads) {
        /* Not one thread: an error that may be gone when it is tried again. */
        req->result = -EAGAIN;
        *pool->done_tail = req;
        pool->done_tail = &req->next;
        loop_event_set(&pool->event);
    } else {
        *pool->todo_tail = req;
        pool->todo_tail = &req->next;
        pool->n_todo++;
        pthread_cond_signal(&pool->more);
    }
    pthread_mutex_unlock(&pool->lock);
}

bool file_pool_wait(struct file_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool any = pool->n_under_way;
    while (any && !pool->done)
        pthread_cond_wait(&pool->fewer, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    if (any)
        complete_done(pool);
    return any;
}

int file_pool_open(struct file_pool **out, struct file_host *file, struct err *err)
{
    struct file_pool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return err_set(err, -ENOMEM, "disk '%.200s': out of memory", file->path);
    pool->file = file;
    pool->todo_tail = &pool->todo;
    pool->done_tail = &pool->done;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
    pthread_cond_init(&pool->fewer, NULL);
    loop_event_init(&pool->event, file->base.loop, complete_done, pool);
    *out = pool;
    return 0;
}

void file_pool_close(struct file_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++)
        pthread_join(pool->threads[i], NULL);
    loop_event_fini(&pool->event);
    pthread_cond_destroy(&pool->more);
    pthread_cond_destroy(&pool->fewer);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
