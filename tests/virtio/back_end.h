/*
 * A vhost-user back end for tests: a thread at the other end of a socket, with the rings mapped and walked as a stranger would, and ways to
 * misbehave. What it does with a chain is the test's.
 */
#ifndef TESTS_VIRTIO_BACK_END_H
#define TESTS_VIRTIO_BACK_END_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "base/util.h"

#define BACK_END_RINGS   2
#define BACK_END_IOV_MAX 1024

struct back_end_ring {
    uint32_t num;
    uint64_t desc, avail, used; /* as told */
    int kick, call;
    bool enabled;
    uint16_t done; /* chains */
};

struct back_end {
    /* Set before back_end_start(). */
    uint64_t features, protocol;
    uint32_t silent_at, close_at, refuse_at, garble_at; /* a message's number; 0: none */
    /* Bytes written to `in`, or -1: the chain is kept. On the back end's thread. */
    int64_t (*serve)(struct back_end *b, unsigned ring, struct iovec *out, unsigned n_out, struct iovec *in,
                     unsigned n_in);
    void *opaque;

    int listener, fd, quit;
    pthread_t thread;
    unsigned n_regions;
    struct {
        uint64_t addr, len;
        uint8_t *map;
        uint64_t map_len;
    } regions[8];
    struct back_end_ring rings[BACK_END_RINGS];
    _Atomic unsigned n_messages, n_chains;
    _Atomic bool connected;
    _Atomic unsigned bad;    /* addresses that no region has, and the like */
    _Atomic uint32_t lie_id; /* plus 1: return this chain in place of the true one */
};

/* Listens on `path`, or with fd >= 0 serves that socket. */
void back_end_start(struct back_end *b, const char *path, int fd);
/* Closes the connection as if the process had died; the thread ends. */
void back_end_stop(struct back_end *b);

#endif
