/* What a debugger asks of an engine: steps, breakpoints, watchpoints, and that the guest notices nothing of them. On each engine. */
#include "engine/interp/debugger.h"

#include "engine/bt/bt_engine.h"
#include "guest.h"

GUEST_CODE(nops, 32, "nop; nop; nop; nop; hlt");
GUEST_CODE(stores, 32, "movl $1, 0x30000; movl 0x30004, %eax; addl $1, 0x30008; movb $1, 0x3000c; hlt");
GUEST_CODE(copies, 32, "movl $0x30000, %esi; movl $0x31000, %edi; movl $3, %ecx; rep movsb; hlt");
GUEST_CODE(int3, 32, "nop; int3");
GUEST_CODE(undefined, 32, "ud2");
GUEST_CODE(halts, 32, "hlt; nop; nop");
GUEST_CODE(page_read, 64, "movq 0x5000, %rax; movq (%rax), %rbx; nop; hlt");
GUEST_CODE(copy, 64, "nop; movsb; nop; hlt");
/* From a handler; what IRET reads is in the TLB before it does. */
GUEST_CODE(iret_back, 64, "addq $8, %rsp; movq (%rsp), %rcx; movq 0x2028, %rdx; iretq");

struct debugged {
    struct guest g;
    struct engine_debug debug;
    struct engine_breakpoint breakpoints[4];
};

static void load(struct debugged *d, const struct engine_type *type, enum guest_mode mode, const uint8_t *start,
                 const uint8_t *end)
{
    memset(d, 0, sizeof(*d));
    guest_open_on(&d->g, mode, type);
    guest_copy(&d->g, GUEST_CODE_AT, start, (size_t)(end - start));
}

static void want(struct debugged *d, bool step, unsigned n)
{
    d->debug = (struct engine_debug){
        .step = step, .breakpoints = d->breakpoints, .n_breakpoints = n, .hit = (void *)d /* to be overwritten */};
    d->g.type->debug(d->g.vcpu, &d->debug);
}

static void expect_stop(struct debugged *d, uint64_t rip, const struct engine_breakpoint *hit)
{
    assert_int_equal(guest_run(&d->g), ENGINE_DEBUG);
    assert_int_equal(d->g.st.rip, rip);
    assert_ptr_equal(d->debug.hit, hit);
}

/* Without a limit of instructions, and also what has halted. */
static enum engine_exit go_on(struct debugged *d)
{
    d->g.st.activity = X86_RUNNING;
    d->g.type->set(d->g.vcpu, &d->g.st);
    enum engine_exit exit = d->g.type->run(d->g.vcpu, 0);
    d->g.type->get(d->g.vcpu, &d->g.st);
    return exit;
}

static void step_is_one_instruction(void **state)
{
    struct debugged d;
    load(&d, *state, GUEST_PROTECTED, nops_start, nops_end);
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
    load(&d, *state, GUEST_PROTECTED, nops_start, nops_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 2, .kinds = ENGINE_BREAK_EXEC};
    d.breakpoints[1] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 3, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 2);
    expect_stop(&d, GUEST_CODE_AT + 2, &d.breakpoints[0]);
    expect_stop(&d, GUEST_CODE_AT + 2, &d.breakpoints[0]); /* until it is stepped over or taken away */
    want(&d, true, 2);
    expect_stop(&d, GUEST_CODE_AT + 3, NULL);
    want(&d, false, 2);
    expect_stop(&d, GUEST_CODE_AT + 3, &d.breakpoints[1]);
    d.g.type->debug(d.g.vcpu, NULL);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    guest_close(&d.g);
}

/* Linear, not an offset in the segment. */
static void breakpoint_is_linear(void **state)
{
    struct debugged d;
    load(&d, *state, GUEST_REAL, nops_start, nops_end);
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

    load(&d, *state, GUEST_PROTECTED, stores_start, stores_end);
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
    load(&d, *state, GUEST_PROTECTED, stores_start, stores_end);
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
    load(&d, *state, GUEST_PROTECTED, stores_start, stores_end);
    d.g.type->set(d.g.vcpu, &d.g.st);
    assert_int_equal(d.g.type->run(d.g.vcpu, 2), ENGINE_DEBUG);
    watch(&d, 0x3000c, 1, ENGINE_BREAK_WRITE);
    assert_int_equal(d.g.type->run(d.g.vcpu, 1000), ENGINE_DEBUG);
    assert_ptr_equal(d.debug.hit, &d.breakpoints[0]);
    guest_close(&d.g);
}

