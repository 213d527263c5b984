/* What hosts say of themselves in /proc and /sys, as recorded, and what is made of it. */
#include "engine/host_virt.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

static char root[] = "/tmp/vireo-host-XXXXXX";

static void put(const char *path, const char *text)
{
    char full[512];

    snprintf(full, sizeof(full), "%s/%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **ctx)
{
    strcpy(root + sizeof(root) - 7, "XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **ctx)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

static struct host_virt host_with(bool vmx, bool svm)
{
    struct host_virt h;

    host_virt_read(&h, &(struct host_virt_conf){.root = root, .vmx = vmx, .svm = svm});
    return h;
}

/* A server with VT-x, Linux 6.1: one CPU's lines of /proc/cpuinfo, and another's that must not count. */
static const char intel[] =
    "processor\t: 0\nvendor_id\t: GenuineIntel\n"
    "flags\t\t: fpu vme sse2 vmx ssse3 tpr_shadow flexpriority ept vpid ept_ad fsgsbase\n"
    "vmx flags\t: vnmi preemption_timer posted_intr invvpid ept_x_only ept_ad ept_1gb flexpriority apicv "
    "tsc_offset vtpr mtf vapic ept vpid unrestricted_guest vapic_reg vid ple shadow_vmcs pml\n"
    "bugs\t\t: spectre_v1\n\n"
    "processor\t: 1\nflags\t\t: fpu\nvmx flags\t: tsc_scaling\n\n";

static void test_intel(void **ctx)
{
    put("proc/cpuinfo", intel);
    put("sys/module/kvm_intel/parameters/ept", "Y\n");
    put("sys/module/kvm_intel/parameters/vpid", "N\n");
    put("sys/module/kvm_intel/parameters/enable_apicv", "Y\n");
    put("sys/module/kvm_intel/parameters/nested", "0\n");
    struct host_virt h = host_with(true, false);
    assert_string_equal(host_virt_vendor(h.vendor), "VT-x");
    assert_false(h.off_in_firmware);
    assert_string_equal(h.module, "kvm_intel");
    assert_int_equal(h.features[HOST_nested_paging], HOST_YES);
    assert_int_equal(h.features[HOST_tagged_tlb], HOST_OFF);
    assert_int_equal(h.features[HOST_apic_virtualization], HOST_YES);
    assert_int_equal(h.features[HOST_posted_interrupts], HOST_YES);
    assert_int_equal(h.features[HOST_tsc_scaling], HOST_NO);
    assert_int_equal(h.features[HOST_nested_guests], HOST_OFF);
    assert_string_equal(host_virt_feature(h.vendor, HOST_nested_paging), "EPT");
    assert_false(h.asked);
}

/* An older kernel has no "vmx flags"; no parameter file, no answer. */
static void test_old_intel(void **ctx)
{
    put("proc/cpuinfo", "flags\t\t: fpu vmx ept\n");
    put("sys/module/kvm_intel/parameters/nested", "Y\n");
    struct host_virt h = host_with(true, false);
    assert_int_equal(h.features[HOST_nested_paging], HOST_UNKNOWN);
    assert_int_equal(h.features[HOST_tagged_tlb], HOST_NO);
    assert_int_equal(h.features[HOST_posted_interrupts], HOST_UNKNOWN);
    assert_int_equal(h.features[HOST_nested_guests], HOST_YES);
}

static void test_amd(void **ctx)
{
    put("proc/cpuinfo", "flags\t\t: fpu svm npt lbrv svm_lock nrip_save tsc_scale avic v_vmsave_vmload\n");
    put("sys/module/kvm_amd/parameters/npt", "Y\n");
    put("sys/module/kvm_amd/parameters/avic", "N\n");
    put("sys/module/kvm_amd/parameters/nested", "1\n");
    struct host_virt h = host_with(false, true);
    assert_string_equal(host_virt_vendor(h.vendor), "AMD-V");
    assert_string_equal(host_virt_feature(h.vendor, HOST_nested_paging), "NPT");
    assert_int_equal(h.features[HOST_nested_paging], HOST_YES);
    assert_int_equal(h.features[HOST_tagged_tlb], HOST_YES);
    assert_int_equal(h.features[HOST_apic_virtualization], HOST_OFF);
    assert_int_equal(h.features[HOST_tsc_scaling], HOST_YES);
    assert_int_equal(h.features[HOST_nested_guests], HOST_YES);
}

/* A guest in a cloud: a KVM without the CPU's help, and a CPU without it. */
static void test_none(void **ctx)
{
    put("proc/cpuinfo", "flags\t\t: fpu sse2 hypervisor\n");
    put("sys/module/kvm_pvm/initstate", "live\n");
    struct host_virt h = host_with(false, false);
    assert_null(host_virt_vendor(h.vendor));
    assert_string_equal(h.module, "kvm_pvm");
    for (unsigned i = 0; i < HOST_N_FEATURES; i++)
        assert_int_equal(h.features[i], HOST_NO);
}

/* The CPU has it, the firmware not. And nothing is readable at all. */
static void test_off_and_unknown(void **ctx)
{
    put("proc/cpuinfo", "flags\t\t: fpu sse2\n");
    struct host_virt h = host_with(true, false);
    assert_true(h.off_in_firmware);
    assert_null(h.module);
    assert_int_equal(h.features[HOST_nested_paging], HOST_NO);
    put("proc/cpuinfo", "flags\t\t: fpu vmx ept\n"); /* KVM's module is not loaded */
    h = host_with(true, false);
    assert_false(h.off_in_firmware);
    assert_int_equal(h.features[HOST_nested_paging], HOST_UNKNOWN);
    host_virt_read(&h, &(struct host_virt_conf){.root = "/nonexistent", .vmx = true});
    assert_int_equal(h.features[HOST_nested_paging], HOST_UNKNOWN);
    assert_false(h.off_in_firmware);
}

static int check(void *opaque, int capability)
{
    ++*(int *)opaque;
    return capability == KVM_CAP_IRQFD ? 1 : capability == KVM_CAP_MAX_VCPUS ? 288 : 0;
}

static void test_capabilities(void **ctx)
{
    struct host_virt h;
    int n = 0;

    host_virt_read(&h, &(struct host_virt_conf){.root = root, .check = check, .opaque = &n});
    assert_true(h.asked);
    assert_int_equal(n, HOST_N_CAPABILITIES + 1);
    assert_int_equal(h.max_vcpus, 288);
    assert_int_equal(h.capabilities[HOST_CAP_irqfd], 1);
    assert_int_equal(h.capabilities[HOST_CAP_split_irqchip], 0);
    assert_string_equal(host_virt_capability_keys[HOST_CAP_split_irqchip], "split_irqchip");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_intel), TEST(test_old_intel),       TEST(test_amd),
        TEST(test_none),  TEST(test_off_and_unknown), TEST(test_capabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
