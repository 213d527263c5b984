#include "smp.h"

#include <errno.h>

#include "device/debugexit.h"
#include "device/lapic.h"

#define CRYSTAL_HZ UINT64_C(25000000)

/* The others wait for their start-up IPI, as reset leaves them. */
static int boot(struct vm *vm, struct err *err)
{
    struct smp *smp = vm->machine;

    vcpu_set_state(vm->vcpus[0], smp->start);
    return 0;
}

static int open_devices(struct smp *smp, struct err *err)
{
    struct vm *vm = &smp->vm;
    int r = vm_add_device(vm, &debugexit_type, NULL, NULL, err);

    for (unsigned i = 0; i < vm->conf.n_vcpus && r == 0; i++) {
        struct vcpu *vcpu = vm->vcpus[i];
        const struct lapic_conf conf = {
            .apic_id = i,
            .bsp = i == 0,
            .phys_bits = VM_PHYS_BITS,
            .port = &vcpu->port,
            .mmio = &vcpu->mmio,
            .bus = &smp->bus,
        };
        r = vm_add_device(vm, &lapic_type, &conf, &vcpu->lapic, err);
        vcpu->lapic_init = lapic_init_reset;
    }
    return r;
}

int smp_open(struct smp *smp, const char *engine, unsigned n_vcpus, uint64_t ram_size, unsigned ms, struct err *err)
{
    const struct vm_conf conf = {
        .engine = engine_find(engine, err),
        .ram_size = ram_size,
        .ram_low_max = 2 * GIB,
        .n_vcpus = n_vcpus,
        .no_reboot = true,
        .timeout_ns = (int64_t)ms * 1000000,
        .crystal_hz = CRYSTAL_HZ,
    };

    *smp = (struct smp){0};
    if (!conf.engine)
        return -ENOENT;
    int r = vm_open(&smp->vm, &conf, err);
    if (r)
        return r;
    smp->vm.boot = boot;
    smp->vm.machine = smp;
    r = open_devices(smp, err);
    if (r)
        vm_close(&smp->vm);
    return r;
}

void smp_close(struct smp *smp)
{
    vm_close(&smp->vm);
}

enum engine_exit smp_run(struct smp *smp, const struct x86_state *start, struct x86_state *end, struct err *err)
{
    struct vm *vm = &smp->vm;

    smp->start = start;
    if (vm_run(vm, err))
        return ENGINE_FAIL;
    vcpu_get_state(vm->vcpus[0], end);
    switch (vm->end) {
    case VM_END_DEBUG:
        return ENGINE_HALT;
    case VM_END_CRASH:
        *end = vm->crash_state;
        return ENGINE_SHUTDOWN;
    case VM_END_TIMEOUT:
        return ENGINE_KICKED;
    default:
        return ENGINE_FAIL;
    }
}
