/*
 * The front end of vhost-user (QEMU's docs/interop/vhost-user.rst): sets up a back end, a process that does a virtio device's work, over a
 * Unix socket. It is shown memory and rings; kicks and calls are eventfds from then on.
 *
 * The back end works on rings of ours (virtio/vhost_ring.h), never on the guest's, so all is set up once, at the start, and the guest's driver may
 * come and go. Addresses are the guest's, in the memory table's two columns alike: no pointer of ours leaves the process.
 *
 * Threads: who opens it. Every exchange waits for its answer, for as long as VHOST_USER_PATIENCE_MS.
 */
#ifndef VIRTIO_VHOST_USER_H
#define VIRTIO_VHOST_USER_H

#include "base/err.h"

#define VHOST_USER_PATIENCE_MS 30000
#define VHOST_USER_REGIONS_MAX 8

struct vhost_user {
    int fd;            /* the socket; the caller's */
    uint64_t features; /* negotiated */
    uint64_t protocol; /* the protocol's features, the same */
};

struct vhost_user_region {
    uint64_t addr, len;
    uint64_t offset; /* in fd */
    int fd;          /* a memfd */
};

struct vhost_user_ring {
    unsigned index; /* of the device's queue */
    unsigned size;  /* descriptors */
    uint64_t desc, avail, used;
    int kick, call; /* eventfds */
};

/* Takes a connected socket over, agrees on features: all of `features` are required. -errno; errors begin with "the back end". */
int vhost_user_open(struct vhost_user *vu, int fd, uint64_t features, struct err *err) MUST_CHECK;

/* Shows it memory: once, before any ring. */
int vhost_user_set_memory(struct vhost_user *vu, const struct vhost_user_region *regions, unsigned n,
                          struct err *err) MUST_CHECK;

/* Lets it serve a ring, from its first entry on. */
int vhost_user_start_ring(struct vhost_user *vu, const struct vhost_user_ring *ring, struct err *err) MUST_CHECK;

#endif
