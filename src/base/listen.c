#include "base/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

/* Connections that wait until they are accepted; where many come at once, more. */
#define BACKLOG          16
#define BACKLOG_MESSAGES 64

/* A socket that nobody listens on any more may be replaced; anything else at that path may not. */
static int clear_path(const struct sockaddr_un *addr, int type, struct err *err)
{
    struct stat st;

    if (lstat(addr->sun_path, &st) < 0)
        return 0; /* bind() will say what is wrong, if anything is */
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST, "'%s' exists and is no socket", addr->sun_path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    int r = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
    close(fd);
    if (r != -ECONNREFUSED)
        return err_set(err, -EADDRINUSE, "'%s' is a socket that another process listens on", addr->sun_path);
    unlink(addr->sun_path);
    return 0;
}

static int listen_path(struct listen_socket *s, const char *path, int type, struct err *err)
{
    int r;

    *s = (struct listen_socket){.fd = -1, .addr.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(s->addr.sun_path))
        return err_set(err, -ENAMETOOLONG, "the socket's path '%.80s...' has %zu bytes; up to %zu are accepted", path,
                       strlen(path), sizeof(s->addr.sun_path) - 1);
    memcpy(s->addr.sun_path, path, strlen(path));
    r = clear_path(&s->addr, type, err);
    if (r < 0)
        return r;
    s->fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return err_set(err, -errno, "socket: %s", strerror(errno));
    (void)fchmod(s->fd, 0600); /* the file that bind() makes is its owner's alone */
    if (bind(s->fd, (const struct sockaddr *)&s->addr, sizeof(s->addr)) < 0) {
        r = err_set(err, -errno, "cannot make the socket '%s': %s", s->addr.sun_path, strerror(errno));
        goto close_socket;
    }
    if (lstat(s->addr.sun_path, &s->made) < 0 || listen(s->fd, type == SOCK_STREAM ? BACKLOG : BACKLOG_MESSAGES) < 0) {
        r = err_set(err, -errno, "cannot listen on '%s': %s", s->addr.sun_path, strerror(errno));
        goto unlink_socket;
    }
    return 0;

unlink_socket:
    unlink(s->addr.sun_path);
close_socket:
    close(s->fd);
    s->fd = -1;
    return r;
}

int listen_unix(struct listen_socket *s, const char *path, struct err *err)
{
    return listen_path(s, path, SOCK_STREAM, err);
}

int listen_unix_messages(struct listen_socket *s, const char *path, struct err *err)
{
    return listen_path(s, path, SOCK_SEQPACKET, err);
}

/* A listening socket on that address, or -errno. */
static int listen_at(const struct addrinfo *ai)
{
    int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);

    if (fd < 0)
        return -errno;
    /* Connections of an earlier process that are still closing do not count as use of the port. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
        listen(fd, BACKLOG) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

int listen_tcp(struct listen_socket *s, const char *host, const char *port, struct err *err)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list;

    *s = (struct listen_socket){.fd = -1};
    int r = getaddrinfo(host, port, &hints, &list);
    if (r)
        return err_set(err, r == EAI_MEMORY ? -ENOMEM : -EINVAL, "host '%.100s': %s", host, gai_strerror(r));
    r = -EADDRNOTAVAIL;
    for (const struct addrinfo *ai = list; ai && s->fd < 0; ai = ai->ai_next)
        r = s->fd = listen_at(ai);
    freeaddrinfo(list);
    if (r < 0)
        return err_set(err, r, "cannot listen on port %s of '%.100s': %s", port, host, strerror(-r));
    return 0;
}

unsigned listen_port(const struct listen_socket *s)
{
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof(addr);

    if (getsockname(s->fd, (struct sockaddr *)&addr, &len) < 0)
        return 0;
    if (addr.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&addr)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&addr)->sin_port);
}

void listen_close(struct listen_socket *s)
{
    struct stat now;

    if (s->fd < 0)
        return;
    close(s->fd);
    s->fd = -1;
    if (*s->addr.sun_path && lstat(s->addr.sun_path, &now) == 0 && now.st_dev == s->made.st_dev &&
        now.st_ino == s->made.st_ino)
        unlink(s->addr.sun_path);
}
