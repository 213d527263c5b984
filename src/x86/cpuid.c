/*
 * CPUID: leaves composed from the allow-list below (SDM Vol. 2A CPUID). Pure: the host is asked once, in x86_cpuid_init().
 * Linux carries the models of cpu_models.def in none of its errata lists which a feature bit would not already gate, reads their caches from leaf 4,
 * and takes the TSC's rate from leaf 0x15.
 */
#include "x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>

#include "x86/state.h"

#define MAX_BASIC      0x16u
#define MAX_LIMITED    2u /* with IA32_MISC_ENABLE's limit, for systems that know no more */
#define HYPERVISOR     0x40000000u
#define MAX_HYPERVISOR 0x40000010u
#define MAX_EXTENDED   0x80000008u

#define VIRT_BITS 48
#define LINE_SIZE 64

#define XSAVE_HEADER_END 576u
#define XSAVE_AVX_SIZE   256u

/* The registers that hold feature bits, and where they are. */
enum word { W1_ECX, W1_EDX, W7_EBX, W7_ECX, W7_EDX, W72_EDX, WD1_EAX, WE1_ECX, WE1_EDX, N_WORDS };
enum { EAX, EBX, ECX, EDX };

static const struct {
    uint32_t leaf, subleaf;
    unsigned reg;
} places[N_WORDS] = {
    [W1_ECX] = {1, 0, ECX},    [W1_EDX] = {1, 0, EDX},           [W7_EBX] = {7, 0, EBX},
    [W7_ECX] = {7, 0, ECX},    [W7_EDX] = {7, 0, EDX},           [W72_EDX] = {7, 2, EDX},
    [WD1_EAX] = {0xd, 1, EAX}, [WE1_ECX] = {0x80000001, 0, ECX}, [WE1_EDX] = {0x80000001, 0, EDX},
};
_Static_assert(ARRAY_SIZE(((struct x86_cpuid_host *)0)->words) == N_WORDS, "a word for each");

/* What every guest has: the engines implement these without help from the host. */
static const uint32_t always[N_WORDS] = {
    /* x2APIC, hypervisor */
    [W1_ECX] = 1u << 21 | 1u << 31,
    /* FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP, MTRR, PGE, MCA, CMOV, PAT, CLFLUSH, MMX, FXSR, SSE, SSE2 */
    [W1_EDX] = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 11 | 1u << 12 |
               1u << 13 | 1u << 14 | 1u << 15 | 1u << 16 | 1u << 19 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26,
    /* TSC_ADJUST */
    [W7_EBX] = 1u << 1,
    /* LAHF and SAHF in 64-bit mode */
    [WE1_ECX] = 1u << 0,
    /* NX, long mode; SYSCALL depends on the mode */
    [WE1_EDX] = 1u << 20 | 1u << 29,
};

/* Models by level: how many features they have. HOST is first in the list, and has the most. */
enum level { LEVEL_V2, LEVEL_V3, LEVEL_HOST };

static const struct {
    const char *name;
    enum level level;
    uint32_t signature;
} models[] = {
#define MODEL(level, name, signature) {name, LEVEL_##level, signature},
#include "x86/cpu_models.def"
#undef MODEL
};

/*
 * Of KVM's features (Linux, Documentation/virt/kvm/x86/cpuid.rst) those that core/pvclock.h is: KVM_FEATURE_CLOCKSOURCE and
 * _CLOCKSOURCE2, the clock by its old and its new MSRs, and _CLOCKSOURCE_STABLE_BIT, its flag that one vCPU's time is the others' too.
 */
#define KVM_FEATURES (1u << 0 | 1u << 3 | 1u << 24)

#define W1_EDX_APIC     (1u << 9)
#define W1_EDX_HTT      (1u << 28)
#define W1_ECX_OSXSAVE  (1u << 27)
#define WE1_EDX_SYSCALL (1u << 11)
#define WE1_EDX_NX      (1u << 20)

static uint32_t max_basic(const struct x86_state *st)
{
    return st->misc_enable & X86_MISC_LIMIT_CPUID ? MAX_LIMITED : MAX_BASIC;
}

/* Where a feature of struct x86_features shows, and what it asks of the host. */
enum need {
    NEED_NOTHING, /* done in C */
    NEED_CPU,     /* the host's CPU has the same bit */
    NEED_YMM,     /* that, and its kernel keeps YMM registers */
};

static const struct {
    const char *name;
    uint8_t word, bit, need, least;
    uint8_t field; /* offset into struct x86_features */
} features[] = {
#define FEATURE(name, word, bit, need, least) \
    {#name, word, bit, NEED_##need, LEVEL_##least, offsetof(struct x86_features, name)},
#include "x86/cpu_features.def"
#undef FEATURE
};

static void host_leaf(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    if (!__get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]))
        memset(r, 0, 4 * sizeof(*r));
}

