/*
 * Exceptions of the host's CPU in the translator's generated code, and the x87 registers that live in the host's while it runs. One vCPU in
 * 64-bit mode.
 */
#include <sys/mman.h>

#include "engine/bt/bt_engine.h"
#include "guest.h"

enum { DATA_AT = 0x300000 };

struct translated {
    struct guest g;
    struct engine *engine;
    struct engine_vcpu *vcpu;
};

static void open_translated(struct translated *t)
{
    struct err err;

    guest_open(&t->g, GUEST_LONG);
    const struct engine_vcpu_conf conf = {.ram = &t->g.ram,
                                          .pio = &t->g.pio,
                                          .mmio = &t->g.mmio,
                                          .port = &t->g.port,
                                          .clock = &t->g.clock,
                                          .cpuid = &t->g.cpuid,
                                          .stats = &t->g.stats};
    assert_int_equal(bt_engine.open(&t->engine, &(struct engine_conf){.ram = &t->g.ram, .n_vcpus = 1}, &err), 0);
    assert_int_equal(bt_engine.vcpu_open(t->engine, &conf, &t->vcpu, &err), 0);
    bt_engine.set(t->vcpu, &t->g.st);
}

static void close_translated(struct translated *t)
{
    bt_engine.vcpu_close(t->vcpu);
    bt_engine.close(t->engine);
    guest_close(&t->g);
}

GUEST_CODE(reads, 64,
           "1: mov 0x300000, %eax\n"
           "inc %ecx\n"
           "jmp 1b\n");

/* The guest's RAM is there when its page enters the TLB, and not when generated code reads it. */
static void test_memory_fails(void **state)
{
    struct translated t;

    open_translated(&t);
    guest_load(&t.g, reads);
    store_le32(guest_at(&t.g, DATA_AT), 0x5a5a);
    assert_int_equal(bt_engine.run(t.vcpu, 300), ENGINE_DEBUG);
    bt_engine.get(t.vcpu, &t.g.st);
    assert_int_equal(t.g.st.gpr[X86_RAX], 0x5a5a);
    uint64_t n = t.g.st.gpr[X86_RCX];
    assert_int_equal(mprotect(guest_at(&t.g, DATA_AT), RAM_PAGE_SIZE, PROT_NONE), 0);
    assert_int_equal(bt_engine.run(t.vcpu, 300), ENGINE_FAIL);
    assert_int_equal(mprotect(guest_at(&t.g, DATA_AT), RAM_PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
    bt_engine.get(t.vcpu, &t.g.st);
    assert_in_range(t.g.st.gpr[X86_RCX], n, n + 1);
    close_translated(&t);
}

GUEST_CODE(counts_in_x87, 64,
           "fninit\n"
           "fldz\n"
           "mov $1000, %ecx\n"
           "1: fld1\n"
           "faddp\n"
           "dec %ecx\n"
           "jnz 1b\n"
           "hlt\n"
           "mov $10, %ecx\n"
           "jmp 1b\n");

/* What get() shows between two runs is what the guest has computed, and what set() puts there it goes on with. */
static void test_x87_between_runs(void **state)
{
    struct translated t;
    uint8_t *st0 = t.g.st.fx.st[0];

    open_translated(&t);
    guest_load(&t.g, counts_in_x87);
    assert_int_equal(bt_engine.run(t.vcpu, 0), ENGINE_HALT);
    bt_engine.get(t.vcpu, &t.g.st);
    assert_int_equal(load_le64(st0), UINT64_C(1000) << 54);
    assert_int_equal(load_le16(st0 + 8), 0x3fff + 9);
    assert_int_equal(t.g.st.fx.ftw, 0x80);
    store_le64(st0, UINT64_C(3) << 62); /* 3 */
    store_le16(st0 + 8, 0x3fff + 1);
    t.g.st.activity = X86_RUNNING;
    bt_engine.set(t.vcpu, &t.g.st);
    assert_int_equal(bt_engine.run(t.vcpu, 0), ENGINE_HALT);
    bt_engine.get(t.vcpu, &t.g.st);
    assert_int_equal(load_le64(st0), UINT64_C(13) << 60);
    assert_int_equal(load_le16(st0 + 8), 0x3fff + 3);
    close_translated(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_fails),
        cmocka_unit_test(test_x87_between_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
