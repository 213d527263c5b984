/* Calls through a pointer, branches that cannot be predicted, copies: the C library's qsort with a callback. */
#include <errno.h>
#include <stdlib.h>

#include "workload.h"

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a;
    int y = *(const int *)b;

    return (x > y) - (x < y);
}

static int sort_setup(uint64_t n, void **state)
{
    uint64_t seed = 2;
    int *values = calloc(n, sizeof(*values));

    if (!values)
        return -ENOMEM;
    for (uint64_t i = 0; i < n; i++)
        values[i] = (int)(workload_random(&seed) >> 32);
    *state = values;
    return 0;
}

static int sort_run(void *state, uint64_t n, uint64_t *checksum)
{
    int *values = state;
    uint64_t sum = 0;

    qsort(values, n, sizeof(*values), compare);
    for (uint64_t i = 0; i < n; i++)
        sum = workload_mix(sum, (uint32_t)values[i]);
    *checksum = sum;
    return 0;
}

const struct workload sort_workload = {
    .name = "sort",
    .unit = "int of one qsort with a callback",
    .iterations = 1 << 20,
    .setup = sort_setup,
    .run = sort_run,
    .finish = free,
};
