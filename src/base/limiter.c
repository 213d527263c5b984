#include "base/limiter.h"

/*
 * A bucket is kept as the time at which it will be full (the generic cell rate algorithm): taking n moves that time on by what n take to flow
 * in, and there is enough for n while it lies no farther ahead than the burst takes to flow in.
 */

/* No more than that: 73 years, which added to any time of this host's clock still is a time. */
#define TIME_MAX (INT64_MAX / 4)

static int64_t time_of(const struct limiter_bucket *b, uint64_t tokens)
{
    unsigned __int128 ns = (unsigned __int128)tokens * NS_PER_SEC / b->rate;
    return ns < TIME_MAX ? (int64_t)ns : TIME_MAX;
}

static void bucket_init(struct limiter_bucket *b, uint64_t rate, uint64_t burst)
{
    *b = (struct limiter_bucket){.rate = rate, .burst = burst ? burst : rate / 10 + 1};
}

/* The earliest time at which n may be taken. */
static int64_t earliest(const struct limiter_bucket *b, uint64_t n)
{
    if (!b->rate || !n)
        return 0;
    return b->full_ns - time_of(b, n < b->burst ? b->burst - n : 0);
}

static void take(struct limiter_bucket *b, uint64_t n, int64_t now_ns)
{
    if (!b->rate || !n)
        return;
    b->full_ns = (b->full_ns > now_ns ? b->full_ns : now_ns) + time_of(b, n);
}

void limiter_init(struct limiter *l, uint64_t ops, uint64_t ops_burst, uint64_t bytes, uint64_t bytes_burst)
{
    bucket_init(&l->ops, ops, ops_burst);
    bucket_init(&l->bytes, bytes, bytes_burst);
}

bool limiter_limits(const struct limiter *l)
{
    return l->ops.rate || l->bytes.rate;
}

int64_t limiter_take(struct limiter *l, uint64_t ops, uint64_t bytes, int64_t now_ns)
{
    int64_t a = earliest(&l->ops, ops), b = earliest(&l->bytes, bytes);
    int64_t when = a > b ? a : b;

    if (when > now_ns)
        return when;
    take(&l->ops, ops, now_ns);
    take(&l->bytes, bytes, now_ns);
    return 0;
}
