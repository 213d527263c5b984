#include "interp_fixture.h"

static void test_counts_exactly(void **state)
{
    struct interp_fixture *f = *state;

    /* mov ecx, 10; 1: dec ecx; jnz 1b; nop; nop */
    assert_int_equal(RUN(f, 22, 0xb9, 10, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x90, 0x90), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RCX], 0);
    assert_int_equal(f->st.rip, FIXTURE_CODE + 10);
    assert_int_equal(f->stats.instructions, 22);
}

static void test_fault_in_block(void **state)
{
    struct interp_fixture *f = *state;

    /* inc eax; inc eax; ud2; inc eax: the IDT is empty, so #UD is a triple fault */
    assert_int_equal(RUN(f, 100, 0xff, 0xc0, 0xff, 0xc0, 0x0f, 0x0b, 0xff, 0xc0), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.gpr[X86_RAX], 2);
    assert_int_equal(f->stats.instructions, 2);
}

static void test_registers(void **state)
{
    struct interp_fixture *f = *state;

    f->st.gpr[X86_RAX] = 0x1122334455667788;
    f->st.gpr[X86_RBX] = 0xffffffffffffffff;
    /* mov ah, bl; add ebx, 1; movsx rcx, ah; mov dx, ax */
    assert_int_equal(RUN(f, 4, 0x88, 0xdc, 0x83, 0xc3, 0x01, 0x0f, 0xb6, 0xcc, 0x66, 0x89, 0xc2), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RAX], 0x112233445566ff88);
    assert_int_equal(f->st.gpr[X86_RBX], 0);
    assert_int_equal(f->st.gpr[X86_RCX], 0xff);
    assert_int_equal(f->st.gpr[X86_RDX] & 0xffff, 0xff88);
    assert_int_equal(f->st.rflags & X86_FLAGS_STATUS, X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF);
}

static void test_own_code(void **state)
{
    struct interp_fixture *f = *state;

    /* mov byte [rip + 1], 0x05; 1: add al, 1 -> add eax, imm32 read from what follows: changed within its own block */
    assert_int_equal(RUN(f, 2, 0xc6, 0x05, 0x01, 0, 0, 0, 0x2a, 0xb0, 0x01, 0x90), ENGINE_DEBUG); /* mov al, 1 */
    assert_int_equal(f->st.gpr[X86_RAX], 0x2a);
    assert_int_equal(f->st.rip, FIXTURE_CODE + 9);
    assert_int_equal(f->stats.instructions, 2);
}

static void test_code_written_by_device(void **state)
{
    struct interp_fixture *f = *state;

    assert_int_equal(RUN(f, 1, 0xb0, 0x01), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RAX], 1);
    f->st.rip = FIXTURE_CODE;
    assert_int_equal(RUN(f, 1, 0xb0, 0x02), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RAX], 2);
}

static void test_page_crossing(void **state)
{
    struct interp_fixture *f = *state;
    const uint8_t code[] = {0xb8, 0x78, 0x56, 0x34, 0x12}, other = 0x99;

    for (unsigned i = 0; i < 3; i++) {
        if (i == 0)
            assert_int_equal(ram_write(&f->ram, 0x10ffe, code, sizeof(code)), 0);
        if (i == 2)
            assert_int_equal(ram_write(&f->ram, 0x11001, &other, 1), 0);
        f->st.rip = 0x10ffe;
        interp_engine.set(f->vcpu, &f->st);
        assert_int_equal(interp_engine.run(f->vcpu, 1), ENGINE_DEBUG);
        interp_engine.get(f->vcpu, &f->st);
        assert_int_equal(f->st.gpr[X86_RAX], i == 2 ? 0x12995678 : 0x12345678);
        assert_int_equal(f->st.rip, 0x11003);
    }
}

