/*
 * Guest memory as a debugger sees it: by linear address through the page tables of a vCPU, whatever they permit, without a trace in
 * them. RAM only: devices are not touched.
 *
 * Threads: the loop's, while every vCPU stands.
 */
#ifndef GDB_GDB_MEMORY_H
#define GDB_GDB_MEMORY_H

#include "core/ram.h"
#include "x86/state.h"

/* Whose memory. */
struct gdb_memory {
    struct ram *ram;
    const struct x86_state *st;
    unsigned phys_bits;
};

/* Returns how many bytes from addr on could be copied: fewer than len where something is not mapped, or is not RAM. */
size_t gdb_memory_read(const struct gdb_memory *m, uint64_t addr, uint8_t *buf, size_t len);

/* The same for writing; engines hear of it. All or nothing. 0 or -EFAULT. */
int gdb_memory_write(const struct gdb_memory *m, uint64_t addr, const uint8_t *buf, size_t len) MUST_CHECK;

#endif
