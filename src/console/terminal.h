/*
 * A terminal in raw mode, and the certainty that it is restored. vireo restores it itself when it ends in order; for
 * every other end - a crash, SIGKILL - a small child process waits for vireo's death and restores it then. It runs
 * nothing else and lives in memory shared with its parent until one of them writes.
 *
 * Threads: one at a time. terminal_open() forks.
 */
#ifndef CONSOLE_TERMINAL_H
#define CONSOLE_TERMINAL_H

#include <stdbool.h>
#include <sys/types.h>
#include <termios.h>

#include "base/err.h"

struct terminal {
    int fd; /* the caller's */
    struct termios saved;
    pid_t guard;
    int guard_fd; /* closing it without a word makes the guard restore the terminal */
};

/* Remembers the terminal's modes, sets the guard on them, and makes it raw. */
int terminal_open(struct terminal *t, int fd, struct err *err) MUST_CHECK;
void terminal_close(struct terminal *t);

/* Raw mode for the guest, or the modes found at the start. Does nothing while another job has the terminal. */
void terminal_set_raw(struct terminal *t, bool raw);

#endif
