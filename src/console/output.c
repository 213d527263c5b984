#include "console/output.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "console/fd.h"

#define FINAL_DRAIN_NS (NS_PER_SEC / 2)

static void on_writable(void *opaque, uint32_t events);
static void drain(void *opaque);

void output_init(struct output *out, struct loop *loop, struct chardev *dev, void (*failed)(void *opaque, int error),
                 void *opaque)
{
    out->loop = loop;
    out->dev = dev;
    out->failed = failed;
    out->opaque = opaque;
    out->source = (struct loop_fd){.fd = -1, .fn = on_writable, .opaque = out};
    pthread_mutex_init(&out->lock, NULL);
}

/* Writes from the ring until it is empty or the descriptor takes no more: 0, -EAGAIN, or another -errno. */
static int write_some_locked(struct output *out)
{
    while (out->len) {
        size_t run = sizeof(out->ring) - out->head;
        if (run > out->len)
            run = out->len;
        ssize_t n = fd_write(out->source.fd, out->ring + out->head, run);
        if (n < 0)
            return (int)n;
        out->head = (out->head + (size_t)n) % sizeof(out->ring);
        out->len -= (size_t)n;
    }
    return 0;
}

/* Has drain() run on the loop's thread soon; without memory for that, the next write tries again. */
static void schedule_locked(struct output *out)
{
    if (out->attached && out->len && !out->scheduled)
        out->scheduled = loop_post(out->loop, drain, out) == 0;
}

static void unwatch(struct output *out)
{
    if (out->watched)
        loop_fd_remove(out->loop, &out->source);
    out->watched = false;
}

/* On the loop's thread: empties the ring as far as it goes, and tells the receiver or the owner what became of it. */
static void drain(void *opaque)
{
    struct output *out = opaque;
    bool tell = false;
    int r = 0;

    pthread_mutex_lock(&out->lock);
    out->scheduled = false;
    if (out->attached) {
        r = write_some_locked(out);
        if (r == -EAGAIN) {
            if (!out->watched)
                out->watched = loop_fd_add(out->loop, &out->source, EPOLLOUT) == 0;
            out->scheduled = out->watched;
            r = 0;
        } else {
            unwatch(out);
        }
    }
    if (out->starved && out->len < sizeof(out->ring)) {
        out->starved = false;
        tell = true;
    }
    pthread_mutex_unlock(&out->lock);

    if (r < 0) {
        output_detach(out);
        out->failed(out->opaque, -r);
    }
    if (tell && out->dev->receiver.writable)
        out->dev->receiver.writable(out->dev->receiver.opaque);
}

static void on_writable(void *opaque, uint32_t events)
{
    struct output *out = opaque;

    drain(out);
    /* The other end is gone, and yet the descriptor takes no more: it never will. */
    if (out->watched && events & (EPOLLHUP | EPOLLERR)) {
        output_detach(out);
        out->failed(out->opaque, EPIPE);
    }
}

void output_attach(struct output *out, int fd)
{
    pthread_mutex_lock(&out->lock);
    out->source.fd = fd;
    out->attached = true;
    schedule_locked(out);
    pthread_mutex_unlock(&out->lock);
}

void output_detach(struct output *out)
{
    bool tell;

    unwatch(out);
    pthread_mutex_lock(&out->lock);
    out->attached = false;
    out->scheduled = false;
    out->source.fd = -1;
    tell = out->starved;
    out->starved = false;
    pthread_mutex_unlock(&out->lock);
    if (tell && out->dev->receiver.writable)
        out->dev->receiver.writable(out->dev->receiver.opaque);
}

void output_fini(struct output *out)
{
    int64_t until = loop_now() + FINAL_DRAIN_NS;

    out->dev->receiver.writable = NULL;
    if (out->attached) {
        struct pollfd p = {.fd = out->source.fd, .events = POLLOUT};
        while (write_some_locked(out) == -EAGAIN) {
            int64_t left = until - loop_now();
            if (left <= 0 || poll(&p, 1, (int)(left / NS_PER_MS) + 1) <= 0)
                break;
        }
    }
    output_detach(out);
    pthread_mutex_destroy(&out->lock);
}

/* There is room for them. */
static void append_locked(struct output *out, const uint8_t *buf, size_t len)
{
    size_t tail = (out->head + out->len) % sizeof(out->ring), run = sizeof(out->ring) - tail;

    if (run > len)
        run = len;
    memcpy(out->ring + tail, buf, run);
    memcpy(out->ring, buf + run, len - run);
    out->len += len;
}

/* Room for len bytes, which are no more than the ring has, at the cost of the oldest. */
static void make_room_locked(struct output *out, size_t len)
{
    size_t room = sizeof(out->ring) - out->len, gone = len > room ? len - room : 0;

    out->head = (out->head + gone) % sizeof(out->ring);
    out->len -= gone;
}

size_t output_write(struct output *out, const uint8_t *buf, size_t len)
{
    size_t taken = len;

    pthread_mutex_lock(&out->lock);
    if (out->attached) {
        size_t room = sizeof(out->ring) - out->len;
        taken = len < room ? len : room;
        append_locked(out, buf, taken);
    } else {
        size_t kept = len < sizeof(out->ring) ? len : sizeof(out->ring);
        make_room_locked(out, kept);
        append_locked(out, buf + len - kept, kept);
    }
    if (taken < len)
        out->starved = true;
    schedule_locked(out);
    pthread_mutex_unlock(&out->lock);
    return taken;
}

size_t output_room(struct output *out)
{
    pthread_mutex_lock(&out->lock);
    size_t room = out->attached ? sizeof(out->ring) - out->len : sizeof(out->ring);
    if (!room)
        out->starved = true;
    pthread_mutex_unlock(&out->lock);
    return room;
}
