/* A child process that runs another program and says by its exit status that it did. */
#ifndef WORKLOADS_SPAWN_H
#define WORKLOADS_SPAWN_H

#include <stdint.h>

/*
 * n times: fork, exec of `path` with the arguments "--exit" and a status of 0 to 63, wait. The program must end with that status.
 * *checksum is of the statuses. 0 or -errno, -ECHILD when the program did not do so.
 */
int spawn_and_wait(const char *path, uint64_t n, uint64_t *checksum);

#endif
