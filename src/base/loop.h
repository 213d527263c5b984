/*
 * The event loop: file descriptors and timers of one VM, served by one thread.
 *
 * Threads: loop_run() belongs to one thread, and every callback runs there with no lock held. Timers may be set
 * and cancelled from any thread. loop_timer_cancel() does not wait: a callback that has begun may still be
 * running, so an owner re-checks its own state under its own lock. File descriptors are added and removed from
 * the loop's thread, or before it runs. All times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/err.h"

struct loop;

struct loop_timer {
    struct loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    int64_t deadline; /* ns */
    size_t slot;      /* place in the heap + 1; 0 when not armed */
};

/* Something to do on the loop's thread that others ask for often: asking allocates nothing and takes no lock. */
struct loop_event {
    struct loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    _Atomic bool set;
    struct loop_event *next;
};

struct loop_fd {
    int fd;
    void (*fn)(void *opaque, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR */
    void *opaque;
};

int loop_open(struct loop **loop, struct err *err) MUST_CHECK;
void loop_close(struct loop *loop);

/* Serves events until loop_stop(), which any thread or signal handler may call; may be run again. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Runs fn(opaque) once on the loop's thread, soon. Any thread. 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque) MUST_CHECK;

/*
 * Runs the event's fn(opaque) on the loop's thread, soon: once for all calls that come before it begins. Any thread, but not signal handlers.
 * The caller keeps `event` until loop_event_fini(), which is called on the loop's thread, or while nobody runs the loop; by then nobody sets it any more.
 */
void loop_event_init(struct loop_event *event, struct loop *loop, void (*fn)(void *opaque), void *opaque);
void loop_event_set(struct loop_event *event);
void loop_event_fini(struct loop_event *event);

void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*fn)(void *opaque), void *opaque);
void loop_timer_set(struct loop_timer *timer, int64_t deadline_ns);
void loop_timer_cancel(struct loop_timer *timer);

/* The caller keeps `source` until loop_fd_remove(). events: EPOLLIN | EPOLLOUT; 0 keeps it registered but silent. */
int loop_fd_add(struct loop *loop, struct loop_fd *source, uint32_t events) MUST_CHECK;
int loop_fd_modify(struct loop *loop, struct loop_fd *source, uint32_t events) MUST_CHECK;
void loop_fd_remove(struct loop *loop, struct loop_fd *source);

int64_t loop_now(void);

#endif
