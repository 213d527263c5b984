/* Two processes and two pipes: a byte goes to a child, which sends it back changed. One iteration is a round trip, two switches of address space. */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

struct peer {
    pid_t pid;
    int to;   /* we write, the child reads */
    int from; /* the child writes, we read */
};

static void answer(int in, int out)
{
    uint8_t byte;

    while (read(in, &byte, 1) == 1) {
        byte = (uint8_t)(byte * 5 + 1);
        if (write(out, &byte, 1) != 1)
            break;
    }
}

static int spawn(struct peer *peer, int down[2], int up[2])
{
    peer->pid = fork();
    if (peer->pid < 0)
        return -errno;
    if (!peer->pid) {
        close(down[1]);
        close(up[0]);
        answer(down[0], up[1]);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    peer->to = down[1];
    peer->from = up[0];
    return 0;
}

static int pipe_setup(uint64_t n, void **state)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    int down[2], up[2];
    int r;

    (void)n;
    if (!peer)
        return -ENOMEM;
    if (pipe(down)) {
        r = -errno;
        goto out_free;
    }
    if (pipe(up)) {
        r = -errno;
        goto out_down;
    }
    r = spawn(peer, down, up);
    if (r)
        goto out_up;
    *state = peer;
    return 0;

out_up:
    close(up[0]);
    close(up[1]);
out_down:
    close(down[0]);
    close(down[1]);
out_free:
    free(peer);
    return r;
}

static int pipe_run(void *state, uint64_t n, uint64_t *checksum)
{
    const struct peer *peer = state;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(sum ^ i);

        if (write(peer->to, &byte, 1) != 1 || read(peer->from, &byte, 1) != 1)
            return -EPIPE;
        sum = workload_mix(sum, byte);
    }
    *checksum = sum;
    return 0;
}

static void pipe_finish(void *state)
{
    struct peer *peer = state;

    close(peer->to); /* the child reads the end and exits */
    close(peer->from);
    waitpid(peer->pid, NULL, 0);
    free(peer);
}

const struct workload pipe_workload = {
    .name = "pipe",
    .unit = "round trip between two processes",
    .iterations = 64 << 10,
    .one_cpu = true,
    .setup = pipe_setup,
    .run = pipe_run,
    .finish = pipe_finish,
};
