/*
 * An interpreter's loop: indirect jumps, each from the end of one handler to the next, over a bytecode with registers, memory and
 * calls. Its program counts primes with a sieve and computes a Fibonacci number recursively.
 */
#include <errno.h>
#include <stdlib.h>

#include "workload.h"

#define SIEVE_LIMIT 4096
#define FIBONACCI   13
#define STACK_SLOTS 128 /* registers of all frames: FIB takes three a level */
#define CALL_DEPTH  32

enum op {
    OP_TRAP,  /* what a gap in the program below would hold */
    OP_SET,   /* a = imm */
    OP_ADD,   /* a = b + c */
    OP_ADDI,  /* a = b + imm */
    OP_MUL,   /* a = b * c */
    OP_XOR,   /* a = b ^ c */
    OP_LOAD,  /* a = memory[b] */
    OP_STORE, /* memory[b] = a */
    OP_JZ,    /* to imm when a is 0 */
    OP_JLT,   /* to imm when a < b */
    OP_CALL,  /* to imm; the callee's registers begin at our register a */
    OP_RET,
    OP_HALT,
};

struct insn {
    uint8_t op;
    uint8_t a, b, c;
    int32_t imm;
};

/* Addresses in the program. A wrong one overlaps (the compiler refuses) or leaves a gap (OP_TRAP). */
enum { ENTRY = 0, FILL = 3, OUTER = 8, INNER = 13, NEXT = 16, FIB = 22, FIB_BASE = 30 };

/* r0 is carried from pass to pass: each begins with what the one before came to. */
static const struct insn program[] = {
    [ENTRY] = {OP_SET, 1, 0, 0, 2},
    {OP_SET, 2, 0, 0, SIEVE_LIMIT},
    {OP_SET, 6, 0, 0, 31},
    [FILL] = {OP_STORE, 2, 1, 0, 0},
    {OP_ADDI, 1, 1, 0, 1},
    {OP_JLT, 1, 2, 0, FILL},
    {OP_SET, 1, 0, 0, 2},
    {OP_SET, 5, 0, 0, 0},
    [OUTER] = {OP_LOAD, 4, 1, 0, 0},
    {OP_JZ, 4, 0, 0, NEXT},
    {OP_XOR, 0, 0, 1, 0},
    {OP_MUL, 0, 0, 6, 0},
    {OP_ADD, 3, 1, 1, 0},
    [INNER] = {OP_STORE, 5, 3, 0, 0},
    {OP_ADD, 3, 3, 1, 0},
    {OP_JLT, 3, 2, 0, INNER},
    [NEXT] = {OP_ADDI, 1, 1, 0, 1},
    {OP_JLT, 1, 2, 0, OUTER},
    {OP_SET, 7, 0, 0, FIBONACCI},
    {OP_CALL, 7, 0, 0, FIB},
    {OP_ADD, 0, 0, 7, 0},
    {OP_HALT, 0, 0, 0, 0},
    [FIB] = {OP_SET, 1, 0, 0, 2},
    {OP_JLT, 0, 1, 0, FIB_BASE},
    {OP_ADDI, 3, 0, 0, -1},
    {OP_CALL, 3, 0, 0, FIB},
    {OP_ADDI, 1, 3, 0, 0},
    {OP_ADDI, 3, 0, 0, -2},
    {OP_CALL, 3, 0, 0, FIB},
    {OP_ADD, 0, 1, 3, 0},
    [FIB_BASE] = {OP_RET, 0, 0, 0, 0},
};

struct machine {
    int64_t stack[STACK_SLOTS];
    int64_t memory[2 * SIEVE_LIMIT]; /* the inner loop stores once before it looks at the limit */
    struct {
        const struct insn *pc;
        int64_t *reg;
    } call[CALL_DEPTH];
};

static int bytecode_setup(uint64_t n, void **state)
{
    (void)n;
    *state = calloc(1, sizeof(struct machine));
    return *state ? 0 : -ENOMEM;
}

#define NEXT_INSN goto *handler[(++pc)->op]
#define TAKE(to)  goto *handler[(pc = &program[to])->op]

static int execute(struct machine *m)
{
    static const void *const handler[] = {
        [OP_TRAP] = &&trap,   [OP_SET] = &&set,   [OP_ADD] = &&add,   [OP_ADDI] = &&addi, [OP_MUL] = &&mul,
        [OP_XOR] = &&xor,     [OP_LOAD] = &&load, [OP_JZ] = &&jz,     [OP_JLT] = &&jlt,   [OP_CALL] = &&call,
        [OP_STORE] = &&store, [OP_RET] = &&ret,   [OP_HALT] = &&halt,
    };
    const struct insn *pc;
    int64_t *reg = m->stack;
    unsigned depth = 0;

    TAKE(ENTRY);
set:
    reg[pc->a] = pc->imm;
    NEXT_INSN;
add:
    reg[pc->a] = (int64_t)((uint64_t)reg[pc->b] + (uint64_t)reg[pc->c]);
    NEXT_INSN;
addi:
    reg[pc->a] = reg[pc->b] + pc->imm;
    NEXT_INSN;
mul:
    reg[pc->a] = (int64_t)((uint64_t)reg[pc->b] * (uint64_t)reg[pc->c]);
    NEXT_INSN;
    xor : reg[pc->a] = reg[pc->b] ^ reg[pc->c];
    NEXT_INSN;
load:
    reg[pc->a] = m->memory[reg[pc->b]];
    NEXT_INSN;
store:
    m->memory[reg[pc->b]] = reg[pc->a];
    NEXT_INSN;
jz:
    if (reg[pc->a] == 0)
        TAKE(pc->imm);
    NEXT_INSN;
jlt:
    if (reg[pc->a] < reg[pc->b])
        TAKE(pc->imm);
    NEXT_INSN;
call:
    m->call[depth].pc = pc;
    m->call[depth++].reg = reg;
    reg += pc->a;
    TAKE(pc->imm);
ret:
    pc = m->call[--depth].pc;
    reg = m->call[depth].reg;
    NEXT_INSN;
halt:
    return 0;
trap:
    return -EILSEQ;
}

static int bytecode_run(void *state, uint64_t n, uint64_t *checksum)
{
    struct machine *m = state;

    for (uint64_t i = 0; i < n; i++) {
        int r = execute(m);

        if (r)
            return r;
    }
    *checksum = (uint64_t)m->stack[0];
    return 0;
}

const struct workload bytecode_workload = {
    .name = "bytecode",
    .unit = "pass of a program, 62 thousand bytecode instructions",
    .iterations = 5000,
    .setup = bytecode_setup,
    .run = bytecode_run,
    .finish = free,
};
