#include "core/device.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

int device_open(struct device **out, const struct device_type *type, struct device_env *env, const void *conf,
                struct err *err)
{
    *out = NULL;
    struct device *dev = calloc(1, type->size);
    if (!dev)
        return err_set(err, -ENOMEM, "%s: out of memory", type->name);
    dev->type = type;
    dev->env = env;
    pthread_mutex_init(&dev->lock, NULL);

    int r = type->open(dev, conf, err);
    if (r < 0) {
        pthread_mutex_destroy(&dev->lock);
        free(dev);
        return r;
    }
    device_reset(dev);
    *out = dev;
    return 0;
}

void device_close(struct device *dev)
{
    if (!dev)
        return;
    if (dev->type->close)
        dev->type->close(dev);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

void device_reset(struct device *dev)
{
    if (!dev->type->reset)
        return;
    device_lock(dev);
    dev->type->reset(dev);
    device_unlock(dev);
}

int device_state(struct device *dev, struct stream *s)
{
    if (!dev->type->state)
        return 0;
    device_lock(dev);
    int r = dev->type->state(dev, s);
    device_unlock(dev);
    return r < 0 ? r : s->error;
}

static uint64_t region_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    struct device *dev = opaque;
    device_lock(dev);
    uint64_t val = dev->type->read(dev, region, off, len);
    device_unlock(dev);
    return val;
}

static void region_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct device *dev = opaque;
    device_lock(dev);
    dev->type->write(dev, region, off, len, val);
    device_unlock(dev);
}

int device_map(struct device *dev, struct bus *bus, unsigned region, uint64_t base, uint64_t size, struct err *err)
{
    const struct bus_region r = {
        .base = base, .size = size, .read = region_read, .write = region_write, .opaque = dev, .region = region};
    int rc = bus_add(bus, &r);
    if (rc < 0)
        return err_set(err, rc, "%s: region at %#" PRIx64 ", %#" PRIx64 " bytes: %s", dev->type->name, base, size,
                       strerror(-rc));
    return 0;
}
