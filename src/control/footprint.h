/* How much of the host's memory this process takes, told apart by what it is for. */
#ifndef CONTROL_FOOTPRINT_H
#define CONTROL_FOOTPRINT_H

#include <stdint.h>
#include <stdio.h>

/*
 * Bytes, as proportional sizes (Pss: Linux, Documentation/filesystems/proc.rst): a page counts once however often this process maps
 * it, such as the code cache with its two aliases, and a page that n processes map counts as an n-th.
 */
struct footprint {
    uint64_t guest; /* mappings of the guest's RAM */
    uint64_t own;   /* all others: heap, stacks, code cache, tables, and the program's and its libraries' files */
};

/* Sums up /proc/PID/smaps, which the caller has opened. All zero for an empty file. */
struct footprint footprint_read(FILE *smaps);

#endif
