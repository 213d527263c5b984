/*
 * An assembler for x86-64, as small as generating code in one pass needs: bytes into a buffer, the usual shapes of instructions, and jumps
 * whose targets come later. Knows no guest.
 *
 * Registers are their numbers in the encoding. An opcode above 0xff is one of the 0F map: 0x1af is 0F AF. Code that does not fit sets
 * `full` and is dropped: the caller looks at the end.
 *
 * Threads: an emitter belongs to whoever fills it.
 */
#ifndef JIT_EMIT_H
#define JIT_EMIT_H

#include <stdbool.h>

#include "base/util.h"

#define EMIT_FARS 160

struct emit {
    uint8_t *start, *p, *end; /* where code is written */
    ptrdiff_t exec;           /* from there to where it runs */
    bool full;
    /* For whoever wants to move the code: */
    unsigned n_wide; /* MOVs of 64-bit constants in it */
    unsigned n_far;  /* displacements that lead out of it; `far` has the first of them, as offsets from `start` */
    uint16_t far[EMIT_FARS];
};

enum emit_reg {
    EMIT_RAX,
    EMIT_RCX,
    EMIT_RDX,
    EMIT_RBX,
    EMIT_RSP,
    EMIT_RBP,
    EMIT_RSI,
    EMIT_RDI,
    EMIT_R8,
    EMIT_R9,
    EMIT_R10,
    EMIT_R11,
    EMIT_R12,
    EMIT_R13,
    EMIT_R14,
    EMIT_R15,
    EMIT_NONE /* no base, no index */
};

/* Condition codes as in Jcc (SDM Vol. 2D B.1.4.7). */
enum emit_cc { EMIT_O = 0, EMIT_B = 2, EMIT_AE = 3, EMIT_E = 4, EMIT_NE = 5, EMIT_BE = 6, EMIT_A = 7, EMIT_S = 8 };

enum emit_width { EMIT_32 = 0, EMIT_64 = 1 };

/* Opcodes for emit_rr, emit_mem and emit_abs, in their r <- r/m or r/m <- r direction. */
enum emit_op {
    EMIT_ADD_LOAD = 0x03,
    EMIT_SUB_STORE = 0x29,
    EMIT_XOR_LOAD = 0x33,
    EMIT_CMP_LOAD = 0x3b,
    EMIT_MOVSXD = 0x63,
    EMIT_MOV_STORE = 0x89,
    EMIT_MOV_LOAD = 0x8b,
    EMIT_LEA = 0x8d,
    EMIT_MOVZX8 = 0x1b6,
    EMIT_MOVZX16 = 0x1b7,
};

void emit_init(struct emit *e, uint8_t *write, size_t len, const uint8_t *exec);

void emit_bytes(struct emit *e, const void *bytes, size_t n);
void emit8(struct emit *e, uint8_t v);
void emit16(struct emit *e, uint16_t v);
void emit32(struct emit *e, uint32_t v);
void emit64(struct emit *e, uint64_t v);

#define EMIT(e, ...) emit_bytes(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Where the next byte will run. */
static inline const uint8_t *emit_here(const struct emit *e)
{
    return e->p + e->exec;
}

/* op reg, rm between registers. */
void emit_rr(struct emit *e, enum emit_width w, unsigned op, unsigned reg, unsigned rm);

/* op with a memory operand [base + index << scale + disp]. */
void emit_mem(struct emit *e, enum emit_width w, unsigned op, unsigned reg, unsigned base, unsigned index,
              unsigned scale, int32_t disp);

/* The same with a displacement of 32 bits, whatever its value: the last four bytes. */
void emit_mem_disp32(struct emit *e, enum emit_width w, unsigned op, unsigned reg, unsigned base, int32_t disp);

/* op with a memory operand at an absolute address below 2 GiB. */
void emit_abs(struct emit *e, enum emit_width w, unsigned op, unsigned reg, uint32_t addr);

/* The shortest MOV of a constant that leaves flags alone. */
void emit_mov_imm(struct emit *e, unsigned reg, uint64_t v);

/* 81 /n: ALU operation n with a 32-bit constant (0 ADD, 4 AND, 7 CMP). */
void emit_alu_imm(struct emit *e, enum emit_width w, unsigned n, unsigned reg, uint32_t imm);

/* SHR reg, n. */
void emit_shr(struct emit *e, enum emit_width w, unsigned reg, uint8_t n);

/* Jumps to code that exists: `target` is where it runs. */
void emit_jmp(struct emit *e, const uint8_t *target);
void emit_jcc(struct emit *e, unsigned cc, const uint8_t *target);

/* Jumps whose target comes later: the place of their 32-bit displacement, for emit_patch(). */
uint8_t *emit_jmp_later(struct emit *e);
uint8_t *emit_jcc_later(struct emit *e, unsigned cc);

/* Points the jump whose displacement is at `at` (writable address) to `target` (where it runs). */
void emit_patch(struct emit *e, uint8_t *at, const uint8_t *target);

/* Fills up to a multiple of `align` with the long no-operations. */
void emit_align(struct emit *e, unsigned align);

#endif