static void test_strings(void **state)
{
    struct interp_fixture *f = *state;
    uint8_t out[64];

    /* rep movsb whose destination overlaps the source by one: the first byte is repeated */
    memset(f->ram.base + FIXTURE_DATA, 0, 64);
    f->ram.base[FIXTURE_DATA] = 0xab;
    f->st.gpr[X86_RSI] = FIXTURE_DATA;
    f->st.gpr[X86_RDI] = FIXTURE_DATA + 1;
    f->st.gpr[X86_RCX] = 32;
    assert_int_equal(RUN(f, 1, 0xf3, 0xa4), ENGINE_DEBUG);
    memcpy(out, f->ram.base + FIXTURE_DATA, 64);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(out[i], i <= 32 ? 0xab : 0);
    assert_int_equal(f->st.gpr[X86_RCX], 0);
    assert_int_equal(f->st.gpr[X86_RSI], FIXTURE_DATA + 32);
    assert_int_equal(f->stats.instructions, 1);

    /* rep stosq over many pages, more than a chunk */
    f->st.rip = FIXTURE_CODE;
    f->st.gpr[X86_RAX] = 0x0123456789abcdef;
    f->st.gpr[X86_RDI] = 0x100003;
    f->st.gpr[X86_RCX] = 20000;
    assert_int_equal(RUN(f, 1, 0xf3, 0x48, 0xab), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RDI], 0x100003 + 160000);
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(load_le64(f->ram.base + 0x100003 + 8 * i), 0x0123456789abcdef);
    assert_int_equal(f->ram.base[0x100003 + 160000], 0);

    /* a fault in the middle: the next iteration's registers */
    f->st.rip = FIXTURE_CODE;
    f->st.gpr[X86_RDI] = 16 * MIB - 24;
    f->st.gpr[X86_RCX] = 10;
    assert_int_equal(RUN(f, 1, 0xf3, 0x48, 0xab), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.gpr[X86_RCX], 7);
    assert_int_equal(f->st.gpr[X86_RDI], 16 * MIB);
    assert_int_equal(f->st.cr2, 16 * MIB);

    /* std; repne scasb */
    fixture_mode(f, 8);
    f->st.gpr[X86_RAX] = 0xab;
    f->st.gpr[X86_RDI] = FIXTURE_DATA + 40;
    f->st.gpr[X86_RCX] = 100;
    assert_int_equal(RUN(f, 2, 0xfd, 0xf2, 0xae), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RDI], FIXTURE_DATA + 31);
    assert_int_equal(f->st.gpr[X86_RCX], 91);
}

static void test_divide(void **state)
{
    struct interp_fixture *f = *state;

    f->st.gpr[X86_RDX] = UINT64_MAX;
    f->st.gpr[X86_RAX] = (uint64_t)-7;
    f->st.gpr[X86_RBX] = 2;
    assert_int_equal(RUN(f, 1, 0x48, 0xf7, 0xfb), ENGINE_DEBUG); /* idiv rbx */
    assert_int_equal(f->st.gpr[X86_RAX], (uint64_t)-3);
    assert_int_equal(f->st.gpr[X86_RDX], (uint64_t)-1);

    fixture_mode(f, 8);
    f->st.gpr[X86_RDX] = UINT64_MAX;
    f->st.gpr[X86_RAX] = UINT64_C(1) << 63;
    f->st.gpr[X86_RBX] = UINT64_MAX; /* -2^63 / -1 does not fit */
    assert_int_equal(RUN(f, 1, 0x48, 0xf7, 0xfb), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.gpr[X86_RAX], UINT64_C(1) << 63);
}

static void test_stack(void **state)
{
    struct interp_fixture *f = *state;

    f->st.gpr[X86_RAX] = 0x1234;
    /* push rsp; pop rbx; push rax; pop qword [rsp - 8]: the address takes RSP after the pop */
    assert_int_equal(RUN(f, 4, 0x54, 0x5b, 0x50, 0x8f, 0x44, 0x24, 0xf0), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RBX], FIXTURE_STACK);
    assert_int_equal(f->st.gpr[X86_RSP], FIXTURE_STACK);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_STACK - 16), 0x1234);

    /* enter 16, 2; leave */
    fixture_mode(f, 8);
    f->st.gpr[X86_RBP] = FIXTURE_STACK + 64;
    store_le64(f->ram.base + FIXTURE_STACK + 56, 0x5555);
    assert_int_equal(RUN(f, 1, 0xc8, 16, 0, 2, 0xc9), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RBP], FIXTURE_STACK - 8);
    assert_int_equal(f->st.gpr[X86_RSP], FIXTURE_STACK - 24 - 16);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_STACK - 16), 0x5555);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_STACK - 24), FIXTURE_STACK - 8);
}

