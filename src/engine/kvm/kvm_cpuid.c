/*
 * The guest's CPUID is the machine's own (x86/cpuid.h), the same as on every engine. Of the model `host` features go that this host's KVM cannot do;
 * where it lacks one of a named model's, there is no guest. The bits that follow a register (OSXSAVE, the sizes of XSAVE's area) the kernel keeps
 * by itself.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define HOST_ENTRIES_FIRST 64
#define HOST_ENTRIES_MOST  4096
#define ENTRIES_MOST       96
#define MISSING_SIZE       160

enum { EAX, EBX, ECX, EDX };

#define ECX1_X2APIC       (1u << 21)
#define ECX1_TSC_DEADLINE (1u << 24)
#define ECX1_HYPERVISOR   (1u << 31)
#define EDX1_APIC         (1u << 9)
#define EDX1_HTT          (1u << 28)

/*
 * The registers that hold feature bits; of them the guest has those that the host has, and those in `ours`, which are not KVM's but the machine's.
 * `never`, unless the kernel has the local APIC: the machine's timer follows the VM's clock, which the TSC that the CPU counts would drift away from.
 */
static const struct {
    uint32_t leaf, subleaf;
    int reg;
    uint32_t ours, never;
} masked[] = {
    {1, 0, ECX, ECX1_X2APIC | ECX1_HYPERVISOR, ECX1_TSC_DEADLINE},
    {1, 0, EDX, EDX1_APIC | EDX1_HTT, 0},
    {7, 0, EBX, 0, 0},
    {7, 0, ECX, 0, 0},
    {7, 0, EDX, 0, 0},
    {7, 2, EDX, 0, 0},
    {0xd, 0, EAX, 0, 0},
    {0xd, 1, EAX, 0, 0},
    {0x80000001, 0, ECX, 0, 0},
    {0x80000001, 0, EDX, 0, 0},
};

/* What there is: leaves in a row, each with so many subleaves where `indexed`. */
static const struct {
    uint32_t first, last, n_subleaves;
} leaves[] = {
    {0, 3, 0},
    {4, 4, 5},
    {5, 6, 0},
    {7, 7, 3},
    {8, 0xa, 0},
    {0xb, 0xb, 3},
    {0xc, 0xc, 0},
    {0xd, 0xd, 3},
    {0xe, 0x16, 0},
    {0x40000000, 0x40000001, 0},
    {0x40000010, 0x40000010, 0},
    {0x80000000, 0x80000008, 0},
};

int kvm_cpuid_read_host(struct engine *e, struct err *err)
{
    for (unsigned n = HOST_ENTRIES_FIRST; n <= HOST_ENTRIES_MOST; n *= 2) {
        struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + n * sizeof(cpuid->entries[0]));
        if (!cpuid)
            return err_set(err, -ENOMEM, "engine: out of memory");
        cpuid->nent = n;
        if (ioctl(e->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0) {
            e->cpuid = cpuid;
            break;
        }
        int error = errno;
        free(cpuid);
        if (error != E2BIG)
            return err_set(err, -error, KVM_PROBE_DEVICE ": KVM_GET_SUPPORTED_CPUID: %s", strerror(error));
    }
    if (!e->cpuid)
        return err_set(err, -E2BIG, KVM_PROBE_DEVICE ": KVM_GET_SUPPORTED_CPUID: more than %d entries",
                       HOST_ENTRIES_MOST);
    return 0;
}

static uint32_t register_of(const struct kvm_cpuid_entry2 *entry, int reg)
{
    const uint32_t regs[] = {entry->eax, entry->ebx, entry->ecx, entry->edx};
    return regs[reg];
}

