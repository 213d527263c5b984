/*
 * Two engines in lockstep: what is alike although the machine never answers twice the same, and what is found when it is not, by a follower
 * that is made to go wrong in one way.
 */
#include "engine/lockstep/lockstep.h"

#include <errno.h>

#include "engine/bt/bt_engine.h"
#include "guest.h"

#define DATA   0x30000
#define VECTOR 0x40
#define BUFFER (DATA + 0x1000)

/* Asks for time, random numbers, ports, memory that a device fills, and copies; a page fault on the way is as good as any other code. */
GUEST_CODE(
    asks, 64,
    "movl $200, %ebp; movl $0x30000, %ebx\n"
    "again: rdtsc; addl %eax, %r12d; rdrand %r13; rdseed %r14; movb $0x60, %al\n"
    "inb $0x60, %al; movzbl %al, %ecx; outb %al, $0x61; movq 0x1000(%rbx), %rdx; xorq %rdx, %r15; popcntq %rdx, %rdx\n"
    "movl $0x30000, %esi; movl $0x31100, %edi; movl $9000, %ecx; cld; rep movsb; imulq %r15, %rdx\n"
    "movq %xmm0, %rax; pinsrq $1, %rdx, %xmm0; paddq %xmm0, %xmm1; fninit; fld1; fldpi; faddp\n"
    "decl %ebp; jnz again; hlt");
GUEST_CODE(waits, 64, "sti; outb %al, $0x62; more: incq %rbx; jmp more");
GUEST_CODE(breaks, 64, "movl $1, %ebx; jmp 1f; 1: addl $2, %ebx; jmp 2f; 2: addl $3, %ebx; hlt");

static struct guest g;
static struct lockstep lockstep;
static struct engine *engine;
static struct engine_vcpu *vcpu;
static unsigned n_asked;

/* ---- the machine: a port with another answer each time, one that writes to RAM, one that raises an interrupt ---- */

static uint64_t port_read(void *opaque, unsigned region, uint64_t off, unsigned len)
{
    return 7 * n_asked++;
}

static void port_write(void *opaque, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    uint64_t word = ++n_asked * UINT64_C(0x0123456789abcdf);

    if (off == 1)
        assert_int_equal(ram_write(&g.ram, BUFFER, &word, sizeof(word)), 0);
    else
        vcpu_port_raise(&g.port, PIN_INTR);
}

static int ack(void *apic)
{
    vcpu_port_lower(&g.port, PIN_INTR);
    return VECTOR;
}

static const struct vcpu_apic_ops apic_ops = {.ack = ack};
static const struct bus_region ports = {.base = 0x60, .size = 3, .read = port_read, .write = port_write};

/* ---- followers that go wrong ---- */

static struct engine_vcpu_conf follower_conf;
static uint64_t wrong_at; /* RIP */

static int wrong_vcpu_open(struct engine *e, const struct engine_vcpu_conf *conf, struct engine_vcpu **v,
                           struct err *err)
{
    follower_conf = *conf;
    return interp_engine.vcpu_open(e, conf, v, err);
}

static void wrong_register(struct engine_vcpu *v, struct x86_state *st)
{
    interp_engine.get(v, st);
    if (st->rip == wrong_at)
        st->ymm[3][31] ^= 0x80;
}

static enum engine_exit wrong_memory(struct engine_vcpu *v, uint64_t limit)
{
    enum engine_exit exit = interp_engine.run(v, limit);

    follower_conf.ram->base[BUFFER + 2048] = 1;
    return exit;
}

static enum engine_exit wrong_question(struct engine_vcpu *v, uint64_t limit)
{
    enum engine_exit exit = interp_engine.run(v, limit);
    uint8_t byte;

    bus_access(follower_conf.pio, 0x64, &byte, 1, false);
    return exit;
}

static enum engine_exit wrong_length(struct engine_vcpu *v, uint64_t limit)
{
    return interp_engine.run(v, limit + 1);
}

/* ---- running ---- */

static void open_pair(const struct engine_type *leader, const struct engine_type *follower, unsigned every)
{
    const struct engine_conf conf = {.ram = &g.ram, .n_vcpus = 1, .lockstep = &lockstep};
    struct err err;

    guest_open(&g, GUEST_LONG);
    g.st.cr4 |= X86_CR4_OSFXSR;
    g.port.apic_ops = &apic_ops;
    assert_int_equal(bus_add(&g.pio, &ports), 0);
    lockstep = (struct lockstep){.leader = leader, .follower = follower, .every = every, .memory_every = 1000};
    assert_int_equal(lockstep_engine.open(&engine, &conf, &err), 0);
    const struct engine_vcpu_conf vcpu_conf = {.ram = &g.ram,
                                               .pio = &g.pio,
                                               .mmio = &g.mmio,
                                               .port = &g.port,
                                               .clock = &g.clock,
                                               .cpuid = &g.cpuid,
                                               .stats = &g.stats};
    assert_int_equal(lockstep_engine.vcpu_open(engine, &vcpu_conf, &vcpu, &err), 0);
}

