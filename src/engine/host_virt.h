/*
 * What this host has for hardware-assisted virtualization: what the CPU can do, whether KVM makes use of it, and what its KVM offers to programs.
 *
 * Threads: any.
 */
#ifndef ENGINE_HOST_VIRT_H
#define ENGINE_HOST_VIRT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

/* Of a CPU's feature. */
enum host_state {
    HOST_UNKNOWN, /* the host does not say */
    HOST_NO,      /* not there */
    HOST_OFF,     /* the CPU has it, and KVM does not use it */
    HOST_YES,
};

enum host_vendor { HOST_NONE, HOST_VTX, HOST_AMDV };

/* FEATURE(key, text, VT-x's name of it, AMD-V's) */
#define HOST_FEATURES(FEATURE)                                                             \
    FEATURE(nested_paging, "nested paging", "EPT", "NPT")                                  \
    FEATURE(tagged_tlb, "tagged TLB", "VPID", "ASID")                                      \
    FEATURE(apic_virtualization, "virtual local APIC", "APICv", "AVIC")                    \
    FEATURE(posted_interrupts, "posted interrupts", "posted interrupts", "AVIC doorbells") \
    FEATURE(tsc_scaling, "TSC scaling", "TSC scaling", "TSC ratio")                        \
    FEATURE(nested_guests, "nested guests", "nested VMX", "nested SVM")

#define HOST_FEATURE_ENUM(key, text, vtx, amdv) HOST_##key,
enum host_feature { HOST_FEATURES(HOST_FEATURE_ENUM) HOST_N_FEATURES };
#undef HOST_FEATURE_ENUM

/* What KVM offers to programs (Linux, Documentation/virt/kvm/api.rst): CAPABILITY(key, text, KVM_CAP_ suffix). */
#define HOST_CAPABILITIES(CAPABILITY)                                    \
    CAPABILITY(irqchip, "irqchip", IRQCHIP)                              \
    CAPABILITY(split_irqchip, "split irqchip", SPLIT_IRQCHIP)            \
    CAPABILITY(irqfd, "irqfd", IRQFD)                                    \
    CAPABILITY(ioeventfd, "ioeventfd", IOEVENTFD)                        \
    CAPABILITY(msi_routing, "MSI routing", IRQ_ROUTING)                  \
    CAPABILITY(x2apic_api, "x2APIC IDs", X2APIC_API)                     \
    CAPABILITY(readonly_memory, "read-only memory", READONLY_MEM)        \
    CAPABILITY(dirty_ring, "dirty ring", DIRTY_LOG_RING)                 \
    CAPABILITY(coalesced_mmio, "coalesced MMIO", COALESCED_MMIO)         \
    CAPABILITY(tsc_control, "TSC rate", TSC_CONTROL)                     \
    CAPABILITY(user_space_msr, "MSRs to user space", X86_USER_SPACE_MSR) \
    CAPABILITY(binary_stats, "statistics", BINARY_STATS_FD)

#define HOST_CAPABILITY_ENUM(key, text, cap) HOST_CAP_##key,
enum host_capability { HOST_CAPABILITIES(HOST_CAPABILITY_ENUM) HOST_N_CAPABILITIES };
#undef HOST_CAPABILITY_ENUM

struct host_virt {
    enum host_vendor vendor;
    bool off_in_firmware; /* the CPU has it, and Linux does not list it */
    const char *module;   /* of the kernel, that runs guests: "kvm_intel" and so on; NULL: none that is known */
    enum host_state features[HOST_N_FEATURES];
    bool asked;                            /* KVM has answered: what follows is set */
    int capabilities[HOST_N_CAPABILITIES]; /* KVM_CHECK_EXTENSION's answers, 0 for no */
    int max_vcpus;
};

/* Where to look. `root` stands before /proc and /sys; vmx, svm: what CPUID says; check: KVM_CHECK_EXTENSION, or NULL where no KVM can be asked. */
struct host_virt_conf {
    const char *root;
    bool vmx, svm;
    int (*check)(void *opaque, int capability);
    void *opaque;
};

void host_virt_read(struct host_virt *host, const struct host_virt_conf *conf);

/* This host, and the KVM at `device`, which need not be there. */
void host_virt_survey(struct host_virt *host, const char *device);

/* Names: "VT-x", or NULL for none; of a feature, as that vendor calls it; of a state, "yes". */
const char *host_virt_vendor(enum host_vendor vendor);
const char *host_virt_feature(enum host_vendor vendor, enum host_feature feature);
const char *host_virt_state(enum host_state state);

extern const char *const host_virt_feature_keys[HOST_N_FEATURES], *const host_virt_feature_texts[HOST_N_FEATURES];
extern const char *const host_virt_capability_keys[HOST_N_CAPABILITIES],
    *const host_virt_capability_texts[HOST_N_CAPABILITIES];

#endif
