/* What a debugger asks of an engine: steps, breakpoints, watchpoints, and that the guest notices nothing of them. */
#include "engine/interp/debugger.h"

#include "guest.h"

GUEST_CODE(nops, 32, "nop; nop; nop; nop; hlt");
GUEST_CODE(stores, 32, "movl $1, 0x30000; movl 0x30004, %eax; addl $1, 0x30008; movb $1, 0x3000c; hlt");
GUEST_CODE(copies, 32, "movl $0x30000, %esi; movl $0x31000, %edi; movl $3, %ecx; rep movsb; hlt");
GUEST_CODE(int3, 32, "nop; int3");
GUEST_CODE(undefined, 32, "ud2");
GUEST_CODE(halts, 32, "hlt; nop; nop");
GUEST_CODE(page_read, 64, "movq 0x5000, %rax; movq (%rax), %rbx; nop; hlt");
GUEST_CODE(copy, 64, "nop; movsb; nop; hlt");
GUEST_CODE(iret_back, 64, "addq $8, %rsp; iretq");

struct debugged {
    struct guest g;
    struct engine_debug debug;
    struct engine_breakpoint breakpoints[4];
};

static void load(struct debugged *d, enum guest_mode mode, const uint8_t *start, const uint8_t *end)
{
    memset(d, 0, sizeof(*d));
    guest_open(&d->g, mode);
    guest_copy(&d->g, GUEST_CODE_AT, start, (size_t)(end - start));
}

static void want(struct debugged *d, bool step, unsigned n)
{
    d->debug = (struct engine_debug){
        .step = step, .breakpoints = d->breakpoints, .n_breakpoints = n, .hit = (void *)d /* to be overwritten */};
    interp_engine.debug(d->g.vcpu, &d->debug);
}

static void expect_stop(struct debugged *d, uint64_t rip, const struct engine_breakpoint *hit)
{
    assert_int_equal(guest_run(&d->g), ENGINE_DEBUG);
    assert_int_equal(d->g.st.rip, rip);
    assert_ptr_equal(d->debug.hit, hit);
}

static void step_is_one_instruction(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, nops_start, nops_end);
    want(&d, true, 0);
    expect_stop(&d, GUEST_CODE_AT + 1, NULL);
    expect_stop(&d, GUEST_CODE_AT + 2, NULL);
    assert_int_equal(d.g.stats.instructions, 2);
    assert_int_equal(d.g.st.dr6, 0xffff0ff0);
    want(&d, false, 0);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    guest_close(&d.g);
}

static void breakpoint_stops_before_its_instruction(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, nops_start, nops_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 2, .kinds = ENGINE_BREAK_EXEC};
    d.breakpoints[1] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 3, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 2);
    expect_stop(&d, GUEST_CODE_AT + 2, &d.breakpoints[0]);
    expect_stop(&d, GUEST_CODE_AT + 2, &d.breakpoints[0]); /* until it is stepped over or taken away */
    want(&d, true, 2);
    expect_stop(&d, GUEST_CODE_AT + 3, NULL);
    want(&d, false, 2);
    expect_stop(&d, GUEST_CODE_AT + 3, &d.breakpoints[1]);
    interp_engine.debug(d.g.vcpu, NULL);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    guest_close(&d.g);
}

/* Linear, not an offset in the segment. */
static void breakpoint_is_linear(void **state)
{
    struct debugged d;
    load(&d, GUEST_REAL, nops_start, nops_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 2, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 1);
    expect_stop(&d, 2, &d.breakpoints[0]);
    guest_close(&d.g);
}

static void watch(struct debugged *d, uint64_t addr, uint64_t len, unsigned kinds)
{
    d->breakpoints[0] = (struct engine_breakpoint){.addr = addr, .len = len, .kinds = kinds};
    want(d, false, 1);
}

