/* Scalar floating point in the C library: sine and square root. The checksum holds the sum's bits: engines agree on each. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "workload.h"

static int libm_setup(uint64_t n, void **state)
{
    (void)n;
    *state = NULL;
    return 0;
}

static int libm_run(void *state, uint64_t n, uint64_t *checksum)
{
    double sum = 0;

    (void)state;
    for (uint64_t i = 0; i < n; i++) {
        double x = (double)(i & 0xffff) * 0.0137;

        sum += sin(x) * sqrt(x);
    }
    memcpy(checksum, &sum, sizeof(*checksum));
    return 0;
}

static void libm_finish(void *state)
{
    (void)state;
}

const struct workload libm_workload = {
    .name = "libm",
    .unit = "sine and square root",
    .iterations = 16 << 20,
    .setup = libm_setup,
    .run = libm_run,
    .finish = libm_finish,
};
