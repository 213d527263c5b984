/* Processes as most are: fork, exec of a program that the dynamic linker links with the C library, exit and wait. It lies beside this one. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "spawn.h"
#include "workload.h"

#define PROGRAM "bench-dynamic"

static int fork_dynamic_setup(uint64_t n, void **state)
{
    char *path = calloc(1, PATH_MAX);
    char *slash;
    ssize_t length;

    (void)n;
    if (!path)
        return -ENOMEM;
    length = readlink("/proc/self/exe", path, PATH_MAX - sizeof(PROGRAM));
    slash = length > 0 ? strrchr(path, '/') : NULL;
    if (!slash) {
        free(path);
        return -ENOENT;
    }
    memcpy(slash + 1, PROGRAM, sizeof(PROGRAM));
    *state = path;
    return 0;
}

static int fork_dynamic_run(void *state, uint64_t n, uint64_t *checksum)
{
    return spawn_and_wait(state, n, checksum);
}

const struct workload fork_dynamic_workload = {
    .name = "fork_dynamic",
    .unit = "the same of a program linked dynamically",
    .iterations = 512,
    .one_cpu = true,
    .setup = fork_dynamic_setup,
    .run = fork_dynamic_run,
    .finish = free,
};
