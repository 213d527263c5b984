/*
 * The guest's CPUID: an allow-list of what vireo implements, cut down to what the host's unit can execute. Never a bit that is not
 * implemented, never a host value passed through unread.
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include <stdbool.h>

#include "base/util.h"

struct x86_cpuid_conf {
    unsigned n_cpus;  /* 1 to 16, one package, one thread a core */
    unsigned apic_id; /* of this CPU */
    uint64_t tsc_hz;
    uint64_t crystal_hz; /* core crystal = the local APIC timer's clock, leaf 0x15 */
    unsigned phys_bits;  /* guest-physical address width */
};

/* The features of the guest, decided once from the allow-list and the host (SDM Vol. 2A CPUID). */
struct x86_features {
    bool sha, fma, avx, avx2, f16c, bmi1, bmi2, aes, pclmul, rdrand, rdseed, adx, movbe, popcnt, lzcnt, sse3, ssse3,
        sse41, sse42, erms, fsrm, xsaveopt, xsavec, xgetbv1, rdpid, clflushopt, clwb, cx16;
};

struct x86_cpuid {
    struct x86_cpuid_conf conf;
    struct x86_features feat;
    char brand[49];
};

struct x86_cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

/* XCR0 bits: the state components the guest may enable (SDM Vol. 1 13.1). */
#define X86_XCR0_X87 UINT64_C(1)
#define X86_XCR0_SSE UINT64_C(2)
#define X86_XCR0_AVX UINT64_C(4)

/* Reads the host once and decides the features. */
void x86_cpuid_init(struct x86_cpuid *cpuid, const struct x86_cpuid_conf *conf);

/* The XCR0 bits this guest may set: all others are reserved. */
uint64_t x86_cpuid_xcr0(const struct x86_cpuid *cpuid);

struct x86_state;

/* What the CPUID instruction returns; some bits mirror the state (OSXSAVE, XSAVE sizes by XCR0, APIC). */
struct x86_cpuid_regs x86_cpuid(const struct x86_cpuid *cpuid, const struct x86_state *st, bool apic_enabled,
                                uint32_t leaf, uint32_t subleaf);

#endif
