/*
 * The virtio disk as a driver sees it: what requests do to the image, what is refused and how, limits, failures of the host's, and sizes that
 * change.
 */
#include "device/virtio_blk.h"

#include <signal.h>
#include <sys/resource.h>

#include "../disk/disk_fixture.h"
#include "virtio/driver.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xee };

#define IMAGE_SIZE     (1 << 20)
#define F_RO           (UINT64_C(1) << 5)
#define F_FLUSH        (UINT64_C(1) << 9)
#define F_CONFIG_WCE   (UINT64_C(1) << 11)
#define F_MQ           (UINT64_C(1) << 12)
#define F_DISCARD      (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)

struct rig {
    struct disk_fixture *files;
    struct vboard b;
    struct driver d;
    struct virtio_blk_conf conf;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned asked; /* for a pause; under lock */
};

/* An image, and how it is to be opened; `options` follow the path. */
static struct rig *rig_prepare(void **state, const char *options)
{
    struct rig *r = calloc(1, sizeof(*r));
    char spec[256];

    r->files = *state;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    fixture_make(r->files->path, IMAGE_SIZE);
    snprintf(spec, sizeof(spec), "%s,format=raw%s", r->files->path, options);
    assert_int_equal(disk_spec_parse(&r->conf.spec, spec, NULL), 0);
    return r;
}

static struct rig *rig_start(struct rig *r, uint64_t features)
{
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &virtio_blk_type, &r->conf);
    driver_init(&r->d, features);
    return r;
}

static struct rig *rig_open(void **state, const char *options)
{
    return rig_start(rig_prepare(state, options), DRIVER_ALL);
}

static void rig_close(struct rig *r)
{
    driver_close(&r->d);
    vboard_close(&r->b);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void put_header(uint8_t *p, uint32_t type, uint64_t sector)
{
    store_le32(p, type);
    store_le32(p + 4, 0);
    store_le64(p + 8, sector);
}

/* One request: `out` follows the header, `in` precedes the status, which is returned. */
static uint8_t request_on(struct rig *r, unsigned queue, uint32_t type, uint64_t sector, const void *out,
                          uint32_t out_len, void *in, uint32_t in_len)
{
    static uint8_t to[65536], from[65536];

    put_header(to, type, sector);
    if (out_len)
        memcpy(to + 16, out, out_len);
    memset(from, S_NONE, sizeof(from));
    assert_int_equal(driver_request(&r->d, queue, to, 16 + out_len, from, in_len + 1), in_len + 1);
    if (in_len)
        memcpy(in, from, in_len);
    return from[in_len];
}

static uint8_t request(struct rig *r, uint32_t type, uint64_t sector, const void *out, uint32_t out_len, void *in,
                       uint32_t in_len)
{
    return request_on(r, 0, type, sector, out, out_len, in, in_len);
}

static uint8_t ask_range(struct rig *r, uint32_t type, uint64_t sector, uint32_t n_sectors, uint32_t flags)
{
    uint8_t range[16];

    store_le64(range, sector);
    store_le32(range + 8, n_sectors);
    store_le32(range + 12, flags);
    return request(r, type, 0, range, sizeof(range), NULL, 0);
}

/* What the image holds by the host's account. */
static void image_read(struct rig *r, uint64_t offset, void *buf, size_t len)
{
    int fd = open(r->files->path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, buf, len, (off_t)offset), len);
    close(fd);
}

static uint64_t capacity(struct rig *r)
{
    return driver_read(&r->d, r->d.config, 8);
}

