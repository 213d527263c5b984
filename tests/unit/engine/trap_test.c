/*
 * Exceptions of the host's CPU in the translator's generated code, and the x87 registers that live in the host's while it runs. One vCPU in
 * 64-bit mode.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/bt/bt_engine.h"

#include "engine/bt/bt.h"
#include "guest.h"

enum { DATA_AT = 0x300000 };

struct translated {
    struct guest g;
    struct engine *engine;
    struct engine_vcpu *vcpu;
};

/* A bug in C, for the guest to run into with RDRAND. */
static bool random_crashes(void *opaque, uint64_t *val, unsigned len)
{
    __asm__ volatile("mov 0, %0" : "=r"(*val)); /* as no sanitizer sees it */
    return true;
}

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
                                          .stats = &t->g.stats,
                                          .random = random_crashes};
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

/* ---- what is said of a bug ---- */

GUEST_CODE(spins, 64,
           "1: inc %ecx\n"
           "lea (%rcx,%rcx,2), %edx\n"
           "jmp 1b\n");

/* Runs on to the failure; `text` is what that writes to standard error. */
static void run_to_failure(struct translated *t, char *text, size_t room)
{
    int old = dup(STDERR_FILENO), fd = memfd_create("stderr", MFD_CLOEXEC);

    assert_true(old >= 0 && fd >= 0);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    enum engine_exit exit = bt_engine.run(t->vcpu, 300);
    dup2(old, STDERR_FILENO);
    ssize_t n = pread(fd, text, room - 1, 0);
    assert_true(n >= 0);
    text[n] = '\0';
    close(old);
    close(fd);
    assert_int_equal(exit, ENGINE_FAIL);
}

/* A guest that spins in a block which has this host code in place of its own. Returns where that begins. */
static uintptr_t open_planted(struct translated *t, const uint8_t *code, size_t len)
{
    const struct bt *bt;

    open_translated(t);
    guest_load(&t->g, spins);
    t->g.st.gpr[X86_R12] = UINT64_C(0x1122334455667788);
    bt_engine.set(t->vcpu, &t->g.st);
    assert_int_equal(bt_engine.run(t->vcpu, 300), ENGINE_DEBUG);
    bt = (const struct bt *)t->vcpu;
    const struct bt_block *block = cache_newest(bt, GUEST_CODE_AT);
    assert_non_null(block);
    assert_true(block->body_saved + len <= block->code_end);
    memcpy(bt->arena.write + (block->body_saved - bt->arena.exec), code, len);
    return (uintptr_t)block->body_saved;
}

static void expect_text(const char *text, const char *fmt, ...)
{
    char want[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(want, sizeof(want), fmt, ap);
    va_end(ap);
    if (!strstr(text, want))
        fail_msg("\"%s\" is not in:\n%s", want, text);
}

/* What every report has. */
static void expect_report(const char *text)
{
    expect_text(text, "vireo: CPU 0: internal error of the translator: ");
    expect_text(text, "\nrip  0000000000010000  rflags ");
    expect_text(text, "r12  1122334455667788");
    expect_text(text, "\nthe guest's memory at 10000: ff c1 8d 14 49 eb f9 ");
    expect_text(text, "Please report it");
    assert_int_equal(text[strlen(text) - 1], '\n');
}

/* An instruction that the translator cannot have meant: the block is shown, and which instruction it was. */
static void test_bad_instruction(void **state)
{
    static const struct {
        uint8_t code[8];
        size_t len;
        const char *what, *insn, *addr;
    } cases[] = {
        {{0x0f, 0x0b}, 2, "SIGILL", "ud2", NULL},
        {{0xcc}, 1, "SIGTRAP", "int3", NULL},
        {{0xf4}, 1, "SIGSEGV", "hlt", NULL},
        {{0x8b, 0x04, 0x25, 8, 0x10, 0, 0}, 7, "SIGSEGV", "mov eax", "0x1008"},
        {{0xf7, 0xf1}, 2, "SIGFPE", "div ecx", NULL}, /* EDX is three times ECX */
    };
    char text[32768];
    struct translated t;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t code[16] = {0};
        memcpy(code, cases[i].code, cases[i].len);
        uintptr_t at = open_planted(&t, code, sizeof(code));
        run_to_failure(&t, text, sizeof(text));
        expect_report(text);
        expect_text(text, "translator: %s (", cases[i].what);
        expect_text(text, ") in translated code, host RIP %#" PRIxPTR, at);
        if (cases[i].addr)
            expect_text(text, "fault address %s\n", cases[i].addr);
        expect_text(text, "\n   %16x  inc ecx\n", GUEST_CODE_AT);
        expect_text(text, "\n=> %16" PRIxPTR "  %s", at, cases[i].insn);
        assert_int_equal(bt_engine.run(t.vcpu, 0), ENGINE_FAIL); /* and it stays so */
        close_translated(&t);
    }
}

/* Generated code that jumps to where none of it is. */
static void test_wild_jump(void **state)
{
    static const uint8_t code[] = {0x41, 0xba, 0, 0x10, 0, 0, 0x41, 0xff, 0xe2}; /* mov r10d, 0x1000; jmp r10 */
    char text[32768];
    struct translated t;

    open_planted(&t, code, sizeof(code));
    run_to_failure(&t, text, sizeof(text));
    expect_text(
        text,
        "SIGSEGV (Segmentation fault) after a jump out of translated code, host RIP 0x1000, fault address 0x1000\n");
    expect_text(text, "r12  1122334455667788");
    expect_text(text, "r10 0000000000001000");
    expect_text(text, "Please report it");
    close_translated(&t);
}

/* What C finds wrong goes the same way: here a slow path that would not come back to generated code. */
static void test_bad_leave(void **state)
{
    uint8_t code[] = {0x41, 0xba, 0, 0x10, 0, 0, 0x41, 0xbb, 0, 0, 1, 0, 0xe9, 0, 0, 0, 0}; /* r10d, r11d; jmp slow */
    char text[32768];
    struct translated t;

    uintptr_t at = open_planted(&t, code, sizeof(code));
    const struct bt *bt = (const struct bt *)t.vcpu;
    store_le32(bt->arena.write + (at - (uintptr_t)bt->arena.exec) + 13,
               (uint32_t)((uintptr_t)bt->thunks.slow[0] - (at + sizeof(code))));
    run_to_failure(&t, text, sizeof(text));
    expect_report(text);
    expect_text(text, "to go on at host address 0x1000, outside translated code\n");
    close_translated(&t);
}

GUEST_CODE(asks_for_a_number, 64, "rdrand %eax; hlt\n");

/* A bug in C is no affair of the translator's: the process ends of it, as any would. */
static void test_crash_in_c(void **state)
{
    struct translated t;
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        open_translated(&t);
        guest_load(&t.g, asks_for_a_number);
        (void)!bt_engine.run(t.vcpu, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
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
        cmocka_unit_test(test_memory_fails), cmocka_unit_test(test_bad_instruction),
        cmocka_unit_test(test_wild_jump),    cmocka_unit_test(test_bad_leave),
        cmocka_unit_test(test_crash_in_c),   cmocka_unit_test(test_x87_between_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
