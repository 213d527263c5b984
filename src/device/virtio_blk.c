#include "device/virtio_blk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "device/virtio_blk_impl.h"
#include "disk/disk_allow.h"

#define QUEUE_SIZE 256

/* 5.2.4: offsets in the configuration space. */
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_BLOCK_EXP = 24,
    CONFIG_MIN_IO_SIZE = 26,
    CONFIG_WRITEBACK = 32,
    CONFIG_NUM_QUEUES = 34,
    CONFIG_MAX_DISCARD_SECTORS = 36,
    CONFIG_MAX_DISCARD_SEG = 40,
    CONFIG_DISCARD_SECTOR_ALIGNMENT = 44,
    CONFIG_MAX_WRITE_ZEROES_SECTORS = 48,
    CONFIG_MAX_WRITE_ZEROES_SEG = 52,
    CONFIG_WRITE_ZEROES_MAY_UNMAP = 56,
    CONFIG_LEN = 60,
};

static void notify(struct virtio *v, unsigned n)
{
    struct virtio_blk *blk = virtio_blk_of(v);

    if (!blk->throttled)
        virtio_blk_request_serve(blk, n);
}

static void on_refilled(void *opaque)
{
    struct virtio_blk *blk = opaque;

    blk->throttled = false;
    if (blk->stopping || !virtio_running(&blk->virtio))
        return;
    for (unsigned i = 0; i < blk->virtio.n_queues && !blk->throttled; i++)
        if (virtio_queue_enabled(&blk->virtio, i))
            virtio_blk_request_serve(blk, i);
}

/* ---- life ---- */

/* 5.2.5.2: without FLUSH a write is done when it is durable; with CONFIG_WCE the guest chooses. */
static void look_at_cache(struct virtio_blk *blk)
{
    uint8_t writeback = 1;

    if (virtio_has(&blk->virtio, VIRTIO_BLK_F_CONFIG_WCE))
        virtio_config_get(&blk->virtio, CONFIG_WRITEBACK, &writeback, 1);
    else
        writeback = virtio_has(&blk->virtio, VIRTIO_BLK_F_FLUSH);
    blk->writeback = writeback & 1;
}

static void start(struct virtio *v)
{
    struct virtio_blk *blk = virtio_blk_of(v);

    blk->stopping = blk->asked = blk->throttled = false;
    look_at_cache(blk);
}

static void stop(struct virtio *v)
{
    struct virtio_blk *blk = virtio_blk_of(v);

    blk->stopping = true;
    loop_timer_cancel(&blk->refilled);
    virtio_blk_request_finish_stop(blk);
}

static void config_written(struct virtio *v, unsigned off, unsigned len)
{
    look_at_cache(virtio_blk_of(v));
}

static void set_cache(struct virtio_blk *blk)
{
    const uint8_t on = 1;
    virtio_config_put(&blk->virtio, CONFIG_WRITEBACK, &on, 1);
}

static void reset(struct virtio *v)
{
    set_cache(virtio_blk_of(v));
}

static void put16(struct virtio_blk *blk, unsigned off, uint16_t val)
{
    virtio_config_put(&blk->virtio, off, &val, sizeof(val));
}

static void put32(struct virtio_blk *blk, unsigned off, uint32_t val)
{
    virtio_config_put(&blk->virtio, off, &val, sizeof(val));
}

static void put_capacity(struct virtio_blk *blk)
{
    uint64_t capacity = blk->disk->size / DISK_BLOCK_SIZE;
    virtio_config_put(&blk->virtio, CONFIG_CAPACITY, &capacity, sizeof(capacity));
}

/* What the guest knows of the disk that it cannot be told anew; what is on it is the host's to keep. */
static int state(struct virtio *v, struct stream *s)
{
    struct virtio_blk *blk = virtio_blk_of(v);
    uint64_t size = blk->disk->size;
    bool read_only = blk->disk->read_only;

    stream_section(s, "virtio-blk", 1);
    stream_u64(s, &size);
    stream_bool(s, &read_only);
    if (s->loading && size != blk->disk->size)
        stream_refuse(s, -EPROTO, "the disk had %" PRIu64 " bytes, and has %" PRIu64, size, blk->disk->size);
    if (s->loading && read_only != blk->disk->read_only)
        stream_refuse(s, -EPROTO, "the disk was %s, and is %s", read_only ? "read-only" : "writable",
                      blk->disk->read_only ? "read-only" : "writable");
    return s->error;
}