static uint32_t of_host(const struct engine *e, uint32_t leaf, uint32_t subleaf, int reg)
{
    for (unsigned i = 0; i < e->cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &e->cpuid->entries[i];
        if (entry->function == leaf && (entry->index == subleaf || !(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return register_of(entry, reg);
    }
    return 0;
}

/* `missing`: takes the names of what goes. */
static void mask(const struct engine *e, struct kvm_cpuid_entry2 *entry, char missing[MISSING_SIZE])
{
    uint32_t *const regs[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};

    for (size_t i = 0; i < ARRAY_SIZE(masked); i++) {
        if (masked[i].leaf != entry->function || masked[i].subleaf != entry->index)
            continue;
        uint32_t *reg = regs[masked[i].reg];
        uint32_t can = of_host(e, entry->function, entry->index, masked[i].reg) | masked[i].ours;
        /* Of the kernel's local APIC KVM does not tell among what it supports. */
        can = e->has_lapics ? can | masked[i].never : can & ~masked[i].never;
        x86_cpuid_name_bits(entry->function, entry->index, (unsigned)masked[i].reg, *reg & ~can, missing, MISSING_SIZE);
        *reg &= can;
    }
}

/* The width of guest-physical addresses: the machine's, or as far as the host's CPU goes. */
static void limit_addresses(const struct engine *e, struct kvm_cpuid_entry2 *entry)
{
    uint32_t host = of_host(e, entry->function, 0, EAX) & 0xff;

    if (entry->function == 0x80000008 && host && host < (entry->eax & 0xff))
        entry->eax = (entry->eax & ~0xffu) | host;
}

static void add(const struct engine_vcpu *v, struct kvm_cpuid2 *out, uint32_t leaf, uint32_t subleaf, bool indexed,
                char missing[MISSING_SIZE])
{
    /* 64-bit code, since that is where SYSCALL's bit shows; no CR4.OSXSAVE, which the kernel adds. */
    struct x86_state st = {.efer = X86_EFER_LMA, .xcr0 = X86_XCR0_X87};
    struct kvm_cpuid_entry2 *entry = &out->entries[out->nent++];

    st.seg[X86_CS].attr = X86_SEG_L;
    const struct x86_cpuid_regs r = x86_cpuid(v->conf.cpuid, &st, true, leaf, subleaf);
    *entry = (struct kvm_cpuid_entry2){
        .function = leaf,
        .index = subleaf,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = r.eax,
        .ebx = r.ebx,
        .ecx = r.ecx,
        .edx = r.edx,
    };
    mask(v->engine, entry, missing);
    limit_addresses(v->engine, entry);
}

void kvm_cpuid_shown(struct engine_vcpu *v, uint32_t leaf, uint32_t subleaf, struct x86_cpuid_regs *r)
{
    struct kvm_cpuid_entry2 entry = {
        .function = leaf, .index = subleaf, .eax = r->eax, .ebx = r->ebx, .ecx = r->ecx, .edx = r->edx};
    char missing[MISSING_SIZE] = "";

    mask(v->engine, &entry, missing);
    limit_addresses(v->engine, &entry);
    *r = (struct x86_cpuid_regs){entry.eax, entry.ebx, entry.ecx, entry.edx};
}

static int make(const struct engine_vcpu *v, struct kvm_cpuid2 *out, struct err *err)
{
    enum x86_cpu_model model = v->conf.cpuid->conf.model;
    char missing[MISSING_SIZE] = "";

    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
        for (uint32_t leaf = leaves[i].first; leaf <= leaves[i].last; leaf++) {
            uint32_t n = leaves[i].n_subleaves;
            for (uint32_t subleaf = 0; subleaf < (n ? n : 1) && out->nent < ENTRIES_MOST; subleaf++)
                add(v, out, leaf, subleaf, n != 0, missing);
        }
    if (*missing && model != X86_CPU_HOST)
        return err_set(err, -EOPNOTSUPP, "CPU model %s: this host's KVM lacks %s", x86_cpuid_model_name(model),
                       missing);
    return 0;
}

int kvm_cpuid_make(const struct engine_vcpu *v, struct kvm_cpuid2 **out, struct err *err)
{
    *out = calloc(1, sizeof(**out) + ENTRIES_MOST * sizeof((*out)->entries[0]));
    if (!*out)
        return err_set(err, -ENOMEM, "engine: out of memory");
    int r = make(v, *out, err);
    if (r < 0) {
        free(*out);
        *out = NULL;
    }
    return r;
}

int kvm_cpuid_set(struct engine_vcpu *v, struct err *err)
{
    struct kvm_cpuid2 *cpuid;
    int r = kvm_cpuid_make(v, &cpuid, err);

    if (r < 0)
        return r;
    r = kvm_vm_ioctl(v->fd, KVM_SET_CPUID2, "KVM_SET_CPUID2", cpuid, err);
    free(cpuid);
    return r;
}
