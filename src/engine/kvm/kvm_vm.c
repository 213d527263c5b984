/*
 * The VM: what is asked of the host's KVM, and which MSRs the kernel keeps. All of it once, when the VM is opened.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "x86/msr.h"

/* Four pages that Intel's KVM wants for itself in the guest's address space: below 4 GiB, where there is neither RAM nor a device. */
#define IDENTITY_ADDR UINT64_C(0xfffbc000)
#define TSS_ADDR      UINT64_C(0xfffbd000)

#define MSR_ARCH_CAPABILITIES 0x10au

/* What cannot be done without: capability, its name, Linux's version with it. */
static const struct {
    int capability;
    const char *name, *since;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "2.6.25"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS", "2.6.33"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS", "2.6.35"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE", "2.6.36"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS", "2.6.36"},
    {KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ", "2.6.39"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "4.13"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR", "5.10"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER", "5.10"},
    {KVM_CAP_SREGS2, "KVM_CAP_SREGS2", "5.14"},
};

/*
 * MSRs whose reads and writes the kernel answers: what the CPU itself holds, time, prediction. All others exit, and are those of every
 * engine (x86/msr.c). No filter holds for the x2APIC's: without a local APIC in the kernel they exit too.
 */
static const struct {
    uint32_t first, n;
} kept[] = {
    {0x10, 3},                   /* TSC; the paravirtual clock by its first MSRs */
    {0x3b, 1},                   /* TSC_ADJUST */
    {0x48, 2},                   /* SPEC_CTRL, PRED_CMD */
    {0x174, 3},                  /* SYSENTER_CS, _ESP, _EIP */
    {0x277, 1},                  /* PAT */
    {0xc0000080, 5},             /* EFER, STAR, LSTAR, CSTAR, SFMASK */
    {0xc0000100, 4},             /* FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX */
    {MSR_KVM_WALL_CLOCK_NEW, 2}, /* and MSR_KVM_SYSTEM_TIME_NEW */
    {0x1b, 1},                   /* APIC_BASE: the last ones only where local APICs are in the kernel */
    {0x6e0, 1},                  /* TSC_DEADLINE */
};
#define N_KEPT_OF_LAPIC 2
_Static_assert(ARRAY_SIZE(kept) <= KVM_MSR_FILTER_MAX_RANGES, "as many ranges as a filter may have");

int kvm_vm_ioctl(int fd, unsigned long request, const char *call, const void *arg, struct err *err)
{
    int r = ioctl(fd, request, arg);
    return r < 0 ? err_set(err, -errno, KVM_PROBE_DEVICE ": %s: %s", call, strerror(errno)) : r;
}

static int check_capabilities(struct engine *e, struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (ioctl(e->kvm, KVM_CHECK_EXTENSION, (unsigned long)needed[i].capability) <= 0)
            return err_set(err, -EOPNOTSUPP,
                           KVM_PROBE_DEVICE ": the kernel's KVM is too old: it lacks %s, which Linux has since %s",
                           needed[i].name, needed[i].since);
    int most = ioctl(e->kvm, KVM_CHECK_EXTENSION, (unsigned long)KVM_CAP_MAX_VCPUS);
    if (most > 0 && e->n_vcpus > (unsigned)most)
        return err_set(err, -EINVAL, KVM_PROBE_DEVICE ": %u vCPUs: this host's KVM has at most %d a VM", e->n_vcpus,
                       most);
    return 0;
}

static int filter_msrs(struct engine *e, struct err *err)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER},
    };
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    uint64_t all = UINT64_MAX; /* bitmaps are read by the kernel's word */

    for (size_t i = 0; i < ARRAY_SIZE(kept) - (e->has_lapics ? 0 : N_KEPT_OF_LAPIC); i++)
        filter.ranges[i] = (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                                         .base = kept[i].first,
                                                         .nmsrs = kept[i].n,
                                                         .bitmap = (uint8_t *)&all};
    int r = kvm_vm_ioctl(e->vm, KVM_ENABLE_CAP, "KVM_CAP_X86_USER_SPACE_MSR", &cap, err);
    return r < 0 ? r : kvm_vm_ioctl(e->vm, KVM_X86_SET_MSR_FILTER, "KVM_X86_SET_MSR_FILTER", &filter, err);
}

static uint64_t arch_capabilities(const struct engine *e)
{
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } arg = {.msrs.nmsrs = 1};

    arg.msrs.entries[0].index = MSR_ARCH_CAPABILITIES;
    return ioctl(e->kvm, KVM_GET_MSRS, &arg) == 1 ? arg.msrs.entries[0].data : 0;
}

static int add_vcpus(struct engine *e, struct err *err)
{
    int size = kvm_vm_ioctl(e->kvm, KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE", NULL, err);

    if (size < 0)
        return size;
    e->run_size = (size_t)size;
    e->vcpus = malloc(e->n_vcpus * sizeof(*e->vcpus));
    if (!e->vcpus)
        return err_set(err, -ENOMEM, "engine: out of memory");
    for (unsigned i = 0; i < e->n_vcpus; i++)
        e->vcpus[i] = -1;
    for (unsigned i = 0; i < e->n_vcpus; i++) {
        e->vcpus[i] = ioctl(e->vm, KVM_CREATE_VCPU, (unsigned long)i);
        if (e->vcpus[i] < 0)
            return err_set(err, -errno, KVM_PROBE_DEVICE ": vCPU %u: KVM_CREATE_VCPU: %s", i, strerror(errno));
    }
    return 0;
}

int kvm_vm_open(struct engine *e, const struct engine_conf *conf, struct err *err)
{
    const uint64_t identity = IDENTITY_ADDR;
    int r = kvm_probe_open(KVM_PROBE_DEVICE, &e->kvm, err);

    if (r == 0)
        r = check_capabilities(e, err);
    if (r == 0)
        r = kvm_cpuid_read_host(e, err);
    if (r < 0)
        return r;
    e->arch_capabilities = arch_capabilities(e);
    e->vm = ioctl(e->kvm, KVM_CREATE_VM, 0UL);
    if (e->vm < 0)
        return err_set(err, -errno, KVM_PROBE_DEVICE ": KVM_CREATE_VM: %s", strerror(errno));
    r = kvm_vm_ioctl(e->vm, KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR", &identity, err);
    if (r == 0)
        r = kvm_vm_ioctl(e->vm, KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", (const void *)(uintptr_t)TSS_ADDR, err);
    if (r == 0)
        r = kvm_memory_open(e, err);
    if (r == 0)
        r = kvm_irq_open(e, conf->irqchip, err);
    if (r == 0)
        r = kvm_memory_open_rings(e, conf->dirty_ring, err);
    if (r == 0)
        r = filter_msrs(e, err);
    if (r == 0)
        r = add_vcpus(e, err);
    return r < 0 ? r : kvm_time_open(e, err);
}

/* Also after a kvm_vm_open() that came half way. */
void kvm_vm_close(struct engine *e)
{
    for (unsigned i = 0; e->vcpus && i < e->n_vcpus; i++)
        if (e->vcpus[i] >= 0)
            close(e->vcpus[i]);
    free(e->vcpus);
    free(e->cpuid);
    kvm_irq_close(e);
    free(e->dirty);
    if (e->vm >= 0)
        close(e->vm);
    if (e->kvm >= 0)
        close(e->kvm);
}
