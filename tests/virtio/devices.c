#include "virtio/devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device/virtio_balloon.h"
#include "device/virtio_blk.h"
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

static const void *balloon_conf(void)
{
    static const struct virtio_balloon_conf conf;

    return &conf;
}

/* 1 MiB of memory as an image. */
static const void *blk_conf(void)
{
    static struct virtio_blk_conf conf;
    static int fd = -1;
    char text[96];

    if (fd < 0)
        fd = memfd_create("disk", MFD_CLOEXEC);
    snprintf(text, sizeof(text), "/proc/self/fd/%d,format=raw,discard=on", fd);
    if (fd < 0 || ftruncate(fd, 1 << 20) < 0 || disk_spec_parse(&conf.spec, text, NULL) < 0)
        abort();
    return &conf;
}

const struct test_device test_devices[] = {
    {"echo", &echo_type, no_conf, 0},
    {"rng", &virtio_rng_type, rng_conf, 0},
    {"balloon", &virtio_balloon_type, balloon_conf, 1}, /* deflation: the other queue says which pages to drop */
    {"blk", &virtio_blk_type, blk_conf, 0},
};
const unsigned n_test_devices = ARRAY_SIZE(test_devices);
