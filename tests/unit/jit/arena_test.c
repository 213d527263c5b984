/* Code memory: what is written through one alias runs through the other, and neither is both. */
#include "jit/arena.h"

#include <stdio.h>

#include "unit.h"

typedef int (*code_fn)(void);

static void put_return(uint8_t *p, int value)
{
    p[0] = 0xb8; /* mov eax, imm32; ret */
    store_le32(p + 1, (uint32_t)value);
    p[5] = 0xc3;
}

static void test_runs(void **ctx)
{
    struct jit_arena arena;
    assert_int_equal(jit_arena_open(&arena, 10000, NULL), 0);
    assert_int_equal(arena.size, 12288);
    uint8_t *a = jit_arena_alloc(&arena, 6), *b = jit_arena_alloc(&arena, 6);
    assert_non_null(a);
    assert_int_equal(b - a, JIT_ARENA_ALIGN);
    put_return(a, 41);
    put_return(b, 42);
    assert_int_equal(((code_fn)(uintptr_t)jit_arena_exec(&arena, a))(), 41);
    assert_int_equal(((code_fn)(uintptr_t)jit_arena_exec(&arena, b))(), 42);
    put_return(a, 43);
    assert_int_equal(((code_fn)(uintptr_t)jit_arena_exec(&arena, a))(), 43);
    assert_true(jit_arena_holds(&arena, (uintptr_t)jit_arena_exec(&arena, b)));
    assert_false(jit_arena_holds(&arena, (uintptr_t)arena.exec + arena.size));
    assert_false(jit_arena_holds(&arena, (uintptr_t)arena.exec - 1));
    jit_arena_close(&arena);
}

static void test_fills_and_resets(void **ctx)
{
    struct jit_arena arena;
    assert_int_equal(jit_arena_open(&arena, 4096, NULL), 0);
    for (unsigned i = 0; i < 4096 / JIT_ARENA_ALIGN; i++)
        assert_non_null(jit_arena_alloc(&arena, 1));
    assert_null(jit_arena_alloc(&arena, 1));
    jit_arena_reset(&arena);
    assert_null(jit_arena_alloc(&arena, 4097));
    assert_null(jit_arena_alloc(&arena, SIZE_MAX - 8));
    assert_ptr_equal(jit_arena_alloc(&arena, 4096), arena.write);
    jit_arena_close(&arena);
}

static void check_mapping(uintptr_t addr, const char *perms)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512], found[8] = "";
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned long lo, hi;
        char p[8];
        if (sscanf(line, "%lx-%lx %7s", &lo, &hi, p) == 3 && addr >= lo && addr < hi)
            memcpy(found, p, sizeof(found));
    }
    fclose(f);
    assert_string_equal(found, perms);
}

static void test_never_both(void **ctx)
{
    struct jit_arena arena;
    assert_int_equal(jit_arena_open(&arena, 4096, NULL), 0);
    check_mapping((uintptr_t)arena.write, "rw-s");
    check_mapping((uintptr_t)arena.exec, "r-xs");
    jit_arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_fills_and_resets),
        cmocka_unit_test(test_never_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
