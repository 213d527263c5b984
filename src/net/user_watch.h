/*
 * The descriptors that libslirp waits for, for user.c. libslirp names them all before each sleep; they are kept in an epoll, which is changed only
 * where their set is, and which the interface's loop watches as one descriptor.
 *
 * Threads: the interface's.
 */
#ifndef NET_USER_WATCH_H
#define NET_USER_WATCH_H

#include <stdbool.h>

#include "base/util.h"

/* At the index of a descriptor's number. */
struct user_watched {
    uint32_t events;   /* EPOLL bits as they are in the epoll; 0: it is not there */
    uint32_t ready;    /* what the epoll said */
    uint32_t named_in; /* the round in which it was named last */
    int place;         /* in `fds`, when it is in the epoll */
};

struct user_watch {
    int epoll_fd;
    struct user_watched *by_fd;
    int n_by_fd;
    int *fds; /* those in the epoll */
    int n_fds;
    uint32_t round;
};

int user_watch_open(struct user_watch *w) MUST_CHECK; /* -errno */
void user_watch_close(struct user_watch *w);

/* All that are to be watched are named between these two; others are not watched any more. -1: it cannot be. */
void user_watch_begin(struct user_watch *w);
int user_watch_name(struct user_watch *w, int fd, uint32_t events);
void user_watch_end(struct user_watch *w);

/* It will be closed, and its number may come again. */
void user_watch_forget(struct user_watch *w, int fd);

/* What is ready now, until user_watch_clear(). */
void user_watch_collect(struct user_watch *w);
uint32_t user_watch_ready(const struct user_watch *w, int fd);
void user_watch_clear(struct user_watch *w);

#endif
