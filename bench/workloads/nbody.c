/* Scalar floating point: eight bodies under gravity, with a division and a square root for each pair. The checksum holds every bit. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "workload.h"

#define BODIES    8
#define TIME_STEP 0x1p-10
#define SOFTENING 0x1p-6 /* keeps close encounters finite */

struct body {
    double x, y, z;
    double vx, vy, vz;
    double mass;
};

static double between(uint64_t *seed, double low, double high)
{
    return low + (high - low) * ((double)(workload_random(seed) >> 11) * 0x1p-53);
}

static int nbody_setup(uint64_t n, void **state)
{
    struct body *body = calloc(BODIES, sizeof(*body));
    uint64_t seed = 7;

    (void)n;
    if (!body)
        return -ENOMEM;
    for (unsigned i = 0; i < BODIES; i++) {
        body[i].x = between(&seed, -1, 1);
        body[i].y = between(&seed, -1, 1);
        body[i].z = between(&seed, -1, 1);
        body[i].vx = between(&seed, -0.5, 0.5);
        body[i].vy = between(&seed, -0.5, 0.5);
        body[i].vz = between(&seed, -0.5, 0.5);
        body[i].mass = between(&seed, 0.1, 1);
    }
    *state = body;
    return 0;
}

static void attract(struct body *a, struct body *b)
{
    double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
    double square = dx * dx + dy * dy + dz * dz + SOFTENING;
    double force = TIME_STEP / (square * sqrt(square));

    a->vx -= dx * b->mass * force;
    a->vy -= dy * b->mass * force;
    a->vz -= dz * b->mass * force;
    b->vx += dx * a->mass * force;
    b->vy += dy * a->mass * force;
    b->vz += dz * a->mass * force;
}

static int nbody_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct body *body = state;
    uint64_t bits, sum = 0;

    for (uint64_t step = 0; step < n; step++) {
        for (unsigned i = 0; i < BODIES; i++)
            for (unsigned j = i + 1; j < BODIES; j++)
                attract(&body[i], &body[j]);
        for (unsigned i = 0; i < BODIES; i++) {
            body[i].x += TIME_STEP * body[i].vx;
            body[i].y += TIME_STEP * body[i].vy;
            body[i].z += TIME_STEP * body[i].vz;
        }
    }
    for (unsigned i = 0; i < BODIES; i++) {
        memcpy(&bits, &body[i].x, sizeof(bits));
        sum = workload_mix(sum, bits);
        memcpy(&bits, &body[i].vx, sizeof(bits));
        sum = workload_mix(sum, bits);
    }
    *checksum = sum;
    return 0;
}

const struct workload nbody_workload = {
    .name = "nbody",
    .unit = "time step of eight bodies",
    .iterations = 1 << 20,
    .setup = nbody_setup,
    .run = nbody_run,
    .finish = free,
};
