/*
 * What the files of the virtio core share: virtio.c (status, features, configuration space, start and stop), virtq.c with its two layouts, and
 * the transport. Devices include virtio.h alone.
 *
 * Threads: of two kinds are the members here. Those under `lock` are taken by vCPUs and by the device's thread, briefly; those that are the
 * device's thread's need no lock. The lock is a leaf but for the transport's interrupt wires.
 */
#ifndef VIRTIO_VIRTIO_IMPL_H
#define VIRTIO_VIRTIO_IMPL_H

#include <stdatomic.h>

#include "virtio/virtio.h"

/* Device status bits (2.1). */
enum {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 0x40,
    VIRTIO_STATUS_FAILED = 0x80,
};

/* What the core asks of a transport. Any thread. */
struct virtio_transport {
    void (*queue_interrupt)(struct device *dev, uint16_t vector);
    void (*config_interrupt)(struct device *dev);
    void (*reset)(struct device *dev); /* the guest's reset is through; under the core's lock */
};

enum virtio_run { VIRTIO_STOPPED, VIRTIO_RUNNING, VIRTIO_STOPPING };

struct virtio_core {
    struct virtio *v;
    const struct virtio_transport *transport;
    struct virtq *queues; /* n_queues */
    struct loop_event work;
    _Atomic uint64_t kicked; /* queues the guest has notified since the device's thread looked */
    _Atomic bool master;     /* the device may read and write memory, and interrupt by messages */
    _Atomic bool broken;     /* DEVICE_NEEDS_RESET is set */

    pthread_mutex_t lock;
    pthread_cond_t settled; /* a stop or a reset is through */
    uint8_t status;
    uint8_t generation;
    uint64_t driver_features; /* as written; fixed by FEATURES_OK */
    bool reset_wanted, closing;
    unsigned pauses;
    enum virtio_run run; /* changed by the device's thread alone, which may read it without the lock */
    uint8_t config[VIRTIO_CONFIG_SIZE];
    uint8_t config_writable[VIRTIO_CONFIG_SIZE];
    unsigned config_len;                /* bytes there are */
    unsigned written_from, written_end; /* of the configuration space, by the guest, and not told yet */
    int64_t logged_ns;                  /* when it was said last that the device is broken */
    unsigned n_logged;                  /* how often */

    bool settling; /* the device's thread is in settle() */
};

static inline void virtio_lock(struct virtio *v)
{
    pthread_mutex_lock(&v->core->lock);
}

static inline void virtio_unlock(struct virtio *v)
{
    pthread_mutex_unlock(&v->core->lock);
}

/* ---- for the transport ---- */

/* dev: the transport's; all the rest as in struct virtio_pci_conf. Offered features, queues and configuration space hold when it returns. */
int virtio_open(struct virtio **v, const struct virtio_type *type, const void *conf, struct device *dev,
                const struct virtio_transport *transport, struct iothread *io, const char *name,
                struct err *err) MUST_CHECK;

/* Stops the device first, and waits for that. No vCPU reaches it any more. */
void virtio_close(struct virtio *v);

/* What the guest may accept. */
uint64_t virtio_offered(const struct virtio *v);

/* Registers; any thread, without the lock. A reset is asked for by a status of 0, and is through when the status reads as 0. */
uint8_t virtio_get_status(struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t val);
void virtio_set_driver_features(struct virtio *v, unsigned half, uint32_t val);
uint32_t virtio_get_driver_features(struct virtio *v, unsigned half);
uint8_t virtio_get_generation(struct virtio *v);
uint64_t virtio_config_read(struct virtio *v, unsigned off, unsigned len);
void virtio_config_write(struct virtio *v, unsigned off, unsigned len, uint64_t val);

/* Tells the type what the guest has written since the last call. The device's thread. */
void virtio_config_tell(struct virtio *v);

/* Whether the guest may set up queue n now; with the lock held. */
bool virtio_configurable_locked(const struct virtio *v, unsigned n);

/* The guest notifies queue n, whatever n is. Waits for nothing. */
void virtio_kick(struct virtio *v, unsigned n);

/* PCI's bus master bit. */
void virtio_set_master(struct virtio *v, bool on);

/* As at power-on when they return. Not on the device's thread. */
void virtio_reset(struct virtio *v);
void virtio_pause(struct virtio *v);
void virtio_resume(struct virtio *v);
int virtio_state(struct virtio *v, struct stream *s) MUST_CHECK;

#endif