static void test_read_write(void **state)
{
    struct rig *r = rig_open(state, "");
    static uint8_t buf[32768], back[32768];

    assert_int_equal(driver_pci_read(&r->d, PCI_DEVICE_ID, 2), 0x1042);
    assert_int_equal(capacity(r), IMAGE_SIZE / 512);
    assert_int_equal(request(r, T_IN, 3, NULL, 0, buf, 4096), S_OK);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(buf[i], fixture_byte(3 * 512 + i));
    for (unsigned i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)(i * 3 + i / 256);
    assert_int_equal(request(r, T_OUT, 100, buf, sizeof(buf), NULL, 0), S_OK);
    assert_int_equal(request(r, T_IN, 100, NULL, 0, back, sizeof(back)), S_OK);
    assert_memory_equal(buf, back, sizeof(buf));
    image_read(r, 100 * 512, back, sizeof(back));
    assert_memory_equal(buf, back, sizeof(buf));
    image_read(r, 99 * 512, back, 512);
    assert_int_equal(back[511], fixture_byte(100 * 512 - 1));
    assert_int_equal(request(r, T_FLUSH, 0, NULL, 0, NULL, 0), S_OK);

    struct virtio_blk_stats stats;
    virtio_blk_stats(r->d.dev, &stats);
    assert_int_equal(stats.by[VIRTIO_BLK_READ].operations, 2);
    assert_int_equal(stats.by[VIRTIO_BLK_READ].bytes, 4096 + sizeof(buf));
    assert_int_equal(stats.by[VIRTIO_BLK_WRITE].operations, 1);
    assert_int_equal(stats.by[VIRTIO_BLK_WRITE].bytes, sizeof(buf));
    assert_int_equal(stats.by[VIRTIO_BLK_FLUSH].operations, 1);
    rig_close(r);
}

/* Every range that is not of whole sectors within the disk is an I/O error, and touches nothing. */
static void test_ranges(void **state)
{
    struct rig *r = rig_open(state, "");
    static uint8_t buf[4096], back[4096];
    static const struct {
        uint64_t sector;
        uint32_t len;
    } bad[] = {
        {IMAGE_SIZE / 512, 512},
        {IMAGE_SIZE / 512 - 1, 1024},
        {UINT64_MAX, 512},
        {UINT64_MAX / 512, 512},
        {UINT64_MAX / 512 + 1, 512}, /* times 512 it is 0 */
        {0, 1},
        {0, 511},
        {0, 513},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(request(r, T_IN, bad[i].sector, NULL, 0, buf, bad[i].len), S_IOERR);
        assert_int_equal(request(r, T_OUT, bad[i].sector, buf, bad[i].len, NULL, 0), S_IOERR);
    }
    assert_int_equal(request(r, T_IN, IMAGE_SIZE / 512 - 1, NULL, 0, buf, 512), S_OK);
    assert_int_equal(request(r, T_IN, IMAGE_SIZE / 512, NULL, 0, NULL, 0), S_OK);
    image_read(r, 0, back, sizeof(back));
    for (unsigned i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], fixture_byte(i));
    struct virtio_blk_stats stats;
    virtio_blk_stats(r->d.dev, &stats);
    assert_int_equal(stats.by[VIRTIO_BLK_WRITE].errors, ARRAY_SIZE(bad));
    rig_close(r);
}

static void test_unsupported(void **state)
{
    struct rig *r = rig_open(state, "");
    uint8_t buf[512];
    static const uint32_t types[] = {2, 3, 5, 9, 10, 12, 14, 100, UINT32_MAX};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        assert_int_equal(request(r, types[i], 0, buf, 512, buf, 512), S_UNSUPP);
    rig_close(r);
    /* Not agreed on, so not there. */
    r = rig_start(rig_prepare(state, ""), VIRTIO_F_VERSION_1);
    assert_int_equal(ask_range(r, T_DISCARD, 0, 8, 0), S_UNSUPP);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, 0, 8, 0), S_UNSUPP);
    assert_int_equal(request(r, T_FLUSH, 0, NULL, 0, NULL, 0), S_OK);
    rig_close(r);
}

