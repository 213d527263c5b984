#include "net/user_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_A_TIME 64

int user_watch_open(struct user_watch *w)
{
    *w = (struct user_watch){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    return w->epoll_fd < 0 ? -errno : 0;
}

void user_watch_close(struct user_watch *w)
{
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    free(w->by_fd);
    free(w->fds);
}

static bool make_room(struct user_watch *w, int fd)
{
    int n = w->n_by_fd ? w->n_by_fd : 64;

    while (n <= fd)
        n *= 2;
    if (n == w->n_by_fd)
        return true;
    struct user_watched *by_fd = realloc(w->by_fd, (size_t)n * sizeof(*by_fd));
    if (!by_fd)
        return false;
    w->by_fd = by_fd;
    int *fds = realloc(w->fds, (size_t)n * sizeof(*fds));
    if (!fds)
        return false;
    w->fds = fds;
    memset(by_fd + w->n_by_fd, 0, (size_t)(n - w->n_by_fd) * sizeof(*by_fd));
    w->n_by_fd = n;
    return true;
}

void user_watch_begin(struct user_watch *w)
{
    w->round++;
}

int user_watch_name(struct user_watch *w, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.fd = fd};

    if (fd < 0 || !make_room(w, fd))
        return -1;
    struct user_watched *d = &w->by_fd[fd];
    d->named_in = w->round;
    if (d->events == events)
        return fd;
    int r = epoll_ctl(w->epoll_fd, d->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
    if (r < 0 && d->events && errno == ENOENT) /* another socket under an old number */
        r = epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    if (r < 0)
        return -1;
    if (!d->events) {
        d->place = w->n_fds;
        w->fds[w->n_fds++] = fd;
    }
    d->events = events;
    return fd;
}

void user_watch_forget(struct user_watch *w, int fd)
{
    struct user_watched *d = fd >= 0 && fd < w->n_by_fd ? &w->by_fd[fd] : NULL;

    if (!d || !d->events)
        return;
    epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    w->fds[d->place] = w->fds[--w->n_fds];
    w->by_fd[w->fds[d->place]].place = d->place;
    d->events = d->ready = 0;
}

/* Not by a change to "nothing": an epoll tells of hang-ups all the same. */
void user_watch_end(struct user_watch *w)
{
    for (int i = w->n_fds - 1; i >= 0; i--)
        if (w->by_fd[w->fds[i]].named_in != w->round)
            user_watch_forget(w, w->fds[i]);
}

void user_watch_collect(struct user_watch *w)
{
    struct epoll_event events[EVENTS_A_TIME];
    int n = epoll_wait(w->epoll_fd, events, EVENTS_A_TIME, 0);

    for (int i = 0; i < n; i++)
        w->by_fd[events[i].data.fd].ready = events[i].events;
}

uint32_t user_watch_ready(const struct user_watch *w, int fd)
{
    return fd >= 0 && fd < w->n_by_fd ? w->by_fd[fd].ready : 0;
}

void user_watch_clear(struct user_watch *w)
{
    for (int i = 0; i < w->n_fds; i++)
        w->by_fd[w->fds[i]].ready = 0;
}
