#include "core/stream.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SECTION_NAME 16

void stream_init_save(struct stream *s)
{
    *s = (struct stream){.loading = false};
}

void stream_init_load(struct stream *s, const void *data, size_t len)
{
    *s = (struct stream){.loading = true, .data = (uint8_t *)(uintptr_t)data, .len = len};
}

void stream_fini(struct stream *s)
{
    if (!s->loading)
        free(s->data);
    *s = (struct stream){0};
}

static bool reserve(struct stream *s, size_t more)
{
    if (s->capacity - s->len >= more)
        return true;
    size_t capacity = s->capacity ? s->capacity : 4096;
    while (capacity - s->len < more)
        capacity *= 2;
    uint8_t *data = realloc(s->data, capacity);
    if (!data) {
        s->error = -ENOMEM;
        return false;
    }
    s->data = data;
    s->capacity = capacity;
    return true;
}

void stream_bytes(struct stream *s, void *p, size_t len)
{
    if (s->error || !len)
        return;
    if (s->loading) {
        if (s->len - s->pos < len) {
            s->error = -EPROTO;
            return;
        }
        memcpy(p, s->data + s->pos, len);
        s->pos += len;
    } else if (reserve(s, len)) {
        memcpy(s->data + s->len, p, len);
        s->len += len;
    }
}

void stream_u8(struct stream *s, uint8_t *p)
{
    stream_bytes(s, p, sizeof(*p));
}

void stream_u16(struct stream *s, uint16_t *p)
{
    stream_bytes(s, p, sizeof(*p));
}

void stream_u32(struct stream *s, uint32_t *p)
{
    stream_bytes(s, p, sizeof(*p));
}

void stream_u64(struct stream *s, uint64_t *p)
{
    stream_bytes(s, p, sizeof(*p));
}

void stream_i64(struct stream *s, int64_t *p)
{
    stream_bytes(s, p, sizeof(*p));
}

void stream_bool(struct stream *s, bool *p)
{
    uint8_t v = *p;
    stream_u8(s, &v);
    if (s->loading && !s->error) {
        if (v > 1)
            s->error = -EPROTO;
        else
            *p = v;
    }
}

void stream_text(struct stream *s, char *p, size_t size)
{
    stream_bytes(s, p, size);
    if (!s->loading)
        return;
    size_t len = s->error ? 0 : strnlen(p, size);
    bool fine = !s->error && len < size;
    for (size_t i = 0; fine && i < size; i++)
        fine = i < len ? p[i] >= ' ' && p[i] <= '~' : !p[i];
    if (fine)
        return;
    memset(p, 0, size);
    s->error = s->error ? s->error : -EPROTO;
}

void stream_refuse(struct stream *s, int error, const char *fmt, ...)
{
    va_list ap;

    if (s->error)
        return;
    s->error = error;
    va_start(ap, fmt);
    vsnprintf(s->why, sizeof(s->why), fmt, ap);
    va_end(ap);
}

uint32_t stream_section(struct stream *s, const char *name, uint32_t version)
{
    char mark[SECTION_NAME] = {0}, read[SECTION_NAME];
    uint32_t found = version;

    strncpy(mark, name, sizeof(mark) - 1);
    memcpy(read, mark, sizeof(read));
    stream_bytes(s, read, sizeof(read));
    stream_u32(s, &found);
    if (s->loading && !s->error && memcmp(read, mark, sizeof(mark)) != 0)
        stream_refuse(s, -EPROTO, "its part '%s' is not where it should be", name);
    if (s->loading && !s->error && (found < 1 || found > version))
        stream_refuse(s, -EPROTO, "its part '%s' has version %u; accepted are 1 to %u", name, found, version);
    return found;
}