static void test_serial(void **state)
{
    struct rig *r = rig_open(state, ",serial=12345678901234567890");
    char id[24] = {0};

    assert_int_equal(request(r, T_GET_ID, 0, NULL, 0, id, 20), S_OK);
    assert_string_equal(id, "12345678901234567890");
    memset(id, 0, sizeof(id));
    assert_int_equal(request(r, T_GET_ID, 0, NULL, 0, id, 5), S_OK);
    assert_string_equal(id, "12345");
    assert_int_equal(request(r, T_GET_ID, 0, NULL, 0, NULL, 0), S_OK);
    rig_close(r);
    r = rig_open(state, ",serial=abc");
    memset(id, 'x', sizeof(id));
    assert_int_equal(request(r, T_GET_ID, 0, NULL, 0, id, 20), S_OK);
    assert_memory_equal(id, "abc\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    rig_close(r);
}

static void test_discard(void **state)
{
    struct rig *r = rig_open(state, "");
    static uint8_t back[65536], zeroes[65536];
    uint64_t room = fixture_room(r->files->path);

    assert_true(r->d.features & F_DISCARD);
    assert_int_equal(ask_range(r, T_DISCARD, 128, 128, 0), S_OK);
    assert_int_equal(request(r, T_IN, 128, NULL, 0, back, 65535 / 512 * 512), S_OK); /* waits for the host */
    assert_memory_equal(back, zeroes, 65535 / 512 * 512);
    assert_true(fixture_room(r->files->path) <= room - 65536);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, 256, 128, 1), S_OK);
    assert_true(fixture_room(r->files->path) <= room - 2 * 65536);
    room = fixture_room(r->files->path);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, 512, 128, 0), S_OK);
    assert_int_equal(fixture_room(r->files->path), room);
    for (unsigned sector = 256; sector <= 512; sector += 256) {
        assert_int_equal(request(r, T_IN, sector, NULL, 0, back, 65535 / 512 * 512), S_OK);
        assert_memory_equal(back, zeroes, 65535 / 512 * 512);
    }
    assert_int_equal(request(r, T_IN, 1000, NULL, 0, back, 512), S_OK);
    assert_int_equal(back[0], fixture_byte(1000 * 512));

    /* Flags there are none of, and ranges that are not there. */
    assert_int_equal(ask_range(r, T_DISCARD, 0, 8, 1), S_UNSUPP);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, 0, 8, 2), S_UNSUPP);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, IMAGE_SIZE / 512, 1, 0), S_IOERR);
    assert_int_equal(ask_range(r, T_DISCARD, IMAGE_SIZE / 512 - 1, 2, 0), S_IOERR);
    assert_int_equal(ask_range(r, T_DISCARD, UINT64_MAX, UINT32_MAX, 0), S_IOERR);
    assert_int_equal(request(r, T_DISCARD, 0, back, 15, NULL, 0), S_IOERR);
    assert_int_equal(request(r, T_DISCARD, 0, back, 0, NULL, 0), S_IOERR);
    rig_close(r);
}

/* Up to 16 ranges a request; one that is wrong, and none is touched. */
static void test_many_ranges(void **state)
{
    struct rig *r = rig_open(state, "");
    uint8_t ranges[17 * 16] = {0}, back[1024];

    for (unsigned i = 0; i < 17; i++) {
        store_le64(ranges + 16 * i, 2 * i);
        store_le32(ranges + 16 * i + 8, 1);
    }
    assert_int_equal(request(r, T_WRITE_ZEROES, 0, ranges, 17 * 16, NULL, 0), S_IOERR);
    store_le64(ranges + 16 * 15, UINT64_MAX);
    assert_int_equal(request(r, T_WRITE_ZEROES, 0, ranges, 16 * 16, NULL, 0), S_IOERR);
    image_read(r, 0, back, sizeof(back));
    assert_int_equal(back[0], fixture_byte(0));
    store_le64(ranges + 16 * 15, 30);
    assert_int_equal(request(r, T_WRITE_ZEROES, 0, ranges, 16 * 16, NULL, 0), S_OK);
    for (unsigned i = 0; i < 16; i++) {
        image_read(r, 1024 * i, back, sizeof(back));
        assert_int_equal(back[0], 0);
        assert_int_equal(back[511], 0);
        assert_int_equal(back[512], fixture_byte(1024 * i + 512));
    }
    rig_close(r);
}

static void test_read_only(void **state)
{
    struct rig *r = rig_open(state, ",readonly");
    uint8_t buf[512];

    assert_true(r->d.features & F_RO);
    assert_false(r->d.features & (F_DISCARD | F_WRITE_ZEROES));
    assert_int_equal(request(r, T_IN, 5, NULL, 0, buf, 512), S_OK);
    assert_int_equal(buf[0], fixture_byte(5 * 512));
    assert_int_equal(request(r, T_OUT, 5, buf, 512, NULL, 0), S_IOERR);
    assert_int_equal(ask_range(r, T_DISCARD, 0, 8, 0), S_UNSUPP);
    assert_int_equal(request(r, T_FLUSH, 0, NULL, 0, NULL, 0), S_OK);
    rig_close(r);
}

