/* Processes: fork, exec of this very program, which exits with a status of our choice, and wait. */
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define STATUS_COUNT 64 /* statuses given to the child: 0 to 63 */

static int fork_setup(uint64_t n, void **state)
{
    (void)n;
    *state = NULL;
    return 0;
}

static int run_child(unsigned status)
{
    char text[16];
    int wait_status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (!pid) {
        snprintf(text, sizeof(text), "%u", status);
        execl("/proc/self/exe", "bench-workloads", "--exit", text, NULL);
        _exit(255);
    }
    if (waitpid(pid, &wait_status, 0) != pid)
        return -errno;
    return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) < STATUS_COUNT ? WEXITSTATUS(wait_status) : -ECHILD;
}

static int fork_run(void *state, uint64_t n, uint64_t *checksum)
{
    uint64_t sum = 0;

    (void)state;
    for (uint64_t i = 0; i < n; i++) {
        int status = run_child((unsigned)(i % STATUS_COUNT));

        if (status < 0)
            return status;
        sum = workload_mix(sum, (unsigned)status);
    }
    *checksum = sum;
    return 0;
}

static void fork_finish(void *state)
{
    (void)state;
}

const struct workload fork_workload = {
    .name = "fork",
    .unit = "fork, exec, exit and wait",
    .iterations = 512,
    .one_cpu = true,
    .setup = fork_setup,
    .run = fork_run,
    .finish = fork_finish,
};
