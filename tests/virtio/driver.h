/*
 * A virtio driver for tests, on a small machine of its own: RAM, buses, a PCI bus with the one device, a sink for its messages, a thread that the
 * device works on. It finds the capabilities as a guest's driver would, negotiates features, lays out split or packed rings, sends chains and
 * waits for what comes back. What goes wrong in it ends the test program (abort), but for what it returns.
 *
 *     struct vboard b;
 *     struct driver d;
 *     vboard_open(&b);
 *     driver_open(&d, &b, &virtio_rng_type, &(struct virtio_rng_conf){0});
 *     driver_init(&d, DRIVER_ALL);                       // or a set of features; with ~VIRTIO_F_RING_PACKED split rings
 *     uint8_t bytes[32];
 *     uint32_t n = driver_request(&d, 0, NULL, 0, bytes, sizeof(bytes));
 *     driver_close(&d);
 *     vboard_close(&b);
 *
 * Below that: driver_add() puts a chain of buffers into a ring, driver_kick() notifies, driver_wait() waits for the interrupt and takes what is used.
 * Buffers are guest memory from vboard_alloc(), or a queue's own scratch room (driver_request()). A test that wants to be nasty writes to
 * the rings itself: their addresses are in struct driver_queue, host memory is vboard_at().
 *
 * Threads: the caller's, one at a time; messages arrive on any.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <pthread.h>

#include "core/pci.h"
#include "virtio/virtio_pci.h"

#define VBOARD_RAM_LOW  (8 * MIB) /* from 0 */
#define VBOARD_RAM_HIGH (8 * MIB) /* from 4 GiB */
#define VBOARD_VECTORS  128
#define VBOARD_BAR      UINT64_C(0xe0000000)
#define VBOARD_WAIT_NS  (20 * NS_PER_SEC) /* nothing takes that long */

struct vboard {
    struct device_env env;
    struct ram ram;
    struct bus pio, mmio;
    struct loop *loop; /* env.loop: not run, unless the test does */
    struct clock clock;
    struct iothread *io;
    uint64_t next_low, next_high; /* free guest memory */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned messages[VBOARD_VECTORS]; /* by their data */
    bool intx;                         /* any PIRQ is up */
    unsigned intx_rises;
};

void vboard_open(struct vboard *b);
void vboard_close(struct vboard *b);

/* Zeroed guest memory, below the hole or above 4 GiB. */
uint64_t vboard_alloc(struct vboard *b, uint64_t len, uint64_t align);
uint64_t vboard_alloc_high(struct vboard *b, uint64_t len, uint64_t align);
uint8_t *vboard_at(struct vboard *b, uint64_t gpa);

/* Waits until the device's thread has done what it has been told to do so far. */
void vboard_drain(struct vboard *b);

/* Messages with this data so far; waits until there are more than `seen`: false after VBOARD_WAIT_NS. */
unsigned vboard_messages(struct vboard *b, unsigned data);
bool vboard_wait_message(struct vboard *b, unsigned data, unsigned seen);

/* Every feature that the device offers. */
#define DRIVER_ALL UINT64_MAX

struct driver_buf {
    uint64_t gpa;
    uint32_t len;
    bool write; /* the device writes; those come last */
};

struct driver;

struct driver_queue {
    struct driver *d;
    unsigned n, size;
    bool packed, indirect, event_idx, enabled;
    uint64_t desc, avail,
        used; /* guest addresses of the three areas; in a packed ring `avail` and `used` are the event structures */
    uint64_t notify;  /* address to write to */
    uint64_t tables;  /* room for indirect tables, DRIVER_TABLE descriptors for each id */
    uint64_t scratch; /* DRIVER_SCRATCH bytes */
    unsigned room;    /* the size that all this is laid out for; kept across resets */

