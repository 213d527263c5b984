/* The guest's CPUID: every leaf says what the others say, and never more than the host can run. */
#include "x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>

#include "unit.h"
#include "x86/state.h"

static struct x86_cpuid cpuid;
static struct x86_state state;

static struct x86_cpuid_regs leaf(uint32_t n, uint32_t sub)
{
    return x86_cpuid(&cpuid, &state, true, n, sub);
}

static void init(unsigned n_cpus, unsigned apic_id)
{
    struct x86_cpuid_conf conf = {
        .n_cpus = n_cpus, .apic_id = apic_id, .tsc_hz = 1000000000, .crystal_hz = 25000000, .phys_bits = 40};
    memset(&state, 0, sizeof(state));
    state.xcr0 = X86_XCR0_X87;
    x86_cpuid_init(&cpuid, &conf);
}

static void test_vendor_and_ranges(void **ctx)
{
    init(1, 0);
    struct x86_cpuid_regs r = leaf(0, 0);
    assert_int_equal(r.eax, 0x16);
    assert_memory_equal(&r.ebx, "Genu", 4);
    assert_memory_equal(&r.edx, "ineI", 4);
    assert_memory_equal(&r.ecx, "ntel", 4);
    assert_int_equal(leaf(0x80000000, 0).eax, 0x80000008);

    struct x86_cpuid_regs last = leaf(0x16, 0);
    static const uint32_t beyond[] = {0x17,       0x1f,       0x3fffffff, 0x40000011,
                                      0x40000100, 0x7fffffff, 0x80000009, 0xffffffff};
    for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++) {
        r = leaf(beyond[i], 0);
        assert_memory_equal(&r, &last, sizeof(r));
    }
    r = leaf(7, 1);
    assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
    r = leaf(0xa, 0);
    assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
}

static void test_mirrors_state(void **ctx)
{
    init(1, 0);
    assert_false(leaf(1, 0).ecx & bit_OSXSAVE);
    state.cr4 |= X86_CR4_OSXSAVE;
    assert_true(leaf(1, 0).ecx & bit_OSXSAVE);

    assert_true(leaf(1, 0).edx & 1u << 9);
    assert_false(x86_cpuid(&cpuid, &state, false, 1, 0).edx & 1u << 9);

    assert_false(leaf(0x80000001, 0).edx & 1u << 11);
    state.efer = X86_EFER_LMA;
    state.seg[X86_CS].attr = X86_SEG_L;
    assert_true(leaf(0x80000001, 0).edx & 1u << 11);
}

static void test_topology(void **ctx)
{
    for (unsigned n = 1; n <= 16; n++) {
        init(n, n - 1);
        struct x86_cpuid_regs r1 = leaf(1, 0), smt = leaf(0xb, 0), core = leaf(0xb, 1), end = leaf(0xb, 2);
        assert_int_equal(r1.ebx >> 24, n - 1);
        assert_int_equal(!!(r1.edx & 1u << 28), n > 1);
        assert_int_equal(smt.ecx, 1 << 8);
        assert_int_equal(smt.ebx, 1);
        assert_int_equal(smt.eax, 0);
        assert_int_equal(core.ecx, 2 << 8 | 1);
        assert_int_equal(core.ebx, n);
        assert_int_equal(core.edx, n - 1);
        assert_true(1u << core.eax >= n && 1u << core.eax < 2 * n);
        assert_int_equal(r1.ebx >> 16 & 0xff, 1u << core.eax);
        assert_int_equal(end.ecx, 2);
        assert_int_equal(end.ebx, 0);
        for (unsigned i = 0; i < 4; i++) {
            struct x86_cpuid_regs c = leaf(4, i);
            assert_int_equal((c.eax >> 26) + 1, 1u << core.eax);
            assert_int_equal((c.eax >> 14 & 0xfff) + 1, i == 3 ? 1u << core.eax : 1);
        }
        assert_int_equal(leaf(4, 4).eax, 0);
    }
}

static uint32_t cache_size(unsigned sub)
{
    struct x86_cpuid_regs c = leaf(4, sub);
    return ((c.ebx >> 22) + 1) * ((c.ebx >> 12 & 0x3ff) + 1) * ((c.ebx & 0xfff) + 1) * (c.ecx + 1);
}