static void set_up(struct virtio_blk *blk)
{
    struct virtio *v = &blk->virtio;
    const uint8_t physical_block_exp = 3, may_unmap = blk->disk->discard, zeroes[CONFIG_LEN] = {0};

    v->features = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY |
                  VIRTIO_BLK_F_CONFIG_WCE;
    v->features |= v->n_queues > 1 ? VIRTIO_BLK_F_MQ : 0;
    v->features |= blk->disk->read_only ? VIRTIO_BLK_F_RO : VIRTIO_BLK_F_WRITE_ZEROES;
    v->features |= blk->disk->read_only || !blk->disk->discard ? 0 : VIRTIO_BLK_F_DISCARD;
    virtio_config_put(v, 0, zeroes, sizeof(zeroes));
    put_capacity(blk);
    put32(blk, CONFIG_SEG_MAX, QUEUE_SIZE - 2);
    put32(blk, CONFIG_BLK_SIZE, DISK_BLOCK_SIZE);
    virtio_config_put(v, CONFIG_PHYSICAL_BLOCK_EXP, &physical_block_exp, 1);
    put16(blk, CONFIG_MIN_IO_SIZE, 1 << physical_block_exp);
    put16(blk, CONFIG_NUM_QUEUES, (uint16_t)v->n_queues);
    put32(blk, CONFIG_MAX_DISCARD_SECTORS, VIRTIO_BLK_RANGE_SECTORS);
    put32(blk, CONFIG_MAX_DISCARD_SEG, VIRTIO_BLK_RANGES_MAX);
    put32(blk, CONFIG_DISCARD_SECTOR_ALIGNMENT, 1 << physical_block_exp);
    put32(blk, CONFIG_MAX_WRITE_ZEROES_SECTORS, VIRTIO_BLK_RANGE_SECTORS);
    put32(blk, CONFIG_MAX_WRITE_ZEROES_SEG, VIRTIO_BLK_RANGES_MAX);
    virtio_config_put(v, CONFIG_WRITE_ZEROES_MAY_UNMAP, &may_unmap, 1);
    virtio_config_writable(v, CONFIG_WRITEBACK, 1);
    set_cache(blk);
}

struct call {
    struct virtio_blk *blk;
    uint64_t size;
    struct err *err;
    int result;
};

static void do_open(void *opaque)
{
    struct call *call = opaque;
    struct virtio_blk *blk = call->blk;
    struct disk_conf conf;

    disk_spec_conf(&blk->conf.spec, &conf);
    call->result = disk_spec_allow(&blk->conf.spec, &blk->allow, call->err);
    if (call->result < 0)
        return;
    conf.allow = blk->allow;
    call->result = disk_open(&blk->disk, &conf, blk->virtio.io->loop, call->err);
    if (call->result == 0)
        disk_space_init(&blk->space, blk->disk, &blk->conf.spec.space);
}

static int open_blk(struct virtio *v, const void *opaque, struct err *err)
{
    struct virtio_blk *blk = virtio_blk_of(v);
    struct call call = {.blk = blk, .err = err};
    const struct disk_spec *spec = &blk->conf.spec;

    blk->conf = *(const struct virtio_blk_conf *)opaque;
    const char *serial = *spec->serial ? spec->serial : v->name;
    memcpy(blk->serial, serial, strnlen(serial, sizeof(blk->serial)));
    iothread_call(v->io, do_open, &call);
    if (call.result < 0) {
        disk_allow_close(blk->allow);
        return call.result;
    }
    v->n_queues = spec->queues ? (unsigned)spec->queues : 1;
    if (v->n_queues > VIRTIO_MAX_QUEUES)
        v->n_queues = VIRTIO_MAX_QUEUES;
    v->queue_size = QUEUE_SIZE;
    limiter_init(&blk->limiter, spec->iops, spec->iops_burst, spec->bps, spec->bps_burst);
    loop_timer_init(&blk->refilled, v->io->loop, on_refilled, blk);
    loop_event_init(&blk->signal, v->io->loop, virtio_blk_request_signal, blk);
    set_up(blk);
    return 0;
}

static void do_close(void *opaque)
{
    struct virtio_blk *blk = opaque;

    loop_timer_cancel(&blk->refilled);
    loop_event_fini(&blk->signal);
    disk_space_fini(&blk->space);
    disk_close(blk->disk);
    disk_allow_close(blk->allow);
}

static void close_blk(struct virtio *v)
{
    struct virtio_blk *blk = virtio_blk_of(v);

    iothread_call(v->io, do_close, blk);
    virtio_blk_request_free(blk);
}

const struct virtio_type virtio_blk_type = {
    .name = "virtio-blk",
    .id = 2,
    .pci_class = 0x010000,
    .size = sizeof(struct virtio_blk),
    .open = open_blk,
    .start = start,
    .notify = notify,
    .stop = stop,
    .config_written = config_written,
    .reset = reset,
    .state = state,
    .close = close_blk,
};

/* ---- from other threads ---- */

void virtio_blk_stats(struct device *dev, struct virtio_blk_stats *stats)
{
    struct virtio_blk *blk = virtio_blk_of(virtio_pci_of(dev));

    for (unsigned i = 0; i < VIRTIO_BLK_DIRECTIONS; i++)
        stats->by[i] = (struct virtio_blk_count){
            .operations = blk->counts[i].operations, .bytes = blk->counts[i].bytes, .errors = blk->counts[i].errors};
    stats->throttled = blk->n_throttled;
    stats->watched = disk_space_read(&blk->space, &stats->available, &stats->scarce);
}

