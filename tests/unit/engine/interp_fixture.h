/*
 * A vCPU of the reference engine over 16 MiB of RAM, for tests that run bytes of code: 64-bit code with the first 16 MiB
 * mapped one to one (tables at 0x1000), or 16- and 32-bit code in flat segments without paging.
 */
#ifndef TESTS_UNIT_ENGINE_INTERP_FIXTURE_H
#define TESTS_UNIT_ENGINE_INTERP_FIXTURE_H

#include <stdlib.h>

#include "../unit.h"
#include "engine/interp/interp_engine.h"

#define FIXTURE_CODE  0x10000u
#define FIXTURE_DATA  0x20000u
#define FIXTURE_STACK 0x30000u

struct interp_fixture {
    struct ram ram;
    struct bus pio, mmio;
    struct vcpu_port port;
    struct x86_cpuid cpuid;
    struct engine_stats stats;
    struct engine *engine;
    struct engine_vcpu *vcpu;
    struct x86_state st;
};

static inline void fixture_mode(struct interp_fixture *f, unsigned code_size)
{
    struct x86_state *st = &f->st;
    uint16_t code = X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITE | X86_SEG_ACCESSED | X86_SEG_G;
    uint16_t data = X86_SEG_P | X86_SEG_S | X86_SEG_WRITE | X86_SEG_ACCESSED | X86_SEG_G;

    x86_state_reset(st, true);
    st->cr0 |= X86_CR0_PE;
    code |= code_size == 8 ? X86_SEG_L : code_size == 4 ? X86_SEG_DB : 0;
    data |= code_size != 2 ? X86_SEG_DB : 0;
    for (unsigned i = 0; i < X86_N_SEG; i++)
        st->seg[i] = (struct x86_seg){.limit = UINT32_MAX, .sel = 16, .attr = data};
    st->seg[X86_CS] = (struct x86_seg){.limit = UINT32_MAX, .sel = 8, .attr = code};
    st->idtr.limit = 0; /* any exception ends in a triple fault */
    st->rflags = X86_FLAG_FIXED;
    st->gpr[X86_RSP] = code_size == 2 ? 0xf000 : FIXTURE_STACK;
    st->rip = FIXTURE_CODE;
    if (code_size == 8) {
        st->cr4 |= X86_CR4_PAE;
        st->cr3 = 0x1000;
        st->efer |= X86_EFER_LME | X86_EFER_LMA;
        st->cr0 |= X86_CR0_PG;
    }
}

static inline int fixture_open(void **state)
{
    struct interp_fixture *f = aligned_alloc(64, align_up(sizeof(*f), 64));
    struct engine_vcpu_conf conf;
    struct err err;

    assert_non_null(f);
    memset(f, 0, sizeof(*f));
    assert_int_equal(ram_open(&f->ram, 16 * MIB, 2 * GIB, &err), 0);
    bus_init(&f->pio, NULL);
    bus_init(&f->mmio, NULL);
    x86_cpuid_init(&f->cpuid, &(struct x86_cpuid_conf){.n_cpus = 1, .tsc_hz = 1000000000, .phys_bits = 39});
    conf = (struct engine_vcpu_conf){
        .ram = &f->ram, .pio = &f->pio, .mmio = &f->mmio, .port = &f->port, .cpuid = &f->cpuid, .stats = &f->stats};
    assert_int_equal(interp_engine.open(&f->engine, &(struct engine_conf){.ram = &f->ram, .n_vcpus = 1}, &err), 0);
    assert_int_equal(interp_engine.vcpu_open(f->engine, &conf, &f->vcpu, &err), 0);
    store_le64(f->ram.base + 0x1000, 0x2000 | 7);
    store_le64(f->ram.base + 0x2000, 0x3000 | 7);
    for (unsigned i = 0; i < 8; i++)
        store_le64(f->ram.base + 0x3000 + 8 * i, (uint64_t)i << 21 | 0x87);
    fixture_mode(f, 8);
    *state = f;
    return 0;
}

static inline int fixture_close(void **state)
{
    struct interp_fixture *f = *state;

    interp_engine.vcpu_close(f->vcpu);
    interp_engine.close(f->engine);
    bus_fini(&f->mmio);
    bus_fini(&f->pio);
    ram_close(&f->ram);
    free(f);
    return 0;
}

/* Copies code to FIXTURE_CODE and runs n instructions from f->st, which then holds the outcome. */
static inline enum engine_exit fixture_run(struct interp_fixture *f, const void *code, size_t len, uint64_t n)
{
    enum engine_exit exit;

    assert_int_equal(ram_write(&f->ram, FIXTURE_CODE, code, len), 0);
    interp_engine.set(f->vcpu, &f->st);
    exit = interp_engine.run(f->vcpu, n);
    interp_engine.get(f->vcpu, &f->st);
    return exit;
}

#define RUN(f, n, ...) fixture_run(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), n)

#endif
