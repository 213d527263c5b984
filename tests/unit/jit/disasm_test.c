#include "jit/disasm.h"

#include "../unit.h"

static void expect(const uint8_t *code, size_t avail, unsigned size, size_t len, const char *text)
{
    char line[DISASM_LINE];

    assert_int_equal(disasm_one(code, avail, 0x1000, size, line), len);
    assert_string_equal(line, text);
}

/* The same bytes mean other things in other modes; addresses are absolute. */
static void test_modes(void **state)
{
    static const uint8_t jump[] = {0xeb, 0x10}, rex[] = {0x48, 0x89, 0xd8}, mov[] = {0xb8, 1, 0, 0, 0};

    expect(jump, 2, 8, 2, "jmp 0x0000000000001012");
    expect(rex, 3, 8, 3, "mov rax, rbx");
    expect(rex, 3, 4, 1, "dec eax");
    expect(mov, 5, 4, 5, "mov eax, 0x01");
    expect(mov, 5, 2, 3, "mov ax, 0x01");
}

/* What is none, or ends too early, is bytes. */
static void test_bytes(void **state)
{
    static const uint8_t ud[] = {0x0f, 0xff}, cut[] = {0xe8, 0, 0};

    expect(cut, 3, 8, 1, "db 0xe8");
    expect(ud, 1, 8, 1, "db 0x0f");
    expect(ud, 0, 8, 0, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_bytes),
    };
    return cmocka_run_group_tests_name("disasm", tests, NULL, NULL);
}
