/*
 * Machine code as text for a person, in Intel's syntax: the host's code and, since it is of the same kind, the guest's.
 *
 * Threads: any.
 */
#ifndef JIT_DISASM_H
#define JIT_DISASM_H

#include "base/util.h"

#define DISASM_LINE 96 /* bytes of text, enough for any instruction */

/*
 * One instruction at `code`, which runs at `addr`; code_size: 2, 4 or 8 bytes, as CS gives it. Returns its length; what is no instruction, or
 * ends beyond `avail`, is shown as a byte.
 */
size_t disasm_one(const uint8_t *code, size_t avail, uint64_t addr, unsigned code_size, char text[DISASM_LINE]);

#endif
