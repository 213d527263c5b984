/* The translator's block cache when it is smaller than what runs: blocks are dropped, and the guest does not notice. */
#include "engine/bt/bt_engine.h"

#include "engine/bt/bt.h"
#include "interp_fixture.h"

#define PIECES 40000u
#define PIECE  64u /* bytes from one to the next */
#define FIRST  0x100000u
#define ROUNDS 3u

struct cached {
    struct interp_fixture *f;
    struct engine *engine;
    struct engine_vcpu *vcpu;
};

static int open_small(void **state)
{
    struct cached *c = calloc(1, sizeof(*c));
    void *fixture;
    struct err err;

    assert_non_null(c);
    assert_int_equal(fixture_open(&fixture), 0);
    c->f = fixture;
    const struct engine_conf conf = {.ram = &c->f->ram, .n_vcpus = 1, .code_cache = ENGINE_CODE_CACHE_LEAST};
    const struct engine_vcpu_conf vcpu = {.ram = &c->f->ram,
                                          .pio = &c->f->pio,
                                          .mmio = &c->f->mmio,
                                          .port = &c->f->port,
                                          .cpuid = &c->f->cpuid,
                                          .stats = &c->f->stats};
    assert_int_equal(bt_engine.open(&c->engine, &conf, &err), 0);
    assert_int_equal(bt_engine.vcpu_open(c->engine, &vcpu, &c->vcpu, &err), 0);
    *state = c;
    return 0;
}

static int close_small(void **state)
{
    struct cached *c = *state;
    void *fixture = c->f;

    bt_engine.vcpu_close(c->vcpu);
    bt_engine.close(c->engine);
    fixture_close(&fixture);
    free(c);
    return 0;
}

/* inc rax; jmp to the piece `next`. */
static void put_piece(struct ram *ram, unsigned i, unsigned next)
{
    uint8_t code[8] = {0x48, 0xff, 0xc0, 0xe9};

    store_le32(code + 4, (next - i) * PIECE - (uint32_t)sizeof(code));
    assert_int_equal(ram_write(ram, FIRST + i * PIECE, code, sizeof(code)), 0);
}

/* Pieces in a ring, some to the next one on the page, some far away; the last counts rounds in rbx, then halts. */
static void put_ring(struct ram *ram)
{
    static const uint8_t end[] = {0x48, 0xff, 0xcb, 0x0f, 0x85, 0, 0, 0, 0, 0xf4}; /* dec rbx; jnz; hlt */
    const unsigned half = PIECES / 2;
    uint8_t code[sizeof(end)];

    for (unsigned i = 0; i + 1 < half; i++) {
        put_piece(ram, i, half + i);
        put_piece(ram, half + i, i + 1);
    }
    memcpy(code, end, sizeof(end));
    store_le32(code + 5, 0u - (half - 1) * PIECE - 9);
    assert_int_equal(ram_write(ram, FIRST + (half - 1) * PIECE, code, sizeof(code)), 0);
}

/* Returns RAX at the end. */
static uint64_t run_ring(struct cached *c)
{
    struct x86_state st = c->f->st;

    st.rip = FIRST;
    st.gpr[X86_RBX] = ROUNDS;
    bt_engine.set(c->vcpu, &st);
    assert_int_equal(bt_engine.run(c->vcpu, 0), ENGINE_HALT);
    bt_engine.get(c->vcpu, &st);
    return st.gpr[X86_RAX];
}

static void every_block_runs_though_few_fit(void **state)
{
    struct cached *c = *state;
    const struct bt *bt = (const struct bt *)c->vcpu;

    put_ring(&c->f->ram);
    assert_int_equal(run_ring(c), (uint64_t)ROUNDS * (PIECES - 2));
    assert_true(bt->stats.count[ENGINE_TRANSLATOR_EVICTED] > 0); /* how many is for heat.c, which goes by the time */
}

/* Code that changes is noticed in segments filled for the second time as well. */
static void changed_blocks_are_dropped_among_reused_ones(void **state)
{
    struct cached *c = *state;
    static const uint8_t twice[] = {0x48, 0x83, 0xc0, 0x02}; /* add rax, 2 */

    put_ring(&c->f->ram);
    assert_int_equal(run_ring(c), (uint64_t)ROUNDS * (PIECES - 2));
    /* `add rax, 2` and the jump to where `inc rax` would have gone. */
    for (unsigned i = 0; i < 100; i++) {
        uint8_t code[9] = {0};
        memcpy(code, twice, sizeof(twice));
        code[4] = 0xe9;
        store_le32(code + 5, (PIECES / 2) * PIECE - (uint32_t)sizeof(code));
        assert_int_equal(ram_write(&c->f->ram, FIRST + i * PIECE, code, sizeof(code)), 0);
    }
    assert_int_equal(run_ring(c), (uint64_t)ROUNDS * (PIECES - 2 + 100));
}

