/*
 * What CPUID tells a guest of its CPU's features, as a table that a saved state carries: a guest that has found a feature uses it for good, so where it is
 * to go on every bit must be there.
 *
 * Threads: none of its own.
 */
#ifndef VM_CPUID_TABLE_H
#define VM_CPUID_TABLE_H

#include "core/stream.h"
#include "x86/cpuid.h"

struct vcpu;

#define CPUID_TABLE_WORDS 9

/* The registers that hold feature bits, in the order of cpuid_table.c. */
struct cpuid_table {
    uint32_t words[CPUID_TABLE_WORDS];
    uint32_t phys_bits; /* width of guest-physical addresses */
};

/* What this vCPU's engine shows on this host. */
void cpuid_table_get(struct vcpu *vcpu, struct cpuid_table *table);

void cpuid_table_state(struct cpuid_table *table, struct stream *s);

/* The guest is to find no feature that it has not found before. */
void cpuid_table_limit(const struct cpuid_table *table, struct x86_cpuid *cpuid);

/* -EAGAIN, and a message that names the features, where `has` lacks some of `wanted`. */
int cpuid_table_check(const struct cpuid_table *wanted, const struct cpuid_table *has, struct err *err) MUST_CHECK;

#endif
