/*
 * The guest's CPUID: an allow-list of what vireo implements, cut down to what the host's unit can execute, or to a model that is the same on
 * every host and engine. Never a bit that is not implemented, never a host value passed through unread.
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include <stdbool.h>

#include "base/err.h"
#include "base/util.h"

/* The models of cpu_models.def. */
enum x86_cpu_model {
#define MODEL(level, name, signature) X86_CPU_##level,
#include "x86/cpu_models.def"
#undef MODEL
    X86_CPU_N_MODELS
};

struct x86_cpuid_conf {
    enum x86_cpu_model model;
    unsigned n_cpus;  /* 1 to 16, one package, one thread a core */
    unsigned apic_id; /* of this CPU */
    uint64_t tsc_hz;
    uint64_t crystal_hz; /* core crystal = the local APIC timer's clock, leaf 0x15 */
    unsigned phys_bits;  /* guest-physical address width */
};

/* The features of the guest, decided once from the allow-list, the model and the host (SDM Vol. 2A CPUID). */
struct x86_features {
#define FEATURE(name, word, bit, need, least) bool name;
#include "x86/cpu_features.def"
#undef FEATURE
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

/* What the host's CPU says, as far as anybody asks: CPUID's registers with feature bits. */
struct x86_cpuid_host {
    uint32_t words[9]; /* enum word in cpuid.c */
    bool ymm;          /* its kernel keeps YMM registers */
};

void x86_cpuid_read_host(struct x86_cpuid_host *host);

/* Decides the features on that host; x86_cpuid_init() on this one. A feature of the model's that the host lacks is left out. */
void x86_cpuid_init_on(struct x86_cpuid *cpuid, const struct x86_cpuid_conf *conf, const struct x86_cpuid_host *host);
void x86_cpuid_init(struct x86_cpuid *cpuid, const struct x86_cpuid_conf *conf);

/* -EOPNOTSUPP, and a message that names model and features, where a named model has been left without some. */
int x86_cpuid_check(const struct x86_cpuid *cpuid, struct err *err) MUST_CHECK;

/* Takes features away whose bits that register has not in `bits`, besides what every guest has. reg: 0 to 3 for EAX to EDX. */
void x86_cpuid_limit(struct x86_cpuid *cpuid, uint32_t leaf, uint32_t subleaf, unsigned reg, uint32_t bits);

/* The model's name, as on the command line. */
const char *x86_cpuid_model_name(enum x86_cpu_model model);

/*
 * Writes the names of features, with commas between, that are bits of `bits`; those without a name by their place. reg: 0 to 3 for EAX to EDX.
 * What does not fit is left out. `text` may hold names already.
 */
void x86_cpuid_name_bits(uint32_t leaf, uint32_t subleaf, unsigned reg, uint32_t bits, char *text, size_t len);

/* The XCR0 bits this guest may set: all others are reserved. */
uint64_t x86_cpuid_xcr0(const struct x86_cpuid *cpuid);

struct x86_state;

/* What the CPUID instruction returns; some bits mirror the state (OSXSAVE, XSAVE sizes by XCR0, APIC). */
struct x86_cpuid_regs x86_cpuid(const struct x86_cpuid *cpuid, const struct x86_state *st, bool apic_enabled,
                                uint32_t leaf, uint32_t subleaf);

#endif