static void test_caches(void **ctx)
{
    init(1, 0);
    assert_int_equal(cache_size(0), 48 * KIB);
    assert_int_equal(cache_size(1), 32 * KIB);
    assert_int_equal(cache_size(2), 2 * MIB);
    assert_int_equal(cache_size(3), 16 * MIB);
    assert_int_equal(leaf(0x80000006, 0).ecx >> 16, cache_size(2) / KIB);
    assert_int_equal((leaf(1, 0).ebx >> 8 & 0xff) * 8, 64);
}

static void test_xsave(void **ctx)
{
    init(1, 0);
    bool avx = cpuid.feat.avx;
    struct x86_cpuid_regs r = leaf(0xd, 0);
    assert_int_equal(r.eax, avx ? 7 : 3);
    assert_int_equal(r.eax, x86_cpuid_xcr0(&cpuid));
    assert_int_equal(r.ebx, 576);
    assert_int_equal(r.ecx, avx ? 832 : 576);
    assert_int_equal(leaf(0xd, 1).eax, 7); /* XSAVEOPT, XSAVEC, XGETBV with ECX = 1; no XSAVES */
    assert_int_equal(leaf(0xd, 3).eax, 0);
    if (!avx)
        return;
    state.xcr0 = 7;
    assert_int_equal(leaf(0xd, 0).ebx, 832);
    assert_int_equal(leaf(0xd, 1).ebx, 832);
    assert_int_equal(leaf(0xd, 2).eax, 256);
    assert_int_equal(leaf(0xd, 2).ebx, 576);
}

static void test_frequencies(void **ctx)
{
    init(1, 0);
    struct x86_cpuid_regs r = leaf(0x15, 0);
    assert_int_equal(r.ecx, 25000000);
    assert_int_equal((uint64_t)r.ecx * r.ebx / r.eax, 1000000000);
    assert_int_equal(leaf(0x16, 0).eax, 1000);

    struct x86_cpuid_conf odd = {.n_cpus = 1, .tsc_hz = 2593907000, .crystal_hz = 1000000000, .phys_bits = 40};
    x86_cpuid_init(&cpuid, &odd);
    r = leaf(0x15, 0);
    assert_int_equal((uint64_t)r.ecx * r.ebx / r.eax, 2593907000);

    odd.crystal_hz = 0;
    x86_cpuid_init(&cpuid, &odd);
    assert_int_equal(leaf(0x15, 0).eax, 0);
}

/* KVM's signature, its clock and no more; the rates as in leaf 0x15. */
static void test_hypervisor(void **ctx)
{
    init(1, 0);
    struct x86_cpuid_regs r = leaf(0x40000000, 0);
    assert_true(leaf(1, 0).ecx & 1u << 31);
    assert_int_equal(r.eax, 0x40000010);
    assert_memory_equal(&r.ebx, "KVMK", 4);
    assert_memory_equal(&r.ecx, "VMKV", 4);
    assert_memory_equal(&r.edx, "M\0\0\0", 4);
    r = leaf(0x40000001, 0);
    assert_int_equal(r.eax, 1u << 0 | 1u << 3 | 1u << 24);
    assert_int_equal(r.ebx | r.ecx | r.edx, 0);
    for (uint32_t n = 0x40000002; n < 0x40000010; n++) {
        r = leaf(n, 0);
        assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
    }
    r = leaf(0x40000010, 0);
    assert_int_equal(r.eax, 1000000);
    assert_int_equal(r.ebx, 25000);
    assert_int_equal(r.ecx | r.edx, 0);
}

/* What runs on the host's unit must be there. */
static void test_within_host(void **ctx)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    init(1, 0);
    assert_true(__get_cpuid(1, &a, &b, &c, &d));
    uint32_t on_host = bit_SSE3 | bit_PCLMUL | bit_SSSE3 | bit_FMA | bit_CMPXCHG16B | bit_SSE4_1 | bit_SSE4_2 |
                       bit_POPCNT | bit_AES | bit_AVX | bit_F16C | bit_RDRND;
    assert_int_equal(leaf(1, 0).ecx & on_host & ~c, 0);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        on_host = bit_BMI | bit_AVX2 | bit_BMI2 | bit_RDSEED | bit_ADX | bit_SHA;
        assert_int_equal(leaf(7, 0).ebx & on_host & ~b, 0);
    }
}

