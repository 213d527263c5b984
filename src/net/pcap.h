/*
 * Captures: frames written to a pcap file with nanoseconds, which Wireshark and tcpdump read (LINKTYPE_ETHERNET; draft-ietf-opsawg-pcap).
 * Frames are kept whole, and the file is never rotated. Where it cannot be written any more - a full disk - the capture stops with one line,
 * the file ends behind the last whole frame, and whoever is captured goes on.
 *
 * Threads: one at a time for each capture.
 */
#ifndef NET_PCAP_H
#define NET_PCAP_H

#include <sys/uio.h>

#include "base/err.h"

struct pcap;

/* Replaces what was in the file. A FIFO needs a reader by then, and one that does not keep up ends the capture. -errno. */
int pcap_open(struct pcap **pcap, const char *path, struct err *err) MUST_CHECK;

/* Writes a frame, up to 16 pieces, with the time of now. Does nothing for NULL, and when the capture has stopped. */
void pcap_frame(struct pcap *pcap, const struct iovec *frame, unsigned n);

void pcap_close(struct pcap *pcap);

#endif