static void test_push_sizes(void **state)
{
    struct interp_fixture *f = *state;

    /* push -1; push qword [rbx]; o16 push 0x1234; push fs */
    f->st.gpr[X86_RBX] = FIXTURE_DATA;
    store_le64(f->ram.base + FIXTURE_DATA, 0x1122334455667788);
    assert_int_equal(RUN(f, 4, 0x6a, 0xff, 0xff, 0x33, 0x66, 0x68, 0x34, 0x12, 0x0f, 0xa0), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RSP], FIXTURE_STACK - 26);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_STACK - 8), UINT64_MAX);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_STACK - 16), 0x1122334455667788);
    assert_int_equal(load_le16(f->ram.base + FIXTURE_STACK - 18), 0x1234);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_STACK - 26), 16);

    /* 16-bit: pusha; popa; o32 push 1; call +0; ret */
    fixture_mode(f, 2);
    f->st.seg[X86_CS].base = f->st.rip;
    f->st.rip = 0;
    f->st.gpr[X86_RAX] = 0xaaaa1111;
    f->st.gpr[X86_RDI] = 0x2222;
    assert_int_equal(RUN(f, 1, 0x60, 0x61, 0x66, 0x6a, 0x01, 0xe8, 0x00, 0x00), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RSP], 0xeff0);
    assert_int_equal(load_le16(f->ram.base + 0xeffe), 0x1111);
    assert_int_equal(load_le16(f->ram.base + 0xeff6), 0xf000);
    assert_int_equal(load_le16(f->ram.base + 0xeff0), 0x2222);
    assert_int_equal(RUN(f, 3, 0x60, 0x61, 0x66, 0x6a, 0x01, 0xe8, 0x00, 0x00), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RSP], 0xeffa);
    assert_int_equal(f->st.gpr[X86_RAX], 0xaaaa1111);
    assert_int_equal(load_le32(f->ram.base + 0xeffc), 1);
    assert_int_equal(load_le16(f->ram.base + 0xeffa), 8);
    assert_int_equal(f->st.rip, 8);
}

static void test_bits_and_tables(void **state)
{
    struct interp_fixture *f = *state;

    /* bts [rbx], rax with an offset of -1: the byte in front; then xlat by AL alone */
    f->st.gpr[X86_RBX] = FIXTURE_DATA + 64;
    f->st.gpr[X86_RAX] = UINT64_MAX;
    f->ram.base[FIXTURE_DATA + 64 + 0xff] = 0x77;
    assert_int_equal(RUN(f, 2, 0x48, 0x0f, 0xab, 0x03, 0xd7), ENGINE_DEBUG);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_DATA + 56), UINT64_C(1) << 63);
    assert_int_equal(f->st.gpr[X86_RAX], 0xffffffffffffff77);

    /* shl eax, cl with CL = 32 keeps the flags and clears the upper half; bsf of zero sets ZF */
    fixture_mode(f, 8);
    f->st.gpr[X86_RAX] = 0xffffffff00000001;
    f->st.gpr[X86_RCX] = 32;
    f->st.rflags |= X86_FLAG_CF | X86_FLAG_OF;
    assert_int_equal(RUN(f, 1, 0xd3, 0xe0), ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RAX], 1);
    assert_int_equal(f->st.rflags & X86_FLAGS_STATUS, X86_FLAG_CF | X86_FLAG_OF);
    f->st.rip = FIXTURE_CODE;
    f->st.gpr[X86_RCX] = 0;
    assert_int_equal(RUN(f, 1, 0x0f, 0xbc, 0xc1), ENGINE_DEBUG);
    assert_true(f->st.rflags & X86_FLAG_ZF);
}