static void repeated_instruction_steps_by_iterations(void **state)
{
    struct debugged d;
    const uint64_t at = GUEST_CODE_AT + 15;

    load(&d, *state, GUEST_PROTECTED, copies_start, copies_end);
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
    load(&d, *state, GUEST_PROTECTED, undefined_start, undefined_end);
    want(&d, true, 0);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_UD, NULL);
    assert_int_equal(guest_frame(&d.g, 0), GUEST_CODE_AT);
    guest_close(&d.g);
}

static void guests_own_breakpoints_work_beside(void **state)
{
    struct debugged d;
    load(&d, *state, GUEST_PROTECTED, int3_start, int3_end);
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 1, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 1);
    expect_stop(&d, GUEST_CODE_AT + 1, &d.breakpoints[0]);
    want(&d, false, 0);
    guest_expect(&d.g, X86_BP);
    guest_close(&d.g);

    load(&d, *state, GUEST_PROTECTED, nops_start, nops_end);
    d.g.st.dr[1] = GUEST_CODE_AT + 2;
    d.g.st.dr7 = 0x400 | 1 << 2;
    d.breakpoints[0] = (struct engine_breakpoint){.addr = GUEST_CODE_AT + 2, .kinds = ENGINE_BREAK_EXEC};
    want(&d, false, 1);
    expect_stop(&d, GUEST_CODE_AT + 2, &d.breakpoints[0]); /* the debugger comes first */
    assert_int_equal(d.g.st.dr6, 0xffff0ff0);
    d.g.type->debug(d.g.vcpu, NULL);
    guest_expect(&d.g, X86_DB);
    assert_int_equal(d.g.st.dr6 & 0xf, 2);
    guest_close(&d.g);
}

static void interrupts_wait_for_a_step(void **state)
{
    struct debugged d;
    load(&d, *state, GUEST_PROTECTED, nops_start, nops_end);
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
    load(&d, *state, GUEST_PROTECTED, halts_start, halts_end);
    want(&d, true, 0);
    expect_stop(&d, GUEST_CODE_AT + 1, NULL);
    assert_int_equal(d.g.st.activity, X86_HALTED);
    assert_int_equal(guest_run(&d.g), ENGINE_HALT);
    vcpu_port_raise(&d.g.port, PIN_NMI);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_NMI, NULL);
    assert_int_equal(d.g.st.activity, X86_RUNNING);
    guest_close(&d.g);
}

/* Code whose instruction at `at`, where there is a breakpoint, reads a page that is not present. */
static void load_absent_read(struct debugged *d, void *state, uint64_t at)
{
    load(d, state, GUEST_LONG, page_read_start, page_read_end);
    guest_copy(&d->g, GUEST_STUBS_AT + 16 * X86_PF, iret_back_start, (size_t)(iret_back_end - iret_back_start));
    store_le64(guest_at(&d->g, 0x5000), 0x30000);
    d->breakpoints[0] = (struct engine_breakpoint){.addr = at, .kinds = ENGINE_BREAK_EXEC};
    store_le64(guest_at(&d->g, GUEST_PAGES_AT + 0x3000 + 8 * 0x30), 0);
}

/* Stopped before it and stepped, an instruction that faults is not stopped at again when the handler returns to it. */
static void breakpoint_is_met_once_around_a_fault(void **state)
{
    struct debugged d;
    const uint64_t at = GUEST_CODE_AT + 8;

    load_absent_read(&d, *state, at);
    d.breakpoints[1] = (struct engine_breakpoint){.addr = 0x30000, .len = 8, .kinds = ENGINE_BREAK_READ};
    want(&d, false, 2);
    expect_stop(&d, at, &d.breakpoints[0]);
    want(&d, true, 2);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_PF, NULL); /* and nothing has been read */
    store_le64(guest_at(&d.g, GUEST_PAGES_AT + 0x3000 + 8 * 0x30), 0x30007);
    want(&d, false, 2);
    expect_stop(&d, at + 3, &d.breakpoints[1]);
    guest_close(&d.g);
}

