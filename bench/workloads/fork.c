/* Processes: fork, exec of this very program, which is static and exits with a status of our choice, and wait. */
#include <stddef.h>

#include "spawn.h"
#include "workload.h"

static int fork_setup(uint64_t n, void **state)
{
    (void)n;
    *state = NULL;
    return 0;
}

static int fork_run(void *state, uint64_t n, uint64_t *checksum)
{
    (void)state;
    return spawn_and_wait("/proc/self/exe", n, checksum);
}

static void fork_finish(void *state)
{
    (void)state;
}

const struct workload fork_workload = {
    .name = "fork",
    .unit = "fork, exec of a static program, exit and wait",
    .iterations = 512,
    .one_cpu = true,
    .setup = fork_setup,
    .run = fork_run,
    .finish = fork_finish,
};
