/*
 * What a switch and those who are connected to it say to each other, over a Unix socket that keeps messages apart (SOCK_SEQPACKET).
 *
 * Whoever connects says hello, and the switch answers with a welcome, or with an error and its reason, and closes. To one who joins it passes the memory
 * of two rings (switch_ring.h), that of the frames to the switch and behind it that of the frames from it; frames go through them alone. From
 * then on the socket carries notes: "look at the ring", which is sent when the other end waits, and what the port takes. Its end is the link's.
 * To one who asks for the status it passes a memory file with JSON, and closes.
 *
 * Why notes and not an eventfd: whether a descriptor blocks is a property that both processes could change, while each end of a socket is its
 * owner's. Why rings and not frames in messages: a frame's way from port to port through them takes a third to a hundredth of the time.
 *
 * All numbers are little-endian. The first eight bytes of hello and welcome are the same in every version.
 */
#ifndef NET_SWITCH_WIRE_H
#define NET_SWITCH_WIRE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define SWITCH_WIRE_MAGIC     0x57535256 /* "VRSW" */
#define SWITCH_WIRE_VERSION   1
#define SWITCH_WIRE_NAME_MAX  32 /* of a port or a switch, with its end */
#define SWITCH_WIRE_PATH_MAX  108
#define SWITCH_WIRE_TEXT_MAX  256
#define SWITCH_WIRE_MOST      512 /* bytes of a message */
#define SWITCH_WIRE_VLAN_MOST 4094

enum { SWITCH_WIRE_JOIN = 1, SWITCH_WIRE_STATUS = 2 };

struct switch_wire_hello {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;     /* SWITCH_WIRE_JOIN or _STATUS; what follows is for the former */
    uint32_t offloads; /* NET_OFFLOAD_ that the interface takes */
    uint16_t vlan;     /* the one it would like to be in; 0: the switch's default */
    uint8_t trunk;     /* 1: it would like the others too, tagged */
    uint8_t reserved;
    uint8_t mac[6]; /* of the interface, or zeroes: it does not say */
    uint8_t reserved2[2];
    char name[SWITCH_WIRE_NAME_MAX]; /* of the port; no two have the same */
};

struct switch_wire_welcome {
    uint32_t magic;
    uint16_t version;
    uint16_t reserved;
    int32_t error;                   /* an errno, or 0 */
    uint32_t offloads;               /* NET_OFFLOAD_ that the switch takes */
    uint64_t to_switch, from_switch; /* sizes of the rings (SWITCH_RING_) */
    uint64_t length;                 /* of the status */
    char text[SWITCH_WIRE_TEXT_MAX]; /* why not, on one line; ends with a zero */
};

enum { SWITCH_WIRE_WAKE = 1, SWITCH_WIRE_OFFLOADS = 2 };

struct switch_wire_note {
    uint32_t kind;
    uint32_t value; /* of _OFFLOADS: what the interface takes from now on */
};

/* Letters, digits and "-_." behind one of the former: 1 to SWITCH_WIRE_NAME_MAX - 1 in all. */
bool switch_wire_name_ok(const char *name);

/*
 * Where the switch of that name has its socket: in $XDG_RUNTIME_DIR/vireo, /run/vireo of root's, or /tmp/vireo-UID. A name with a slash is the path
 * itself. make: makes the directory. -errno: the name is none, or the directory is somebody else's.
 */
int switch_wire_path(const char *name, bool make, char path[SWITCH_WIRE_PATH_MAX], struct err *err) MUST_CHECK;

/* A connected socket that does not block, or -errno. */
int switch_wire_connect(const char *path);

/* Whether a message is a hello that can be answered: 0, or -errno and why not. */
int switch_wire_take_hello(const void *message, size_t len, struct switch_wire_hello *hello,
                           struct err *err) MUST_CHECK;
/* The same for the answer; what the switch refuses is an error too. */
int switch_wire_take_welcome(const void *message, size_t len, struct switch_wire_welcome *welcome,
                             struct err *err) MUST_CHECK;

/* Sends a message, with a descriptor unless that is -1: 0 or -errno. Never blocks. */
int switch_wire_send(int socket, const void *message, size_t len, int fd);

/* Receives one: its length, 0 at the end, or -errno. Never blocks. *fd: the descriptor that came with it, or -1; NULL: none is accepted. */
ssize_t switch_wire_receive(int socket, void *message, size_t size, int *fd);

/* A memory file that cannot shrink, or -errno. */
int switch_wire_make_memory(const char *name, uint64_t bytes);

/* Maps a memory file that the other end has sent; it has to have that size, and to be one that cannot shrink. NULL and why not. */
void *switch_wire_map(int fd, uint64_t bytes, struct err *err);

#endif
