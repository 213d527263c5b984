#include "console/input.h"

#include <errno.h>
#include <sys/epoll.h>

#include "console/fd.h"

static void on_readable(void *opaque, uint32_t events);

void input_init(struct input *in, struct loop *loop, struct chardev *dev, const struct input_ops *ops, void *opaque)
{
    in->loop = loop;
    in->dev = dev;
    in->ops = ops;
    in->opaque = opaque;
    in->source = (struct loop_fd){.fd = -1, .fn = on_readable, .opaque = in};
}

void input_fini(struct input *in)
{
    input_detach(in);
}

static int watch(struct input *in)
{
    if (in->watched || in->unpollable)
        return 0;
    int r = loop_fd_add(in->loop, &in->source, EPOLLIN);
    in->watched = r == 0;
    if (r == -EPERM) {
        in->unpollable = true;
        r = 0;
    }
    return r;
}

static void unwatch(struct input *in)
{
    if (in->watched)
        loop_fd_remove(in->loop, &in->source);
    in->watched = false;
}

static void end(struct input *in)
{
    input_detach(in);
    if (in->ops->ended)
        in->ops->ended(in->opaque);
}

/* Hands over what the receiver takes now. */
static void deliver(struct input *in)
{
    const struct chardev_receiver *to = &in->dev->receiver;

    while (in->len && to->receive) {
        size_t n = to->can_receive(to->opaque);
        size_t run = INPUT_BUFFER - in->head;

        if (!n)
            return;
        n = n < in->len ? n : in->len;
        n = n < run ? n : run;
        uint8_t *from = in->buf + in->head;
        in->head = (in->head + n) % INPUT_BUFFER;
        in->len -= n;
        to->receive(to->opaque, from, n);
    }
}

/* Reads once, as much as there is room for; whether anything came. */
static bool read_once(struct input *in)
{
    uint8_t buf[1024];
    size_t room = INPUT_BUFFER - in->len;

    size_t want = in->lossy || room > sizeof(buf) ? sizeof(buf) : room;
    if (!want)
        return false;
    ssize_t n = fd_read(in->source.fd, buf, want);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        end(in);
        return false;
    }
    size_t left = in->ops->filter ? in->ops->filter(in->opaque, buf, (size_t)n) : (size_t)n;
    for (size_t i = 0; i < left && in->len < INPUT_BUFFER; i++)
        in->buf[(in->head + in->len++) % INPUT_BUFFER] = buf[i];
    return true;
}

static void on_readable(void *opaque, uint32_t events)
{
    struct input *in = opaque;

    read_once(in);
    deliver(in);
    if (in->len == INPUT_BUFFER && !in->lossy)
        unwatch(in);
}

/* On the loop's thread: the receiver may take more. */
static void look(void *opaque)
{
    struct input *in = opaque;

    atomic_store(&in->posted, false);
    deliver(in);
    if (in->unpollable && in->source.fd >= 0 && read_once(in)) {
        deliver(in);
        if (!in->len)
            input_accept(in); /* it all went: look again, after what else the loop has to do */
    }
    if (in->source.fd >= 0 && in->len < INPUT_BUFFER && watch(in) < 0)
        end(in);
}

int input_attach(struct input *in, int fd, bool lossy)
{
    in->source.fd = fd;
    in->lossy = lossy;
    in->unpollable = false;
    int r = watch(in);
    if (r < 0)
        in->source.fd = -1;
    else if (in->unpollable)
        input_accept(in);
    return r;
}

void input_detach(struct input *in)
{
    unwatch(in);
    in->source.fd = -1;
}

void input_accept(struct input *in)
{
    /* Without memory to ask with, the next byte that arrives or is taken asks again. */
    if (!atomic_exchange(&in->posted, true) && loop_post(in->loop, look, in) < 0)
        atomic_store(&in->posted, false);
}
