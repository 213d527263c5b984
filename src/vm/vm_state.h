/*
 * What a VM's saved state holds of the VM itself: memory and vCPUs. Devices have their own (device_state()), and src/machine/machine_state.c puts the
 * file together.
 *
 * Threads: the loop's, or before vm_run(); with every vCPU paused, and every device that works by itself.
 */
#ifndef VM_VM_STATE_H
#define VM_VM_STATE_H

#include "vm/state_file.h"
#include "vm/vm.h"

/* Rates of a guest's TSC that can be. */
#define VM_STATE_TSC_HZ_LEAST UINT64_C(1000000)
#define VM_STATE_TSC_HZ_MOST  UINT64_C(100000000000)

/* Whether saving is to end without a file, asked again and again meanwhile; or NULL. */
struct vm_state_stop {
    bool (*wanted)(void *opaque);
    void *opaque;
};

/*
 * Writes the memory as blocks of this kind, whose number is where in the RAM they belong, in bytes and not counting the PCI hole. Pages of zeroes are left
 * out. -errno of writing, -ECANCELED.
 */
int vm_state_save_ram(const struct vm *vm, struct state_file_writer *w, uint32_t kind,
                      const struct vm_state_stop *stop) MUST_CHECK;

/* One of these blocks, into RAM that reads as zeroes. -EPROTO: it lies beyond the end. */
int vm_state_load_ram(struct vm *vm, const struct state_file_block *block) MUST_CHECK;

/* A vCPU: registers, pins, and the offset of its TSC. The clock and its rate are set before. Look at s->error. */
void vm_state_vcpu(struct vcpu *vcpu, struct stream *s);

/* When all vCPUs are loaded. */
void vm_state_loaded(struct vm *vm);

#endif