/* And where nothing but the breakpoint is wanted, so that a translator runs the handler as it runs anything. */
static void breakpoint_is_met_once_around_a_fault_at_speed(void **state)
{
    struct debugged d;
    const uint64_t at = GUEST_CODE_AT + 8;

    load_absent_read(&d, *state, at);
    want(&d, false, 1);
    expect_stop(&d, at, &d.breakpoints[0]);
    want(&d, true, 1);
    expect_stop(&d, GUEST_STUBS_AT + 16 * X86_PF, NULL);
    store_le64(guest_at(&d.g, GUEST_PAGES_AT + 0x3000 + 8 * 0x30), 0x30007);
    want(&d, false, 1);
    assert_int_equal(go_on(&d), ENGINE_HALT);
    assert_int_equal(d.g.st.rip, at + 5);
    guest_close(&d.g);
}

/* An instruction that reads what is watched, and then faults, has read nothing. */
static void watchpoint_waits_for_the_whole_instruction(void **state)
{
    struct debugged d;

    for (unsigned step = 0; step < 2; step++) {
        load(&d, *state, GUEST_LONG, copy_start, copy_end);
        d.g.st.gpr[X86_RSI] = 0x30000;
        d.g.st.gpr[X86_RDI] = 0x31000;
        store_le64(guest_at(&d.g, GUEST_PAGES_AT + 0x3000 + 8 * 0x31), 0); /* not present */
        watch(&d, 0x30000, 8, ENGINE_BREAK_READ);
        d.g.st.dr7 = step ? 0x402 : 0x400; /* one instruction at a time, or all that there is to the next breakpoint */
        guest_expect_error(&d.g, X86_PF, X86_PF_W);
        guest_close(&d.g);
    }
}

/* ---- code that has been running: on a translator, in blocks that are linked ---- */

/* A loop with a branch, a call, an indirect jump and a page's end in it; each time round adds 1, 2 and 4 to RAX. */
GUEST_CODE(loop, 64,
           "loop_first: mov $1000, %ecx\n"
           "lea 3f(%rip), %rbx\n"
           "jmp 1f\n"
           ".skip 4096 - (. - loop_first), 0xcc\n"
           "1: inc %rax\n"
           "call 5f\n"
           "jmp *%rbx\n"
           "ud2\n"
           "3: add $4, %rax\n"
           "jmp 4f\n"
           ".skip 4086 - (. - 1b), 0xcc\n"
           "4: test %ecx, %ecx\n"
           "jz 4b\n"
           "mov $0x12345678, %edx\n" /* begins on the one page and ends on the next */
           "xor %edx, %edx\n"
           "mov %edx, 0x30000(%rdx)\n"
           "dec %ecx\n"
           "jnz 1b\n"
           "hlt\n"
           "jmp loop_first\n"
           "5: add $1, %rax\n"
           "inc %rax\n"
           "ret\n");

enum { ROUNDS = 1000, ADDED = 7 };

/* The addresses of the instructions of one time round. Returns how many. */
static unsigned trace_loop(struct debugged *d, uint64_t rip[], unsigned max)
{
    unsigned n = 0;

    want(d, true, 0);
    do
        assert_int_equal(guest_run(&d->g), ENGINE_DEBUG);
    while (d->g.st.rip != GUEST_CODE_AT + RAM_PAGE_SIZE);
    do {
        assert_true(n < max);
        rip[n++] = d->g.st.rip;
        assert_int_equal(guest_run(&d->g), ENGINE_DEBUG);
    } while (d->g.st.rip != rip[0]);
    return n;
}

static void meet(struct debugged *d, uint64_t rip, uint64_t left)
{
    want(d, false, 1);
    assert_int_equal(go_on(d), ENGINE_DEBUG);
    assert_ptr_equal(d->debug.hit, &d->breakpoints[0]);
    assert_int_equal(d->g.st.rip, rip);
    assert_int_equal(d->g.st.gpr[X86_RCX], left);
    want(d, true, 1);
    assert_int_equal(go_on(d), ENGINE_DEBUG);
    assert_ptr_equal(d->debug.hit, NULL);
}

