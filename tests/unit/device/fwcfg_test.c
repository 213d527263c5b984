#include <endian.h>
#include <errno.h>

#include "fixture.h"

#include "device/fwcfg.h"

struct box {
    struct fixture f;
    struct ram ram;
    struct device *dev;
    struct err err;
};

static int setup(void **state)
{
    static struct box b;
    memset(&b, 0, sizeof(b));
    fixture_init(&b.f);
    if (ram_open(&b.ram, MIB, MIB, &b.err) < 0)
        return -1;
    b.f.env.ram = &b.ram;
    b.dev = fixture_open(&b.f, &fwcfg_type, &(struct fwcfg_conf){.n_cpus = 3});
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct box *b = *state;
    device_close(b->dev);
    ram_close(&b->ram);
    fixture_fini(&b->f);
    return 0;
}

static void select_key(struct box *b, uint16_t key)
{
    bus_access(&b->f.pio, 0x510, &key, 2, true);
}

static void test_items(void **state)
{
    struct box *b = *state;
    static const char signature[] = "QEMU";
    select_key(b, FWCFG_SIGNATURE);
    for (int i = 0; i < 5; i++) /* and a zero behind the end */
        assert_int_equal(in8(&b->f, 0x511), signature[i]);
    select_key(b, FWCFG_N_CPUS);
    assert_int_equal(in8(&b->f, 0x511), 3);
    select_key(b, FWCFG_ID);
    assert_int_equal(in8(&b->f, 0x511), 3);
    select_key(b, 0xffff);
    assert_int_equal(in8(&b->f, 0x511), 0);
}

static void test_files(void **state)
{
    struct box *b = *state;
    char name[60];
    assert_int_equal(fwcfg_add_file(b->dev, "etc/one", "1", 1, &b->err), 0);
    assert_int_equal(fwcfg_add_file(b->dev, "etc/two", "xyz", 3, &b->err), 0);
    assert_int_equal(fwcfg_add_file(b->dev, "etc/two", "xyz", 3, &b->err), -EEXIST);
    memset(name, 'n', sizeof(name));
    name[56] = 0;
    assert_int_equal(fwcfg_add_file(b->dev, name, "", 0, &b->err), -EINVAL);
    uint8_t dir[4 + 128];
    select_key(b, FWCFG_FILE_DIR);
    for (size_t i = 0; i < sizeof(dir); i++)
        dir[i] = in8(&b->f, 0x511);
    assert_memory_equal(dir, "\0\0\0\2\0\0\0\1\0\x20\0\0etc/one", 20);
    assert_memory_equal(dir + 68, "\0\0\0\3\0\x21\0\0etc/two", 16);
    select_key(b, 0x21);
    assert_int_equal(in8(&b->f, 0x511), 'x');
}

static uint32_t dma(struct box *b, uint32_t control, uint32_t length, uint64_t address)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } req = {htobe32(control), htobe32(length), htobe64(address)};
    assert_int_equal(ram_write(&b->ram, 0x1000, &req, sizeof(req)), 0);
    write32(&b->f.pio, 0x514, 0);
    write32(&b->f.pio, 0x518, htobe32(0x1000));
    assert_int_equal(ram_read(&b->ram, 0x1000, &control, 4), 0);
    return be32toh(control);
}

static void test_dma(void **state)
{
    struct box *b = *state;
    char buf[8] = "........";
    assert_int_equal(read64(&b->f.pio, 0x514), htobe64(UINT64_C(0x51454d5520434647)));
    assert_int_equal(ram_write(&b->ram, 0x2000, buf, 8), 0);
    assert_int_equal(dma(b, FWCFG_SIGNATURE << 16 | 0x8 | 0x2, 6, 0x2000), 0);
    assert_int_equal(ram_read(&b->ram, 0x2000, buf, 8), 0);
    assert_memory_equal(buf, "QEMU\0\0..", 8);
    assert_int_equal(dma(b, FWCFG_SIGNATURE << 16 | 0x8 | 0x4, 2, 0), 0); /* skip */
    assert_int_equal(in8(&b->f, 0x511), 'M');
}

static void test_dma_from_hostile_guests(void **state)
{
    struct box *b = *state;
    assert_int_equal(dma(b, 0x8 | 0x2, 0xffffffff, 0x2000), 1);
    assert_int_equal(dma(b, 0x8 | 0x2, 16, MIB - 8), 1);
    assert_int_equal(dma(b, 0x8 | 0x2, 16, UINT64_MAX - 4), 1);
    assert_int_equal(dma(b, 0x10, 4, 0x2000), 1); /* nothing can be written */
    assert_int_equal(dma(b, 0x4, 0xffffffff, 0), 0);
    assert_int_equal(dma(b, 0x4, 0xffffffff, 0), 0);
    assert_int_equal(in8(&b->f, 0x511), 0);
    write64(&b->f.pio, 0x514, UINT64_MAX); /* a request that is nowhere */
}

static void test_state(void **state)
{
    struct box *b = *state;
    select_key(b, 0);
    in8(&b->f, 0x511);
    struct fixture g;
    fixture_init(&g);
    g.env.ram = &b->ram;
    struct device *to = fixture_open(&g, &fwcfg_type, &(struct fwcfg_conf){.n_cpus = 3});
    fixture_copy_state(b->dev, to);
    assert_int_equal(in8(&g, 0x511), 'E');
    device_close(to);
    fixture_fini(&g);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_items), T(test_files), T(test_dma), T(test_dma_from_hostile_guests), T(test_state),
    };
    return cmocka_run_group_tests_name("fwcfg", tests, NULL, NULL);
}
