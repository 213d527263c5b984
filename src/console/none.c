/* No console: output is dropped, and there is never any input. */
#include <errno.h>
#include <stdlib.h>

#include "console/console.h"

static size_t none_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return len;
}

static size_t none_room(struct chardev *dev)
{
    return CHARDEV_BUFFER;
}

static void none_accept_input(struct chardev *dev)
{
}

static void none_close(struct chardev *dev)
{
    free(dev);
}

static const struct chardev_ops none_ops = {
    .name = "none",
    .write = none_write,
    .room = none_room,
    .accept_input = none_accept_input,
    .close = none_close,
};

int none_open(struct chardev **dev, const struct console_conf *conf, struct err *err)
{
    *dev = calloc(1, sizeof(**dev));
    if (!*dev)
        return err_set(err, -ENOMEM, "console: out of memory");
    (*dev)->ops = &none_ops;
    return 0;
}