    unsigned n_free, first_free;
    uint16_t next[VIRTQ_SIZE_MAX];  /* split: free list of descriptors; packed: of ids */
    uint16_t slots[VIRTQ_SIZE_MAX]; /* descriptors that the chain with this id takes */
    uint16_t avail_idx, used_idx, kicked_idx;
    bool avail_wrap, used_wrap;
    unsigned interrupts; /* seen */
    unsigned kicks;      /* notifications that were wanted, and sent */
};

#define DRIVER_TABLE   16
#define DRIVER_SCRATCH (256 * KIB)

struct driver {
    struct vboard *b;
    struct device *dev; /* device_reset(), device_state() and so on as you like */
    struct virtio *v;
    uint8_t devfn;
    uint64_t bar;
    uint64_t common, notify, isr, config; /* addresses; config is 0 where there is none */
    unsigned notify_step, config_len, n_queues;
    int msix_cap;
    uint64_t table; /* the MSI-X table's address */
    bool msix;      /* else INTx */
    uint64_t features;
    struct driver_queue queues[VIRTIO_MAX_QUEUES];
};

/*
 * Opens a device at 00:01.0 and does what firmware and the PCI core do: BAR, decoding, bus master, MSI-X with a vector for each queue, and
 * n_queues for the configuration's. driver_open_at(): the same for further devices, which tell themselves apart by `nth`; they share messages.
 */
void driver_open(struct driver *d, struct vboard *b, const struct virtio_type *type, const void *conf);
void driver_open_at(struct driver *d, struct vboard *b, unsigned nth, const struct virtio_type *type, const void *conf);
void driver_close(struct driver *d);

/* Resets, agrees on what both know, sets every queue up and says DRIVER_OK. The features agreed on. */
uint64_t driver_init(struct driver *d, uint64_t features);

/* The steps of that. driver_reset() waits until it is through; driver_negotiate() returns whether the device said FEATURES_OK. */
void driver_reset(struct driver *d);
bool driver_negotiate(struct driver *d, uint64_t features);
void driver_setup_queue(struct driver *d, unsigned n, unsigned size); /* size 0: the device's */
void driver_ready(struct driver *d);

/* Registers of any width, relative to d->common, d->config and so on. */
uint64_t driver_read(struct driver *d, uint64_t addr, unsigned len);
void driver_write(struct driver *d, uint64_t addr, unsigned len, uint64_t val);
uint32_t driver_pci_read(struct driver *d, unsigned off, unsigned len);
void driver_pci_write(struct driver *d, unsigned off, unsigned len, uint32_t val);
uint8_t driver_status(struct driver *d);
bool driver_wait_status(struct driver *d, uint8_t bits); /* until they are set: false after VBOARD_WAIT_NS */

/*
 * Makes a chain available, by an indirect table where that was agreed on and it has more than one buffer; its id, or -1 where there is no room.
 * Nobody is notified. driver_add_direct() never uses a table.
 */
int driver_add(struct driver_queue *q, const struct driver_buf *bufs, unsigned n);
int driver_add_direct(struct driver_queue *q, const struct driver_buf *bufs, unsigned n);

/*
 * The same without bookkeeping, for those who mean harm: the next slots are used, whatever is in them, and nothing is ever taken back. The buffers may
 * lie anywhere and come in any order. Not with the functions above in one queue.
 */
void driver_force(struct driver_queue *q, const struct driver_buf *bufs, unsigned n);

/* Notifies, if the device wants that; whether it did. */
bool driver_kick(struct driver_queue *q);

/* The next used chain, if there is one: its id and what was written. */
bool driver_get(struct driver_queue *q, unsigned *id, uint32_t *len);

/* Asks for the interrupt and waits for it; false after VBOARD_WAIT_NS. */
bool driver_wait(struct driver_queue *q, unsigned *id, uint32_t *len);

/* Copies `out` to the guest, sends it with room for in_len, waits, and copies back: bytes written. Either may be empty. */
uint32_t driver_request(struct driver *d, unsigned n, const void *out, uint32_t out_len, void *in, uint32_t in_len);

#endif
