#include <errno.h>

#include "../unit.h"
#include "core/stream.h"

static void walk(struct stream *s, uint64_t *a, uint16_t *b, bool *c)
{
    stream_section(s, "thing", 3);
    stream_u64(s, a);
    stream_u16(s, b);
    stream_bool(s, c);
}

static void test_round_trip(void **state)
{
    struct stream out, in;
    uint64_t a = 0x1122334455667788;
    uint16_t b = 0xbeef;
    bool c = true;

    stream_init_save(&out);
    walk(&out, &a, &b, &c);
    assert_int_equal(out.error, 0);

    uint64_t a2 = 0;
    uint16_t b2 = 0;
    bool c2 = false;
    stream_init_load(&in, out.data, out.len);
    walk(&in, &a2, &b2, &c2);
    assert_int_equal(in.error, 0);
    assert_int_equal(in.pos, out.len);
    assert_int_equal(a2, a);
    assert_int_equal(b2, b);
    assert_true(c2);

    for (size_t cut = 0; cut < out.len; cut++) {
        stream_init_load(&in, out.data, cut);
        walk(&in, &a2, &b2, &c2);
        assert_int_equal(in.error, -EPROTO);
    }
    stream_fini(&out);
}

static void test_wrong_section_and_value(void **state)
{
    struct stream out, in;
    uint8_t two = 2;
    bool b = false;

    stream_init_save(&out);
    stream_section(&out, "one", 1);
    stream_u8(&out, &two);
    stream_init_load(&in, out.data, out.len);
    stream_section(&in, "other", 1);
    assert_int_equal(in.error, -EPROTO);
    stream_init_load(&in, out.data, out.len);
    assert_int_equal(stream_section(&in, "one", 9), 1);
    stream_bool(&in, &b);
    assert_int_equal(in.error, -EPROTO);
    assert_false(b);
    stream_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_wrong_section_and_value),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
