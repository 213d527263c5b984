/*
 * An image from anywhere, and a guest that uses it. 16 bytes say what the guest does, the rest is the image: it is opened, or refused with a line;
 * then requests, several at once, on a host that may fail; a flush, more room, and the close. Nothing of it may touch memory that is not its own, hang, or
 * take more than its share.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "disk/qcow2_impl.h"
#include "fuzz.h"
#include "unit/disk/fake_file.h"

#define N_OPS     60
#define DEPTH     6
#define MAX_BYTES (64 * KIB)

enum { READ_ONLY = 1, DISCARD = 2, SMALL_CACHE = 4, FAILING = 8, RESIZE = 16, ALONE = 32, SHRINK = 64 };

struct guest {
    struct loop *loop;
    struct disk *disk;
    uint64_t seed;
    unsigned left, active;
};

struct op {
    struct disk_request req;
    struct guest *guest;
    struct iovec iov;
    uint8_t buf[MAX_BYTES];
    struct disk_extent extents[3];
};

static struct op ops[DEPTH];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_set_level(LOG_LEVEL_NONE); /* broken images are complained about */
    return 0;
}

static uint64_t random_64(struct guest *g)
{
    return (uint64_t)fake_random(&g->seed) << 31 ^ fake_random(&g->seed);
}

static void done(struct disk_request *req, int result);

static void begin(struct op *op)
{
    static const enum disk_op kinds[] = {DISK_READ, DISK_READ, DISK_WRITE, DISK_WRITE,   DISK_WRITE,
                                         DISK_ZERO, DISK_ZERO, DISK_FLUSH, DISK_DISCARD, DISK_MAP};
    struct guest *g = op->guest;
    uint64_t blocks = g->disk->size / DISK_BLOCK_SIZE, first = random_64(g) % blocks;
    uint64_t n = 1 + random_64(g) % (MAX_BYTES / DISK_BLOCK_SIZE);

    if (random_64(g) % 2)
        first %= 256; /* where the small images have something */
    first = first < blocks ? first : 0;
    n = n < blocks - first ? n : blocks - first;
    op->req = (struct disk_request){.op = kinds[random_64(g) % ARRAY_SIZE(kinds)],
                                    .unmap = random_64(g) % 2,
                                    .offset = first * DISK_BLOCK_SIZE,
                                    .len = n * DISK_BLOCK_SIZE,
                                    .iov = &op->iov,
                                    .n_iov = 1,
                                    .extents = op->extents,
                                    .n_extents = ARRAY_SIZE(op->extents),
                                    .done = done};
    if ((op->req.op == DISK_DISCARD || op->req.op == DISK_ZERO || op->req.op == DISK_MAP) && random_64(g) % 8 == 0) {
        op->req.len = (blocks - first) * DISK_BLOCK_SIZE;
        op->req.len = op->req.len < GIB ? op->req.len : GIB;
    }
    op->iov = (struct iovec){op->buf, op->req.len};
    g->left--;
    g->active++;
    disk_submit(g->disk, &op->req);
}

static void done(struct disk_request *req, int result)
{
    struct op *op = CONTAINER_OF(req, struct op, req);
    struct guest *g = op->guest;

    g->active--;
    if (g->left)
        begin(op);
    if (!g->active)
        loop_stop(g->loop);
}

static void use(struct guest *g)
{
    g->left = N_OPS;
    for (unsigned i = 0; i < DEPTH; i++) {
        ops[i].guest = g;
        begin(&ops[i]);
    }
    loop_run(g->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guest g = {0};
    struct err err = {""};

    if (size < 16 || loop_open(&g.loop, NULL))
        return 0;
    g.seed = load_le64(data);
    unsigned flags = data[8];
    struct fake *fake = fake_new(data + 16, size - 16, g.seed);
    fake->max_size = 16 * MIB;
    fake_next = fake;
    struct disk_conf conf = {.path = "fuzz.qcow2",
                             .format = "qcow2",
                             .read_only = flags & READ_ONLY,
                             .discard = flags & DISCARD,
                             .no_backing = flags & ALONE};
    int r = disk_open(&g.disk, &conf, g.loop, &err);
    if (r && (!err.msg[0] || strchr(err.msg, '\n')))
        abort(); /* one line that says why */
    if (r == 0) {
        struct qcow2 *q = (struct qcow2 *)g.disk;
        if (flags & SMALL_CACHE) {
            q->max_pages = 4;
            q->max_dirty = 2;
        }
        if (flags & FAILING) {
            fake->fail_gap = 40;
            fake->fail_op = fake->n_ops + 10;
        }
        use(&g);
        uint64_t to = flags & SHRINK ? random_64(&g) % g.disk->size : g.disk->size + random_64(&g) % GIB;
        if ((flags & RESIZE) && disk_resize(g.disk, align_up(to, 512), &err) == 0)
            use(&g);
        disk_close(g.disk);
    }
    fake_free(fake);
    loop_close(g.loop);
    return 0;
}
