/*
 * The C library's string functions, which pick their vector code by CPUID as the program starts: lengths, searches, copies and
 * comparisons of strings of 1 byte to 4 KiB, short ones as often as long ones.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workload.h"

#define STRINGS   256
#define SIZE_BITS 12 /* lengths up to 4 KiB */

struct strings {
    char *string[STRINGS];
    char copy[1 << (SIZE_BITS + 1)];
    char pool[STRINGS << (SIZE_BITS + 1)];
};

static int strings_setup(uint64_t n, void **state)
{
    struct strings *s = calloc(1, sizeof(*s));
    char *at;
    uint64_t seed = 10;

    (void)n;
    if (!s)
        return -ENOMEM;
    at = s->pool;
    for (unsigned i = 0; i < STRINGS; i++) {
        uint64_t random = workload_random(&seed) >> 8;
        uint64_t length = 1 + (random >> 8) % (UINT64_C(1) << random % (SIZE_BITS + 1));

        s->string[i] = at;
        for (uint64_t j = 0; j < length; j++)
            at[j] = (char)('a' + (j + random) % 25); /* no 'z' */
        at[length - 1] = 'z';
        at += length + 1; /* one after the other: they begin at any alignment */
    }
    *state = s;
    return 0;
}

static int strings_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct strings *s = state;
    uint64_t seed = 11, sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t random = workload_random(&seed) >> 8;
        const char *a = s->string[random % STRINGS];
        const char *b = s->string[(random >> 8) % STRINGS];
        size_t length = strlen(a);
        const char *end = memchr(a, 'z', length);
        char *copy = s->copy + (random >> 16) % 64;

        memcpy(copy, a, length + 1);
        copy[(random >> 24) % length] ^= 1;
        sum = workload_mix(sum, length ^ (uint64_t)(end - a) << 16 ^ (uint64_t)(strcmp(a, b) < 0) << 32 ^
                                    (uint64_t)(memcmp(copy, a, length) < 0) << 33);
        memset(copy, (int)(random & 0x7f), length);
        sum ^= (uint8_t)copy[length / 2];
    }
    *checksum = sum;
    return 0;
}

const struct workload strings_workload = {
    .name = "strings",
    .unit = "strlen, memchr, memcpy, strcmp, memcmp and memset",
    .iterations = 6 << 20,
    .setup = strings_setup,
    .run = strings_run,
    .finish = free,
};