static void test_discard_off(void **state)
{
    struct rig *r = rig_open(state, ",discard=off");
    uint64_t room = fixture_room(r->files->path);
    uint8_t buf[512];

    assert_false(r->d.features & F_DISCARD);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, 0, 128, 1), S_OK);
    assert_int_equal(fixture_room(r->files->path), room);
    assert_int_equal(request(r, T_IN, 0, NULL, 0, buf, 512), S_OK);
    assert_int_equal(buf[0], 0);
    rig_close(r);
}

static uint64_t flushes(struct rig *r)
{
    struct virtio_blk_stats stats;

    virtio_blk_stats(r->d.dev, &stats);
    return stats.by[VIRTIO_BLK_FLUSH].operations;
}

/* Without a write cache - the guest turned it off, or knows of none - what is written is durable when it is done. */
static void test_write_cache(void **state)
{
    struct rig *r = rig_open(state, "");
    uint8_t buf[512] = {0};

    assert_int_equal(request(r, T_OUT, 0, buf, 512, NULL, 0), S_OK);
    assert_int_equal(flushes(r), 0);

    assert_int_equal(driver_read(&r->d, r->d.config + 32, 1), 1);
    driver_write(&r->d, r->d.config + 32, 1, 0);
    assert_int_equal(request(r, T_OUT, 0, buf, 512, NULL, 0), S_OK);
    assert_int_equal(ask_range(r, T_WRITE_ZEROES, 8, 8, 1), S_OK);
    assert_int_equal(request(r, T_IN, 0, NULL, 0, buf, 512), S_OK);
    assert_int_equal(flushes(r), 2);
    driver_init(&r->d, DRIVER_ALL);
    assert_int_equal(driver_read(&r->d, r->d.config + 32, 1), 1); /* as at power-on */
    rig_close(r);
    r = rig_start(rig_prepare(state, ""), VIRTIO_F_VERSION_1);
    assert_int_equal(request(r, T_OUT, 0, buf, 512, NULL, 0), S_OK);
    assert_int_equal(flushes(r), 1);
    rig_close(r);
}

/* However the guest cuts header, data and status into buffers. */
static void test_framing(void **state)
{
    struct rig *r = rig_open(state, "");
    struct driver_queue *q = &r->d.queues[0];
    uint64_t at = vboard_alloc(&r->b, 8192, 4096);
    static const uint32_t outs[] = {1, 7, 8, 3, 9, 500}; /* 16 + 512 */
    struct driver_buf bufs[8];
    unsigned n = 0, id;
    uint32_t len;
    uint64_t gpa = at;

    put_header(vboard_at(&r->b, at), T_OUT, 7);
    for (unsigned i = 0; i < 512; i++)
        vboard_at(&r->b, at)[16 + i] = (uint8_t)(i ^ 0x5a);
    for (; n < ARRAY_SIZE(outs); gpa += outs[n++])
        bufs[n] = (struct driver_buf){.gpa = gpa, .len = outs[n]};
    bufs[n++] = (struct driver_buf){.gpa = gpa, .len = 1, .write = true};
    *vboard_at(&r->b, gpa) = S_NONE;
    assert_true(driver_add(q, bufs, n) >= 0);
    driver_kick(q);
    assert_true(driver_wait(q, &id, &len));
    assert_int_equal(*vboard_at(&r->b, gpa), S_OK);
    uint8_t back[512];
    image_read(r, 7 * 512, back, sizeof(back));
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(back[i], (uint8_t)(i ^ 0x5a));

    /* The status is the last byte of a larger buffer. */
    put_header(vboard_at(&r->b, at), T_IN, 7);
    memset(vboard_at(&r->b, at + 4096), S_NONE, 1024);
    bufs[0] = (struct driver_buf){.gpa = at, .len = 16};
    bufs[1] = (struct driver_buf){.gpa = at + 4096, .len = 300, .write = true};
    bufs[2] = (struct driver_buf){.gpa = at + 4096 + 300, .len = 213, .write = true};
    assert_true(driver_add(q, bufs, 3) >= 0);
    driver_kick(q);
    assert_true(driver_wait(q, &id, &len));
    assert_int_equal(len, 513);
    assert_memory_equal(vboard_at(&r->b, at + 4096), back, 512);
    assert_int_equal(vboard_at(&r->b, at + 4096)[512], S_OK);
    rig_close(r);
}

