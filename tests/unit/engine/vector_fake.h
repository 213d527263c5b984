/* A vCPU with a page of memory and nothing else, for tests of instructions: exceptions end a run and are told. */
#ifndef TESTS_UNIT_ENGINE_VECTOR_FAKE_H
#define TESTS_UNIT_ENGINE_VECTOR_FAKE_H

#include "engine/interp/interp.h"

#define FAKE_BASE UINT64_C(0x400000) /* linear address of the memory */
#define FAKE_SIZE 4096u
#define FAKE_NONE 0x100u /* no exception */

struct interp *fake_open(void);
void fake_close(struct interp *c);
uint8_t *fake_memory(struct interp *c);

/* State and memory; each keeps its own vector unit. */
void fake_copy(struct interp *to, const struct interp *from);

/* Runs one instruction: the vector it raised, or FAKE_NONE. */
unsigned fake_run(struct interp *c, const struct insn *in);

/* From now on, whether memory counts as a device, reached by copies alone. */
void fake_set_device(struct interp *c, bool device);

#endif
