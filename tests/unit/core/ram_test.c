#include <errno.h>
#include <unistd.h>

#include "../unit.h"
#include "core/ram.h"

static void test_hole(void **state)
{
    struct ram ram;
    struct err err;
    uint32_t v = 0x12345678, back = 0;

    assert_int_equal(ram_open(&ram, 64 * GIB, 2 * GIB, &err), 0);
    assert_non_null(ram_host(&ram, 0, 4096));
    assert_non_null(ram_host(&ram, 2 * GIB - 1, 1));
    assert_null(ram_host(&ram, 2 * GIB - 1, 2));
    assert_null(ram_host(&ram, 2 * GIB, 1));
    assert_null(ram_host(&ram, 4 * GIB - 1, 1));
    assert_ptr_equal(ram_host(&ram, 4 * GIB, 1), ram.base + 2 * GIB);
    assert_null(ram_host(&ram, 66 * GIB, 1));
    assert_null(ram_host(&ram, UINT64_MAX, 1));
    assert_null(ram_host(&ram, 4 * GIB, UINT64_MAX));
    assert_int_equal(ram_write(&ram, 66 * GIB - 4, &v, 4), 0);
    assert_int_equal(ram_read(&ram, 66 * GIB - 4, &back, 4), 0);
    assert_int_equal(back, v);
    assert_int_equal(ram_write(&ram, 66 * GIB - 3, &v, 4), -EFAULT);
    assert_true(ram_resident(&ram) < 64 * KIB);
    ram_close(&ram);
}

static void test_sizes(void **state)
{
    struct ram ram;
    struct err err;
    const uint64_t bad[] = {0, 4096, 65537, 2048 * GIB, UINT64_MAX};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(ram_open(&ram, bad[i], 2 * GIB, &err), -EINVAL);
        assert_non_null(strstr(err.msg, "64K to 1T"));
    }
}

static void test_code_version(void **state)
{
    struct ram ram;
    struct err err;
    uint8_t b = 1;

    assert_int_equal(ram_open(&ram, MIB, 2 * GIB, &err), 0);
    assert_int_equal(ram_write(&ram, 0x1000, &b, 1), 0);
    assert_int_equal(ram.code[1].version, 0);
    ram.page_flags[1] |= RAM_PAGE_CODE;
    ram_claim_code(&ram, ram.base + 0x1000, 1);
    ram_claim_code(&ram, ram.base + 0x1fff, 1);
    assert_int_equal(ram_write(&ram, 0x1fff, &b, 1), 0);
    assert_int_equal(ram.code[1].version, 1);
    uint8_t two[2] = {0};
    assert_int_equal(ram_write(&ram, 0xfff, two, 2), 0); /* straddles into it */
    assert_int_equal(ram.code[1].version, 2);
    assert_int_equal(ram.code[0].version, 0);
    ram_close(&ram);
}

/* Code at [0x10c0, 0x1102): two granules. */
static void test_code_granules(void **state)
{
    static const struct {
        uint64_t gpa, len;
        bool hit;
    } stores[] = {
        {0x1080, 0x40, false},  {0x10bf, 1, false},    {0x10bf, 2, true},    {0x10c0, 1, true},
        {0x10ff, 1, true},      {0x113f, 1, true},     {0x1140, 1, false},   {0x1140, 0xec0, false},
        {0x1000, 0x1000, true}, {0xf00, 0x1c0, false}, {0xf00, 0x1c1, true}, {0xf00, 0x2000, true},
        {0x2000, 8, false},
    };
    static const uint8_t zeroes[0x2000];
    struct ram ram;
    struct err err;
    uint32_t version = 0;

    assert_int_equal(ram_open(&ram, MIB, 2 * GIB, &err), 0);
    ram.page_flags[1] |= RAM_PAGE_CODE;
    ram_claim_code(&ram, ram.base + 0x10c0, 0x42);
    for (size_t i = 0; i < ARRAY_SIZE(stores); i++) {
        assert_int_equal(ram_write(&ram, stores[i].gpa, zeroes, stores[i].len), 0);
        version += stores[i].hit;
        assert_int_equal(ram.code[1].version, version);
    }
    assert_int_equal(ram.code[1].stores, ARRAY_SIZE(stores) - 1);

    /* Not forgotten where another claim came between; else only what is kept counts, and nothing after that. */
    uint64_t now = ram.code[1].granules;
    assert_int_equal(now, 0x18);
    ram_claim_code(&ram, ram.base + 0x1fc0, 0x40);
    ram_keep_code(&ram, 1, now, 0x8);
    assert_int_equal(ram.code[1].version, version);
    ram_keep_code(&ram, 1, ram.code[1].granules, 0x8);
    assert_int_equal(ram.code[1].version, version + 1);
    assert_false(ram_wrote(&ram, ram.base + 0x1100, 1));
    assert_true(ram_wrote(&ram, ram.base + 0x10c0, 1));
    assert_int_equal(ram.code[1].version, version + 2);
    ram_forget_code(&ram, 1);
    assert_int_equal(ram.code[1].version, version + 3);
    assert_false(ram_wrote(&ram, ram.base + 0x1000, 0x1000));
    ram_close(&ram);
}

