/* Dependent loads: a random cycle through 4 MiB, one pointer in each line of 64 bytes. */
#include <errno.h>
#include <stdlib.h>

#include "workload.h"

#define NODES 65536

struct node {
    struct node *next;
    uint64_t index;
    uint8_t pad[48];
};

_Static_assert(sizeof(struct node) == 64, "one node a cache line");

static int chase_setup(uint64_t n, void **state)
{
    struct node *node = aligned_alloc(sizeof(*node), NODES * sizeof(*node));
    uint64_t seed = 5;

    (void)n;
    if (!node)
        return -ENOMEM;
    for (unsigned i = 0; i < NODES; i++)
        node[i] = (struct node){.next = &node[i], .index = i};
    for (unsigned i = NODES - 1; i > 0; i--) { /* Sattolo: a permutation that is one single cycle */
        unsigned j = (unsigned)(workload_random(&seed) % i);
        struct node *next = node[i].next;

        node[i].next = node[j].next;
        node[j].next = next;
    }
    *state = node;
    return 0;
}

static int chase_run(void *state, uint64_t n, uint64_t *checksum)
{
    const struct node *node = state;

    for (uint64_t i = 0; i < n; i++)
        node = node->next;
    *checksum = node->index;
    return 0;
}

const struct workload chase_workload = {
    .name = "chase",
    .unit = "dependent load in 4 MiB",
    .iterations = 20000000, /* no multiple of the cycle, also when divided: the checksum is where the walk ends */
    .setup = chase_setup,
    .run = chase_run,
    .finish = free,
};
