/*
 * A VM's clock, and timers on it. It runs with the host's CLOCK_MONOTONIC while the VM runs and stands still while
 * the VM is paused, so a guest never sees the pause. Everything in the guest that counts time derives from it: the
 * time-stamp counter, the LAPIC, PIT, HPET and ACPI timers. The real-time clock follows the host's wall clock.
 *
 * Threads: any. A timer's function runs on the loop's thread with no lock held; see loop.h on cancellation.
 */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/loop.h"

#define CLOCK_NS_MOST (INT64_MAX / 4) /* a VM time that all arithmetic with it can do: 73 years */

struct vtimer;

struct clock {
    struct loop *loop;
    uint64_t tsc_hz;         /* rate of the guest's time-stamp counter */
    _Atomic int64_t offset;  /* host time - VM time while running */
    _Atomic int64_t stopped; /* VM time at the pause, or -1 while running */
    pthread_mutex_t lock;    /* guards timers */
    struct vtimer *timers;   /* all initialised timers of this VM */
};

struct vtimer {
    struct clock *clock;
    struct loop_timer timer;
    void (*fn)(void *opaque);
    void *opaque;
    struct vtimer *next;
    int64_t deadline; /* VM ns, or -1 when not armed */
};

/* Starts stopped at VM time 0. */
void clock_init(struct clock *clock, struct loop *loop, uint64_t tsc_hz);
void clock_fini(struct clock *clock);
void clock_start(struct clock *clock);
void clock_stop(struct clock *clock);

/* While it is stopped: it goes on from there, 0 to CLOCK_NS_MOST. Timers keep their deadlines; whoever saved them sets them anew. */
void clock_set(struct clock *clock, int64_t ns);

/* VM time in ns since power-on. */
int64_t clock_now(struct clock *clock);

/* `ns` (VM time) counted in ticks of `hz`, without overflow. */
uint64_t clock_ticks(int64_t ns, uint64_t hz);

/* VM time of tick number `ticks`, rounded up. */
int64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz);

/* The VM's time-stamp counter now, before any vCPU's own offset. */
uint64_t clock_tsc(struct clock *clock);

void vtimer_init(struct vtimer *t, struct clock *clock, void (*fn)(void *opaque), void *opaque);
void vtimer_fini(struct vtimer *t);
void vtimer_set(struct vtimer *t, int64_t deadline_ns); /* VM time; the past fires at once */
void vtimer_cancel(struct vtimer *t);

#endif
