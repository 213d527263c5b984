/*
 * A sequence of instructions under test, and the sandbox it runs in: the same linear addresses natively and on the engine.
 *
 * Instructions come in groups: what the generator made to set up, run and tidy after one of them. Jumps go forward to
 * the start of a group, so that any group can be dropped when a failing sequence is made smaller.
 */
#ifndef TESTS_ORACLE_SEQ_H
#define TESTS_ORACLE_SEQ_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "x86/state.h"

/* All below 2 GiB, so that 32-bit and absolute addressing reach it. What lies around each region is not mapped. */
#define SEQ_CODE       0x10000000u
#define SEQ_CODE_SIZE  4096u
#define SEQ_DATA       0x20000000u
#define SEQ_DATA_SIZE  8192u /* read and write */
#define SEQ_POOL       (SEQ_DATA + SEQ_DATA_SIZE)
#define SEQ_POOL_SIZE  4096u /* constants, read only */
#define SEQ_STACK      0x30000000u
#define SEQ_STACK_SIZE 4096u
#define SEQ_GS_BASE    0x5000u

/* The writable memory of the sandbox in one piece: data, then stack. */
#define SEQ_MEM_SIZE (SEQ_DATA_SIZE + SEQ_STACK_SIZE)

/* The pool's contents: indices for gathers, which must stay near their base. */
#define SEQ_POOL_INDEX32   SEQ_POOL
#define SEQ_POOL_INDEX64   (SEQ_POOL + 2048)
#define SEQ_POOL_INDEX_MAX 16 /* their magnitude */

#define SEQ_MAX_INSNS  192
#define SEQ_MAX_GROUPS 64

enum seq_fix {
    SEQ_FIX_NONE,
    SEQ_FIX_LABEL_REL, /* field = address of group `target` - next instruction */
    SEQ_FIX_LABEL_ABS, /* field = address of group `target` */
    SEQ_FIX_DATA_REL,  /* field = address `target` - next instruction: RIP-relative */
};

struct seq_insn {
    uint8_t bytes[15], len;
    uint8_t group;
    uint8_t fix, fix_off, fix_size;
    uint32_t target;
    uint32_t flags_read, flags_def, flags_undef; /* status flags; def: certainly defined afterwards */
};

struct seq {
    uint64_t seed;
    bool compat; /* 32-bit code */
    unsigned n, n_groups;
    struct seq_insn insn[SEQ_MAX_INSNS];
};

/* The state before or after: what an unprivileged program sees, and the exception that ended it. */
struct seq_state {
    uint64_t gpr[X86_N_GPR], rip, rflags;
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged */
    uint32_t mxcsr;
    uint8_t st[8][10];
    uint8_t ymm[16][32];
    uint32_t vector, error;
    uint64_t cr2; /* #PF only */
};

/* One run of a sequence. */
struct seq_run {
    struct seq_state in, out;
    uint32_t code_len;
    uint8_t code[SEQ_CODE_SIZE];
    uint8_t mem_in[SEQ_MEM_SIZE], mem_out[SEQ_MEM_SIZE];
    bool compat;
    bool lost; /* the runner died or ran away */
};

void seq_decoder(ZydisDecoder *decoder, bool compat);

/* Appends an instruction to the group; false when the sequence is full or the bytes are no instruction. */
bool seq_add(struct seq *seq, unsigned group, const uint8_t *bytes, unsigned len);

/*
 * Which status flags are undefined before each instruction, on any path; false when an instruction reads such a flag. undef has
 * room for seq->n + 1.
 */
bool seq_undefined(const struct seq *seq, uint32_t *undef);

/* Writes the code, UD2 at its end; offsets (n + 1) may be NULL. False when a short jump does not reach. */
bool seq_assemble(const struct seq *seq, uint8_t *code, uint32_t *len, uint32_t *offsets);

/* Without the instructions of that group. */
void seq_drop(struct seq *seq, unsigned group);

void seq_print(const struct seq *seq, FILE *out);

/* The pool's bytes. */
void seq_pool(uint8_t pool[SEQ_POOL_SIZE]);

#endif