/* A chain without a whole header, or without a status, is no request: the device needs a reset, and works after it. */
static void test_no_request(void **state)
{
    struct rig *r = rig_open(state, "");
    uint64_t at = vboard_alloc(&r->b, 8192, 4096);
    const struct driver_buf chains[][2] = {
        {{.gpa = at, .len = 15}, {.gpa = at + 4096, .len = 513, .write = true}},
        {{.gpa = at, .len = 16}, {.gpa = at, .len = 512}},
        {{.gpa = at, .len = 600, .write = true}, {.gpa = at, .len = 1, .write = true}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
        put_header(vboard_at(&r->b, at), T_IN, 0);
        assert_true(driver_add(&r->d.queues[0], chains[i], 2) >= 0);
        driver_kick(&r->d.queues[0]);
        assert_true(driver_wait_status(&r->d, 0x40)); /* DEVICE_NEEDS_RESET */
        driver_init(&r->d, DRIVER_ALL);
        uint8_t buf[512];
        assert_int_equal(request(r, T_IN, 1, NULL, 0, buf, 512), S_OK);
        assert_int_equal(buf[0], fixture_byte(512));
    }
    rig_close(r);
}

/* Many at once over several queues, in all their order. */
static void test_queues(void **state)
{
    struct rig *r = rig_open(state, ",queues=4");
    uint64_t headers = vboard_alloc(&r->b, 256 * 16, 16), data = vboard_alloc(&r->b, 256 * 1024, 4096);
    unsigned id;
    uint32_t len;

    assert_true(r->d.features & F_MQ);
    assert_int_equal(driver_read(&r->d, r->d.config + 34, 2), 4);
    for (unsigned i = 0; i < 256; i++) {
        put_header(vboard_at(&r->b, headers + 16 * i), T_IN, i * 7);
        const struct driver_buf bufs[] = {{.gpa = headers + 16 * i, .len = 16},
                                          {.gpa = data + 1024 * i, .len = 513, .write = true}};
        vboard_at(&r->b, data + 1024 * i)[512] = S_NONE;
        assert_true(driver_add(&r->d.queues[i % 4], bufs, 2) >= 0);
        if (i % 16 == 15)
            driver_kick(&r->d.queues[i / 16 % 4]);
    }
    for (unsigned n = 0; n < 4; n++) {
        driver_kick(&r->d.queues[n]);
        for (unsigned i = 0; i < 64; i++)
            assert_true(driver_wait(&r->d.queues[n], &id, &len));
    }
    for (unsigned i = 0; i < 256; i++) {
        assert_int_equal(vboard_at(&r->b, data + 1024 * i)[512], S_OK);
        for (unsigned k = 0; k < 512; k++)
            assert_int_equal(vboard_at(&r->b, data + 1024 * i)[k], fixture_byte((uint64_t)i * 7 * 512 + k));
    }
    rig_close(r);
}

static void test_resize(void **state)
{
    struct rig *r = rig_open(state, "");
    uint8_t buf[512];
    struct err err;

    assert_int_equal(request(r, T_IN, IMAGE_SIZE / 512, NULL, 0, buf, 512), S_IOERR);
    unsigned seen = vboard_messages(&r->b, r->d.n_queues);
    assert_int_equal(virtio_blk_resize(r->d.dev, 2 * IMAGE_SIZE, &err), 0);
    assert_true(vboard_wait_message(&r->b, r->d.n_queues, seen)); /* the configuration's interrupt */
    assert_int_equal(capacity(r), 2 * IMAGE_SIZE / 512);
    assert_int_equal(virtio_blk_size(r->d.dev), 2 * IMAGE_SIZE);
    assert_int_equal(request(r, T_IN, IMAGE_SIZE / 512, NULL, 0, buf, 512), S_OK);
    assert_int_equal(virtio_blk_resize(r->d.dev, 1000, &err), -EINVAL);
    assert_int_equal(capacity(r), 2 * IMAGE_SIZE / 512);
    assert_int_equal(virtio_blk_resize(r->d.dev, IMAGE_SIZE / 2, &err), 0);
    assert_int_equal(request(r, T_IN, IMAGE_SIZE / 512, NULL, 0, buf, 512), S_IOERR);
    rig_close(r);
}

/* ---- what the host cannot do ---- */

static void on_ask(void *opaque)
{
    struct rig *r = opaque;

    pthread_mutex_lock(&r->lock);
    r->asked++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void wait_asked(struct rig *r, unsigned n)
{
    pthread_mutex_lock(&r->lock);
    while (r->asked < n)
        pthread_cond_wait(&r->changed, &r->lock);
    assert_int_equal(r->asked, n);
    pthread_mutex_unlock(&r->lock);
}

/* The image grows with writes to its end; the host's limit on that stands in for a full disk. */
static struct rlimit limit_files(rlim_t size)
{
    struct rlimit old, now;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    now = (struct rlimit){.rlim_cur = size, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
    return old;
}

static void unlimit_files(const struct rlimit *old)
{
    assert_int_equal(setrlimit(RLIMIT_FSIZE, old), 0);
}

static void test_error_reported(void **state)
{
    struct rig *r = rig_prepare(state, ",on-error=report");
    uint8_t buf[512] = {0};

    log_set_level(LOG_LEVEL_NONE);
    r->conf.ask_pause = on_ask;
    r->conf.opaque = r;
    rig_start(r, DRIVER_ALL);
    assert_int_equal(truncate(r->files->path, IMAGE_SIZE / 2), 0);
    struct rlimit old = limit_files(IMAGE_SIZE / 2);
    assert_int_equal(request(r, T_IN, IMAGE_SIZE / 512 - 1, NULL, 0, buf, 512), S_IOERR);
    assert_int_equal(request(r, T_OUT, IMAGE_SIZE / 512 - 1, buf, 512, NULL, 0), S_IOERR);
    unlimit_files(&old);
    assert_int_equal(request(r, T_OUT, IMAGE_SIZE / 512 - 1, buf, 512, NULL, 0), S_OK);
    assert_int_equal(r->asked, 0);
    struct virtio_blk_stats stats;
    virtio_blk_stats(r->d.dev, &stats);
    assert_int_equal(stats.by[VIRTIO_BLK_WRITE].errors, 1);
    rig_close(r);
}

/* Fails, is held while the VM is paused, fails again, and succeeds at last. What else goes on meanwhile does. */
static void test_error_pauses(void **state)
{
    struct rig *r = rig_prepare(state, ",on-error=pause");
    struct driver_queue *q;
    unsigned id;
    uint32_t len;
    uint8_t buf[512];

    log_set_level(LOG_LEVEL_NONE);
    r->conf.ask_pause = on_ask;
    r->conf.opaque = r;
    rig_start(r, DRIVER_ALL);
    q = &r->d.queues[0];
    uint64_t at = vboard_alloc(&r->b, 8192, 4096);
    for (unsigned i = 0; i < 3; i++) {
        put_header(vboard_at(&r->b, at + 16 * i), T_OUT, IMAGE_SIZE / 512 - 3 + i);
        vboard_at(&r->b, at + 64)[i] = S_NONE;
    }
    memset(vboard_at(&r->b, at + 4096), 0x99, 512);
    assert_int_equal(truncate(r->files->path, IMAGE_SIZE / 2), 0);
    struct rlimit old = limit_files(IMAGE_SIZE / 2);
    for (unsigned i = 0; i < 3; i++) {
        const struct driver_buf bufs[] = {{.gpa = at + 16 * i, .len = 16},
                                          {.gpa = at + 4096, .len = 512},
                                          {.gpa = at + 64 + i, .len = 1, .write = true}};
        assert_true(driver_add(q, bufs, 3) >= 0);
    }
    driver_kick(q);
    wait_asked(r, 1);
    assert_int_equal(request(r, T_IN, 0, NULL, 0, buf, 512), S_OK);
    virtio_pci_pause(r->d.dev);
    virtio_pci_resume(r->d.dev); /* still no room */
    wait_asked(r, 2);
    virtio_pci_pause(r->d.dev);
    unlimit_files(&old);
    virtio_pci_resume(r->d.dev);
    for (unsigned i = 0; i < 3; i++)
        assert_true(driver_wait(q, &id, &len));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(vboard_at(&r->b, at + 64)[i], S_OK);
    image_read(r, IMAGE_SIZE - 3 * 512, buf, 512);
    assert_int_equal(buf[0], 0x99);
    assert_int_equal(r->asked, 2);
    rig_close(r);
}

/* A device that holds a failed request can be reset, and closed. */
static void test_held_and_gone(void **state)
{
    struct rig *r = rig_prepare(state, ",on-error=pause");
    uint8_t buf[512] = {0};

    log_set_level(LOG_LEVEL_NONE);
    r->conf.ask_pause = on_ask;
    r->conf.opaque = r;
    rig_start(r, DRIVER_ALL);
    uint64_t at = vboard_alloc(&r->b, 4096, 4096);
    const struct driver_buf bufs[] = {{.gpa = at, .len = 16}, {.gpa = at + 16, .len = 513, .write = true}};
    assert_int_equal(truncate(r->files->path, IMAGE_SIZE / 2), 0);
    for (unsigned i = 1; i <= 2; i++) {
        put_header(vboard_at(&r->b, at), T_IN, IMAGE_SIZE / 512 - 1);
        assert_true(driver_add(&r->d.queues[0], bufs, 2) >= 0);
        driver_kick(&r->d.queues[0]);
        wait_asked(r, i);
        if (i == 1) {
            driver_init(&r->d, DRIVER_ALL);
            assert_int_equal(request(r, T_IN, 0, NULL, 0, buf, 512), S_OK);
        }
    }
    rig_close(r);
}

/* ---- limits ---- */

/* Milliseconds until `n` reads of `len` bytes are done. */
static int64_t time_reads(struct rig *r, unsigned n, uint32_t len)
{
    struct driver_queue *q = &r->d.queues[0];
    uint64_t at = vboard_alloc(&r->b, 16 + len + 1, 4096);
    const struct driver_buf bufs[] = {{.gpa = at, .len = 16}, {.gpa = at + 16, .len = len + 1, .write = true}};
    int64_t start = loop_now();
    unsigned id;
    uint32_t written;

    put_header(vboard_at(&r->b, at), T_IN, 0);
    for (unsigned i = 0, added = 0; i < n; i++) {
        for (; added < n && added < i + 32; added++)
            assert_true(driver_add(q, bufs, 2) >= 0);
        driver_kick(q);
        assert_true(driver_wait(q, &id, &written));
    }
    return (loop_now() - start) / NS_PER_MS;
}

/* Never faster than the limit; how much slower is the host's business, and not asserted. */
static void test_limits(void **state)
{
    struct rig *r = rig_open(state, ",iops=200,iops-burst=20");
    assert_true(time_reads(r, 120, 512) >= 500 - 5);
    struct virtio_blk_stats stats;
    virtio_blk_stats(r->d.dev, &stats);
    assert_true(stats.throttled > 0);
    rig_close(r);
    r = rig_open(state, ",bps=1M,bps-burst=64K");
    assert_true(time_reads(r, 40, 16384) >= (40 * 16384 - 65536) * 1000 / (1 << 20) - 5);
    rig_close(r);
}

/* Zeroes that are written count as bytes; room that is given back does not. */
static void test_limits_of_zeroes(void **state)
{
    struct rig *r = rig_open(state, ",bps=1M,bps-burst=64K");
    struct virtio_blk_stats stats;

    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(ask_range(r, T_WRITE_ZEROES, 0, 128, 1), S_OK);
    virtio_blk_stats(r->d.dev, &stats);
    assert_int_equal(stats.throttled, 0);
    int64_t start = loop_now();
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(ask_range(r, T_WRITE_ZEROES, 0, 128, 0), S_OK);
    assert_true((loop_now() - start) / NS_PER_MS >= 4 * 65536 * 1000 / (1 << 20) - 5);
    virtio_blk_stats(r->d.dev, &stats);
    assert_true(stats.throttled > 0);
    rig_close(r);
}

/* While requests wait for their turn: pauses lose none, a reset forgets them. */
static void test_limits_and_stops(void **state)
{
    struct rig *r = rig_open(state, ",iops=50,iops-burst=1");
    struct driver_queue *q = &r->d.queues[0];
    uint64_t at = vboard_alloc(&r->b, 4096, 4096);
    const struct driver_buf bufs[] = {{.gpa = at, .len = 16}, {.gpa = at + 16, .len = 513, .write = true}};
    unsigned id;
    uint32_t len;
    uint8_t buf[512];

    put_header(vboard_at(&r->b, at), T_IN, 1);
    for (unsigned i = 0; i < 10; i++)
        assert_true(driver_add(q, bufs, 2) >= 0);
    driver_kick(q);
    for (unsigned i = 0; i < 10; i++) {
        virtio_pci_pause(r->d.dev);
        virtio_pci_resume(r->d.dev);
        assert_true(driver_wait(q, &id, &len));
    }
    for (unsigned i = 0; i < 10; i++)
        assert_true(driver_add(q, bufs, 2) >= 0);
    driver_kick(q);
    driver_init(&r->d, DRIVER_ALL);
    assert_int_equal(request(r, T_IN, 1, NULL, 0, buf, 512), S_OK);
    assert_int_equal(buf[0], fixture_byte(512));
    rig_close(r);
}

/* Pauses in the midst of requests of many ranges: each is done in the end. */
static void test_ranges_and_stops(void **state)
{
    struct rig *r = rig_open(state, "");
    struct driver_queue *q = &r->d.queues[0];
    uint64_t at = vboard_alloc(&r->b, 4096, 4096);
    static uint8_t back[IMAGE_SIZE / 2];
    unsigned id;
    uint32_t len;

    for (unsigned n = 0; n < 8; n++) {
        put_header(vboard_at(&r->b, at), T_WRITE_ZEROES, 0);
        for (unsigned i = 0; i < 16; i++) {
            store_le64(vboard_at(&r->b, at + 16 + 16 * i), i * 64);
            store_le32(vboard_at(&r->b, at + 16 + 16 * i + 8), 64);
            store_le32(vboard_at(&r->b, at + 16 + 16 * i + 12), n % 2);
        }
        const struct driver_buf bufs[] = {{.gpa = at, .len = 16 + 16 * 16},
                                          {.gpa = at + 1024 + n, .len = 1, .write = true}};
        *vboard_at(&r->b, at + 1024 + n) = S_NONE;
        assert_true(driver_add(q, bufs, 2) >= 0);
    }
    driver_kick(q);
    for (unsigned i = 0; i < 8; i++) {
        virtio_pci_pause(r->d.dev);
        virtio_pci_resume(r->d.dev);
    }
    for (unsigned n = 0; n < 8; n++)
        assert_true(driver_wait(q, &id, &len));
    for (unsigned n = 0; n < 8; n++)
        assert_int_equal(*vboard_at(&r->b, at + 1024 + n), S_OK);
    image_read(r, 0, back, sizeof(back));
    for (unsigned i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], 0);
    rig_close(r);
}

static void test_open_fails(void **state)
{
    struct rig *r = rig_prepare(state, "");
    struct device *dev;
    struct err err = {0};

    assert_int_equal(unlink(r->files->path), 0);
    vboard_open(&r->b);
    const struct virtio_pci_conf conf = {
        .type = &virtio_blk_type, .conf = &r->conf, .io = r->b.io, .name = "disk0", .devfn = PCI_DEVFN(1, 0)};
    assert_int_equal(device_open(&dev, &virtio_pci_type, &r->b.env, &conf, &err), -ENOENT);
    assert_non_null(strstr(err.msg, r->files->path));
    vboard_close(&r->b);
    free(r);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_read_write),  TEST(test_ranges),           TEST(test_unsupported),      TEST(test_serial),
        TEST(test_discard),     TEST(test_many_ranges),      TEST(test_read_only),        TEST(test_discard_off),
        TEST(test_write_cache), TEST(test_framing),          TEST(test_no_request),       TEST(test_queues),
        TEST(test_resize),      TEST(test_error_reported),   TEST(test_error_pauses),     TEST(test_held_and_gone),
        TEST(test_limits),      TEST(test_limits_of_zeroes), TEST(test_limits_and_stops), TEST(test_ranges_and_stops),
        TEST(test_open_fails),
    };
    return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
