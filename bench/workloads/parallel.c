/*
 * Integer work for two threads, which take the next piece from a shared counter: random numbers are made, sorted and folded. It is
 * run on one CPU and on two. A piece gives the same sum whoever does it, and the sums are added, so the order does not matter.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "workload.h"

#define THREADS 2
#define VALUES  1024

struct job {
    uint64_t pieces;
    _Atomic uint64_t next;
    _Atomic uint64_t sum;
};

static int parallel_setup(uint64_t n, void **state)
{
    struct job *job = calloc(1, sizeof(*job));

    if (!job)
        return -ENOMEM;
    job->pieces = n;
    *state = job;
    return 0;
}

/* Shell's sort, with Ciura's gaps. */
static void sort(uint32_t *value)
{
    static const unsigned gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};

    for (size_t g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++)
        for (unsigned i = gaps[g]; i < VALUES; i++) {
            uint32_t v = value[i];
            unsigned j = i;

            for (; j >= gaps[g] && value[j - gaps[g]] > v; j -= gaps[g])
                value[j] = value[j - gaps[g]];
            value[j] = v;
        }
}

static uint64_t do_piece(uint64_t number)
{
    uint32_t value[VALUES];
    uint64_t seed = number + 1, sum = 0;

    for (unsigned i = 0; i < VALUES; i++)
        value[i] = (uint32_t)(workload_random(&seed) >> 24);
    sort(value);
    for (unsigned i = 0; i < VALUES; i++)
        sum = workload_mix(sum, value[i]);
    return sum;
}

static void *work(void *arg)
{
    struct job *job = arg;
    uint64_t number, sum = 0;

    while ((number = atomic_fetch_add(&job->next, 1)) < job->pieces)
        sum += do_piece(number);
    atomic_fetch_add(&job->sum, sum);
    return NULL;
}

static int parallel_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct job *job = state;
    pthread_t thread[THREADS];
    int started = 0, r = 0;

    (void)n;
    while (started < THREADS && !r) {
        r = pthread_create(&thread[started], NULL, work, job);
        started += !r;
    }
    while (started > 0)
        pthread_join(thread[--started], NULL);
    *checksum = job->sum;
    return -r;
}

const struct workload parallel_workload = {
    .name = "parallel",
    .unit = "1024 integers made, sorted and folded, by either of two threads",
    .iterations = 10 << 10,
    .one_cpu = true,
    .setup = parallel_setup,
    .run = parallel_run,
    .finish = free,
};
