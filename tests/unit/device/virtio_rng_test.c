#include <stdlib.h>

#include "../unit.h"
#include "device/virtio_rng.h"
#include "virtio/driver.h"

struct rig {
    struct vboard b;
    struct driver d;
};

static struct rig *rig_open(uint64_t bps)
{
    struct rig *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &virtio_rng_type, &(struct virtio_rng_conf){.bps = bps});
    driver_init(&r->d, DRIVER_ALL);
    return r;
}

static void rig_close(struct rig *r)
{
    driver_close(&r->d);
    vboard_close(&r->b);
    free(r);
}

static void test_numbers(void **state)
{
    struct rig *r = rig_open(0);
    uint8_t first[64], second[64], large[8192];

    assert_int_equal(driver_pci_read(&r->d, PCI_DEVICE_ID, 2), 0x1044);
    assert_int_equal(r->d.config, 0);
    assert_int_equal(driver_request(&r->d, 0, NULL, 0, first, sizeof(first)), sizeof(first));
    assert_int_equal(driver_request(&r->d, 0, NULL, 0, second, sizeof(second)), sizeof(second));
    assert_memory_not_equal(first, second, sizeof(first));
    assert_int_equal(driver_request(&r->d, 0, NULL, 0, large, sizeof(large)), 4096);
    assert_int_equal(driver_request(&r->d, 0, first, 16, NULL, 0), 0); /* nowhere to put any */
    rig_close(r);
}

/* A limit holds a request back until its time; a pause meanwhile loses none. */
static void test_limit(void **state)
{
    struct rig *r = rig_open(6400);
    struct driver_queue *q = &r->d.queues[0];
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 4096, 1), .len = 4096, .write = true};
    int64_t start = loop_now();
    unsigned id;
    uint32_t len;

    for (unsigned i = 0; i < 30; i++)
        assert_true(driver_add(q, &buf, 1) >= 0);
    driver_kick(q);
    for (unsigned i = 0; i < 30; i++) {
        assert_true(driver_wait(q, &id, &len));
        assert_int_equal(len, 64);
        if (i == 15) {
            virtio_pci_pause(r->d.dev);
            virtio_pci_resume(r->d.dev);
        }
    }
    assert_true(loop_now() - start >= 180 * NS_PER_MS); /* 1920 bytes less the burst of 640: no sooner than this */
    rig_close(r);
}

static void test_parse(void **state)
{
    struct virtio_rng_conf conf = {0};
    char id[VIRTIO_RNG_ID_SIZE];
    struct err err;

    assert_int_equal(virtio_rng_parse("", &conf, id, &err), 0);
    assert_int_equal(conf.bps, 0);
    assert_string_equal(id, "");
    assert_int_equal(virtio_rng_parse("id=dice,bps=2K", &conf, id, &err), 0);
    assert_int_equal(conf.bps, 2048);
    assert_string_equal(id, "dice");
    assert_true(virtio_rng_parse("bps=0", &conf, id, &err) < 0);
    assert_true(virtio_rng_parse("speed=1", &conf, id, &err) < 0);
    assert_true(virtio_rng_parse("id=0123456789012345678901234567890123", &conf, id, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_parse),
    };
    return cmocka_run_group_tests_name("virtio_rng", tests, NULL, NULL);
}
