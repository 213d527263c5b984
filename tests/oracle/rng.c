#include "rng.h"

#include <string.h>

#include "base/util.h"

uint64_t rng_edge(struct rng *rng)
{
    uint64_t v = rng_next(rng);
    unsigned bit = rng_below(rng, 64);

    switch (rng_below(rng, 10)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return UINT64_C(1) << bit;
    case 3:
        return (UINT64_C(1) << bit) - 1;
    case 4:
        return ~(UINT64_C(1) << bit);
    case 5:
        return 0 - (UINT64_C(1) << bit);
    case 6:
        return v & 0xff;
    case 7:
        return (uint64_t)(int64_t)(int8_t)v;
    case 8:
        return v >> bit;
    default:
        return v;
    }
}

static const uint32_t floats32[] = {
    0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
    0xffc00001, 0x7f800001, 0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4f000000,
    0xcf000000, 0x5f000000, 0x3f000000, 0x3fc00000, 0x4effffff, 0x33800000,
};

static const uint64_t floats64[] = {
    0x0000000000000000, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
    0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000001, 0x7ff0000000000001, 0x0000000000000001,
    0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0x41e0000000000000, 0xc1e0000000000000,
    0x43e0000000000000, 0x3fe0000000000000, 0x3ff8000000000000, 0x41dfffffffc00000, 0x36a0000000000000,
    0x47efffffe0000000, 0x380fffffc0000000,
};

void rng_fill(struct rng *rng, void *buf, size_t len)
{
    uint8_t *p = buf;

    for (size_t at = 0; at + 8 <= len; at += 8) {
        uint64_t r = rng_next(rng), v;
        switch (r & 7) {
        case 0:
            v = floats64[(r >> 8) % ARRAY_SIZE(floats64)];
            break;
        case 1:
            v = floats32[(r >> 8) % ARRAY_SIZE(floats32)] | (uint64_t)floats32[(r >> 24) % ARRAY_SIZE(floats32)] << 32;
            break;
        case 2:
            v = rng_edge(rng);
            break;
        case 3: /* an ordinary double near one */
            v = (r & 0x800fffffffffffff) | (uint64_t)(0x3f0 + (r >> 52 & 0x1f)) << 52;
            break;
        case 4: /* two ordinary floats */
            v = (r & 0x807fffff807fffff) | 0x3f8000003f000000;
            break;
        default:
            v = r;
        }
        memcpy(p + at, &v, sizeof(v));
    }
}
