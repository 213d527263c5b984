/* Ethernet addresses: text, and the ones that are derived. */
#include "net/mac.h"

#include <stdio.h>

#include "../unit.h"

static void test_text(void **state)
{
    static const uint8_t bytes[] = {0x02, 0xab, 0x00, 0xff, 0x10, 0x9c};
    static const char *const wrong[] = {
        "",
        "02:ab:00:ff:10",
        "02:ab:00:ff:10:9c:00",
        "02:ab:00:ff:10:9",
        "02:ab:00:ff:10:9cx",
        "02:ab:00:ff:10:gc",
        "02ab00ff109c",
        "2:ab:00:ff:10:9c0",
        "03:ab:00:ff:10:9c",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
    };
    char text[MAC_TEXT_MAX];
    uint8_t mac[MAC_SIZE];

    assert_true(mac_parse("02:ab:00:ff:10:9c", mac));
    assert_memory_equal(mac, bytes, MAC_SIZE);
    assert_true(mac_parse("02-AB-00-FF-10-9C", mac));
    assert_memory_equal(mac, bytes, MAC_SIZE);
    mac_format(mac, text);
    assert_string_equal(text, "02:ab:00:ff:10:9c");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        if (mac_parse(wrong[i], mac))
            fail_msg("'%s' was taken", wrong[i]);
}

static void test_derived(void **state)
{
    enum { VMS = 200, EACH = 4 };
    static uint8_t macs[VMS * EACH][MAC_SIZE];
    uint8_t again[MAC_SIZE];
    char name[32];

    for (unsigned vm = 0; vm < VMS; vm++) {
        snprintf(name, sizeof(name), "/disks/%u.qcow2", vm);
        for (unsigned i = 0; i < EACH; i++) {
            mac_derive(macs[vm * EACH + i], name, i);
            assert_int_equal(macs[vm * EACH + i][0] & 3, 2);
        }
    }
    assert_int_equal(mac_find_twice(macs, VMS * EACH), VMS * EACH);
    mac_derive(again, "/disks/7.qcow2", 2);
    assert_memory_equal(again, macs[7 * EACH + 2], MAC_SIZE);
    mac_derive(macs[9], NULL, 0);
    mac_derive(again, NULL, 0);
    assert_memory_not_equal(again, macs[9], MAC_SIZE);
}

static void test_twice(void **state)
{
    uint8_t macs[4][MAC_SIZE] = {{2, 1}, {2, 2}, {2, 1}, {2, 2}};

    assert_int_equal(mac_find_twice(macs, 4), 2);
    assert_int_equal(mac_find_twice(macs, 2), 2);
    assert_int_equal(mac_find_twice(NULL, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_derived),
        cmocka_unit_test(test_twice),
    };
    return cmocka_run_group_tests_name("mac", tests, NULL, NULL);
}