/* The level glibc and distributions build for: complete wherever the host is. */
static void test_v3(void **ctx)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
        skip();
    init(1, 0);
    uint32_t v3_1 = bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B | bit_FMA | bit_MOVBE |
                    bit_XSAVE | bit_AVX | bit_F16C;
    assert_int_equal(leaf(1, 0).ecx & v3_1, v3_1);
    assert_int_equal(leaf(7, 0).ebx & (bit_BMI | bit_AVX2 | bit_BMI2), bit_BMI | bit_AVX2 | bit_BMI2);
    assert_int_equal(leaf(0x80000001, 0).ecx, bit_LAHF_LM | bit_ABM);
}

/* GCC's target_clones("arch=...") looks at the model alone: a model with AVX-512 would have the guest run it. */
static void test_model(void **ctx)
{
    init(1, 0);
    uint32_t signature = leaf(1, 0).eax;
    assert_int_equal(signature >> 8 & 0xf, 6);
    assert_int_equal((signature >> 12 & 0xf0) | (signature >> 4 & 0xf),
                     0x3f); /* Haswell's servers have v3 and no more */
}

/* An allow-list: what is not implemented never shows. */
static void test_absent(void **ctx)
{
    init(4, 0);
    struct x86_cpuid_regs r = leaf(1, 0);
    assert_int_equal(r.ecx & (1u << 3 | 1u << 5 | 1u << 6 | 1u << 15 | 1u << 18), 0); /* MONITOR, VMX, SMX, PDCM, DCA */
    assert_int_equal(r.edx & (1u << 1 | 1u << 17 | 1u << 18 | 1u << 21 | 1u << 22 | 1u << 29),
                     0); /* VME, PSE36, DS, ... */
    r = leaf(7, 0);
    assert_int_equal(r.eax, 2);
    assert_int_equal(leaf(7, 1).eax, 0);
    assert_int_equal(leaf(7, 2).edx, 1u << 4);
    assert_int_equal(r.ebx & (1u << 4 | 1u << 11 | 1u << 14 | 1u << 16), 0); /* HLE, RTM, MPX, AVX512F */
    assert_int_equal(r.ecx & ~(1u << 2 | 1u << 22), 0);
    assert_int_equal(r.edx & ~(1u << 4 | 3u << 26 | 1u << 29), 0);
}

/* ---- models ---- */

static const struct x86_cpuid_host everything = {.words = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u}, .ymm = true};

static void init_model(enum x86_cpu_model model, const struct x86_cpuid_host *host)
{
    const struct x86_cpuid_conf conf = {
        .model = model, .n_cpus = 2, .tsc_hz = 1000000000, .crystal_hz = 25000000, .phys_bits = 40};
    memset(&state, 0, sizeof(state));
    state.xcr0 = X86_XCR0_X87;
    x86_cpuid_init_on(&cpuid, &conf, host);
}

#define V2_1 (bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B)
#define V3_1 (V2_1 | bit_FMA | bit_MOVBE | bit_XSAVE | bit_AVX | bit_F16C)
#define V3_7 (bit_BMI | bit_AVX2 | bit_BMI2)

