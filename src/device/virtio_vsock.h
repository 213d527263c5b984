/*
 * virtio-vsock (virtio 1.2 section 5.10): stream sockets between programs in the guest and programs on the host. The host's side is a Unix
 * socket, in the way that other VMMs have it:
 *
 * - A host program connects to PATH and sends "CONNECT <port>\n"; when the guest's listener on that port has taken the connection it gets
 *   "OK <host port>\n", and from there on the socket is the stream. A port that nobody listens on: the socket is closed.
 * - A guest's connection to CID 2, port N, goes to the Unix socket PATH_N, where a host program listens; without one the guest is refused.
 */
#ifndef DEVICE_VIRTIO_VSOCK_H
#define DEVICE_VIRTIO_VSOCK_H

#include "virtio/virtio.h"

#define VIRTIO_VSOCK_CID_LEAST 3 /* below are the hypervisor, loopback and the host */
#define VIRTIO_VSOCK_CID_MOST  UINT64_C(0xfffffffe)

struct virtio_vsock_conf {
    uint64_t cid;         /* the guest's */
    const char *path;     /* of the host's socket; copied */
    int64_t patience_ns;  /* how long the guest may take to answer before it is sent a reset; 0: 10 s */
    unsigned connections; /* the most at a time, those that wait for their CONNECT line too; 0: 1024 */
};

extern const struct virtio_type virtio_vsock_type;

/* Whether the sockets of all ports can stand beside `path`: 0, or -ENAMETOOLONG and one line. */
int virtio_vsock_check_path(const char *path, struct err *err) MUST_CHECK;

#endif
