/* What an interface is plugged into, as it is written on a command line. */
#include "net/net.h"

#include <errno.h>
#include <stdio.h>

#include "../unit.h"

static struct net_spec spec;

static void read_ok(const char *text)
{
    struct err err = {0};

    if (net_spec_parse(text, &spec, &err) != 0)
        fail_msg("'%s': %s", text, err.msg);
}

static void refused(const char *text, const char *words)
{
    struct err err = {0};

    assert_int_equal(net_spec_parse(text, &spec, &err), -EINVAL);
    if (!strstr(err.msg, words) || strchr(err.msg, '\n'))
        fail_msg("'%s': %s", text, err.msg);
}

static void test_backends(void **state)
{
    read_ok("user");
    assert_string_equal(spec.backend, "user");
    assert_string_equal(spec.rest, "");
    assert_int_equal(spec.queue_pairs, 1);
    assert_false(spec.has_mac);
    read_ok("tap=tap0");
    assert_string_equal(spec.backend, "tap");
    assert_string_equal(spec.rest, "tap0");
    refused("", "accepted are user");
    refused("bridge=br0", "'bridge=br0' is nothing to plug an interface into; accepted are user");
    refused("use", "accepted are user");
    refused("users", "accepted are user");
    refused("user=x", "'user=x': accepted is user");
    refused("tap", "'tap': accepted is tap=IF");
    refused("tap=", "accepted is tap=IF");
    refused("tap=,id=x", "accepted is tap=IF");
    refused("tap=longer-than-a-name", "up to 15 characters");
}

/* The interface's keys and the backend's may come in any order, and each goes to whom it belongs. */
static void test_keys(void **state)
{
    static const uint8_t mac[] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x5f};

    read_ok("user,mac=52:54:00:12:34:5F,hostfwd=tcp::2222-:22,id=net0,restrict,mtu=9000,queues=4,bps=10M,bps-burst=1M,"
            "pps=1K,pps-burst=20,hostfwd=udp:0.0.0.0:53-10.0.2.20:53,capture=/tmp/a,,b.pcap");
    assert_string_equal(spec.rest, "hostfwd=tcp::2222-:22,restrict,hostfwd=udp:0.0.0.0:53-10.0.2.20:53");
    assert_true(spec.has_mac);
    assert_memory_equal(spec.mac, mac, 6);
    assert_string_equal(spec.id, "net0");
    assert_int_equal(spec.mtu, 9000);
    assert_int_equal(spec.queue_pairs, 4);
    assert_int_equal(spec.bps, 10 * MIB);
    assert_int_equal(spec.bps_burst, MIB);
    assert_int_equal(spec.pps, 1024);
    assert_int_equal(spec.pps_burst, 20);
    assert_string_equal(spec.capture, "/tmp/a,b.pcap");
    read_ok("tap=t,,0,id=b");
    assert_string_equal(spec.rest, "t,,0");
}

static void test_refused(void **state)
{
    refused("user,nonsense=1", "'nonsense=1' is no key of user; accepted are hostfwd=, restrict, id=, mac=");
    refused("tap=t0,restrict", "'restrict' is no key of tap; accepted are id=, mac=");
    refused("tap=t0,hostfwd=tcp::1-:1", "no key of tap");
    refused("user,restrict,restrict", "twice");
    refused("user,restrict=on", "takes no value");
    refused("user,id=a,id=b", "twice");
    refused("user,id=1a", "id='1a'");
    refused("user,id=a b", "id='a b'");
    refused("user,id=a23456789012345678901234567890123", "id=");
    refused("user,mac=52:54:00:12:34", "mac='52:54:00:12:34'");
    refused("user,mac=01:00:5e:00:00:01", "no group's");
    refused("user,mac=00:00:00:00:00:00", "mac=");
    refused("user,mtu=100", "from 576 to 65521");
    refused("user,mtu=70000", "from 576 to 65521");
    refused("user,queues=0", "from 1 to 16");
    refused("user,bps=0", "bps");
    refused("user,bps-burst=10", "without bps=");
    refused("user,pps-burst=10,bps=3", "without pps=");
    refused("user,", "'' is no key of user");
}

static void test_forwards(void **state)
{
    static const char *const wrong[] = {
        "sctp::1-:2", "tcp:1-:2",   "tcp::1-2",      "tcp::0-:2",  "tcp::70000-:2",
        "tcp::1-:2x", "tcp:::1-:2", "tcp:host:1-:2", "tcp::1:2",   "tcp:1.2.3:1-1.2.3:2",
        "tcp",        "tcp::-:",    "tcp::1-:2-3",   "tcp::1x-:2", "TCP::1-:2",
        "",
    };
    char text[128];

    read_ok("user,hostfwd=tcp:127.0.0.1:2222-10.0.2.15:22");
    read_ok("user,hostfwd=udp::65535-:1");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        snprintf(text, sizeof(text), "user,hostfwd=%s", wrong[i]);
        refused(text, wrong[i][0] ? "accepted is tcp:HOST:PORT-GUEST:PORT" : "hostfwd=");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_forwards),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
