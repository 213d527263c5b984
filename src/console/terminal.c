#include "console/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

/* Whether this process group may change the terminal; also when it is no job-control terminal of ours at all. */
static bool in_foreground(int fd)
{
    pid_t group = tcgetpgrp(fd);
    return group < 0 || group == getpgrp();
}

/*
 * The guard. Every signal is blocked: what ends vireo by way of the process group must not end the guard before it has
 * done its work, and a blocked SIGTTOU lets tcsetattr() through. Calls only what is safe after fork() in a process with threads.
 */
static _Noreturn void guard_terminal(int fd, const struct termios *saved, int from_owner)
{
    char byte;

    prctl(PR_SET_NAME, "vireo-terminal");
    if (dup2(fd, 0) < 0 || dup2(from_owner, 1) < 0)
        _exit(1);
    close_range(2, ~0U, 0);
    while (read(1, &byte, 1) < 0 && errno == EINTR)
        ;
    if (in_foreground(0))
        tcsetattr(0, TCSANOW, saved);
    _exit(0);
}

static int start_guard(struct terminal *t)
{
    sigset_t all, old;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    t->guard = fork();
    if (t->guard == 0)
        guard_terminal(t->fd, &t->saved, ends[0]);
    int r = t->guard < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(ends[0]);
    if (r < 0)
        close(ends[1]);
    else
        t->guard_fd = ends[1];
    return r;
}

int terminal_open(struct terminal *t, int fd, struct err *err)
{
    *t = (struct terminal){.fd = fd};
    if (tcgetattr(fd, &t->saved) < 0)
        return err_set(err, -errno, "terminal: cannot read its modes: %s", strerror(errno));
    int r = start_guard(t);
    if (r < 0)
        return err_set(err, r, "terminal: cannot start the process that restores it: %s", strerror(-r));
    terminal_set_raw(t, true);
    return 0;
}

void terminal_set_raw(struct terminal *t, bool raw)
{
    struct termios modes = t->saved;

    if (!in_foreground(t->fd))
        return;
    if (raw)
        cfmakeraw(&modes);
    tcsetattr(t->fd, TCSANOW, &modes);
    log_set_raw(raw);
}

void terminal_close(struct terminal *t)
{
    /* The guard restores the modes: the same path at every end. */
    close(t->guard_fd);
    while (waitpid(t->guard, NULL, 0) < 0 && errno == EINTR)
        ;
    log_set_raw(false);
}
