/*
 * A bare vCPU, of the reference engine unless said otherwise, for tests: a little RAM, no device, descriptor tables for every mode, and handlers that push
 * their vector and halt. So each test is some guest code, and a look at where it halted.
 */
#ifndef TESTS_UNIT_ENGINE_GUEST_H
#define TESTS_UNIT_ENGINE_GUEST_H

#include "engine/interp/interp_engine.h"
#include "unit.h"

/* Guest code in the test's own file: GUEST_CODE(name, 16|32|64, "assembler") makes name_start and name_end. */
#define GUEST_CODE(name, bits, text)                                                                                  \
    __asm__(".pushsection .rodata\n.code" #bits "\n.globl " #name "_start\n" #name "_start:\n" text "\n.globl " #name \
            "_end\n" #name "_end:\n.code64\n.popsection\n");                                                          \
    extern const uint8_t name##_start[], name##_end[]

#define guest_load(g, name) guest_copy(g, GUEST_CODE_AT, name##_start, (size_t)(name##_end - name##_start))

enum {
    GUEST_IDT_AT = 0x1000,
    GUEST_GDT_AT = 0x2000,
    GUEST_TSS_AT = 0x3000,  /* of the running task; its I/O bitmap forbids all */
    GUEST_TSS2_AT = 0x6000, /* another task's, 32-bit */
    GUEST_STUBS_AT = 0x8000,
    GUEST_CODE_AT = 0x10000,
    GUEST_STACK = 0x20000,  /* tops */
    GUEST_STACK0 = 0x24000, /* RSP0 */
    GUEST_IST1 = 0x28000,
    GUEST_PAGES_AT = 0x40000, /* tables of an identity map: user pages, writable */
    GUEST_RAM = 0x400000,
};

enum {
    SEL_CODE32 = 0x08,
    SEL_DATA = 0x10,
    SEL_USER_CODE32 = 0x1b,
    SEL_USER_DATA = 0x23,
    SEL_CODE64 = 0x28,
    SEL_USER_CODE64 = 0x33,
    SEL_TSS = 0x38, /* 16 bytes */
    SEL_TSS2 = 0x48,
    SEL_GATE = 0x50, /* 16 bytes: for the test to fill */
    SEL_CONFORMING = 0x60,
    SEL_ABSENT = 0x68, /* data, not present */
    SEL_CODE16 = 0x70,
    SEL_DATA16 = 0x78,
    GUEST_GDT_LIMIT = 0x7f,
};

struct guest {
    struct ram ram;
    struct bus pio, mmio;
    struct vcpu_port port;
    struct clock clock;
    struct x86_cpuid cpuid;
    struct engine_stats stats;
    const struct engine_type *type;
    struct engine *engine;
    struct engine_vcpu *vcpu;
    struct x86_state st;
};

enum guest_mode { GUEST_REAL, GUEST_PROTECTED, GUEST_LONG };

/* Ready to run at GUEST_CODE_AT in that mode, CPL 0, interrupts off; paging off but in GUEST_LONG. */
void guest_open(struct guest *g, enum guest_mode mode);
void guest_open_on(struct guest *g, enum guest_mode mode, const struct engine_type *type);
void guest_close(struct guest *g);
void guest_copy(struct guest *g, uint64_t gpa, const void *data, size_t len);
uint8_t *guest_at(struct guest *g, uint64_t gpa);

/* The state to user mode: CPL 3 segments, stack at GUEST_STACK. */
void guest_user(struct guest *g);

/* Turns 32-bit (4 MiB pages) paging on: an identity map for all. */
void guest_paging32(struct guest *g);

/* Runs g->st until the guest stops; g->st is the state then. At most 10,000 instructions. */
enum engine_exit guest_run(struct guest *g);

/* Value number n from the top of the stack the handler halted on: 0 is the vector. */
uint64_t guest_frame(struct guest *g, unsigned n);

/* Runs, and expects a halt in the handler of `vector`. */
void guest_expect(struct guest *g, unsigned vector);
/* The same, for one that has an error code. */
void guest_expect_error(struct guest *g, unsigned vector, uint64_t error);

#endif
