/*
 * The local APIC's timer (SDM Vol. 3A 11.5.4): one-shot, periodic and TSC-deadline.
 *
 * Threads: programmed by the owner, expires on the loop's thread; timer.lock is between them. The vtimer may go off although
 * the owner has just reprogrammed it (loop.h), so expiry asks the registers, not the vtimer, whether it is time. An
 * interrupt is requested under the lock: once the owner has stopped the timer, none comes any more.
 */
#include <errno.h>

#include "device/lapic_impl.h"

#define MIN_PERIOD_NS 50000 /* faster periods are merged: no count may keep the host's loop busy */
#define MODE(lvt)     ((lvt) >> 17 & 3)
#define MAX_ELAPSED   (INT64_C(1) << 40) /* ns: more than 2^32 counts of 128 ns */

enum { ONE_SHOT, PERIODIC, TSC_DEADLINE };

static int64_t now(struct lapic *l)
{
    return clock_now(l->dev.env->clock);
}

/* The divide configuration register's encoding: bits 3, 1 and 0; 7 is by one. */
static unsigned shift(const struct lapic_timer *t)
{
    unsigned code = (t->divide & 3) | (t->divide >> 1 & 4);
    return (code + 1) & 7;
}

/* ns of a whole count, at LAPIC_TIMER_HZ = 1 GHz. */
static int64_t length(const struct lapic_timer *t)
{
    _Static_assert(LAPIC_TIMER_HZ == NS_PER_SEC, "a tick is a nanosecond");
    return (int64_t)t->initial << shift(t);
}

static uint32_t mode(struct lapic *l)
{
    return MODE(atomic_load(&l->lvt[LVT_TIMER]));
}

static void fire(struct lapic *l)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_TIMER]);

    l->timer.last_fire = now(l);
    if (!(lvt & LVT_MASKED))
        lapic_accept(l, (uint8_t)lvt, false);
}

static void check_deadline(struct lapic *l)
{
    struct lapic_timer *t = &l->timer;
    struct clock *clock = l->dev.env->clock;

    if (!t->deadline) {
        vtimer_cancel(&t->vtimer);
        return;
    }
    int64_t ns = clock_now(clock);
    uint64_t tsc = clock_ticks(ns, clock->tsc_hz) + atomic_load(&l->conf.port->tsc_offset);
    if (t->deadline <= tsc) {
        t->deadline = 0;
        vtimer_cancel(&t->vtimer);
        fire(l);
        return;
    }
    vtimer_set(&t->vtimer, ns + clock_ticks_to_ns(t->deadline - tsc, clock->tsc_hz));
}

static void check_count(struct lapic *l, bool periodic)
{
    struct lapic_timer *t = &l->timer;
    int64_t ns = now(l);

    if (!t->running) {
        vtimer_cancel(&t->vtimer);
        return;
    }
    if (ns - t->start >= length(t)) {
        if (periodic)
            t->start += (ns - t->start) / length(t) * length(t);
        else
            t->running = false;
        fire(l);
    }
    if (!t->running)
        return;
    int64_t next = t->start + length(t), earliest = t->last_fire + MIN_PERIOD_NS;
    vtimer_set(&t->vtimer, periodic && next < earliest ? earliest : next);
}

/* Fires what is due and sets the vtimer for what is not. With timer.lock held. An engine's own timer does that there. */
static void check(struct lapic *l)
{
    if (lapic_is_chip(l))
        return;
    switch (mode(l)) {
    case TSC_DEADLINE:
        check_deadline(l);
        break;
    case ONE_SHOT:
    case PERIODIC:
        check_count(l, mode(l) == PERIODIC);
        break;
    default: /* reserved: nothing counts */
        vtimer_cancel(&l->timer.vtimer);
    }
}

static void expired(void *opaque)
{
    struct lapic *l = opaque;

    pthread_mutex_lock(&l->timer.lock);
    check(l);
    pthread_mutex_unlock(&l->timer.lock);
}

void lapic_timer_tsc_moved(void *apic)
{
    struct lapic *l = apic;

    pthread_mutex_lock(&l->timer.lock);
    if (mode(l) == TSC_DEADLINE)
        check(l);
    pthread_mutex_unlock(&l->timer.lock);
}

