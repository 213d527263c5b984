/*
 * A capture between an interface and what it is plugged into: whatever goes through is written to a pcap file, both ways, as it is handed over:
 * large packets uncut, checksums incomplete where that is left to the receiver.
 */
#ifndef NET_CAPTURE_H
#define NET_CAPTURE_H

#include "net/net.h"

/* Puts a capture before *net, and itself in its place: net_close() then closes both. On failure *net is as it was. */
int capture_open(struct net **net, const char *path, struct err *err) MUST_CHECK;

#endif
