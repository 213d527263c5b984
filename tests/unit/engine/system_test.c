/* Far transfers, tasks, control registers, MSRs and I/O permission, as guest code meets them. */
#include "engine/interp/interp.h"

#include "guest.h"

GUEST_CODE(call_gate, 32, "pushl $0x11; pushl $0x22; lcall $0x53, $0");
GUEST_CODE(call_gate64, 64, "lcall *0x30000");
GUEST_CODE(jmp_conforming, 32, "ljmp $0x60, $0x10100");
GUEST_CODE(jmp_data, 32, "ljmp $0x10, $0x10100");
GUEST_CODE(retf_outer, 32, "pushl $0x23; pushl $0x20000; pushl $0x99; pushl $0x1b; pushl $0x10100; lretl $4");
GUEST_CODE(retf_inner, 32, "pushl $0x08; pushl $0x10100; lretl");
GUEST_CODE(jmp_tss, 32, "movl $0x1234, %ebx; ljmp $0x48, $0; hlt");
GUEST_CODE(call_tss, 32, "lcall $0x48, $0; movl $0x77, %edx; hlt");
GUEST_CODE(cr0_pg_without_pe, 32, "movl $0x80000000, %eax; movl %eax, %cr0");
GUEST_CODE(cr4_reserved, 32, "movl $1, %eax; movl %eax, %cr4");
GUEST_CODE(pae_changed, 32,
           "movl $0x40000, %eax; movl %eax, %cr3; movl $0x20, %eax; movl %eax, %cr4; movl $0x80000011, %eax; "
           "movl %eax, %cr0; movl $0, 0x40000; hlt; movl $7, 0x30000; hlt");
GUEST_CODE(cr4_no_pae, 64, "xorl %eax, %eax; movq %rax, %cr4");
GUEST_CODE(cr_absent, 32, ".byte 0x0f, 0x22, 0xc8");
GUEST_CODE(dr4, 32, "movl %db4, %eax; hlt");
GUEST_CODE(dr6_high, 64, "movabsq $0x100000000, %rax; movq %rax, %db6");
GUEST_CODE(dr_guarded, 32, "movl %db0, %eax");
GUEST_CODE(rdmsr_eax, 32, "rdmsr; hlt");
GUEST_CODE(wrmsr_eax, 32, "wrmsr; hlt");
GUEST_CODE(out_al, 32, "outb %al, $0x21; hlt");
GUEST_CODE(in_eax, 32, "inl $0x60, %eax; hlt");
GUEST_CODE(cli, 32, "cli; hlt");
GUEST_CODE(popf_user, 32, "pushl $0x3202; popfl; pushfl; popl %eax; ud2");
GUEST_CODE(sysret64, 64, "sysretq");
GUEST_CODE(sysexit32, 32, "sysexit");
GUEST_CODE(sysenter32, 32, "sysenter");
GUEST_CODE(smsw, 32, "smsw %eax; hlt");
GUEST_CODE(lar_lsl, 32, "movl $0x10, %ecx; lar %ecx, %eax; lsl %ecx, %ebx; hlt");
GUEST_CODE(verw_code, 32, "movl $0x08, %ecx; verw %cx; hlt");
GUEST_CODE(to_long, 32,
           "movl $0x20, %eax; movl %eax, %cr4; movl $0x40000, %eax; movl %eax, %cr3; movl $0xc0000080, %ecx; rdmsr; "
           "orl $0x100, %eax; wrmsr; movl %cr0, %eax; orl $0x80000001, %eax; movl %eax, %cr0; ljmp $0x28, $0x10100");
GUEST_CODE(real_to_protected, 16, "movl %cr0, %eax; orb $1, %al; movl %eax, %cr0; ljmpl $0x08, $0x10100");
GUEST_CODE(invlpg, 64,
           "movq 0x100000, %rax; movq $0x101007, 0x43800; movq 0x100000, %rbx; invlpg 0x100000; "
           "movq 0x100000, %rcx; hlt");
