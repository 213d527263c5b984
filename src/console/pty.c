/*
 * The console on a new pseudo-terminal, for screen, minicom and the like. While nobody has it open, the newest output is
 * kept for whoever comes (output.h). That somebody opens it is seen through inotify; that the last one closed it, by the
 * master's hang-up.
 *
 * Threads: see chardev.h; opening and closing are noticed on the loop's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "console/console.h"
#include "console/input.h"
#include "console/output.h"

struct pty {
    struct chardev dev;
    struct loop *loop;
    struct input in;
    struct output out;
    int in_fd, out_fd;      /* the master, twice: the loop takes a descriptor for one purpose only */
    struct loop_fd opening; /* inotify on the slave */
    bool connected;
};

static struct pty *of(struct chardev *dev)
{
    return CONTAINER_OF(dev, struct pty, dev);
}

static void disconnect(struct pty *p)
{
    input_detach(&p->in);
    output_detach(&p->out);
    p->connected = false;
    chardev_set_away(&p->dev, true);
}

static void input_ended(void *opaque)
{
    disconnect(opaque);
}

static const struct input_ops input_ops = {.ended = input_ended};

static void output_failed(void *opaque, int error)
{
    disconnect(opaque);
}

static void on_opening(void *opaque, uint32_t events)
{
    struct pty *p = opaque;
    char buf[sizeof(struct inotify_event) * 16] __attribute__((aligned(8)));

    while (read(p->opening.fd, buf, sizeof(buf)) > 0)
        ;
    if (p->connected || input_attach(&p->in, p->in_fd, false) < 0)
        return;
    p->connected = true;
    output_attach(&p->out, p->out_fd);
    chardev_set_away(&p->dev, false);
}

static size_t pty_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return output_write(&of(dev)->out, buf, len);
}

static size_t pty_room(struct chardev *dev)
{
    return output_room(&of(dev)->out);
}

static void pty_accept_input(struct chardev *dev)
{
    input_accept(&of(dev)->in);
}

static void pty_close(struct chardev *dev)
{
    struct pty *p = of(dev);

    input_fini(&p->in);
    output_fini(&p->out);
    loop_fd_remove(p->loop, &p->opening);
    close(p->opening.fd);
    close(p->out_fd);
    close(p->in_fd);
    free(p);
}

static const struct chardev_ops pty_ops = {
    .name = "pty",
    .write = pty_write,
    .room = pty_room,
    .accept_input = pty_accept_input,
    .close = pty_close,
};

/* A raw pseudo-terminal: a slave that echoed would send the guest its own output. */
static int open_master(struct pty *p, char *path, size_t size)
{
    struct termios modes;
    int r;

    p->in_fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (p->in_fd < 0)
        return -errno;
    p->out_fd = fcntl(p->in_fd, F_DUPFD_CLOEXEC, 3);
    if (p->out_fd < 0) {
        r = -errno;
        goto close_in;
    }
    if (grantpt(p->in_fd) < 0 || unlockpt(p->in_fd) < 0 || ptsname_r(p->in_fd, path, size) != 0 ||
        tcgetattr(p->in_fd, &modes) < 0) {
        r = -errno;
        goto close_out;
    }
    cfmakeraw(&modes);
    if (tcsetattr(p->in_fd, TCSANOW, &modes) < 0) {
        r = -errno;
        goto close_out;
    }
    return 0;

close_out:
    close(p->out_fd);
close_in:
    close(p->in_fd);
    return r;
}

static int watch_opening(struct pty *p, const char *path)
{
    int r;

    p->opening = (struct loop_fd){.fn = on_opening, .opaque = p};
    p->opening.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (p->opening.fd < 0)
        return -errno;
    r = inotify_add_watch(p->opening.fd, path, IN_OPEN) < 0 ? -errno : loop_fd_add(p->loop, &p->opening, EPOLLIN);
    if (r < 0)
        close(p->opening.fd);
    return r;
}

int pty_open(struct chardev **dev, const struct console_conf *conf, struct err *err)
{
    struct pty *p = calloc(1, sizeof(*p));
    char path[64], line[96];
    int r;

    if (!p)
        return err_set(err, -ENOMEM, "console: out of memory");
    p->dev.ops = &pty_ops;
    p->dev.away = true;
    p->loop = conf->loop;
    r = open_master(p, path, sizeof(path));
    if (r < 0)
        goto free_pty;
    r = watch_opening(p, path);
    if (r < 0)
        goto close_master;
    input_init(&p->in, p->loop, &p->dev, &input_ops, p);
    output_init(&p->out, p->loop, &p->dev, output_failed, p);
    snprintf(line, sizeof(line), "console: %s", path);
    conf->hooks->notice(conf->hooks->opaque, line);
    *dev = &p->dev;
    return 0;

close_master:
    close(p->out_fd);
    close(p->in_fd);
free_pty:
    free(p);
    return err_set(err, r, "console: cannot make a pseudo-terminal: %s", strerror(-r));
}
