/*
 * Device and CPU state as a byte stream. One walk serves both ways: the same calls write a state out or read it
 * back, so the two cannot disagree. All fields are little-endian. Errors stick: check stream_error() at the end.
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

/* Writes or expects a section mark: a name of up to 15 characters and a version. Returns the version read (or written). */
uint32_t stream_section(struct stream *s, const char *name, uint32_t version);

#endif