GUEST_CODE(push_sreg, 32, "movl $-1, -4(%esp); pushl %ds; popl %eax; hlt");
GUEST_CODE(rep_ins, 32, "movl $0x30000, %edi; movl $3, %ecx; movl $0x60, %edx; rep insl; hlt");
GUEST_CODE(rsm, 32, "rsm");
GUEST_CODE(monitor, 32, "monitor");
GUEST_CODE(vmcall32, 32, "or $-1, %eax; vmcall; hlt");
GUEST_CODE(vmmcall64, 64, "xor %eax, %eax; vmmcall; hlt");
GUEST_CODE(vmcall_user, 32, "vmcall; int3");
GUEST_CODE(misaligned, 32, "movl 0x30001, %eax");
GUEST_CODE(swapgs, 64, "swapgs; rdgsbase %rax; hlt");

static const uint8_t hlt = 0xf4, ud2[] = {0x0f, 0x0b};

static void start(struct guest *g, enum guest_mode mode, const uint8_t *code, const uint8_t *end)
{
    guest_open(g, mode);
    guest_copy(g, GUEST_CODE_AT, code, (size_t)(end - code));
    guest_copy(g, GUEST_CODE_AT + 0x100, &hlt, 1);
}
#define start(g, mode, name) start(g, mode, name##_start, name##_end)

static void put64(struct guest *g, uint64_t gpa, uint64_t v)
{
    store_le64(guest_at(g, gpa), v);
}

static void call_gate_copies_parameters(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, call_gate);
    guest_user(&g);
    put64(&g, GUEST_GDT_AT + SEL_GATE, UINT64_C(0x0001ec0200080100)); /* 0x08:0x10100, DPL 3, 2 parameters */
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.rip, GUEST_CODE_AT + 0x101);
    assert_int_equal(g.st.seg[X86_CS].sel, SEL_CODE32);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_STACK0 - 24);
    assert_int_equal(guest_frame(&g, 0), GUEST_CODE_AT + 11);
    assert_int_equal(guest_frame(&g, 1), SEL_USER_CODE32);
    assert_int_equal(guest_frame(&g, 2), 0x22);
    assert_int_equal(guest_frame(&g, 3), 0x11);
    assert_int_equal(guest_frame(&g, 4), GUEST_STACK - 8);
    assert_int_equal(guest_frame(&g, 5), SEL_USER_DATA);
    guest_close(&g);
}

static void call_gate_to_64_bit_code(void **state)
{
    struct guest g;
    start(&g, GUEST_LONG, call_gate64);
    guest_user(&g);
    put64(&g, GUEST_GDT_AT + SEL_GATE, UINT64_C(0x0001ec0000280100));
    put64(&g, 0x30000, (uint64_t)(SEL_GATE | 3) << 32);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.rip, GUEST_CODE_AT + 0x101);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_STACK0 - 32);
    assert_int_equal(guest_frame(&g, 1), SEL_USER_CODE64);
    assert_int_equal(g.st.seg[X86_SS].sel, 0);
    guest_close(&g);
}

static void far_jump_keeps_level_in_conforming_code(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, jmp_conforming);
    guest_user(&g);
    guest_copy(&g, GUEST_CODE_AT + 0x100, ud2, sizeof(ud2));
    guest_expect(&g, X86_UD);
    assert_int_equal(guest_frame(&g, 2), SEL_CONFORMING | 3);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, jmp_data);
    guest_expect_error(&g, X86_GP, SEL_DATA);
    guest_close(&g);
}

static void far_return_to_outer_level(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, retf_outer);
    guest_copy(&g, GUEST_CODE_AT + 0x100, ud2, sizeof(ud2));
    guest_expect(&g, X86_UD);
    assert_int_equal(guest_frame(&g, 2), SEL_USER_CODE32);
    assert_int_equal(guest_frame(&g, 4), GUEST_STACK + 4);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, retf_inner);
    guest_user(&g);
    guest_expect_error(&g, X86_GP, SEL_CODE32);
    guest_close(&g);
}

static void fill_tss2(struct guest *g)
{
    uint8_t *tss = guest_at(g, GUEST_TSS2_AT);
    store_le32(tss + 32, GUEST_CODE_AT + 0x100);
    store_le32(tss + 36, 2);
    store_le32(tss + 56, GUEST_STACK - 0x1000);
    for (unsigned i = 0; i < 6; i++)
        store_le16(tss + 72 + 4 * i, i == 1 ? SEL_CODE32 : SEL_DATA);
}

