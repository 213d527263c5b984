/* The engine's outside: its life, and what run, kick, get and set do is in the files beside. See kvm.h. */
#include "engine/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static int probe(uint64_t *rate, struct err *err)
{
    return kvm_probe(KVM_PROBE_DEVICE, rate, err);
}

static void engine_close(struct engine *e)
{
    kvm_vm_close(e);
    pthread_mutex_destroy(&e->dirty_lock);
    pthread_mutex_destroy(&e->irq_lock);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static int engine_open(struct engine **out, const struct engine_conf *conf, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));

    if (!e)
        return err_set(err, -ENOMEM, "engine: out of memory");
    e->ram = conf->ram;
    e->trace = conf->trace;
    e->n_vcpus = conf->n_vcpus;
    e->tsc_hz = conf->tsc_hz;
    e->kvm = e->vm = -1;
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->irq_lock, NULL);
    pthread_mutex_init(&e->dirty_lock, NULL);
    int r = kvm_run_open_signal(err);
    if (r == 0)
        r = kvm_vm_open(e, conf, err);
    if (r < 0) {
        engine_close(e);
        return r;
    }
    *out = e;
    return 0;
}

static uint64_t tsc_hz(const struct engine *e)
{
    return e->tsc_hz;
}

static const struct irqchip *irqchip(struct engine *e)
{
    return e->has_lapics ? &e->irqchip : NULL;
}

static const struct doorbells *doorbells(struct engine *e)
{
    return e->doorbells.set ? &e->doorbells : NULL;
}

static void vcpu_close(struct engine_vcpu *v)
{
    kvm_memory_unmap_ring(v);
    kvm_stats_close(v);
    if (v->run != MAP_FAILED)
        munmap(v->run, v->engine->run_size);
    free(v);
}

static int vcpu_open(struct engine *e, const struct engine_vcpu_conf *conf, struct engine_vcpu **out, struct err *err)
{
    struct engine_vcpu *v = aligned_alloc(_Alignof(struct engine_vcpu), sizeof(*v));
    struct x86_state st;

    if (!v)
        return err_set(err, -ENOMEM, "vCPU %u: out of memory", conf->index);
    *v = (struct engine_vcpu){
        .engine = e, .conf = *conf, .fd = e->vcpus[conf->index], .ring = MAP_FAILED, .stats_fd = -1};
    v->run = mmap(NULL, e->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    int r = v->run == MAP_FAILED ? err_set(err, -errno, "vCPU %u: its struct kvm_run: %s", conf->index, strerror(errno))
                                 : 0;
    if (r == 0)
        r = kvm_memory_map_ring(v, err);
    if (r == 0)
        r = kvm_cpuid_set(v, err);
    if (r < 0) {
        vcpu_close(v);
        return r;
    }
    kvm_stats_open(v);
    x86_state_reset(&st, conf->index == 0);
    kvm_state_set(v, &st);
    *out = v;
    return 0;
}

static void debug(struct engine_vcpu *v, struct engine_debug *want)
{
    v->debug = want;
}

const struct engine_type kvm_engine = {
    .name = "kvm",
    .probe = probe,
    .open = engine_open,
    .close = engine_close,
    .tsc_hz = tsc_hz,
    .irqchip = irqchip,
    .doorbells = doorbells,
    .rom = kvm_memory_rom,
    .dirty_start = kvm_memory_dirty_start,
    .dirty_read = kvm_memory_dirty_read,
    .dirty_stop = kvm_memory_dirty_stop,
    .vcpu_open = vcpu_open,
    .vcpu_close = vcpu_close,
    .cpuid = kvm_cpuid_shown,
    .run = kvm_run,
    .kick = kvm_run_kick,
    .get = kvm_state_get,
    .set = kvm_state_set,
    .debug = debug,
    .figures = kvm_stats_figures,
};
