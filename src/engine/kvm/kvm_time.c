/*
 * Time. The guest's TSC is the host's, scaled and moved by KVM, and counts at the rate that KVM names; kvm-clock is the kernel's. Both are to tell the
 * VM's time (core/clock.h), which stands still while the VM is paused: so whenever the VM's clock has been stopped, all TSCs are moved back by as
 * much, and kvm-clock is set. Of what is left, the host's TSC drifting against its CLOCK_MONOTONIC, guests see as much as on any machine
 * with two clocks.
 *
 * The first vCPU that enters measures where KVM's TSC stands against the VM's clock; the others take its figure, so that no two TSCs differ but
 * by what the guest has written.
 */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/ioctl.h>

#include "base/log.h"

#define MSR_TSC 0x10u

static int offset_attr(const struct engine_vcpu *v, unsigned long request, uint64_t *offset)
{
    const struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
    return ioctl(v->fd, request, &attr);
}

/* A rate within its tolerance KVM takes for the host's own; others it scales to, where the CPU can. */
static int set_rate(struct engine *e, int host_khz, struct err *err)
{
    uint64_t khz = e->tsc_hz / 1000;

    for (unsigned i = 0; i < e->n_vcpus; i++)
        if (ioctl(e->vcpus[i], KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
            return err_set(err, -EOPNOTSUPP,
                           KVM_PROBE_DEVICE ": the guest's TSC counts at %" PRIu64
                                            " kHz; this host's counts at %d kHz, and KVM_SET_TSC_KHZ says: %s",
                           khz, host_khz, strerror(errno));
    return 0;
}

int kvm_time_open(struct engine *e, struct err *err)
{
    const struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
    int khz = kvm_vm_ioctl(e->vcpus[0], KVM_GET_TSC_KHZ, "KVM_GET_TSC_KHZ", NULL, err);

    if (khz < 0)
        return khz;
    if (khz == 0)
        return err_set(err, -EOPNOTSUPP, KVM_PROBE_DEVICE ": KVM_GET_TSC_KHZ: the host's TSC has no rate");
    e->has_tsc_offset = ioctl(e->vcpus[0], KVM_HAS_DEVICE_ATTR, &attr) == 0;
    if (e->tsc_hz && e->tsc_hz / 1000 != (uint64_t)khz)
        return set_rate(e, khz, err);
    e->tsc_hz = (uint64_t)khz * 1000;
    return 0;
}

static uint64_t read_tsc(struct engine_vcpu *v)
{
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } m = {.msrs.nmsrs = 1};

    m.msrs.entries[0].index = MSR_TSC;
    return ioctl(v->fd, KVM_GET_MSRS, &m) == 1 ? m.msrs.entries[0].data : 0;
}

/* KVM's offset for a TSC that is clock_tsc(). */
static uint64_t measure_base(struct engine_vcpu *v)
{
    uint64_t offset = 0;

    (void)offset_attr(v, KVM_GET_DEVICE_ATTR, &offset);
    uint64_t before = clock_tsc(v->conf.clock);
    uint64_t tsc = read_tsc(v);
    uint64_t after = clock_tsc(v->conf.clock);
    return offset - tsc + before + (after - before) / 2;
}

static void set_kvm_clock(struct engine_vcpu *v)
{
    const struct kvm_clock_data data = {.clock = (uint64_t)clock_now(v->conf.clock)};

    if (ioctl(v->engine->vm, KVM_SET_CLOCK, &data) < 0)
        log_warn("KVM_SET_CLOCK: %s; the guest sees pauses", strerror(errno));
}

/* clock_offset: the VM's clock is that much behind the host's. Returns the base that goes with it. */
static uint64_t base_for(struct engine_vcpu *v, int64_t clock_offset)
{
    struct engine *e = v->engine;

    pthread_mutex_lock(&e->lock);
    if (!e->timed || e->clock_offset != clock_offset) {
        if (!e->timed)
            e->tsc_base = measure_base(v);
        else if (clock_offset > e->clock_offset)
            e->tsc_base -= clock_ticks(clock_offset - e->clock_offset, e->tsc_hz);
        e->timed = true;
        e->clock_offset = clock_offset;
        set_kvm_clock(v);
    }
    uint64_t base = e->tsc_base;
    pthread_mutex_unlock(&e->lock);
    return base;
}

static void apply(struct engine_vcpu *v)
{
    uint64_t offset = v->tsc_base + atomic_load(&v->conf.port->tsc_offset);

    (void)offset_attr(v, KVM_SET_DEVICE_ATTR, &offset);
}

void kvm_time_enter(struct engine_vcpu *v)
{
    int64_t clock_offset = atomic_load(&v->conf.clock->offset);

    if (LIKELY(v->timed && v->clock_offset == clock_offset) || !v->engine->has_tsc_offset)
        return;
    kvm_time_get(v);
    v->tsc_base = base_for(v, clock_offset);
    v->clock_offset = clock_offset;
    v->timed = true;
    apply(v);
}

void kvm_time_get(struct engine_vcpu *v)
{
    uint64_t offset;

    if (v->timed && offset_attr(v, KVM_GET_DEVICE_ATTR, &offset) == 0)
        atomic_store(&v->conf.port->tsc_offset, offset - v->tsc_base);
}

void kvm_time_set(struct engine_vcpu *v)
{
    if (v->timed)
        apply(v);
}