void x86_cpuid_read_host(struct x86_cpuid_host *host)
{
    memset(host, 0, sizeof(*host));
    for (unsigned i = 0; i < N_WORDS; i++) {
        uint32_t r[4];
        host_leaf(places[i].leaf, places[i].subleaf, r);
        host->words[i] = r[places[i].reg];
    }
    if (host->words[W1_ECX] & W1_ECX_OSXSAVE) {
        uint32_t lo, hi;
        __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        host->ymm = (lo & 6) == 6;
    }
}

static bool *feature_field(const struct x86_features *feat, unsigned i)
{
    return (bool *)((char *)feat + features[i].field);
}

static bool in_model(const struct x86_cpuid *cpuid, unsigned i)
{
    return features[i].least <= models[cpuid->conf.model].level;
}

void x86_cpuid_init_on(struct x86_cpuid *cpuid, const struct x86_cpuid_conf *conf, const struct x86_cpuid_host *host)
{
    memset(cpuid, 0, sizeof(*cpuid));
    cpuid->conf = *conf;
    snprintf(cpuid->brand, sizeof(cpuid->brand), "vireo virtual CPU");
    if (conf->model != X86_CPU_HOST)
        snprintf(cpuid->brand, sizeof(cpuid->brand), "vireo virtual CPU %s", models[conf->model].name);

    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        bool has = host->words[features[i].word] >> features[i].bit & 1;
        bool can = features[i].need == NEED_NOTHING || (has && (features[i].need == NEED_CPU || host->ymm));
        *feature_field(&cpuid->feat, i) = can && in_model(cpuid, i);
    }

    /* Extensions of AVX do not come without it (SDM Vol. 1 14.3 and 14.7). */
    struct x86_features *f = &cpuid->feat;
    f->fma &= f->avx;
    f->f16c &= f->avx;
    f->avx2 &= f->avx;
}

void x86_cpuid_init(struct x86_cpuid *cpuid, const struct x86_cpuid_conf *conf)
{
    struct x86_cpuid_host host;

    x86_cpuid_read_host(&host);
    x86_cpuid_init_on(cpuid, conf, &host);
}

void x86_cpuid_limit(struct x86_cpuid *cpuid, uint32_t leaf, uint32_t subleaf, unsigned reg, uint32_t bits)
{
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        unsigned word = features[i].word;
        if (places[word].leaf == leaf && places[word].subleaf == subleaf && places[word].reg == reg &&
            !(bits >> features[i].bit & 1))
            *feature_field(&cpuid->feat, i) = false;
    }
}

const char *x86_cpuid_model_name(enum x86_cpu_model model)
{
    return models[model].name;
}

static void put_name(char *text, size_t len, const char *name)
{
    size_t n = strlen(text);

    if (n + strlen(name) + 2 < len)
        snprintf(text + n, len - n, "%s%s", n ? ", " : "", name);
}

int x86_cpuid_check(const struct x86_cpuid *cpuid, struct err *err)
{
    char names[160] = "";

    if (cpuid->conf.model == X86_CPU_HOST)
        return 0;
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        if (in_model(cpuid, i) && !*feature_field(&cpuid->feat, i))
            put_name(names, sizeof(names), features[i].name);
    if (!*names)
        return 0;
    return err_set(err, -EOPNOTSUPP, "CPU model %s: this host's CPU lacks %s", models[cpuid->conf.model].name, names);
}

static const char *bit_name(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        unsigned word = features[i].word;
        if (features[i].bit == bit && places[word].leaf == leaf && places[word].subleaf == subleaf &&
            places[word].reg == reg)
            return features[i].name;
    }
    return NULL;
}

void x86_cpuid_name_bits(uint32_t leaf, uint32_t subleaf, unsigned reg, uint32_t bits, char *text, size_t len)
{
    static const char *const registers[] = {"EAX", "EBX", "ECX", "EDX"};

    for (unsigned bit = 0; bit < 32; bit++) {
        const char *name = bit_name(leaf, subleaf, reg, bit);
        char place[64];
        snprintf(place, sizeof(place), "CPUID.%X.%u:%s[%u]", leaf, subleaf, registers[reg & 3], bit);
        if (bits >> bit & 1)
            put_name(text, len, name ? name : place);
    }
}

static uint32_t feature_word(const struct x86_cpuid *cpuid, enum word word)
{
    uint32_t bits = always[word];
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        if (features[i].word == word && *feature_field(&cpuid->feat, i))
            bits |= 1u << features[i].bit;
    return bits;
}

/* Bits of an APIC ID that tell the CPUs of the package apart. */
static unsigned core_bits(const struct x86_cpuid *cpuid)
{
    unsigned bits = 0;
    while ((1u << bits) < cpuid->conf.n_cpus)
        bits++;
    return bits;
}

