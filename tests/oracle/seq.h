/*
 * A sequence of instructions under test, and the sandbox it runs in: the same linear addresses natively and on the engine.
 *
 * Instructions come in groups: what the generator made to set up, run and tidy after one of them. Jumps go to the start of
 * a group, so that any group can be dropped when a failing sequence is made smaller; those backward count down a variable that is
 * there from the start, so that no loop is endless when a part of it is gone.
 */
#ifndef TESTS_ORACLE_SEQ_H
#define TESTS_ORACLE_SEQ_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "seq_layout.h"
#include "x86/state.h"

#define SEQ_MAX_INSNS  192
#define SEQ_MAX_GROUPS 64

/* Pages whose state varies. For the code's second page RO means that nothing is executed there. */
enum seq_page { SEQ_PAGE_DATA0, SEQ_PAGE_DATA1, SEQ_PAGE_STACK, SEQ_PAGE_CODE1, SEQ_N_PAGES };
enum seq_page_state { SEQ_PAGE_RW, SEQ_PAGE_RO, SEQ_PAGE_ABSENT };

uint32_t seq_page_address(enum seq_page page);

enum seq_fix {
    SEQ_FIX_NONE,
    SEQ_FIX_LABEL_REL, /* field = address of group `target` - next instruction */
    SEQ_FIX_LABEL_ABS, /* field = address of group `target` */
    SEQ_FIX_DATA_REL,  /* field = address `target` - next instruction: RIP-relative */
    SEQ_FIX_PATCH,     /* field = address of the immediate operand with which group `target` begins */
    SEQ_FIX_FLOW,      /* no field; group `target` may come next */
};

struct seq_insn {
    uint8_t bytes[15], len;
    uint8_t group;
    uint8_t fix, fix_off, fix_size;
    bool wipe;      /* removes from memory what cannot be compared */
    bool patchable; /* mov r32, imm32, which others may change */
    bool calls, returns;
    uint32_t target;
    uint32_t flags_read, flags_def, flags_undef; /* status flags; def: certainly defined afterwards */
};

struct seq {
    uint64_t seed;
    bool compat;     /* 32-bit code */
    uint32_t origin; /* where in the code's pages it begins */
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

/* What a program sees between two instructions. */
struct seq_step {
    uint64_t rip, rflags, gpr[X86_N_GPR];
};

#define SEQ_MAX_STEPS 256

/* What a run leaves. */
struct seq_result {
    struct seq_state state;
    uint8_t mem[SEQ_MEM_SIZE];
    struct seq_step step[SEQ_MAX_STEPS]; /* single-stepped: the start, then each trap */
    unsigned n_steps;
    bool lost; /* the runner died or ran away */
};

/* One run of a sequence. */
struct seq_run {
    struct seq_state in;
    uint8_t code[SEQ_CODE_SIZE];
    uint8_t mem_in[SEQ_MEM_SIZE];
    uint8_t pages[SEQ_N_PAGES]; /* enum seq_page_state */
    bool compat;
    bool
        single_step; /* TF is set from the start and again behind each trap; the one that finds no room in `step` is the end */
    struct seq_result out;
};

/* From and to an XSAVE area (standard format, components 0 to 2; SDM Vol. 1 13.4): x87, MXCSR and vectors. */
void seq_from_xsave(struct seq_state *st, const uint8_t *area);
void seq_to_xsave(const struct seq_state *st, uint8_t *area);
#define SEQ_XSAVE_HEADER 512

void seq_decoder(ZydisDecoder *decoder, bool compat);

/* Appends an instruction to the group; false when the sequence is full or the bytes are no instruction. */
bool seq_add(struct seq *seq, unsigned group, const uint8_t *bytes, unsigned len);

/*
 * Which status flags are undefined before each instruction, on any path; false when an instruction reads such a flag. undef has
 * room for seq->n + 1.
 */
bool seq_undefined(const struct seq *seq, uint32_t *undef);

/*
 * Writes the code's pages, UD2 at the sequence's end; offsets (n + 1, from SEQ_CODE) may be NULL. False when it is too long, or a short
 * jump does not reach.
 */
bool seq_assemble(const struct seq *seq, uint8_t code[SEQ_CODE_SIZE], uint32_t *offsets);

/* Without the instructions of that group. */
void seq_drop(struct seq *seq, unsigned group);

void seq_print(const struct seq *seq, FILE *out);

/* The pool's bytes. */
void seq_pool(uint8_t pool[SEQ_POOL_SIZE]);

#endif
