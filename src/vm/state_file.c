#include "vm/state_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* The header alone: no library to load at each start. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAGIC        "vireo-vm"
#define HASHED       24 /* bytes of a header before its hash */
#define BLOCK_HEADER STATE_FILE_HEADER

/* ---- writing ---- */

static int write_all(struct state_file_writer *w, const void *data, size_t len)
{
    const uint8_t *at = data;

    for (size_t done = 0; done < len;) {
        ssize_t n = write(w->fd, at + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    w->bytes += len;
    return 0;
}

int state_file_begin(struct state_file_writer *w, int fd, uint64_t id)
{
    uint8_t header[STATE_FILE_HEADER] = {0};

    *w = (struct state_file_writer){.fd = fd};
    memcpy(header, MAGIC, 8);
    store_le32(header + 8, STATE_FILE_VERSION);
    store_le64(header + 16, id);
    w->chain = XXH3_64bits(header, HASHED);
    store_le64(header + HASHED, w->chain);
    return write_all(w, header, sizeof(header));
}

static int put(struct state_file_writer *w, uint32_t kind, uint64_t number, const void *data, size_t len)
{
    uint8_t header[BLOCK_HEADER];

    if (len > STATE_FILE_BLOCK_MAX)
        return -EFBIG;
    store_le32(header, kind);
    store_le32(header + 4, (uint32_t)len);
    store_le64(header + 8, number);
    store_le64(header + 16, XXH3_64bits(data, len));
    w->chain = XXH3_64bits_withSeed(header, HASHED, w->chain);
    store_le64(header + HASHED, w->chain);
    int r = write_all(w, header, sizeof(header));
    if (r == 0)
        r = write_all(w, data, len);
    w->blocks++;
    return r;
}

int state_file_put(struct state_file_writer *w, uint32_t kind, uint64_t number, const void *data, size_t len)
{
    return kind == STATE_FILE_END ? -EINVAL : put(w, kind, number, data, len);
}

int state_file_end(struct state_file_writer *w)
{
    return put(w, STATE_FILE_END, w->blocks, "", 0);
}

/* ---- reading ---- */

static int damaged(const struct state_file_reader *r, struct err *err, const char *what)
{
    return err_set(err, -EPROTO, "'%.200s' is damaged: %s", r->name, what);
}

/* Bytes read, fewer at the end; or -errno, and a message. */
static ssize_t read_some(struct state_file_reader *r, void *data, size_t len, struct err *err)
{
    uint8_t *at = data;
    size_t done = 0;

    while (done < len) {
        ssize_t n = read(r->fd, at + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, -errno, "cannot read '%.200s': %s", r->name, strerror(errno));
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* All of it: 0. */
static int read_all(struct state_file_reader *r, void *data, size_t len, struct err *err)
{
    ssize_t n = read_some(r, data, len, err);

    if (n < 0)
        return (int)n;
    return (size_t)n < len ? damaged(r, err, "it ends too early") : 0;
}

int state_file_open(struct state_file_reader *r, int fd, const char *name, struct err *err)
{
    uint8_t header[STATE_FILE_HEADER];

    *r = (struct state_file_reader){.fd = fd, .name = name};
    ssize_t n = read_some(r, header, sizeof(header), err);
    if (n < 0)
        return (int)n;
    if (n < 8 || memcmp(header, MAGIC, 8) != 0)
        return err_set(err, -EPROTO, "'%.200s' is no saved state of a VM: that begins with \"" MAGIC "\"", name);
    if ((size_t)n < sizeof(header))
        return damaged(r, err, "it ends too early");
    r->chain = XXH3_64bits(header, HASHED);
    if (load_le64(header + HASHED) != r->chain)
        return damaged(r, err, "its header is not what was written");
    if (load_le32(header + 8) != STATE_FILE_VERSION)
        return err_set(err, -EPROTO, "'%.200s' is of version %u; accepted is %d", name, load_le32(header + 8),
                       STATE_FILE_VERSION);
    return load_le32(header + 12) ? damaged(r, err, "its header makes no sense") : 0;
}

/* There is nothing behind the end. */
static int check_end(struct state_file_reader *r, const struct state_file_block *block, struct err *err)
{
    uint8_t more;

    if (block->len || block->number != r->blocks)
        return damaged(r, err, "its end does not fit what came before");
    ssize_t n = read_some(r, &more, 1, err);
    if (n < 0)
        return (int)n;
    return n ? damaged(r, err, "something follows its end") : 0;
}

static bool make_room(struct state_file_reader *r, size_t len)
{
    if (len <= r->capacity)
        return true;
    uint8_t *data = realloc(r->data, len);
    if (!data)
        return false;
    r->data = data;
    r->capacity = len;
    return true;
}

int state_file_next(struct state_file_reader *r, struct state_file_block *block, struct err *err)
{
    uint8_t header[BLOCK_HEADER];
    int e = read_all(r, header, sizeof(header), err);

    if (e < 0)
        return e;
    r->chain = XXH3_64bits_withSeed(header, HASHED, r->chain);
    if (load_le64(header + HASHED) != r->chain)
        return damaged(r, err, "the header of one of its blocks is not what was written");
    *block = (struct state_file_block){
        .kind = load_le32(header), .len = load_le32(header + 4), .number = load_le64(header + 8)};
    if (block->kind == STATE_FILE_END)
        return check_end(r, block, err);
    r->blocks++;
    if (block->len > STATE_FILE_BLOCK_MAX)
        return damaged(r, err, "one of its blocks is too long");
    if (!make_room(r, block->len))
        return err_set(err, -ENOMEM, "'%.200s': out of memory", r->name);
    e = read_all(r, r->data, block->len, err);
    if (e < 0)
        return e;
    if (XXH3_64bits(r->data, block->len) != load_le64(header + 16))
        return damaged(r, err, "what one of its blocks holds is not what was written");
    block->data = r->data;
    return 1;
}

void state_file_close(struct state_file_reader *r)
{
    free(r->data);
    r->data = NULL;
    r->capacity = 0;
}
