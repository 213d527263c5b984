#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NEVER        INT64_MAX
#define EVENT_ROUNDS 4

struct post {
    struct post *next;
    void (*fn)(void *opaque);
    void *opaque;
};

struct loop {
    int epoll_fd;
    int wake_fd;  /* eventfd: a post, or a stop */
    int timer_fd; /* the first timer: whoever puts it there sets it, and the loop's thread sleeps on */
    _Atomic bool stopping;
    _Atomic bool asleep;                   /* the loop's thread waits, or is about to: who sets an event wakes it */
    struct loop_event *_Atomic set_events; /* the latest first */
    struct loop_event *events;             /* taken from there, in order; the loop's thread's */

    pthread_mutex_t lock;     /* guards what follows */
    struct loop_timer **heap; /* binary min-heap by deadline */
    size_t n_timers, capacity;
    int64_t armed; /* what timer_fd is set for, or NEVER */
    bool awake;    /* the loop's thread will look at the timers before it sleeps */
    struct post *posts, **posts_tail;
};

int64_t loop_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

int loop_open(struct loop **out, struct err *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    int r;

    if (!loop)
        return err_set(err, -ENOMEM, "event loop: out of memory");
    loop->posts_tail = &loop->posts;
    loop->armed = NEVER;
    loop->awake = true;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        r = err_set(err, -errno, "event loop: epoll_create1: %s", strerror(errno));
        goto free_loop;
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        r = err_set(err, -errno, "event loop: eventfd: %s", strerror(errno));
        goto close_epoll;
    }
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->timer_fd < 0) {
        r = err_set(err, -errno, "event loop: timerfd_create: %s", strerror(errno));
        goto close_wake;
    }
    /* Both by their edges: neither need be read. */
    struct epoll_event wakes = {.events = EPOLLIN | EPOLLET, .data.ptr = &loop->wake_fd};
    struct epoll_event expires = {.events = EPOLLIN | EPOLLET, .data.ptr = &loop->timer_fd};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &wakes) < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &expires) < 0) {
        r = err_set(err, -errno, "event loop: epoll_ctl: %s", strerror(errno));
        goto close_timer;
    }
    pthread_mutex_init(&loop->lock, NULL);
    *out = loop;
    return 0;

close_timer:
    close(loop->timer_fd);
close_wake:
    close(loop->wake_fd);
close_epoll:
    close(loop->epoll_fd);
free_loop:
    free(loop);
    return r;
}

void loop_close(struct loop *loop)
{
    if (!loop)
        return;
    for (struct post *p = loop->posts, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    pthread_mutex_destroy(&loop->lock);
    close(loop->timer_fd);
    close(loop->wake_fd);
    close(loop->epoll_fd);
    free(loop->heap);
    free(loop);
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t ignored = write(loop->wake_fd, &one, sizeof(one));
    (void)ignored; /* full means awake already */
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    wake(loop);
}

/* ---- events ---- */

void loop_event_init(struct loop_event *event, struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    *event = (struct loop_event){.loop = loop, .fn = fn, .opaque = opaque};
}

void loop_event_set(struct loop_event *event)
{
    struct loop *loop = event->loop;

    if (atomic_exchange(&event->set, true))
        return;
    event->next = atomic_load(&loop->set_events);
    while (!atomic_compare_exchange_weak(&loop->set_events, &event->next, event))
        ;
    /* Either this sees the thread asleep, or the thread sees the event before it sleeps. */
    if (atomic_load(&loop->asleep) && atomic_exchange(&loop->asleep, false))
        wake(loop);
}

/* Behind those that are there, in the order in which they were set. */
static void take_events(struct loop *loop)
{
    struct loop_event *latest = atomic_exchange(&loop->set_events, NULL), *first = NULL, **tail = &loop->events;

    while (latest) {
        struct loop_event *before = latest->next;
        latest->next = first;
        first = latest;
        latest = before;
    }
    while (*tail)
        tail = &(*tail)->next;
    *tail = first;
}

/* Those that are set by now; whether there were any. */
static bool run_set_events(struct loop *loop)
{
    struct loop_event *last = NULL;

    take_events(loop);
    for (struct loop_event *e = loop->events; e; e = e->next)
        last = e;
    for (bool more = last; more && loop->events;) {
        struct loop_event *e = loop->events;
        more = e != last;
        loop->events = e->next;
        atomic_store(&e->set, false);
        e->fn(e->opaque);
    }
    return last;
}

/*
 * What they set themselves is mostly the next step of the same work - a request is gathered, handed on, answered - and follows at once. But only so
 * often: then files and timers have their turn.
 */
static void run_events(struct loop *loop)
{
    for (unsigned i = 0; i < EVENT_ROUNDS && !atomic_load(&loop->stopping); i++)
        if (!run_set_events(loop))
            break;
}

void loop_event_fini(struct loop_event *event)
{
    struct loop *loop = event->loop;

    if (!loop)
        return;
    take_events(loop);
    for (struct loop_event **e = &loop->events; *e; e = &(*e)->next)
        if (*e == event) {
            *e = event->next;
            break;
        }
}

/* ---- timers: a binary heap; slot is the index + 1 ---- */

static void heap_put(struct loop *loop, size_t i, struct loop_timer *t)
{
    loop->heap[i] = t;
    t->slot = i + 1;
}

static void heap_up(struct loop *loop, size_t i)
{
    struct loop_timer *t = loop->heap[i];
    while (i > 0 && t->deadline < loop->heap[(i - 1) / 2]->deadline) {
        heap_put(loop, i, loop->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_put(loop, i, t);
}

static void heap_down(struct loop *loop, size_t i)
{
    struct loop_timer *t = loop->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= loop->n_timers)
            break;
        if (child + 1 < loop->n_timers && loop->heap[child + 1]->deadline < loop->heap[child]->deadline)
            child++;
        if (loop->heap[child]->deadline >= t->deadline)
            break;
        heap_put(loop, i, loop->heap[child]);
        i = child;
    }
    heap_put(loop, i, t);
}

static void heap_remove_locked(struct loop *loop, struct loop_timer *t)
{
    size_t i = t->slot - 1;
    struct loop_timer *last = loop->heap[--loop->n_timers];

    t->slot = 0;
    if (last == t)
        return;
    heap_put(loop, i, last);
    heap_up(loop, i);
    heap_down(loop, last->slot - 1);
}

/* timer_fd wakes the loop's thread at `deadline`: to the nanosecond, where a wait's time-out is 50 us late (prctl(2), timer slack). */
static void arm_locked(struct loop *loop, int64_t deadline)
{
    struct itimerspec at = {0};

    if (deadline != NEVER) {
        int64_t ns = deadline > 0 ? deadline : 1; /* zero would stand for "never" */
        at.it_value = (struct timespec){.tv_sec = ns / NS_PER_SEC, .tv_nsec = ns % NS_PER_SEC};
    }
    timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    loop->armed = deadline;
}

void loop_timer_init(struct loop_timer *t, struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct loop_timer){.loop = loop, .fn = fn, .opaque = opaque};
}

