/*
 * The output half of a console: a ring of CHARDEV_BUFFER bytes that the loop's thread drains into a file descriptor.
 *
 * While a descriptor is attached and slow, the ring fills and output_write() takes less: the guest waits. While none is
 * attached, the ring keeps the newest bytes and forgets the oldest, so that whoever connects next sees what came last.
 *
 * Threads: output_write() and output_room() from any; the rest on the loop's thread or while it does not run. The
 * descriptor stays the caller's.
 */
#ifndef CONSOLE_OUTPUT_H
#define CONSOLE_OUTPUT_H

#include <pthread.h>
#include <stdbool.h>

#include "base/loop.h"
#include "core/chardev.h"

struct output {
    struct loop *loop;
    struct chardev *dev;                     /* its receiver hears when there is room again */
    void (*failed)(void *opaque, int error); /* errno of a failed write; the descriptor is detached by then */
    void *opaque;
    struct loop_fd source;
    bool watched; /* source is in the loop, waiting for EPOLLOUT */

    pthread_mutex_t lock; /* guards what follows */
    bool attached;
    bool scheduled; /* a drain is posted or waited for */
    bool starved;   /* the receiver was told of no room, and waits for writable() */
    size_t head, len;
    uint8_t ring[CHARDEV_BUFFER];
};

void output_init(struct output *out, struct loop *loop, struct chardev *dev, void (*failed)(void *opaque, int error),
                 void *opaque);

/* Writes what is left, as far as that goes within half a second, and detaches. */
void output_fini(struct output *out);

/* fd: not blocking, or a regular file; see fd_own(). */
void output_attach(struct output *out, int fd);
void output_detach(struct output *out);

size_t output_write(struct output *out, const uint8_t *buf, size_t len);
size_t output_room(struct output *out);

#endif