static void jump_to_task(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, jmp_tss);
    fill_tss2(&g);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.rip, GUEST_CODE_AT + 0x101);
    assert_int_equal(g.st.tr.sel, SEL_TSS2);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_STACK - 0x1000);
    assert_int_equal(g.st.gpr[X86_RBX], 0);
    assert_true(g.st.cr0 & X86_CR0_TS);
    assert_int_equal(load_le32(guest_at(&g, GUEST_TSS_AT + 40 + 12)), 0x1234);
    assert_int_equal(load_le32(guest_at(&g, GUEST_TSS_AT + 32)), GUEST_CODE_AT + 12);
    assert_int_equal(guest_at(&g, GUEST_GDT_AT + SEL_TSS)[5], 0x89);
    assert_int_equal(guest_at(&g, GUEST_GDT_AT + SEL_TSS2)[5], 0x8b);
    guest_close(&g);
}

static void call_task_and_return(void **state)
{
    static const uint8_t iret = 0xcf;
    struct guest g;
    start(&g, GUEST_PROTECTED, call_tss);
    fill_tss2(&g);
    guest_copy(&g, GUEST_CODE_AT + 0x100, &iret, 1);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RDX], 0x77);
    assert_int_equal(g.st.tr.sel, SEL_TSS);
    assert_int_equal(g.st.rflags & X86_FLAG_NT, 0);
    assert_int_equal(guest_at(&g, GUEST_GDT_AT + SEL_TSS2)[5], 0x89);
    assert_int_equal(load_le16(guest_at(&g, GUEST_TSS2_AT)), SEL_TSS);
    guest_close(&g);
}

static void task_fault_is_in_the_new_task(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, jmp_tss);
    fill_tss2(&g);
    store_le16(guest_at(&g, GUEST_TSS2_AT + 84), SEL_ABSENT);
    guest_expect_error(&g, X86_NP, SEL_ABSENT);
    assert_int_equal(g.st.tr.sel, SEL_TSS2);
    assert_int_equal(guest_frame(&g, 2), GUEST_CODE_AT + 0x100);
    guest_close(&g);
}

static void control_register_rules(void **state)
{
    struct guest g;
    start(&g, GUEST_REAL, cr0_pg_without_pe);
    g.st.seg[X86_CS].attr |= X86_SEG_DB; /* 32-bit code */
    guest_expect(&g, X86_GP);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, cr4_reserved);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
    start(&g, GUEST_LONG, cr4_no_pae);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, cr_absent);
    guest_expect(&g, X86_UD);
    guest_close(&g);
}

static void debug_register_rules(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, dr4);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], 0xffff0ff0);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, dr4);
    g.st.cr4 |= X86_CR4_DE;
    guest_expect(&g, X86_UD);
    guest_close(&g);
    start(&g, GUEST_LONG, dr6_high);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, dr_guarded);
    g.st.dr7 |= 0x2000;
    guest_expect(&g, X86_DB);
    assert_int_equal(g.st.dr6, 0xffff2ff0);
    assert_int_equal(g.st.dr7 & 0x2000, 0);
    guest_close(&g);
}

static void msr_rules(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, rdmsr_eax);
    g.st.gpr[X86_RCX] = 0x12345;
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, wrmsr_eax);
    g.st.gpr[X86_RCX] = 0xc0000082;
    g.st.gpr[X86_RDX] = 0x8000; /* not canonical */
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, rdmsr_eax);
    guest_user(&g);
    g.st.gpr[X86_RCX] = 0xc0000080;
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);
}

static void io_permission(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, out_al);
    guest_user(&g);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, out_al);
    guest_user(&g);
    guest_at(&g, GUEST_TSS_AT + 104 + 4)[0] = 0xfd; /* port 0x21 alone */
    guest_expect_error(&g, X86_GP, 0);              /* of HLT */
    assert_int_equal(guest_frame(&g, 2), GUEST_CODE_AT + 2);
    assert_int_equal(g.stats.exits[ENGINE_EXIT_PIO_OUT], 1);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, in_eax);
    guest_user(&g);
    guest_at(&g, GUEST_TSS_AT + 104 + 12)[0] = 0xf8; /* 0x60 to 0x62, but not 0x63 */
    guest_expect_error(&g, X86_GP, 0);
    assert_int_equal(guest_frame(&g, 2), GUEST_CODE_AT);
    guest_close(&g);
}

