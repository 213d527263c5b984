#include "virtio/devices.h"

#include "device/virtio_rng.h"
#include "virtio/echo.h"

static const void *no_conf(void)
{
    return NULL;
}

static const void *rng_conf(void)
{
    static const struct virtio_rng_conf conf;

    return &conf;
}

const struct test_device test_devices[] = {
    {"echo", &echo_type, no_conf, 0},
    {"rng", &virtio_rng_type, rng_conf, 0},
};
const unsigned n_test_devices = ARRAY_SIZE(test_devices);