void loop_timer_set(struct loop_timer *t, int64_t deadline_ns)
{
    struct loop *loop = t->loop;

    pthread_mutex_lock(&loop->lock);
    t->deadline = deadline_ns;
    if (t->slot) {
        heap_up(loop, t->slot - 1);
        heap_down(loop, t->slot - 1);
    } else {
        if (loop->n_timers == loop->capacity) {
            size_t capacity = loop->capacity ? loop->capacity * 2 : 16;
            struct loop_timer **heap = realloc(loop->heap, capacity * sizeof(*heap));
            if (!heap)
                abort(); /* a few hundred bytes: the host is beyond help */
            loop->heap = heap;
            loop->capacity = capacity;
        }
        heap_put(loop, loop->n_timers++, t);
        heap_up(loop, loop->n_timers - 1);
    }
    if (!loop->awake && deadline_ns < loop->armed)
        arm_locked(loop, deadline_ns);
    pthread_mutex_unlock(&loop->lock);
}

void loop_timer_cancel(struct loop_timer *t)
{
    if (!t->loop)
        return;
    pthread_mutex_lock(&t->loop->lock);
    if (t->slot)
        heap_remove_locked(t->loop, t);
    pthread_mutex_unlock(&t->loop->lock);
}

/* Runs what is due, and sets timer_fd for what is next. expired: timer_fd has come to its end, and will not come again unless set. */
static void run_timers(struct loop *loop, bool expired)
{
    pthread_mutex_lock(&loop->lock);
    loop->awake = true;
    if (expired)
        loop->armed = NEVER;
    while (loop->n_timers && loop->heap[0]->deadline <= loop_now()) {
        struct loop_timer *t = loop->heap[0];
        heap_remove_locked(loop, t);
        pthread_mutex_unlock(&loop->lock);
        t->fn(t->opaque);
        pthread_mutex_lock(&loop->lock);
    }
    int64_t next = loop->n_timers ? loop->heap[0]->deadline : NEVER;
    if (next != loop->armed)
        arm_locked(loop, next);
    loop->awake = false;
    pthread_mutex_unlock(&loop->lock);
}

int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct post *p = malloc(sizeof(*p));
    if (!p)
        return -ENOMEM;
    *p = (struct post){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&loop->lock);
    *loop->posts_tail = p;
    loop->posts_tail = &p->next;
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
    return 0;
}

static void run_posts(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct post *p = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (p) {
        struct post *next = p->next;
        p->fn(p->opaque);
        free(p);
        p = next;
    }
}

void loop_run(struct loop *loop)
{
    struct epoll_event events[16];
    bool expired = false;

    while (!atomic_load(&loop->stopping)) {
        run_posts(loop);
        run_timers(loop, expired);
        run_events(loop);
        expired = false;
        atomic_store(&loop->asleep, true);
        bool more = loop->events || atomic_load(&loop->set_events);
        int n = epoll_wait(loop->epoll_fd, events, ARRAY_SIZE(events), more ? 0 : -1);
        atomic_store(&loop->asleep, false);
        struct loop_fd *ready = NULL;
        uint32_t ready_events = 0;
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &loop->timer_fd) {
                expired = true;
            } else if (events[i].data.ptr != &loop->wake_fd && !ready) {
                ready = events[i].data.ptr;
                ready_events = events[i].events;
            }
        }
        if (ready) /* one: its function may remove the others, so ask again */
            ready->fn(ready->opaque, ready_events);
    }
    atomic_store(&loop->stopping, false);
}

int loop_fd_add(struct loop *loop, struct loop_fd *source, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &ev) < 0 ? -errno : 0;
}

int loop_fd_modify(struct loop *loop, struct loop_fd *source, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) < 0 ? -errno : 0;
}

void loop_fd_remove(struct loop *loop, struct loop_fd *source)
{
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
}