/* Set anywhere in a loop that has been running, it is met each time round, and the guest computes what it ever did. */
static void breakpoint_in_code_that_runs(void **state)
{
    struct debugged d;
    uint64_t rip[32];

    load(&d, *state, GUEST_LONG, loop_start, loop_end);
    unsigned n = trace_loop(&d, rip, ARRAY_SIZE(rip));
    assert_int_equal(n, 15);
    want(&d, false, 0);
    assert_int_equal(go_on(&d), ENGINE_HALT);
    for (unsigned i = 0; i < n; i++) {
        uint64_t before = d.g.st.gpr[X86_RAX],
                 first = i + 1 < n ? ROUNDS : ROUNDS - 1; /* the last one is behind the DEC */
        d.breakpoints[0] = (struct engine_breakpoint){.addr = rip[i], .kinds = ENGINE_BREAK_EXEC};
        for (unsigned times = 0; times < 3; times++)
            meet(&d, rip[i], first - times);
        want(&d, false, 0);
        assert_int_equal(go_on(&d), ENGINE_HALT);
        assert_int_equal(d.g.st.gpr[X86_RAX] - before, ROUNDS * ADDED);
    }
    guest_close(&d.g);
}

static void breakpoints_on_every_instruction(void **state)
{
    struct debugged d;
    uint64_t rip[32];
    struct engine_breakpoint all[32];

    load(&d, *state, GUEST_LONG, loop_start, loop_end);
    unsigned n = trace_loop(&d, rip, ARRAY_SIZE(rip));
    want(&d, false, 0);
    assert_int_equal(go_on(&d), ENGINE_HALT);
    for (unsigned i = 0; i < n; i++)
        all[i] = (struct engine_breakpoint){.addr = rip[i], .kinds = ENGINE_BREAK_EXEC};
    for (unsigned i = 0; i < 3 * n; i++) {
        d.debug = (struct engine_debug){.breakpoints = all, .n_breakpoints = n};
        d.g.type->debug(d.g.vcpu, &d.debug);
        assert_int_equal(go_on(&d), ENGINE_DEBUG);
        assert_ptr_equal(d.debug.hit, &all[i % n]);
        want(&d, true, 0);
        assert_int_equal(go_on(&d), ENGINE_DEBUG);
    }
    guest_close(&d.g);
}

/* Stores that share one check, a pop, and a string instruction: 8 bytes apart, so that each watch is one's alone. */
GUEST_CODE(store_loop, 64,
           "1: mov $1000, %ecx\n"
           "mov $0x30000, %ebx\n"
           "2: mov %ecx, (%rbx)\n"
           "mov %ecx, 8(%rbx)\n"
           "addl $1, 16(%rbx)\n"
           "lea 24(%rbx), %rdi\n"
           "stosb\n"
           "movq 32(%rbx), %xmm0\n"
           "call 3f\n"
           "dec %ecx\n"
           "jnz 2b\n"
           "hlt\n"
           "jmp 1b\n"
           "3: ret\n");

/* What a loop that has been running accesses is seen each time, directly behind the instruction. */
static void watchpoint_in_code_that_runs(void **state)
{
    static const struct {
        uint64_t addr;
        unsigned kinds, behind;
    } cases[] = {
        {0x30000, ENGINE_BREAK_WRITE, 12}, {0x30008, ENGINE_BREAK_WRITE, 15}, {0x30010, ENGINE_BREAK_WRITE, 19},
        {0x30018, ENGINE_BREAK_WRITE, 24}, {0x30020, ENGINE_BREAK_READ, 29},  {GUEST_STACK - 8, ENGINE_BREAK_READ, 34},
    };
    struct debugged d;

    load(&d, *state, GUEST_LONG, store_loop_start, store_loop_end);
    d.g.st.cr4 |= X86_CR4_OSFXSR;
    assert_int_equal(go_on(&d), ENGINE_HALT);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        d.breakpoints[0] = (struct engine_breakpoint){.addr = cases[i].addr, .len = 4, .kinds = cases[i].kinds};
        for (unsigned times = 0; times < 3; times++) {
            want(&d, false, 1);
            assert_int_equal(go_on(&d), ENGINE_DEBUG);
            assert_ptr_equal(d.debug.hit, &d.breakpoints[0]);
            assert_int_equal(d.g.st.rip, GUEST_CODE_AT + cases[i].behind);
            assert_int_equal(d.g.st.gpr[X86_RCX], ROUNDS - times);
        }
        want(&d, false, 0);
        assert_int_equal(go_on(&d), ENGINE_HALT);
    }
    assert_int_equal(load_le32(guest_at(&d.g, 0x30010)), 7 * ROUNDS);
    guest_close(&d.g);
}

