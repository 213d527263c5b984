/* A vCPU with a page of memory and nothing else, for tests of instructions: exceptions end a run and are told. */
#ifndef TESTS_UNIT_ENGINE_VECTOR_FAKE_H
#define TESTS_UNIT_ENGINE_VECTOR_FAKE_H

#include "engine/interp/bind.h"

#define FAKE_BASE UINT64_C(0x400000) /* linear address of the memory */
#define FAKE_SIZE 4096u
#define FAKE_NONE 0x100u /* no exception */

struct interp *fake_open(void);
void fake_close(struct interp *c);
uint8_t *fake_memory(struct interp *c);

/* State and memory; each keeps its own vector unit. */
void fake_copy(struct interp *to, const struct interp *from);

/* Decodes and runs the instruction `hex` in the mode of c->code_size, RIP 0x1000; the vector it raised, or FAKE_NONE. */
unsigned fake_exec(struct interp *c, const char *hex);

/* The handler of a decoded instruction and its operands, as bind_insn() fills them for flat 64-bit addressing; NULL for #UD. */
interp_fn fake_bind(const struct x86_insn *xi, struct insn *in);

/* Runs one bound instruction: the vector it raised, or FAKE_NONE. */
unsigned fake_run(struct interp *c, const struct insn *in);

/* From now on, whether memory counts as a device, reached by copies alone. */
void fake_set_device(struct interp *c, bool device);

#endif
