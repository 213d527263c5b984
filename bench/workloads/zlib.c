/* zlib, as Debian builds it: text of made-up words is deflated once and inflated four times, since data is read more often than written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "workload.h"

#define KIB_BYTES  1024
#define WORDS      2048
#define WORD_MAX   12
#define INFLATIONS 4
#define LEVEL      6

struct text {
    uint8_t *plain;
    uint8_t *packed;
    uint8_t *unpacked;
    uLong size;     /* of plain and unpacked, bytes */
    uLong capacity; /* of packed */
};

/* Words of 1 to 12 letters; the lower its number, the more often one comes up. */
static void write_text(uint8_t *to, uint64_t size)
{
    char word[WORDS][WORD_MAX];
    uint64_t seed = 6, at = 0;

    for (unsigned i = 0; i < WORDS; i++)
        for (unsigned j = 0; j < WORD_MAX; j++)
            word[i][j] = (char)('a' + (workload_random(&seed) >> 40) % 26);
    while (at < size) {
        uint64_t random = workload_random(&seed) >> 16;
        uint64_t which = random % WORDS * (random >> 24 & 0xff) >> 8;
        uint64_t length = 1 + which % WORD_MAX;

        if (length > size - at)
            length = size - at;
        memcpy(to + at, word[which], length);
        at += length;
        if (at < size)
            to[at++] = random >> 40 & 7 ? ' ' : '\n';
    }
}

static void zlib_finish(void *state)
{
    struct text *text = state;

    free(text->plain);
    free(text->packed);
    free(text->unpacked);
    free(text);
}

static int zlib_setup(uint64_t n, void **state)
{
    struct text *text = calloc(1, sizeof(*text));

    if (!text)
        return -ENOMEM;
    text->size = n * KIB_BYTES;
    text->capacity = compressBound(text->size);
    text->plain = malloc(text->size);
    text->packed = malloc(text->capacity);
    text->unpacked = malloc(text->size);
    if (!text->plain || !text->packed || !text->unpacked) {
        zlib_finish(text);
        return -ENOMEM;
    }
    write_text(text->plain, text->size);
    *state = text;
    return 0;
}

static int zlib_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct text *text = state;
    uLong packed = text->capacity;
    uint64_t sum = 0;

    (void)n;
    if (compress2(text->packed, &packed, text->plain, text->size, LEVEL) != Z_OK)
        return -EIO;
    for (unsigned i = 0; i < INFLATIONS; i++) {
        uLong size = text->size;

        if (uncompress(text->unpacked, &size, text->packed, packed) != Z_OK || size != text->size)
            return -EIO;
        sum = workload_mix(sum, adler32(i, text->unpacked, (uInt)size));
    }
    if (memcmp(text->plain, text->unpacked, text->size) != 0)
        return -EILSEQ;
    *checksum = workload_mix(sum, crc32(packed, text->packed, (uInt)packed));
    return 0;
}

const struct workload zlib_workload = {
    .name = "zlib",
    .unit = "KiB of text deflated once and inflated four times",
    .iterations = 8 << 10,
    .setup = zlib_setup,
    .run = zlib_run,
    .finish = zlib_finish,
};
