#include <stdlib.h>
#include <time.h>

#include "../unit.h"
#include "virtio/driver.h"
#include "virtio/echo.h"

#define SPLIT VIRTIO_F_VERSION_1
#define READY 15

struct rig {
    struct vboard b;
    struct driver d;
    struct echo *echo;
};

static int setup_as(void **state, const struct echo_conf *conf)
{
    struct rig *r = calloc(1, sizeof(*r));

    if (!r)
        return -1;
    vboard_open(&r->b);
    driver_open(&r->d, &r->b, &echo_type, conf);
    r->echo = (struct echo *)r->d.v;
    *state = r;
    return 0;
}

static int setup(void **state)
{
    return setup_as(state, &(struct echo_conf){.n_queues = 3, .queue_size = 64});
}

static int setup_slow(void **state)
{
    return setup_as(state, &(struct echo_conf){.slow_stop = true});
}

static int teardown(void **state)
{
    struct rig *r = *state;

    driver_close(&r->d);
    vboard_close(&r->b);
    free(r);
    return 0;
}

static uint8_t echo_once(struct rig *r, unsigned n)
{
    uint8_t out = 0x5a, in = 0;

    assert_int_equal(driver_request(&r->d, n, &out, 1, &in, 1), 1);
    return in;
}

static void test_identity(void **state)
{
    struct rig *r = *state;

    assert_int_equal(driver_pci_read(&r->d, PCI_VENDOR_ID, 4), 0x106a1af4);
    assert_int_equal(driver_pci_read(&r->d, PCI_REVISION, 1), 1);
    assert_int_equal(r->d.n_queues, 3);
    assert_int_equal(r->d.notify_step, 4);
    assert_int_equal(r->d.config_len, 8);
    assert_int_equal(driver_pci_read(&r->d, (unsigned)r->d.msix_cap + 2, 2) & 0x7ff, 3);
}

static void test_features(void **state)
{
    struct rig *r = *state;
    uint64_t all = ECHO_FEATURE | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | SPLIT | VIRTIO_F_RING_PACKED;

    assert_int_equal(driver_init(&r->d, DRIVER_ALL), all);
    driver_write(&r->d, r->d.common, 4, 2); /* bits 64 and up: none */
    assert_int_equal(driver_read(&r->d, r->d.common + 4, 4), 0);
    driver_write(&r->d, r->d.common + 8, 4, 0);
    driver_write(&r->d, r->d.common + 12, 4, 0); /* too late */
    assert_int_equal(driver_read(&r->d, r->d.common + 12, 4), (uint32_t)all);

    driver_reset(&r->d);
    assert_false(driver_negotiate(&r->d, ECHO_FEATURE)); /* a legacy driver */
    driver_reset(&r->d);
    driver_write(&r->d, r->d.common + 8, 4, 0);
    driver_write(&r->d, r->d.common + 12, 4, 1); /* never offered */
    driver_write(&r->d, r->d.common + 8, 4, 1);
    driver_write(&r->d, r->d.common + 12, 4, 1);
    driver_write(&r->d, r->d.common + 0x14, 1, 11);
    assert_int_equal(driver_status(&r->d), 3);
}

static void test_ready_without_features(void **state)
{
    struct rig *r = *state;

    driver_write(&r->d, r->d.common + 0x14, 1, 7);
    assert_int_equal(driver_status(&r->d), 3 | 0x40);
    vboard_drain(&r->b);
    assert_int_equal(r->echo->starts, 0);
    assert_int_equal(driver_init(&r->d, SPLIT), SPLIT);
    assert_int_equal(echo_once(r, 2), 0x5a);
}

