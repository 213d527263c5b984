/*
 * What a network card does for its driver, done here: checksums completed, large TCP packets cut into segments. For whoever is handed a frame
 * with a header that asks for it (net.h), and passes it to somebody who takes only plain frames. Pure.
 *
 * Frames and headers come from guests: offload_check() is asked first, and everything else looks at its own copy of a frame's headers.
 */
#ifndef NET_OFFLOAD_H
#define NET_OFFLOAD_H

#include "net/net.h"

#define OFFLOAD_SEGMENT_LEAST 48 /* bytes; Linux cuts none smaller, and a frame cannot become tens of thousands */

/* Room for one frame, all in one piece, and for the headers of one segment of it. */
struct offload_scratch {
    uint8_t frame[NET_FRAME_MAX];
    uint8_t headers[512];
};

/*
 * Whether a header makes sense for a frame of `len` bytes (virtio 1.2 section 5.1.6.2): a known segmentation in segments of a size, and a
 * checksum that lies within the frame. What the headers inside the frame say is not looked at.
 */
bool offload_check(const struct net_header *h, size_t len) MUST_CHECK;

/* Which NET_OFFLOAD_ somebody must take to be given a frame with this header as it is. */
unsigned offload_needs(const struct net_header *h);

/*
 * Completes the checksum that a checked header asks for, in a frame in one piece. Of a packet that is to be cut into segments it makes one valid packet:
 * lengths and checksums that cover all of it. False where that is not the TCP packet that the header says; it is to be dropped.
 */
bool offload_finish(const struct net_header *h, uint8_t *frame, size_t len) MUST_CHECK;

/*
 * Hands a frame on with what is left to do that the taker does not: as it is, or finished, or as segments. h is checked. The number of frames
 * that were emitted: 0 where the frame is not what the header says.
 */
unsigned offload_adapt(unsigned offloads, const struct net_header *h, const struct iovec *frame, unsigned n,
                       struct offload_scratch *scratch,
                       void (*emit)(void *opaque, const struct net_header *h, const struct iovec *frame, unsigned n),
                       void *opaque);

/* The sum of RFC 1071 over bytes, not folded and not inverted; `sum` is that of what stands before, an even number of bytes. */
uint64_t offload_sum(const void *data, size_t len, uint64_t sum);

/* To 16 bits, in the order of the bytes in memory. Not inverted. */
uint16_t offload_fold(uint64_t sum);

size_t offload_length(const struct iovec *frame, unsigned n);
/* The first bytes of a frame in one piece: `len` of them or what there is. */
size_t offload_gather(const struct iovec *frame, unsigned n, void *buf, size_t len);

#endif
