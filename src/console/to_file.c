/*
 * The console into a file: output only. A disk that fills up loses the rest of the output, and says so once; the guest
 * goes on. Threads: see chardev.h; all writing happens on the loop's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "console/console.h"
#include "console/output.h"

struct file {
    struct chardev dev;
    struct output out;
    int fd;
    char *path;
};

static struct file *of(struct chardev *dev)
{
    return CONTAINER_OF(dev, struct file, dev);
}

static void output_failed(void *opaque, int error)
{
    struct file *f = opaque;

    log_error("console: cannot write '%s': %s; further output is lost", f->path, strerror(error));
}

static size_t file_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return output_write(&of(dev)->out, buf, len);
}

static size_t file_room(struct chardev *dev)
{
    return output_room(&of(dev)->out);
}

static void file_accept_input(struct chardev *dev)
{
}

static void file_close(struct chardev *dev)
{
    struct file *f = of(dev);

    output_fini(&f->out);
    close(f->fd);
    free(f->path);
    free(f);
}

static const struct chardev_ops file_ops = {
    .name = "file",
    .write = file_write,
    .room = file_room,
    .accept_input = file_accept_input,
    .close = file_close,
};

int to_file_open(struct chardev **dev, const struct console_conf *conf, struct err *err)
{
    struct file *f = calloc(1, sizeof(*f));
    int r;

    if (!f || !(f->path = strdup(conf->arg))) {
        r = err_set(err, -ENOMEM, "console: out of memory");
        goto free_file;
    }
    f->dev.ops = &file_ops;
    /* Not blocking, so that a FIFO nobody reads is an error and not a wait. */
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        r = err_set(err, -errno, "console: cannot write '%s': %s", f->path, strerror(errno));
        goto free_path;
    }
    output_init(&f->out, conf->loop, &f->dev, output_failed, f);
    output_attach(&f->out, f->fd);
    *dev = &f->dev;
    return 0;

free_path:
    free(f->path);
free_file:
    free(f);
    return r;
}