static void test_queue_registers(void **state)
{
    struct rig *r = *state;
    uint64_t c = r->d.common;

    assert_true(driver_negotiate(&r->d, SPLIT));
    driver_write(&r->d, c + 0x16, 2, 3); /* no such queue */
    assert_int_equal(driver_read(&r->d, c + 0x18, 2), 0);
    driver_write(&r->d, c + 0x16, 2, 1);
    assert_int_equal(driver_read(&r->d, c + 0x18, 2), 64);
    driver_write(&r->d, c + 0x18, 2, 0);
    driver_write(&r->d, c + 0x18, 2, 65);
    assert_int_equal(driver_read(&r->d, c + 0x18, 2), 64);
    driver_write(&r->d, c + 0x18, 2, 16);
    assert_int_equal(driver_read(&r->d, c + 0x18, 2), 16);
    driver_write(&r->d, c + 0x20, 8, 0x1122334455667788);
    assert_int_equal(driver_read(&r->d, c + 0x20, 8), 0x1122334455667788);
    driver_write(&r->d, c + 0x24, 4, 0xaabbccdd);
    driver_write(&r->d, c + 0x20, 4, 0x01020304);
    assert_int_equal(driver_read(&r->d, c + 0x20, 8), 0xaabbccdd01020304);
    assert_int_equal(driver_read(&r->d, c + 0x24, 4), 0xaabbccdd);
    driver_write(&r->d, c + 0x1a, 2, 4); /* one vector too many */
    assert_int_equal(driver_read(&r->d, c + 0x1a, 2), 0xffff);
    driver_write(&r->d, c + 0x1a, 2, 3);
    assert_int_equal(driver_read(&r->d, c + 0x1a, 2), 3);
    assert_int_equal(driver_read(&r->d, c + 0x14, 4), 0xffffffff); /* no field of that width */
    driver_write(&r->d, c + 0x1c, 2, 2);
    assert_int_equal(driver_read(&r->d, c + 0x1c, 2), 0);
    driver_write(&r->d, c + 0x1c, 2, 1);
    driver_write(&r->d, c + 0x1c, 2, 0);
    driver_write(&r->d, c + 0x20, 8, 0);
    assert_int_equal(driver_read(&r->d, c + 0x1c, 2), 1);
    assert_int_equal(driver_read(&r->d, c + 0x20, 8), 0xaabbccdd01020304);
    driver_reset(&r->d);
    driver_write(&r->d, c + 0x16, 2, 1);
    assert_int_equal(driver_read(&r->d, c + 0x18, 2), 64);
    assert_int_equal(driver_read(&r->d, c + 0x1c, 2), 0);
    assert_int_equal(driver_read(&r->d, c + 0x20, 8), 0);
}

static void test_rings_out_of_ram(void **state)
{
    static const uint64_t places[] = {VBOARD_RAM_LOW - 512, VBOARD_BAR, RAM_HIGH_BASE + VBOARD_RAM_HIGH - 512,
                                      UINT64_MAX - 1023};
    struct rig *r = *state;

    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        driver_reset(&r->d);
        assert_true(driver_negotiate(&r->d, i % 2 ? SPLIT : SPLIT | VIRTIO_F_RING_PACKED));
        driver_write(&r->d, r->d.common + 0x16, 2, 0);
        driver_write(&r->d, r->d.common + 0x20, 8, align_down(places[i], 16));
        driver_write(&r->d, r->d.common + 0x28, 8, 0x1000);
        driver_write(&r->d, r->d.common + 0x30, 8, 0x2000);
        driver_write(&r->d, r->d.common + 0x1c, 2, 1);
        unsigned seen = vboard_messages(&r->b, r->d.n_queues);
        driver_ready(&r->d);
        assert_true(driver_wait_status(&r->d, 0x40));
        assert_true(vboard_wait_message(&r->b, r->d.n_queues, seen));
        assert_int_equal(r->echo->starts, 0);
    }
    assert_int_equal(driver_init(&r->d, SPLIT), SPLIT);
    assert_int_equal(echo_once(r, 0), 0x5a);
}

static void test_config_space(void **state)
{
    struct rig *r = *state;
    uint32_t val = 0x0a0b0c0d;

    driver_init(&r->d, SPLIT);
    assert_int_equal(driver_read(&r->d, r->d.config, 4), 0x01020304);
    assert_int_equal(driver_read(&r->d, r->d.config + 1, 2), 0x0203);
    assert_int_equal(driver_read(&r->d, r->d.config + 6, 4), 0xffffffff);
    driver_write(&r->d, r->d.config, 4, 0); /* the device's */
    driver_write(&r->d, r->d.config + 4, 4, 0x55667788);
    driver_write(&r->d, r->d.config + 254, 4, 1);
    vboard_drain(&r->b);
    assert_int_equal(driver_read(&r->d, r->d.config, 8), 0x5566778801020304);
    assert_int_equal(r->echo->driver_wrote, 0x55667788);
    assert_int_equal(r->echo->config_writes, 1);

    uint64_t generation = driver_read(&r->d, r->d.common + 0x15, 1);
    unsigned seen = vboard_messages(&r->b, r->d.n_queues);
    virtio_config_put(r->d.v, 0, &val, 4);
    virtio_config_changed(r->d.v);
    assert_true(vboard_wait_message(&r->b, r->d.n_queues, seen));
    assert_true(driver_read(&r->d, r->d.common + 0x15, 1) != generation);
    assert_int_equal(driver_read(&r->d, r->d.config, 4), val);
    driver_reset(&r->d);
    seen = vboard_messages(&r->b, r->d.n_queues);
    virtio_config_changed(r->d.v); /* nobody listens */
    assert_int_equal(vboard_messages(&r->b, r->d.n_queues), seen);
}

