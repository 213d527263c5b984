/*
 * Device and CPU state as a byte stream. One walk serves both ways: the same calls write a state out or read it
 * back, so the two cannot disagree. All fields are little-endian. Errors stick: look at `error` at the end.
 *
 * What is loaded is hostile: whoever takes a field out of it checks what the code that uses it relies on, and sets -EPROTO.
 */
#ifndef CORE_STREAM_H
#define CORE_STREAM_H

#include <stdbool.h>

#include "base/util.h"

struct stream {
    bool loading;
    int error; /* 0, or the first -errno: -EPROTO for data that is cut short or does not fit, -ENOMEM */
    uint8_t *data;
    size_t len;      /* bytes written, or there to be read */
    size_t pos;      /* loading: bytes read */
    size_t capacity; /* saving */
    char why[160];   /* for people, one line: of the first error, where stream_refuse() gave one; or "" */
};

void stream_init_save(struct stream *s);
void stream_init_load(struct stream *s, const void *data, size_t len); /* data stays the caller's */
void stream_fini(struct stream *s);

void stream_bytes(struct stream *s, void *p, size_t len);
void stream_u8(struct stream *s, uint8_t *p);
void stream_u16(struct stream *s, uint16_t *p);
void stream_u32(struct stream *s, uint32_t *p);
void stream_u64(struct stream *s, uint64_t *p);
void stream_i64(struct stream *s, int64_t *p);
void stream_bool(struct stream *s, bool *p);

/* A name or a version: `size` bytes with the zeroes behind it. What is loaded has an end and no character that does not print. */
void stream_text(struct stream *s, char *p, size_t size);

/* Sets the error, unless there is one already, and says why. */
void stream_refuse(struct stream *s, int error, const char *fmt, ...) PRINTF_LIKE(3, 4);

/*
 * Writes or expects a section mark: a name of up to 15 characters and a version. Returns the version read (or written);
 * one that is read and is later than `version` is an error, as is 0.
 */
uint32_t stream_section(struct stream *s, const char *name, uint32_t version);

#endif