static struct x86_cpuid_regs leaf_features(const struct x86_cpuid *cpuid, const struct x86_state *st, bool apic_enabled)
{
    struct x86_cpuid_regs r = {
        .eax = models[cpuid->conf.model].signature,
        .ebx = cpuid->conf.apic_id << 24 | 1u << core_bits(cpuid) << 16 | LINE_SIZE / 8 << 8,
        .ecx = feature_word(cpuid, W1_ECX),
        .edx = feature_word(cpuid, W1_EDX),
    };
    if (st->cr4 & X86_CR4_OSXSAVE)
        r.ecx |= W1_ECX_OSXSAVE;
    if (apic_enabled)
        r.edx |= W1_EDX_APIC;
    if (cpuid->conf.n_cpus > 1)
        r.edx |= W1_EDX_HTT;
    return r;
}

/* Deterministic cache parameters: sizes as on the model, the last level shared by the package. */
static struct x86_cpuid_regs leaf_cache(const struct x86_cpuid *cpuid, uint32_t subleaf)
{
    static const struct {
        uint8_t type, level, ways;
        uint32_t sets;
    } caches[] = {
        {1, 1, 12, 64},   /* data, 48 KiB */
        {2, 1, 8, 64},    /* instructions, 32 KiB */
        {3, 2, 16, 2048}, /* unified, 2 MiB */
        {3, 3, 16, 16384} /* unified, 16 MiB */
    };
    if (subleaf >= ARRAY_SIZE(caches))
        return (struct x86_cpuid_regs){0};

    uint32_t cores = (1u << core_bits(cpuid)) - 1;
    uint32_t sharing = caches[subleaf].level == 3 ? cores : 0;
    return (struct x86_cpuid_regs){
        .eax = caches[subleaf].type | (uint32_t)caches[subleaf].level << 5 | 1u << 8 | sharing << 14 | cores << 26,
        .ebx = (LINE_SIZE - 1) | (caches[subleaf].ways - 1u) << 22,
        .ecx = caches[subleaf].sets - 1,
    };
}

/* Extended topology: threads, then cores. */
static struct x86_cpuid_regs leaf_topology(const struct x86_cpuid *cpuid, uint32_t subleaf)
{
    struct x86_cpuid_regs r = {.ecx = subleaf & 0xff, .edx = cpuid->conf.apic_id};
    if (subleaf == 0) {
        r.ebx = 1;
        r.ecx |= 1 << 8;
    } else if (subleaf == 1) {
        r.eax = core_bits(cpuid);
        r.ebx = cpuid->conf.n_cpus;
        r.ecx |= 2 << 8;
    }
    return r;
}

/* XSAVE areas: the compacted and the standard form agree while AVX is the only extended component. */
static struct x86_cpuid_regs leaf_xsave(const struct x86_cpuid *cpuid, const struct x86_state *st, uint32_t subleaf)
{
    struct x86_cpuid_regs r = {0};
    uint32_t avx = cpuid->feat.avx ? XSAVE_AVX_SIZE : 0;
    if (!cpuid->feat.xsave)
        return r;
    uint32_t now = XSAVE_HEADER_END + (st->xcr0 & X86_XCR0_AVX ? XSAVE_AVX_SIZE : 0);

