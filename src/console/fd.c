#include "console/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a terminal or pipe that polls as writable takes without blocking: Linux' WAKEUP_CHARS for terminals is 256. */
#define SURE_CHUNK 256

int fd_own(int fd, int flags)
{
    char path[32];
    struct stat st;
    int own = -1;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISFIFO(st.st_mode) || isatty(fd)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    if (own < 0)
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

ssize_t fd_write(int fd, const void *buf, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISSOCK(st.st_mode)) {
        n = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        return n < 0 ? -errno : n;
    }
    if (!S_ISREG(st.st_mode) && !(fcntl(fd, F_GETFL) & O_NONBLOCK)) {
        if (poll(&p, 1, 0) <= 0)
            return -EAGAIN;
        len = len < SURE_CHUNK ? len : SURE_CHUNK;
    }
    do {
        n = write(fd, buf, len);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t fd_read(int fd, void *buf, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n;

    /* Another process that shares a blocking descriptor may have taken what there was. */
    if (!(fcntl(fd, F_GETFL) & O_NONBLOCK) && poll(&p, 1, 0) == 0)
        return -EAGAIN;
    do {
        n = read(fd, buf, len);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
