/*
 * A limit on operations and bytes a second: two token buckets that fill at their rates up to their bursts. Pure: the caller says what time it is.
 */
#ifndef BASE_LIMITER_H
#define BASE_LIMITER_H

#include <stdbool.h>

#include "base/util.h"

struct limiter_bucket {
    uint64_t rate;   /* tokens a second; 0: no limit */
    uint64_t burst;  /* tokens it holds at most */
    int64_t full_ns; /* when it will be full, were nothing taken from now on */
};

struct limiter {
    struct limiter_bucket ops, bytes;
};

/* Rates a second, 0 for none; a burst of 0 is a tenth of a second's worth. Begins full. */
void limiter_init(struct limiter *l, uint64_t ops, uint64_t ops_burst, uint64_t bytes, uint64_t bytes_burst);
bool limiter_limits(const struct limiter *l);

/*
 * Takes what an operation of `bytes` needs and returns 0, or takes nothing and returns the time (CLOCK_MONOTONIC ns) to ask again. An operation
 * larger than the burst passes when the bucket is full, and leaves it in debt: the rate holds in the long run whatever the sizes.
 */
int64_t limiter_take(struct limiter *l, uint64_t ops, uint64_t bytes, int64_t now_ns);

#endif
