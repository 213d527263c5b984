/*
 * Several vCPUs for an image that asks for them: a VM with their local APICs and the port that ends it, no board. The image runs on vCPU 0,
 * and starts the others itself, by INIT and start-up IPIs.
 *
 * Threads: the caller's for the event loop, and one for each vCPU (vm/vm.h).
 */
#ifndef TESTS_ASM_SMP_H
#define TESTS_ASM_SMP_H

#include "device/apic_bus.h"
#include "vm/vm.h"

struct smp {
    struct vm vm;
    struct apic_bus bus;
    const struct x86_state *start; /* of vCPU 0 */
};

/* engine: its name; ram_size in bytes; ms: how long it may run. */
int smp_open(struct smp *smp, const char *engine, unsigned n_vcpus, uint64_t ram_size, unsigned ms,
             struct err *err) MUST_CHECK;
void smp_close(struct smp *smp);

/*
 * Runs vCPU 0 from `start` until the image writes to the debug exit (port 0xf4), which counts as HALT; SHUTDOWN for a triple fault of any
 * vCPU, KICKED when the time is over. Then *end has vCPU 0's registers, or those of the one that shut down.
 */
enum engine_exit smp_run(struct smp *smp, const struct x86_state *start, struct x86_state *end, struct err *err);

#endif
