/* The cheapest system call there is: into the kernel and back. */
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

static int syscall_setup(uint64_t n, void **state)
{
    (void)n;
    *state = NULL;
    return 0;
}

static int syscall_run(void *state, uint64_t n, uint64_t *checksum)
{
    long parent = syscall(SYS_getppid);
    uint64_t same = 0;

    (void)state;
    for (uint64_t i = 0; i < n; i++)
        same += syscall(SYS_getppid) == parent;
    *checksum = same;
    return 0;
}

static void syscall_finish(void *state)
{
    (void)state;
}

const struct workload syscall_workload = {
    .name = "syscall",
    .unit = "getppid",
    .iterations = 2 << 20,
    .setup = syscall_setup,
    .run = syscall_run,
    .finish = syscall_finish,
};
