#include <errno.h>
#include <stdlib.h>

#include "disk/qcow2_check.h"

#define CHUNK       4096 /* clusters */
#define N_CHUNKS    (QCOW2_CHECK_WINDOW / CHUNK)
#define FLAG_BITS   5
#define FLAG_MASK   31u
#define NARROW_MOST ((1u << 11) - 1)
#define WIDE_MOST   ((1u << 27) - 1)

int qcow2_counts_init(struct qcow2_counts *counts)
{
    *counts = (struct qcow2_counts){.chunks = calloc(N_CHUNKS, sizeof(*counts->chunks))};
    return counts->chunks ? 0 : -ENOMEM;
}

void qcow2_counts_clear(struct qcow2_counts *counts, uint64_t first)
{
    counts->first = first;
    for (size_t i = 0; i < N_CHUNKS; i++) {
        free(counts->chunks[i].narrow);
        free(counts->chunks[i].wide);
        counts->chunks[i] = (struct qcow2_counts_chunk){NULL, NULL};
    }
}

void qcow2_counts_fini(struct qcow2_counts *counts)
{
    if (counts->chunks)
        qcow2_counts_clear(counts, 0);
    free(counts->chunks);
}

static int widen(struct qcow2_counts_chunk *chunk)
{
    chunk->wide = calloc(CHUNK, sizeof(*chunk->wide));
    if (!chunk->wide)
        return -ENOMEM;
    for (size_t i = 0; i < CHUNK; i++)
        chunk->wide[i] = chunk->narrow[i];
    free(chunk->narrow);
    chunk->narrow = NULL;
    return 0;
}

int qcow2_counts_add(struct qcow2_counts *counts, uint64_t cluster, unsigned n, unsigned flags)
{
    uint64_t i = cluster - counts->first;
    struct qcow2_counts_chunk *chunk = &counts->chunks[i / CHUNK];
    size_t at = i % CHUNK;

    if (!chunk->narrow && !chunk->wide) {
        chunk->narrow = calloc(CHUNK, sizeof(*chunk->narrow));
        if (!chunk->narrow)
            return -ENOMEM;
    }
    if (chunk->narrow && (chunk->narrow[at] >> FLAG_BITS) + n > NARROW_MOST && widen(chunk))
        return -ENOMEM;
    uint32_t old = chunk->narrow ? chunk->narrow[at] : chunk->wide[at];
    uint32_t count = old >> FLAG_BITS;
    count = count + n > WIDE_MOST ? WIDE_MOST : count + n;
    uint32_t new = count << FLAG_BITS | (old & FLAG_MASK) | flags;
    if (chunk->narrow)
        chunk->narrow[at] = (uint16_t) new;
    else
        chunk->wide[at] = new;
    return 0;
}

uint32_t qcow2_counts_get(const struct qcow2_counts *counts, uint64_t cluster, unsigned *flags)
{
    uint64_t i = cluster - counts->first;
    const struct qcow2_counts_chunk *chunk = &counts->chunks[i / CHUNK];
    uint32_t value = chunk->narrow ? chunk->narrow[i % CHUNK] : chunk->wide ? chunk->wide[i % CHUNK] : 0;

    *flags = value & FLAG_MASK;
    return value >> FLAG_BITS;
}
