/*
 * VMCALL and VMMCALL. A guest that finds KVM's signature in CPUID may call it, by either vendor's instruction: Linux's ptp_kvm does so
 * whatever the feature bits say. No call is offered, and the answer is KVM's for one it does not know (Linux,
 * Documentation/virt/kvm/x86/hypercalls.rst).
 *
 * Threads: the vCPU's own.
 */
#include "engine/interp/bind.h"

#define KVM_ENOSYS 1000
#define KVM_EPERM  1

static void op_hypercall(struct interp *c, const struct insn *in)
{
    int64_t answer = x86_cpl(&c->st) ? -KVM_EPERM : -KVM_ENOSYS;

    c->st.gpr[X86_RAX] = x86_code64(&c->st) ? (uint64_t)answer : (uint32_t)answer;
}

static interp_fn bind_hypercall(const struct x86_insn *xi, struct insn *in, const struct x86_cpuid *cpuid)
{
    return op_hypercall;
}

const struct bind_entry op_hypercall_binds[] = {
    {ZYDIS_MNEMONIC_VMCALL, bind_hypercall},
    {ZYDIS_MNEMONIC_VMMCALL, bind_hypercall},
    {0, NULL},
};
