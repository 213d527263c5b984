/* See gdb_packet.h. */
#include "gdb/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>

#define ESCAPE     '}'
#define ESCAPE_XOR 0x20
#define INTERRUPT  0x03

/* The value of a hexadecimal digit, or 16. */
static unsigned digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a' + 10);
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A' + 10);
    return 16;
}

/* ---- reading ---- */

static enum gdb_packet_event begin(struct gdb_packet_reader *r)
{
    r->state = GDB_PACKET_INSIDE;
    r->sum = 0;
    r->too_long = false;
    r->len = 0;
    return GDB_PACKET_NOTHING;
}

static enum gdb_packet_event outside(struct gdb_packet_reader *r, uint8_t byte)
{
    switch (byte) {
    case '$':
        return begin(r);
    case '+':
        return GDB_PACKET_ACK;
    case '-':
        return GDB_PACKET_NAK;
    case INTERRUPT:
        return GDB_PACKET_INTERRUPT;
    default:
        return GDB_PACKET_NOTHING;
    }
}

static void keep(struct gdb_packet_reader *r, uint8_t byte)
{
    if (r->len < GDB_PACKET_MAX)
        r->data[r->len++] = (char)byte;
    else
        r->too_long = true;
}

static enum gdb_packet_event end(struct gdb_packet_reader *r, uint8_t byte)
{
    unsigned claimed = r->claimed << 4 | digit((char)byte);

    r->state = GDB_PACKET_OUTSIDE;
    r->data[r->len] = '\0';
    if (r->claimed > 15 || digit((char)byte) > 15 || claimed != r->sum || r->too_long)
        return GDB_PACKET_BAD;
    return GDB_PACKET_COMPLETE;
}

enum gdb_packet_event gdb_packet_read(struct gdb_packet_reader *r, uint8_t byte)
{
    switch (r->state) {
    case GDB_PACKET_OUTSIDE:
        return outside(r, byte);
    case GDB_PACKET_INSIDE:
        if (byte == '$') /* the peer has given up the packet it was sending */
            return begin(r);
        if (byte == '#') {
            r->state = GDB_PACKET_SUM1;
            return GDB_PACKET_NOTHING;
        }
        r->sum = (uint8_t)(r->sum + byte);
        if (byte == ESCAPE)
            r->state = GDB_PACKET_ESCAPE;
        else
            keep(r, byte);
        return GDB_PACKET_NOTHING;
    case GDB_PACKET_ESCAPE:
        r->sum = (uint8_t)(r->sum + byte);
        keep(r, byte ^ ESCAPE_XOR);
        r->state = GDB_PACKET_INSIDE;
        return GDB_PACKET_NOTHING;
    case GDB_PACKET_SUM1:
        r->claimed = digit((char)byte);
        r->state = GDB_PACKET_SUM2;
        return GDB_PACKET_NOTHING;
    default:
        return end(r, byte);
    }
}

/* ---- writing ---- */

/* Room for contents that is left; the checksum has its own. */
static size_t room(const struct gdb_packet *p)
{
    return GDB_PACKET_MAX + 1 - p->len;
}

void gdb_packet_begin(struct gdb_packet *p)
{
    p->len = 0;
    p->full = false;
    p->data[p->len++] = '$';
}

static void put(struct gdb_packet *p, const char *text, size_t len)
{
    if (len > room(p)) {
        p->full = true;
        return;
    }
    memcpy(p->data + p->len, text, len);
    p->len += len;
}

void gdb_packet_text(struct gdb_packet *p, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(text))
        p->full = true;
    else
        put(p, text, (size_t)n);
}

void gdb_packet_hex(struct gdb_packet *p, const void *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;

    if (len > room(p) / 2) {
        p->full = true;
        return;
    }
    for (size_t i = 0; i < len; i++) {
        p->data[p->len++] = digits[bytes[i] >> 4];
        p->data[p->len++] = digits[bytes[i] & 15];
    }
}

size_t gdb_packet_binary(struct gdb_packet *p, const void *data, size_t len)
{
    const char *bytes = data;
    size_t i;

    for (i = 0; i < len && room(p) >= 2; i++) {
        /* '*' would begin a run length in a reply. */
        if (bytes[i] == '$' || bytes[i] == '#' || bytes[i] == ESCAPE || bytes[i] == '*') {
            p->data[p->len++] = ESCAPE;
            p->data[p->len++] = (char)(bytes[i] ^ ESCAPE_XOR);
        } else {
            p->data[p->len++] = bytes[i];
        }
    }
    return i;
}

void gdb_packet_end(struct gdb_packet *p)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum = 0;

    if (p->full) {
        gdb_packet_begin(p);
        gdb_packet_text(p, "E.too long");
    }
    for (size_t i = 1; i < p->len; i++)
        sum = (uint8_t)(sum + (uint8_t)p->data[i]);
    p->data[p->len++] = '#';
    p->data[p->len++] = digits[sum >> 4];
    p->data[p->len++] = digits[sum & 15];
}

/* ---- numbers ---- */

bool gdb_packet_number(const char **text, uint64_t *value)
{
    const char *start = *text;

    *value = 0;
    for (; digit(**text) < 16; (*text)++)
        *value = *value << 4 | digit(**text);
    return *text > start && *text - start <= 16;
}

bool gdb_packet_bytes(const char *text, void *data, size_t len)
{
    uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++, text += 2) {
        if (digit(text[0]) > 15 || digit(text[1]) > 15) /* a NUL is no digit: it is not read past */
            return false;
        bytes[i] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
    }
    return *text == '\0';
}