GUEST_CODE(user_loop, 64, "1: inc %rax\nlea (%rax, %rax), %rdx\ndec %rcx\njnz 1b\nint $0x80\n");

static enum engine_exit run_at(struct debugged *d, const struct x86_state *start, uint64_t lin)
{
    d->g.st = *start;
    d->g.st.gpr[X86_RCX] = 100;
    d->g.st.rip = lin;
    return go_on(d);
}

/* The same code at two addresses: a breakpoint is at the one only, whatever has been made of the other's. */
static void breakpoint_at_one_of_two_addresses(void **state)
{
    uint64_t at[2];
    struct debugged d;

    load(&d, *state, GUEST_LONG, user_loop_start, user_loop_end);
    for (unsigned i = 0; i < 2; i++) {
        at[i] = (uint64_t)(1 + i) << 39 | GUEST_CODE_AT;
        store_le64(guest_at(&d.g, GUEST_PAGES_AT + 8 * (1 + i)), (GUEST_PAGES_AT + 0x1000) | 7);
    }
    guest_user(&d.g);
    const struct x86_state start = d.g.st;
    assert_int_equal(run_at(&d, &start, at[0]), ENGINE_HALT);
    assert_int_equal((uint8_t)guest_frame(&d.g, 0), 0x80);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t here = at[~i & 1], there = at[i & 1];
        d.breakpoints[0] = (struct engine_breakpoint){.addr = here + 3, .kinds = ENGINE_BREAK_EXEC};
        want(&d, false, 1);
        assert_int_equal(run_at(&d, &start, there), ENGINE_HALT);
        assert_int_equal(run_at(&d, &start, here), ENGINE_DEBUG);
        assert_int_equal(d.g.st.rip, here + 3);
        assert_ptr_equal(d.debug.hit, &d.breakpoints[0]);
        want(&d, false, 0);
        assert_int_equal(run_at(&d, &start, here), ENGINE_HALT);
    }
    guest_close(&d.g);
}

#define ON_EACH(test)                                                        \
    {"interp: " #test, test, NULL, NULL, (void *)(uintptr_t)&interp_engine}, \
    {                                                                        \
        "bt: " #test, test, NULL, NULL, (void *)(uintptr_t)&bt_engine        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EACH(step_is_one_instruction),
        ON_EACH(breakpoint_stops_before_its_instruction),
        ON_EACH(breakpoint_is_linear),
        ON_EACH(watchpoint_stops_behind_its_access),
        ON_EACH(watchpoint_takes_its_kind_and_bytes_only),
        ON_EACH(watchpoint_on_a_page_in_use),
        ON_EACH(repeated_instruction_steps_by_iterations),
        ON_EACH(step_over_an_exception_ends_in_its_handler),
        ON_EACH(guests_own_breakpoints_work_beside),
        ON_EACH(interrupts_wait_for_a_step),
        ON_EACH(step_of_a_halted_cpu_is_an_interrupt),
        ON_EACH(breakpoint_is_met_once_around_a_fault),
        ON_EACH(breakpoint_is_met_once_around_a_fault_at_speed),
        ON_EACH(watchpoint_waits_for_the_whole_instruction),
        ON_EACH(breakpoint_in_code_that_runs),
        ON_EACH(breakpoints_on_every_instruction),
        ON_EACH(breakpoint_at_one_of_two_addresses),
        ON_EACH(watchpoint_in_code_that_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
