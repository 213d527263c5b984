#include "../unit.h"
#include "core/vcpu_port.h"

static unsigned kicks;

static void kick(void *vcpu)
{
    kicks++;
}

static bool nmi_pending(struct vcpu_port *port)
{
    return atomic_load(&port->pending) & PIN_NMI;
}

static void test_kicks_on_a_rise(void **state)
{
    struct vcpu_port port = {.kick = kick};

    kicks = 0;
    vcpu_port_raise(&port, PIN_INTR);
    vcpu_port_raise(&port, PIN_INTR);
    assert_int_equal(kicks, 1);
    vcpu_port_lower(&port, PIN_INTR);
    assert_int_equal(atomic_load(&port.pending), 0);
    vcpu_port_raise(&port, PIN_INTR | PIN_KICK);
    assert_int_equal(kicks, 2);
}

/* Two that come before the first is taken are two; a third is lost. */
static void test_nmis_before_the_first_is_taken(void **state)
{
    struct vcpu_port port = {0};

    for (int i = 0; i < 3; i++)
        vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_take_nmi(&port);
    assert_true(nmi_pending(&port));
    vcpu_port_unblock_nmi(&port);
    assert_true(nmi_pending(&port));
    vcpu_port_take_nmi(&port);
    assert_false(nmi_pending(&port));
}

/* While one is being handled, only one more is latched. */
static void test_nmis_while_blocked(void **state)
{
    struct vcpu_port port = {0};

    vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_take_nmi(&port);
    assert_false(nmi_pending(&port));
    vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_unblock_nmi(&port);
    vcpu_port_take_nmi(&port);
    assert_false(nmi_pending(&port));
}

static void test_reset_forgets_nmis(void **state)
{
    struct vcpu_port port = {0};

    vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_lower(&port, PIN_NMI);
    assert_false(nmi_pending(&port));
    vcpu_port_raise(&port, PIN_NMI);
    vcpu_port_take_nmi(&port);
    assert_false(nmi_pending(&port));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kicks_on_a_rise),
        cmocka_unit_test(test_nmis_before_the_first_is_taken),
        cmocka_unit_test(test_nmis_while_blocked),
        cmocka_unit_test(test_reset_forgets_nmis),
    };
    return cmocka_run_group_tests_name("vcpu_port", tests, NULL, NULL);
}
