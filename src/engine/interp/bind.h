/*
 * From a decoded instruction to a handler and its resolved operands. Each op_*.c (and vector's files) exports a table of what it
 * implements; binds.def is the list of them. Built once at engine open; read-only after that.
 */
#ifndef ENGINE_INTERP_BIND_H
#define ENGINE_INTERP_BIND_H

#include "engine/interp/interp.h"
#include "x86/decode.h"

struct bind_entry {
    uint16_t mnemonic; /* ZYDIS_MNEMONIC_; 0 ends a table */
    /* Picks the handler for the form at hand and may change *in, whose operands are resolved already. NULL: #UD. */
    interp_fn (*bind)(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid);
};

#define BIND_TABLE(table) extern const struct bind_entry table[];
#include "engine/interp/binds.def"
#undef BIND_TABLE

/*
 * A mnemonic may stand in several tables (MOV with general and with control registers, MOVSD of strings and of SSE): each bind()
 * returns NULL for the forms that are not its own.
 */
#define BIND_SLOTS 3

struct bind_map {
    const struct bind_entry *entry[ZYDIS_MNEMONIC_MAX_VALUE + 1][BIND_SLOTS];
};

void bind_map_init(struct bind_map *map);

/* LZCNT or TZCNT on a CPU without it, which does not see the prefix that makes it of BSR or BSF. */
bool bind_is_scan(const struct x86_insn *xi, const struct x86_features *f);

/* Fills all of *in but `off`, which is set: the instruction's place in its block. Always gives a handler (op_ud at worst). */
void bind_insn(const struct bind_map *map, struct insn *in, const struct x86_insn *xi, const struct x86_cpuid *cpuid);

/*
 * How an instruction hands over to the next: straight on; as a branch that leaves mode and mappings alone, so that blocks may be
 * chained; or by changing what the next block depends on.
 */
enum bind_end { BIND_CONTINUES, BIND_BRANCHES, BIND_STOPS };

enum bind_end bind_end(const struct x86_insn *xi);

/* General registers: the offset in struct interp (AH to BH: one byte on). Vectors: that of st.ymm. Others: their number. */
uint16_t bind_reg(ZydisRegister reg);

/* 0 to 3 for 1, 2, 4 and 8 bytes: the index of a handler among its sizes. */
static inline unsigned bind_size_index(unsigned bytes)
{
    return (unsigned)__builtin_ctz(bytes | 8) & 3;
}

static inline bool bind_is_mem(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

static inline bool bind_is_reg(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER;
}

static inline bool bind_is_imm(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

/*
 * The usual two-operand shapes, after which `reg` is the destination register (or the source, when the destination is memory) and
 * `rm` the source register.
 */
enum bind_form { BIND_RR, BIND_RI, BIND_RM, BIND_MR, BIND_MI, BIND_N_FORMS };

enum bind_form bind_form2(const struct x86_insn *xi, struct insn *in);

/* Raise #UD, and #GP(0) for an instruction of more than 15 bytes. */
void op_ud(struct interp *c, const struct insn *in);
void op_gp(struct interp *c, const struct insn *in);

#endif
