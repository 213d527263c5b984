/*
 * The device model: one struct and a handful of calls. A device is a file in src/device/ that fills a device_type and
 * stands in devices.def. The machine gives it an environment (where to put its regions, which wires it drives) and its
 * configuration; everything it does afterwards begins with a read, a write, a timer or a received byte.
 *
 * Threads: read, write, reset and state are called with the device's lock held; timer and input callbacks take it themselves
 * (device_lock). A device may drive its irq lines under the lock.
 */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

#include <pthread.h>

#include "core/bus.h"
#include "core/chardev.h"
#include "core/clock.h"
#include "core/doorbell.h"
#include "core/irq.h"
#include "core/irqchip.h"
#include "core/power.h"
#include "core/ram.h"
#include "core/stream.h"

struct device;
struct pci_bus;

/* What a machine offers its devices. Lives as long as they do. */
struct device_env {
    struct loop *loop;
    struct clock *clock;
    struct ram *ram;
    struct bus *pio, *mmio;
    struct pci_bus *pci;
    struct irq_line isa_irq[16]; /* to the PICs and the IOAPIC alike */
    struct msi_sink msi;
    const struct irqchip *irqchip;     /* the engine's own, or NULL */
    const struct doorbells *doorbells; /* that the engine offers, or NULL */
    struct power_sink power;
};

struct device_type {
    const char *name;
    size_t size; /* of the state; struct device comes first */
    /* conf is the type's own struct, declared in its header, or NULL. */
    int (*open)(struct device *dev, const void *conf, struct err *err);
    uint64_t (*read)(struct device *dev, unsigned region, uint64_t off, unsigned len);
    void (*write)(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val);
    void (*reset)(struct device *dev); /* as at power-on; also called once after open */
    int (*state)(struct device *dev,
                 struct stream *s); /* save and load, one walk; after a load it re-arms its timers */
    void (*close)(struct device *dev);
};

struct device {
    const struct device_type *type;
    struct device_env *env;
    pthread_mutex_t lock;
    struct device *next; /* the machine's list, in order of opening */
};

/* Allocates and opens a device of `type`, then resets it. On failure *dev is NULL and err says why. */
int device_open(struct device **dev, const struct device_type *type, struct device_env *env, const void *conf,
                struct err *err) MUST_CHECK;
void device_close(struct device *dev);
void device_reset(struct device *dev);
int device_state(struct device *dev, struct stream *s) MUST_CHECK;

static inline void device_lock(struct device *dev)
{
    pthread_mutex_lock(&dev->lock);
}

static inline void device_unlock(struct device *dev)
{
    pthread_mutex_unlock(&dev->lock);
}

/* Puts region `region` of the device on a bus; accesses reach type->read and type->write under the device's lock. */
int device_map(struct device *dev, struct bus *bus, unsigned region, uint64_t base, uint64_t size,
               struct err *err) MUST_CHECK;

#endif
