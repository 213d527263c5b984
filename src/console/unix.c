/*
 * The console on a listening Unix socket. One client at a time; the next waits in the queue until the first has gone.
 * While nobody is connected, the newest output is kept for whoever comes (output.h). The socket's file is removed at the end.
 *
 * Threads: see chardev.h; connections are served on the loop's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "console/console.h"
#include "console/input.h"
#include "console/output.h"

struct unix_console {
    struct chardev dev;
    struct loop *loop;
    struct input in;
    struct output out;
    struct loop_fd listener;
    bool listening;    /* the listener is in the loop: nobody is connected */
    int in_fd, out_fd; /* the client, twice: the loop takes a descriptor for one purpose only; -1: nobody */
    struct sockaddr_un addr;
    struct stat made; /* the socket's file, as it was made */
};

static struct unix_console *of(struct chardev *dev)
{
    return CONTAINER_OF(dev, struct unix_console, dev);
}

static void listen_again(struct unix_console *u)
{
    if (!u->listening)
        u->listening = loop_fd_add(u->loop, &u->listener, EPOLLIN) == 0;
}

static void disconnect(struct unix_console *u)
{
    input_detach(&u->in);
    output_detach(&u->out);
    if (u->in_fd >= 0)
        close(u->in_fd);
    if (u->out_fd >= 0)
        close(u->out_fd);
    u->in_fd = u->out_fd = -1;
}

static void input_ended(void *opaque)
{
    disconnect(opaque);
    listen_again(opaque);
}

static const struct input_ops input_ops = {.ended = input_ended};

static void output_failed(void *opaque, int error)
{
    disconnect(opaque);
    listen_again(opaque);
}

static void on_connection(void *opaque, uint32_t events)
{
    struct unix_console *u = opaque;
    int fd = accept4(u->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    u->in_fd = fd;
    u->out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (u->out_fd < 0 || input_attach(&u->in, u->in_fd, false) < 0) {
        disconnect(u);
        return;
    }
    output_attach(&u->out, u->out_fd);
    loop_fd_remove(u->loop, &u->listener);
    u->listening = false;
}

/* A socket that nobody listens on any more may be replaced; anything else at that path may not. */
static int clear_path(const struct sockaddr_un *addr, struct err *err)
{
    struct stat st;

    if (lstat(addr->sun_path, &st) < 0)
        return 0; /* bind() will say what is wrong, if anything is */
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST, "console: '%s' exists and is no socket", addr->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "console: socket: %s", strerror(errno));
    int r = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
    close(fd);
    if (r != -ECONNREFUSED)
        return err_set(err, -EADDRINUSE, "console: '%s' is a socket that another process listens on", addr->sun_path);
    unlink(addr->sun_path);
    return 0;
}

static size_t unix_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return output_write(&of(dev)->out, buf, len);
}

static size_t unix_room(struct chardev *dev)
{
    return output_room(&of(dev)->out);
}

static void unix_accept_input(struct chardev *dev)
{
    input_accept(&of(dev)->in);
}

static void unix_close(struct chardev *dev)
{
    struct unix_console *u = of(dev);
    struct stat now;

    input_fini(&u->in);
    output_fini(&u->out);
    disconnect(u);
    if (u->listening)
        loop_fd_remove(u->loop, &u->listener);
    close(u->listener.fd);
    if (lstat(u->addr.sun_path, &now) == 0 && now.st_dev == u->made.st_dev && now.st_ino == u->made.st_ino)
        unlink(u->addr.sun_path);
    free(u);
}

static const struct chardev_ops unix_ops = {
    .name = "unix",
    .write = unix_write,
    .room = unix_room,
    .accept_input = unix_accept_input,
    .close = unix_close,
};

static int open_listener(struct unix_console *u, struct err *err)
{
    int r = clear_path(&u->addr, err);
    if (r < 0)
        return r;
    u->listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (u->listener.fd < 0)
        return err_set(err, -errno, "console: socket: %s", strerror(errno));
    if (bind(u->listener.fd, (const struct sockaddr *)&u->addr, sizeof(u->addr)) < 0) {
        r = err_set(err, -errno, "console: cannot make the socket '%s': %s", u->addr.sun_path, strerror(errno));
        goto close_listener;
    }
    if (lstat(u->addr.sun_path, &u->made) < 0 || listen(u->listener.fd, 4) < 0) {
        r = err_set(err, -errno, "console: cannot listen on '%s': %s", u->addr.sun_path, strerror(errno));
        goto unlink_socket;
    }
    r = loop_fd_add(u->loop, &u->listener, EPOLLIN);
    if (r < 0) {
        err_set(err, r, "console: '%s': %s", u->addr.sun_path, strerror(-r));
        goto unlink_socket;
    }
    u->listening = true;
    return 0;

unlink_socket:
    unlink(u->addr.sun_path);
close_listener:
    close(u->listener.fd);
    return r;
}

int unix_open(struct chardev **dev, const struct console_conf *conf, struct err *err)
{
    struct unix_console *u;
    int r;

    if (strlen(conf->arg) >= sizeof(u->addr.sun_path))
        return err_set(err, -ENAMETOOLONG,
                       "console: the socket's path '%.80s...' has %zu bytes; up to %zu are accepted", conf->arg,
                       strlen(conf->arg), sizeof(u->addr.sun_path) - 1);
    u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, -ENOMEM, "console: out of memory");
    u->dev.ops = &unix_ops;
    u->loop = conf->loop;
    u->in_fd = u->out_fd = -1;
    u->addr.sun_family = AF_UNIX;
    memcpy(u->addr.sun_path, conf->arg, strlen(conf->arg));
    u->listener = (struct loop_fd){.fn = on_connection, .opaque = u};
    r = open_listener(u, err);
    if (r < 0) {
        free(u);
        return r;
    }
    input_init(&u->in, u->loop, &u->dev, &input_ops, u);
    output_init(&u->out, u->loop, &u->dev, output_failed, u);
    *dev = &u->dev;
    return 0;
}
