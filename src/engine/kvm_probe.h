/*
 * Whether the host's KVM runs kernel code at a CPU's speed. That /dev/kvm opens does not say so: a KVM on page tables alone (PVM)
 * interprets ring 0, at a microsecond an instruction.
 */
#ifndef ENGINE_KVM_PROBE_H
#define ENGINE_KVM_PROBE_H

#include "base/err.h"

#define KVM_PROBE_DEVICE "/dev/kvm"
#define KVM_PROBE_LEAST  UINT64_C(100000000) /* instructions/s below which an interpreter in user space is as good */

/* Opens the device and makes sure that it is KVM, of the API's version. *fd: -1 where it is not. Any thread. */
int kvm_probe_open(const char *device, int *fd, struct err *err) MUST_CHECK;

/*
 * Runs a loop in ring 0 on a vCPU of a VM of its own, for some 5 ms; never for long, as a signal ends it.
 * *rate: guest instructions a second of CPU time; 0 where it did not come to that.
 * 0 when it is KVM (Linux, Documentation/virt/kvm/api.rst) and as fast as KVM_PROBE_LEAST; or -errno and the reason.
 *
 * Threads: any. Takes SIGRTMIN for the calling thread while it runs.
 */
int kvm_probe(const char *device, uint64_t *rate, struct err *err) MUST_CHECK;

#endif
