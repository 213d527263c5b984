/*
 * A virtio file system device (virtio 1.2 section 5.11): a directory of the host that the guest mounts by its tag. The file system itself
 * is a back end's over vhost-user, Debian's virtiofsd: started here as a child, or one that listens on a socket already.
 *
 * A back end writes guest memory by itself, and an engine must hear of every store, or it would run stale code from a page cache's reused pages. So the
 * guest's rings are not handed on. Chains are popped by virtq like any device's, and go to the back end in rings of our own
 * (virtio/vhost_ring.h) as pieces of guest memory; virtq_push() then tells the engines. Each request's head is copied once, and the back end
 * sees the copy: what has been checked is what is served.
 *
 * Read-only is held here, whatever the back end does: a request that could change anything is answered with EROFS.
 *
 * When the back end goes, requests under way and those to come fail with EIO.
 *
 * Threads: virtio.h's.
 */
#ifndef DEVICE_VIRTIO_FS_H
#define DEVICE_VIRTIO_FS_H

#include <limits.h>

#include "virtio/virtio.h"

#define VIRTIO_FS_TAG_MAX 36 /* bytes (5.11.4) */

enum virtio_fs_cache { VIRTIO_FS_CACHE_AUTO, VIRTIO_FS_CACHE_ALWAYS, VIRTIO_FS_CACHE_NONE };

struct virtio_fs_conf {
    char tag[VIRTIO_FS_TAG_MAX + 1];
    char source[PATH_MAX];      /* a directory, for a virtiofsd to be started; or empty, and */
    char socket[PATH_MAX];      /* a back end's socket */
    char virtiofsd[PATH_MAX];   /* the program; empty: Debian's */
    enum virtio_fs_cache cache; /* how much the guest may */
    bool readonly;
};

struct virtio_fs_info {
    uint64_t requests; /* to the back end */
    uint64_t refused;  /* answered here: not allowed, or malformed */
    uint64_t failed;   /* with EIO, for want of a back end */
    bool gone;         /* the back end is */
};

extern const struct virtio_type virtio_fs_type;

/* What it has done so far. Any thread. */
void virtio_fs_get(struct virtio *v, struct virtio_fs_info *info);

#endif
