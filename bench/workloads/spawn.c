#include "spawn.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define STATUS_COUNT 64 /* statuses given to the child: 0 to 63 */

static int run_child(const char *path, unsigned status)
{
    char text[16];
    int wait_status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (!pid) {
        snprintf(text, sizeof(text), "%u", status);
        execl(path, path, "--exit", text, NULL);
        _exit(255);
    }
    if (waitpid(pid, &wait_status, 0) != pid)
        return -errno;
    return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == (int)status ? 0 : -ECHILD;
}

int spawn_and_wait(const char *path, uint64_t n, uint64_t *checksum)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        unsigned status = (unsigned)(i % STATUS_COUNT);
        int r = run_child(path, status);

        if (r)
            return r;
        sum = workload_mix(sum, status);
    }
    *checksum = sum;
    return 0;
}
