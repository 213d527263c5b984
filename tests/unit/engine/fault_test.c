/* Delivery of exceptions and interrupts in every mode, double faults, and the debug exceptions. */
#include "engine/interp/fault.h"

#include "guest.h"

GUEST_CODE(real_int, 16, "int $0x21; hlt");
GUEST_CODE(ud2, 32, "ud2");
GUEST_CODE(int80, 32, "int $0x80");
GUEST_CODE(load_absent, 32, "movw $0x68, %ax; movw %ax, %ds");
GUEST_CODE(load_beyond, 32, "movw $0x100, %ax; movw %ax, %es");
GUEST_CODE(load_null_ss, 32, "xorl %eax, %eax; movw %ax, %ss");
GUEST_CODE(step, 32, "pushl $0x102; popfl; nop; nop; nop");
GUEST_CODE(hardware_bp, 32, "nop; nop; nop; hlt");
GUEST_CODE(data_bp, 32, "movl $1, 0x30000; nop; nop");
GUEST_CODE(mov_ss_step, 32, "pushl $0x102; movw %ss, %ax; popfl; movw %ax, %ss; nop; nop");
GUEST_CODE(iret_user, 32, "pushl $0x23; pushl $0x20000; pushl $2; pushl $0x1b; pushl $0x10100; iretl");
GUEST_CODE(iret_v86, 32,
           "pushl $5; pushl $4; pushl $3; pushl $0x6; pushl $0x1000; pushl $0x7000; pushl $0x20002; pushl $0x1000; "
           "pushl $0x100; iretl");
GUEST_CODE(page_write, 32, "movl %eax, 0x3ff000");
GUEST_CODE(page_write64, 64, "movq %rax, 0x100000");
GUEST_CODE(ud64, 64, "ud2");
GUEST_CODE(noncanonical, 64, "movabsq $0x800000000000, %rbx; movq (%rbx), %rax");
GUEST_CODE(noncanonical_push, 64, "movabsq $0x800000000100, %rsp; pushq %rax");
GUEST_CODE(syscall_user, 64, "movl $0x1234, %edi; syscall");

static void real_mode_interrupt(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_REAL);
    g.st.rflags |= X86_FLAG_IF;
    guest_load(&g, real_int);
    guest_expect(&g, 0x21);
    assert_int_equal(guest_frame(&g, 1), 2);
    assert_int_equal(guest_frame(&g, 2), GUEST_CODE_AT >> 4);
    assert_int_equal(guest_frame(&g, 3), 0x202);
    assert_int_equal(g.st.rflags & X86_FLAG_IF, 0);
    guest_close(&g);
}

/* A state from an engine that had acknowledged an interrupt and not delivered it. */
static void taken_interrupt_is_delivered(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, ud2);
    g.st.taken = X86_TAKEN | 0x40;
    guest_expect(&g, 0x40);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT);
    assert_int_equal(g.st.taken, 0);
    guest_close(&g);
}

static void real_mode_short_ivt_shuts_down(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_REAL);
    g.st.idtr.limit = 0x1f; /* neither 0x21 nor #DF nor #GP */
    guest_load(&g, real_int);
    assert_int_equal(guest_run(&g), ENGINE_SHUTDOWN);
    guest_close(&g);
}

static void fault_pushes_rf(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, ud2);
    guest_expect(&g, X86_UD);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT);
    assert_int_equal(guest_frame(&g, 2), SEL_CODE32);
    assert_int_equal(guest_frame(&g, 3), X86_FLAG_RF | 2);
    guest_close(&g);
}

static void user_interrupt_switches_stack(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_user(&g);
    guest_load(&g, int80);
    guest_expect(&g, 0x80);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_STACK0 - 24);
    assert_int_equal(x86_cpl(&g.st), 0);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 2);
    assert_int_equal(guest_frame(&g, 2), SEL_USER_CODE32);
    assert_int_equal(guest_frame(&g, 4), GUEST_STACK);
    assert_int_equal(guest_frame(&g, 5), SEL_USER_DATA);
    guest_close(&g);
}

static void gate_privilege_counts_for_software_only(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_user(&g);
    guest_at(&g, GUEST_IDT_AT + 8 * 0x80)[5] = 0x8e;
    guest_load(&g, int80);
    guest_expect_error(&g, X86_GP, 0x80 * 8 + 2);
    guest_close(&g);

    guest_open(&g, GUEST_PROTECTED);
    guest_user(&g);
    guest_at(&g, GUEST_IDT_AT + 8 * X86_UD)[5] = 0x8e;
    guest_load(&g, ud2);
    guest_expect(&g, X86_UD);
    guest_close(&g);
}

static void exception_in_delivery_has_ext(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_at(&g, GUEST_IDT_AT + 8 * X86_UD)[5] = 0x0e; /* not present */
    guest_load(&g, ud2);
    guest_expect_error(&g, X86_NP, X86_UD * 8 + 3);
    guest_close(&g);
}

