/*
 * What is worth translating while the cache is too small. To translate an instruction costs as much as to interpret it ten times, so code is
 * translated when it is first met: most of it will run again. Once it would be evicted before that, it is better to interpret what runs rarely, and
 * leave the room to what runs often. So where the vCPU spends much of its time on translating, code is interpreted a number of times first; the
 * number follows the time that goes into the one and the other.
 *
 * The vCPU's thread only.
 */
#include <time.h>

#include "base/loop.h"
#include "engine/bt/cache.h"

#define WAIT_MOST   64
#define MUCH_TIME   4  /* translating takes more than one part in as many of the vCPU's time */
#define LITTLE_TIME 16 /* less than one part in as many */

static uint8_t *slot_of(struct bt_heat *heat, uint64_t rip)
{
    return &heat->met[(rip * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - CACHE_HEAT_BITS)];
}

bool heat_is_cold(struct bt *bt, uint64_t rip)
{
    struct bt_heat *heat = &bt->cache->heat;

    if (LIKELY(heat->wait <= 1))
        return false;
    uint8_t *met = slot_of(heat, rip);
    if (++*met < heat->wait)
        return true;
    *met = 0;
    return false;
}

void heat_interpreted(struct bt *bt, int64_t ns)
{
    bt->cache->heat.interpreted_ns += ns;
}

/* CPU time of this thread in ns: what the host gave to others, and time halted, does not count. */
static int64_t cpu_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

void heat_evicted(struct bt *bt)
{
    struct bt_heat *heat = &bt->cache->heat;
    int64_t now = cpu_time(), translator = (int64_t)bt->stats.count[ENGINE_TRANSLATOR_TRANSLATOR_NS];
    int64_t busy = now - heat->since, spent = translator - heat->translator_ns;

    if (!heat->wait)
        heat->wait = 1; /* there is nothing to go by yet */
    else if (spent > busy / MUCH_TIME && spent > heat->interpreted_ns)
        heat->wait = heat->wait < WAIT_MOST ? heat->wait * 2 : WAIT_MOST;
    else if (heat->wait > 1 && (spent < busy / LITTLE_TIME || heat->interpreted_ns > 2 * spent))
        heat->wait /= 2;
    if (bt->cache->now == 0) /* all of the cache was filled anew: how often code was met before that is of the past */
        memset(heat->met, 0, sizeof(heat->met));
    heat->since = now;
    heat->translator_ns = translator;
    heat->interpreted_ns = 0;
}
