/*
 * A source of random numbers (virtio 1.2 section 5.4): one queue of buffers to fill. What the guest gets comes from the host kernel's generator,
 * getrandom(2), at a limited rate if its owner says so.
 */
#ifndef DEVICE_VIRTIO_RNG_H
#define DEVICE_VIRTIO_RNG_H

#include "virtio/virtio.h"

#define VIRTIO_RNG_ID_SIZE 32

struct virtio_rng_conf {
    uint64_t bps; /* bytes a second; 0: no limit */
};

extern const struct virtio_type virtio_rng_type;

/* "bps=64K,id=NAME", either optional. id: "" where the specification says none. */
int virtio_rng_parse(const char *spec, struct virtio_rng_conf *conf, char id[VIRTIO_RNG_ID_SIZE],
                     struct err *err) MUST_CHECK;

#endif
