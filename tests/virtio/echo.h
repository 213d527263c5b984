/*
 * A virtio device for tests of what all have in common: it writes back what it reads, as far as there is room, and does as its configuration says.
 * Its configuration space has 8 bytes: the second four are the driver's to write.
 */
#ifndef TESTS_VIRTIO_ECHO_H
#define TESTS_VIRTIO_ECHO_H

#include "virtio/virtio.h"

#define ECHO_FEATURE     (UINT64_C(1) << 5)
#define ECHO_HOLD_MAX    512
#define ECHO_CONFIG_SIZE 8

struct echo_conf {
    unsigned n_queues, queue_size; /* 0: 1 and the default */
    unsigned hold;                 /* chains are kept until there are so many, and then answered last first */
    bool slow_stop;                /* virtio_stopped() comes when the test calls echo_release() */
};

struct echo {
    struct virtio v;
    struct echo_conf conf;
    struct virtq_elem *held[ECHO_HOLD_MAX];
    unsigned n_held;
    bool stopping;
    _Atomic unsigned starts, stops, resets, notifies, chains, config_writes, largest_turn;
    _Atomic uint32_t driver_wrote;
    uint32_t saved; /* what its state is */
};

extern const struct virtio_type echo_type;

/* Answers what is held; ends a slow stop. Any thread but the device's. */
void echo_release(struct virtio *v);

#endif