/* Stores RCX, counted down to 0, to RDI. */
static void put_stores(struct ram *ram)
{
    static const uint8_t code[] = {0x48, 0x89, 0x0f, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4}; /* mov; dec; jnz; hlt */

    assert_int_equal(ram_write(ram, FIRST, code, sizeof(code)), 0);
}

static void run_stores(struct cached *c, uint64_t to, uint64_t n)
{
    struct x86_state st = c->f->st;

    st.rip = FIRST;
    st.gpr[X86_RCX] = n;
    st.gpr[X86_RDI] = to;
    bt_engine.set(c->vcpu, &st);
    assert_int_equal(bt_engine.run(c->vcpu, 0), ENGINE_HALT);
    assert_int_equal(load_le64(c->f->ram.base + to), 1);
}

/* To the page of the code that makes them, which therefore stays marked. */
static void stores_beside_code_leave_it_alone(void **state)
{
    struct cached *c = *state;
    const struct bt *bt = (const struct bt *)c->vcpu;
    const uint64_t *count = bt->stats.count;

    put_stores(&c->f->ram);
    run_stores(c, FIRST + 0x40, 4000);
    run_stores(c, FIRST + 0x3c, 4000); /* from one granule to the next: the first has code */
    assert_int_equal(count[ENGINE_TRANSLATOR_INVALIDATED], 0);
    uint32_t version = c->f->ram.code[FIRST >> RAM_PAGE_SHIFT].version;
    uint64_t slow = count[ENGINE_TRANSLATOR_SLOW_PATHS];
    run_stores(c, FIRST + 0xff8, 4000);
    assert_int_equal(count[ENGINE_TRANSLATOR_INVALIDATED], 0);
    assert_in_range(count[ENGINE_TRANSLATOR_SLOW_PATHS] - slow, 0, 10);
    assert_in_range(c->f->ram.code[FIRST >> RAM_PAGE_SHIFT].version - version, 0, 10);
}

/* Two pages in one slot of the TLB, in turn: once their accessed flags are set, the interpreter has no part in it. */
static void misses_of_the_tlb_are_no_slow_path(void **state)
{
    /* 1: mov rax, [rdi]; xor rdi, rdx; dec rcx; jnz 1b; hlt */
    static const uint8_t code[] = {0x48, 0x8b, 0x07, 0x48, 0x31, 0xd7, 0x48, 0xff, 0xc9, 0x75, 0xf5, 0xf4};
    const uint64_t distance = (uint64_t)TLB_SIZE << 12;
    struct cached *c = *state;
    const struct bt *bt = (const struct bt *)c->vcpu;
    struct x86_state st = c->f->st;
    uint8_t *directory = c->f->ram.base + 0x3000; /* of pages of 2 MiB: the same again from 16 MiB on */

    memcpy(directory + (distance >> 21) * 8, directory, (distance >> 21) * 8);
    assert_int_equal(ram_write(&c->f->ram, FIRST, code, sizeof(code)), 0);
    assert_int_equal(ram_write(&c->f->ram, 0x10000, "dubious?", 8), 0);
    st.rip = FIRST;
    st.gpr[X86_RCX] = 10000;
    st.gpr[X86_RDI] = 0x10000;
    st.gpr[X86_RDX] = distance;
    bt_engine.set(c->vcpu, &st);
    assert_int_equal(bt_engine.run(c->vcpu, 0), ENGINE_HALT);
    bt_engine.get(c->vcpu, &st);
    assert_memory_equal(&st.gpr[X86_RAX], "dubious?", 8);
    assert_in_range(bt->stats.count[ENGINE_TRANSLATOR_SLOW_PATHS], 0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_block_runs_though_few_fit, open_small, close_small),
        cmocka_unit_test_setup_teardown(changed_blocks_are_dropped_among_reused_ones, open_small, close_small),
        cmocka_unit_test_setup_teardown(stores_beside_code_leave_it_alone, open_small, close_small),
        cmocka_unit_test_setup_teardown(misses_of_the_tlb_are_no_slow_path, open_small, close_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