    if (subleaf == 0) {
        r.eax = (uint32_t)x86_cpuid_xcr0(cpuid);
        r.ebx = now;
        r.ecx = XSAVE_HEADER_END + avx;
    } else if (subleaf == 1) {
        r.eax = feature_word(cpuid, WD1_EAX);
        r.ebx = now;
    } else if (subleaf == 2 && avx) {
        r.eax = XSAVE_AVX_SIZE;
        r.ebx = XSAVE_HEADER_END;
    }
    return r;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

/* TSC rate = crystal x EBX / EAX. */
static struct x86_cpuid_regs leaf_tsc(const struct x86_cpuid *cpuid)
{
    const struct x86_cpuid_conf *conf = &cpuid->conf;
    if (!conf->crystal_hz || !conf->tsc_hz || conf->crystal_hz > UINT32_MAX)
        return (struct x86_cpuid_regs){0};
    uint64_t div = gcd(conf->tsc_hz, conf->crystal_hz);
    if (conf->tsc_hz / div > UINT32_MAX)
        return (struct x86_cpuid_regs){0};
    return (struct x86_cpuid_regs){
        .eax = (uint32_t)(conf->crystal_hz / div),
        .ebx = (uint32_t)(conf->tsc_hz / div),
        .ecx = (uint32_t)conf->crystal_hz,
    };
}

static struct x86_cpuid_regs leaf_basic(const struct x86_cpuid *cpuid, const struct x86_state *st, bool apic_enabled,
                                        uint32_t leaf, uint32_t subleaf)
{
    struct x86_cpuid_regs r = {0};

    switch (leaf) {
    case 0:
        r.eax = max_basic(st);
        r.ebx = load_le32("Genu");
        r.edx = load_le32("ineI");
        r.ecx = load_le32("ntel");
        break;
    case 1:
        return leaf_features(cpuid, st, apic_enabled);
    case 2:
        r.eax = 0xff01; /* "see leaf 4" */
        break;
    case 4:
        return leaf_cache(cpuid, subleaf);
    case 6:
        r.eax = 1 << 2; /* the local APIC's timer never stops */
        break;
    case 7:
        if (subleaf == 0) {
            r.eax = 2; /* last subleaf */
            r.ebx = feature_word(cpuid, W7_EBX);
            r.ecx = feature_word(cpuid, W7_ECX);
            r.edx = feature_word(cpuid, W7_EDX);
        } else if (subleaf == 2) {
            r.edx = feature_word(cpuid, W72_EDX);
        }
        break;
    case 0xb:
        return leaf_topology(cpuid, subleaf);
    case 0xd:
        return leaf_xsave(cpuid, st, subleaf);
    case 0x15:
        return leaf_tsc(cpuid);
    case 0x16:
        r.eax = (uint32_t)(cpuid->conf.tsc_hz / 1000000) & 0xffff;
        r.ebx = r.eax;
        r.ecx = 100;
        break;
    default: /* 3, 5, 8 to 0xa, 0xc, 0xe to 0x14: nothing there */
        break;
    }
    return r;
}

static struct x86_cpuid_regs leaf_extended(const struct x86_cpuid *cpuid, const struct x86_state *st, uint32_t leaf)
{
    struct x86_cpuid_regs r = {0};

    switch (leaf) {
    case 0x80000000:
        r.eax = MAX_EXTENDED;
        break;
    case 0x80000001:
        r.ecx = feature_word(cpuid, WE1_ECX);
        r.edx = feature_word(cpuid, WE1_EDX) | (x86_code64(st) ? WE1_EDX_SYSCALL : 0);
        if (st->misc_enable & X86_MISC_NO_XD)
            r.edx &= ~WE1_EDX_NX;
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: {
        const char *part = cpuid->brand + 16 * (leaf - 0x80000002);
        r.eax = load_le32(part);
        r.ebx = load_le32(part + 4);
        r.ecx = load_le32(part + 8);
        r.edx = load_le32(part + 12);
        break;
    }
    case 0x80000006:
        r.ecx = LINE_SIZE | 8 << 12 | 2048u << 16; /* as leaf 4 says: 16 ways, 2 MiB */
        break;
    case 0x80000007:
        r.edx = 1 << 8; /* invariant TSC */
        break;
    case 0x80000008:
        r.eax = cpuid->conf.phys_bits | VIRT_BITS << 8;
        break;
    default:
        break;
    }
    return r;
}

/*
 * The signature is KVM's: guests know its clock by it, and that no port or TSC needs to be calibrated. The last leaf is VMware's, which
 * others took over: the rates of the TSC and of the local APIC's timer, as leaf 0x15 has them, in kHz.
 */
static struct x86_cpuid_regs leaf_hypervisor(const struct x86_cpuid *cpuid, uint32_t leaf)
{
    struct x86_cpuid_regs r = {0};

    switch (leaf) {
    case HYPERVISOR:
        return (struct x86_cpuid_regs){MAX_HYPERVISOR, load_le32("KVMK"), load_le32("VMKV"), load_le32("M\0\0\0")};
    case HYPERVISOR + 1:
        r.eax = KVM_FEATURES;
        break;
    case MAX_HYPERVISOR:
        r.eax = (uint32_t)(cpuid->conf.tsc_hz / 1000);
        r.ebx = (uint32_t)(cpuid->conf.crystal_hz / 1000);
        break;
    default:
        break;
    }
    return r;
}

uint64_t x86_cpuid_xcr0(const struct x86_cpuid *cpuid)
{
    return X86_XCR0_X87 | X86_XCR0_SSE | (cpuid->feat.avx ? X86_XCR0_AVX : 0);
}

struct x86_cpuid_regs x86_cpuid(const struct x86_cpuid *cpuid, const struct x86_state *st, bool apic_enabled,
                                uint32_t leaf, uint32_t subleaf)
{
    if (leaf >= HYPERVISOR && leaf <= MAX_HYPERVISOR)
        return leaf_hypervisor(cpuid, leaf);
    if (leaf >= 0x80000000 && leaf <= MAX_EXTENDED)
        return leaf_extended(cpuid, st, leaf);
    /* Beyond every range Intel's CPUs answer with the highest basic leaf. */
    return leaf_basic(cpuid, st, apic_enabled, leaf <= max_basic(st) ? leaf : max_basic(st), subleaf);
}
