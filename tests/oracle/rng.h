/* Random numbers for generated tests: small, seeded, the same everywhere. */
#ifndef TESTS_ORACLE_RNG_H
#define TESTS_ORACLE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

/* splitmix64: every seed, also 0 and neighbours, gives an independent stream. */
static inline uint64_t rng_next(struct rng *rng)
{
    uint64_t z = (rng->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 to n - 1; n > 0. */
static inline unsigned rng_below(struct rng *rng, unsigned n)
{
    return (unsigned)((rng_next(rng) >> 32) * n >> 32);
}

static inline bool rng_percent(struct rng *rng, unsigned percent)
{
    return rng_below(rng, 100) < percent;
}

static inline int rng_range(struct rng *rng, int lo, int hi)
{
    return lo + (int)rng_below(rng, (unsigned)(hi - lo + 1));
}

/* Values on which carries, signs and widths turn. */
uint64_t rng_edge(struct rng *rng);

/* Fills with a mix of edge integers, special floats of 32 and 64 bits, and noise. len: a multiple of 8. */
void rng_fill(struct rng *rng, void *buf, size_t len);

#endif