static void test_branches(void **state)
{
    struct interp_fixture *f = *state;

    /* jmp rax to a non-canonical address: #GP at the jump, and RIP is still there */
    f->st.gpr[X86_RAX] = UINT64_C(1) << 47;
    assert_int_equal(RUN(f, 1, 0xff, 0xe0), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.rip, FIXTURE_CODE);

    /* 32-bit code: o16 jmp cuts EIP to 16 bits */
    fixture_mode(f, 4);
    assert_int_equal(RUN(f, 1, 0x66, 0xe9, 0x10, 0x00), ENGINE_DEBUG);
    assert_int_equal(f->st.rip, (FIXTURE_CODE + 4 + 0x10) & 0xffff);

    /* beyond the limit of CS */
    fixture_mode(f, 4);
    f->st.seg[X86_CS].limit = FIXTURE_CODE + 0xff;
    assert_int_equal(RUN(f, 1, 0xe9, 0, 1, 0, 0), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.rip, FIXTURE_CODE);
}

/* Getting and setting the state does not lose a debug trap that MOV SS holds off. */
static void test_state_keeps_debug_trap(void **state)
{
    struct interp_fixture *f = *state;
    const uint8_t code[] = {0x8e, 0x16, 0x00, 0x80, 0x90, 0x90}; /* mov ss, [0x8000]; nop; nop */

    fixture_mode(f, 2);
    f->st.cr0 &= ~(uint64_t)X86_CR0_PE;
    f->st.dr[0] = 0x8000;
    f->st.dr7 |= 0x70001; /* two bytes at DR0, read or written */
    assert_int_equal(fixture_run(f, code, sizeof(code), 1), ENGINE_DEBUG);
    assert_int_equal(f->st.pending_debug, 1);
    assert_true(f->st.movss_shadow);
    assert_int_equal(fixture_run(f, code, sizeof(code), 5), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.dr6 & 15, 1);
    assert_int_equal(f->st.rip, FIXTURE_CODE + 5);
}

static void test_code_limit(void **state)
{
    struct interp_fixture *f = *state;

    /* the last byte of the second instruction lies beyond the limit */
    fixture_mode(f, 4);
    f->st.seg[X86_CS].limit = FIXTURE_CODE + 2;
    assert_int_equal(RUN(f, 5, 0xb0, 0x07, 0xb4, 0x08), ENGINE_SHUTDOWN);
    assert_int_equal(f->st.gpr[X86_RAX], 7);
    assert_int_equal(f->st.rip, FIXTURE_CODE + 2);
}

static void test_atomics(void **state)
{
    struct interp_fixture *f = *state;

    store_le64(f->ram.base + FIXTURE_DATA + 0xffd, 41); /* across pages: under the bus lock */
    f->st.gpr[X86_RBX] = FIXTURE_DATA + 0xffd;
    f->st.gpr[X86_RAX] = 41;
    f->st.gpr[X86_RCX] = 99;
    /* lock inc qword [rbx]; lock cmpxchg [rbx], rcx (unequal); lock cmpxchg [rbx], rcx; lock xadd [rbx], rcx */
    assert_int_equal(RUN(f, 4, 0xf0, 0x48, 0xff, 0x03, 0xf0, 0x48, 0x0f, 0xb1, 0x0b, 0xf0, 0x48, 0x0f, 0xb1, 0x0b, 0xf0,
                         0x48, 0x0f, 0xc1, 0x0b),
                     ENGINE_DEBUG);
    assert_int_equal(f->st.gpr[X86_RAX], 42);
    assert_int_equal(f->st.gpr[X86_RCX], 99);
    assert_int_equal(load_le64(f->ram.base + FIXTURE_DATA + 0xffd), 198);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, fixture_open, fixture_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_counts_exactly),
        CASE(test_fault_in_block),
        CASE(test_registers),
        CASE(test_own_code),
        CASE(test_page_crossing),
        CASE(test_code_written_by_device),
        CASE(test_strings),
        CASE(test_divide),
        CASE(test_stack),
        CASE(test_branches),
        CASE(test_push_sizes),
        CASE(test_bits_and_tables),
        CASE(test_code_limit),
        CASE(test_atomics),

        CASE(test_state_keeps_debug_trap),
    };
    return cmocka_run_group_tests_name("interp", tests, NULL, NULL);
}
