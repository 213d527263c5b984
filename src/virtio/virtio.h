/*
 * What all virtio devices have in common (virtio 1.2 chapter 2), above whichever transport: identity, features, status, configuration space,
 * queues. A device is a virtio_type and stands in device/devices.def like any other; the transport (virtio_pci.c) is what the machine
 * opens, and it opens the type.
 *
 * Threads: a device has an iothread. Everything a virtio_type does but open and close happens there, so a type needs no locks, and a kick costs a
 * vCPU no wait: the transport notes it and wakes the thread. The transport's own state (status, features, queue addresses, the
 * configuration space) has a lock, `lock`, which vCPUs and the device's thread take briefly; nobody waits for anything while holding it.
 *
 * Life: open -> (start -> notify... -> stop)* -> close. `start` comes with DRIVER_OK; `stop` when the guest or the machine resets the device,
 * when the VM is paused or saved, and before close. A stopped device touches no guest memory.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include "base/iothread.h"
#include "core/device.h"
#include "virtio/virtq.h"

#define VIRTIO_MAX_QUEUES  64
#define VIRTIO_CONFIG_SIZE 256

/* Reserved feature bits (chapter 6). The transport offers those it can: a type offers its own, below bit 24. */
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)
#define VIRTIO_F_RING_PACKED   (UINT64_C(1) << 34)

struct virtio;
struct virtio_core;

struct virtio_type {
    const char *name;
    uint16_t id;        /* chapter 5 */
    uint32_t pci_class; /* 0xCCSSPP */
    size_t size;        /* of the state; struct virtio comes first */

    /*
     * Sets v->features, v->n_queues, v->queue_size and the configuration space. On the opener's thread: no vCPU knows of the device yet. `conf` is
     * the type's own struct, declared in its header.
     */
    int (*open)(struct virtio *v, const void *conf, struct err *err);
    /* The driver is ready: v->driver_features and v->queues hold. Every queue that is enabled is also notified once. */
    void (*start)(struct virtio *v);
    /*
     * The guest has made chains available in queue n, or may have. A queue's worth of chains a call: then virtq_pop() says that there are no more,
     * and there is another call when the loop's other work has had its turn.
     */
    void (*notify)(struct virtio *v, unsigned n);
    /*
     * Stop: begin nothing new, and call virtio_stopped(), now or later, when every chain is pushed or given up and nothing is under way. What is
     * given up (still held then) comes again from virtq_pop() after the next start, in the order in which it was popped, unless the stop was a
     * reset; the elements are gone.
     */
    void (*stop)(struct virtio *v);
    /* The guest wrote [off, off + len) of the configuration space; may be NULL, then it cannot. See virtio_config_writable(). */
    void (*config_written)(struct virtio *v, unsigned off, unsigned len);
    /* As at power-on, after a stop that was a reset; may be NULL. */
    void (*reset)(struct virtio *v);
    int (*state)(struct virtio *v, struct stream *s); /* while stopped; may be NULL */
    void (*close)(struct virtio *v);                  /* after a stop; may be NULL */
};

struct virtio {
    const struct virtio_type *type;
    struct device *dev; /* the transport */
    struct device_env *env;
    struct iothread *io;
    char name[32]; /* for messages, such as "disk0" */

    uint64_t features;        /* offered, the type's own bits; set in open */
    uint64_t without;         /* reserved features not to offer: a type whose rings something else walks; set in open */
    unsigned n_queues;        /* set in open, up to VIRTIO_MAX_QUEUES */
    unsigned queue_size;      /* the largest the guest may choose: a power of two, up to VIRTQ_SIZE_MAX; 0: 256 */
    uint64_t driver_features; /* negotiated; from start on */
    struct virtq **queues;    /* n_queues of them */
    struct virtio_core *core; /* virtio.c's own */
};

/* Whether a feature was negotiated. */
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
    return v->driver_features & feature;
}

/* Whether the guest has enabled queue n; its thread, between start and stop. */
bool virtio_queue_enabled(const struct virtio *v, unsigned n);

/* Between start and the call of stop, neither broken. */
bool virtio_running(const struct virtio *v);

/* The answer to virtio_type.stop. */
void virtio_stopped(struct virtio *v);

/* ---- the configuration space: bytes that the guest reads at any time ---- */

/* Sets bytes, silently: in open, or before a virtio_config_changed(). */
void virtio_config_put(struct virtio *v, unsigned off, const void *data, unsigned len);
void virtio_config_get(struct virtio *v, unsigned off, void *data, unsigned len);
/* Which bytes the guest may write; none are by default. In open. */
void virtio_config_writable(struct virtio *v, unsigned off, unsigned len);
/* Tells the guest with the configuration interrupt. Any thread. */
void virtio_config_changed(struct virtio *v);

/* Sets DEVICE_NEEDS_RESET and logs the reason, once until the next reset, and some times in all. */
void virtio_break(struct virtio *v, const char *reason);

#endif
