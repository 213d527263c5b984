#include "core/clock.h"

void clock_init(struct clock *clock, struct loop *loop, uint64_t tsc_hz)
{
    clock->loop = loop;
    clock->tsc_hz = tsc_hz;
    clock->timers = NULL;
    atomic_init(&clock->offset, 0);
    atomic_init(&clock->stopped, 0);
    pthread_mutex_init(&clock->lock, NULL);
}

void clock_fini(struct clock *clock)
{
    pthread_mutex_destroy(&clock->lock);
}

int64_t clock_now(struct clock *clock)
{
    int64_t stopped = atomic_load_explicit(&clock->stopped, memory_order_acquire);
    if (UNLIKELY(stopped >= 0))
        return stopped;
    return loop_now() - atomic_load_explicit(&clock->offset, memory_order_relaxed);
}

void clock_start(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    int64_t stopped = atomic_load(&clock->stopped);
    if (stopped >= 0) {
        int64_t offset = loop_now() - stopped;
        atomic_store(&clock->offset, offset);
        atomic_store(&clock->stopped, -1);
        for (struct vtimer *t = clock->timers; t; t = t->next)
            if (t->deadline >= 0)
                loop_timer_set(&t->timer, t->deadline + offset);
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_stop(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    if (atomic_load(&clock->stopped) < 0) {
        atomic_store(&clock->stopped, clock_now(clock));
        for (struct vtimer *t = clock->timers; t; t = t->next)
            loop_timer_cancel(&t->timer);
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_set(struct clock *clock, int64_t ns)
{
    pthread_mutex_lock(&clock->lock);
    if (atomic_load(&clock->stopped) >= 0)
        atomic_store(&clock->stopped, ns);
    pthread_mutex_unlock(&clock->lock);
}

uint64_t clock_ticks(int64_t ns, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)(uint64_t)ns * hz / NS_PER_SEC);
}

int64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * NS_PER_SEC + hz - 1) / hz;
    return ns > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)ns;
}

uint64_t clock_tsc(struct clock *clock)
{
    return clock_ticks(clock_now(clock), clock->tsc_hz);
}

static void vtimer_fire(void *opaque)
{
    struct vtimer *t = opaque;

    pthread_mutex_lock(&t->clock->lock);
    bool due = t->deadline >= 0 && t->deadline <= clock_now(t->clock);
    if (due)
        t->deadline = -1;
    pthread_mutex_unlock(&t->clock->lock);
    if (due)
        t->fn(t->opaque);
}

void vtimer_init(struct vtimer *t, struct clock *clock, void (*fn)(void *opaque), void *opaque)
{
    *t = (struct vtimer){.clock = clock, .fn = fn, .opaque = opaque, .deadline = -1};
    loop_timer_init(&t->timer, clock->loop, vtimer_fire, t);
    pthread_mutex_lock(&clock->lock);
    t->next = clock->timers;
    clock->timers = t;
    pthread_mutex_unlock(&clock->lock);
}

void vtimer_fini(struct vtimer *t)
{
    if (!t->clock)
        return;
    pthread_mutex_lock(&t->clock->lock);
    loop_timer_cancel(&t->timer);
    for (struct vtimer **p = &t->clock->timers; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    pthread_mutex_unlock(&t->clock->lock);
    t->clock = NULL;
}

void vtimer_set(struct vtimer *t, int64_t deadline_ns)
{
    if (deadline_ns < 0)
        deadline_ns = 0;
    pthread_mutex_lock(&t->clock->lock);
    t->deadline = deadline_ns;
    if (atomic_load(&t->clock->stopped) < 0)
        loop_timer_set(&t->timer, deadline_ns + atomic_load(&t->clock->offset));
    pthread_mutex_unlock(&t->clock->lock);
}

void vtimer_cancel(struct vtimer *t)
{
    pthread_mutex_lock(&t->clock->lock);
    t->deadline = -1;
    loop_timer_cancel(&t->timer);
    pthread_mutex_unlock(&t->clock->lock);
}
