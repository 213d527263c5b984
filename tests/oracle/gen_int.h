/* What the generator's files share. */
#ifndef TESTS_ORACLE_GEN_INT_H
#define TESTS_ORACLE_GEN_INT_H

#include "gen.h"

/* Where an instruction's memory operand points, and what its registers must hold for that. */
struct gen_mem {
    bool used, bad; /* bad: meant to fault */
    uint32_t target;
    int base, index; /* registers to set, or -1 */
    uint64_t base_val, index_val;
    int vector_index; /* of a gather, or -1 */
    bool index64, rip;
};

/* Groups that control goes through again: a loop's or a subroutine's body, `first` to `last`. */
struct gen_span {
    bool sub;
    unsigned first, last, var;
};

struct gen {
    struct rng rng;
    struct seq *seq;
    const struct forms *forms;
    bool compat;
    unsigned n_regs; /* 16, or 8 in 32-bit code */
    unsigned group;
    uint16_t pointers; /* registers that certainly still hold their initial pointer into the data */
    uint64_t initial[X86_N_GPR];
    struct gen_span span[4]; /* open ones, the innermost last */
    unsigned n_spans, n_vars;
    int patched; /* a group whose first instruction gets changed, or -1 */
};

/* gen_emit.c: single instructions, encoded by hand; all return false when the sequence is full. */
bool gen_bytes(struct gen *g, const void *bytes, unsigned len);
bool gen_mov(struct gen *g, unsigned reg, uint64_t val);
bool gen_absolute(struct gen *g, const char *opcode, unsigned n, unsigned reg, uint32_t addr, const void *imm,
                  unsigned imm_len);
bool gen_store32(struct gen *g, uint32_t addr, uint32_t val);
bool gen_store64(struct gen *g, uint32_t addr, int32_t val);
bool gen_define_flags(struct gen *g);

/* gen_flow.c: groups of their own; on false nothing was added. */
bool gen_jump(struct gen *g);
bool gen_patch(struct gen *g);

/* What a group that others change begins with; nothing for other groups. False when the sequence is full. */
bool gen_group_begin(struct gen *g);

/* A loop or subroutine may begin here: moves on to its first group. Closes one that ends with this group: true if so. */
void gen_span_open(struct gen *g);
bool gen_span_close(struct gen *g);

/* gen_mem.c */
bool gen_mem_pick(struct gen *g, const struct form *form, unsigned size, ZydisEncoderOperand *op,
                  ZydisInstructionAttributes *prefixes, struct gen_mem *mem);
bool gen_mem_setup(struct gen *g, const struct gen_mem *mem);
uint32_t gen_target(struct gen *g, unsigned size, bool aligned);

/* gen_special.c: what particular instructions need before and after them. */
bool gen_before(struct gen *g, const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops,
                struct gen_mem *mem);
bool gen_after(struct gen *g, const ZydisDecodedInstruction *insn, const struct gen_mem *mem);

#endif
