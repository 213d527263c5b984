/*
 * A byte stream between a guest's serial port and the world: terminal, pseudo-terminal, file, socket.
 *
 * Threads: chardev_write() and chardev_room() from any vCPU thread; the receiver's functions run on the loop's thread with no
 * lock held. A backend buffers at most CHARDEV_BUFFER bytes of output: a guest that floods the line waits, or loses bytes where
 * nobody is connected, as on a wire, but never makes the host hold more.
 */
#ifndef CORE_CHARDEV_H
#define CORE_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHARDEV_BUFFER 65536

struct chardev;

struct chardev_ops {
    const char *name;
    /* Takes up to len bytes without blocking; returns how many it took. */
    size_t (*write)(struct chardev *dev, const uint8_t *buf, size_t len);
    /* How many bytes write() would take now. */
    size_t (*room)(struct chardev *dev);
    /* The receiver can take input again: read on where input was held back. */
    void (*accept_input)(struct chardev *dev);
    void (*close)(struct chardev *dev);
};

/* Who sits at the guest's end; set once by chardev_connect() before the loop runs. */
struct chardev_receiver {
    size_t (*can_receive)(void *opaque); /* bytes it can take now */
    void (*receive)(void *opaque, const uint8_t *buf, size_t len);
    void (*writable)(void *opaque); /* there is room for output again */
    void *opaque;
    void (*changed)(void *opaque); /* what struct chardev says of the other end; may be NULL */
};

struct chardev {
    const struct chardev_ops *ops;
    struct chardev_receiver receiver;

    /* The other end, as the loop's thread knows it. */
    bool away;           /* nobody is connected who could be */
    uint16_t cols, rows; /* of a terminal; 0: unknown */
};

/* For backends, on the loop's thread: somebody has connected, or gone. */
static inline void chardev_set_away(struct chardev *dev, bool away)
{
    bool news = dev->away != away;

    dev->away = away;
    if (news && dev->receiver.changed)
        dev->receiver.changed(dev->receiver.opaque);
}

/* The same, for a terminal's size. */
static inline void chardev_set_size(struct chardev *dev, uint16_t cols, uint16_t rows)
{
    bool news = dev->cols != cols || dev->rows != rows;

    dev->cols = cols;
    dev->rows = rows;
    if (news && dev->receiver.changed)
        dev->receiver.changed(dev->receiver.opaque);
}

static inline void chardev_connect(struct chardev *dev, const struct chardev_receiver *receiver)
{
    dev->receiver = *receiver;
}

static inline size_t chardev_write(struct chardev *dev, const uint8_t *buf, size_t len)
{
    return dev ? dev->ops->write(dev, buf, len) : len;
}

static inline size_t chardev_room(struct chardev *dev)
{
    return dev ? dev->ops->room(dev) : CHARDEV_BUFFER;
}

static inline void chardev_accept_input(struct chardev *dev)
{
    if (dev)
        dev->ops->accept_input(dev);
}

static inline void chardev_close(struct chardev *dev)
{
    if (dev)
        dev->ops->close(dev);
}

#endif
