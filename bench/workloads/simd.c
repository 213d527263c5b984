/*
 * Integer vectors, as a video codec uses them: two rows of pixels are blended, and the blend is compared with a third. SSE2, or AVX2
 * where CPUID offers it; both come to the same sums, whose order does not matter.
 */
#include <errno.h>
#include <immintrin.h>
#include <stdlib.h>

#include "workload.h"

#define ROW    4096 /* pixels of one byte */
#define FRAMES 64   /* rows start at any byte of 256 KiB */

struct difference {
    uint64_t absolute; /* sums over the row */
    uint32_t squared;
    uint8_t largest;
};

struct picture {
    uint8_t pixels[FRAMES * ROW];
    uint8_t blend[ROW];
    void (*compare)(uint8_t *, const uint8_t *, const uint8_t *, const uint8_t *, struct difference *);
};

static void compare_sse2(uint8_t *blend, const uint8_t *a, const uint8_t *b, const uint8_t *c, struct difference *d)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i absolute = zero, squared = zero, largest = zero;
    uint64_t sums[2];
    uint32_t squares[4];
    uint8_t most[16];

    for (unsigned i = 0; i < ROW; i += 16) {
        __m128i p = _mm_avg_epu8(_mm_loadu_si128((const __m128i *)(a + i)), _mm_loadu_si128((const __m128i *)(b + i)));
        __m128i q = _mm_loadu_si128((const __m128i *)(c + i));
        __m128i low = _mm_sub_epi16(_mm_unpacklo_epi8(p, zero), _mm_unpacklo_epi8(q, zero));
        __m128i high = _mm_sub_epi16(_mm_unpackhi_epi8(p, zero), _mm_unpackhi_epi8(q, zero));

        _mm_storeu_si128((__m128i *)(blend + i), p);
        absolute = _mm_add_epi64(absolute, _mm_sad_epu8(p, q));
        squared = _mm_add_epi32(squared, _mm_add_epi32(_mm_madd_epi16(low, low), _mm_madd_epi16(high, high)));
        largest = _mm_max_epu8(largest, _mm_or_si128(_mm_subs_epu8(p, q), _mm_subs_epu8(q, p)));
    }
    _mm_storeu_si128((__m128i *)sums, absolute);
    _mm_storeu_si128((__m128i *)squares, squared);
    _mm_storeu_si128((__m128i *)most, largest);
    *d = (struct difference){.absolute = sums[0] + sums[1]};
    for (unsigned i = 0; i < 4; i++)
        d->squared += squares[i];
    for (unsigned i = 0; i < 16; i++)
        d->largest = most[i] > d->largest ? most[i] : d->largest;
}

__attribute__((target("avx2"))) static void compare_avx2(uint8_t *blend, const uint8_t *a, const uint8_t *b,
                                                         const uint8_t *c, struct difference *d)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i absolute = zero, squared = zero, largest = zero;
    uint64_t sums[4];
    uint32_t squares[8];
    uint8_t most[32];

    for (unsigned i = 0; i < ROW; i += 32) {
        __m256i p =
            _mm256_avg_epu8(_mm256_loadu_si256((const __m256i *)(a + i)), _mm256_loadu_si256((const __m256i *)(b + i)));
        __m256i q = _mm256_loadu_si256((const __m256i *)(c + i));
        __m256i low = _mm256_sub_epi16(_mm256_unpacklo_epi8(p, zero), _mm256_unpacklo_epi8(q, zero));
        __m256i high = _mm256_sub_epi16(_mm256_unpackhi_epi8(p, zero), _mm256_unpackhi_epi8(q, zero));

        _mm256_storeu_si256((__m256i *)(blend + i), p);
        absolute = _mm256_add_epi64(absolute, _mm256_sad_epu8(p, q));
        squared =
            _mm256_add_epi32(squared, _mm256_add_epi32(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high)));
        largest = _mm256_max_epu8(largest, _mm256_or_si256(_mm256_subs_epu8(p, q), _mm256_subs_epu8(q, p)));
    }
    _mm256_storeu_si256((__m256i *)sums, absolute);
    _mm256_storeu_si256((__m256i *)squares, squared);
    _mm256_storeu_si256((__m256i *)most, largest);
    *d = (struct difference){.absolute = sums[0] + sums[1] + sums[2] + sums[3]};
    for (unsigned i = 0; i < 8; i++)
        d->squared += squares[i];
    for (unsigned i = 0; i < 32; i++)
        d->largest = most[i] > d->largest ? most[i] : d->largest;
}

static int simd_setup(uint64_t n, void **state)
{
    struct picture *picture = calloc(1, sizeof(*picture));
    uint64_t seed = 8;

    (void)n;
    if (!picture)
        return -ENOMEM;
    for (unsigned i = 0; i < sizeof(picture->pixels); i++)
        picture->pixels[i] = (uint8_t)(workload_random(&seed) >> 32);
    picture->compare = __builtin_cpu_supports("avx2") ? compare_avx2 : compare_sse2;
    *state = picture;
    return 0;
}

static int simd_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct picture *picture = state;
    uint64_t seed = 9, sum = 0;
    struct difference d;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t random = workload_random(&seed) >> 8;
        const uint8_t *a = picture->pixels + random % (sizeof(picture->pixels) - ROW);
        const uint8_t *b = picture->pixels + (random >> 20) % (sizeof(picture->pixels) - ROW);
        const uint8_t *c = picture->pixels + (random >> 36) % (sizeof(picture->pixels) - ROW);

        picture->compare(picture->blend, a, b, c, &d);
        sum = workload_mix(sum, d.absolute ^ (uint64_t)d.squared << 32 ^ d.largest ^ picture->blend[i % ROW]);
    }
    *checksum = sum;
    return 0;
}

const struct workload simd_workload = {
    .name = "simd",
    .unit = "row of 4096 pixels blended and compared",
    .iterations = 2 << 20,
    .setup = simd_setup,
    .run = simd_run,
    .finish = free,
};
