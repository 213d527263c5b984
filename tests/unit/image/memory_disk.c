#include "memory_disk.h"

#include <errno.h>
#include <stdlib.h>

uint32_t memory_disk_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void move(struct memory_disk *m, struct disk_request *req, bool write)
{
    uint8_t *p = m->data + req->offset;

    for (unsigned i = 0; i < req->n_iov; p += req->iov[i++].iov_len) {
        if (write)
            memcpy(p, req->iov[i].iov_base, req->iov[i].iov_len);
        else
            memcpy(req->iov[i].iov_base, p, req->iov[i].iov_len);
    }
}

static void mark(struct memory_disk *m, const struct disk_request *req, enum disk_extent_kind kind)
{
    for (uint64_t b = req->offset / DISK_BLOCK_SIZE; b < (req->offset + req->len) / DISK_BLOCK_SIZE; b++)
        m->blocks[b] = (struct memory_block){.kind = (uint8_t)kind};
}

static int map(struct memory_disk *m, struct disk_request *req)
{
    uint64_t b = req->offset / DISK_BLOCK_SIZE, end = (req->offset + req->len) / DISK_BLOCK_SIZE;
    unsigned n = 0;

    if (m->no_map)
        return -ENOTSUP;
    for (; b < end && n < req->n_extents; n++) {
        uint64_t first = b;
        while (b < end && memcmp(&m->blocks[b], &m->blocks[first], sizeof(m->blocks[b])) == 0)
            b++;
        req->extents[n] = (struct disk_extent){.kind = m->blocks[first].kind,
                                               .depth = m->blocks[first].depth,
                                               .offset = first * DISK_BLOCK_SIZE,
                                               .len = (b - first) * DISK_BLOCK_SIZE};
    }
    req->n_extents = n;
    return 0;
}

static int perform(struct memory_disk *m, struct disk_request *req)
{
    bool hit = m->fail_at && m->fail_at >= req->offset && m->fail_at < req->offset + req->len;

    m->n[req->op]++;
    m->bytes[req->op] += req->len;
    m->n_compressed += req->compress;
    switch (req->op) {
    case DISK_READ:
    case DISK_WRITE:
        if (hit)
            return -EIO;
        move(m, req, req->op == DISK_WRITE);
        if (req->op == DISK_WRITE)
            mark(m, req, DISK_EXTENT_DATA);
        return 0;
    case DISK_ZERO:
    case DISK_DISCARD:
        memset(m->data + req->offset, 0, req->len);
        mark(m, req, DISK_EXTENT_ZERO);
        return 0;
    case DISK_MAP:
        return map(m, req);
    case DISK_FLUSH:
        return 0;
    }
    return -EINVAL;
}

/* One of those under way. */
static void serve(void *opaque)
{
    struct memory_disk *m = opaque;
    unsigned i = memory_disk_random(&m->seed) % m->n_todo;
    struct disk_request *req = m->todo[i];

    m->todo[i] = m->todo[--m->n_todo];
    if (m->n_todo)
        loop_event_set(&m->event);
    disk_complete(req, perform(m, req));
}

static void submit(struct disk *disk, struct disk_request *req)
{
    struct memory_disk *m = (struct memory_disk *)disk;

    if (m->n_todo == ARRAY_SIZE(m->todo))
        abort();
    m->todo[m->n_todo++] = req;
    if (m->n_todo > m->most_under_way)
        m->most_under_way = m->n_todo;
    loop_event_set(&m->event);
}

static void close_memory(struct disk *disk)
{
    struct memory_disk *m = (struct memory_disk *)disk;

    loop_event_fini(&m->event);
    free(m->data);
    free(m->blocks);
    free(m);
}

static const struct disk_type type = {.name = "memory", .submit = submit, .close = close_memory};

struct memory_disk *memory_disk_new(struct loop *loop, uint64_t size, uint64_t seed)
{
    const struct disk_conf conf = {.path = "memory", .discard = true};
    struct memory_disk *m = calloc(1, sizeof(*m));

    if (!m)
        abort();
    disk_init(&m->disk, &type, &conf, loop);
    m->disk.size = size;
    m->seed = seed;
    m->data = calloc(1, size);
    m->blocks = calloc(size / DISK_BLOCK_SIZE, sizeof(*m->blocks));
    if (!m->data || !m->blocks)
        abort();
    memset(m->blocks, 0, size / DISK_BLOCK_SIZE * sizeof(*m->blocks));
    for (uint64_t b = 0; b < size / DISK_BLOCK_SIZE; b++)
        m->blocks[b].kind = DISK_EXTENT_HOLE;
    loop_event_init(&m->event, loop, serve, m);
    return m;
}

void memory_disk_fill(struct memory_disk *m)
{
    uint64_t n_blocks = m->disk.size / DISK_BLOCK_SIZE;

    for (uint64_t b = 0; b < n_blocks;) {
        uint64_t n = 1 + memory_disk_random(&m->seed) % (memory_disk_random(&m->seed) % 4 ? 8 : 1000);
        struct memory_block block = {.kind = (uint8_t)(memory_disk_random(&m->seed) % 3),
                                     .depth = (uint8_t)(memory_disk_random(&m->seed) % 3)};
        bool zeroes = block.kind != DISK_EXTENT_DATA || memory_disk_random(&m->seed) % 3 == 0;
        for (; n && b < n_blocks; n--, b++) {
            m->blocks[b] = block;
            for (unsigned i = 0; i < DISK_BLOCK_SIZE; i++)
                m->data[b * DISK_BLOCK_SIZE + i] = zeroes ? 0 : (uint8_t)(memory_disk_random(&m->seed) >> 8);
        }
    }
}

void memory_disk_free(struct memory_disk *m)
{
    disk_close(&m->disk);
}