static void contributory_pair_is_double(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_at(&g, GUEST_IDT_AT + 8 * X86_NP)[5] = 0x0e;
    guest_load(&g, load_absent);
    guest_expect_error(&g, X86_DF, 0);
    assert_int_equal(guest_frame(&g, 2), GUEST_CODE_AT + 4);
    guest_close(&g);
}

static void double_fault_that_faults_shuts_down(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_at(&g, GUEST_IDT_AT + 8 * X86_NP)[5] = 0x0e;
    guest_at(&g, GUEST_IDT_AT + 8 * X86_DF)[5] = 0x0e;
    guest_load(&g, load_absent);
    assert_int_equal(guest_run(&g), ENGINE_SHUTDOWN);
    guest_close(&g);
}

static void segment_load_errors(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, load_absent);
    guest_expect_error(&g, X86_NP, SEL_ABSENT);
    guest_close(&g);
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, load_beyond);
    guest_expect_error(&g, X86_GP, 0x100);
    guest_close(&g);
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, load_null_ss);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
}

static void page_fault_codes(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_LONG);
    store_le64(guest_at(&g, GUEST_PAGES_AT + 0x3000 + 8 * 0x100), 0);
    guest_load(&g, page_write64);
    guest_expect_error(&g, X86_PF, X86_PF_W);
    assert_int_equal(g.st.cr2, 0x100000);
    guest_close(&g);

    guest_open(&g, GUEST_LONG);
    store_le64(guest_at(&g, GUEST_PAGES_AT + 0x3000 + 8 * 0x100), 0x100005);
    guest_load(&g, page_write64);
    guest_expect_error(&g, X86_PF, X86_PF_W | X86_PF_P);
    guest_close(&g);

    guest_open(&g, GUEST_LONG);
    guest_user(&g);
    store_le64(guest_at(&g, GUEST_PAGES_AT + 0x3000 + 8 * 0x100), 0x100003);
    guest_load(&g, page_write64);
    guest_expect_error(&g, X86_PF, X86_PF_W | X86_PF_P | X86_PF_U);
    guest_close(&g);
}

static void long_mode_frame(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_LONG);
    g.st.gpr[X86_RSP] = GUEST_STACK - 4; /* the frame is aligned to 16 bytes */
    guest_load(&g, ud64);
    guest_expect(&g, X86_UD);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_STACK - 16 - 48);
    assert_int_equal(guest_frame(&g, 4), GUEST_STACK - 4);
    assert_int_equal(guest_frame(&g, 5), SEL_DATA);
    guest_close(&g);

    guest_open(&g, GUEST_LONG);
    guest_at(&g, GUEST_IDT_AT + 16 * X86_UD)[4] = 1; /* IST1 */
    guest_load(&g, ud64);
    guest_expect(&g, X86_UD);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_IST1 - 48);
    guest_close(&g);
}

static void noncanonical_addresses(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_LONG);
    guest_load(&g, noncanonical);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);

    guest_open(&g, GUEST_LONG);
    guest_user(&g);
    guest_load(&g, noncanonical_push);
    guest_expect_error(&g, X86_SSF, 0);
    guest_close(&g);
}

static void single_step(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, step);
    guest_expect(&g, X86_DB);
    /* POPF itself does not trap; the first NOP does. */
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 7);
    assert_int_equal(g.st.dr6, 0xffff4ff0);
    assert_int_equal(guest_frame(&g, 3) & (X86_FLAG_TF | X86_FLAG_RF), X86_FLAG_TF);
    guest_close(&g);
}

static void int_does_not_trap(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    g.st.rflags |= X86_FLAG_TF;
    guest_load(&g, int80);
    guest_expect(&g, 0x80);
    assert_int_equal(guest_frame(&g, 3) & X86_FLAG_TF, X86_FLAG_TF);
    guest_close(&g);
}

static void mov_ss_holds_traps_off(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, mov_ss_step);
    guest_expect(&g, X86_DB);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 12);
    guest_close(&g);
}

static void sti_holds_nmi_off(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, hardware_bp);
    g.st.rflags |= X86_FLAG_IF;
    g.st.sti_shadow = true;
    atomic_store(&g.port.pending, PIN_NMI);
    guest_expect(&g, X86_NMI);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 1);
    guest_close(&g);
}

static void code_breakpoint_faults_once(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    g.st.dr[0] = GUEST_CODE_AT + 1;
    g.st.dr7 = 0x402;
    guest_load(&g, hardware_bp);
    guest_expect(&g, X86_DB);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 1);
    assert_int_equal(g.st.dr6 & 0xf, 1);
    guest_close(&g);

    /* With RF set it is passed over, and RF goes. */
    guest_open(&g, GUEST_PROTECTED);
    g.st.dr[0] = GUEST_CODE_AT;
    g.st.dr7 = 0x402;
    g.st.rflags |= X86_FLAG_RF;
    guest_load(&g, hardware_bp);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.rip, GUEST_CODE_AT + 4);
    assert_int_equal(g.st.rflags & X86_FLAG_RF, 0);
    guest_close(&g);
}

