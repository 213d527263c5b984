/*
 * Inside the virtio disk: virtio_blk.c is the device, virtio_blk_request.c what it does with a chain.
 */
#ifndef DEVICE_VIRTIO_BLK_IMPL_H
#define DEVICE_VIRTIO_BLK_IMPL_H

#include "base/limiter.h"
#include "device/virtio_blk.h"
#include "disk/disk_space.h"

/* 5.2.3 */
#define VIRTIO_BLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define VIRTIO_BLK_F_RO           (UINT64_C(1) << 5)
#define VIRTIO_BLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define VIRTIO_BLK_F_FLUSH        (UINT64_C(1) << 9)
#define VIRTIO_BLK_F_TOPOLOGY     (UINT64_C(1) << 10)
#define VIRTIO_BLK_F_CONFIG_WCE   (UINT64_C(1) << 11)
#define VIRTIO_BLK_F_MQ           (UINT64_C(1) << 12)
#define VIRTIO_BLK_F_DISCARD      (UINT64_C(1) << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

#define VIRTIO_BLK_RANGES_MAX    16
#define VIRTIO_BLK_RANGE_SECTORS (UINT32_C(1) << 21) /* 1 GiB: what one may take of a worker's time */

struct virtio_blk_range {
    uint64_t sector;
    uint32_t n_sectors, flags;
};

/* One chain, while the disk is at it. */
struct virtio_blk_request {
    struct disk_request io;
    struct virtio_blk *blk;
    struct virtq_elem *elem;
    unsigned queue;
    uint8_t *status; /* the guest's byte */
    uint32_t type;
    enum virtio_blk_direction direction;
    bool committing; /* the flush behind a write, where there is no write cache */
    struct virtio_blk_range ranges[VIRTIO_BLK_RANGES_MAX];
    unsigned n_ranges, next_range;
    struct virtio_blk_request *next; /* in a list of free or failed ones */
};

struct virtio_blk_counter {
    _Atomic uint64_t operations, bytes, errors;
};

struct virtio_blk {
    struct virtio virtio;
    struct virtio_blk_conf conf;
    struct disk_allow *allow; /* the disk's */
    struct disk_space space;  /* the same */
    struct disk *disk;
    char serial[DISK_SERIAL_MAX];

    struct virtio_blk_request *free;
    struct virtio_blk_request *held; /* for another try after the next start */
    unsigned under_way;              /* at the disk */
    bool stopping;
    bool asked;     /* for a pause, since the start */
    bool writeback; /* there is a write cache */
    int64_t logged_ns;

    struct limiter limiter;
    struct loop_timer refilled;
    bool throttled; /* until refilled */

    uint64_t to_signal; /* queues with chains pushed */
    struct loop_event signal;

    struct virtio_blk_counter counts[VIRTIO_BLK_DIRECTIONS];
    _Atomic uint64_t n_throttled;
};

static inline struct virtio_blk *virtio_blk_of(struct virtio *v)
{
    return CONTAINER_OF(v, struct virtio_blk, virtio);
}

/* One thread writes it. */
static inline void virtio_blk_add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Takes what there is in queue n, as far as the limits go. */
void virtio_blk_request_serve(struct virtio_blk *blk, unsigned n);

/* Shows the guest what has been answered; opaque: the disk. */
void virtio_blk_request_signal(void *opaque);

/* Ends a stop, where there is one and nothing is under way any more: what is held goes back to its queue. */
void virtio_blk_request_finish_stop(struct virtio_blk *blk);

/* Frees what is kept for further requests. */
void virtio_blk_request_free(struct virtio_blk *blk);

#endif
