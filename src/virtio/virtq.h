/*
 * A virtqueue (virtio 1.2 sections 2.6 to 2.8), the device's end: the only code that walks a ring. Split and packed layout, indirect
 * descriptors, VIRTIO_F_EVENT_IDX.
 *
 * All that lies in the guest's memory may change under us. So each descriptor, index and event field is read once into our own memory, and
 * checked there: ranges against RAM, chains against the queue's size, direction, order. What is malformed breaks the device
 * (DEVICE_NEEDS_RESET, logged once), never vireo; virtq_pop() then returns NULL until the guest resets the device.
 *
 * Threads: the device's own (virtio.h), and nobody else, between virtio_type.start and the end of its stop.
 */
#ifndef VIRTIO_VIRTQ_H
#define VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <sys/uio.h>

#include "base/util.h"

#define VIRTQ_SIZE_MAX 1024

struct virtq;

/*
 * A chain of descriptors, as host memory. What the device reads comes first, then what it writes (2.6.4.2). The vectors are the holder's to
 * consume; the memory they point to is the guest's, which may change it meanwhile: copy what is looked at twice. Valid until virtq_push().
 */
struct virtq_elem {
    struct iovec *out, *in; /* for the device to read, to write */
    unsigned n_out, n_in;
    uint64_t out_len, in_len; /* bytes in each, as popped */
    struct virtq *queue;
    void *opaque; /* the holder's */
};

/*
 * The next chain, or NULL: there is none, the queue is broken, or it has had its turn and virtio_type.notify will be called anew. At most the queue's
 * size may be held at a time.
 */
struct virtq_elem *virtq_pop(struct virtq *q) MUST_CHECK;

/*
 * Gives a chain back: `written` bytes from the start of `in` have been stored to. In any order; the element is gone. The guest sees it with the
 * next virtq_signal().
 */
void virtq_push(struct virtq *q, struct virtq_elem *elem, uint32_t written);

/* Several chains that together hold one thing (mergeable receive buffers): the guest sees all of them or none. */
void virtq_push_many(struct virtq *q, struct virtq_elem *const *elems, const uint32_t *written, unsigned n);

/* Takes a pop back: virtq_pop() will return the chain anew, before all others. */
void virtq_unpop(struct virtq *q, struct virtq_elem *elem);

/* Shows the guest what has been pushed since the last call, and interrupts it if it wants to know of that. Once a batch. */
void virtq_signal(struct virtq *q);

/*
 * Whether the guest should tell when it makes chains available. While the device works on a queue it wants no notifications; before it sleeps
 * it asks for them, and looks once more when that returns true, since a chain has come meanwhile:
 *
 *     do {
 *         virtq_disable_notify(q);
 *         while ((elem = virtq_pop(q)))
 *             ...
 *     } while (virtq_enable_notify(q));
 */
void virtq_disable_notify(struct virtq *q);
bool virtq_enable_notify(struct virtq *q) MUST_CHECK;

/* Whether virtq_pop() would find a chain. */
bool virtq_ready(struct virtq *q);

/* How many chains are held: popped, and neither pushed nor unpopped. */
unsigned virtq_held(const struct virtq *q);

/* The device is not what the driver takes it for (2.1.2): the same as a malformed chain. reason: for the log, one line. */
void virtq_break(struct virtq *q, const char *reason);

/* Copies between buffers and vectors, from `off` bytes into the vectors; the bytes copied, fewer where the vectors end. */
size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);

#endif
