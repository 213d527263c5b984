/* The host's ALU as functions that set the guest's flags: those that several files of handlers need. */
#ifndef ENGINE_INTERP_ALU_H
#define ENGINE_INTERP_ALU_H

#include "engine/interp/op.h"

/* An instruction that sets all status flags and reads none. */
#define ALU_ALL_FLAGS(bits, type, sfx, r, name, insn)                                 \
    OP_INLINE type name##bits(struct interp *c, type a, type b)                       \
    {                                                                                 \
        uint16_t ax;                                                                  \
        __asm__(insn sfx " %2, %0" OP_FLAGS_OUT : "+" r(a), "=&a"(ax) : r(b) : "cc"); \
        flags_set(c, ax);                                                             \
        return a;                                                                     \
    }

OP_SIZES(ALU_ALL_FLAGS, add, "add")
OP_SIZES(ALU_ALL_FLAGS, cmp, "cmp")

#endif
