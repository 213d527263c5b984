/*
 * Ethernet addresses: as text, and the ones that interfaces have unless told otherwise. Pure, but for reading the host's identity.
 *
 * An interface's own address has to be the same whenever its VM runs, and another one than that of any other interface on its network, with
 * nobody there to hand addresses out. So it is a digest of three things: the host (/etc/machine-id), the VM, and the number of the interface in
 * the VM. 46 bits of the digest are left beside those that mark an address as of one station and locally administered: among a thousand
 * interfaces on one network two are the same with a probability of 1 in 140 million.
 */
#ifndef NET_MAC_H
#define NET_MAC_H

#include <stdbool.h>

#include "base/util.h"

#define MAC_SIZE     6
#define MAC_TEXT_MAX 18 /* with its end */

/* "52:54:00:12:34:56", also with dashes. False for anything else, for a group's address and for one of all zeroes. */
bool mac_parse(const char *text, uint8_t mac[MAC_SIZE]) MUST_CHECK;
void mac_format(const uint8_t mac[MAC_SIZE], char text[MAC_TEXT_MAX]);

/*
 * vm: what this VM has that no other VM of the host has at the same time, and has whenever it runs: its name, or else the absolute path of its
 * first disk. NULL where there is nothing of the kind: then the address is of this process alone. index: counts the VM's interfaces.
 */
void mac_derive(uint8_t mac[MAC_SIZE], const char *vm, unsigned index);

/* The first interface among n that has the same address as one before it, or n. */
unsigned mac_find_twice(uint8_t (*macs)[MAC_SIZE], unsigned n);

static inline bool mac_is_group(const uint8_t *mac)
{
    return mac[0] & 1;
}

#endif
