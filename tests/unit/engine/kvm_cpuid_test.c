/* What a vCPU of KVM's is given as CPUID, from what a host's KVM says it can do: no KVM is there. */
#include "engine/kvm/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

#include "unit.h"

/* A host's KVM that can do everything in these leaves, less what a test takes out. */
static struct kvm_cpuid2 *host_with(uint32_t leaf, int reg, uint32_t without)
{
    static const uint32_t leaves[][2] = {{1, 0}, {7, 0}, {7, 2}, {0xd, 0}, {0xd, 1}, {0x80000001, 0}, {0x80000008, 0}};
    struct kvm_cpuid2 *host = calloc(1, sizeof(*host) + ARRAY_SIZE(leaves) * sizeof(host->entries[0]));

    assert_non_null(host);
    host->nent = ARRAY_SIZE(leaves);
    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
        struct kvm_cpuid_entry2 *e = &host->entries[i];
        *e = (struct kvm_cpuid_entry2){.function = leaves[i][0],
                                       .index = leaves[i][1],
                                       .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                       .eax = ~0u,
                                       .ebx = ~0u,
                                       .ecx = ~0u,
                                       .edx = ~0u};
        uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
        if (e->function == leaf && e->index == 0)
            *regs[reg] &= ~without;
        if (e->function == 0x80000008)
            e->eax = 48 << 8 | 46;
    }
    return host;
}

static struct x86_cpuid machine_with(enum x86_cpu_model model)
{
    const struct x86_cpuid_host all = {.words = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u}, .ymm = true};
    struct x86_cpuid cpuid;

    x86_cpuid_init_on(
        &cpuid,
        &(struct x86_cpuid_conf){
            .model = model, .n_cpus = 2, .apic_id = 1, .tsc_hz = 1000000000, .crystal_hz = 25000000, .phys_bits = 40},
        &all);
    return cpuid;
}

static int make(struct kvm_cpuid2 *host, const struct x86_cpuid *cpuid, struct kvm_cpuid2 **out, struct err *err)
{
    struct engine engine = {.cpuid = host};
    struct engine_vcpu v = {.engine = &engine, .conf.cpuid = cpuid};
    int r = kvm_cpuid_make(&v, out, err);

    free(host);
    return r;
}

/* Every leaf of a named model is what the other engines answer with (interp/op_system.c asks x86_cpuid() too). */
static void test_named_models_are_the_same(void **ctx)
{
    struct x86_state st = {.efer = X86_EFER_LMA, .xcr0 = X86_XCR0_X87};
    st.seg[X86_CS].attr = X86_SEG_L;

    for (unsigned model = X86_CPU_V2; model <= X86_CPU_V3; model++) {
        const struct x86_cpuid cpuid = machine_with(model);
        struct kvm_cpuid2 *out;
        struct err err = {0};
        assert_int_equal(make(host_with(0, 0, 0), &cpuid, &out, &err), 0);
        assert_true(out->nent > 30);
        for (unsigned i = 0; i < out->nent; i++) {
            const struct kvm_cpuid_entry2 *e = &out->entries[i];
            struct x86_cpuid_regs r = x86_cpuid(&cpuid, &st, true, e->function, e->index);
            const struct x86_cpuid_regs has = {e->eax, e->ebx, e->ecx, e->edx};
            assert_memory_equal(&r, &has, sizeof(r));
        }
        free(out);
    }
}

static void test_missing(void **ctx)
{
    const struct x86_cpuid v2 = machine_with(X86_CPU_V2), v3 = machine_with(X86_CPU_V3);
    struct kvm_cpuid2 *out;
    struct err err = {0};

    assert_int_equal(make(host_with(7, 1, bit_AVX2 | bit_BMI2), &v3, &out, &err), -EOPNOTSUPP);
    assert_string_equal(err.msg, "CPU model x86-64-v3: this host's KVM lacks avx2, bmi2");
    assert_null(out);
    assert_int_equal(make(host_with(7, 1, bit_AVX2 | bit_BMI2), &v2, &out, &err), 0);
    free(out);
    assert_int_equal(make(host_with(1, 2, bit_POPCNT), &v2, &out, &err), -EOPNOTSUPP);
    assert_string_equal(err.msg, "CPU model x86-64-v2: this host's KVM lacks popcnt");
}

/* The host's goes without. */
static void test_host(void **ctx)
{
    const struct x86_cpuid cpuid = machine_with(X86_CPU_HOST);
    struct kvm_cpuid2 *out;
    struct err err = {0};

    assert_int_equal(make(host_with(7, 1, bit_AVX2), &cpuid, &out, &err), 0);
    for (unsigned i = 0; i < out->nent; i++)
        if (out->entries[i].function == 7 && out->entries[i].index == 0) {
            assert_false(out->entries[i].ebx & bit_AVX2);
            assert_true(out->entries[i].ebx & bit_BMI2);
        }
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named_models_are_the_same),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
