/*
 * The decoded-instruction cache under stores: pages that turn from code to data and back, and code that another vCPU writes while it
 * runs. Two vCPUs of one engine over 4 MiB of RAM, in 64-bit mode, mapped one to one.
 */
#include <pthread.h>

#include "guest.h"

enum {
    CODE_AT = 0x50000, /* what the tests write and run: mov $imm32, %eax; ret */
    DATA_AT = 0x50800, /* on the same page */
    FLAG_AT = 0x60000,
    ACK_AT = 0x61000,
    WRITER_AT = 0x70000,
    ROUNDS = 3000,
};

/* Calls what is at RDI until it has returned ROUNDS; each time after FLAG has told what must come. */
GUEST_CODE(reader, 64,
           "xor %ebx, %ebx\n"
           "1: inc %ebx\n"
           "2: pause\n"
           "cmp %ebx, 0x60000\n"
           "jne 2b\n"
           "call *%rdi\n"
           "cmp %ebx, %eax\n"
           "jne 3f\n"
           "mov %ebx, 0x61000\n"
           "cmp $3000, %ebx\n"
           "jne 1b\n"
           "3: hlt\n");

/* Writes the next number into the code, by a store and by XCHG in turn; then writes to its page as if it were data. */
GUEST_CODE(writer, 64,
           "xor %ebx, %ebx\n"
           "1: inc %ebx\n"
           "mov %ebx, %ecx\n"
           "test $1, %bl\n"
           "jz 2f\n"
           "mov %ecx, 0x50001\n"
           "jmp 3f\n"
           "2: xchg %ecx, 0x50001\n"
           "3: mov %ebx, 0x60000\n"
           "4: pause\n"
           "cmp %ebx, 0x61000\n"
           "jne 4b\n"
           "mov $40, %ecx\n"
           "5: mov %ecx, 0x50800\n"
           "dec %ecx\n"
           "jnz 5b\n"
           "cmp $3000, %ebx\n"
           "jne 1b\n"
           "hlt\n");

/* Code to run once, then data that is stored to n (ECX) times. */
GUEST_CODE(stores, 64,
           "call *%rdi\n"
           "1: mov %ecx, 0x50800\n"
           "dec %ecx\n"
           "jnz 1b\n"
           "movl $77, 0x50001\n"
           "call *%rdi\n"
           "hlt\n");

static const uint8_t function[] = {0xb8, 0, 0, 0, 0, 0xc3};

static void *run_vcpu(void *vcpu)
{
    interp_engine.run(vcpu, 0);
    return NULL;
}

static void test_page_turns_to_data(void **state)
{
    struct guest g;

    guest_open(&g, GUEST_LONG);
    _Atomic uint8_t *flags = &g.ram.page_flags[CODE_AT >> RAM_PAGE_SHIFT];
    for (unsigned n = 1; n <= 1000; n *= 10) {
        guest_load(&g, stores);
        guest_copy(&g, CODE_AT, function, sizeof(function));
        g.st.rip = GUEST_CODE_AT;
        g.st.activity = X86_RUNNING;
        g.st.gpr[X86_RDI] = CODE_AT;
        g.st.gpr[X86_RCX] = n;
        assert_int_equal(guest_run(&g), ENGINE_HALT);
        assert_int_equal(g.st.gpr[X86_RAX], 77);
        assert_int_equal(*flags & RAM_PAGE_MARKED, RAM_PAGE_MARKED);
        /* once for the first call; again for the second where the stores had made it data */
        assert_int_equal(*flags / RAM_PAGE_MARKS, n < 100 ? 1 : n == 100 ? 2 : 3);
    }
    guest_close(&g);
}

/* Until its page is run again, stores cost nothing. */
static void test_data_is_unmarked(void **state)
{
    struct guest g;

    guest_open(&g, GUEST_LONG);
    guest_load(&g, stores);
    guest_copy(&g, CODE_AT, function, sizeof(function));
    g.st.gpr[X86_RDI] = CODE_AT;
    g.st.gpr[X86_RCX] = 1000;
    interp_engine.set(g.vcpu, &g.st);
    assert_int_equal(interp_engine.run(g.vcpu, 600), ENGINE_DEBUG);
    assert_int_equal(g.ram.page_flags[CODE_AT >> RAM_PAGE_SHIFT] & (RAM_PAGE_CODE | RAM_PAGE_MARKED), 0);
    assert_true(g.ram.code[CODE_AT >> RAM_PAGE_SHIFT].stores < 100); /* of some 200 */
    guest_close(&g);
}

static void test_other_vcpu_writes_code(void **state)
{
    struct guest g;
    struct engine *engine;
    struct engine_vcpu *vcpu[2];
    struct engine_stats stats[2] = {0};
    struct vcpu_port port[2] = {0};
    pthread_t thread;
    struct err err;

    guest_open(&g, GUEST_LONG);
    assert_int_equal(interp_engine.open(&engine, &(struct engine_conf){.ram = &g.ram, .n_vcpus = 2}, &err), 0);
    guest_load(&g, reader);
    guest_copy(&g, WRITER_AT, writer_start, (size_t)(writer_end - writer_start));
    guest_copy(&g, CODE_AT, function, sizeof(function));
    for (unsigned i = 0; i < 2; i++) {
        const struct engine_vcpu_conf conf = {.index = i,
                                              .ram = &g.ram,
                                              .pio = &g.pio,
                                              .mmio = &g.mmio,
                                              .port = &port[i],
                                              .clock = &g.clock,
                                              .cpuid = &g.cpuid,
                                              .stats = &stats[i]};
        assert_int_equal(interp_engine.vcpu_open(engine, &conf, &vcpu[i], &err), 0);
        g.st.rip = i ? WRITER_AT : GUEST_CODE_AT;
        g.st.gpr[X86_RDI] = CODE_AT;
        g.st.gpr[X86_RSP] = i ? GUEST_STACK0 : GUEST_STACK;
        interp_engine.set(vcpu[i], &g.st);
    }
    assert_int_equal(pthread_create(&thread, NULL, run_vcpu, vcpu[0]), 0);
    assert_int_equal(interp_engine.run(vcpu[1], 0), ENGINE_HALT);
    pthread_join(thread, NULL);
    interp_engine.get(vcpu[0], &g.st);
    assert_int_equal(g.st.gpr[X86_RBX], ROUNDS);
    assert_int_equal(g.st.gpr[X86_RAX], ROUNDS);
    for (unsigned i = 0; i < 2; i++)
        interp_engine.vcpu_close(vcpu[i]);
    interp_engine.close(engine);
    guest_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_turns_to_data),
        cmocka_unit_test(test_data_is_unmarked),
        cmocka_unit_test(test_other_vcpu_writes_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
