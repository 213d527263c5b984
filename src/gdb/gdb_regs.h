/*
 * A vCPU's registers as a debugger numbers, sizes and changes them; gdb_regs.def is the list. Pure.
 */
#ifndef GDB_GDB_REGS_H
#define GDB_GDB_REGS_H

#include "x86/state.h"

#define GDB_REGS_BYTES_MAX 16 /* of one register */

enum gdb_regs_number {
#define FEATURE(name)
#define REG(name, bits, type, kind, index) GDB_REGS_##kind##_##index,
#include "gdb/gdb_regs.def"
#undef REG
#undef FEATURE
    GDB_REGS_N
};

/* What the registers are of. */
struct gdb_regs {
    struct x86_state st;
    uint8_t cr8; /* which is the local APIC's */
};

/* Bytes that register n has, or 0 where there is none of that number. */
unsigned gdb_regs_size(uint64_t n);

/* The value of register n < GDB_REGS_N, little-endian. */
void gdb_regs_get(const struct gdb_regs *regs, unsigned n, uint8_t value[GDB_REGS_BYTES_MAX]);

/*
 * Changes register n < GDB_REGS_N; phys_bits: the guest-physical address width. -EPERM for what only the guest may change, because more
 * hangs on it than the register (selectors, CR0, CR4, EFER, CR3 under PAE paging); -EINVAL for a value the register cannot hold.
 */
int gdb_regs_set(struct gdb_regs *regs, unsigned n, const uint8_t value[GDB_REGS_BYTES_MAX],
                 unsigned phys_bits) MUST_CHECK;

#endif