static void absent_port_reads_ones(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, rep_ins);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RCX], 0);
    assert_int_equal(g.st.gpr[X86_RDI], 0x3000c);
    assert_int_equal(load_le32(guest_at(&g, 0x30008)), 0xffffffff);
    assert_int_equal(load_le32(guest_at(&g, 0x3000c)), 0);
    guest_close(&g);
}

static void interrupt_flag_is_iopls(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, cli);
    guest_user(&g);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, popf_user);
    guest_user(&g);
    guest_expect(&g, X86_UD);
    assert_int_equal(g.st.gpr[X86_RAX], 2); /* neither IF nor IOPL changed, nor faulted */
    guest_close(&g);
}

static void fast_system_calls(void **state)
{
    struct guest g;
    start(&g, GUEST_LONG, sysret64);
    g.st.gpr[X86_RCX] = UINT64_C(0x800000000000);
    guest_expect_error(&g, X86_GP, 0);
    assert_int_equal(x86_cpl(&g.st), 0);
    guest_close(&g);

    start(&g, GUEST_LONG, sysret64);
    guest_copy(&g, GUEST_CODE_AT + 0x100, ud2, sizeof(ud2));
    g.st.gpr[X86_RCX] = GUEST_CODE_AT + 0x100;
    g.st.gpr[X86_R11] = 0x3f7fff & ~(uint64_t)X86_FLAG_TF;
    g.st.star = UINT64_C(0x0018) << 48;
    guest_expect(&g, X86_UD);
    assert_int_equal(guest_frame(&g, 2), 0x2b);
    assert_int_equal(guest_frame(&g, 3) & X86_FLAG_VM, 0);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, sysenter32);
    guest_user(&g);
    g.st.sysenter_cs = SEL_CODE32;
    g.st.sysenter_eip = GUEST_CODE_AT + 0x100;
    g.st.sysenter_esp = GUEST_STACK0;
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RSP], GUEST_STACK0);
    assert_int_equal(x86_cpl(&g.st), 0);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, sysenter32);
    guest_expect_error(&g, X86_GP, 0);
    guest_close(&g);

    start(&g, GUEST_PROTECTED, sysexit32);
    guest_copy(&g, GUEST_CODE_AT + 0x100, ud2, sizeof(ud2));
    g.st.sysenter_cs = SEL_CODE32;
    g.st.gpr[X86_RDX] = GUEST_CODE_AT + 0x100;
    g.st.gpr[X86_RCX] = GUEST_STACK;
    guest_expect(&g, X86_UD);
    assert_int_equal(guest_frame(&g, 2), SEL_USER_CODE32);
    guest_close(&g);
}

static void user_mode_instruction_prevention(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, smsw);
    guest_user(&g);
    g.st.cr4 |= X86_CR4_UMIP;
    guest_expect_error(&g, X86_GP, 0);
    assert_int_equal(guest_frame(&g, 2), GUEST_CODE_AT);
    guest_close(&g);
}

static void descriptor_queries(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, lar_lsl);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], 0x00c09300);
    assert_int_equal(g.st.gpr[X86_RBX], 0xffffffff);
    assert_true(g.st.rflags & X86_FLAG_ZF);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, verw_code);
    g.st.rflags |= X86_FLAG_ZF;
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_false(g.st.rflags & X86_FLAG_ZF);
    guest_close(&g);
}

static void mode_switches(void **state)
{
    struct guest g, tables;

    guest_open(&tables, GUEST_LONG);
    start(&g, GUEST_PROTECTED, to_long);
    guest_copy(&g, GUEST_PAGES_AT, guest_at(&tables, GUEST_PAGES_AT), 0x4000);
    guest_close(&tables);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.rip, GUEST_CODE_AT + 0x101);
    assert_true(x86_code64(&g.st));
    guest_close(&g);

    start(&g, GUEST_REAL, real_to_protected);
    put64(&g, GUEST_GDT_AT + SEL_CODE32, UINT64_C(0x00cf9b000000ffff));
    g.st.gdtr = (struct x86_table){GUEST_GDT_AT, GUEST_GDT_LIMIT};
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.rip, GUEST_CODE_AT + 0x101);
    guest_close(&g);
}

