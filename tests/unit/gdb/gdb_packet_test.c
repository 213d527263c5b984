/* Framing: what comes in whole, broken, escaped or too long, and what goes out. */
#include "gdb/gdb_packet.h"

#include <stdio.h>
#include <stdlib.h>

#include "../unit.h"

/* Feeds all of it; the last event but NOTHING. */
static enum gdb_packet_event feed(struct gdb_packet_reader *r, const char *bytes, size_t len)
{
    enum gdb_packet_event last = GDB_PACKET_NOTHING;

    for (size_t i = 0; i < len; i++) {
        enum gdb_packet_event event = gdb_packet_read(r, (uint8_t)bytes[i]);
        last = event == GDB_PACKET_NOTHING ? last : event;
    }
    return last;
}

#define FEED(r, text) feed(r, text, sizeof(text) - 1)

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct gdb_packet_reader));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void whole(void **state)
{
    struct gdb_packet_reader *r = *state;

    assert_int_equal(FEED(r, "$m1000,4#8e"), GDB_PACKET_COMPLETE);
    assert_string_equal(r->data, "m1000,4");
    assert_int_equal(r->len, 7);
    assert_int_equal(FEED(r, "noise$#00"), GDB_PACKET_COMPLETE);
    assert_int_equal(r->len, 0);
    assert_int_equal(FEED(r, "$OK#9A"), GDB_PACKET_COMPLETE); /* digits of either case */
}

static void broken(void **state)
{
    struct gdb_packet_reader *r = *state;

    assert_int_equal(FEED(r, "$OK#9b"), GDB_PACKET_BAD);
    assert_int_equal(FEED(r, "$OK#g1"), GDB_PACKET_BAD);
    assert_int_equal(FEED(r, "$OK#9x"), GDB_PACKET_BAD);
    assert_int_equal(FEED(r, "$OK"), GDB_PACKET_NOTHING);
    assert_int_equal(FEED(r, "$g#67"), GDB_PACKET_COMPLETE); /* begun anew */
    assert_string_equal(r->data, "g");
}

static void escaped(void **state)
{
    struct gdb_packet_reader *r = *state;

    assert_int_equal(FEED(r, "$a}\x03}\x04}]#3c"), GDB_PACKET_COMPLETE);
    assert_memory_equal(r->data, "a#$}", 4);
    assert_int_equal(r->len, 4);
    assert_int_equal(FEED(r, "$\x03+-#5b"), GDB_PACKET_COMPLETE); /* inside they are contents */
}

static void between(void **state)
{
    struct gdb_packet_reader *r = *state;

    assert_int_equal(FEED(r, "+"), GDB_PACKET_ACK);
    assert_int_equal(FEED(r, "-"), GDB_PACKET_NAK);
    assert_int_equal(FEED(r, "\x03"), GDB_PACKET_INTERRUPT);
    assert_int_equal(FEED(r, "g#67"), GDB_PACKET_NOTHING);
}

static void too_long(void **state)
{
    struct gdb_packet_reader *r = *state;
    static char frame[GDB_PACKET_MAX + 8];

    for (size_t len = GDB_PACKET_MAX; len <= GDB_PACKET_MAX + 1; len++) {
        memset(frame, 'x', sizeof(frame));
        frame[0] = '$';
        snprintf(frame + 1 + len, 4, "#%02x", (unsigned)('x' * len) & 0xff);
        assert_int_equal(feed(r, frame, len + 4), len == GDB_PACKET_MAX ? GDB_PACKET_COMPLETE : GDB_PACKET_BAD);
    }
    assert_int_equal(FEED(r, "$g#67"), GDB_PACKET_COMPLETE);
}

static void writing(void **state)
{
    static struct gdb_packet p;

    gdb_packet_begin(&p);
    gdb_packet_text(&p, "T%02x", 5);
    gdb_packet_hex(&p, "\x01\xfe", 2);
    assert_int_equal(gdb_packet_binary(&p, "a#$}*\n", 6), 6);
    gdb_packet_end(&p);
    assert_int_equal(p.len, 1 + 3 + 4 + 10 + 3);
    assert_memory_equal(p.data, "$T0501fea}\x03}\x04}]}\x0a\n#", p.len - 2);

    /* And it reads back. */
    struct gdb_packet_reader *r = *state;
    assert_int_equal(feed(r, p.data, p.len), GDB_PACKET_COMPLETE);
    assert_memory_equal(r->data, "T0501fea#$}*\n", 13);
}

static void full(void **state)
{
    static struct gdb_packet p;
    static uint8_t data[GDB_PACKET_MAX];

    gdb_packet_begin(&p);
    gdb_packet_hex(&p, data, sizeof(data) / 2);
    assert_false(p.full);
    assert_int_equal(p.len, 1 + GDB_PACKET_MAX);
    gdb_packet_text(&p, "x");
    assert_true(p.full);
    gdb_packet_end(&p);
    assert_int_equal(strncmp(p.data, "$E.too long#", 12), 0);

    gdb_packet_begin(&p);
    memset(data, '#', sizeof(data));
    assert_int_equal(gdb_packet_binary(&p, data, sizeof(data)), GDB_PACKET_MAX / 2);
    assert_false(p.full);
}

static void numbers(void **state)
{
    const char *text = "12aF,";
    uint8_t bytes[3];
    uint64_t v;

    assert_true(gdb_packet_number(&text, &v));
    assert_int_equal(v, 0x12af);
    assert_int_equal(*text, ',');
    assert_false(gdb_packet_number(&text, &v));
    text = "ffffffffffffffff";
    assert_true(gdb_packet_number(&text, &v));
    assert_int_equal(v, UINT64_MAX);
    text = "10000000000000000";
    assert_false(gdb_packet_number(&text, &v));

    assert_true(gdb_packet_bytes("01fF80", bytes, 3));
    assert_memory_equal(bytes, "\x01\xff\x80", 3);
    assert_false(gdb_packet_bytes("01f", bytes, 2));
    assert_false(gdb_packet_bytes("01ff", bytes, 1));
    assert_false(gdb_packet_bytes("0x", bytes, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole, setup, teardown),
        cmocka_unit_test_setup_teardown(broken, setup, teardown),
        cmocka_unit_test_setup_teardown(escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(between, setup, teardown),
        cmocka_unit_test_setup_teardown(too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(writing, setup, teardown),
        cmocka_unit_test(full),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
