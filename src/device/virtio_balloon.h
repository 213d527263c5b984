/*
 * A virtio memory balloon (virtio 1.2 section 5.5): the guest gives pages away and takes them back, as the host's target says, tells how its
 * memory is used, and reports pages that it has freed. What it gives or reports goes back to the host at once (ram_discard()).
 *
 * The target is the balloon's size: what the guest is to go without. Guests fill and empty it as they can, and may take pages back when they
 * would otherwise kill a process (VIRTIO_BALLOON_F_DEFLATE_ON_OOM).
 *
 * Threads: virtio_balloon_set_target() and virtio_balloon_get() from any; the rest is virtio.h's.
 */
#ifndef DEVICE_VIRTIO_BALLOON_H
#define DEVICE_VIRTIO_BALLOON_H

#include "virtio/virtio.h"

struct virtio_balloon_conf {
    uint64_t target;     /* bytes, at the start */
    uint64_t stats_secs; /* ask the guest for its statistics so often; 0: only when virtio_balloon_get() is called */
};

/* 5.5.6.4: the guest's statistics, by tag. Those of memory are bytes. */
enum virtio_balloon_stat {
    VIRTIO_BALLOON_SWAP_IN,
    VIRTIO_BALLOON_SWAP_OUT,
    VIRTIO_BALLOON_MAJOR_FAULTS,
    VIRTIO_BALLOON_MINOR_FAULTS,
    VIRTIO_BALLOON_FREE,
    VIRTIO_BALLOON_TOTAL,
    VIRTIO_BALLOON_AVAILABLE,
    VIRTIO_BALLOON_CACHES,
    VIRTIO_BALLOON_HUGE_ALLOCATIONS,
    VIRTIO_BALLOON_HUGE_FAILURES,
    VIRTIO_BALLOON_N_STATS,
};

struct virtio_balloon_info {
    uint64_t target, actual; /* bytes: what the balloon is to hold; what it does, as the guest says */
    uint64_t inflated_bytes; /* since the start: given with inflate requests, and discarded */
    uint64_t deflated_bytes; /* taken back */
    uint64_t reported_bytes; /* reported as free, and discarded */
    uint64_t refused_pages;  /* named in requests, and no RAM */
    int64_t stats_age_ns;    /* of the statistics; -1: the guest has told none */
    uint32_t stats_there;    /* a bit for each that it told */
    uint64_t stats[VIRTIO_BALLOON_N_STATS];
};

extern const struct virtio_type virtio_balloon_type;

/* What each statistic is called in reports, such as "free_bytes". */
const char *virtio_balloon_stat_name(enum virtio_balloon_stat stat);

/* bytes: rounded down to pages, and down to the guest's RAM. The guest is told, and follows when and as far as it can. */
void virtio_balloon_set_target(struct virtio *v, uint64_t bytes);

/* What is known now; and asks the guest for statistics anew, where those known are older than a second. */
void virtio_balloon_get(struct virtio *v, struct virtio_balloon_info *info);

#endif
