#include "../unit.h"
#include "x86/decode.h"

#define DECODE(size, real, ...) \
    x86_decode(&xi, size, real, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_modes(void **state)
{
    struct x86_insn xi;

    assert_int_equal(DECODE(8, false, 0x48, 0x01, 0xd8), X86_DECODE_OK); /* add rax, rbx */
    assert_int_equal(xi.insn.mnemonic, ZYDIS_MNEMONIC_ADD);
    assert_int_equal(xi.op[0].size, 64);
    assert_int_equal(DECODE(4, false, 0x48, 0x01, 0xd8), X86_DECODE_OK); /* dec eax */
    assert_int_equal(xi.insn.mnemonic, ZYDIS_MNEMONIC_DEC);
    assert_int_equal(xi.op[0].size, 32);
    assert_int_equal(DECODE(2, true, 0x48), X86_DECODE_OK);
    assert_int_equal(xi.op[0].size, 16);
}

static void test_incomplete(void **state)
{
    struct x86_insn xi;

    assert_int_equal(x86_decode(&xi, 8, false, NULL, 0), X86_DECODE_MORE);
    assert_int_equal(DECODE(8, false, 0x48), X86_DECODE_MORE);
    assert_int_equal(DECODE(8, false, 0xe9, 0, 0, 0), X86_DECODE_MORE);
    assert_int_equal(DECODE(8, false, 0xe9, 0, 0, 0, 0), X86_DECODE_OK);
}

static void test_length(void **state)
{
    struct x86_insn xi;
    uint8_t bytes[16];

    memset(bytes, 0x2e, sizeof(bytes));
    bytes[14] = 0x90;
    assert_int_equal(x86_decode(&xi, 8, false, bytes, 15), X86_DECODE_OK);
    bytes[14] = 0x2e;
    bytes[15] = 0x90;
    assert_int_equal(x86_decode(&xi, 8, false, bytes, 15), X86_DECODE_GP);
    assert_int_equal(x86_decode(&xi, 8, false, bytes, 14), X86_DECODE_MORE);
}

static void test_undefined(void **state)
{
    struct x86_insn xi;

    assert_int_equal(DECODE(8, false, 0x06), X86_DECODE_UD);             /* push es */
    assert_int_equal(DECODE(8, false, 0xf0, 0x01, 0xd8), X86_DECODE_UD); /* lock add eax, ebx */
    assert_int_equal(DECODE(8, false, 0xf0, 0x01, 0x18), X86_DECODE_OK); /* lock add [rax], ebx */
    assert_int_equal(DECODE(8, false, 0xf0, 0x39, 0x18), X86_DECODE_UD); /* lock cmp [rax], ebx */
    assert_int_equal(DECODE(8, false, 0x0f, 0x20, 0xc8), X86_DECODE_UD); /* mov rax, cr1 */
}

static void test_pause(void **state)
{
    struct x86_insn xi;

    assert_int_equal(DECODE(8, false, 0xf3, 0x90), X86_DECODE_OK);
    assert_int_equal(xi.insn.mnemonic, ZYDIS_MNEMONIC_PAUSE);
    assert_int_equal(DECODE(8, false, 0xf3, 0x49, 0x90), X86_DECODE_OK); /* xchg r8, rax */
    assert_int_equal(xi.insn.mnemonic, ZYDIS_MNEMONIC_XCHG);
    assert_int_equal(xi.insn.length, 3);
    assert_int_equal(xi.op[0].size, 64);
}

static void test_absent_extensions(void **state)
{
    struct x86_insn xi;

    assert_int_equal(DECODE(8, false, 0xf3, 0x0f, 0x1e, 0xfa), X86_DECODE_OK); /* endbr64 is a hint */
    assert_int_equal(xi.insn.mnemonic, ZYDIS_MNEMONIC_NOP);
    assert_int_equal(DECODE(8, false, 0xf3, 0x0f, 0x09), X86_DECODE_OK);
    assert_int_equal(xi.insn.mnemonic, ZYDIS_MNEMONIC_WBINVD);
    assert_int_equal(DECODE(8, false, 0xf2, 0xe8, 0, 0, 0, 0), X86_DECODE_OK); /* bnd call */
    assert_int_equal(DECODE(8, false, 0x66, 0xe8, 0, 0, 0, 0), X86_DECODE_OK); /* 66 ignored */
    assert_int_equal(xi.insn.length, 6);
}

static void test_real_mode(void **state)
{
    struct x86_insn xi;

    assert_int_equal(DECODE(2, true, 0xc5, 0xf8, 0x77), X86_DECODE_UD); /* vzeroupper */
    assert_int_equal(DECODE(2, false, 0xc5, 0xf8, 0x77), X86_DECODE_OK);
    assert_int_equal(DECODE(2, true, 0x0f, 0x00, 0xd8), X86_DECODE_UD); /* ltr ax */
    assert_int_equal(DECODE(2, false, 0x0f, 0x00, 0xd8), X86_DECODE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes),     cmocka_unit_test(test_incomplete), cmocka_unit_test(test_length),
        cmocka_unit_test(test_undefined), cmocka_unit_test(test_pause),      cmocka_unit_test(test_absent_extensions),
        cmocka_unit_test(test_real_mode),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
