/* A switch's addresses: learning, ageing, moves, and that neither the table nor a port's share of it can be exceeded. */
#include "net/switch_table.h"

#include "../unit.h"

#define AGE (300 * NS_PER_SEC)

static const uint8_t *mac(unsigned n)
{
    static uint8_t bytes[6];

    memcpy(bytes, (uint8_t[]){0x52, 0x54, 0, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}, 6);
    return bytes;
}

static void test_learning(void **state)
{
    struct switch_table t;

    assert_int_equal(switch_table_init(&t, 16, 8, AGE), 0);
    assert_int_equal(switch_table_find(&t, 1, mac(1), 1), -1);
    switch_table_learn(&t, 1, mac(1), 7, 1);
    assert_int_equal(switch_table_find(&t, 1, mac(1), 2), 7);
    assert_int_equal(switch_table_find(&t, 2, mac(1), 2), -1); /* each VLAN has its own */
    switch_table_learn(&t, 2, mac(1), 9, 2);
    assert_int_equal(switch_table_find(&t, 1, mac(1), 2), 7);
    assert_int_equal(switch_table_find(&t, 2, mac(1), 2), 9);
    assert_int_equal(t.used, 2);
    assert_int_equal(t.of_port[7], 1);
    switch_table_fini(&t);
}

static void test_moving(void **state)
{
    struct switch_table t;

    assert_int_equal(switch_table_init(&t, 16, 2, AGE), 0);
    switch_table_learn(&t, 1, mac(1), 0, 1);
    switch_table_learn(&t, 1, mac(1), 1, 2);
    assert_int_equal(switch_table_find(&t, 1, mac(1), 2), 1);
    assert_int_equal(t.moved, 1);
    assert_int_equal(t.of_port[0], 0);
    assert_int_equal(t.of_port[1], 1);
    switch_table_learn(&t, 1, mac(2), 1, 2);
    /* No room for another at port 1: it stays where it is. */
    switch_table_learn(&t, 1, mac(3), 0, 2);
    switch_table_learn(&t, 1, mac(3), 1, 2);
    assert_int_equal(switch_table_find(&t, 1, mac(3), 2), 0);
    assert_int_equal(t.refused, 1);
    switch_table_fini(&t);
}

static void test_ageing(void **state)
{
    struct switch_table t;

    assert_int_equal(switch_table_init(&t, 16, 16, AGE), 0);
    switch_table_learn(&t, 1, mac(1), 3, 1);
    switch_table_learn(&t, 1, mac(2), 3, 1);
    assert_int_equal(switch_table_find(&t, 1, mac(1), 1 + AGE), 3);
    assert_int_equal(switch_table_find(&t, 1, mac(1), 2 + AGE), -1);
    switch_table_learn(&t, 1, mac(2), 3, AGE); /* seen again: young again */
    assert_int_equal(switch_table_find(&t, 1, mac(2), 2 + AGE), 3);
    switch_table_expire(&t, 2 + AGE);
    assert_int_equal(t.used, 1);
    switch_table_expire(&t, 2 + 2 * AGE);
    assert_int_equal(t.used, 0);
    assert_int_equal(t.of_port[3], 0);
    switch_table_fini(&t);
}

static void test_bounds(void **state)
{
    struct switch_table t;

    assert_int_equal(switch_table_init(&t, 64, 16, AGE), 0);
    for (unsigned i = 0; i < 1000; i++)
        switch_table_learn(&t, 1, mac(i), 0, 1);
    assert_int_equal(t.used, 16); /* a port's share */
    for (unsigned i = 1000; i < 2000; i++)
        switch_table_learn(&t, 1, mac(i), 1 + i % 9, 1);
    assert_int_equal(t.used, 64); /* all there is */
    assert_int_equal(t.refused, 1000 - 16 + 1000 - 48);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(switch_table_find(&t, 1, mac(i), 1), 0);
    /* What has aged makes room. */
    switch_table_expire(&t, 2 + AGE);
    for (unsigned i = 0; i < 16; i++)
        switch_table_learn(&t, 5, mac(i), 200, 2 + AGE);
    assert_int_equal(t.used, 16);
    assert_int_equal(switch_table_find(&t, 5, mac(15), 2 + AGE), 200);
    switch_table_fini(&t);
}

static void test_forgetting(void **state)
{
    struct switch_table t;

    assert_int_equal(switch_table_init(&t, 64, 64, AGE), 0);
    for (unsigned i = 0; i < 60; i++)
        switch_table_learn(&t, 1, mac(i), i % 3, 1);
    switch_table_forget(&t, 1);
    assert_int_equal(t.used, 40);
    for (unsigned i = 0; i < 60; i++)
        assert_int_equal(switch_table_find(&t, 1, mac(i), 1), i % 3 == 1 ? -1 : (int)(i % 3));
    switch_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning), cmocka_unit_test(test_moving),     cmocka_unit_test(test_ageing),
        cmocka_unit_test(test_bounds),   cmocka_unit_test(test_forgetting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
