/*
 * Instruction bytes to a decoded instruction, as an x86-64-v3 Intel processor reads them: a thin layer over Zydis, whose structures
 * are the result. Pure; any thread.
 */
#ifndef X86_DECODE_H
#define X86_DECODE_H

#include <Zydis/Zydis.h>
#include <stdbool.h>

#include "base/util.h"

#define X86_INSN_MAX 15 /* bytes (SDM Vol. 2A 2.3.11) */

struct x86_insn {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT]; /* insn.operand_count of them, hidden ones last */
};

enum x86_decode {
    X86_DECODE_OK,
    X86_DECODE_MORE, /* the bytes end within the instruction */
    X86_DECODE_UD,   /* not an instruction in this mode */
    X86_DECODE_GP,   /* longer than 15 bytes */
};

/*
 * code_size: 2, 4 or 8 bytes, from CS.D and CS.L; `real`: real-address or virtual-8086 mode, where VEX prefixes and the
 * protected-mode instructions do not exist. The features CPUID may hide are not looked at.
 */
enum x86_decode x86_decode(struct x86_insn *xi, unsigned code_size, bool real, const uint8_t *bytes,
                           size_t avail) MUST_CHECK;

#endif
