/* Floating point: products of two 96x96 matrices of doubles, row by row. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workload.h"

#define SIZE 96

struct matrices {
    double a[SIZE][SIZE];
    double b[SIZE][SIZE];
    double c[SIZE][SIZE];
};

static void fill(double m[SIZE][SIZE], uint64_t *seed)
{
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++)
            m[i][j] = (double)(int64_t)workload_random(seed) * 0x1p-63;
}

static int matrix_setup(uint64_t n, void **state)
{
    struct matrices *m = calloc(1, sizeof(*m));
    uint64_t seed = 4;

    (void)n;
    if (!m)
        return -ENOMEM;
    fill(m->a, &seed);
    fill(m->b, &seed);
    *state = m;
    return 0;
}

static void multiply(double c[SIZE][SIZE], double a[SIZE][SIZE], double b[SIZE][SIZE])
{
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned k = 0; k < SIZE; k++)
            for (unsigned j = 0; j < SIZE; j++)
                c[i][j] += a[i][k] * b[k][j];
}

static int matrix_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct matrices *m = state;
    uint64_t bits, sum = 0;

    for (uint64_t round = 0; round < n; round++)
        multiply(m->c, m->a, m->b);
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++) {
            memcpy(&bits, &m->c[i][j], sizeof(bits));
            sum = workload_mix(sum, bits);
        }
    *checksum = sum;
    return 0;
}

const struct workload matrix_workload = {
    .name = "matrix",
    .unit = "product of 96x96 doubles",
    .iterations = 1024,
    .setup = matrix_setup,
    .run = matrix_run,
    .finish = free,
};