static void invlpg_forgets_the_page(void **state)
{
    struct guest g;
    start(&g, GUEST_LONG, invlpg);
    put64(&g, 0x100000, 0x1111);
    put64(&g, 0x101000, 0x2222);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], 0x1111);
    assert_int_equal(g.st.gpr[X86_RCX], 0x2222);
    guest_close(&g);
}

static void push_of_a_selector_writes_16_bits(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, push_sreg);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], 0xffff0000 | SEL_DATA);
    guest_close(&g);
}

static void not_offered(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, rsm);
    guest_expect(&g, X86_UD);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, monitor);
    guest_expect(&g, X86_UD);
    guest_close(&g);
}

/* KVM's answer to a call it does not know, -KVM_ENOSYS; and to user code, -EPERM. */
static void hypercalls_are_answered(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, vmcall32);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], (uint32_t)-1000);
    guest_close(&g);
    start(&g, GUEST_LONG, vmmcall64);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], (uint64_t)-1000);
    guest_close(&g);
    start(&g, GUEST_PROTECTED, vmcall_user);
    guest_user(&g);
    guest_expect(&g, X86_BP);
    assert_int_equal(g.st.gpr[X86_RAX], (uint32_t)-1);
    guest_close(&g);
}

static void alignment_check(void **state)
{
    struct guest g;
    start(&g, GUEST_PROTECTED, misaligned);
    guest_user(&g);
    g.st.cr0 |= X86_CR0_AM;
    g.st.rflags |= X86_FLAG_AC;
    guest_expect_error(&g, X86_AC, 0);
    guest_close(&g);
}

static void swapgs_exchanges_bases(void **state)
{
    struct guest g;
    start(&g, GUEST_LONG, swapgs);
    g.st.cr4 |= X86_CR4_FSGSBASE;
    g.st.kernel_gs_base = 0xffff888000000000;
    g.st.seg[X86_GS].base = 0x1234;
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RAX], 0xffff888000000000);
    assert_int_equal(g.st.kernel_gs_base, 0x1234);
    guest_close(&g);
}

/* PAE's PDPTEs are registers: memory that has changed since does not count, even over a get and a set of the state. */
static void pdptes_are_state(void **state)
{
    struct guest g;
    guest_open(&g, GUEST_PROTECTED);
    store_le64(guest_at(&g, 0x40000), 0x41001);
    store_le64(guest_at(&g, 0x41000), 0x83);
    guest_load(&g, pae_changed);
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(load_le64(guest_at(&g, 0x40000)), 0);
    assert_int_equal(g.st.pdpte[0], 0x41001);
    g.st.activity = X86_RUNNING;
    assert_int_equal(guest_run(&g), ENGINE_HALT);
    assert_int_equal(load_le32(guest_at(&g, 0x30000)), 7);
    guest_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pdptes_are_state),
        cmocka_unit_test(call_gate_copies_parameters),
        cmocka_unit_test(call_gate_to_64_bit_code),
        cmocka_unit_test(far_jump_keeps_level_in_conforming_code),
        cmocka_unit_test(far_return_to_outer_level),
        cmocka_unit_test(jump_to_task),
        cmocka_unit_test(call_task_and_return),
        cmocka_unit_test(task_fault_is_in_the_new_task),
        cmocka_unit_test(control_register_rules),
        cmocka_unit_test(debug_register_rules),
        cmocka_unit_test(msr_rules),
        cmocka_unit_test(io_permission),
        cmocka_unit_test(absent_port_reads_ones),
        cmocka_unit_test(interrupt_flag_is_iopls),
        cmocka_unit_test(fast_system_calls),
        cmocka_unit_test(user_mode_instruction_prevention),
        cmocka_unit_test(descriptor_queries),
        cmocka_unit_test(mode_switches),
        cmocka_unit_test(invlpg_forgets_the_page),
        cmocka_unit_test(push_of_a_selector_writes_16_bits),
        cmocka_unit_test(not_offered),
        cmocka_unit_test(hypercalls_are_answered),
        cmocka_unit_test(alignment_check),
        cmocka_unit_test(swapgs_exchanges_bases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
