/*
 * The configuration space (virtio 1.2 section 2.5): bytes that the guest reads at any time, some of which it may write.
 */
#include "virtio/virtio_impl.h"

void virtio_config_put(struct virtio *v, unsigned off, const void *data, unsigned len)
{
    struct virtio_core *core = v->core;

    if (off > VIRTIO_CONFIG_SIZE || len > VIRTIO_CONFIG_SIZE - off)
        return;
    virtio_lock(v);
    memcpy(core->config + off, data, len);
    core->generation++;
    if (off + len > core->config_len)
        core->config_len = off + len;
    virtio_unlock(v);
}

void virtio_config_get(struct virtio *v, unsigned off, void *data, unsigned len)
{
    if (off > VIRTIO_CONFIG_SIZE || len > VIRTIO_CONFIG_SIZE - off)
        return;
    virtio_lock(v);
    memcpy(data, v->core->config + off, len);
    virtio_unlock(v);
}

void virtio_config_writable(struct virtio *v, unsigned off, unsigned len)
{
    if (off <= VIRTIO_CONFIG_SIZE && len <= VIRTIO_CONFIG_SIZE - off)
        memset(v->core->config_writable + off, 0xff, len);
}

/* Before DRIVER_OK the driver has yet to read it, and wants no interrupts (2.1.2). */
void virtio_config_changed(struct virtio *v)
{
    if (virtio_get_status(v) & VIRTIO_STATUS_DRIVER_OK)
        v->core->transport->config_interrupt(v->dev);
}

uint8_t virtio_get_generation(struct virtio *v)
{
    virtio_lock(v);
    uint8_t generation = v->core->generation;
    virtio_unlock(v);
    return generation;
}

uint64_t virtio_config_read(struct virtio *v, unsigned off, unsigned len)
{
    uint64_t val = ones_mask(len);

    virtio_lock(v);
    if (off < v->core->config_len && len <= v->core->config_len - off) {
        val = 0;
        memcpy(&val, v->core->config + off, len);
    }
    virtio_unlock(v);
    return val;
}

void virtio_config_write(struct virtio *v, unsigned off, unsigned len, uint64_t val)
{
    struct virtio_core *core = v->core;
    bool written = false;

    if (off >= VIRTIO_CONFIG_SIZE || len > VIRTIO_CONFIG_SIZE - off)
        return;
    virtio_lock(v);
    for (unsigned i = 0; i < len; i++) {
        uint8_t mask = core->config_writable[off + i];
        core->config[off + i] = (uint8_t)((core->config[off + i] & ~mask) | ((uint8_t)(val >> (8 * i)) & mask));
        written |= mask;
    }
    if (written) {
        bool none = core->written_end == 0;
        core->written_from = none || off < core->written_from ? off : core->written_from;
        core->written_end = off + len > core->written_end ? off + len : core->written_end;
    }
    virtio_unlock(v);
    if (written)
        loop_event_set(&core->work);
}

void virtio_config_tell(struct virtio *v)
{
    struct virtio_core *core = v->core;

    virtio_lock(v);
    unsigned from = core->written_from, end = core->written_end;
    core->written_from = core->written_end = 0;
    virtio_unlock(v);
    if (end > from && v->type->config_written)
        v->type->config_written(v, from, end - from);
}