static void data_breakpoint_traps_after(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    g.st.dr[1] = 0x30000;
    g.st.dr7 = 0x408 | 0xd << 20; /* G1, write, 4 bytes */
    guest_load(&g, data_bp);
    guest_expect(&g, X86_DB);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 10);
    assert_int_equal(g.st.dr6 & 0xf, 2);
    assert_int_equal(load_le32(guest_at(&g, 0x30000)), 1);
    guest_close(&g);
}

static void iret_to_user(void **state)
{
    static const uint8_t code[] = {0x0f, 0x0b};
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, iret_user);
    guest_copy(&g, GUEST_CODE_AT + 0x100, code, sizeof(code));
    guest_expect(&g, X86_UD);
    assert_int_equal(guest_frame(&g, 1), GUEST_CODE_AT + 0x100);
    assert_int_equal(guest_frame(&g, 2), SEL_USER_CODE32);
    assert_int_equal(guest_frame(&g, 4), GUEST_STACK);
    assert_int_equal(g.st.seg[X86_DS].sel, 0); /* a level 0 segment does not go out */
    guest_close(&g);
}

static void v86_round_trip(void **state)
{
    static const uint8_t code[] = {0xcd, 0x21}; /* int 0x21, IOPL 0 */
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    guest_load(&g, iret_v86);
    guest_copy(&g, GUEST_CODE_AT + 0x100, code, sizeof(code));
    guest_expect_error(&g, X86_GP, 0);
    assert_int_equal(guest_frame(&g, 2), 0x100);
    assert_int_equal(guest_frame(&g, 3), 0x1000);
    assert_int_equal(guest_frame(&g, 4) & X86_FLAG_VM, X86_FLAG_VM);
    assert_int_equal(guest_frame(&g, 5), 0x7000);
    assert_int_equal(guest_frame(&g, 6), 0x1000);
    assert_int_equal(guest_frame(&g, 7), 6);
    assert_int_equal(guest_frame(&g, 8), 3);
    assert_int_equal(guest_frame(&g, 9), 4);
    assert_int_equal(guest_frame(&g, 10), 5);
    assert_int_equal(g.st.rflags & X86_FLAG_VM, 0);
    assert_int_equal(g.st.seg[X86_GS].sel, 0);
    guest_close(&g);
}

static void syscall_enters_kernel(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_LONG);
    guest_user(&g);
    g.st.rflags |= X86_FLAG_IF;
    g.st.star = (uint64_t)SEL_CODE32 << 32;
    g.st.lstar = GUEST_STUBS_AT + 16 * 0x90;
    g.st.sfmask = X86_FLAG_IF;
    guest_load(&g, syscall_user);
    guest_expect(&g, 0x90);
    assert_int_equal(g.st.gpr[X86_RCX], GUEST_CODE_AT + 7);
    assert_int_equal(g.st.gpr[X86_R11], 0x202);
    assert_int_equal(g.st.rflags & X86_FLAG_IF, 0);
    assert_int_equal(x86_cpl(&g.st), 0);
    assert_int_equal(g.st.gpr[X86_RDI], 0x1234);
    guest_close(&g);
}

static void expand_down_stack_limit(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    g.st.seg[X86_DS].limit = 0x3fefff;
    guest_load(&g, page_write);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);

    guest_open(&g, GUEST_PROTECTED);
    guest_paging32(&g);
    g.st.seg[X86_DS].attr |= X86_SEG_DC;
    g.st.seg[X86_DS].limit = 0x3fefff; /* now what lies above is inside */
    guest_load(&g, page_write);
    memcpy(guest_at(&g, GUEST_CODE_AT + 5), "\xf4", 1);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    guest_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_mode_interrupt),
        cmocka_unit_test(taken_interrupt_is_delivered),
        cmocka_unit_test(real_mode_short_ivt_shuts_down),
        cmocka_unit_test(fault_pushes_rf),
        cmocka_unit_test(user_interrupt_switches_stack),
        cmocka_unit_test(gate_privilege_counts_for_software_only),
        cmocka_unit_test(exception_in_delivery_has_ext),
        cmocka_unit_test(contributory_pair_is_double),
        cmocka_unit_test(double_fault_that_faults_shuts_down),
        cmocka_unit_test(segment_load_errors),
        cmocka_unit_test(page_fault_codes),
        cmocka_unit_test(long_mode_frame),
        cmocka_unit_test(noncanonical_addresses),
        cmocka_unit_test(single_step),
        cmocka_unit_test(int_does_not_trap),
        cmocka_unit_test(mov_ss_holds_traps_off),
        cmocka_unit_test(sti_holds_nmi_off),
        cmocka_unit_test(code_breakpoint_faults_once),
        cmocka_unit_test(data_breakpoint_traps_after),
        cmocka_unit_test(iret_to_user),
        cmocka_unit_test(v86_round_trip),
        cmocka_unit_test(syscall_enters_kernel),
        cmocka_unit_test(expand_down_stack_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
