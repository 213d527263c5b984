/*
 * What one workload of the benchmark is. Each has a file of its own and a line in workloads.def; main.c runs one a process.
 *
 * The same static program runs natively and in every guest. All input is made from fixed seeds, so at equal iterations
 * the checksum is equal everywhere, or an engine computes wrongly. One thread of control, unless the file says otherwise.
 */
#ifndef WORKLOADS_WORKLOAD_H
#define WORKLOADS_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct workload {
    const char *name;
    const char *unit;    /* what one iteration is */
    uint64_t iterations; /* at scale 1: 0.2 to 0.5 s on a host of 2 to 3 GHz */
    bool one_cpu; /* its processes or threads stay on one CPU, as in a guest with one; main.c's CPUS lifts that */

    /* Prepares n iterations, not timed. *state is passed on to the other two. 0 or -errno. */
    int (*setup)(uint64_t n, void **state);
    /* The timed part. 0 or -errno. */
    int (*run)(void *state, uint64_t n, uint64_t *checksum);
    /* Frees what setup made; called after run, also where that failed. */
    void (*finish)(void *state);
};

#define WORKLOAD(group, name) extern const struct workload name##_workload;
#include "workloads.def"
#undef WORKLOAD

/* A fixed sequence of pseudo-random numbers (xorshift64); the seed is any number but 0. */
static inline uint64_t workload_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Folds a value into a checksum that depends on the order. */
static inline uint64_t workload_mix(uint64_t checksum, uint64_t value)
{
    return (checksum ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (checksum >> 29);
}

#endif
