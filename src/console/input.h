/*
 * The input half of a console: reads a file descriptor on the loop's thread and hands the bytes to the receiver as it
 * can take them. What the receiver cannot take yet waits here, at most INPUT_BUFFER bytes; then the descriptor is left
 * unread. A terminal is read on all the same, and what is typed beyond that is lost: Ctrl-A x must end a guest that hangs.
 *
 * Threads: input_accept() from any; the rest on the loop's thread or while it does not run. The descriptor stays the
 * caller's. Files and devices that cannot be polled are always ready.
 */
#ifndef CONSOLE_INPUT_H
#define CONSOLE_INPUT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/loop.h"
#include "core/chardev.h"

#define INPUT_BUFFER 4096

struct input_ops {
    /* Looks at what was read before the receiver does; returns how many bytes it left in buf. May be NULL. */
    size_t (*filter)(void *opaque, uint8_t *buf, size_t len);
    /* The end: nobody writes any more, or reading failed; detached by then. May be NULL. */
    void (*ended)(void *opaque);
};

struct input {
    struct loop *loop;
    struct chardev *dev;
    const struct input_ops *ops;
    void *opaque;
    struct loop_fd source; /* fd -1: none attached */
    bool lossy;            /* read on when the buffer is full */
    bool watched;          /* source is in the loop */
    bool unpollable;       /* always ready: read as the receiver takes */
    size_t head, len;
    uint8_t buf[INPUT_BUFFER];
    _Atomic bool posted; /* input_accept() has asked for a look; apart from the flags of the loop's thread */
};

void input_init(struct input *in, struct loop *loop, struct chardev *dev, const struct input_ops *ops, void *opaque);
void input_fini(struct input *in);

/* Reads from fd from now on; 0 or -errno. */
int input_attach(struct input *in, int fd, bool lossy) MUST_CHECK;
void input_detach(struct input *in); /* what was read stays for the receiver */

/* The receiver can take input again. */
void input_accept(struct input *in);

#endif