/* What the host has lost is not there, and no signal comes of it. */
static void test_peek(void **state)
{
    struct ram ram;
    struct err err;
    uint8_t bytes[8] = {0};

    assert_int_equal(ram_open(&ram, MIB, 512 * KIB, &err), 0);
    assert_int_equal(ram_write(&ram, 4 * GIB + 0x1ffc, "abcd", 4), 0);
    assert_int_equal(ram_peek(&ram, 4 * GIB + 0x1ffc, bytes, 8), 8);
    assert_memory_equal(bytes, "abcd\0\0\0\0", 8);
    assert_int_equal(ftruncate(ram.fd, 512 * KIB + 0x2000), 0);
    assert_int_equal(ram_peek(&ram, 4 * GIB + 0x1ffc, bytes, 8), 4);
    assert_int_equal(ram_peek(&ram, 4 * GIB + 0x2000, bytes, 8), 0);
    assert_int_equal(ram_peek(&ram, 512 * KIB, bytes, 1), 0);
    ram_close(&ram);
}

static void test_zero_discards(void **state)
{
    struct ram ram;
    struct err err;
    uint8_t page[8192];

    memset(page, 0xaa, sizeof(page));
    assert_int_equal(ram_open(&ram, MIB, 2 * GIB, &err), 0);
    assert_int_equal(ram_write(&ram, 0x800, page, sizeof(page)), 0);
    assert_int_equal(ram_zero(&ram, 0x900, 0x1800), 0);
    assert_int_equal(ram_read(&ram, 0, page, sizeof(page)), 0);
    assert_int_equal(page[0x8ff], 0xaa);
    assert_int_equal(page[0x900], 0);
    assert_int_equal(page[0x1fff], 0);
    assert_int_equal(ram_read(&ram, 0x2000, page, 0x1000), 0);
    assert_int_equal(page[0xff], 0);
    assert_int_equal(page[0x100], 0xaa);
    assert_int_equal(ram_discard_all(&ram), 0);
    assert_int_equal(ram_resident(&ram), 0);
    ram_close(&ram);
}

/* Whole pages only, on both sides of the hole; what code was decoded from moves on, what lies beside stays. */
static void test_discard(void **state)
{
    struct ram ram;
    struct err err;
    uint8_t bytes[4 * RAM_PAGE_SIZE];

    memset(bytes, 0xaa, sizeof(bytes));
    assert_int_equal(ram_open(&ram, MIB, 512 * KIB, &err), 0);
    assert_int_equal(ram_write(&ram, 0x1000, bytes, sizeof(bytes)), 0);
    assert_int_equal(ram_write(&ram, 4 * GIB, bytes, sizeof(bytes)), 0);
    assert_int_equal(ram_resident(&ram), 2 * sizeof(bytes));
    ram.page_flags[3] |= RAM_PAGE_CODE;
    ram_claim_code(&ram, ram.base + 0x3fc0, 1);

    const uint8_t *low = ram_host(&ram, 0x1000, 1);
    assert_int_equal(ram_discard(&ram, ram.base + 0x1001, 0xfff), 0); /* no page is whole */
    assert_int_equal(ram_resident(&ram), 2 * sizeof(bytes));
    assert_int_equal(ram_discard(&ram, ram.base + 0x1001, 0x2fff), 0);
    assert_int_equal(ram_resident(&ram), 2 * sizeof(bytes) - 2 * RAM_PAGE_SIZE);
    assert_int_equal(ram.code[3].version, 1);
    assert_int_equal(low[0xfff], 0xaa);
    assert_int_equal(low[0x1000], 0);
    assert_int_equal(low[0x2fff], 0);
    assert_int_equal(low[0x3000], 0xaa);

    uint8_t *high = ram_host(&ram, 4 * GIB, sizeof(bytes));
    assert_int_equal(ram_gpa(&ram, high + 5), 4 * GIB + 5);
    assert_int_equal(ram_gpa(&ram, low), 0x1000);
    assert_int_equal(ram_discard(&ram, high, sizeof(bytes)), 0);
    assert_int_equal(ram_resident(&ram),
                     4 * RAM_PAGE_SIZE); /* the two of the low ones have been looked at, and are back */
    assert_int_equal(*(volatile uint8_t *)high, 0);
    *(volatile uint8_t *)high = 1; /* is there again when it is touched */
    assert_int_equal(ram_discard(&ram, ram.base, 0), 0);
    ram_close(&ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hole),          cmocka_unit_test(test_sizes), cmocka_unit_test(test_code_version),
        cmocka_unit_test(test_code_granules), cmocka_unit_test(test_peek),  cmocka_unit_test(test_zero_discards),
        cmocka_unit_test(test_discard),
    };
    return cmocka_run_group_tests_name("ram", tests, NULL, NULL);
}