uint64_t virtio_blk_size(struct device *dev)
{
    uint64_t capacity;

    virtio_config_get(virtio_pci_of(dev), CONFIG_CAPACITY, &capacity, sizeof(capacity));
    return capacity * DISK_BLOCK_SIZE;
}

static void do_resize(void *opaque)
{
    struct call *call = opaque;

    call->result = disk_resize(call->blk->disk, call->size, call->err);
    if (call->result == 0)
        put_capacity(call->blk);
}

int virtio_blk_resize(struct device *dev, uint64_t size, struct err *err)
{
    struct virtio_blk *blk = virtio_blk_of(virtio_pci_of(dev));
    struct call call = {.blk = blk, .size = size, .err = err};

    virtio_pci_pause(dev);
    iothread_call(blk->virtio.io, do_resize, &call);
    virtio_pci_resume(dev);
    if (call.result == 0)
        virtio_config_changed(&blk->virtio);
    return call.result;
}

/* ---- the disk, for others ---- */

struct with_disk {
    struct virtio_blk *blk;
    int (*fn)(struct disk *disk, void *opaque);
    void *opaque;
    int result;
};

static void do_with_disk(void *opaque)
{
    struct with_disk *call = opaque;

    call->result = call->fn(call->blk->disk, call->opaque);
}

int virtio_blk_with_disk(struct device *dev, int (*fn)(struct disk *disk, void *opaque), void *opaque)
{
    struct with_disk call = {.blk = virtio_blk_of(virtio_pci_of(dev)), .fn = fn, .opaque = opaque};

    iothread_call(call.blk->virtio.io, do_with_disk, &call);
    return call.result;
}

static void flushed(struct disk_request *req, int result)
{
    *(bool *)req->opaque = true;
}

static int flush_disk(struct disk *disk, void *opaque)
{
    bool done = false;
    struct disk_request req = {.op = DISK_FLUSH, .done = flushed, .opaque = &done};

    disk_submit(disk, &req);
    while (!done)
        disk_wait(disk);
    return req.result;
}

int virtio_blk_flush(struct device *dev)
{
    return virtio_blk_with_disk(dev, flush_disk, NULL);
}

/* ---- snapshots ---- */

struct snapshot_call {
    struct virtio_blk *blk;
    const char *name;
    int64_t time_ns;
    struct disk_snapshots *list;
    struct err *err;
    int result;
};

static int call_snapshot(struct device *dev, void (*fn)(void *opaque), struct snapshot_call *call)
{
    call->blk = virtio_blk_of(virtio_pci_of(dev));
    iothread_call(call->blk->virtio.io, fn, call);
    return call->result;
}

static void do_create(void *opaque)
{
    struct snapshot_call *call = opaque;

    call->result = disk_snapshot_create(call->blk->disk, call->name, call->time_ns, call->err);
}

static void do_remove(void *opaque)
{
    struct snapshot_call *call = opaque;

    call->result = disk_snapshot_remove(call->blk->disk, call->name, call->err);
}

static void do_list(void *opaque)
{
    struct snapshot_call *call = opaque;

    call->result = disk_snapshot_list(call->blk->disk, call->list, call->err);
}

static void do_revert(void *opaque)
{
    struct snapshot_call *call = opaque;

    call->result = disk_snapshot_revert(call->blk->disk, call->name, call->err);
    if (call->result == 0)
        put_capacity(call->blk);
}

/* What does not change while the disk is open. */
bool virtio_blk_has_snapshots(struct device *dev)
{
    const struct disk *disk = virtio_blk_of(virtio_pci_of(dev))->disk;

    return !disk->read_only && disk->type->snapshots;
}

int virtio_blk_snapshot_create(struct device *dev, const char *name, int64_t time_ns, struct err *err)
{
    return call_snapshot(dev, do_create, &(struct snapshot_call){.name = name, .time_ns = time_ns, .err = err});
}

int virtio_blk_snapshot_remove(struct device *dev, const char *name, struct err *err)
{
    return call_snapshot(dev, do_remove, &(struct snapshot_call){.name = name, .err = err});
}

int virtio_blk_snapshot_list(struct device *dev, struct disk_snapshots *list, struct err *err)
{
    return call_snapshot(dev, do_list, &(struct snapshot_call){.list = list, .err = err});
}

int virtio_blk_snapshot_revert(struct device *dev, const char *name, struct err *err)
{
    struct snapshot_call call = {.name = name, .err = err};

    virtio_pci_pause(dev);
    int r = call_snapshot(dev, do_revert, &call);
    if (r == 0)
        device_reset(dev); /* what waits in its queues is of another time */
    virtio_pci_resume(dev);
    return r;
}
