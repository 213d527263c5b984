/*
 * A disk of the guest's: the virtio block device (virtio 1.2 section 5.2) over an image (disk/disk.h).
 *
 * Several queues, flush, discard, write zeroes, a serial number, a write cache that the guest may turn off, limits on operations and bytes a
 * second, and a size that may change while the guest runs. What the host cannot carry out is the guest's I/O error, or pauses the VM, as the
 * specification says.
 *
 * Threads: the image is opened, used and closed on the device's iothread.
 */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "disk/disk_snapshot.h"
#include "disk/disk_spec.h"
#include "virtio/virtio_pci.h"

struct virtio_blk_conf {
    struct disk_spec spec;
    /*
     * Asks for a pause of the VM, since a request failed: once until the device is started again, when it is tried again. On the device's
     * thread: who is asked posts it to where it belongs. The reason has been logged. NULL: the guest sees an I/O error, whatever on_error says.
     */
    void (*ask_pause)(void *opaque);
    void *opaque;
};

extern const struct virtio_type virtio_blk_type;

enum virtio_blk_direction {
    VIRTIO_BLK_READ,
    VIRTIO_BLK_WRITE,
    VIRTIO_BLK_FLUSH,   /* the guest's own, and those behind writes without a write cache */
    VIRTIO_BLK_DISCARD, /* and write zeroes */
    VIRTIO_BLK_DIRECTIONS,
};

struct virtio_blk_count {
    uint64_t operations, bytes, errors; /* done; errors: those that the guest has seen */
};

struct virtio_blk_stats {
    struct virtio_blk_count by[VIRTIO_BLK_DIRECTIONS];
    uint64_t throttled; /* how often a limit had a request wait */
    uint64_t available; /* bytes free on the image's file system, as of the last look */
    bool watched;       /* somebody looks */
    bool scarce;        /* there is less than is promised and was wished for: disk_space.h */
};

/* dev: one of virtio_pci_type that carries virtio_blk_type. Any thread. */
void virtio_blk_stats(struct device *dev, struct virtio_blk_stats *stats);

/* Bytes. */
uint64_t virtio_blk_size(struct device *dev);

/* Sets the disk's and the image's size and tells the guest. Waits for what is under way; not on the device's thread. */
int virtio_blk_resize(struct device *dev, uint64_t size, struct err *err) MUST_CHECK;

/* Runs fn on the device's thread, with the disk, and waits for it: what fn returns. Not on that thread. */
int virtio_blk_with_disk(struct device *dev, int (*fn)(struct disk *disk, void *opaque), void *opaque) MUST_CHECK;

/* What the guest has written is durable when it returns, whether it asked for that or not. Waits; not on the device's thread, with the device paused. */
int virtio_blk_flush(struct device *dev) MUST_CHECK;

/*
 * Snapshots inside the disk's image (disk/disk_snapshot.h). Not on the device's thread. What changes something is for disks that can: writable ones, of a
 * format that has snapshots. Requests of the guest's wait meanwhile.
 */
bool virtio_blk_has_snapshots(struct device *dev);
int virtio_blk_snapshot_create(struct device *dev, const char *name, int64_t time_ns, struct err *err) MUST_CHECK;
int virtio_blk_snapshot_remove(struct device *dev, const char *name, struct err *err) MUST_CHECK;
int virtio_blk_snapshot_list(struct device *dev, struct disk_snapshots *list, struct err *err) MUST_CHECK;
/* With every vCPU paused. Forgets what the guest has asked of the device, which is reset: the machine is to follow. */
int virtio_blk_snapshot_revert(struct device *dev, const char *name, struct err *err) MUST_CHECK;

#endif
