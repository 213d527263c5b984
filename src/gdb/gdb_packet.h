/*
 * Packets of the GDB Remote Serial Protocol (GDB manual, appendix E.1): $contents#checksum, taken apart and put together. Pure:
 * nothing here knows what a packet means or where bytes come from.
 *
 * Threads: each reader's and packet's own.
 */
#ifndef GDB_GDB_PACKET_H
#define GDB_GDB_PACKET_H

#include <stdbool.h>

#include "base/util.h"

#define GDB_PACKET_MAX 0x4000 /* bytes of contents, both ways; what PacketSize promises */

enum gdb_packet_event {
    GDB_PACKET_NOTHING,   /* more bytes are needed, or this one means nothing */
    GDB_PACKET_COMPLETE,  /* reader->data holds a packet's contents */
    GDB_PACKET_BAD,       /* a packet that is too long, or not what its checksum says: to be asked for again */
    GDB_PACKET_INTERRUPT, /* Ctrl-C */
    GDB_PACKET_ACK,       /* the peer has our last packet */
    GDB_PACKET_NAK,       /* it wants that packet again */
};

/* All zeroes before the first byte. */
struct gdb_packet_reader {
    enum { GDB_PACKET_OUTSIDE, GDB_PACKET_INSIDE, GDB_PACKET_ESCAPE, GDB_PACKET_SUM1, GDB_PACKET_SUM2 } state;
    uint8_t sum;      /* of the contents so far */
    unsigned claimed; /* the checksum's first digit, or 16 where it is none */
    bool too_long;
    size_t len;
    char data[GDB_PACKET_MAX + 1]; /* contents without escapes, and a NUL */
};

/* Takes one byte that came from the peer. */
enum gdb_packet_event gdb_packet_read(struct gdb_packet_reader *reader, uint8_t byte);

/* A packet on its way out. What does not fit marks it full, and is left out. */
struct gdb_packet {
    size_t len;
    bool full;
    char data[GDB_PACKET_MAX + 4]; /* the whole frame, from $ to the checksum */
};

void gdb_packet_begin(struct gdb_packet *p);
void gdb_packet_text(struct gdb_packet *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
void gdb_packet_hex(struct gdb_packet *p, const void *data, size_t len);

/* Bytes as they are, those that frame packets escaped; returns how many found room. */
size_t gdb_packet_binary(struct gdb_packet *p, const void *data, size_t len);

/* Puts the checksum behind it. Contents that were too long become an error reply, E.too long. */
void gdb_packet_end(struct gdb_packet *p);

/* Hexadecimal digits at *text: their value, and *text behind them; false where there are none, or more than 16. */
bool gdb_packet_number(const char **text, uint64_t *value) MUST_CHECK;

/* Exactly `len` bytes from pairs of digits, and nothing behind them. */
bool gdb_packet_bytes(const char *text, void *data, size_t len) MUST_CHECK;

#endif