static uint32_t current(struct lapic *l)
{
    struct lapic_timer *t = &l->timer;

    if (!t->running || mode(l) > PERIODIC)
        return 0;
    int64_t elapsed = now(l) - t->start;
    if (mode(l) == PERIODIC)
        elapsed %= length(t);
    return elapsed >= length(t) ? 0 : (uint32_t)(t->initial - (elapsed >> shift(t)));
}

uint32_t lapic_timer_current(struct lapic *l)
{
    pthread_mutex_lock(&l->timer.lock);
    uint32_t val = current(l);
    pthread_mutex_unlock(&l->timer.lock);
    return val;
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
    pthread_mutex_lock(&l->timer.lock);
    uint64_t val = mode(l) == TSC_DEADLINE ? l->timer.deadline : 0;
    pthread_mutex_unlock(&l->timer.lock);
    return val;
}

/* Into and out of TSC-deadline mode the timer is disarmed; between the others it counts on (SDM Vol. 3A 11.5.4.1). */
void lapic_timer_set_lvt(struct lapic *l, uint32_t val)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    check(l); /* what is due is due by the old entry */
    uint32_t old = mode(l);
    atomic_store(&l->lvt[LVT_TIMER], val);
    if (MODE(val) != old && (MODE(val) >= TSC_DEADLINE || old >= TSC_DEADLINE)) {
        t->running = false;
        t->deadline = 0;
    }
    check(l);
    pthread_mutex_unlock(&t->lock);
}

void lapic_timer_set_initial(struct lapic *l, uint32_t val)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    if (mode(l) <= PERIODIC) {
        t->initial = val;
        t->start = now(l);
        t->running = val != 0;
        check(l);
    }
    pthread_mutex_unlock(&t->lock);
}

/* The count goes on from where it is at the new rate. */
void lapic_timer_set_divide(struct lapic *l, uint8_t val)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    check(l);
    uint32_t left = current(l);
    t->divide = val;
    if (t->running)
        t->start = now(l) - ((int64_t)(t->initial - left) << shift(t));
    check(l);
    pthread_mutex_unlock(&t->lock);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    if (mode(l) == TSC_DEADLINE) {
        t->deadline = tsc;
        check(l);
    }
    pthread_mutex_unlock(&t->lock);
}

void lapic_timer_init(struct lapic *l)
{
    pthread_mutex_init(&l->timer.lock, NULL);
    vtimer_init(&l->timer.vtimer, l->dev.env->clock, expired, l);
}

void lapic_timer_fini(struct lapic *l)
{
    vtimer_fini(&l->timer.vtimer);
    pthread_mutex_destroy(&l->timer.lock);
}

void lapic_timer_reset(struct lapic *l)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    t->initial = 0;
    t->divide = 0;
    t->running = false;
    t->start = 0;
    t->last_fire = -MIN_PERIOD_NS;
    t->deadline = 0;
    vtimer_cancel(&t->vtimer);
    pthread_mutex_unlock(&t->lock);
}

void lapic_timer_load(struct lapic *l, uint32_t initial, uint32_t left, uint8_t divide, uint64_t deadline)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    t->initial = initial;
    t->divide = divide;
    t->running = left && left <= initial;
    t->start = t->running ? now(l) - ((int64_t)(initial - left) << shift(t)) : now(l);
    t->deadline = deadline;
    pthread_mutex_unlock(&t->lock);
}

/* After the LVT entries. */
void lapic_timer_state(struct lapic *l, struct stream *s)
{
    struct lapic_timer *t = &l->timer;

    pthread_mutex_lock(&t->lock);
    stream_u32(s, &t->initial);
    stream_u8(s, &t->divide);
    stream_bool(s, &t->running);
    stream_i64(s, &t->start);
    stream_u64(s, &t->deadline);
    if (s->loading) {
        t->running = t->running && t->initial;
        if (!t->running) {
            t->start = now(l);
        } else if (t->start > now(l) || t->start < now(l) - MAX_ELAPSED) { /* the arithmetic above relies on it */
            t->running = false;
            if (!s->error)
                s->error = -EPROTO;
        }
        check(l);
    }
    pthread_mutex_unlock(&t->lock);
}
