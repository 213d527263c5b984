/* Whether bytes are all zeroes. The C library compares them with themselves, a step further on: with the widest vectors that the host has. */
#ifndef IMAGE_ZERO_H
#define IMAGE_ZERO_H

#include <stdbool.h>

#include "base/util.h"

/* len: at least 16. */
static inline bool zero_all(const void *buf, size_t len)
{
    const unsigned char *p = buf;

    return !load_le64(p) && !load_le64(p + 8) && memcmp(p, p + 16, len - 16) == 0;
}

/*
 * How many of the bytes are all zeroes, or are not, as *zero says: a whole number of granules, but for the end. len > 0, and at least 16 bytes in the last
 * granule.
 */
static inline size_t zero_run(const void *buf, size_t len, size_t granule, bool *zero)
{
    const unsigned char *p = buf;
    size_t at = len < granule ? len : granule;

    *zero = zero_all(p, at);
    while (at < len) {
        size_t here = len - at < granule ? len - at : granule;
        if (zero_all(p + at, here) != *zero)
            break;
        at += here;
    }
    return at;
}

#endif
