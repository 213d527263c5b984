/*
 * What the two files of the virtio file system device share: requests and the virtio side are in virtio_fs.c, the back end's life in
 * virtio_fs_back_end.c.
 */
#ifndef DEVICE_VIRTIO_FS_IMPL_H
#define DEVICE_VIRTIO_FS_IMPL_H

#include <linux/fuse.h>
#include <stdatomic.h>

#include "device/virtio_fs.h"
#include "device/virtiofsd.h"
#include "virtio/vhost_ring.h"

/* 5.11.2: queue 0 is for requests that must not wait, queue 1 for the others. virtiofsd serves no more. */
enum { N_QUEUES = 2, QUEUE_SIZE = 512 };

/* 5.11.4 */
enum { CONFIG_TAG = 0, CONFIG_N_QUEUES = VIRTIO_FS_TAG_MAX };

/* What is copied of a request: its header, and the flags of an OPEN. */
#define HEAD_SIZE   (sizeof(struct fuse_in_header) + sizeof(struct fuse_open_in))
#define HEAD_STRIDE 64

/* Where the back end sees our own memory, above all that can be the guest's; for each queue a ring, and the copied heads. */
#define OWN_ADDR       (UINT64_C(1) << 45)
#define OWN_QUEUE_SIZE (VHOST_RING_BYTES + QUEUE_SIZE * HEAD_STRIDE)
#define OWN_SIZE       (N_QUEUES * OWN_QUEUE_SIZE)

struct fs_request {
    struct virtq_elem *elem;
    struct fuse_in_header head;
    uint8_t *copy; /* HEAD_SIZE, shared with the back end */
    struct fs_request *next_free;
};

struct fs_watch {
    struct loop_fd source;
    bool on;
};

struct fs_queue {
    struct virtio_fs *fs;
    unsigned index;
    struct vhost_ring ring;
    struct fs_request *requests, *free; /* QUEUE_SIZE of them */
    unsigned under_way;
    int kick, call; /* eventfds */
    struct fs_watch called;
};

struct virtio_fs {
    struct virtio v;
    struct fs_queue queues[N_QUEUES];
    bool readonly, started, stopping; /* started: once, so that v.queues is there */

    struct virtiofsd child; /* pid 0: there is none */
    int socket;             /* the child's, or ours */
    bool killed;
    struct fs_watch on_socket, on_child, on_output;
    struct loop_timer patience;
    char words[200]; /* the last line of the child's */

    int own_fd; /* a memfd */
    uint8_t *own;
    _Atomic uint64_t n_requests, n_refused, n_failed;
    _Atomic bool gone; /* the back end */
};

/* The address at which the back end sees memory of ours. */
static inline uint64_t virtio_fs_own_addr(const struct virtio_fs *fs, const void *p)
{
    return OWN_ADDR + (uint64_t)((const uint8_t *)p - fs->own);
}

/* In open: connects and sets up the back end, which is watched from then on; and in close. */
int virtio_fs_back_end_open(struct virtio_fs *fs, const struct virtio_fs_conf *conf, struct err *err) MUST_CHECK;
void virtio_fs_back_end_close(struct virtio_fs *fs);

/* Has done with a back end that does not do its part; virtio_fs_gone() follows, now or when the child has ended. */
void virtio_fs_sever(struct virtio_fs *fs, const char *why);

/* The back end has gone: it does not touch the guest's memory from here on. */
void virtio_fs_gone(struct virtio_fs *fs, const char *why);

/* It has been called: chains are done. */
void virtio_fs_called(void *opaque, uint32_t events);

#endif