static void test_intx(void **state)
{
    struct rig *r = *state;

    driver_pci_write(&r->d, (unsigned)r->d.msix_cap + 2, 2, 0);
    r->d.msix = false;
    driver_init(&r->d, SPLIT);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(echo_once(r, i % 3), 0x5a);
    vboard_drain(&r->b);
    driver_read(&r->d, r->d.isr, 1);
    assert_false(r->b.intx);
    virtio_config_changed(r->d.v);
    assert_true(r->b.intx);
    assert_int_equal(driver_read(&r->d, r->d.isr, 1), 2);
    assert_int_equal(driver_read(&r->d, r->d.isr, 1), 0);
    assert_false(r->b.intx);
    virtio_config_changed(r->d.v);
    driver_reset(&r->d);
    assert_false(r->b.intx);
    assert_int_equal(vboard_messages(&r->b, 0), 0);
}

/* A device that takes its time to stop keeps the status up; what the guest asks meanwhile comes to nothing. */
static void test_slow_reset(void **state)
{
    struct rig *r = *state;

    driver_init(&r->d, SPLIT);
    assert_int_equal(echo_once(r, 0), 0x5a);
    driver_write(&r->d, r->d.common + 0x14, 1, 0);
    vboard_drain(&r->b);
    assert_int_equal(driver_status(&r->d), READY);
    driver_write(&r->d, r->d.common + 0x14, 1, 1);
    driver_write(&r->d, r->d.common + 0x14, 1, 0);
    driver_write(&r->d, r->d.queues[0].notify, 2, 0);
    vboard_drain(&r->b);
    assert_int_equal(driver_status(&r->d), READY);
    assert_int_equal(r->echo->stops, 1);
    assert_int_equal(r->echo->resets, 1);
    echo_release(r->d.v);
    vboard_drain(&r->b);
    assert_int_equal(driver_status(&r->d), 0);
    assert_int_equal(r->echo->resets, 2);
    r->echo->conf.slow_stop = false;
    driver_init(&r->d, SPLIT);
    assert_int_equal(echo_once(r, 0), 0x5a);
}

static void *release_later(void *opaque)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    echo_release(opaque);
    return NULL;
}

/* The machine's reset waits for the device; so does a pause. */
static void test_machine_reset_waits(void **state)
{
    struct rig *r = *state;
    pthread_t thread;

    driver_init(&r->d, SPLIT);
    vboard_drain(&r->b);
    assert_int_equal(pthread_create(&thread, NULL, release_later, r->d.v), 0);
    device_reset(r->d.dev);
    pthread_join(thread, NULL);
    assert_int_equal(r->echo->stops, 1);
    assert_int_equal(virtio_running(r->d.v), false);
    assert_int_equal(driver_pci_read(&r->d, PCI_BAR0, 4), 4);
    assert_int_equal(driver_pci_read(&r->d, PCI_COMMAND, 2), 0);
    assert_int_equal(driver_pci_read(&r->d, (unsigned)r->d.msix_cap + 2, 2) & 0xc000, 0);
    r->echo->conf.slow_stop = false;
}

static void test_pause(void **state)
{
    struct rig *r = *state;
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};
    unsigned id;
    uint32_t len;

    driver_init(&r->d, DRIVER_ALL);
    virtio_pci_pause(r->d.dev);
    virtio_pci_pause(r->d.dev);
    assert_true(driver_add(&r->d.queues[0], &buf, 1) >= 0);
    driver_kick(&r->d.queues[0]);
    virtio_pci_resume(r->d.dev);
    vboard_drain(&r->b);
    assert_false(driver_get(&r->d.queues[0], &id, &len));
    virtio_pci_resume(r->d.dev);
    assert_true(driver_wait(&r->d.queues[0], &id, &len));
}

