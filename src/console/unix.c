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
#include <unistd.h>

#include "base/listen.h"
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
    struct listen_socket socket;
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

static void close_client(struct unix_console *u)
{
    if (u->in_fd >= 0)
        close(u->in_fd);
    if (u->out_fd >= 0)
        close(u->out_fd);
    u->in_fd = u->out_fd = -1;
}

static void disconnect(struct unix_console *u)
{
    input_detach(&u->in);
    output_detach(&u->out);
    close_client(u);
    chardev_set_away(&u->dev, true);
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
    chardev_set_away(&u->dev, false);
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

    input_fini(&u->in);
    output_fini(&u->out);
    close_client(u);
    if (u->listening)
        loop_fd_remove(u->loop, &u->listener);
    listen_close(&u->socket);
    free(u);
}

static const struct chardev_ops unix_ops = {
    .name = "unix",
    .write = unix_write,
    .room = unix_room,
    .accept_input = unix_accept_input,
    .close = unix_close,
};

int unix_open(struct chardev **dev, const struct console_conf *conf, struct err *err)
{
    struct unix_console *u = calloc(1, sizeof(*u));
    int r;

    if (!u)
        return err_set(err, -ENOMEM, "console: out of memory");
    u->dev.ops = &unix_ops;
    u->dev.away = true;
    u->loop = conf->loop;
    u->in_fd = u->out_fd = -1;
    r = listen_unix(&u->socket, conf->arg, err);
    if (r < 0) {
        err_prefix(err, "console");
        goto free_console;
    }
    u->listener = (struct loop_fd){.fd = u->socket.fd, .fn = on_connection, .opaque = u};
    r = loop_fd_add(u->loop, &u->listener, EPOLLIN);
    if (r < 0) {
        err_set(err, r, "console: '%s': %s", conf->arg, strerror(-r));
        goto close_listener;
    }
    u->listening = true;
    input_init(&u->in, u->loop, &u->dev, &input_ops, u);
    output_init(&u->out, u->loop, &u->dev, output_failed, u);
    *dev = &u->dev;
    return 0;

close_listener:
    listen_close(&u->socket);
free_console:
    free(u);
    return r;
}
