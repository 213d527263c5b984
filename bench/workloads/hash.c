/* A chained hash table that counts random keys: 64 Ki entries are inserted as they come up, then it is look-ups, half of which miss. */
#include <errno.h>
#include <stdlib.h>

#include "workload.h"

#define BUCKETS 16384
#define ENTRIES 65536
#define KEYS    (2 * ENTRIES)

struct entry {
    uint64_t key;
    uint64_t count;
    struct entry *next;
};

struct table {
    struct entry *bucket[BUCKETS];
    struct entry entry[ENTRIES];
    unsigned used;
};

static int hash_setup(uint64_t n, void **state)
{
    (void)n;
    *state = calloc(1, sizeof(struct table));
    return *state ? 0 : -ENOMEM;
}

static int hash_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct table *table = state;
    uint64_t seed = 3, misses = 0, sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t key = workload_random(&seed) % KEYS * UINT64_C(0x100000001b3);
        struct entry **head = &table->bucket[(key ^ key >> 23) % BUCKETS];
        struct entry *entry = *head;

        while (entry && entry->key != key)
            entry = entry->next;
        if (!entry && table->used < ENTRIES) {
            entry = &table->entry[table->used++];
            entry->key = key;
            entry->next = *head;
            *head = entry;
        }
        if (entry)
            entry->count++;
        else
            misses++;
    }
    for (unsigned i = 0; i < table->used; i++)
        sum = workload_mix(sum, table->entry[i].key + table->entry[i].count);
    *checksum = workload_mix(sum, misses);
    return 0;
}

const struct workload hash_workload = {
    .name = "hash",
    .unit = "look-up or insertion in a hash table",
    .iterations = 16 << 20,
    .setup = hash_setup,
    .run = hash_run,
    .finish = free,
};
