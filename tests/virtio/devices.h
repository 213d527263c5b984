/*
 * The devices that the hostile guest (hostile_test.c) and the fuzzer (fuzz_virtio.c) are let loose on. A new type is a row in devices.c.
 */
#ifndef TESTS_VIRTIO_DEVICES_H
#define TESTS_VIRTIO_DEVICES_H

#include "virtio/virtio.h"

struct test_device {
    const char *name;
    const struct virtio_type *type;
    const void *(*conf)(void); /* the type's own configuration; its back end is small and harmless */
    unsigned queue; /* one from which it takes chains as soon as it is notified, and gives all of them back */
};

extern const struct test_device test_devices[];
extern const unsigned n_test_devices;

#endif