static enum engine_exit run(uint64_t limit)
{
    enum engine_exit exit;

    lockstep_engine.set(vcpu, &g.st);
    clock_start(&g.clock);
    exit = lockstep_engine.run(vcpu, limit);
    clock_stop(&g.clock);
    lockstep_engine.get(vcpu, &g.st);
    return exit;
}

static void close_pair(void)
{
    lockstep_engine.vcpu_close(vcpu);
    lockstep_engine.close(engine);
    guest_close(&g);
}

/* Loads and runs it to its HLT, or to a difference that the report tells of. */
static void expect(const struct engine_type *follower, const char *difference)
{
    guest_load(&g, breaks);
    wrong_at = GUEST_CODE_AT + 12;
    assert_int_equal(run(0), difference ? ENGINE_FAIL : ENGINE_HALT);
    if (difference && !strstr(lockstep.report, difference))
        fail_msg("no '%s' in: %s", difference, lockstep.report);
    close_pair();
}

static void alike(const struct engine_type *leader, const struct engine_type *follower, unsigned every)
{
    open_pair(leader, follower, every);
    guest_load(&g, asks);
    enum engine_exit exit = run(0);
    if (*lockstep.report)
        fail_msg("%s", lockstep.report);
    assert_int_equal(exit, ENGINE_HALT);
    assert_int_equal(g.st.gpr[X86_RBP], 0);
    assert_int_equal(lockstep.events, 200 * 5); /* two numbers, IN, OUT and what it writes */
    assert_true(lockstep.blocks > 200 && lockstep.memory_compares > 1);
    close_pair();
    assert_string_equal(lockstep.report, "");
}

static void what_is_recorded_comes_again(void **state)
{
    alike(&interp_engine, &interp_engine, 1);
    alike(&bt_engine, &interp_engine, 1);
    alike(&interp_engine, &bt_engine, 1);
    alike(&bt_engine, &interp_engine, 7);
}

static void interrupts_come_before_the_same_instruction(void **state)
{
    open_pair(&bt_engine, &interp_engine, 1);
    guest_load(&g, waits);
    assert_int_equal(run(0), ENGINE_HALT);
    assert_string_equal(lockstep.report, "");
    assert_int_equal(g.st.rip, GUEST_STUBS_AT + 16 * VECTOR + 3);
    close_pair();
}

static void a_limit_is_exact(void **state)
{
    open_pair(&bt_engine, &interp_engine, 1);
    guest_load(&g, breaks);
    assert_int_equal(run(4), ENGINE_DEBUG);
    assert_int_equal(lockstep.instructions, 4);
    assert_int_equal(g.st.gpr[X86_RBX], 3);
    close_pair();
}

static void a_register_differs(void **state)
{
    struct engine_type wrong = interp_engine;

    wrong.get = wrong_register;
    open_pair(&bt_engine, &wrong, 1);
    expect(&wrong, "  ymm3             leader   00");
    assert_non_null(strstr(lockstep.report, "behind instruction 4 in step"));
    assert_non_null(strstr(lockstep.report, "add ebx, 0x02\n"));
    assert_non_null(strstr(lockstep.report, "host code of bt for it:\n"));
}

static void ram_differs(void **state)
{
    struct engine_type wrong = interp_engine;

    wrong.vcpu_open = wrong_vcpu_open;
    wrong.run = wrong_memory;
    open_pair(&interp_engine, &wrong, 1);
    lockstep.memory_every = 1;
    expect(&wrong, "RAM at physical address 0x31800: the leader's 0000000000000000, the follower's 0000000000000001");
}

static void questions_differ(void **state)
{
    struct engine_type wrong = interp_engine;

    wrong.vcpu_open = wrong_vcpu_open;
    wrong.run = wrong_question;
    open_pair(&interp_engine, &wrong, 1);
    expect(&wrong, "asked for nothing more, the follower for a read from port 0x64 of 1 bytes");
}

static void lengths_differ(void **state)
{
    struct engine_type wrong = interp_engine;

    wrong.run = wrong_length;
    open_pair(&interp_engine, &wrong, 1);
    expect(&wrong, "the leader stopped with");
}

static void one_vcpu_only(void **state)
{
    const struct engine_conf conf = {.n_vcpus = 2, .lockstep = &lockstep};
    struct err err;

    assert_int_equal(lockstep_engine.open(&engine, &conf, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "2 CPUs: must be 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_recorded_comes_again),
        cmocka_unit_test(interrupts_come_before_the_same_instruction),
        cmocka_unit_test(a_limit_is_exact),
        cmocka_unit_test(a_register_differs),
        cmocka_unit_test(ram_differs),
        cmocka_unit_test(questions_differ),
        cmocka_unit_test(lengths_differ),
        cmocka_unit_test(one_vcpu_only),
    };
    return cmocka_run_group_tests_name("lockstep", tests, NULL, NULL);
}