/* The psABI's lists, and what a kernel uses; nothing else. */
static void test_named_models(void **ctx)
{
    static const uint32_t sse2 = bit_CMOV | bit_CMPXCHG8B | bit_FXSAVE | bit_MMX | bit_SSE | bit_SSE2;

    init_model(X86_CPU_V2, &everything);
    assert_int_equal(leaf(1, 0).eax, 0x106a5);
    assert_int_equal(leaf(1, 0).edx & sse2, sse2);
    assert_int_equal(leaf(1, 0).ecx, V2_1 | 1u << 21 | 1u << 31); /* x2APIC, hypervisor */
    assert_int_equal(leaf(7, 0).ebx, 1u << 1);                    /* TSC_ADJUST */
    assert_int_equal(leaf(7, 0).ecx | leaf(7, 0).edx | leaf(7, 2).edx, 0);
    assert_int_equal(leaf(0x80000001, 0).ecx, bit_LAHF_LM);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(leaf(0xd, i).eax | leaf(0xd, i).ebx | leaf(0xd, i).ecx, 0);
    assert_int_equal(x86_cpuid_xcr0(&cpuid), 3);

    init_model(X86_CPU_V3, &everything);
    assert_int_equal(leaf(1, 0).eax, 0x306f2);
    assert_int_equal(leaf(1, 0).ecx, V3_1 | 1u << 21 | 1u << 31);
    assert_int_equal(leaf(7, 0).ebx, V3_7 | bit_FSGSBASE | 1u << 1 | 1u << 7); /* TSC_ADJUST, SMEP */
    assert_int_equal(leaf(7, 0).ecx | leaf(7, 0).edx | leaf(7, 2).edx, 0);
    assert_int_equal(leaf(0x80000001, 0).ecx, bit_LAHF_LM | bit_ABM);
    assert_int_equal(leaf(0xd, 0).eax, 7);
    assert_int_equal(leaf(0xd, 1).eax, 1); /* XSAVEOPT */
}

/* The same whatever the host has beyond the model. */
static void test_models_do_not_vary(void **ctx)
{
    static const uint32_t leaves[] = {0, 1, 2, 4, 6, 7, 0xb, 0xd, 0x15, 0x40000001, 0x80000001, 0x80000002, 0x80000008};

    for (unsigned model = X86_CPU_V2; model <= X86_CPU_V3; model++) {
        struct x86_cpuid_host least = {.ymm = true};
        least.words[0] = V3_1; /* leaf 1's ECX */
        least.words[2] = V3_7; /* leaf 7's EBX */
        least.words[7] = bit_ABM;
        struct x86_cpuid_regs of_much[ARRAY_SIZE(leaves)];
        struct err err;
        init_model(model, &everything);
        assert_int_equal(x86_cpuid_check(&cpuid, &err), 0);
        for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
            of_much[i] = leaf(leaves[i], 0);
        init_model(model, &least);
        assert_int_equal(x86_cpuid_check(&cpuid, &err), 0);
        for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
            struct x86_cpuid_regs r = leaf(leaves[i], 0);
            assert_memory_equal(&r, &of_much[i], sizeof(r));
        }
    }
}

/* A host that lacks something is told what; the host's model goes without. */
static void test_missing(void **ctx)
{
    struct x86_cpuid_host host = everything;
    struct err err = {0};

    host.words[2] &= ~(uint32_t)bit_BMI2;
    host.ymm = false;
    init_model(X86_CPU_V3, &host);
    assert_int_equal(x86_cpuid_check(&cpuid, &err), -EOPNOTSUPP);
    assert_string_equal(err.msg, "CPU model x86-64-v3: this host's CPU lacks fma, avx, f16c, avx2, bmi2");
    init_model(X86_CPU_V2, &host);
    assert_int_equal(x86_cpuid_check(&cpuid, &err), 0);
    init_model(X86_CPU_HOST, &host);
    assert_int_equal(x86_cpuid_check(&cpuid, &err), 0);
    assert_false(leaf(7, 0).ebx & (bit_AVX2 | bit_BMI2));
    assert_true(leaf(7, 0).ebx & bit_BMI);
}

static void test_names(void **ctx)
{
    char text[24] = "";

    x86_cpuid_name_bits(1, 0, 2, bit_AVX | bit_SSE3, text, sizeof(text));
    assert_string_equal(text, "sse3, avx");
    x86_cpuid_name_bits(1, 0, 3, 1u << 5, text, sizeof(text)); /* no room */
    assert_string_equal(text, "sse3, avx");
    char place[32] = "";
    x86_cpuid_name_bits(0x80000001, 0, 3, 1u << 29, place, sizeof(place));
    assert_string_equal(place, "CPUID.80000001.0:EDX[29]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vendor_and_ranges),
        cmocka_unit_test(test_mirrors_state),
        cmocka_unit_test(test_topology),
        cmocka_unit_test(test_caches),
        cmocka_unit_test(test_xsave),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_hypervisor),
        cmocka_unit_test(test_within_host),
        cmocka_unit_test(test_v3),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_named_models),
        cmocka_unit_test(test_models_do_not_vary),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