/* Without the right to master the bus the device touches no memory and sends nothing. */
static void test_bus_master(void **state)
{
    struct rig *r = *state;
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};
    unsigned id;
    uint32_t len;

    driver_init(&r->d, SPLIT);
    vboard_drain(&r->b);
    driver_pci_write(&r->d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(driver_add(&r->d.queues[0], &buf, 1) >= 0);
    driver_write(&r->d, r->d.queues[0].notify, 2, 0);
    virtio_config_changed(r->d.v);
    vboard_drain(&r->b);
    assert_false(driver_get(&r->d.queues[0], &id, &len));
    assert_int_equal(vboard_messages(&r->b, r->d.n_queues), 0);
    assert_int_equal(driver_status(&r->d), READY);
    driver_pci_write(&r->d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(vboard_messages(&r->b, r->d.n_queues), 1);
    assert_true(driver_wait(&r->d.queues[0], &id, &len));
}

/* 4.1.4.9: the BAR through configuration space. */
static void test_pci_cfg_window(void **state)
{
    struct rig *r = *state;
    unsigned at = driver_pci_read(&r->d, PCI_CAPABILITIES, 1);

    while (driver_pci_read(&r->d, at, 1) != PCI_CAP_VENDOR || driver_pci_read(&r->d, at + 3, 1) != 5) {
        at = driver_pci_read(&r->d, at + 1, 1);
        assert_true(at != 0);
    }
    driver_pci_write(&r->d, PCI_COMMAND, 2, 0); /* not mapped */
    driver_pci_write(&r->d, at + 4, 1, 0);
    driver_pci_write(&r->d, at + 8, 4, (uint32_t)(r->d.common - r->d.bar) + 0x12);
    driver_pci_write(&r->d, at + 12, 4, 2);
    assert_int_equal(driver_pci_read(&r->d, at + 16, 2), 3);
    driver_pci_write(&r->d, at + 8, 4, (uint32_t)(r->d.common - r->d.bar) + 0x14);
    driver_pci_write(&r->d, at + 12, 4, 1);
    driver_pci_write(&r->d, at + 16, 1, 3);
    assert_int_equal(driver_pci_read(&r->d, at + 16, 1), 3);
    driver_pci_write(&r->d, at + 12, 4, 3); /* nonsense */
    driver_pci_write(&r->d, at + 16, 1, 0);
    driver_pci_write(&r->d, at + 12, 4, 4);
    driver_pci_write(&r->d, at + 8, 4, 0xfffffffc);
    driver_pci_write(&r->d, at + 16, 4, 0);
    driver_pci_write(&r->d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(driver_status(&r->d), 3);
}

/* A device that a guest breaks is stopped for good, says so once, and works again after a reset. */
static void test_needs_reset(void **state)
{
    struct rig *r = *state;
    unsigned seen;

    driver_init(&r->d, SPLIT);
    seen = vboard_messages(&r->b, r->d.n_queues);
    virtq_break(r->d.v->queues[1], "no reason");
    virtio_break(r->d.v, "no reason either");
    assert_int_equal(driver_status(&r->d), READY | 0x40);
    assert_int_equal(vboard_messages(&r->b, r->d.n_queues), seen + 1);
    assert_false(virtio_running(r->d.v));
    driver_init(&r->d, SPLIT);
    assert_int_equal(echo_once(r, 1), 0x5a);
}

static void test_reset_storm(void **state)
{
    struct rig *r = *state;

    for (unsigned i = 0; i < 200; i++) {
        driver_init(&r->d, i % 2 ? SPLIT : DRIVER_ALL);
        if (i % 3)
            assert_int_equal(echo_once(r, i % 3), 0x5a);
        if (i % 7 == 0) {
            virtio_pci_pause(r->d.dev);
            virtio_pci_resume(r->d.dev);
        }
    }
}

/* A device that goes while it works interrupts once more, by its wire, when no function is there any more. The wire is down behind it. */
static void test_close_with_intx(void **state)
{
    void *own = NULL;
    pthread_t thread;

    assert_int_equal(setup_as(&own, &(struct echo_conf){.slow_stop = true, .hold = 2}), 0);
    struct rig *r = own;
    const struct driver_buf buf = {.gpa = vboard_alloc(&r->b, 16, 1), .len = 16, .write = true};
    driver_pci_write(&r->d, (unsigned)r->d.msix_cap + 2, 2, 0);
    r->d.msix = false;
    driver_init(&r->d, SPLIT);
    virtio_config_changed(r->d.v);
    assert_true(r->b.intx);
    assert_true(driver_add(&r->d.queues[0], &buf, 1) >= 0);
    driver_kick(&r->d.queues[0]);
    vboard_drain(&r->b);
    assert_int_equal(pthread_create(&thread, NULL, release_later, r->d.v), 0);
    driver_close(&r->d);
    pthread_join(thread, NULL);
    assert_false(r->b.intx);
    vboard_close(&r->b);
    free(r);
}

int main(void)
{
#define T(fn)    cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define SLOW(fn) cmocka_unit_test_setup_teardown(fn, setup_slow, teardown)
    const struct CMUnitTest tests[] = {
        T(test_identity),
        T(test_features),
        T(test_ready_without_features),
        T(test_queue_registers),
        T(test_rings_out_of_ram),
        T(test_config_space),
        T(test_intx),
        SLOW(test_slow_reset),
        SLOW(test_machine_reset_waits),
        T(test_pause),
        T(test_bus_master),
        T(test_pci_cfg_window),
        T(test_needs_reset),
        T(test_reset_storm),
        cmocka_unit_test(test_close_with_intx),
    };
    return cmocka_run_group_tests_name("virtio_pci", tests, NULL, NULL);
}
