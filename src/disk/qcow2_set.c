/*
 * A hash set with linear probing, at most two thirds full. Who makes an image chooses the clusters: a random key keeps them from choosing ones that
 * all meet in one chain.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "disk/qcow2_impl.h"

static size_t slot_of(const struct qcow2_set *set, uint64_t cluster)
{
    uint64_t x = cluster ^ set->key;

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (size_t)(x ^ x >> 31) & set->mask;
}

static size_t find(const struct qcow2_set *set, uint64_t cluster)
{
    size_t i = slot_of(set, cluster);

    while (set->slots[i] && set->slots[i] != cluster + 1)
        i = (i + 1) & set->mask;
    return i;
}

int qcow2_set_reserve(struct qcow2_set *set, size_t more)
{
    size_t capacity = set->slots ? set->mask + 1 : 64;
    struct qcow2_set bigger = {0};

    while ((set->n + more) * 3 > capacity * 2)
        capacity *= 2;
    if (set->slots && capacity == set->mask + 1)
        return 0;
    bigger.slots = calloc(capacity, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    bigger.mask = capacity - 1;
    bigger.key = set->key;
    if (!set->slots && getrandom(&bigger.key, sizeof(bigger.key), GRND_NONBLOCK) != sizeof(bigger.key))
        bigger.key = (uintptr_t)bigger.slots;
    bigger.n = set->n;
    for (size_t i = 0; set->slots && i <= set->mask; i++) {
        if (set->slots[i])
            bigger.slots[find(&bigger, set->slots[i] - 1)] = set->slots[i];
    }
    free(set->slots);
    *set = bigger;
    return 0;
}

int qcow2_set_add(struct qcow2_set *set, uint64_t cluster)
{
    int r = qcow2_set_reserve(set, 1);

    if (r)
        return r;
    size_t i = find(set, cluster);
    if (set->slots[i])
        return -EEXIST;
    set->slots[i] = cluster + 1;
    set->n++;
    return 0;
}

bool qcow2_set_has(const struct qcow2_set *set, uint64_t cluster)
{
    return set->slots && set->slots[find(set, cluster)];
}

/* Those behind it in its chain move up, so that no chain is cut. */
void qcow2_set_remove(struct qcow2_set *set, uint64_t cluster)
{
    if (!qcow2_set_has(set, cluster))
        return;
    size_t hole = find(set, cluster);
    for (size_t i = (hole + 1) & set->mask; set->slots[i]; i = (i + 1) & set->mask) {
        size_t home = slot_of(set, set->slots[i] - 1);
        if (((i - home) & set->mask) >= ((i - hole) & set->mask)) {
            set->slots[hole] = set->slots[i];
            hole = i;
        }
    }
    set->slots[hole] = 0;
    set->n--;
}

void qcow2_set_fini(struct qcow2_set *set)
{
    free(set->slots);
    *set = (struct qcow2_set){0};
}