static void watchpoint_stops_behind_its_access(void **state)
{
    struct debugged d;
    const uint64_t first = GUEST_CODE_AT + 10, second = first + 5, third = second + 7, fourth = third + 7;

    load(&d, GUEST_PROTECTED, stores_start, stores_end);
    watch(&d, 0x30003, 1, ENGINE_BREAK_WRITE);
    expect_stop(&d, first, &d.breakpoints[0]);
    assert_int_equal(load_le32(guest_at(&d.g, 0x30000)), 1);
    watch(&d, 0x30004, 4, ENGINE_BREAK_READ);
    expect_stop(&d, second, &d.breakpoints[0]);
    watch(&d, 0x30008, 1, ENGINE_BREAK_READ | ENGINE_BREAK_WRITE);
    expect_stop(&d, third, &d.breakpoints[0]);
    watch(&d, 0x2fff0, 0x100, ENGINE_BREAK_WRITE);
    expect_stop(&d, fourth, &d.breakpoints[0]);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    guest_close(&d.g);
}

static void watchpoint_takes_its_kind_and_bytes_only(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, stores_start, stores_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = 0x30000, .len = 4, .kinds = ENGINE_BREAK_READ};
    d.breakpoints[1] = (struct engine_breakpoint){.addr = 0x30004, .len = 4, .kinds = ENGINE_BREAK_WRITE};
    d.breakpoints[2] = (struct engine_breakpoint){.addr = 0x3000d, .len = 8, .kinds = ENGINE_BREAK_WRITE};
    d.breakpoints[3] = (struct engine_breakpoint){.addr = 0x2fff8, .len = 8, .kinds = ENGINE_BREAK_WRITE};
    want(&d, false, 4);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    guest_close(&d.g);
}

/* A page that the TLB holds when it comes to be watched is looked at all the same. */
static void watchpoint_on_a_page_in_use(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, stores_start, stores_end);
    interp_engine.set(d.g.vcpu, &d.g.st);
    assert_int_equal(interp_engine.run(d.g.vcpu, 2), ENGINE_DEBUG);
    watch(&d, 0x3000c, 1, ENGINE_BREAK_WRITE);
    assert_int_equal(interp_engine.run(d.g.vcpu, 1000), ENGINE_DEBUG);
    assert_ptr_equal(d.debug.hit, &d.breakpoints[0]);
    guest_close(&d.g);
}

static void repeated_instruction_steps_by_iterations(void **state)
{
    struct debugged d;
    const uint64_t at = GUEST_CODE_AT + 15;

    load(&d, GUEST_PROTECTED, copies_start, copies_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = at, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 1);
    expect_stop(&d, at, &d.breakpoints[0]);
    assert_int_equal(d.g.st.gpr[X86_RCX], 3);
    want(&d, true, 1);
    expect_stop(&d, at, NULL);
    assert_int_equal(d.g.st.gpr[X86_RCX], 2);
    want(&d, false, 1); /* the breakpoint is not met again between iterations */
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    guest_close(&d.g);
}

static void step_over_an_exception_ends_in_its_handler(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, undefined_start, undefined_end);
    want(&d, true, 0);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_UD, NULL);
    assert_int_equal(guest_frame(&d.g, 0), GUEST_CODE_AT);
    guest_close(&d.g);
}

static void guests_own_breakpoints_work_beside(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, int3_start, int3_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 1, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 1);
    expect_stop(&d, GUEST_CODE_AT + 1, &d.breakpoints[0]);
    want(&d, false, 0);
    guest_expect(&d.g, X86_BP);
    guest_close(&d.g);

    load(&d, GUEST_PROTECTED, nops_start, nops_end);
    d.g.st.dr[1] = GUEST_CODE_AT + 2;
    d.g.st.dr7 = 0x400 | 1 << 2;
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 2, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 1);
    expect_stop(&d, GUEST_CODE_AT + 2, &d.breakpoints[0]); /* the debugger comes first */
    assert_int_equal(d.g.st.dr6, 0xffff0ff0);
    interp_engine.debug(d.g.vcpu, NULL);
    guest_expect(&d.g, X86_DB);
    assert_int_equal(d.g.st.dr6 & 0xf, 2);
    guest_close(&d.g);
}

