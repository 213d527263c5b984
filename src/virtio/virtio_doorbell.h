/*
 * A virtio device's notifications by doorbells (core/doorbell.h), where the engine offers them: the guest's write to a queue's notification address
 * wakes the device's thread, and no vCPU leaves the guest. Where it cannot be, all comes by the bus.
 *
 * Threads: as each function says.
 */
#ifndef VIRTIO_VIRTIO_DOORBELL_H
#define VIRTIO_VIRTIO_DOORBELL_H

#include "virtio/virtio.h"

struct virtio_doorbell;

/* For each queue; NULL where the engine offers none, or there are no descriptors left. The opener's thread, after virtio_open(). */
struct virtio_doorbell *virtio_doorbell_open(struct virtio *v);
/* No address is placed any more. Before virtio_close(), not on the device's thread. */
void virtio_doorbell_close(struct virtio_doorbell *bells);

/*
 * Queue n's address is base + n * step from now on, until it is taken away with `on` false. Any thread, one at a time; `bells` may be NULL. What is not
 * placed, as the engine has too many, comes by the bus.
 */
void virtio_doorbell_place(struct virtio_doorbell *bells, uint64_t base, unsigned step, bool on);

#endif