static void interrupts_wait_for_a_step(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, nops_start, nops_end);
    vcpu_port_raise(&d.g.port, PIN_NMI);
    want(&d, true, 0);
    expect_stop(&d, GUEST_CODE_AT + 1, NULL);
    want(&d, false, 0);
    guest_expect(&d.g, X86_NMI);
    guest_close(&d.g);
}

static void step_of_a_halted_cpu_is_an_interrupt(void **state)
{
    struct debugged d;
    load(&d, GUEST_PROTECTED, halts_start, halts_end);
    want(&d, true, 0);
    expect_stop(&d, GUEST_CODE_AT + 1, NULL);
    assert_int_equal(d.g.st.activity, X86_HALTED);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    vcpu_port_raise(&d.g.port, PIN_NMI);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_NMI, NULL);
    assert_int_equal(d.g.st.activity, X86_RUNNING);
    guest_close(&d.g);
}

/* Stopped before it and stepped, an instruction that faults is not stopped at again when the handler returns to it. */
static void breakpoint_is_met_once_around_a_fault(void **state)
{
    struct debugged d;
    const uint64_t at = GUEST_CODE_AT + 8;

    load(&d, GUEST_LONG, page_read_start, page_read_end);
    guest_copy(&d.g, GUEST_STUBS_AT + 16 * X86_PF, iret_back_start, (size_t)(iret_back_end - iret_back_start));
    store_le64(guest_at(&d.g, 0x5000), 0x30000);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = at, .kinds = ENGINE_BREAK_EXEC};
    d.breakpoints[1] = (struct engine_breakpoint){.addr = 0x30000, .len = 8, .kinds = ENGINE_BREAK_READ};
    store_le64(guest_at(&d.g, GUEST_PAGES_AT + 0x3000 + 8 * 0x30), 0); /* not present */
    want(&d, false, 2);
    expect_stop(&d, at, &d.breakpoints[0]);
    want(&d, true, 2);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_PF, NULL); /* and nothing has been read */
    store_le64(guest_at(&d.g, GUEST_PAGES_AT + 0x3000 + 8 * 0x30), 0x30007);
    want(&d, false, 2);
    expect_stop(&d, at + 3, &d.breakpoints[1]);
    guest_close(&d.g);
}

/* An instruction that reads what is watched, and then faults, has read nothing. */
static void watchpoint_waits_for_the_whole_instruction(void **state)
{
    struct debugged d;

    for (unsigned step = 0; step < 2; step++) {
        load(&d, GUEST_LONG, copy_start, copy_end);
        d.g.st.gpr[X86_RSI] = 0x30000;
        d.g.st.gpr[X86_RDI] = 0x31000;
        store_le64(guest_at(&d.g, GUEST_PAGES_AT + 0x3000 + 8 * 0x31), 0); /* not present */
        watch(&d, 0x30000, 8, ENGINE_BREAK_READ);
        d.g.st.dr7 = step ? 0x402 : 0x400; /* one instruction at a time, or all that there is to the next breakpoint */
        guest_expect_error(&d.g, X86_PF, X86_PF_W);
        guest_close(&d.g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_is_one_instruction),
        cmocka_unit_test(breakpoint_stops_before_its_instruction),
        cmocka_unit_test(breakpoint_is_linear),
        cmocka_unit_test(watchpoint_stops_behind_its_access),
        cmocka_unit_test(watchpoint_takes_its_kind_and_bytes_only),
        cmocka_unit_test(watchpoint_on_a_page_in_use),
        cmocka_unit_test(repeated_instruction_steps_by_iterations),
        cmocka_unit_test(step_over_an_exception_ends_in_its_handler),
        cmocka_unit_test(guests_own_breakpoints_work_beside),
        cmocka_unit_test(interrupts_wait_for_a_step),
        cmocka_unit_test(step_of_a_halted_cpu_is_an_interrupt),
        cmocka_unit_test(breakpoint_is_met_once_around_a_fault),
        cmocka_unit_test(watchpoint_waits_for_the_whole_instruction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
